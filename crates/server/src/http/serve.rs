//! The HTTP listener: accepts connections up to a bound, serves each, drains at the end.
//!
//! hyper is driven here and not by `axum::serve` because that one sets no time limit for headers
//! and no bound on connections: a few thousand half-open ones would hold all the memory they like.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::app::AppState;
use crate::config::Config;

/// Time a client may take for the head of a request, and may leave a connection idle: longer than
/// the 10 s at which routers ask, so that a request never meets the close of its connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Pause after a failed accept: usually the process is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound HTTP socket.
pub struct Listener {
    socket: StdListener,
    address: SocketAddr,
}

/// HTTP being served.
pub struct Serving {
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<GracefulShutdown>,
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
        let connections = Arc::new(Semaphore::new(state.config.max_http_connections.0));
        let router = super::routes(state);
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, router, connections, stopped));
        Ok(Serving { stop, accepting })
    }
}

impl Serving {
    /// Accepts no more and waits until the requests in progress are answered, or for `limit`.
    pub async fn drain(self, limit: Duration) {
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

async fn accept(
    listener: TcpListener,
    router: Router,
    connections: Arc<Semaphore>,
    mut stopped: oneshot::Receiver<()>,
) -> GracefulShutdown {
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            // The semaphore is never closed.
            let room = Arc::clone(&connections).acquire_owned().await.ok();
            (room, listener.accept().await)
        };
        let (room, accepted) = tokio::select! {
            next = next => next,
            _ = &mut stopped => return graceful,
        };
        match accepted {
            Ok((stream, _)) => connection(stream, router.clone(), room, &graceful),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
    room: Option<OwnedSemaphorePermit>,
    graceful: &GracefulShutdown,
) {
    // Answers are small and waited for. A socket that refuses is slower, not wrong.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP connection ended");
        }
        drop(room);
    });
}
