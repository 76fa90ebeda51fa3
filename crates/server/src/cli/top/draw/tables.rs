//! The tables of workers and of full syncs.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table};

use super::super::data::{Incomplete, Location, Persistence, SyncLocation, SyncWorker, Worker};
use super::super::model::Model;
use super::{Look, Tone, about, bytes, count, nothing, seconds};

/// Width from which addresses are shown.
const WIDE: u16 = 130;
/// Width from which bars are shown.
const BARS: u16 = 100;
/// Width from which keys are shown by location.
const MIDDLE: u16 = 70;
/// Room for the longest name of a worker.
const NAMES: (usize, usize) = (6, 32);

pub(super) fn fleet(frame: &mut Frame, area: Rect, model: &Model, look: Look) {
    let Some(fleet) = &model.fleet else {
        return nothing(frame, area, &["waiting for the workers"]);
    };
    if fleet.total_count == 0 {
        let lines = [
            "no worker is registered",
            "kvatlas diagnose says what to check",
        ];
        return nothing(frame, area, &lines);
    }
    let (head, body) = split(area);
    // The page that is here may be of another scroll, for as long as the next one takes.
    let skipped = model.scroll.saturating_sub(fleet.offset);
    let rows: Vec<_> = fleet.workers.iter().skip(skipped).collect();
    let shown = rows.len().min(usize::from(body.height.saturating_sub(1)));
    let text = about(model, shown, fleet.matching_count, fleet.total_count);
    frame.render_widget(Line::from(look.span(Tone::Soft, text)), head);
    let most = rows
        .iter()
        .flat_map(|worker| &worker.locations)
        .map(|one| one.key_count);
    let most = most.max().unwrap_or(1).max(1);
    let wide = area.width >= WIDE;
    let middle = area.width >= MIDDLE;
    let bars = area.width >= BARS;
    let names = rows
        .iter()
        .take(shown)
        .map(|one| name(&one.instance_id, one.worker_id));
    let mut columns = vec![("worker", longest(names))];
    if wide {
        columns.push(("address", Constraint::Length(21)));
    }
    columns.extend([
        ("last sign of life", Constraint::Length(17)),
        ("keys", Constraint::Length(8)),
    ]);
    if middle {
        columns.push(("by location", Constraint::Fill(1)));
    }
    columns.extend([
        ("gaps", Constraint::Length(6)),
        ("reports", Constraint::Length(12)),
    ]);
    let lines = rows.into_iter().take(shown).map(|worker| {
        let mut cells = vec![Cell::from(name(&worker.instance_id, worker.worker_id))];
        if wide {
            cells.push(Cell::from(format!("{}:{}", worker.ip, worker.port)));
        }
        cells.extend([
            Cell::from(sign(worker, look)),
            Cell::from(count(worker.key_count as f64)),
        ]);
        if middle {
            let line = locations(&worker.locations, most, bars, look);
            cells.push(Cell::from(line));
        }
        cells.extend([
            Cell::from(match worker.gaps {
                0 => Span::raw("0"),
                gaps => look.span(Tone::Warn, count(gaps as f64)),
            }),
            Cell::from(reports(&worker.locations, look)),
        ]);
        cells
    });
    table(frame, body, model, look, columns, lines);
}

pub(super) fn sync(frame: &mut Frame, area: Rect, model: &Model, look: Look) {
    let Some(sync) = &model.sync else {
        return nothing(frame, area, &["waiting for the full syncs"]);
    };
    if sync.workers.is_empty() {
        return nothing(frame, area, &["no worker is registered: nothing to sync"]);
    }
    let (head, body) = split(area);
    let text = format!(
        "ready {:.0} %  syncing {}  batches missing {}  gaps {}  disk {}",
        sync.progress * 100.0,
        sync.workers_syncing,
        sync.missing_batches,
        sync.sequence_gaps,
        disk(&sync.persistence),
    );
    let tone = match sync.persistence.state.as_str() {
        "failing" => Tone::Bad,
        _ => Tone::Soft,
    };
    let mut line = vec![look.span(tone, text)];
    if sync.workers_incomplete > 0 {
        let incomplete = count(sync.workers_incomplete as f64);
        line.insert(
            0,
            look.span(Tone::Bad, format!("incomplete {incomplete}  ")),
        );
    }
    frame.render_widget(Line::from(line), head);
    let names = sync
        .workers
        .iter()
        .map(|one| name(&one.instance_id, one.worker_id));
    let columns = vec![
        ("worker", longest(names)),
        ("location", Constraint::Length(12)),
        ("state", Constraint::Length(12)),
        ("why", Constraint::Fill(1)),
        ("batches", Constraint::Length(13)),
        ("keys", Constraint::Length(8)),
        ("gaps", Constraint::Length(6)),
    ];
    let rows = sync.workers.iter().flat_map(|worker| {
        let none = worker.locations.is_empty().then_some((worker, None));
        let some = worker.locations.iter().map(move |one| (worker, Some(one)));
        none.into_iter().chain(some)
    });
    let rows = rows
        .skip(model.scroll)
        .take(usize::from(body.height.saturating_sub(1)))
        .map(|(worker, one)| sync_row(worker, one, look));
    table(frame, body, model, look, columns, rows);
}

