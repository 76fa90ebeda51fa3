//! Results as text: median, with the smallest and largest value in brackets.

use crate::record::Line;
use crate::summary::{Row, Section, Summary, sections};

/// Everything, as aligned columns.
pub(crate) fn text(lines: &[Line]) -> String {
    let mut out = String::new();
    for section in sections(lines) {
        let mut rows = vec![head(&section)];
        rows.extend(section.rows.iter().map(|row| columns(&section, row)));
        out.push_str(&format!("\n{}\n", section.case));
        let widths = (0..rows[0].len()).map(|at| rows.iter().map(|row| width(&row[at])).max());
        let widths: Vec<usize> = widths.map(Option::unwrap_or_default).collect();
        for row in &rows {
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - self::width(cell));
                let cell = match at {
                    0 => format!("  {cell}{pad}"),
                    _ => format!("  {pad}{cell}"),
                };
                out.push_str(&cell);
            }
            out.push('\n');
        }
    }
    out
}

/// One section as a Markdown table.
pub(crate) fn markdown(section: &Section) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head = head(section);
    let rule: Vec<String> = (0..head.len())
        .map(|at| if at == 0 { "---" } else { "---:" }.to_owned())
        .collect();
    let mut out = line(&head) + &line(&rule);
    for row in &section.rows {
        out.push_str(&line(&columns(section, row)));
    }
    out
}

fn head(section: &Section) -> Vec<String> {
    let mut head = vec![String::new()];
    if has_fleets(section) {
        head.push("instances".to_owned());
    }
    head.extend(section.subjects.iter().cloned());
    if section.subjects.len() == 2 {
        head.push("ratio".to_owned());
    }
    head
}

fn columns(section: &Section, row: &Row) -> Vec<String> {
    let mut columns = vec![format!("{}, {}", row.metric, row.unit)];
    if has_fleets(section) {
        columns.push(row.instances.to_string());
    }
    columns.extend(row.cells.iter().map(|cell| {
        cell.as_ref().map_or_else(
            || "–".to_owned(),
            |cell| match cell.trials() {
                1 => number(cell.median()),
                _ => format!(
                    "{} [{} … {}]",
                    number(cell.median()),
                    number(cell.min()),
                    number(cell.max())
                ),
            },
        )
    }));
    if let [first, second] = row.cells.as_slice() {
        columns.push(ratio(row, first.as_ref(), second.as_ref()));
    }
    columns
}

/// How many times better the first subject is than the second.
pub(crate) fn ratio(row: &Row, first: Option<&Summary>, second: Option<&Summary>) -> String {
    let (Some(first), Some(second)) = (first, second) else {
        return "–".to_owned();
    };
    let better = if row.more_is_better {
        first.median() / second.median()
    } else {
        second.median() / first.median()
    };
    if better.is_finite() && better > 0.0 {
        format!("{}×", number(better))
    } else {
        "–".to_owned()
    }
}

fn has_fleets(section: &Section) -> bool {
    section.rows.iter().any(|row| row.instances > 0)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Three significant digits; thousands with a comma.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    if size < 1000.0 {
        let digits = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
        return format!("{value:.digits$}");
    }
    let unit = 10_f64.powi(size.log10().floor() as i32 - 2);
    let rounded = format!("{:.0}", (value / unit).round() * unit);
    let mut out = String::new();
    for (at, digit) in rounded.char_indices() {
        let left = rounded.len() - at;
        if at > 0 && left.is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::samples;

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.001_234, "0.00123"),
            (3.006, "3.01"),
            (42.42, "42.4"),
            (999.4, "999"),
            (1_234_567.0, "1,230,000"),
            (12_345.0, "12,300"),
            (-1_234.0, "-1,230"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn two_subjects_are_set_against_each_other() {
        let lines = [
            samples("ingest", "kvatlas", 4, "rate", &[300.0, 100.0, 200.0]),
            samples("ingest", "other", 4, "rate", &[50.0]),
        ]
        .concat();
        let text = text(&lines);
        assert!(text.contains("200 [100 … 300]"), "{text}");
        assert!(text.contains("4.00×"), "{text}");
        let markdown = markdown(&sections(&lines)[0]);
        assert!(
            markdown.contains("| rate, 1/s | 4 | 200 [100 … 300] | 50.0 | 4.00× |"),
            "{markdown}"
        );
    }
}
