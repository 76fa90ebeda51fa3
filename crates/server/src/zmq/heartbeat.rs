//! The heartbeat front: HeartbeatMsg in, HeartbeatRetMsg with commands out.
//!
//! Upstream: `controller_manager.py` (`handle_heartbeat_request`), `registration_controller.py`.

use indexmap::IndexMap;
use kvatlas_controller::controller::{FullSyncRequest, HeartbeatReply, SyncReason};
use kvatlas_protocol::WorkerKey;
use kvatlas_protocol::message::{
    CommandArgs, HeartbeatCommand, HeartbeatMsg, HeartbeatRetMsg, Message, Value,
};

use super::peer_address;
use super::reply::{address, admit_worker, decode, error};
use crate::app::Shared;
use crate::metrics::{Fault, Front};

/// Answers one payload of the heartbeat socket.
pub(super) fn answer(shared: &Shared, payload: &mut zmq::Message) -> Vec<u8> {
    let reply = match decode(shared, Front::Heartbeat, payload) {
        Ok(Message::HeartbeatMsg(beat)) => handle(shared, Front::Heartbeat, beat),
        Ok(other) => {
            let text = format!("expected HeartbeatMsg, got {}", other.tag());
            let source = peer_address(payload);
            shared.fault(
                Front::Heartbeat,
                Fault::Unexpected,
                source.as_deref(),
                &text,
            );
            error(text)
        }
        Err(refusal) => error(refusal),
    };
    reply.encode_msgpack()
}

/// A heartbeat on either socket that takes them.
pub(super) fn handle(shared: &Shared, front: Front, beat: HeartbeatMsg) -> Message {
    let HeartbeatMsg {
        instance_id,
        worker_id,
        ip,
        port,
        peer_init_url,
    } = beat;
    let worker = WorkerKey::new(instance_id, worker_id);
    let address = address(ip, port, peer_init_url);
    if let Err(refusal) = admit_worker(shared, front, &worker, &address) {
        return error(refusal);
    }
    let outcome = shared
        .controller
        .handle_heartbeat(worker.clone(), address, shared.clock.now());
    match outcome {
        Ok(HeartbeatReply {
            registered,
            readdressed,
            full_sync,
        }) => {
            if registered && shared.may_log("registered", &worker) {
                tracing::info!(%worker, "worker registered by its heartbeat");
            }
            if readdressed && shared.may_log("new address", &worker) {
                tracing::info!(%worker, "worker has a new address");
            }
            for request in &full_sync {
                let reason = reason_text(request.reason);
                // Asked with every heartbeat until the worker starts.
                if shared.may_log(reason, &worker) {
                    tracing::info!(%worker, reason, "asking for a full sync");
                }
            }
            Message::HeartbeatRetMsg(HeartbeatRetMsg {
                commands: full_sync.into_iter().map(command).collect(),
            })
        }
        Err(refusal) => {
            let source = worker.to_string();
            shared.fault(front, Fault::Limit, Some(&source), &refusal);
            error(refusal.to_string())
        }
    }
}

fn command(request: FullSyncRequest) -> HeartbeatCommand {
    let FullSyncRequest { reason, location } = request;
    let args = location
        .map(|location| IndexMap::from([("location".to_owned(), Value::from(location.as_str()))]));
    HeartbeatCommand::FullSync(CommandArgs {
        reason: Some(reason_text(reason).to_owned()),
        args,
    })
}

/// A reason as workers and people read it.
pub fn reason_text(reason: SyncReason) -> &'static str {
    match reason {
        SyncReason::ControllerRestart => "controller_restart",
        SyncReason::WorkerReRegistered => "worker_re_registered",
        SyncReason::SyncFailedRetry => "sync_failed_retry",
        SyncReason::SequenceGap => "sequence_gap",
    }
}
