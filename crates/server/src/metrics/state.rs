//! Kept state in Prometheus's text.

use super::text::Page;
use crate::store::{Health, Status};

/// The lines about `status`; none if no state is kept.
pub fn render(status: &Status) -> String {
    let mut page = Page::default();
    if status.health != Health::Off {
        page.single(
            "kvatlas_state_working",
            "Whether state is kept on disk (1) or that fails (0)",
            "gauge",
            f64::from(u8::from(status.health == Health::Working)),
        );
        page.single(
            "kvatlas_state_journal_bytes",
            "Bytes of journals that a restart would replay",
            "gauge",
            status.journal_bytes as f64,
        );
    }
    if let Some(written) = &status.last_snapshot {
        for (name, help, value) in [
            (
                "kvatlas_state_snapshot_timestamp_seconds",
                "When the last snapshot was begun",
                written.at.as_secs_f64(),
            ),
            (
                "kvatlas_state_snapshot_seconds",
                "Time the last snapshot took",
                written.took.as_secs_f64(),
            ),
            (
                "kvatlas_state_snapshot_bytes",
                "Bytes of the last snapshot",
                written.bytes as f64,
            ),
            (
                "kvatlas_state_snapshot_keys",
                "Keys in the last snapshot",
                written.keys as f64,
            ),
        ] {
            page.single(name, help, "gauge", value);
        }
    }
    page.into_text()
}
