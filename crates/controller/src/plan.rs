//! A command of an orchestrator becomes a plan: which worker is to be told what.
//!
//! Pure: the registry is asked through a closure, nothing is sent, nothing is changed. Commands
//! never change the index; it learns what they did from the admits and evicts that follow.
//! Mirrors `lmcache/v1/cache_controller/executor.py`, except that a refusal has a type.
//!
//! ```text
//! Command -- plan() --> Plan { steps } -- dispatch --> replies -- reduce() --> Outcome
//! ```

mod reduce;

use kvatlas_protocol::message::{
    ClearWorkerMsg, CompressWorkerMsg, DecompressWorkerMsg, HealthWorkerMsg, Message,
    MoveWorkerMsg, PinWorkerMsg,
};
use kvatlas_protocol::{InstanceId, Location, WorkerId, WorkerKey};
use thiserror::Error;

use crate::controller::{WorkerAddress, WorkerInfo};
use crate::events::EventId;

pub use reduce::{Outcome, Reply, StepError, StepValue, reduce};

/// What an orchestrator may ask of the workers of one instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Drop everything in a location.
    Clear {
        /// Whose.
        at: Position,
    },
    /// Keep the chunks of a prompt from being evicted.
    Pin {
        /// Where.
        at: Position,
        /// The prompt.
        tokens: Vec<i64>,
    },
    /// Compress the chunks of a prompt.
    Compress {
        /// Where.
        at: Position,
        /// With what, such as `cachegen`.
        method: String,
        /// The prompt; `None` means everything.
        tokens: Option<Vec<i64>>,
    },
    /// Undo `Compress`.
    Decompress {
        /// Where.
        at: Position,
        /// With what they were compressed.
        method: String,
        /// The prompt; `None` means everything.
        tokens: Option<Vec<i64>>,
    },
    /// Send the chunks of a prompt to another instance or location.
    Move {
        /// From.
        from: Position,
        /// To.
        to: Position,
        /// The prompt; `None` means everything.
        tokens: Option<Vec<i64>>,
        /// Whether the source keeps its copy.
        copy: bool,
    },
    /// Ask every worker whether it is well.
    Health {
        /// Whose.
        instance: InstanceId,
    },
}

/// A command without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandKind {
    /// [`Command::Clear`]
    Clear,
    /// [`Command::Pin`]
    Pin,
    /// [`Command::Compress`]
    Compress,
    /// [`Command::Decompress`]
    Decompress,
    /// [`Command::Move`]
    Move,
    /// [`Command::Health`]
    Health,
}

/// One location of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Instance.
    pub instance: InstanceId,
    /// Storage backend.
    pub location: Location,
}

/// What is to be sent, worker by worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Which command this is.
    pub kind: CommandKind,
    /// Instance whose workers are told.
    pub instance: InstanceId,
    /// Instance a move goes to.
    pub target: Option<InstanceId>,
    /// One per worker, by rank.
    pub steps: Vec<Step>,
}

/// One message to one worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// To whom.
    pub worker: WorkerKey,
    /// Where it listens.
    pub address: WorkerAddress,
    /// Which registration said so.
    pub epoch: u64,
    /// What it is told.
    pub message: Message,
}

/// Why a command cannot be carried out; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No worker of that instance is registered.
    #[error("instance {0} has no registered worker")]
    UnknownInstance(InstanceId),
    /// Move: the two instances do not have the same ranks.
    #[error(
        "cannot move from {from} to {to}: their ranks differ ({})",
        DifferingRanks { from, from_ranks, to, to_ranks }
    )]
    RanksDiffer {
        /// Source.
        from: InstanceId,
        /// Its ranks, ascending.
        from_ranks: Vec<WorkerId>,
        /// Target.
        to: InstanceId,
        /// Its ranks, ascending.
        to_ranks: Vec<WorkerId>,
    },
    /// Move: a target worker reported no peer URL.
    #[error(
        "cannot move to {to}: P2P is off, no peer_init_url was reported by {}",
        Ranks(without)
    )]
    PeerTransferOff {
        /// Target.
        to: InstanceId,
        /// Its ranks without a peer URL, ascending.
        without: Vec<WorkerId>,
    },
}

/// Decides who is to be told what; `workers_of` answers as [`crate::Controller::workers_of`] does.
pub fn plan(
    command: Command,
    event: &EventId,
    workers_of: impl Fn(&str) -> Vec<WorkerInfo>,
) -> Result<Plan, PlanError> {
    let kind = command.kind();
    let instance = command.instance().clone();
    let workers = by_rank(&instance, &workers_of)?;
    let targets = match &command {
        Command::Move { to, .. } => peers(&instance, &workers, &to.instance, &workers_of)?,
        _ => Vec::new(),
    };
    let target = match &command {
        Command::Move { to, .. } => Some(to.instance.clone()),
        _ => None,
    };
    let mut targets = targets.into_iter();
    let steps = workers
        .into_iter()
        .map(|worker| Step {
            message: message(&command, event, &worker.key, targets.next()),
            worker: worker.key,
            address: worker.address,
            epoch: worker.epoch,
        })
        .collect();
    Ok(Plan {
        kind,
        instance,
        target,
        steps,
    })
}

