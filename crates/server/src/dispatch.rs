//! Commands to workers: one connection a worker, one request at a time, a deadline each.

use crate::config::Config;

/// Sends plans to workers and gathers their replies.
#[derive(Debug)]
pub struct Dispatch {}

impl Dispatch {
    /// No links yet; they open on demand.
    pub fn new(_config: &Config) -> Self {
        Self {}
    }
}
