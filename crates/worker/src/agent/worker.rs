//! The event loop's side of one agent: joins presence, publisher, full sync and sockets.
//!
//! Nothing here blocks. Whatever the engine may take long over (commands, key listings) runs on a
//! thread that lives as long as the call, at most one of each kind per worker.
//!
//! Operations are sent only once the controller knows the worker; until then they wait in the
//! publisher. They are not drained while [`MAX_OUTBOX`] messages wait for libzmq, so that all
//! backlog stays where it is bounded.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use kvatlas_protocol::codec::publish::{BatchHeader, encode_batch};
use kvatlas_protocol::message::{
    BatchedP2PLookupMsg, BatchedP2PLookupRetMsg, CommandArgs, DeRegisterMsg, HeartbeatCommand,
    HeartbeatMsg, HeartbeatRetMsg, KVOpEvent, Message, RegisterMsg, RegisterRetMsg, Value,
};
use kvatlas_protocol::{ChunkHash, Location, Timestamp};
use uuid::Uuid;
use zmq::PollItem;

use super::event_loop::Order;
use super::{PeerHit, Shared};
use crate::commands::{Engine, answer};
use crate::config::AgentConfig;
use crate::connection::{self, Commands, Dealer, Push};
use crate::error::AgentError;
use crate::full_sync::{Action, FullSync};
use crate::heartbeat::{Presence, Question, Target};

