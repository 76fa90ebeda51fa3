//! The fleet in numbers and how they came about: figures, charts of the last minutes, and, where there is
//! room, the instances with most keys.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Sparkline;

use super::super::data::{Lookups, Sample};
use super::super::model::Model;
use super::{Look, Tone, bytes, count, nothing, seconds};

/// Seconds that charts show at most, and at least.
const SPAN: (f64, f64) = (300.0, 30.0);
/// Seconds over which a rate is taken.
const RATE: f64 = 5.0;
/// Width from which the instances stand beside the charts.
const WIDE: u16 = 110;
/// Width from which charts stand in two columns.
const TWO_COLUMNS: u16 = 60;
/// What a chart is scaled to: its values are whole numbers.
const SCALE: f64 = 1000.0;

/// What happened between two samples.
struct Rates {
    operations: f64,
    lookups: f64,
    peer_lookups: f64,
    hit_rate: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
}

pub(super) fn draw(frame: &mut Frame, area: Rect, model: &Model, look: Look) {
    let Some(now) = model.samples.back() else {
        return nothing(frame, area, &["waiting for the first sample"]);
    };
    let [figures, rest] = Layout::vertical([Constraint::Length(4), Constraint::Min(0)]).areas(area);
    let rates = between(before(&model.samples, now.at - RATE), now, &model.bounds);
    draw_figures(frame, figures, now, &rates, look);
    if now.workers == 0 && now.operations == 0 {
        let lines = [
            "no worker is registered yet",
            "kvatlas demo shows a fleet; kvatlas diagnose says what to check",
        ];
        return nothing(frame, rest, &lines);
    }
    let [charts, instances] = match area.width >= WIDE {
        true => Layout::horizontal([Constraint::Min(0), Constraint::Length(44)]).areas(rest),
        false => [rest, Rect::default()],
    };
    draw_charts(frame, charts, model, now, look);
    draw_instances(frame, instances, model, look);
}

fn draw_figures(frame: &mut Frame, area: Rect, now: &Sample, rates: &Rates, look: Look) {
    let percent =
        |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.0} %", share * 100.0));
    let time = |bound: Option<f64>| bound.map_or("-".into(), seconds);
    let gaps = match now.gaps {
        0 => Tone::Good,
        _ => Tone::Warn,
    };
    let lines: [[(&str, String, Tone); 4]; 3] = [
        [
            ("workers", count(now.workers as f64), Tone::Strong),
            ("operations/s", count(rates.operations), Tone::Strong),
            ("lookups/s", count(rates.lookups), Tone::Strong),
            ("gaps", count(now.gaps as f64), gaps),
        ],
        [
            ("instances", count(now.instances as f64), Tone::Strong),
            ("keys", count(now.keys as f64), Tone::Strong),
            ("hit rate", percent(rates.hit_rate), Tone::Strong),
            (
                "bad messages",
                count(now.bad_messages as f64),
                if now.bad_messages == 0 {
                    Tone::Good
                } else {
                    Tone::Warn
                },
            ),
        ],
        [
            (
                "syncing",
                count(now.workers_syncing as f64),
                if now.workers_syncing == 0 {
                    Tone::Good
                } else {
                    Tone::Busy
                },
            ),
            ("index", bytes(now.index_bytes), Tone::Strong),
            (
                "p50, p99",
                format!("{}, {}", time(rates.p50), time(rates.p99)),
                Tone::Strong,
            ),
            ("peer lookups/s", count(rates.peer_lookups), Tone::Strong),
        ],
    ];
    let width = usize::from(area.width / 4).max(18);
    for (row, figures) in (0..).zip(lines) {
        let mut spans = Vec::new();
        for (name, value, tone) in figures {
            let blank = width.saturating_sub(name.len() + 1 + value.chars().count());
            spans.push(look.span(Tone::Soft, format!("{name} ")));
            spans.push(look.span(tone, value));
            spans.push(Span::raw(" ".repeat(blank)));
        }
        let line = Rect {
            y: area.y + row,
            height: 1,
            ..area
        };
        if line.y < area.bottom() {
            frame.render_widget(Line::from(spans), line);
        }
    }
}

fn draw_charts(frame: &mut Frame, area: Rect, model: &Model, now: &Sample, look: Look) {
    type Read = fn(&Sample, &Rates) -> Option<f64>;
    type Show = fn(f64) -> String;
    let charts: [(&str, Read, Show); 6] = [
        ("keys", |sample, _| Some(sample.keys as f64), count),
        ("operations/s", |_, rates| Some(rates.operations), count),
        ("lookups/s", |_, rates| Some(rates.lookups), count),
        (
            "hit rate, %",
            |_, rates| rates.hit_rate.map(|share| share * 100.0),
            count,
        ),
        ("lookup latency, p99", |_, rates| rates.p99, seconds),
        ("workers", |sample, _| Some(sample.workers as f64), count),
    ];
    let columns = if area.width < TWO_COLUMNS { 1 } else { 2 };
    // A title and a row each, at least.
    let fit = usize::from(area.height / 2) * columns;
    let shown = &charts[..charts.len().min(fit)];
    let n_rows = shown.len().div_ceil(columns);
    if n_rows == 0 {
        return;
    }
    let rows = Layout::vertical(vec![Constraint::Fill(1); n_rows]).split(area);
    for (at, (name, read, show)) in shown.iter().enumerate() {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); columns])
            .spacing(2)
            .split(rows[at / columns]);
        let cell = cells[at % columns];
        let values = columns_of(model, now, usize::from(cell.width), *read);
        let known = || values.iter().flatten().copied();
        let most = known().fold(0.0, f64::max);
        let last = known().next_back();
        let title = Line::from(vec![
            look.span(Tone::Strong, *name),
            Span::raw(format!(" {}", last.map_or("-".into(), show))),
            look.span(Tone::Soft, format!("  most {}", show(most))),
        ]);
        frame.render_widget(title, Rect { height: 1, ..cell });
        let chart = Rect {
            y: cell.y + 1,
            height: cell.height.saturating_sub(1).min(8),
            ..cell
        };
        let scaled = values
            .iter()
            .map(|value| value.map(|value| (value / most.max(1e-9) * SCALE) as u64));
        let line = Sparkline::default()
            .data(scaled.collect::<Vec<_>>())
            .max(SCALE as u64)
            .bar_set(look.bars())
            .absent_value_symbol(" ")
            .style(look.style(Tone::Busy));
        frame.render_widget(line, chart);
    }
}

