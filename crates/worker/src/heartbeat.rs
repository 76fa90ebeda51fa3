//! When to register and when to beat, sans-I/O.
//!
//! Registration is tried until it succeeds, with doubling pauses: unlike upstream's worker, which
//! gives up, this one may start before its controller. It succeeds once: a second RegisterMsg would
//! make the controller drop the worker's keys. A controller that restarted learns of the worker
//! by its next heartbeat, which carries the same facts.
//!
//! Heartbeats go to the socket that the answer to registration names (`heartbeat_url`), or to the
//! reply socket if it names none. After [`MAX_MISSES`] unanswered in a row the two take turns: the
//! address may be one this worker cannot reach, or an old one. Upstream: `LMCacheWorker.heartbeat`.

use std::time::Duration;

use kvatlas_protocol::Timestamp;

/// Unanswered heartbeats in a row after which the reply socket is tried too.
const MAX_MISSES: u32 = 2;
/// First pause after a registration that failed.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Longest pause between registrations.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// How often, and from when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Pause between heartbeats (`lmcache_worker_heartbeat_time`); `None` switches them off.
    pub interval: Option<Duration>,
    /// From registration to the first (`lmcache_worker_heartbeat_delay_time`, 10 s).
    pub delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(10)),
            delay: Duration::from_secs(10),
        }
    }
}

/// Where a heartbeat goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The controller's heartbeat socket, at the address registration told.
    Heartbeat,
    /// The controller's reply socket.
    Reply,
}

/// What to ask the controller now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A RegisterMsg on the reply socket.
    Register,
    /// A HeartbeatMsg.
    Beat(Target),
}

/// One worker's standing with its controller.
#[derive(Debug)]
pub struct Presence {
    settings: Settings,
    state: State,
}

#[derive(Debug)]
enum State {
    Registering {
        next_at: Option<Timestamp>,
        backoff: Duration,
    },
    Registered {
        /// The controller named a heartbeat socket.
        dedicated: bool,
        /// `None` while an answer is awaited, or with heartbeats off.
        next_at: Option<Timestamp>,
        misses: u32,
    },
}

impl Presence {
    /// A worker that has yet to register, from `now` on.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            settings,
            state: State::Registering {
                next_at: Some(now),
                backoff: FIRST_BACKOFF,
            },
        }
    }

    /// What to ask now, if anything. Nothing more comes until the answer, or its absence, is told.
    pub fn poll(&mut self, now: Timestamp) -> Option<Question> {
        match &mut self.state {
            State::Registering { next_at, .. } => {
                next_at.take_if(|at| *at <= now).map(|_| Question::Register)
            }
            State::Registered {
                dedicated,
                next_at,
                misses,
            } => next_at.take_if(|at| *at <= now).map(|_| {
                let elsewhere = *misses >= MAX_MISSES && misses.is_multiple_of(2);
                Question::Beat(if *dedicated && !elsewhere {
                    Target::Heartbeat
                } else {
                    Target::Reply
                })
            }),
        }
    }

    /// When [`poll`](Self::poll) has something to ask again.
    pub fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::Registering { next_at, .. } | State::Registered { next_at, .. } => next_at,
        }
    }

    /// Registration was answered; `dedicated` if it named a heartbeat socket.
    pub fn handle_registered(&mut self, dedicated: bool, now: Timestamp) {
        self.state = State::Registered {
            dedicated,
            next_at: self.settings.interval.map(|_| now + self.settings.delay),
            misses: 0,
        };
    }

    /// Registration was refused or not answered; `jitter` in 0..1 spreads a fleet's attempts.
    pub fn handle_not_registered(&mut self, jitter: f64, now: Timestamp) {
        if let State::Registering { next_at, backoff } = &mut self.state {
            *next_at = Some(now + backoff.mul_f64(1.0 + jitter.clamp(0.0, 1.0)));
            *backoff = (*backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// A heartbeat was answered, or not.
    pub fn handle_beat(&mut self, answered: bool, now: Timestamp) {
        if let State::Registered {
            next_at, misses, ..
        } = &mut self.state
        {
            *misses = if answered {
                0
            } else {
                misses.saturating_add(1)
            };
            *next_at = self.settings.interval.map(|interval| now + interval);
        }
    }

    /// Whether the controller has answered registration.
    pub fn is_registered(&self) -> bool {
        matches!(self.state, State::Registered { .. })
    }

    /// How long to wait for the answer to a heartbeat: a mute socket must not cost several beats.
    pub fn beat_timeout(&self, request_timeout: Duration) -> Duration {
        match self.settings.interval {
            Some(interval) => request_timeout.min(interval.max(Duration::from_secs(1))),
            None => request_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn presence() -> Presence {
        Presence::new(Settings::default(), Timestamp(0))
    }

    #[test]
    fn registers_until_answered_with_doubling_pauses_then_never_again() {
        let mut presence = presence();
        let mut now = Timestamp(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(presence.poll(now), Some(Question::Register));
            assert_eq!(presence.poll(now), None, "one question at a time");
            presence.handle_not_registered(0.0, now);
            let next = presence.deadline().unwrap();
            pauses.push(next.since(now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!(presence.poll(now), Some(Question::Register));
        presence.handle_registered(true, now);
        assert!(presence.is_registered());
        presence.handle_not_registered(0.0, now);
        assert!(presence.is_registered(), "a late refusal changes nothing");
    }

    #[test]
    fn beats_after_the_delay_and_tries_the_reply_socket_when_the_other_is_mute() {
        let mut presence = presence();
        presence.handle_registered(true, Timestamp(0));
        assert_eq!(presence.poll(Timestamp(9 * SECOND)), None);
        let mut targets = Vec::new();
        let mut now = Timestamp(10 * SECOND);
        for _ in 0..6 {
            match presence.poll(now) {
                Some(Question::Beat(target)) => targets.push(target),
                other => panic!("{other:?} at {now:?}"),
            }
            presence.handle_beat(false, now);
            now = presence.deadline().unwrap();
        }
        use Target::{Heartbeat, Reply};
        assert_eq!(
            targets,
            [Heartbeat, Heartbeat, Reply, Heartbeat, Reply, Heartbeat]
        );
        presence.poll(now);
        presence.handle_beat(true, now);
        now = presence.deadline().unwrap();
        assert_eq!(presence.poll(now), Some(Question::Beat(Heartbeat)));
    }

    #[test]
    fn no_interval_no_beats_and_no_url_means_the_reply_socket() {
        let off = Settings {
            interval: None,
            delay: Duration::ZERO,
        };
        let mut silent = Presence::new(off, Timestamp(0));
        silent.handle_registered(true, Timestamp(0));
        assert_eq!(silent.deadline(), None);
        let mut presence = presence();
        presence.handle_registered(false, Timestamp(0));
        assert_eq!(
            presence.poll(Timestamp(10 * SECOND)),
            Some(Question::Beat(Target::Reply))
        );
    }
}