impl Plan {
    /// The workers, in the order of the steps.
    pub fn workers(&self) -> Vec<WorkerKey> {
        self.steps.iter().map(|step| step.worker.clone()).collect()
    }
}

impl Command {
    /// Which command this is.
    pub fn kind(&self) -> CommandKind {
        match self {
            Self::Clear { .. } => CommandKind::Clear,
            Self::Pin { .. } => CommandKind::Pin,
            Self::Compress { .. } => CommandKind::Compress,
            Self::Decompress { .. } => CommandKind::Decompress,
            Self::Move { .. } => CommandKind::Move,
            Self::Health { .. } => CommandKind::Health,
        }
    }

    /// Instance whose workers are told.
    pub fn instance(&self) -> &InstanceId {
        match self {
            Self::Clear { at }
            | Self::Pin { at, .. }
            | Self::Compress { at, .. }
            | Self::Decompress { at, .. } => &at.instance,
            Self::Move { from, .. } => &from.instance,
            Self::Health { instance } => instance,
        }
    }
}

/// The workers of `instance`, ascending by rank; at least one.
fn by_rank(
    instance: &InstanceId,
    workers_of: &impl Fn(&str) -> Vec<WorkerInfo>,
) -> Result<Vec<WorkerInfo>, PlanError> {
    let mut workers = workers_of(instance.as_str());
    if workers.is_empty() {
        return Err(PlanError::UnknownInstance(instance.clone()));
    }
    workers.sort_by_key(|worker| worker.key.worker);
    Ok(workers)
}

/// Peer URLs of the ranks of `to`, in the order of `sources`, whose ranks they equal.
fn peers(
    from: &InstanceId,
    sources: &[WorkerInfo],
    to: &InstanceId,
    workers_of: &impl Fn(&str) -> Vec<WorkerInfo>,
) -> Result<Vec<String>, PlanError> {
    let targets = by_rank(to, workers_of)?;
    let ranks = |workers: &[WorkerInfo]| -> Vec<WorkerId> {
        workers.iter().map(|worker| worker.key.worker).collect()
    };
    let (from_ranks, to_ranks) = (ranks(sources), ranks(&targets));
    if from_ranks != to_ranks {
        return Err(PlanError::RanksDiffer {
            from: from.clone(),
            from_ranks,
            to: to.clone(),
            to_ranks,
        });
    }
    let mut urls = Vec::with_capacity(targets.len());
    let mut without = Vec::new();
    for target in targets {
        match target.address.peer_url {
            Some(url) if !url.is_empty() => urls.push(url),
            _ => without.push(target.key.worker),
        }
    }
    if without.is_empty() {
        Ok(urls)
    } else {
        Err(PlanError::PeerTransferOff {
            to: to.clone(),
            without,
        })
    }
}

/// What `worker` is told; `peer_url` is the target's on a move.
fn message(
    command: &Command,
    event: &EventId,
    worker: &WorkerKey,
    peer_url: Option<String>,
) -> Message {
    // Upstream names the worker's part `Worker{rank}{event_id}` on clear and pin and draws a second
    // uuid on the others; one form lets a worker's log be found from our event id.
    let worker_event_id = format!("Worker{}{event}", worker.worker);
    match command {
        Command::Clear { at } => ClearWorkerMsg {
            worker_event_id,
            location: at.location.to_string(),
        }
        .into(),
        Command::Pin { at, tokens } => PinWorkerMsg {
            worker_event_id,
            location: at.location.to_string(),
            tokens: tokens.clone(),
        }
        .into(),
        Command::Compress { at, method, tokens } => CompressWorkerMsg {
            worker_event_id,
            method: method.clone(),
            location: at.location.to_string(),
            tokens: tokens.clone(),
        }
        .into(),
        Command::Decompress { at, method, tokens } => DecompressWorkerMsg {
            worker_event_id,
            method: method.clone(),
            location: at.location.to_string(),
            tokens: tokens.clone(),
        }
        .into(),
        Command::Move {
            from,
            to,
            tokens,
            copy,
        } => MoveWorkerMsg {
            worker_event_id,
            old_position: from.location.to_string(),
            new_position: (peer_url.unwrap_or_default(), to.location.to_string()),
            tokens: tokens.clone(),
            copy: Some(*copy),
        }
        .into(),
        Command::Health { .. } => HealthWorkerMsg { worker_event_id }.into(),
    }
}

/// Ranks as people read them: `rank 0`, `ranks 0, 1`.
struct Ranks<'a>(&'a [WorkerId]);

/// What a move's two sides have.
struct DifferingRanks<'a> {
    from: &'a InstanceId,
    from_ranks: &'a [WorkerId],
    to: &'a InstanceId,
    to_ranks: &'a [WorkerId],
}

impl std::fmt::Display for Ranks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.len() == 1 { "rank " } else { "ranks " })?;
        for (number, rank) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{rank}")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for DifferingRanks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            from,
            from_ranks,
            to,
            to_ranks,
        } = self;
        write!(
            f,
            "{from} has {} workers, {}; {to} has {} workers, {}",
            from_ranks.len(),
            Ranks(from_ranks),
            to_ranks.len(),
            Ranks(to_ranks)
        )
    }
}

#[cfg(test)]
mod tests;
