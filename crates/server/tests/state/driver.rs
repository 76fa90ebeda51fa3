//! A fleet that knows the truth: what each worker holds, and which numbers it has used.

use std::collections::{BTreeMap, BTreeSet};

use kvatlas_protocol::message::{
    BatchedKVOperationMsg, FullSyncBatchMsg, FullSyncEndMsg, FullSyncStartMsg, FullSyncStatusMsg,
    HeartbeatCommand, HeartbeatMsg, KVOpEvent, Message, RegisterMsg, Value, WireKey,
};
use kvatlas_protocol::{ChunkHash, OperationKind};
use serde_json::Value as Json;

use crate::process::{PATIENCE, Process, eventually};

pub(crate) const LOCATIONS: [&str; 2] = ["LocalCPUBackend", "LocalDiskBackend"];
/// Keys of one full-sync batch.
const SYNC_BATCH: usize = 200;

/// Numbers that look random and come again with the seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// One worker, the only one of its instance.
pub(crate) struct Worker {
    pub(crate) instance: String,
    pub(crate) held: [BTreeSet<u64>; 2],
    /// Last number used per location; 0 before the first.
    pub(crate) seq: [i64; 2],
    /// Times it was asked for a location since the last [`Fleet::connect`].
    pub(crate) asked: [u32; 2],
    /// Where it takes commands.
    pub(crate) port: u16,
    sockets: Option<Sockets>,
    n_syncs: u32,
}

struct Sockets {
    push: zmq::Socket,
    reply: zmq::Socket,
    heartbeat: zmq::Socket,
}

pub(crate) struct Fleet {
    pub(crate) workers: Vec<Worker>,
    context: zmq::Context,
    pub(crate) dice: Dice,
    n_keys: u64,
}

impl Fleet {
    pub(crate) fn new(n_workers: usize, n_keys: u64, seed: u64) -> Self {
        let worker = |n| Worker {
            instance: format!("instance-{n:02}"),
            held: Default::default(),
            seq: [0; 2],
            asked: [0; 2],
            port: 5000,
            sockets: None,
            n_syncs: 0,
        };
        Self {
            workers: (0..n_workers).map(worker).collect(),
            context: zmq::Context::new(),
            dice: Dice(seed),
            n_keys,
        }
    }

    /// New connections; what the old ones had not delivered is lost.
    pub(crate) fn connect(&mut self, to: &Process) {
        for worker in &mut self.workers {
            let socket = |kind, address: &str| {
                let socket = self.context.socket(kind).unwrap();
                socket.set_linger(0).unwrap();
                let patience = i32::try_from(PATIENCE.as_millis()).unwrap();
                socket.set_rcvtimeo(patience).unwrap();
                socket.set_sndtimeo(patience).unwrap();
                socket.connect(&format!("tcp://{address}")).unwrap();
                socket
            };
            worker.sockets = Some(Sockets {
                push: socket(zmq::PUSH, &to.pull),
                reply: socket(zmq::DEALER, &to.reply),
                heartbeat: socket(zmq::DEALER, &to.heartbeat),
            });
            worker.asked = [0; 2];
        }
    }

    pub(crate) fn register(&self) {
        for worker in &self.workers {
            let message = Message::RegisterMsg(RegisterMsg {
                instance_id: worker.instance.clone(),
                worker_id: 0,
                ip: "127.0.0.1".into(),
                port: worker.port.into(),
                peer_init_url: None,
            });
            let reply = worker.ask(&worker.sockets().reply, &message);
            assert!(matches!(reply, Message::RegisterRetMsg(_)), "{reply:?}");
        }
    }

    /// One message of random operations of a random worker. Never waits: a full queue loses it.
    pub(crate) fn operate(&mut self) {
        let who = self.dice.below(self.workers.len() as u64) as usize;
        let location = self.dice.below(2) as usize;
        self.operate_as(who, location);
    }

    pub(crate) fn operate_as(&mut self, who: usize, location: usize) {
        let n = 1 + self.dice.below(100);
        let changes: Vec<_> = (0..n)
            .map(|_| (self.dice.below(10) < 6, self.dice.below(self.n_keys)))
            .collect();
        let worker = &mut self.workers[who];
        let part = worker.batch(location, &changes);
        let _ = worker.sockets().push.send(part, zmq::DONTWAIT);
    }

    /// Heartbeats of everybody; syncs that are asked for are done at once.
    pub(crate) fn beat(&mut self) {
        for worker in &mut self.workers {
            worker.beat();
        }
    }

    /// One more message of each stream, then heartbeats until nothing is wanted any more.
    pub(crate) fn settle(&mut self, controller: &Process) {
        for who in 0..self.workers.len() {
            for location in 0..2 {
                self.operate_as(who, location);
            }
        }
        eventually("all streams in sync", || {
            self.beat();
            let rows = by_stream(&controller.get("/sync"));
            // A stream that was only synced has no number yet.
            let is_heard = |last: &Json, seq| last.is_null() || *last == seq;
            let is_settled = |worker: &Worker| {
                LOCATIONS.iter().enumerate().all(|(at, location)| {
                    rows.get(&(worker.instance.clone(), (*location).to_owned()))
                        .is_some_and(|row| {
                            row["state"] == "in sync"
                                && is_heard(&row["last_seq"], worker.seq[at])
                                && row["key_count"] == worker.held[at].len()
                        })
                })
            };
            self.workers.iter().all(is_settled).then_some(())
        });
    }

