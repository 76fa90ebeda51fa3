//! The workers' replies become one answer.
//!
//! All workers of an instance hold the same tokens, each its own share of every chunk, so the same
//! number from each is the proof that a command was carried out. Mirrors the reductions of
//! `lmcache/v1/cache_controller/executor.py`, where a difference is an assertion.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kvatlas_protocol::message::{
    ClearWorkerRetMsg, CompressWorkerRetMsg, DecompressWorkerRetMsg, ErrorMsg, HealthWorkerRetMsg,
    Message, MoveWorkerRetMsg, PinWorkerRetMsg,
};
use kvatlas_protocol::{WorkerId, WorkerKey};
use thiserror::Error;

use super::CommandKind;
use crate::events::EventState;

/// Bytes of text from a worker that are kept and passed on: enough for an exception's message, and
/// a table full of steps ([`crate::events::Bounds`]) that all failed with it is 100 MB.
const MAX_TEXT_BYTES: usize = 500;

/// Different failures that one is compared with for being the same: keeps the text of a hundred
/// thousand failures linear.
const MAX_COMPARED: usize = 16;

/// What came back from one worker.
pub type Reply = Result<Message, StepError>;

/// What a worker that obeyed said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepValue {
    /// So many tokens were affected.
    Tokens(i64),
    /// Its health: 0 is well.
    Health(i64),
}

/// Why a worker's part of a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// Its registered address cannot be connected to.
    #[error("registered an address that cannot be used, {address}: {reason}")]
    BadAddress {
        /// As registered.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// This process could not open a connection.
    #[error("could not be connected to from here: {0}")]
    NoLink(String),
    /// No connection came about before the deadline; the command was not sent.
    #[error("did not accept a connection at {address} within {waited:?}; the command was not sent")]
    NeverConnected {
        /// Where it should listen.
        address: String,
        /// Time given.
        waited: Duration,
    },
    /// Earlier commands to the worker took until the deadline; the command was not sent.
    #[error("was busy with earlier commands for {waited:?}; the command was not sent")]
    Busy {
        /// Time given.
        waited: Duration,
    },
    /// The command was sent and nothing came back before the deadline.
    #[error("did not answer within {waited:?}; the command may still be carried out")]
    NoAnswer {
        /// Time given.
        waited: Duration,
    },
    /// The command was sent and the connection broke.
    #[error(
        "closed the connection before an answer arrived; the command may have been carried out"
    )]
    Disconnected,
    /// This process is stopping.
    #[error("was given up because the controller is stopping")]
    Stopping,
    /// The worker's own error.
    #[error("answered with an error: {0}")]
    Worker(String),
    /// A message that does not answer the command.
    #[error("answered with {found} instead of {expected}")]
    Unexpected {
        /// Message expected.
        expected: &'static str,
        /// Message that came.
        found: &'static str,
    },
    /// Bytes that are no message.
    #[error("answered with something that is no message: {0}")]
    Undecodable(String),
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All workers report this number.
    Tokens(i64),
    /// Health by rank: 0 well, above or below the worker's own code, and -1001 to -1003 where it
    /// gave none.
    Health(BTreeMap<WorkerId, i64>),
    /// All workers obeyed, with different numbers.
    Disagree(Vec<(WorkerKey, i64)>),
    /// At least one worker did not obey.
    Failed {
        /// Those that did not.
        failed: Vec<(WorkerKey, StepError)>,
        /// Those that did.
        obeyed: Vec<(WorkerKey, StepValue)>,
    },
}

/// One answer from the replies to a command of this kind, which stand in the order of `workers`.
///
/// A worker without a reply (there are fewer) counts as given up.
pub fn reduce(kind: CommandKind, workers: &[WorkerKey], replies: Vec<Reply>) -> Outcome {
    let mut obeyed = Vec::with_capacity(workers.len());
    let mut failed = Vec::new();
    let mut replies = replies.into_iter();
    for worker in workers {
        let reply = replies.next().unwrap_or(Err(StepError::Stopping));
        match kind.value(reply) {
            Ok(value) => obeyed.push((worker.clone(), value)),
            Err(error) => failed.push((worker.clone(), error)),
        }
    }
    if kind == CommandKind::Health {
        return reduce_health(obeyed, failed);
    }
    if !failed.is_empty() {
        return Outcome::Failed { failed, obeyed };
    }
    let numbers: Vec<_> = obeyed
        .into_iter()
        .map(|(worker, value)| (worker, value.number()))
        .collect();
    match numbers.split_first() {
        None => Outcome::Tokens(0),
        Some(((_, first), rest)) if rest.iter().all(|(_, number)| number == first) => {
            Outcome::Tokens(*first)
        }
        Some(_) => Outcome::Disagree(numbers),
    }
}

impl CommandKind {
    /// What one reply to this command says.
    pub fn value(self, reply: Reply) -> Result<StepValue, StepError> {
        match (self, reply?) {
            (Self::Clear, Message::ClearWorkerRetMsg(ClearWorkerRetMsg { num_tokens }))
            | (Self::Pin, Message::PinWorkerRetMsg(PinWorkerRetMsg { num_tokens }))
            | (
                Self::Compress,
                Message::CompressWorkerRetMsg(CompressWorkerRetMsg { num_tokens }),
            )
            | (
                Self::Decompress,
                Message::DecompressWorkerRetMsg(DecompressWorkerRetMsg { num_tokens }),
            )
            | (Self::Move, Message::MoveWorkerRetMsg(MoveWorkerRetMsg { num_tokens })) => {
                Ok(StepValue::Tokens(num_tokens))
            }
            (Self::Health, Message::HealthWorkerRetMsg(HealthWorkerRetMsg { error_code })) => {
                Ok(StepValue::Health(error_code))
            }
            (_, Message::ErrorMsg(ErrorMsg { error })) => Err(StepError::Worker(shortened(error))),
            (_, other) => Err(StepError::Unexpected {
                expected: self.answer(),
                found: other.tag(),
            }),
        }
    }

