//! What a worker asks on the reply and heartbeat sockets, and the answers.
//!
//! Fields and their order mirror `lmcache/v1/cache_controller/message.py` and `commands/`.

use indexmap::IndexMap;

use super::key::WireKey;
use super::value::Value;
use crate::codec::DecodeError;
use crate::codec::reader::Reader;
use crate::codec::wire::{Wire, fields, read_tagged, write_tagged};

/// Answer to registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterRetMsg {
    /// Settings for the worker, such as `heartbeat_url`.
    pub extra_config: IndexMap<String, String>,
}

fields!(RegisterRetMsg { extra_config = IndexMap::new() });

/// A worker is alive; carries what registration carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatMsg {
    /// Instance the message is about.
    pub instance_id: String,
    /// Rank inside the instance.
    pub worker_id: i64,
    /// Address the worker listens on.
    pub ip: String,
    /// Port the worker takes commands on.
    pub port: i64,
    /// Where peers fetch KV from this worker, `host:port`; null without P2P.
    pub peer_init_url: Option<String>,
}

fields!(HeartbeatMsg {
    instance_id,
    worker_id,
    ip,
    port,
    peer_init_url
});

/// Answer to a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatRetMsg {
    /// What the worker is asked to do, in order.
    pub commands: Vec<HeartbeatCommand>,
}

fields!(HeartbeatRetMsg { commands = Vec::new() });

/// A worker asks which peer holds a prompt's chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchedP2PLookupMsg {
    /// Chunk hashes of a prompt, first chunk first.
    pub hashes: Vec<WireKey>,
    /// Instance that asks.
    pub instance_id: String,
    /// Rank that asks.
    pub worker_id: i64,
}

fields!(BatchedP2PLookupMsg {
    hashes,
    instance_id,
    worker_id
});

/// Answer to a peer lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchedP2PLookupRetMsg {
    /// Instance, location, chunks held from the first on, peer URL; a miss is one entry of empty names.
    pub layout_info: Vec<(String, String, i64, String)>,
}

fields!(BatchedP2PLookupRetMsg { layout_info });

/// Answer to anything that could not be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMsg {
    /// What went wrong, for a reader.
    pub error: String,
}

fields!(ErrorMsg { error });

/// One thing a worker is asked to do in the answer to its heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub enum HeartbeatCommand {
    /// Report every key anew; tag `full_sync`.
    FullSync(CommandArgs),
    /// Upstream's base class, which asks for nothing; tag `HeartbeatCommand`.
    HeartbeatCommand(CommandArgs),
}

/// What every heartbeat command carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandArgs {
    /// Why the command is given, such as `controller_restart`.
    pub reason: Option<String>,
    /// Arguments; upstream's worker ignores them.
    pub args: Option<IndexMap<String, Value>>,
}

fields!(CommandArgs { reason = None, args = None });

impl Wire for HeartbeatCommand {
    fn write(&self, out: &mut Vec<u8>) {
        let (tag, args) = match self {
            Self::FullSync(args) => (FULL_SYNC, args),
            Self::HeartbeatCommand(args) => (BASE_COMMAND, args),
        };
        write_tagged(COMMAND_TAG, tag, args, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.peek_tag(COMMAND_TAG)? {
            tag if tag == FULL_SYNC => read_tagged(reader, COMMAND_TAG, tag).map(Self::FullSync),
            tag if tag == BASE_COMMAND => {
                read_tagged(reader, COMMAND_TAG, tag).map(Self::HeartbeatCommand)
            }
            tag => Err(DecodeError::unknown_tag(COMMAND_TAG, tag)),
        }
    }
}

/// Field that names the command.
const COMMAND_TAG: &str = "command_type";
const FULL_SYNC: &str = "full_sync";
const BASE_COMMAND: &str = "HeartbeatCommand";
