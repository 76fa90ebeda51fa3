//! OpenTelemetry traces of requests and commands, sent over OTLP/HTTP to `otlp_endpoint`.
//!
//! ```text
//! POST /pin                      a request, below the caller's span if it sent `traceparent`
//!   command pin                  with the event id
//!     worker demo-1:0            from when it was asked until it answered
//! ```
//! Only in builds with the feature `otlp`; without it nothing here does anything. Spans wait in a
//! bounded queue and are lost when the collector cannot keep up: nobody waits for it. The
//! environment variables of OpenTelemetry's SDK (`OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`) count, and
//! for `https` those that name certificates (`OTEL_EXPORTER_OTLP_CERTIFICATE`, ..`_CLIENT_CERTIFICATE`,
//! ..`_CLIENT_KEY`).

#[cfg(feature = "otlp")]
mod client;
#[cfg(feature = "otlp")]
mod spans;

#[cfg(not(feature = "otlp"))]
mod spans {
    //! Nothing is traced.

    use std::time::Duration;

    use axum::extract::Request;
    use kvatlas_controller::events::EventId;
    use kvatlas_protocol::WorkerKey;
    use tokio::runtime::Handle;

    use super::TracesError;

    /// Traces being sent; nothing in this build.
    pub struct Traces;

    impl Traces {
        /// Refused: this build has no exporter.
        pub fn start(_: &str, _: Handle) -> Result<Self, TracesError> {
            Err(TracesError::NotBuilt)
        }

        /// Nothing waits.
        pub fn stop(self) {}
    }

    /// A request under way.
    pub struct RequestSpan;

    impl RequestSpan {
        /// Begins with the request.
        pub fn begin(_: &Request) -> Self {
            Self
        }

        /// Runs what belongs to it.
        pub async fn around<F: Future>(&self, work: F) -> F::Output {
            work.await
        }

        /// Ends with the answer.
        pub fn end(self, _: u16) {}
    }

    /// A command under way.
    pub struct CommandSpan;

    impl CommandSpan {
        /// Begins within the request that is under way.
        pub fn begin(_: &'static str, _: &EventId) -> Self {
            Self
        }

        /// A worker has answered after `took`.
        pub fn answered(&self, _: &WorkerKey, _: Duration, _: Option<&str>) {}

        /// Ends with the command.
        pub fn end(self, _: Option<String>) {}
    }
}

pub use spans::{CommandSpan, RequestSpan, Traces};

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The exporter was left out.
    #[error("otlp_endpoint is set, but this build has no exporter: build with --features otlp")]
    NotBuilt,
    /// Not something that can be connected to.
    #[error(
        "otlp_endpoint {0:?} is no address such as http://127.0.0.1:4318 or https://collector:4318"
    )]
    Address(String),
    /// The exporter refuses.
    #[error("cannot send traces: {0}")]
    Exporter(String),
}
