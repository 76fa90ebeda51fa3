//! When to register and when to beat, sans-I/O.
//!
//! Registration is tried until it succeeds, with doubling pauses: unlike upstream's worker, which
//! gives up, this one may start before its controller. It succeeds once: a second RegisterMsg would
//! make the controller drop the worker's keys. A controller that restarted learns of the worker
//! by its next heartbeat, which carries the same facts.
//!
//! Heartbeats go to the socket that the answer to registration names (`heartbeat_url`), or to the
//! reply socket if it names none. After a long silence the two take turns: the address may be one
//! this worker cannot reach, or an old one. A beat does not wait for the answer to the one before,
//! and a late answer counts: LMCache's controller gives the command to sync once, in the answer to
//! the first beat after its restart. Upstream: `LMCacheWorker.heartbeat`.

use std::time::Duration;

use kvatlas_protocol::Timestamp;

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
    /// Least silence after which the other socket is tried: LMCache's controller takes seconds to
    /// start. Ours, 10 s.
    pub min_silence: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(10)),
            delay: Duration::from_secs(10),
            min_silence: Duration::from_secs(10),
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
        target: Target,
        /// `None` with heartbeats off.
        next_at: Option<Timestamp>,
        /// Beats since the last answer.
        unanswered: u64,
        /// Since when `target` has been silent.
        silent_since: Timestamp,
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

    /// What to ask now, if anything. After `Register` nothing more comes until it is answered.
    pub fn poll(&mut self, now: Timestamp) -> Option<Question> {
        match &mut self.state {
            State::Registering { next_at, .. } => {
                next_at.take_if(|at| *at <= now).map(|_| Question::Register)
            }
            State::Registered {
                dedicated,
                target,
                next_at,
                unanswered,
                silent_since,
            } => {
                next_at.take_if(|at| *at <= now)?;
                let interval = self.settings.interval?;
                *next_at = Some(now + interval);
                if *unanswered == 0 {
                    *silent_since = now;
                } else if *dedicated
                    && now.since(*silent_since) >= self.settings.min_silence.max(interval * 2)
                {
                    *silent_since = now;
                    *target = match target {
                        Target::Heartbeat => Target::Reply,
                        Target::Reply => Target::Heartbeat,
                    };
                }
                *unanswered += 1;
                Some(Question::Beat(*target))
            }
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
            target: if dedicated {
                Target::Heartbeat
            } else {
                Target::Reply
            },
            next_at: self.settings.interval.map(|_| now + self.settings.delay),
            unanswered: 0,
            silent_since: now,
        };
    }

    /// Registration was refused or not answered; `jitter` in 0..1 spreads a fleet's attempts.
    pub fn handle_not_registered(&mut self, jitter: f64, now: Timestamp) {
        if let State::Registering { next_at, backoff } = &mut self.state {
            *next_at = Some(now + backoff.mul_f64(1.0 + jitter.clamp(0.0, 1.0)));
            *backoff = (*backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// A heartbeat was answered.
    pub fn handle_beat(&mut self) {
        if let State::Registered { unanswered, .. } = &mut self.state {
            *unanswered = 0;
        }
    }

    /// Beats since the last answer; 1 is one under way.
    pub fn unanswered(&self) -> u64 {
        match self.state {
            State::Registering { .. } => 0,
            State::Registered { unanswered, .. } => unanswered,
        }
    }

    /// Whether the controller has answered registration.
    pub fn is_registered(&self) -> bool {
        matches!(self.state, State::Registered { .. })
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

    /// Where the next `n` beats go, none answered.
    fn targets(presence: &mut Presence, n: usize) -> Vec<Target> {
        (0..n)
            .map(|_| {
                let now = presence.deadline().unwrap();
                match presence.poll(now) {
                    Some(Question::Beat(target)) => target,
                    other => panic!("{other:?} at {now:?}"),
                }
            })
            .collect()
    }

    #[test]
    fn beats_after_the_delay_and_takes_turns_when_nobody_answers() {
        use Target::{Heartbeat, Reply};
        let mut presence = presence();
        presence.handle_registered(true, Timestamp(0));
        assert_eq!(presence.poll(Timestamp(9 * SECOND)), None);
        assert_eq!(presence.deadline(), Some(Timestamp(10 * SECOND)));
        // Every 10 s; 20 s of silence are enough.
        assert_eq!(
            targets(&mut presence, 6),
            [Heartbeat, Heartbeat, Reply, Reply, Heartbeat, Heartbeat]
        );
        assert_eq!(presence.unanswered(), 6);
        targets(&mut presence, 1);
        presence.handle_beat();
        assert_eq!(presence.unanswered(), 0);
        // Whoever answered is kept.
        assert_eq!(targets(&mut presence, 2), [Reply, Reply]);
    }

    #[test]
    fn fast_beats_do_not_give_a_slow_controller_up() {
        let quick = Settings {
            interval: Some(Duration::from_millis(100)),
            delay: Duration::ZERO,
            ..Settings::default()
        };
        let mut presence = Presence::new(quick, Timestamp(0));
        presence.handle_registered(true, Timestamp(0));
        assert_eq!(targets(&mut presence, 100), [Target::Heartbeat; 100]);
        assert_eq!(targets(&mut presence, 1), [Target::Reply]);
    }

    #[test]
    fn no_interval_no_beats_and_no_url_means_the_reply_socket() {
        let off = Settings {
            interval: None,
            delay: Duration::ZERO,
            ..Settings::default()
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