fn sync_row<'m>(
    worker: &'m SyncWorker,
    one: Option<&'m SyncLocation>,
    look: Look,
) -> Vec<Cell<'m>> {
    let wanted = worker.sync_wanted.as_ref().map(|want| want.reason.as_str());
    let batches = one.and_then(|one| Some((one.batches_received?, one.batches_announced?)));
    vec![
        Cell::from(name(&worker.instance_id, worker.worker_id)),
        Cell::from(one.map_or("-", |one| short(&one.location))),
        Cell::from(one.map_or(look.span(Tone::Soft, "no report"), |one| {
            let state = state(&one.state, one.incomplete.as_ref());
            look.span(tone(state), state)
        })),
        Cell::from(match one.and_then(|one| one.incomplete.as_ref()) {
            Some(Incomplete { limit }) => format!("{limit} is reached"),
            None => {
                let reason = one.and_then(|one| one.reason.as_deref());
                reason.or(wanted).unwrap_or("").into()
            }
        }),
        Cell::from(batches.map_or(String::new(), |(received, announced)| {
            format!("{} of {}", count(received as f64), count(announced as f64))
        })),
        Cell::from(count(
            one.map_or(worker.key_count, |one| one.key_count) as f64
        )),
        Cell::from(one.map_or(String::new(), |one| count(one.sequence_gaps as f64))),
    ]
}

fn split(area: Rect) -> (Rect, Rect) {
    let head = Rect {
        height: area.height.min(1),
        ..area
    };
    let body = Rect {
        y: area.y + head.height,
        height: area.height - head.height,
        ..area
    };
    (head, body)
}

fn table<'m>(
    frame: &mut Frame,
    area: Rect,
    model: &Model,
    look: Look,
    columns: Vec<(&'static str, Constraint)>,
    rows: impl Iterator<Item = Vec<Cell<'m>>>,
) {
    let cursor = model.selected - model.scroll.min(model.selected);
    let rows = rows.enumerate().map(|(at, cells)| {
        let style = match at == cursor {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        Row::new(cells).style(style)
    });
    let heading = Row::new(columns.iter().map(|(name, _)| *name)).style(look.style(Tone::Strong));
    let widths = columns.iter().map(|(_, width)| *width);
    let table = Table::new(rows, widths).header(heading).column_spacing(1);
    frame.render_widget(table, area);
}

/// Silence that is normal (heartbeats come every 10 s), worth a look, alarming.
fn sign<'m>(worker: &Worker, look: Look) -> Line<'m> {
    let (word, tone) = match worker.silent_s {
        s if s < 30.0 => ("alive", Tone::Good),
        s if s < 120.0 => ("quiet", Tone::Warn),
        _ => ("silent", Tone::Bad),
    };
    Line::from(vec![
        look.span(tone, word),
        look.span(Tone::Soft, format!(" {} ago", seconds(worker.silent_s))),
    ])
}

fn locations<'m>(locations: &'m [Location], most: u64, bars: bool, look: Look) -> Line<'m> {
    let mut spans = Vec::new();
    for one in locations {
        let name = short(&one.location);
        spans.push(Span::raw(format!(
            "{name} {} ",
            count(one.key_count as f64)
        )));
        if bars {
            let bar = look.bar(one.key_count as f64 / most as f64, 6);
            spans.push(look.span(Tone::Busy, format!("{bar} ")));
        }
    }
    Line::from(spans)
}

fn name(instance: &str, worker: i64) -> String {
    format!("{instance}:{worker}")
}

/// A column for names, wide enough for those that are not too long.
fn longest(names: impl Iterator<Item = String>) -> Constraint {
    let longest = names.map(|name| Span::raw(name).width()).max();
    let width = longest.unwrap_or(0).clamp(NAMES.0, NAMES.1);
    Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))
}

/// A location's name without what all of them have.
fn short(location: &str) -> &str {
    let name = location.strip_prefix("Local").unwrap_or(location);
    name.strip_suffix("Backend").unwrap_or(name)
}

fn reports<'m>(locations: &'m [Location], look: Look) -> Line<'m> {
    let states = locations
        .iter()
        .map(|one| state(&one.sync, one.incomplete.as_ref()));
    let mut states: Vec<&str> = states.collect();
    states.sort_unstable();
    states.dedup();
    // What is wrong says more, and there is little room.
    if states.len() > 1 {
        states.retain(|state| *state != "in sync");
    }
    let mut spans = Vec::new();
    for state in states {
        spans.push(look.span(tone(state), state));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

/// With keys missing a location is not in sync, whatever its numbers say.
fn state<'m>(state: &'m str, incomplete: Option<&Incomplete>) -> &'m str {
    match incomplete {
        Some(_) if state == "in sync" => "incomplete",
        _ => state,
    }
}

fn tone(state: &str) -> Tone {
    match state {
        "in sync" => Tone::Good,
        "incomplete" => Tone::Bad,
        "wanted" => Tone::Warn,
        "running" => Tone::Busy,
        "unrepairable" => Tone::Bad,
        _ => Tone::Soft,
    }
}

fn disk(kept: &Persistence) -> String {
    match kept.state.as_str() {
        "failing" => {
            let reason = kept.reason.as_deref().unwrap_or("no reason given");
            format!("FAILS: {reason}")
        }
        "off" => "off: nothing is kept".into(),
        "" => String::new(),
        state => format!("{state}, journal {}", bytes(kept.journal_bytes)),
    }
}
