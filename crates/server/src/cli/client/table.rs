//! Columns that line up.

/// Rows under a heading; numbers stand right.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut widths = heading.map(width);
    for row in &rows {
        for (wide, cell) in widths.iter_mut().zip(row) {
            *wide = (*wide).max(width(cell));
        }
    }
    let mut out = String::new();
    line(&mut out, &heading.map(str::to_owned), &widths);
    for row in &rows {
        line(&mut out, row, &widths);
    }
    out
}

fn line<const N: usize>(out: &mut String, cells: &[String; N], widths: &[usize; N]) {
    let mut text = String::new();
    for (at, (cell, wide)) in cells.iter().zip(widths).enumerate() {
        if at > 0 {
            text.push_str("  ");
        }
        let gap = " ".repeat(wide - width(cell));
        // A number is a digit and what may follow one: a unit, a percent sign.
        if cell.starts_with(|first: char| first.is_ascii_digit()) && !cell.contains(':') {
            text.push_str(&gap);
            text.push_str(cell);
        } else {
            text.push_str(cell);
            text.push_str(&gap);
        }
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_left_and_numbers_right() {
        let rows = vec![
            ["engine-1".to_owned(), "512".to_owned(), "x".to_owned()],
            ["b".to_owned(), "8".to_owned(), String::new()],
        ];
        assert_eq!(
            table(["INSTANCE", "TOKENS", "ERROR"], rows),
            "INSTANCE  TOKENS  ERROR\n\
             engine-1     512  x\n\
             b              8\n"
        );
    }
}
