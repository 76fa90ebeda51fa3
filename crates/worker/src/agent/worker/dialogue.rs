//! Questions to the controller and what its answers mean: registration, heartbeats and their
//! commands, full-sync questions, peer lookups.
//!
//! One question at a time on the reply socket; a socket whose answer is overdue is given up, so that
//! a late answer meets nobody. Heartbeats have a socket of their own and do not wait for each other.

use std::time::Duration;

use kvatlas_protocol::Timestamp;
use kvatlas_protocol::message::{
    BatchedP2PLookupRetMsg, CommandArgs, HeartbeatCommand, HeartbeatMsg, HeartbeatRetMsg, Message,
    RegisterMsg, RegisterRetMsg, Value,
};

use super::{Asked, Ready, Worker, random};
use crate::agent::PeerHit;
use crate::connection::{self, Dealer};
use crate::heartbeat::{Question, Target};

/// Longest wait for the answer to registration and to questions of a full sync, during which the
/// engine is frozen, before they are asked anew on another socket.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// The same once the controller asks for a sync: it may be a new one, and what the old one was asked
/// has died with it.
const MAX_WAIT_AFTER_RESTART: Duration = Duration::from_secs(1);
/// Answers to heartbeats taken at a time, so that no controller keeps the loop from the others.
const MAX_BEATS: usize = 16;

impl Worker {
    /// Answers of the controller, or their absence.
    pub(super) fn hear(&mut self, ready: Ready, now: Timestamp) {
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
        for _ in 0..MAX_BEATS {
            let current = self.heartbeat.as_ref().filter(|_| ready.heartbeat);
            let former = self.former_heartbeat.as_ref();
            let former = former.filter(|_| ready.former_heartbeat);
            let answer = current.and_then(|(_, dealer)| dealer.answer());
            let Some(payload) = answer.or_else(|| former?.answer()) else {
                break;
            };
            self.handle_beat(decode(&payload), now);
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
                if let Some((_, until)) = &mut self.asked {
                    *until = (*until).min(now + MAX_WAIT_AFTER_RESTART);
                }
            }
            HeartbeatCommand::HeartbeatCommand(_) => {}
        }
    }

    /// Registers and beats.
    pub(super) fn be_present(&mut self, now: Timestamp) {
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
            let opened = opened.ok().map(|dealer| (target, dealer));
            let former = std::mem::replace(&mut self.heartbeat, opened);
            self.former_heartbeat = former.map(|(_, dealer)| dealer);
        }
        self.heartbeat.as_ref().map(|(_, dealer)| dealer)
    }

    pub(super) fn ask_next(&mut self, now: Timestamp) {
        if self.asked.is_some() {
            return;
        }
        if let Some((asked, payload)) = self.questions.pop_front() {
            let timeout = match asked {
                Asked::Register | Asked::Sync => self.config.request_timeout.min(MAX_WAIT),
                Asked::Lookup(_) => self.config.request_timeout,
            };
            // An unsent question is an unanswered one.
            self.reply.ask(&payload);
            self.asked = Some((asked, now + timeout));
        }
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

    pub(super) fn facts(&self) -> HeartbeatMsg {
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
