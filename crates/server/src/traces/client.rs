//! The way to the collector: one HTTP/1.1 connection a batch, in clear text, bounded in time.
//!
//! Batches come from the exporter's own thread, so the connection runs on the server's runtime.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::HOST;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Request, Response, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Longest that a batch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends batches on the server's runtime.
#[derive(Debug)]
pub(super) struct Client(pub(super) Handle);

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
            // The timer belongs to the runtime too.
            let sending = async { tokio::time::timeout(TIMEOUT, send(request)).await? };
            self.0.spawn(sending).await?
        })
    }
}

async fn send(request: Request<Bytes>) -> Answer {
    let (mut head, body) = request.into_parts();
    let authority = head
        .uri
        .authority()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let host = HeaderValue::try_from(authority.as_str())?;
    head.headers.insert(HOST, host);
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    head.uri = Uri::try_from(path)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the collector ended");
        }
    });
    let request = Request::from_parts(head, Body::from(body));
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = to_bytes(Body::new(body), MAX_ANSWER).await?;
    Ok(Response::from_parts(head, body))
}
