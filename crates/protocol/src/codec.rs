//! Reading and writing messages: MessagePack and JSON, both directions.
//!
//! One strict reader serves both encodings; JSON is first rewritten as MessagePack. Strict means:
//! as upstream's msgspec. A struct is a map and nothing else, a text is never bytes, an int is never
//! a float or a boolean, an unknown field is skipped but must be well formed, of a repeated field
//! the last one counts and every one must be valid.
//!
//! **Invariants.** No input panics. Nothing is allocated by an announced length. Skipping does not
//! recurse; free-form values recurse at most [`MAX_VALUE_DEPTH`] deep. Work is linear in the input.
//!
//! [`pull`] reads the two messages that carry the load without building them; the rest of the
//! traffic goes through [`Message::decode`](crate::message::Message::decode).

mod container;
pub(crate) mod cursor;
pub(crate) mod encode;
mod error;
pub(crate) mod json;
pub mod publish;
pub mod pull;
pub(crate) mod reader;
mod scalar;
pub(crate) mod wire;

pub use error::{DecodeError, Reason};

/// Deepest free-form value (`args` of a heartbeat command) that is read. Upstream's limit is the
/// Python interpreter's, about 990; nothing real nests deeper than a few.
pub const MAX_VALUE_DEPTH: u32 = 128;

/// Deepest nesting that is skipped or rewritten; about upstream's, whose recursion limit is 1000.
pub(crate) const MAX_SKIP_DEPTH: usize = 990;
