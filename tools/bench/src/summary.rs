//! Samples of several trials become a median with its smallest and largest value.

use crate::record::{Line, Sample};

/// What several trials found of one number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    /// Ascending; at least one.
    values: Vec<f64>,
}

impl Summary {
    pub(crate) fn median(&self) -> f64 {
        let middle = self.values.len() / 2;
        if self.values.len().is_multiple_of(2) {
            f64::midpoint(self.values[middle - 1], self.values[middle])
        } else {
            self.values[middle]
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.values[0]
    }

    pub(crate) fn max(&self) -> f64 {
        self.values[self.values.len() - 1]
    }

    pub(crate) fn trials(&self) -> usize {
        self.values.len()
    }
}

/// One number, of every subject that has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) instances: usize,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) more_is_better: bool,
    /// By subject, in the order of the section's.
    pub(crate) cells: Vec<Option<Summary>>,
}

/// All numbers of one case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub(crate) case: String,
    pub(crate) subjects: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

impl Section {
    /// The cell of a subject.
    pub(crate) fn cell<'s>(&self, row: &'s Row, subject: &str) -> Option<&'s Summary> {
        let at = self.subjects.iter().position(|known| known == subject)?;
        row.cells.get(at)?.as_ref()
    }
}

/// Everything, in the order in which it first appeared; rows of a case by metric, then by fleet.
pub(crate) fn sections(lines: &[Line]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in lines {
        if let Line::Sample(sample) = line {
            let at = sections
                .iter()
                .position(|section| section.case == sample.case);
            let at = at.unwrap_or_else(|| {
                sections.push(Section {
                    case: sample.case.clone(),
                    subjects: Vec::new(),
                    rows: Vec::new(),
                });
                sections.len() - 1
            });
            sections[at].add(sample);
        }
    }
    for section in &mut sections {
        section.finish();
    }
    sections
}

impl Section {
    fn add(&mut self, sample: &Sample) {
        let subject = position(&mut self.subjects, &sample.subject);
        let value = &sample.value;
        let row = self
            .rows
            .iter()
            .position(|row| row.instances == sample.instances && row.metric == value.metric);
        let row = row.unwrap_or_else(|| {
            self.rows.push(Row {
                instances: sample.instances,
                metric: value.metric.clone(),
                unit: value.unit.clone(),
                more_is_better: value.more_is_better,
                cells: Vec::new(),
            });
            self.rows.len() - 1
        });
        let cells = &mut self.rows[row].cells;
        if cells.len() <= subject {
            cells.resize(subject + 1, None);
        }
        let empty = Summary { values: Vec::new() };
        let values = &mut cells[subject].get_or_insert(empty).values;
        let at = values.partition_point(|known| known.total_cmp(&value.value).is_lt());
        values.insert(at, value.value);
    }

    fn finish(&mut self) {
        let mut metrics: Vec<String> = Vec::new();
        for row in &mut self.rows {
            row.cells.resize(self.subjects.len(), None);
            position(&mut metrics, &row.metric);
        }
        self.rows
            .sort_by_key(|row| (position(&mut metrics, &row.metric), row.instances));
    }
}

fn position(names: &mut Vec<String>, name: &str) -> usize {
    names
        .iter()
        .position(|known| known == name)
        .unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::Value;

    /// Samples of one metric, a trial each.
    pub(crate) fn samples(
        case: &str,
        subject: &str,
        instances: usize,
        metric: &str,
        values: &[f64],
    ) -> Vec<Line> {
        let sample = |(&value, trial)| {
            Line::Sample(Sample {
                case: case.to_owned(),
                subject: subject.to_owned(),
                instances,
                trial,
                value: Value::more(metric, "1/s", value),
            })
        };
        values.iter().zip(0..).map(sample).collect()
    }

    #[test]
    fn medians_rows_and_missing_cells() {
        let lines = [
            samples("ingest", "a", 50, "rate", &[5.0, 1.0, 3.0]),
            samples("ingest", "a", 4, "rate", &[1.0, 2.0]),
            samples("ingest", "a", 4, "cpu", &[7.0]),
            samples("ingest", "b", 4, "rate", &[9.0]),
        ]
        .concat();
        let sections = sections(&lines);
        let [section] = sections.as_slice() else {
            panic!("{sections:?}");
        };
        let shape: Vec<_> = section
            .rows
            .iter()
            .map(|row| (row.metric.as_str(), row.instances))
            .collect();
        assert_eq!(shape, [("rate", 4), ("rate", 50), ("cpu", 4)]);
        let of = |row: usize, subject| section.cell(&section.rows[row], subject);
        let median = |row, subject| of(row, subject).map(Summary::median);
        assert_eq!(median(0, "a"), Some(1.5));
        assert_eq!(median(0, "b"), Some(9.0));
        assert_eq!(median(1, "b"), None);
        let wide = of(1, "a").map(|cell| (cell.min(), cell.median(), cell.max(), cell.trials()));
        assert_eq!(wide, Some((1.0, 3.0, 5.0, 3)));
    }
}
