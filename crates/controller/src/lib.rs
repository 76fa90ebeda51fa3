//! What the controller knows (registry, index) and decides (lookup, full sync, expiry, plans).
//!
//! No clock, no randomness, no sockets, no logging: values and `now` in, values out.

pub mod controller;
pub mod error;
pub mod index;

pub use controller::Controller;
