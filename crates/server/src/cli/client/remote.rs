//! HTTP to a controller: one request a connection, JSON both ways.
//!
//! Over `https://` the controller must show a certificate that a trusted authority gave its name. An
//! answer is read up to a limit: the other side may be anything that listens on that port.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, to_bytes};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{Method, Request, Uri, header};
use futures_util::StreamExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::tls::TlsError;
use crate::tls::client::{Files, Trust};

/// Port of a controller when the URL names none.
const DEFAULT_PORT: u16 = 9000;

/// The same with `https://`: as everywhere, because something else may end the TLS.
const DEFAULT_TLS_PORT: u16 = 443;

/// Largest answer read, in bytes: ten thousand events of eight workers each are half of it.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A controller somewhere.
#[derive(Clone)]
pub struct Remote {
    authority: Authority,
    /// What stands in the URL before the endpoints' paths, without a slash at the end.
    prefix: String,
    token: Option<String>,
    /// For `https://`.
    trust: Option<Trust>,
}

/// What it said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Value,
}

/// A URL that leads to no controller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{url:?} is not a controller's URL, such as http://127.0.0.1:9000: {reason}")]
pub struct UrlError {
    url: String,
    reason: String,
}

/// Nobody to call.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// No answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody there.
    #[error("cannot reach {authority}: {source}")]
    Unreachable {
        /// Who was called.
        authority: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Somebody, who did not speak HTTP or fell silent.
    #[error("{authority} gave no usable answer: {reason}")]
    Garbled {
        /// Who was called.
        authority: String,
        /// What was wrong.
        reason: String,
    },
}

impl Remote {
    /// The controller at `url`, called with `token` as bearer if there is one, over TLS with `files`
    /// if the URL says so.
    pub fn new(url: &str, token: Option<String>, files: &Files) -> Result<Self, RemoteError> {
        let refuse = |reason: &str| {
            RemoteError::Url(UrlError {
                url: url.to_owned(),
                reason: reason.to_owned(),
            })
        };
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = full
            .parse()
            .map_err(|error: axum::http::uri::InvalidUri| refuse(&error.to_string()))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse("only http:// and https:// are spoken")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("no host"))?.clone();
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(refuse("what stands around the host is not a port"));
        }
        if uri.query().is_some() {
            return Err(refuse("a query has no place in it"));
        }
        if let Some(token) = &token
            && header::HeaderValue::try_from(token.as_str()).is_err()
        {
            return Err(refuse("the token has characters a header cannot carry"));
        }
        Ok(Self {
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            token,
            trust: tls.then(|| Trust::load(files)).transpose()?,
        })
    }

    /// `GET path`; an answer takes at most `timeout`.
    pub async fn get(&self, path: &str, timeout: Duration) -> Result<Answer, CallError> {
        self.call(Method::GET, path, None, timeout).await
    }

    /// `POST path` with a JSON body; an answer takes at most `timeout`.
    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        self.call(Method::POST, path, Some(body), timeout).await
    }

    /// `GET path`, whose answer may come for ever; status and body. Head and first byte take at most
    /// `timeout`.
    pub async fn open(&self, path: &str, timeout: Duration) -> Result<(u16, Events), CallError> {
        let stream = self.connected().await?;
        let asking = self.request(stream, Method::GET, path, None);
        let (status, events) = tokio::time::timeout(timeout, asking)
            .await
            .unwrap_or_else(|_| Err(self.garbled(&format!("silent for {timeout:?}"))))?;
        Ok((status, events))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let stream = self.connected().await?;
        match tokio::time::timeout(timeout, self.exchange(stream, method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.garbled(&format!("silent for {timeout:?}"))),
        }
    }

    async fn connected(&self) -> Result<Box<dyn Stream>, CallError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(self.unreachable(source)),
            Err(_) => Err(self.unreachable(std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let default = match &self.trust {
            None => DEFAULT_PORT,
            Some(_) => DEFAULT_TLS_PORT,
        };
        let port = self.authority.port_u16().unwrap_or(default);
        let host = self.authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        Ok(match &self.trust {
            None => Box::new(stream),
            Some(trust) => Box::new(trust.connect(host, stream).await?),
        })
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, CallError> {
        let (status, events) = self.request(stream, method, path, body).await?;
        let bytes = to_bytes(Body::from_stream(events.body), MAX_ANSWER_BYTES)
            .await
            .map_err(|error| self.garbled(&error))?;
        Ok(Answer {
            status,
            body: read(&bytes),
        })
    }

    /// Asks, and reads the answer's head.
    async fn request(
        &self,
        stream: Box<dyn Stream>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Events), CallError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.garbled(&error))?;
        let driving = Driving(tokio::spawn(connection));
        let path: PathAndQuery = format!("{}{path}", self.prefix)
            .parse()
            .map_err(|error: axum::http::uri::InvalidUri| self.garbled(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path.as_str())
            .header(header::HOST, self.authority.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body).map_err(|error| self.garbled(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.garbled(&error))?;
        let status = response.status().as_u16();
        let events = Events {
            authority: self.authority.to_string(),
            body: Body::new(response.into_body()).into_data_stream(),
            _driving: driving,
        };
        Ok((status, events))
    }

    fn unreachable(&self, source: std::io::Error) -> CallError {
        CallError::Unreachable {
            authority: self.authority.to_string(),
            source,
        }
    }

    fn garbled(&self, reason: &dyn std::fmt::Display) -> CallError {
        CallError::Garbled {
            authority: self.authority.to_string(),
            reason: reason.to_string(),
        }
    }
}

/// The body of an answer, piece by piece; ends its connection when dropped.
pub struct Events {
    authority: String,
    body: BodyDataStream,
    _driving: Driving,
}

impl Events {
    /// The next piece; `None` at the end. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        let piece = self.body.next().await?;
        Some(piece.map_err(|error| CallError::Garbled {
            authority: self.authority.clone(),
            reason: error.to_string(),
        }))
    }

    /// All that is left, as the body of an [`Answer`]; nothing if it cannot be read within `timeout`.
    pub async fn rest(self, timeout: Duration) -> Value {
        let reading = to_bytes(Body::from_stream(self.body), MAX_ANSWER_BYTES);
        match tokio::time::timeout(timeout, reading).await {
            Ok(Ok(bytes)) => read(&bytes),
            _ => Value::Null,
        }
    }
}

/// The task that moves a connection's bytes.
struct Driving(JoinHandle<Result<(), hyper::Error>>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A body as JSON. An error may come from a proxy, in its own words.
fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// `text` as part of a path or query.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_and_without_scheme() {
        let new = |url: &str, token| Remote::new(url, token, &Files::default());
        let remote = |url: &str| new(url, None).unwrap();
        for url in ["h:1", "http://h:1/"] {
            assert_eq!(
                (remote(url).authority.as_str(), remote(url).prefix.as_str()),
                ("h:1", "")
            );
        }
        assert_eq!(remote("http://h:1/kv/").prefix, "/kv");
        assert_eq!(remote("http://[::1]:9000").authority.host(), "[::1]");
        for url in ["ftp://h:1", "", "http://", "http://h:1/?a=b", "h:x"] {
            assert!(new(url, None).is_err(), "{url}");
        }
        assert!(new("h:1", Some("a\nb".into())).is_err());
    }

    #[test]
    fn text_is_encoded_for_a_path() {
        assert_eq!(encoded("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
    }
}
