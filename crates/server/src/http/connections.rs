//! Which HTTP connections are open, and which of them goes when another needs the room.
//!
//! A connection is busy from the moment the head of a request is read until the body of its answer
//! is written; a live stream is busy for as long as it lasts. All others are idle, also those that
//! send a head byte by byte. When all room is taken, the one that has been idle longest is closed:
//! ten thousand silent connections keep nobody out.
//!
//! Finding it looks at every connection: done once per accepted connection and only at the limit.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::app::AppState;

/// How long a connection told to leave may take before another is told.
const LEAVE: Duration = Duration::from_millis(50);

/// The open connections.
pub(super) struct Connections {
    shared: AppState,
    room: Arc<Semaphore>,
    /// Counts; only its order matters.
    now: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
}

/// One open connection; forgotten when dropped.
pub(super) struct Connection {
    id: u64,
    pub(super) activity: Arc<Activity>,
    connections: Arc<Connections>,
    _room: Option<OwnedSemaphorePermit>,
}

/// What a connection is doing.
pub(super) struct Activity {
    requests: AtomicUsize,
    /// Since when it is idle; [`TOLD`] once it was told to leave.
    since: AtomicU64,
    leave: Notify,
    connections: Arc<Connections>,
}

const TOLD: u64 = u64::MAX;

impl Connections {
    pub(super) fn new(shared: AppState) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(shared.config.max_http_connections.0));
        Arc::new(Self {
            shared,
            room,
            now: AtomicU64::new(0),
            open: Mutex::default(),
        })
    }

    /// Room for one more, made by closing an idle one if need be. Waits while all are busy.
    pub(super) async fn enter(self: &Arc<Self>) -> Connection {
        let room = loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
                break Some(room);
            }
            self.evict();
            let waiting = Arc::clone(&self.room).acquire_owned();
            if let Ok(room) = tokio::time::timeout(LEAVE, waiting).await {
                // The semaphore is never closed.
                break room.ok();
            }
        };
        let id = self.tick();
        let activity = Arc::new(Activity {
            requests: AtomicUsize::new(0),
            since: AtomicU64::new(id),
            leave: Notify::new(),
            connections: Arc::clone(self),
        });
        self.open.lock().insert(id, Arc::clone(&activity));
        self.shared.metrics.http_connected();
        Connection {
            id,
            activity,
            connections: Arc::clone(self),
            _room: room,
        }
    }

    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed)
    }

    fn evict(&self) {
        let open = self.open.lock();
        let idle = open
            .values()
            .filter(|activity| activity.is_idle())
            .map(|activity| (activity.since.load(Ordering::Relaxed), activity));
        if let Some((since, activity)) = idle.min_by_key(|(since, _)| *since)
            && since != TOLD
        {
            activity.since.store(TOLD, Ordering::Relaxed);
            activity.leave.notify_one();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.id);
        self.connections.shared.metrics.http_disconnected();
    }
}

impl Activity {
    /// Completes when the connection is idle and its room is needed.
    pub(super) async fn asked_to_leave(&self) {
        loop {
            self.leave.notified().await;
            // A request may have come meanwhile.
            if self.is_idle() {
                self.connections.shared.metrics.http_evicted();
                return;
            }
        }
    }

    /// A request begins; it lasts until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }
}

/// A request in progress.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let Activity {
            requests,
            since,
            connections,
            ..
        } = &*self.0;
        since.store(connections.tick(), Ordering::Relaxed);
        requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, whose request lasts until it is written.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
