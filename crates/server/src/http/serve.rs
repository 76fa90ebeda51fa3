//! The HTTP listener: accepts connections up to a bound, serves each, drains at the end.
//!
//! hyper is driven here and not by `axum::serve` because that one sets no time limit for headers
//! and no bound on connections: a few thousand half-open ones would hold all the memory they like.
//! A TLS handshake is bounded like the head of a request, and whoever is in one is idle: it takes a
//! place among the connections and loses it when another needs the room.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::auth::OverTls;
use super::connections::{Answer, Connection, Connections};
use crate::app::AppState;
use crate::config::Config;
use crate::reload;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Connections waiting to be accepted: a fleet's clients reconnect all at once.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept: usually the process is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client that speaks HTTP without TLS is told where TLS is spoken.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\n\
content-type: application/json\r\ncontent-length: 42\r\nconnection: close\r\n\r\n\
{\"detail\": \"this port speaks HTTPS only\"}\n";

/// A bound HTTP socket.
pub struct Listener {
    socket: StdListener,
    address: SocketAddr,
}

/// HTTP being served.
pub struct Serving {
    stop: watch::Sender<()>,
    accepting: JoinHandle<GracefulShutdown>,
    fresh: Option<JoinHandle<()>>,
}

impl Listener {
    /// Binds the configured host and port.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let host = config.controller_host.as_str();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = config.controller_port;
        let socket = match bare {
            // Both families where the system has both.
            "" | "*" => {
                StdListener::bind(("::", port)).or_else(|_| StdListener::bind(("0.0.0.0", port)))?
            }
            name => {
                let addresses: Vec<SocketAddr> = (name, port).to_socket_addrs()?.collect();
                StdListener::bind(addresses.as_slice())?
            }
        };
        // std listens with 128: beyond that, the system makes newcomers wait for seconds.
        socket2::SockRef::from(&socket).listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to accept; needs a runtime.
    pub fn serve(self, state: AppState) -> io::Result<Serving> {
        let listener = TcpListener::from_std(self.socket)?;
        let connections = Connections::new(Arc::clone(&state));
        let (stop, stopped) = watch::channel(());
        let fresh =
            reload::is_needed(&state).then(|| tokio::spawn(reload::keep_fresh(Arc::clone(&state))));
        let front = Front {
            router: super::routes(Arc::clone(&state)),
            shared: state,
            stopped,
        };
        let accepting = tokio::spawn(accept(listener, front, connections));
        Ok(Serving {
            stop,
            accepting,
            fresh,
        })
    }
}

impl Serving {
    /// Accepts no more and waits until the requests in progress are answered, or for `limit`.
    pub async fn drain(self, limit: Duration) {
        if let Some(fresh) = self.fresh {
            fresh.abort();
        }
        let _ = self.stop.send(());
        let drained = async {
            if let Ok(connections) = self.accepting.await {
                connections.shutdown().await;
            }
        };
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::warn!("requests are still running, leaving them behind");
        }
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Front {
    router: Router,
    shared: AppState,
    /// Changes when no more is to be begun.
    stopped: watch::Receiver<()>,
}

async fn accept(
    listener: TcpListener,
    front: Front,
    connections: Arc<Connections>,
) -> GracefulShutdown {
    let graceful = GracefulShutdown::new();
    let mut stopped = front.stopped.clone();
    loop {
        let next = async {
            let accepted = listener.accept().await?;
            Ok((accepted, connections.enter().await))
        };
        let next: io::Result<_> = tokio::select! {
            next = next => next,
            _ = stopped.changed() => return graceful,
        };
        match next {
            Ok(((stream, _), entered)) => {
                // Answers are small and waited for. A socket that refuses is slower, not wrong.
                let _ = stream.set_nodelay(true);
                let watcher = graceful.watcher();
                match &front.shared.tls {
                    None => {
                        let connection = front.clone().connection(stream, &entered, None);
                        tokio::spawn(drive(watcher.watch(connection), entered));
                    }
                    Some(tls) => {
                        let acceptor = tls.acceptor();
                        tokio::spawn(
                            front
                                .clone()
                                .shake_hands(acceptor, stream, entered, watcher),
                        );
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Front {
    /// HTTP over what is now a stream of bytes.
    fn connection<S>(
        self,
        stream: S,
        entered: &Connection,
        over: Option<OverTls>,
    ) -> impl GracefulConnection<Error = hyper::Error> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = TowerToHyperService::new(self.router);
        let activity = Arc::clone(&entered.activity);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let busy = activity.begin();
            if let Some(over) = over {
                request.extensions_mut().insert(over);
            }
            let answer = router.call(request);
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _busy: busy }))
            }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            // Longer than the 10 s at which routers ask, by default, so that a request never meets
            // the close of its connection.
            .header_read_timeout(self.shared.config.header_timeout_s)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    }

    /// A TLS handshake, which counts as idle and is bounded in time, then HTTP.
    async fn shake_hands(
        self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        entered: Connection,
        watcher: Watcher,
    ) {
        let limit = self.shared.config.header_timeout_s;
        let mut stopped = self.stopped.clone();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(limit, handshake(acceptor, stream)) => shaken,
            () = entered.activity.asked_to_leave() => return,
            // Nobody asked for anything yet.
            _ = stopped.changed() => return,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.shared.metrics.handshake_failed();
                tracing::debug!(%error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                self.shared.metrics.handshake_failed();
                tracing::debug!("TLS handshake took too long");
                return;
            }
        };
        let certified = stream.get_ref().1.peer_certificates().is_some();
        let connection = self.connection(stream, &entered, Some(OverTls { certified }));
        drive(watcher.watch(connection), entered).await;
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0].is_ascii_uppercase() {
        return plain(stream).await;
    }
    acceptor.accept(stream).await
}

/// Tells a client that speaks HTTP without TLS what to do.
async fn plain(mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    // What is left unread when a socket closes makes the system drop what was written.
    let mut head = [0; 4096];
    let _ = stream.read(&mut head).await?;
    stream.write_all(PLAIN.as_bytes()).await?;
    stream.shutdown().await?;
    Err(io::Error::other("HTTP without TLS"))
}

async fn drive<C>(connection: C, entered: Connection)
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "HTTP connection ended");
        },
        () = entered.activity.asked_to_leave() => {}
    }
}
