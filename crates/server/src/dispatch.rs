//! Commands to workers, from plan to answer.
//!
//! ```text
//! Command -> plan -> event (running) -> links: one job per worker -> replies -> reduce -> event
//! ```
//! `links` carries bytes, `execute` knows what they mean, the event table remembers what became of
//! them. A command that was taken runs to its end whether or not anybody waits for it.
//!
//! Locks: the event table's, held for one operation of it, never while awaiting.

mod execute;
mod inbox;
mod lines;
mod link;
mod links;
pub mod name;
mod resolve;

use std::io;
use std::time::{Duration, Instant};

use kvatlas_controller::events::{Event, EventTable, Filter};
use parking_lot::Mutex;

pub use execute::{StartError, Started, start};
pub use links::{Answer, Job, LinkSettings, Links, SubmitError};

/// The way to the workers and the table of what was asked of them.
#[derive(Debug)]
pub struct Dispatch {
    links: Links,
    events: Mutex<EventTable>,
}

impl Dispatch {
    /// No links yet; they open on demand.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            links: Links::start(LinkSettings::default())?,
            events: Mutex::default(),
        })
    }

    /// One event.
    pub fn event(&self, id: &str) -> Option<Event> {
        self.events.lock().event(id).cloned()
    }

    /// Events that pass `filter`, the latest first.
    pub fn events(&self, filter: &Filter) -> Vec<Event> {
        self.events.lock().list(filter)
    }

    /// Commands that are running.
    pub fn n_running(&self) -> usize {
        self.events.lock().n_running()
    }

    /// Lets what runs end for up to `within`, then fails it and refuses what comes. The tasks of
    /// the failed commands write their events and end.
    pub async fn drain(&self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.n_running() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop();
    }

    /// Fails what runs and refuses what comes. Takes milliseconds.
    pub fn stop(&self) {
        self.links.stop();
    }
}

#[cfg(test)]
mod tests;
