//! Bar charts as SVG, on a logarithmic scale: what is compared differs by orders of magnitude.

use crate::summary::{Row, Section};
use crate::table::number;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 36.0;
/// Colors of the subjects, in their order; distinguishable without color vision.
const COLORS: [&str; 6] = [
    "#0b6e99", "#e8a33d", "#8c8c8c", "#7a4fa3", "#3d8b5f", "#b4443c",
];

/// One metric of a section: a group of bars per fleet, a bar per subject. `None` if it has no rows.
pub(crate) fn bars(section: &Section, metric: &str, title: &str) -> Option<String> {
    let rows: Vec<&Row> = section
        .rows
        .iter()
        .filter(|row| row.metric == metric)
        .collect();
    let medians = rows.iter().flat_map(|row| row.cells.iter().flatten());
    let medians: Vec<f64> = medians
        .map(|cell| cell.median())
        .filter(|&median| median > 0.0)
        .collect();
    let first = rows.first()?;
    let low = medians.iter().copied().reduce(f64::min)?.log10().floor();
    let high = medians.iter().copied().reduce(f64::max)?.log10().ceil();
    let high = if high > low { high } else { low + 1.0 };
    let plot = HEIGHT - TOP - BOTTOM;
    let y = |value: f64| TOP + plot * (high - value.log10()) / (high - low);

    let better = if first.more_is_better { "more" } else { "less" };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\" font-weight=\"bold\" fill=\"#222222\">{title}</text>\n\
         <text x=\"{}\" y=\"20\" text-anchor=\"end\" fill=\"#666666\">{}, logarithmic; {better} is better</text>\n",
        WIDTH - 12.0,
        escape(&first.unit),
    );
    let mut power = low;
    while power <= high {
        let at = y(10_f64.powf(power));
        out.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666666\">{}</text>\n",
            WIDTH - 12.0,
            LEFT - 6.0,
            at + 4.0,
            number(10_f64.powf(power)),
        ));
        power += 1.0;
    }
    let group = (WIDTH - LEFT - 12.0) / rows.len() as f64;
    let bar = (group * 0.8 / section.subjects.len() as f64).min(70.0);
    for (row, n_group) in rows.iter().zip(0..) {
        let middle = LEFT + group * (f64::from(n_group) + 0.5);
        let from = middle - bar * section.subjects.len() as f64 / 2.0;
        for ((cell, color), at) in row.cells.iter().zip(COLORS.iter().cycle()).zip(0..) {
            let Some(median) = cell.as_ref().map(|cell| cell.median()) else {
                continue;
            };
            let x = from + bar * f64::from(at);
            let top = if median > 0.0 { y(median) } else { TOP + plot };
            out.push_str(&format!(
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\" fill=\"#222222\">{}</text>\n",
                x + 1.0,
                bar - 2.0,
                (TOP + plot - top).max(1.0),
                x + bar / 2.0,
                top - 3.0,
                number(median),
            ));
        }
        if row.instances > 0 {
            out.push_str(&format!(
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#222222\">{} instances</text>\n",
                HEIGHT - BOTTOM + 18.0,
                row.instances,
            ));
        }
    }
    let mut x = LEFT;
    for (subject, color) in section.subjects.iter().zip(COLORS.iter().cycle()) {
        out.push_str(&format!(
            "<rect x=\"{x:.1}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{color}\"/>\n\
             <text x=\"{:.1}\" y=\"39\" fill=\"#222222\">{}</text>\n",
            x + 14.0,
            escape(subject),
        ));
        x += 34.0 + 7.0 * subject.chars().count() as f64;
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::summary::{sections, tests::samples};

    #[test]
    fn more_is_taller_and_zero_is_drawn() {
        let lines = [
            samples("ingest", "a<b", 4, "rate", &[1000.0]),
            samples("ingest", "c", 4, "rate", &[10.0]),
            samples("ingest", "c", 50, "rate", &[0.0]),
        ]
        .concat();
        let section = &sections(&lines)[0];
        let svg = bars(section, "rate", "Ingest").unwrap();
        let heights: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("<rect x=") && !line.contains("y=\"30\""))
            .map(|line| {
                let rest = line.split("height=\"").nth(1).unwrap();
                rest.split('"').next().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(heights, [206.0, 1.0, 1.0]);
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"));
        assert_eq!(bars(section, "absent", ""), None);
    }
}