    /// Every key, held or not.
    pub(crate) fn check_every_key(&self, controller: &Process) {
        for key in 0..self.n_keys {
            let holds = |worker: &&Worker| worker.held.iter().any(|set| set.contains(&key));
            let holders = self.workers.iter().filter(holds);
            let expected: Vec<_> = holders.map(|worker| worker.instance.clone()).collect();
            assert_eq!(controller.holders(key), expected, "key {key}");
        }
    }
}

/// Rows of `/sync` by instance and location.
pub(crate) fn by_stream(sync: &Json) -> BTreeMap<(String, String), Json> {
    let mut rows = BTreeMap::new();
    for worker in sync["workers"].as_array().unwrap() {
        let instance = worker["instance_id"].as_str().unwrap();
        for row in worker["locations"].as_array().unwrap() {
            let location = row["location"].as_str().unwrap();
            rows.insert((instance.to_owned(), location.to_owned()), row.clone());
        }
    }
    rows
}

impl Worker {
    fn sockets(&self) -> &Sockets {
        self.sockets.as_ref().unwrap()
    }

    fn ask(&self, socket: &zmq::Socket, message: &Message) -> Message {
        let payload = message.encode_msgpack();
        socket
            .send_multipart([b"".as_slice(), &payload], 0)
            .unwrap();
        let frames = socket.recv_multipart(0).unwrap();
        Message::decode(frames.last().unwrap()).unwrap()
    }

    fn batch(&mut self, location: usize, changes: &[(bool, u64)]) -> Vec<u8> {
        let operations = changes
            .iter()
            .map(|&(admit, key)| {
                self.seq[location] += 1;
                let op_type = if admit {
                    self.held[location].insert(key);
                    OperationKind::Admit
                } else {
                    self.held[location].remove(&key);
                    OperationKind::Evict
                };
                KVOpEvent {
                    op_type,
                    key: WireKey::from_hash_signed(ChunkHash(key)),
                    seq_num: self.seq[location],
                }
            })
            .collect();
        Message::BatchedKVOperationMsg(BatchedKVOperationMsg {
            instance_id: self.instance.clone(),
            worker_id: 0,
            location: LOCATIONS[location].into(),
            operations,
        })
        .encode_msgpack()
    }

    fn beat(&mut self) {
        let beat = Message::HeartbeatMsg(HeartbeatMsg {
            instance_id: self.instance.clone(),
            worker_id: 0,
            ip: "127.0.0.1".into(),
            port: self.port.into(),
            peer_init_url: None,
        });
        let Message::HeartbeatRetMsg(answer) = self.ask(&self.sockets().heartbeat, &beat) else {
            panic!("no answer to a heartbeat");
        };
        for command in answer.commands {
            let HeartbeatCommand::FullSync(arguments) = command else {
                panic!("{command:?}");
            };
            let named = arguments.args.and_then(|args| {
                let location = args.get("location")?.clone();
                LOCATIONS
                    .iter()
                    .position(|known| location == Value::from(*known))
            });
            for location in named.map_or(vec![0, 1], |location| vec![location]) {
                self.asked[location] += 1;
                self.sync(location);
            }
        }
    }

    /// A full sync from Start to the end; nothing else happens meanwhile.
    fn sync(&mut self, location: usize) {
        self.n_syncs += 1;
        let sync_id = format!("{}-{}", self.instance, self.n_syncs);
        let keys: Vec<u64> = self.held[location].iter().copied().collect();
        let batches: Vec<&[u64]> = match keys.is_empty() {
            true => vec![&[]],
            false => keys.chunks(SYNC_BATCH).collect(),
        };
        let start = Message::FullSyncStartMsg(FullSyncStartMsg {
            instance_id: self.instance.clone(),
            worker_id: 0,
            location: LOCATIONS[location].into(),
            sync_id: sync_id.clone(),
            total_keys: keys.len() as i64,
            batch_count: batches.len() as i64,
        });
        match self.ask(&self.sockets().reply, &start) {
            Message::FullSyncStartRetMsg(answer) if answer.accepted => {}
            refused => panic!("{refused:?}"),
        }
        for (batch_id, keys) in batches.iter().enumerate() {
            let batch = Message::FullSyncBatchMsg(FullSyncBatchMsg {
                instance_id: self.instance.clone(),
                worker_id: 0,
                location: LOCATIONS[location].into(),
                sync_id: sync_id.clone(),
                batch_id: batch_id as i64,
                keys: keys
                    .iter()
                    .map(|key| WireKey::from_hash_signed(ChunkHash(*key)))
                    .collect(),
            });
            self.sockets().push.send(batch.encode_msgpack(), 0).unwrap();
        }
        let end = Message::FullSyncEndMsg(FullSyncEndMsg {
            instance_id: self.instance.clone(),
            worker_id: 0,
            location: LOCATIONS[location].into(),
            sync_id: sync_id.clone(),
            actual_total_keys: keys.len() as i64,
        });
        self.sockets().push.send(end.encode_msgpack(), 0).unwrap();
        let status = Message::FullSyncStatusMsg(FullSyncStatusMsg {
            instance_id: self.instance.clone(),
            worker_id: 0,
            sync_id,
        });
        eventually("a full sync completes", || {
            match self.ask(&self.sockets().reply, &status) {
                Message::FullSyncStatusRetMsg(answer) => answer.is_complete.then_some(()),
                other => panic!("{other:?}"),
            }
        });
    }
}
