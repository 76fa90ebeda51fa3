//! The event loop's side of one agent: joins presence, publisher, full sync and sockets.
//!
//! Nothing here blocks. Whatever the engine may take long over (commands, key listings) runs on a
//! thread that lives as long as the call, at most one of each kind per worker.
//!
//! Operations are sent only once the controller knows the worker; until then they wait in the
//! publisher. They are not drained while [`MAX_OUTBOX`] messages wait for libzmq, so that all
//! backlog stays where it is bounded.
//!
//! `dialogue.rs` asks and hears the controller, `stream.rs` reports to it.

mod dialogue;
mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use kvatlas_protocol::message::{BatchedP2PLookupMsg, DeRegisterMsg, ErrorMsg, Message};
use kvatlas_protocol::{ChunkHash, Location, Timestamp};
use uuid::Uuid;
use zmq::PollItem;

use super::event_loop::Order;
use super::{PeerHit, Shared};
use crate::commands::{Engine, answer};
use crate::config::AgentConfig;
use crate::connection::{self, Commands, Dealer, Push};
use crate::error::AgentError;
use crate::full_sync::FullSync;
use crate::heartbeat::{Presence, Target};

/// Messages that may wait for libzmq before the publisher keeps the rest.
const MAX_OUTBOX: usize = 64;
/// Peer lookups that may wait for their turn.
const MAX_LOOKUPS: usize = 64;

/// One worker, driven.
pub(super) struct Worker {
    id: u64,
    config: AgentConfig,
    ip: String,
    engine: Arc<dyn Engine>,
    shared: Arc<Shared>,
    context: zmq::Context,
    orders: Sender<Order>,
    push: Push,
    commands: Commands,
    command_running: bool,
    reply: Dealer,
    /// Asked on `reply`, and until when the answer may come.
    asked: Option<(Asked, Timestamp)>,
    /// To be asked on `reply`. At most one of each kind but lookups.
    questions: VecDeque<(Asked, Vec<u8>)>,
    /// Where the controller wants heartbeats, if anywhere in particular.
    heartbeat_url: Option<String>,
    /// The socket for heartbeats, and where it leads.
    heartbeat: Option<(Target, Dealer)>,
    /// The one before: its late answers count (the command to sync may come but once).
    former_heartbeat: Option<Dealer>,
    presence: Presence,
    sync: FullSync,
    /// When the running session's keys were asked for.
    listed_at: Timestamp,
    /// Locations that held keys before the controller knew the worker.
    initial: Vec<Location>,
    /// Locations with a gap of our making: when it was noticed.
    gaps: Vec<(Location, Timestamp)>,
    leaving: Option<Leaving>,
}

/// What a question on the reply socket was for.
enum Asked {
    Register,
    Sync,
    Lookup(Sender<Vec<PeerHit>>),
}

struct Leaving {
    until: Timestamp,
    /// The goodbye has been handed to [`Push`], or is not wanted.
    said: bool,
    /// Dropped with the worker: whoever waits goes on.
    _done: Sender<()>,
}

/// Which sockets have something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready {
    commands: bool,
    reply: bool,
    heartbeat: bool,
    former_heartbeat: bool,
}

