//! The log in Prometheus's text.

use super::text::Page;

/// The line about `dropped` log lines.
pub fn render(dropped: u64) -> String {
    let mut page = Page::default();
    page.single(
        "kvatlas_log_lines_dropped_total",
        "Log lines that nobody read in time",
        "counter",
        dropped as f64,
    );
    page.into_text()
}
