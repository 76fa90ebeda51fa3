//! The process over its real sockets: what workers and orchestrators see.
//!
//! Every test starts its own controller on free ports. Nothing sleeps: what takes time is asked
//! again until it is true.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod command_line;
mod http;
mod lookup;
mod openapi;
mod page;
mod pull;
mod requests;
mod support;
