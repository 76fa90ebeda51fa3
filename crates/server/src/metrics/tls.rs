//! Certificates of the HTTP front in Prometheus's text.

use super::text::Page;
use crate::tls::front::Status;

/// The lines about `status`; zeros without TLS, so that rules about it always find something.
pub fn render(status: Status) -> String {
    let mut page = Page::default();
    page.single(
        "kvatlas_tls_certificate_expiry_timestamp_seconds",
        "When the certificate served expires; 0 without TLS",
        "gauge",
        status.expires as f64,
    );
    let name = "kvatlas_tls_reloads_total";
    page.head(name, "Changed certificate files, by result", "counter");
    for (result, count) in [("applied", status.applied), ("refused", status.refused)] {
        page.sample(name, &[("result", result)], count as f64);
    }
    page.into_text()
}