impl Worker {
    pub(super) fn new(
        id: u64,
        config: AgentConfig,
        engine: Arc<dyn Engine>,
        shared: Arc<Shared>,
        context: &zmq::Context,
        orders: Sender<Order>,
    ) -> Result<Self, AgentError> {
        let commands = Commands::bind(context, &config.command_host, config.command_port)?;
        let ip = config
            .advertise_ip
            .clone()
            .or_else(|| connection::local_ip(&config.reply_url))
            .unwrap_or_else(|| "127.0.0.1".to_owned());
        let initial = engine
            .locations()
            .into_iter()
            .filter(|location| !engine.keys(location).is_empty())
            .collect();
        let now = shared.clock.now();
        Ok(Self {
            id,
            ip,
            push: Push::open(context, &config.pull_url)?,
            reply: Dealer::open(context, &config.reply_url)?,
            heartbeat_url: None,
            heartbeat: None,
            former_heartbeat: None,
            presence: Presence::new(config.heartbeat.clone(), now),
            sync: FullSync::new(config.full_sync.clone(), config.worker.clone(), config.keys),
            config,
            engine,
            shared,
            context: context.clone(),
            orders,
            commands,
            command_running: false,
            asked: None,
            questions: VecDeque::new(),
            listed_at: now,
            initial,
            gaps: Vec::new(),
            leaving: None,
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn command_port(&self) -> u16 {
        self.commands.port()
    }

    /// Does what is due; when it must be called again at the latest.
    pub(super) fn step(&mut self, ready: Ready, now: Timestamp) -> Option<Timestamp> {
        self.hear(ready, now);
        if self.leaving.is_none() {
            self.be_present(now);
            self.repair(now);
        }
        self.publish(now);
        self.go_on_syncing(now);
        self.ask_next(now);
        if ready.commands {
            self.obey();
        }
        self.say_goodbye();
        self.push.flush();
        self.deadline()
    }

    /// Adds the sockets to wait for; [`ready`](Self::ready) reads them back in the same order.
    pub(super) fn poll_items<'a>(&'a self, items: &mut Vec<PollItem<'a>>) {
        if !self.command_running {
            items.push(self.commands.poll_item());
        }
        if self.asked.is_some() {
            items.push(self.reply.poll_item());
        }
        if let Some((_, heartbeat)) = &self.heartbeat {
            items.push(heartbeat.poll_item());
        }
        if let Some(former) = &self.former_heartbeat {
            items.push(former.poll_item());
        }
        if self.push.waiting() > 0 {
            items.push(self.push.poll_item());
        }
    }

    pub(super) fn ready<'a, 'b: 'a>(
        &self,
        items: &mut impl Iterator<Item = &'a PollItem<'b>>,
    ) -> Ready {
        let mut next = || items.next().is_some_and(connection::ready);
        let ready = Ready {
            commands: !self.command_running && next(),
            reply: self.asked.is_some() && next(),
            heartbeat: self.heartbeat.is_some() && next(),
            former_heartbeat: self.former_heartbeat.is_some() && next(),
        };
        if self.push.waiting() > 0 {
            next();
        }
        ready
    }

    /// The goodbye has left, or patience has ended.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| {
            leaving.until <= now || (leaving.said && self.push.waiting() == 0)
        })
    }

    pub(super) fn leave(&mut self, deregister: bool, until: Timestamp, done: Sender<()>) {
        self.sync.abandon();
        self.leaving = Some(Leaving {
            until,
            said: !deregister,
            _done: done,
        });
    }

    pub(super) fn lookup(&mut self, hashes: &[ChunkHash], reply: Sender<Vec<PeerHit>>) {
        let waiting = self.questions.len();
        if waiting >= MAX_LOOKUPS {
            return;
        }
        let message = Message::from(BatchedP2PLookupMsg {
            hashes: hashes.iter().map(|&h| self.config.keys.wire(h)).collect(),
            instance_id: self.config.worker.instance.to_string(),
            worker_id: self.config.worker.worker.0,
        });
        self.questions
            .push_back((Asked::Lookup(reply), message.encode_msgpack()));
    }

    pub(super) fn sync_all(&mut self, now: Timestamp) {
        self.request_sync(self.engine.locations(), now);
    }

    pub(super) fn handle_answer(&mut self, payload: &[u8]) {
        self.command_running = false;
        self.commands.answer(payload);
        self.shared.status.lock().commands += 1;
    }

    pub(super) fn handle_listed(&mut self, keys: Option<Vec<ChunkHash>>, now: Timestamp) {
        let worker = &self.config.worker;
        let tail = Uuid::new_v4().simple().to_string();
        let sync_id = format!("{}_{}_{}", worker.instance, worker.worker, &tail[..8]);
        self.sync.handle_listed(keys, sync_id, now);
    }

    /// Takes one command and lets a thread carry it out.
    fn obey(&mut self) {
        if self.command_running {
            return;
        }
        let Some(payload) = self.commands.command() else {
            return;
        };
        self.command_running = true;
        let (engine, orders, shared) = (
            self.engine.clone(),
            self.orders.clone(),
            self.shared.clone(),
        );
        let id = self.id;
        let command = std::thread::Builder::new()
            .name("kvatlas-command".into())
            .spawn(move || {
                let payload = answer(engine.as_ref(), &payload);
                if orders.send(Order::Answer { id, payload }).is_ok() {
                    shared.waker.wake();
                }
            });
        if let Err(error) = command {
            let refusal = ErrorMsg {
                error: format!("no thread for the command: {error}"),
            };
            self.handle_answer(&Message::from(refusal).encode_msgpack());
        }
    }

    fn say_goodbye(&mut self) {
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if leaving.said {
            return;
        }
        if !self.presence.is_registered() {
            // The controller may be about to learn of a worker that is leaving: hear it out.
            let registering = matches!(self.asked, Some((Asked::Register, _)));
            leaving.said = !registering;
            return;
        }
        if self.shared.publisher.lock().due().is_some() {
            return;
        }
        leaving.said = true;
        self.push.linger();
        let goodbye = Message::from(DeRegisterMsg {
            instance_id: self.config.worker.instance.to_string(),
            worker_id: self.config.worker.worker.0,
            ip: self.ip.clone(),
            port: i64::from(self.commands.port()),
        });
        self.push.add(goodbye.encode_msgpack());
    }

    fn deadline(&self) -> Option<Timestamp> {
        let publishing = if self.may_publish() {
            self.shared.publisher.lock().due()
        } else {
            None
        };
        let syncing = if self.push.waiting() < MAX_OUTBOX {
            self.sync.deadline()
        } else {
            None
        };
        let running = self.sync.running();
        let waiting = self.gaps.iter().filter(|(gap, _)| running != Some(gap));
        let repairing = waiting.map(|(_, at)| *at).min();
        let repairing = repairing.filter(|_| self.presence.is_registered());
        // Who leaves neither beats nor repairs: those deadlines would never be met.
        let staying = [
            self.presence.deadline(),
            repairing.map(|at| at + self.config.repair_after),
        ];
        [
            self.asked.as_ref().map(|(_, until)| *until),
            publishing,
            syncing,
            self.leaving.as_ref().map(|leaving| leaving.until),
        ]
        .into_iter()
        .chain(staying.into_iter().filter(|_| self.leaving.is_none()))
        .flatten()
        .min()
    }
}

/// In 0..1.
fn random() -> f64 {
    // 53 bits fit a double exactly.
    (Uuid::new_v4().as_u128() as u64 >> 11) as f64 / (1_u64 << 53) as f64
}
