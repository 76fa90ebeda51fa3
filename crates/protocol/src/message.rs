//! The 51 messages of LMCache's controller protocol.
//!
//! One struct per message under upstream's class name, grouped by who speaks, and [`Message`] over
//! all of them. On the wire a message is a map: the tag `type` first, then the fields in the order
//! they are declared here. The fields of a message are named twice, once as a struct and once to
//! the codec (`fields!`), so that the struct stays a plain one; the compiler refuses a list that
//! leaves one out.
//!
//! Ints other than keys are i64: a rank, port or count beyond that is refused.
//! Mirrors `lmcache/v1/cache_controller/message.py` of LMCache 0.5.6.

mod control;
mod key;
mod orchestration;
mod request;
mod sync;
mod value;
mod worker;

use crate::codec::reader::Reader;
use crate::codec::wire::{read_tagged, write_tagged};
use crate::codec::{DecodeError, json};

pub use control::*;
pub use key::WireKey;
pub use orchestration::*;
pub use request::*;
pub use sync::*;
pub use value::Value;
pub use worker::*;

/// Field that names the message.
pub(crate) const TAG: &str = "type";

macro_rules! messages {
    ($($name:ident),* $(,)?) => {
        /// Any message, under the name of its class.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant is documented on the struct it holds")]
        pub enum Message {
            $($name($name),)*
        }

        impl Message {
            /// Every tag there is.
            pub const TAGS: &[&str] = &[$(stringify!($name)),*];

            /// Upstream's class name, as it stands in the field `type`.
            pub const fn tag(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name(fields) => write_tagged(TAG, self.tag(), fields, out),)*
                }
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match reader.peek_tag(TAG)? {
                    $(stringify!($name) => {
                        read_tagged(reader, TAG, stringify!($name)).map(Self::$name)
                    })*
                    other => Err(DecodeError::unknown_tag(TAG, other)),
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        })*
    };
}

messages! {
    RegisterMsg,
    RegisterRetMsg,
    DeRegisterMsg,
    KVAdmitMsg,
    KVEvictMsg,
    BatchedKVOperationMsg,
    ClearWorkerMsg,
    ClearWorkerRetMsg,
    PinWorkerMsg,
    PinWorkerRetMsg,
    CompressWorkerMsg,
    CompressWorkerRetMsg,
    DecompressWorkerMsg,
    DecompressWorkerRetMsg,
    MoveWorkerMsg,
    MoveWorkerRetMsg,
    HealthWorkerMsg,
    HealthWorkerRetMsg,
    CheckFinishWorkerMsg,
    CheckFinishWorkerRetMsg,
    LookupMsg,
    LookupRetMsg,
    ClearMsg,
    ClearRetMsg,
    PinMsg,
    PinRetMsg,
    CompressMsg,
    CompressRetMsg,
    DecompressMsg,
    DecompressRetMsg,
    MoveMsg,
    MoveRetMsg,
    HealthMsg,
    HealthRetMsg,
    CheckFinishMsg,
    CheckFinishRetMsg,
    ErrorMsg,
    QueryInstMsg,
    QueryInstRetMsg,
    HeartbeatMsg,
    HeartbeatRetMsg,
    BatchedP2PLookupMsg,
    BatchedP2PLookupRetMsg,
    QueryWorkerInfoMsg,
    QueryWorkerInfoRetMsg,
    FullSyncStartMsg,
    FullSyncStartRetMsg,
    FullSyncBatchMsg,
    FullSyncEndMsg,
    FullSyncStatusMsg,
    FullSyncStatusRetMsg,
}

impl Message {
    /// Reads one message: JSON if the payload begins with `{`, else MessagePack.
    ///
    /// Accepts and refuses what upstream's decoder does, except where COMPAT.md says so.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        if payload.first() == Some(&b'{') {
            let transcoded = json::to_msgpack(payload)?;
            Reader::for_json(&transcoded).whole(Self::read)
        } else {
            Reader::new(payload).whole(Self::read)
        }
    }

    /// The message as MessagePack, byte for byte what upstream writes.
    pub fn encode_msgpack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The message as JSON. Bytes and extensions inside free-form values become base64 text.
    pub fn encode_json(&self) -> String {
        json::from_msgpack(&self.encode_msgpack())
    }
}
