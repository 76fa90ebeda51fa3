//! The HTTP listener: accepts connections up to a bound, serves each, drains at the end.
//!
//! hyper is driven here and not by `axum::serve` because that one sets no time limit for headers
//! and no bound on connections: a few thousand half-open ones would hold all the memory they like.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::connections::{Answer, Connection, Connections};
use crate::app::AppState;
use crate::config::Config;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Connections waiting to be accepted: a fleet's clients reconnect all at once.
const BACKLOG: i32 = 4096;
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
        // Longer than the 10 s at which routers ask, by default, so that a request never meets the
        // close of its connection.
        let header_timeout = state.config.header_timeout_s;
        let connections = Connections::new(Arc::clone(&state));
        let router = super::routes(state);
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(
            listener,
            router,
            connections,
            header_timeout,
            stopped,
        ));
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
    connections: Arc<Connections>,
    header_timeout: Duration,
    mut stopped: oneshot::Receiver<()>,
) -> GracefulShutdown {
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            let accepted = listener.accept().await?;
            Ok((accepted, connections.enter().await))
        };
        let next: io::Result<_> = tokio::select! {
            next = next => next,
            _ = &mut stopped => return graceful,
        };
        match next {
            Ok(((stream, _), entered)) => {
                serve(stream, router.clone(), entered, header_timeout, &graceful);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve(
    stream: TcpStream,
    router: Router,
    entered: Connection,
    header_timeout: Duration,
    graceful: &GracefulShutdown,
) {
    // Answers are small and waited for. A socket that refuses is slower, not wrong.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let activity = Arc::clone(&entered.activity);
    let service = service_fn(move |request| {
        let busy = activity.begin();
        let answer = router.call(request);
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, _busy: busy }))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "HTTP connection ended");
            },
            () = entered.activity.asked_to_leave() => {}
        }
    });
}