/// Messages that may wait for libzmq before the publisher keeps the rest.
const MAX_OUTBOX: usize = 64;
/// Operations of one message; upstream has no bound.
const MAX_OPERATIONS: usize = 2000;
/// Longest wait for the answer to registration before it is asked anew on another socket.
const MAX_REGISTER_WAIT: Duration = Duration::from_secs(10);
/// Answers to heartbeats taken at a time, so that no controller keeps the loop from the others.
const MAX_BEATS: usize = 16;
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

    /// Answers of the controller, or their absence.
    fn hear(&mut self, ready: Ready, now: Timestamp) {
        if ready.reply
            && self.asked.is_some()
            && let Some(payload) = self.reply.answer()
            && let Some((asked, until)) = self.asked.take()
        {
            let answer = decode(&payload);
            self.handle_reply(asked, answer, until, now);
        }
        if let Some((asked, _)) = self.asked.take_if(|(_, until)| *until <= now) {
            self.reply.give_up();
            self.handle_reply(asked, None, now, now);
        }
        if ready.heartbeat {
            for _ in 0..MAX_BEATS {
                let Some(payload) = self.heartbeat.as_ref().and_then(|(_, h)| h.answer()) else {
                    break;
                };
                self.handle_beat(decode(&payload), now);
            }
        }
    }

    /// `answer` to what was asked, which may be answered until `until`.
    fn handle_reply(
        &mut self,
        asked: Asked,
        answer: Option<Message>,
        until: Timestamp,
        now: Timestamp,
    ) {
        match (asked, answer) {
            (Asked::Register, Some(Message::RegisterRetMsg(answer))) => {
                self.handle_registered(&answer, now);
            }
            (Asked::Register, answer) => {
                tracing::debug!(worker = %self.config.worker, ?answer, "not registered yet");
                self.presence.handle_not_registered(random(), now);
            }
            (Asked::Sync, Some(Message::FullSyncStartRetMsg(answer))) => {
                if !self.sync.handle_start_reply(answer, now) {
                    self.asked = Some((Asked::Sync, until));
                }
            }
            (Asked::Sync, Some(Message::FullSyncStatusRetMsg(answer))) => {
                if !self.sync.handle_status_reply(answer, now) {
                    self.asked = Some((Asked::Sync, until));
                }
            }
            (Asked::Sync, _) => self.sync.handle_no_reply(now),
            (Asked::Lookup(reply), Some(Message::BatchedP2PLookupRetMsg(answer))) => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(peers(answer));
            }
            // Dropping the sender tells the asker that there is no answer.
            (Asked::Lookup(_), _) => {}
        }
    }

    fn handle_registered(&mut self, answer: &RegisterRetMsg, now: Timestamp) {
        let url = answer.extra_config.get("heartbeat_url");
        self.heartbeat_url = url
            .filter(|url| match connection::endpoint(url) {
                Ok(_) => true,
                Err(error) => {
                    tracing::warn!(%error, "heartbeats go to the reply socket");
                    false
                }
            })
            .cloned();
        self.presence
            .handle_registered(self.heartbeat_url.is_some(), now);
        self.shared.status.lock().registered = true;
        tracing::info!(worker = %self.config.worker, heartbeat = url, "registered");
        // What was held before is in no operation.
        let initial = std::mem::take(&mut self.initial);
        if !initial.is_empty() {
            self.request_sync(initial, now);
        }
    }

    fn handle_beat(&mut self, answer: Option<Message>, now: Timestamp) {
        let Some(Message::HeartbeatRetMsg(HeartbeatRetMsg { commands })) = answer else {
            tracing::debug!(worker = %self.config.worker, ?answer, "heartbeat refused");
            return;
        };
        self.presence.handle_beat();
        self.shared.status.lock().heartbeats += 1;
        for command in commands {
            self.handle_heartbeat_command(command, now);
        }
    }

    fn handle_heartbeat_command(&mut self, command: HeartbeatCommand, now: Timestamp) {
        match command {
            HeartbeatCommand::FullSync(CommandArgs { reason, args }) => {
                let mut locations = self.engine.locations();
                if let Some(Value::Text(wanted)) =
                    args.as_ref().and_then(|args| args.get("location"))
                {
                    locations.retain(|location| location.as_str() == wanted);
                }
                tracing::info!(worker = %self.config.worker, reason, ?locations, "full sync asked");
                self.request_sync(locations, now);
            }
            HeartbeatCommand::HeartbeatCommand(_) => {}
        }
    }

    fn request_sync(&mut self, locations: Vec<Location>, now: Timestamp) {
        let delay = self.config.full_sync.startup_delay.mul_f64(random());
        self.sync.handle_request(locations, delay, now);
    }

    /// Registers and beats.
    fn be_present(&mut self, now: Timestamp) {
        match self.presence.poll(now) {
            None => {}
            Some(Question::Register) => {
                let message = self.register().encode_msgpack();
                self.questions.push_back((Asked::Register, message));
            }
            Some(Question::Beat(target)) => {
                if self.presence.unanswered() > 1 {
                    self.shared.status.lock().heartbeats_missed += 1;
                }
                let message = self.beat().encode_msgpack();
                if let Some(heartbeat) = self.heartbeat_to(target) {
                    heartbeat.ask(&message);
                }
            }
        }
    }

    /// The socket for heartbeats, opened anew if it leads elsewhere.
    fn heartbeat_to(&mut self, target: Target) -> Option<&Dealer> {
        if self.heartbeat.as_ref().is_none_or(|(at, _)| *at != target) {
            let address = match (target, &self.heartbeat_url) {
                (Target::Heartbeat, Some(url)) => url,
                _ => &self.config.reply_url,
            };
            let opened = Dealer::open(&self.context, address);
            let opened = opened.inspect_err(|error| tracing::warn!(%error, "no heartbeat socket"));
            self.heartbeat = opened.ok().map(|dealer| (target, dealer));
        }
        self.heartbeat.as_ref().map(|(_, dealer)| dealer)
    }

    /// Begins a sync of our own where a gap of ours was not asked to be repaired.
    fn repair(&mut self, now: Timestamp) {
        let fresh = self.shared.publisher.lock().take_gaps();
        for location in fresh {
            tracing::warn!(worker = %self.config.worker, %location, "operations dropped, queue full");
            self.gaps.retain(|(known, _)| *known != location);
            self.gaps.push((location, now));
        }
        if !self.presence.is_registered() {
            return;
        }
        let patience = self.config.repair_after;
        let overdue: Vec<Location> = self
            .gaps
            .extract_if(.., |(_, noticed)| *noticed + patience <= now)
            .map(|(location, _)| location)
            .collect();
        if !overdue.is_empty() {
            self.request_sync(overdue, now);
        }
    }

    fn publish(&mut self, now: Timestamp) {
        if !self.may_publish() {
            return;
        }
        let batches = {
            let mut publisher = self.shared.publisher.lock();
            let due = publisher.due().is_some_and(|due| due <= now);
            if !due && self.leaving.is_none() {
                return;
            }
            publisher.drain()
        };
        let mut sent = 0;
        for mut batch in batches {
            let header = BatchHeader {
                instance_id: self.config.worker.instance.as_str(),
                worker_id: self.config.worker.worker.0,
                location: batch.location.as_str(),
            };
            let events: Vec<KVOpEvent> = batch
                .operations
                .drain(..)
                .map(|operation| KVOpEvent {
                    op_type: operation.kind,
                    key: self.config.keys.wire(operation.hash),
                    seq_num: operation.seq.0,
                })
                .collect();
            sent += events.len() as u64;
            for events in events.chunks(MAX_OPERATIONS) {
                let mut message = Vec::with_capacity(events.len() * 48 + 128);
                encode_batch(header, events, &mut message);
                self.push.add(message);
            }
        }
        self.shared.status.lock().operations_sent += sent;
    }

    fn may_publish(&self) -> bool {
        if !self.presence.is_registered() || self.push.waiting() >= MAX_OUTBOX {
            return false;
        }
        // An engine that does not heed the freeze must not lose operations for it.
        let room = self.config.batching.queue_limit / 2;
        !self.sync.holds_operations() || self.shared.publisher.lock().waiting() > room
    }

    fn go_on_syncing(&mut self, now: Timestamp) {
        while self.push.waiting() < MAX_OUTBOX {
            let Some(action) = self.sync.poll(now) else {
                break;
            };
            match action {
                Action::Freeze(frozen) => self.engine.freeze(frozen),
                Action::List(location) => {
                    self.listed_at = now;
                    self.list(location, now);
                }
                Action::Ask(message) => self
                    .questions
                    .push_back((Asked::Sync, message.encode_msgpack())),
                Action::Push(message) => self.push.add(message.encode_msgpack()),
                Action::Finished(location, result) => {
                    let mut status = self.shared.status.lock();
                    match &result {
                        Ok(()) => status.syncs_completed += 1,
                        Err(_) => status.syncs_failed += 1,
                    }
                    drop(status);
                    let worker = &self.config.worker;
                    match result {
                        Ok(()) => {
                            // A gap noticed after the listing is not mended by it.
                            let listed_at = self.listed_at;
                            self.gaps
                                .retain(|(gap, at)| *gap != location || *at > listed_at);
                            tracing::info!(%worker, %location, "full sync complete");
                        }
                        Err(failure) => {
                            tracing::warn!(%worker, %location, %failure, "full sync failed");
                        }
                    }
                }
            }
        }
        self.shared.status.lock().syncing = self.sync.is_active();
    }

    fn list(&mut self, location: Location, now: Timestamp) {
        let (engine, orders, shared) = (
            self.engine.clone(),
            self.orders.clone(),
            self.shared.clone(),
        );
        let id = self.id;
        let listing = std::thread::Builder::new()
            .name("kvatlas-listing".into())
            .spawn(move || {
                // Unwind safety: the engine's own locks decide what a panic leaves behind.
                let keys = catch_unwind(AssertUnwindSafe(|| engine.keys(&location))).ok();
                if orders.send(Order::Listed { id, keys }).is_ok() {
                    shared.waker.wake();
                }
            });
        if let Err(error) = listing {
            tracing::error!(%error, "no thread to list keys");
            self.handle_listed(None, now);
        }
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
            let refusal = kvatlas_protocol::message::ErrorMsg {
                error: format!("no thread for the command: {error}"),
            };
            self.handle_answer(&Message::from(refusal).encode_msgpack());
        }
    }

    fn ask_next(&mut self, now: Timestamp) {
        if self.asked.is_some() {
            return;
        }
        if let Some((asked, payload)) = self.questions.pop_front() {
            let timeout = match asked {
                Asked::Register => self.config.request_timeout.min(MAX_REGISTER_WAIT),
                Asked::Sync | Asked::Lookup(_) => self.config.request_timeout,
            };
            // An unsent question is an unanswered one.
            self.reply.ask(&payload);
            self.asked = Some((asked, now + timeout));
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
        let repairing = self.gaps.iter().map(|(_, at)| *at).min();
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

    fn register(&self) -> Message {
        let HeartbeatMsg {
            instance_id,
            worker_id,
            ip,
            port,
            peer_init_url,
        } = self.facts();
        RegisterMsg {
            instance_id,
            worker_id,
            ip,
            port,
            peer_init_url,
        }
        .into()
    }

    fn beat(&self) -> Message {
        self.facts().into()
    }

    fn facts(&self) -> HeartbeatMsg {
        HeartbeatMsg {
            instance_id: self.config.worker.instance.to_string(),
            worker_id: self.config.worker.worker.0,
            ip: self.ip.clone(),
            port: i64::from(self.commands.port()),
            peer_init_url: self.config.peer_url.clone(),
        }
    }
}

fn decode(payload: &[u8]) -> Option<Message> {
    Message::decode(payload)
        .inspect_err(|error| tracing::warn!(%error, "undecodable answer"))
        .ok()
}

fn peers(answer: BatchedP2PLookupRetMsg) -> Vec<PeerHit> {
    answer
        .layout_info
        .into_iter()
        // A miss is one entry of empty names.
        .filter(|(instance, _, chunks, _)| !instance.is_empty() && *chunks > 0)
        .map(|(instance, location, chunks, peer_url)| PeerHit {
            instance,
            location: location.into(),
            chunks: usize::try_from(chunks).unwrap_or(0),
            peer_url,
        })
        .collect()
}

/// In 0..1.
fn random() -> f64 {
    // 53 bits fit a double exactly.
    (Uuid::new_v4().as_u128() as u64 >> 11) as f64 / (1_u64 << 53) as f64
}
