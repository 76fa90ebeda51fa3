//! Progress of a command, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// A bar of workers that are done.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `None` where nobody watches: standard error is where progress goes.
    pub(super) fn new() -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} workers  {elapsed}")
        {
            bar.set_style(style);
        }
        // Short commands end before they are drawn twice.
        bar.enable_steady_tick(Duration::from_millis(200));
        Some(Self(bar))
    }

    pub(super) fn show(&self, event: &Value) {
        let steps = event["steps"].as_array().map_or(&[][..], Vec::as_slice);
        let done = steps.iter().filter(|step| step["state"] != "running");
        self.0.set_length(steps.len() as u64);
        self.0.set_position(done.count() as u64);
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
