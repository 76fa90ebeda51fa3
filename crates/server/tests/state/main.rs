//! Kept state, with the real process: killed, stopped, and started on damaged files.
//!
//! Workers are the driver's: it knows what they hold and which numbers they have sent, loses what a
//! killed controller had not taken, and sends full syncs when asked.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod crash;
mod damage;
mod disk;
mod driver;
mod limits;
mod process;
mod unwritable;
