//! Carries out one command: plans it, tracks it as an event, sends its steps, reduces the replies.

use std::time::Duration;

use kvatlas_controller::events::{EventId, NewEvent, StepState, TableFull};
use kvatlas_controller::plan::{
    self, Command, CommandKind, Outcome, PlanError, Reply, Step, StepError,
};
use kvatlas_protocol::message::Message;
use kvatlas_protocol::{Timestamp, WorkerKey};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::links::{Answer, Job, SubmitError};
use super::name;
use super::resolve::resolve;
use crate::app::AppState;
use crate::traces::CommandSpan;

/// How long a worker's host name may take to resolve: the other workers of the command wait for it.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A command that was taken.
#[derive(Debug)]
pub struct Started {
    /// Its event.
    pub id: EventId,
    /// Ends with the command. Dropping it lets the command run on.
    pub outcome: JoinHandle<Outcome>,
}

/// Why a command was not taken; no worker was told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    /// It makes no sense for this fleet.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its workers or this process are busy.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// Too many commands are running.
    #[error(transparent)]
    TableFull(#[from] TableFull),
}

/// Begins `command` as the event `id`; every step ends within `timeout`.
pub async fn start(
    shared: &AppState,
    command: Command,
    id: EventId,
    timeout: Duration,
) -> Result<Started, StartError> {
    let plan = plan::plan(command, &id, |instance| {
        shared.controller.workers_of(instance)
    })?;
    let started_at = shared.clock.now();
    let running = Running {
        started_at,
        shared: shared.clone(),
        span: CommandSpan::begin(name::command(plan.kind), &id),
        id: id.clone(),
        kind: plan.kind,
        workers: plan.workers(),
    };
    let event = NewEvent {
        id: id.clone(),
        kind: plan.kind,
        instance: plan.instance,
        target: plan.target,
        workers: running.workers.clone(),
    };
    let (jobs, unreachable) = jobs(plan.steps, timeout).await;
    let dispatch = &shared.dispatch;
    dispatch.events.lock().start(event, started_at)?;
    let answers = match dispatch.links.submit(jobs, timeout) {
        Ok(answers) => answers,
        Err(refused) => {
            dispatch.events.lock().withdraw(&id);
            return Err(refused.into());
        }
    };
    tracing::info!(
        event_id = %id,
        command = name::command(running.kind),
        n_workers = running.workers.len(),
        "command started"
    );
    let outcome = tokio::spawn(running.finish(unreachable, answers));
    Ok(Started { id, outcome })
}

/// A command under way.
struct Running {
    started_at: Timestamp,
    shared: AppState,
    id: EventId,
    kind: CommandKind,
    workers: Vec<WorkerKey>,
    span: CommandSpan,
}

impl Running {
    /// Gathers the answers, writing each into the event as it comes.
    async fn finish(
        self,
        unreachable: Vec<Answer>,
        mut answers: mpsc::Receiver<Answer>,
    ) -> Outcome {
        let mut replies: Vec<Reply> = Vec::new();
        replies.resize_with(self.workers.len(), || Err(StepError::Stopping));
        for answer in unreachable {
            self.handle_answer(answer, &mut replies);
        }
        while let Some(answer) = answers.recv().await {
            self.handle_answer(answer, &mut replies);
        }
        let outcome = plan::reduce(self.kind, &self.workers, replies);
        let now = self.shared.clock.now();
        let events = &self.shared.dispatch.events;
        events.lock().finish(&self.id, &outcome, now);
        let took = now.since(self.started_at);
        let metrics = &self.shared.metrics;
        metrics.command(self.kind, outcome.state(), took);
        self.log(&outcome);
        self.span.end(outcome.error());
        outcome
    }

    fn handle_answer(&self, answer: Answer, replies: &mut [Reply]) {
        let Answer {
            number,
            result,
            took,
        } = answer;
        let reply =
            result.and_then(|bytes| Message::decode(&bytes).map_err(StepError::undecodable));
        let state = match self.kind.value(reply.clone()) {
            Ok(value) => StepState::Finished { value, took },
            Err(error) => StepState::Failed {
                error: error.to_string(),
                took,
            },
        };
        if let Some(worker) = self.workers.get(number) {
            let (event_id, command) = (&self.id, name::command(self.kind));
            let error = match &state {
                StepState::Failed { error, .. } => Some(error.as_str()),
                _ => None,
            };
            tracing::debug!(%event_id, command, %worker, ?took, error, "worker answered");
            self.span.answered(worker, took, error);
        }
        let events = &self.shared.dispatch.events;
        events.lock().handle_step(&self.id, number, state);
        if let Some(place) = replies.get_mut(number) {
            *place = reply;
        }
    }

    fn log(&self, outcome: &Outcome) {
        let (event_id, command) = (&self.id, name::command(self.kind));
        let n_workers = self.workers.len();
        match outcome.error() {
            None => tracing::info!(%event_id, command, n_workers, %outcome, "command finished"),
            Some(error) => tracing::warn!(%event_id, command, n_workers, error, "command failed"),
        }
    }
}

/// Jobs for the steps whose address can be used, failures for the others.
async fn jobs(steps: Vec<Step>, timeout: Duration) -> (Vec<Job>, Vec<Answer>) {
    let timeout = timeout.min(RESOLVE_TIMEOUT);
    let mut resolving = JoinSet::new();
    for (number, step) in steps.into_iter().enumerate() {
        resolving.spawn(async move {
            let Step {
                worker,
                address,
                epoch,
                message,
            } = step;
            match resolve(&address, timeout).await {
                Ok(endpoint) => Ok(Job {
                    number,
                    worker,
                    endpoint,
                    epoch,
                    payload: message.encode_msgpack(),
                }),
                Err(error) => Err(Answer {
                    number,
                    result: Err(error),
                    took: Duration::ZERO,
                }),
            }
        });
    }
    let (mut jobs, mut unreachable) = (Vec::new(), Vec::new());
    for resolved in resolving.join_all().await {
        match resolved {
            Ok(job) => jobs.push(job),
            Err(answer) => unreachable.push(answer),
        }
    }
    (jobs, unreachable)
}
