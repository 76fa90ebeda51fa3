//! Prometheus's text format, version 0.0.4, with numbers as Python's client library writes them.

use std::fmt::Write;

use super::histogram::{BOUNDS, Histogram};

/// A page being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// The lines that introduce a metric.
    pub(super) fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One value.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let value = number(value);
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    /// A metric of one value.
    pub(super) fn single(&mut self, name: &str, help: &str, kind: &str, value: f64) {
        self.head(name, help, kind);
        self.sample(name, &[], value);
    }

    /// A histogram without labels.
    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let counts = histogram.cumulative();
        let bucket = format!("{name}_bucket");
        for (bound, count) in BOUNDS.iter().zip(counts) {
            self.sample(&bucket, &[("le", &number(*bound))], count as f64);
        }
        let all = counts[BOUNDS.len()] as f64;
        self.sample(&bucket, &[("le", "+Inf")], all);
        self.sample(&format!("{name}_sum"), &[], histogram.seconds());
        self.sample(&format!("{name}_count"), &[], all);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A float as Python's client library prints it: `3.0`, `0.5`, from a million on `1.5e+06`.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let text = if value != 0.0 && (value.abs() < 1e-4 || value.abs() >= 1e16) {
        python_exponent(value)
    } else {
        format!("{value:?}")
    };
    match text.find('.') {
        Some(dot) if value > 0.0 && dot > 6 => {
            let (whole, fraction) = (&text[..dot], &text[dot + 1..]);
            let digits = format!("{}.{}{fraction}", &whole[..1], &whole[1..]);
            let mantissa = digits.trim_end_matches(['0', '.']);
            format!("{mantissa}e+0{}", dot - 1)
        }
        _ => text,
    }
}

/// The exponent form of Python's `repr`: at least two digits after the sign.
fn python_exponent(value: f64) -> String {
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let power: i32 = exponent.parse().unwrap_or(0);
            let sign = if power < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", power.abs())
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        for (value, text) in [
            (0.0, "0.0"),
            (3.0, "3.0"),
            (0.8, "0.8"),
            (999_999.0, "999999.0"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (12_345_678_901.5, "1.23456789015e+010"),
            (1e-5, "1e-05"),
            (2.5e-5, "2.5e-05"),
            (1e16, "1e+16"),
            (0.000_25, "0.00025"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
