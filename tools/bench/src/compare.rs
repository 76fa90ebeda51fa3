//! Two results against each other, number by number.

use crate::record::Line;
use crate::summary::{Summary, sections};
use crate::table::number;

/// Every number that both results have; a change is called one only if the ranges do not overlap.
pub(crate) fn text(before: &[Line], after: &[Line]) -> String {
    let old = sections(before);
    let mut out = String::new();
    let mut n_compared = 0;
    for section in sections(after) {
        let Some(old) = old.iter().find(|old| old.case == section.case) else {
            continue;
        };
        out.push_str(&format!("\n{}\n", section.case));
        for row in &section.rows {
            let same = |old: &&crate::summary::Row| {
                old.metric == row.metric && old.instances == row.instances
            };
            let Some(old_row) = old.rows.iter().find(same) else {
                continue;
            };
            for subject in &section.subjects {
                let cells = (old.cell(old_row, subject), section.cell(row, subject));
                let (Some(before), Some(after)) = cells else {
                    continue;
                };
                n_compared += 1;
                out.push_str(&format!(
                    "  {:<14} {:>5}  {:<36} {:>12} -> {:>12} {:>8}  {}\n",
                    subject,
                    row.instances,
                    format!("{}, {}", row.metric, row.unit),
                    number(before.median()),
                    number(after.median()),
                    change(before, after),
                    verdict(before, after, row.more_is_better),
                ));
            }
        }
    }
    if n_compared == 0 {
        return "nothing that both results have\n".to_owned();
    }
    out
}

fn change(before: &Summary, after: &Summary) -> String {
    let percent = (after.median() / before.median() - 1.0) * 100.0;
    if percent.is_finite() {
        format!("{percent:+.1} %")
    } else {
        String::new()
    }
}

fn verdict(before: &Summary, after: &Summary, more_is_better: bool) -> &'static str {
    let rose = after.min() > before.max();
    let fell = after.max() < before.min();
    match (rose, fell) {
        (false, false) => "",
        (rose, _) if rose == more_is_better => "better",
        _ => "worse",
    }
}

#[cfg(test)]
mod tests {
    use crate::summary::tests::samples;

    #[test]
    fn only_ranges_apart_are_a_change() {
        let before = [
            samples("ingest", "a", 4, "rate", &[10.0, 11.0, 12.0]),
            samples("ingest", "a", 4, "noisy", &[10.0, 20.0]),
            samples("ingest", "a", 4, "gone", &[1.0]),
        ]
        .concat();
        let after = [
            samples("ingest", "a", 4, "rate", &[8.0, 9.0, 7.0]),
            samples("ingest", "a", 4, "noisy", &[19.0, 29.0]),
        ]
        .concat();
        let text = super::text(&before, &after);
        let line = |metric: &str| {
            let mut lines = text.lines();
            lines
                .find(|line| line.contains(metric))
                .unwrap_or_default()
                .to_owned()
        };
        assert!(line("rate").ends_with("worse"), "{text}");
        assert!(line("rate").contains("-27.3 %"), "{text}");
        assert!(
            line("noisy").contains("24.0") && !line("noisy").ends_with('r'),
            "{text}"
        );
        assert_eq!(line("gone"), "");
        assert!(super::text(&before, &[]).starts_with("nothing"));
    }
}
