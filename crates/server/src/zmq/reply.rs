//! The reply front: registration, heartbeats, peer lookups, and the questions of full sync.
//!
//! Everything gets an answer; what cannot be served gets ErrorMsg. Answers are MessagePack also
//! where the request was JSON, as upstream's are.
//!
//! Upstream: `controller_manager.py` (`handle_worker_req_message`).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use indexmap::IndexMap;
use kvatlas_controller::controller::{SyncStart, SyncStatus, WorkerAddress};
use kvatlas_controller::error::SyncError;
use kvatlas_protocol::message::{
    BatchedP2PLookupMsg, BatchedP2PLookupRetMsg, ErrorMsg, FullSyncStartMsg, FullSyncStartRetMsg,
    FullSyncStatusMsg, FullSyncStatusRetMsg, Message, RegisterMsg, RegisterRetMsg, WireKey,
};
use kvatlas_protocol::{ChunkHash, Location, SyncId, WorkerKey};

use super::{heartbeat, peer_address};
use crate::app::Shared;
use crate::metrics::{Fault, Front};

/// Most peers an answer names. Upstream's workers read the first; a fleet that shares a system
/// prompt would name them all.
const MAX_PEERS: usize = 16;

/// Answers one payload of the reply socket.
pub(super) fn answer(shared: &Shared, payload: &mut zmq::Message) -> Vec<u8> {
    let reply = match decode(shared, Front::Reply, payload) {
        Ok(Message::RegisterMsg(message)) => register(shared, message),
        Ok(Message::HeartbeatMsg(message)) => heartbeat::handle(shared, Front::Reply, message),
        Ok(Message::BatchedP2PLookupMsg(message)) => peer_lookup(shared, message),
        Ok(Message::FullSyncStartMsg(message)) => sync_start(shared, message),
        Ok(Message::FullSyncStatusMsg(message)) => sync_status(shared, message),
        Ok(other) => {
            let text = format!("{} is not a request of a worker", other.tag());
            let source = peer_address(payload);
            shared.fault(Front::Reply, Fault::Unexpected, source.as_deref(), &text);
            error(text)
        }
        Err(refusal) => error(refusal),
    };
    reply.encode_msgpack()
}

/// Reads a payload; a refusal is counted here and returned as text for the peer.
pub(super) fn decode(
    shared: &Shared,
    front: Front,
    payload: &mut zmq::Message,
) -> Result<Message, String> {
    admit_source(shared, front, payload)?;
    Message::decode(payload).map_err(|refusal| {
        let source = peer_address(payload);
        shared.fault(front, refusal.reason().into(), source.as_deref(), &refusal);
        refusal.to_string()
    })
}

/// Whether anything from this peer is taken; a refusal is counted here.
pub(super) fn admit_source(
    shared: &Shared,
    front: Front,
    frame: &mut zmq::Message,
) -> Result<(), String> {
    if !shared.admission.asks_for_source() {
        return Ok(());
    }
    let source = peer_address(frame);
    let checked = shared.admission.check_source(source.as_deref());
    checked.map_err(|refusal| {
        shared.fault(front, Fault::NotAdmitted, source.as_deref(), &refusal);
        refusal.to_string()
    })
}

/// Whether a worker may be registered; a refusal is counted here.
pub(super) fn admit_worker(
    shared: &Shared,
    front: Front,
    worker: &WorkerKey,
    address: &WorkerAddress,
) -> Result<(), String> {
    let instance = worker.instance.as_str();
    let checked = shared.admission.check_worker(instance, &address.ip);
    checked.map_err(|refusal| {
        let source = worker.to_string();
        shared.fault(front, Fault::NotAdmitted, Some(&source), &refusal);
        refusal.to_string()
    })
}

pub(super) fn error(error: String) -> Message {
    Message::ErrorMsg(ErrorMsg { error })
}

/// An address as workers report it. An empty peer URL is none.
pub(super) fn address(ip: String, port: i64, peer_url: Option<String>) -> WorkerAddress {
    let bare = ip
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .map(str::to_owned);
    WorkerAddress {
        ip: bare.unwrap_or(ip),
        port,
        peer_url: peer_url.filter(|url| !url.is_empty()),
    }
}

fn register(shared: &Shared, message: RegisterMsg) -> Message {
    let ip = message.ip.clone();
    match take_in(shared, Front::Reply, message) {
        Ok(()) => Message::RegisterRetMsg(RegisterRetMsg {
            extra_config: heartbeat_url(shared, &ip)
                .map(|url| IndexMap::from([("heartbeat_url".to_owned(), url)]))
                .unwrap_or_default(),
        }),
        Err(refusal) => error(refusal),
    }
}

/// A registration on either socket that takes them.
pub(super) fn take_in(shared: &Shared, front: Front, message: RegisterMsg) -> Result<(), String> {
    let RegisterMsg {
        instance_id,
        worker_id,
        ip,
        port,
        peer_init_url,
    } = message;
    let worker = WorkerKey::new(instance_id, worker_id);
    let address = address(ip, port, peer_init_url);
    admit_worker(shared, front, &worker, &address)?;
    let (ip, port) = (address.ip.clone(), address.port);
    let outcome = shared
        .controller
        .handle_register(worker.clone(), address, shared.clock.now());
    match outcome {
        Ok(registered) => {
            let again = registered.replaced;
            if shared.may_log("registered", &worker) {
                tracing::info!(%worker, ip, port, again, "worker registered");
            }
            Ok(())
        }
        Err(refusal) => {
            let source = worker.to_string();
            shared.fault(front, Fault::Limit, Some(&source), &refusal);
            Err(refusal.to_string())
        }
    }
}

