//! What the controller knows (registry, index) and decides (lookup, full sync, expiry, plans).
//!
//! No clock, no randomness, no sockets, no logging: values and `now` in, values out.

pub mod chunk_map;
pub mod controller;
pub mod error;
pub mod events;
mod expiry;
pub mod full_sync;
pub mod index;
mod ingest;
pub mod journal;
mod lookup;
mod memory;
pub mod plan;
mod registry;
pub mod restore;
pub mod scheme;
mod sequence;
mod settings;
pub mod snapshot;
mod stats;
#[cfg(test)]
mod tests;

pub use controller::Controller;
