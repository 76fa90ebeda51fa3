//! The way to the collector: one HTTP/1.1 connection a batch, over TLS for `https`, bounded in time.
//!
//! Batches come from the exporter's own thread, so the connection runs on the server's runtime. What
//! cannot be sent is lost, and said once a minute.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::HOST;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Request, Response, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::tls::client::Trust;

/// Longest that a batch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Time between two lines about batches that were not sent.
const QUIET: Duration = Duration::from_secs(60);

/// Sends batches on the server's runtime.
pub(super) struct Client {
    runtime: Handle,
    /// For `https`.
    trust: Option<Trust>,
    last_said: Mutex<Option<Instant>>,
}

impl Client {
    pub(super) fn new(runtime: Handle, trust: Option<Trust>) -> Self {
        Self {
            runtime,
            trust,
            last_said: Mutex::default(),
        }
    }

    fn failed(&self, why: &dyn fmt::Display) {
        let now = Instant::now();
        let mut last = self.last_said.lock();
        if last.is_none_or(|last| now.duration_since(last) >= QUIET) {
            *last = Some(now);
            drop(last);
            tracing::warn!(%why, "traces cannot be sent and are lost; further failures are not told for a minute");
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

type Answer = Result<Response<Bytes>, HttpError>;

impl HttpClient for Client {
    // What `async_trait` would write.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let trust = self.trust.clone();
            // The timer belongs to the runtime too.
            let sending = async { tokio::time::timeout(TIMEOUT, send(request, trust)).await? };
            let answer = self.runtime.spawn(sending).await?;
            match &answer {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => self.failed(&answer.status()),
                Err(error) => self.failed(error),
            }
            answer
        })
    }
}

async fn send(request: Request<Bytes>, trust: Option<Trust>) -> Answer {
    let (mut head, body) = request.into_parts();
    let authority = head
        .uri
        .authority()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let usual = if trust.is_some() { 443 } else { 80 };
    let port = authority.port_u16().unwrap_or(usual);
    let name = authority.host().trim_matches(['[', ']']).to_owned();
    let host = HeaderValue::try_from(authority.as_str())?;
    head.headers.insert(HOST, host);
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    head.uri = Uri::try_from(path)?;
    let request = Request::from_parts(head, Body::from(body));
    let stream = TcpStream::connect((name.as_str(), port)).await?;
    match trust {
        None => exchange(stream, request).await,
        Some(trust) => exchange(trust.connect(&name, stream).await?, request).await,
    }
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the collector ended");
        }
    });
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = to_bytes(Body::new(body), MAX_ANSWER).await?;
    Ok(Response::from_parts(head, body))
}