fn peer_lookup(shared: &Shared, message: BatchedP2PLookupMsg) -> Message {
    let BatchedP2PLookupMsg {
        hashes,
        instance_id,
        worker_id,
    } = message;
    let start = Instant::now();
    let asker = WorkerKey::new(instance_id, worker_id);
    let hashes: Vec<ChunkHash> = hashes.into_iter().map(WireKey::hash).collect();
    let peers = shared.controller.peer_lookup(&hashes, &asker);
    shared
        .controller
        .handle_sign_of_life(&asker, shared.clock.now());
    shared
        .metrics
        .peer_lookup(!peers.is_empty(), start.elapsed());
    let mut layout_info: Vec<_> = peers
        .into_iter()
        .take(MAX_PEERS)
        .map(|peer| {
            let chunks = i64::try_from(peer.chunks).unwrap_or(i64::MAX);
            let instance = peer.instance.as_str().to_owned();
            let location = peer.location.as_str().to_owned();
            (instance, location, chunks, peer.peer_url)
        })
        .collect();
    if layout_info.is_empty() {
        // Upstream's worker reads the first entry unasked: a miss is an entry of nothing.
        layout_info.push((String::new(), String::new(), 0, String::new()));
    }
    Message::BatchedP2PLookupRetMsg(BatchedP2PLookupRetMsg { layout_info })
}

fn sync_start(shared: &Shared, message: FullSyncStartMsg) -> Message {
    let FullSyncStartMsg {
        instance_id,
        worker_id,
        location,
        sync_id,
        total_keys,
        batch_count,
    } = message;
    let worker = WorkerKey::new(instance_id, worker_id);
    let key = worker.clone();
    let start = SyncStart {
        worker,
        location: Location::from(location),
        sync_id: SyncId::from(sync_id.as_str()),
        total_keys,
        batch_count,
    };
    let refusal = shared
        .controller
        .handle_sync_start(start, shared.clock.now())
        .err();
    if let Some(refusal) = &refusal {
        let source = key.to_string();
        let fault = match refusal {
            SyncError::TooManyKeys { .. } | SyncError::Memory { .. } => Fault::Limit,
            _ => Fault::Refused,
        };
        shared.fault(Front::Reply, fault, Some(&source), refusal);
    } else if shared.may_log("full sync started", &key) {
        tracing::info!(worker = %key, sync_id, total_keys, batch_count, "full sync started");
    }
    Message::FullSyncStartRetMsg(FullSyncStartRetMsg {
        sync_id,
        accepted: refusal.is_none(),
        error_msg: refusal.map(|refusal| refusal.to_string()),
    })
}

fn sync_status(shared: &Shared, message: FullSyncStatusMsg) -> Message {
    let FullSyncStatusMsg {
        instance_id,
        worker_id,
        sync_id,
    } = message;
    let worker = WorkerKey::new(instance_id, worker_id);
    let SyncStatus {
        is_complete,
        global_progress,
        can_exit_freeze,
        missing_batches,
    } = shared
        .controller
        .handle_sync_status(&worker, &sync_id, shared.clock.now());
    Message::FullSyncStatusRetMsg(FullSyncStatusRetMsg {
        sync_id,
        is_complete,
        global_progress,
        can_exit_freeze,
        missing_batches: missing_batches.into_iter().map(|batch| batch.0).collect(),
    })
}

/// Where a worker at `worker_ip` should send its heartbeats; `None` without a heartbeat front.
///
/// An advertised host always counts. A wildcard becomes the address from which this host reaches
/// the worker, or loopback if both are the same.
fn heartbeat_url(shared: &Shared, worker_ip: &str) -> Option<String> {
    let port = shared.ports.heartbeat?;
    let config = &shared.config;
    let bound = config.controller_host.as_str();
    let host = match &config.controller_advertise_host {
        Some(host) => host.clone(),
        None if is_wildcard(bound) => {
            let own = own_ip(worker_ip).to_string();
            if own == worker_ip {
                "127.0.0.1".into()
            } else {
                own
            }
        }
        None => bound.to_owned(),
    };
    Some(if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    })
}

/// Whether a bind host stands for every interface.
pub fn is_wildcard(host: &str) -> bool {
    matches!(host, "" | "*" | "0.0.0.0" | "::" | "[::]")
}

/// The address this host uses towards `peer`, or towards the world if `peer` is a name. Asks the
/// routing table; nothing is sent.
fn own_ip(peer: &str) -> IpAddr {
    const WORLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8));
    let peer = peer.parse().unwrap_or(WORLD);
    let any: SocketAddr = match peer {
        IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let found = UdpSocket::bind(any)
        .and_then(|socket| socket.connect((peer, 80)).map(|()| socket))
        .and_then(|socket| socket.local_addr());
    found.map_or(std::net::Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}