    /// The message that answers this command.
    fn answer(self) -> &'static str {
        match self {
            Self::Clear => "ClearWorkerRetMsg",
            Self::Pin => "PinWorkerRetMsg",
            Self::Compress => "CompressWorkerRetMsg",
            Self::Decompress => "DecompressWorkerRetMsg",
            Self::Move => "MoveWorkerRetMsg",
            Self::Health => "HealthWorkerRetMsg",
        }
    }
}

impl StepError {
    /// The address `ip`:`port` is of no use because of `reason`.
    pub fn bad_address(ip: &str, port: i64, reason: impl fmt::Display) -> Self {
        Self::BadAddress {
            address: format!("{}:{port}", shortened(ip.to_owned())),
            reason: shortened(reason.to_string()),
        }
    }

    /// The answer is no message because of `reason`.
    pub fn undecodable(reason: impl fmt::Display) -> Self {
        Self::Undecodable(shortened(reason.to_string()))
    }

    /// Whether the worker was silent or absent, rather than wrong.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::NoLink(_)
            | Self::NeverConnected { .. }
            | Self::Busy { .. }
            | Self::NoAnswer { .. }
            | Self::Disconnected
            | Self::Stopping => true,
            Self::BadAddress { .. }
            | Self::Worker(_)
            | Self::Unexpected { .. }
            | Self::Undecodable(_) => false,
        }
    }

    /// The code upstream gives such an answer to a health question; `None` where it would hang.
    fn health_code(&self) -> Option<i64> {
        match self {
            Self::Worker(_) => Some(-1001),
            Self::Unexpected { .. } => Some(-1002),
            Self::Undecodable(_) => Some(-1003),
            _ => None,
        }
    }
}

impl StepValue {
    /// Tokens or code.
    pub fn number(self) -> i64 {
        match self {
            Self::Tokens(number) | Self::Health(number) => number,
        }
    }
}

impl Outcome {
    /// The state of an event that ended so.
    pub fn state(&self) -> EventState {
        match self {
            Self::Tokens(_) | Self::Health(_) => EventState::Finished,
            Self::Disagree(_) => EventState::Partial,
            Self::Failed { obeyed, .. } if obeyed.is_empty() => EventState::Failed,
            Self::Failed { .. } => EventState::Partial,
        }
    }

    /// The number all workers agree on.
    pub fn num_tokens(&self) -> Option<i64> {
        match self {
            Self::Tokens(number) => Some(*number),
            _ => None,
        }
    }

    /// Why the command is not finished, naming each worker; `None` if it is.
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Tokens(_) | Self::Health(_) => None,
            Self::Disagree(_) | Self::Failed { .. } => Some(self.to_string()),
        }
    }

    /// Whether a silent or absent worker is among the reasons.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Failed { failed, .. } => failed.iter().any(|(_, error)| error.is_silence()),
            _ => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(number) => write!(f, "{number} tokens"),
            Self::Health(codes) => write!(f, "health of {} workers", codes.len()),
            Self::Disagree(numbers) => {
                f.write_str("the workers disagree on the number of tokens: ")?;
                join(f, numbers, "; ", |f, (worker, number)| {
                    write!(f, "{worker} says {number}")
                })
            }
            Self::Failed { failed, obeyed } => {
                join(f, &by_error(failed), "; ", |f, (workers, error)| {
                    f.write_str(if workers.len() == 1 {
                        "worker "
                    } else {
                        "workers "
                    })?;
                    join(f, workers, ", ", |f, worker| write!(f, "{worker}"))?;
                    write!(f, " {error}")
                })?;
                if !obeyed.is_empty() {
                    f.write_str(" (done by ")?;
                    join(f, obeyed, ", ", |f, (worker, value)| {
                        write!(f, "{worker}: {}", value.number())
                    })?;
                    f.write_str(")")?;
                }
                Ok(())
            }
        }
    }
}

/// Health has a code for every answer, also for a wrong one; only silence has none.
fn reduce_health(
    obeyed: Vec<(WorkerKey, StepValue)>,
    failed: Vec<(WorkerKey, StepError)>,
) -> Outcome {
    let mut codes: BTreeMap<_, _> = obeyed
        .iter()
        .map(|(worker, value)| (worker.worker, value.number()))
        .collect();
    for (worker, error) in &failed {
        match error.health_code() {
            Some(code) => codes.insert(worker.worker, code),
            None => return Outcome::Failed { failed, obeyed },
        };
    }
    Outcome::Health(codes)
}

/// `text` cut to what is kept, at a character's edge.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.shrink_to_fit();
        text.push_str("...");
    }
    text
}

/// Failures with those that share them, in order of the first: two hundred workers behind one broken
/// switch are one sentence.
fn by_error(failed: &[(WorkerKey, StepError)]) -> Vec<(Vec<&WorkerKey>, &StepError)> {
    let mut groups: Vec<(Vec<&WorkerKey>, &StepError)> = Vec::new();
    for (worker, error) in failed {
        let mut latest = groups.iter_mut().rev().take(MAX_COMPARED);
        match latest.find(|(_, known)| *known == error) {
            Some((workers, _)) => workers.push(worker),
            None => groups.push((vec![worker], error)),
        }
    }
    groups
}

/// Writes `items` with `separator` between them.
fn join<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: &str,
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            f.write_str(separator)?;
        }
        write(f, item)?;
    }
    Ok(())
}