/// One value for each column of a chart, the latest at the right.
fn columns_of(
    model: &Model,
    now: &Sample,
    width: usize,
    read: fn(&Sample, &Rates) -> Option<f64>,
) -> Vec<Option<f64>> {
    let first = model.samples.front().map_or(now.at, |sample| sample.at);
    let step = (now.at - first).clamp(SPAN.1, SPAN.0) / width.max(1) as f64;
    (0..width)
        .map(|column| {
            let end = now.at - step * (width - 1 - column) as f64;
            if end < first {
                return None;
            }
            let sample = before(&model.samples, end);
            let earlier = before(&model.samples, sample.at - RATE.max(step));
            read(sample, &between(earlier, sample, &model.bounds))
        })
        .collect()
}

fn draw_instances(frame: &mut Frame, area: Rect, model: &Model, look: Look) {
    let most = model
        .instances
        .first()
        .map_or(1, |one| one.key_count.max(1));
    let title = look.span(Tone::Strong, "  instances by keys");
    let first = Rect {
        height: area.height.min(1),
        ..area
    };
    frame.render_widget(Line::from(title), first);
    for (row, one) in (1..area.height).zip(&model.instances) {
        let line = Rect {
            y: area.y + row,
            height: 1,
            ..area
        };
        let name: String = one.instance_id.chars().take(20).collect();
        let bar = look.bar(one.key_count as f64 / most as f64, 12);
        let text = format!("  {name:<20} {:>7} ", count(one.key_count as f64));
        let spans = vec![Span::raw(text), look.span(Tone::Busy, bar)];
        frame.render_widget(Line::from(spans), line);
    }
}

/// The last sample at `time` or before; the first if there is none.
fn before(samples: &VecDeque<Sample>, time: f64) -> &Sample {
    let after = samples.partition_point(|sample| sample.at <= time);
    &samples[after.saturating_sub(1)]
}

fn between(earlier: &Sample, later: &Sample, bounds: &[f64]) -> Rates {
    let time = (later.at - earlier.at).max(1e-3);
    // Counters may have been set to zero.
    let rate = |earlier: u64, later: u64| later.saturating_sub(earlier) as f64 / time;
    let all = |lookups: &Lookups| lookups.hits + lookups.misses;
    let (hits, lookups) = (
        later.lookups.hits.saturating_sub(earlier.lookups.hits),
        all(&later.lookups).saturating_sub(all(&earlier.lookups)),
    );
    let quantile = |share| {
        quantile(
            &earlier.lookups.latency,
            &later.lookups.latency,
            bounds,
            share,
        )
    };
    Rates {
        operations: rate(earlier.operations, later.operations),
        lookups: rate(all(&earlier.lookups), all(&later.lookups)),
        peer_lookups: rate(all(&earlier.peer_lookups), all(&later.peer_lookups)),
        hit_rate: (lookups > 0).then(|| hits as f64 / lookups as f64),
        p50: quantile(0.5),
        p99: quantile(0.99),
    }
}

/// Upper bound of the bucket that has the quantile of what came between two histograms.
fn quantile(earlier: &[u64], later: &[u64], bounds: &[f64], share: f64) -> Option<f64> {
    let came = |at: usize| {
        let before = earlier.get(at).copied().unwrap_or(0);
        later.get(at).copied().unwrap_or(0).saturating_sub(before)
    };
    let all = came(later.len().checked_sub(1)?);
    if all == 0 {
        return None;
    }
    let bucket = (0..later.len()).find(|at| came(*at) as f64 >= share * all as f64)?;
    bounds.get(bucket).or(bounds.last()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, hits: u64, misses: u64, latency: &[u64]) -> Sample {
        Sample {
            at,
            operations: 100 * hits,
            lookups: Lookups {
                hits,
                misses,
                latency: latency.to_vec(),
            },
            ..Sample::default()
        }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let bounds = [0.001, 0.01];
        let first = sample(10.0, 10, 10, &[20, 20, 20]);
        let last = sample(15.0, 25, 15, &[30, 40, 40]);
        let rates = between(&first, &last, &bounds);
        assert_eq!((rates.operations, rates.lookups), (300.0, 4.0));
        assert_eq!(rates.hit_rate, Some(0.75));
        assert_eq!((rates.p50, rates.p99), (Some(0.001), Some(0.01)));
        // Nothing came, and counters set to zero.
        for (first, last) in [(&last, &last), (&last, &first)] {
            let rates = between(first, last, &bounds);
            assert_eq!(
                (rates.operations, rates.hit_rate, rates.p99),
                (0.0, None, None)
            );
        }
    }

    #[test]
    fn beyond_all_bounds_is_the_last_bound() {
        assert_eq!(quantile(&[0, 0], &[0, 4], &[0.5], 0.5), Some(0.5));
        assert_eq!(quantile(&[], &[], &[], 0.5), None);
        assert_eq!(quantile(&[1], &[3, 5], &[], 0.5), None);
    }
}
