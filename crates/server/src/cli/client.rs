//! Client commands, talking to a running controller.

pub mod remote;
