//! Spans by OpenTelemetry's SDK. Until [`Traces::start`] none is made.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use axum::extract::{MatchedPath, Request};
use axum::http::Uri;
use kvatlas_controller::events::EventId;
use kvatlas_protocol::WorkerKey;
use opentelemetry::context::FutureExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use super::TracesError;
use super::client::Client;
use crate::tls::client::{Files, Trust};

/// Where OTLP/HTTP takes traces.
const PATH: &str = "/v1/traces";

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Traces being sent.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends what happens from now on to `endpoint`, over connections on `runtime`.
    pub fn start(endpoint: &str, runtime: Handle) -> Result<Self, TracesError> {
        let address = || TracesError::Address(endpoint.to_owned());
        let uri = Uri::try_from(endpoint).map_err(|_| address())?;
        if uri.authority().is_none() || uri.query().is_some() {
            return Err(address());
        }
        let trust = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(trust()?),
            _ => return Err(address()),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(runtime, trust))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
            .build()
            .map_err(|error| TracesError::Exporter(error.to_string()))?;
        let resource = Resource::builder()
            .with_service_name("kvatlas")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        // A second start in one process would keep the first's.
        let _ = TRACER.set(provider.tracer("kvatlas"));
        Ok(Self(provider))
    }

    /// Sends what waits; the runtime must still be there.
    pub fn stop(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Whom the collector must be vouched for by, from OpenTelemetry's own variables.
fn trust() -> Result<Trust, TracesError> {
    let path = |name: &str| {
        let general = std::env::var(format!("OTEL_EXPORTER_OTLP_{name}"));
        let own = std::env::var(format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
        own.or(general).ok().filter(|path| !path.is_empty())
    };
    let files = Files {
        ca_cert: path("CERTIFICATE"),
        client_cert: path("CLIENT_CERTIFICATE"),
        client_key: path("CLIENT_KEY"),
    };
    Trust::load(&files).map_err(|error| TracesError::Exporter(error.to_string()))
}

/// A request under way.
pub struct RequestSpan(Option<Context>);

impl RequestSpan {
    /// Begins with the request, below the span named in its `traceparent`.
    pub fn begin(request: &Request) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
        // Paths that nobody knows are not repeated: a scan would make a name of each.
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map_or("unknown path", MatchedPath::as_str).to_owned();
        let method = request.method().to_string();
        let span = tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route),
            ])
            .start_with_context(tracer, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// Runs what belongs to it.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }

    /// Ends with the answer.
    pub fn end(self, status: u16) {
        let Some(context) = self.0 else {
            return;
        };
        let span = context.span();
        let code = KeyValue::new("http.response.status_code", i64::from(status));
        span.set_attribute(code);
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// A command under way.
pub struct CommandSpan(Option<Context>);

impl CommandSpan {
    /// Begins within the request that is under way.
    pub fn begin(command: &'static str, id: &EventId) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let parent = Context::current();
        let span = tracer
            .span_builder(format!("command {command}"))
            .with_attributes([KeyValue::new("event_id", id.to_string())])
            .start_with_context(tracer, &parent);
        Self(Some(parent.with_span(span)))
    }

    /// A worker has answered after `took`.
    pub fn answered(&self, worker: &WorkerKey, took: Duration, error: Option<&str>) {
        let (Some(tracer), Some(context)) = (TRACER.get(), &self.0) else {
            return;
        };
        let now = SystemTime::now();
        let span = tracer
            .span_builder(format!("worker {worker}"))
            .with_kind(SpanKind::Client)
            .with_start_time(now.checked_sub(took).unwrap_or(now))
            .start_with_context(tracer, context);
        let context = context.with_span(span);
        let span = context.span();
        if let Some(error) = error {
            span.set_status(Status::error(error.to_owned()));
        }
        span.end_with_timestamp(now);
    }

    /// Ends with the command, and its error if it has failed.
    pub fn end(self, error: Option<String>) {
        let Some(context) = self.0 else {
            return;
        };
        let span = context.span();
        if let Some(error) = error {
            span.set_status(Status::error(error));
        }
        span.end();
    }
}
