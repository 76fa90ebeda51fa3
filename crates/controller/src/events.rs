//! The table of commands that were asked for: what runs, what became of the rest.
//!
//! Bounded twice, by events and by the steps of all of them together, because one command to an
//! instance of many ranks weighs as much as many commands. When room is needed the event that
//! finished first leaves first; a running one never does, so a table full of running events refuses
//! the next ([`TableFull`]).
//!
//! Plain data: no clock (`now` is an argument), no randomness (ids are made by the caller), no lock
//! (the owner guards it; every operation is short). `start`, `handle_step` and `finish` are O(steps
//! of that event), `list` is O(events).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kvatlas_protocol::{InstanceId, Timestamp, WorkerKey};
use thiserror::Error;

use crate::plan::{CommandKind, Outcome, StepValue};

/// Bytes of an event's own error text that are kept; its steps keep theirs.
const MAX_ERROR_BYTES: usize = 4_000;

/// Name of one command as its caller knows it: upstream's prefix and a random part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Arc<str>);

/// Where an event stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventState {
    /// At least one worker has not answered and its deadline has not passed.
    Running,
    /// Every worker obeyed and they agree.
    Finished,
    /// No worker obeyed.
    Failed,
    /// Some workers obeyed and others did not, or all did and disagree.
    Partial,
}

/// Where one step stands.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    /// Not answered yet.
    Running,
    /// The worker obeyed.
    Finished {
        /// What it said.
        value: StepValue,
        /// From submission to answer.
        took: Duration,
    },
    /// It did not.
    Failed {
        /// Why, for people.
        error: String,
        /// From submission to failure.
        took: Duration,
    },
}

/// One worker's part of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    /// Who.
    pub worker: WorkerKey,
    /// How far.
    pub state: StepState,
}

/// One command and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// Which command.
    pub kind: CommandKind,
    /// Instance whose workers it was sent to.
    pub instance: InstanceId,
    /// Instance a move goes to.
    pub target: Option<InstanceId>,
    /// As a whole.
    pub state: EventState,
    /// One per worker, by rank.
    pub steps: Vec<StepRecord>,
    /// The number all workers agree on.
    pub num_tokens: Option<i64>,
    /// Why it is not `Finished`.
    pub error: Option<String>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When the last step ended.
    pub finished_at: Option<Timestamp>,
}

/// What a new event begins with.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its name; must not be in the table.
    pub id: EventId,
    /// Which command.
    pub kind: CommandKind,
    /// Instance whose workers it is sent to.
    pub instance: InstanceId,
    /// Instance a move goes to.
    pub target: Option<InstanceId>,
    /// The workers, by rank.
    pub workers: Vec<WorkerKey>,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<EventState>,
    /// Only those from or to this instance.
    pub instance: Option<InstanceId>,
    /// At most so many, the latest first.
    pub limit: usize,
}

/// Everything in the table is still running.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{running} commands are running, which is as many as are tracked; try again later")]
pub struct TableFull {
    /// How many.
    pub running: usize,
}

/// How much the table may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Events, running and finished.
    pub events: usize,
    /// Steps of all events together.
    pub steps: usize,
}

impl Default for Bounds {
    /// 10,000 events (issue 6) and 200,000 steps: about 140 MB if all of them failed with the
    /// longest texts that are kept, under 30 MB in practice.
    fn default() -> Self {
        Self {
            events: 10_000,
            steps: 200_000,
        }
    }
}

/// The events, in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct EventTable {
    bounds: Bounds,
    /// By order of arrival.
    events: BTreeMap<u64, Event>,
    /// Arrival number by id.
    by_id: HashMap<EventId, u64>,
    /// Arrival numbers of finished events by order of finishing.
    finished: BTreeMap<u64, u64>,
    /// Next arrival number.
    next_arrival: u64,
    /// Next number of finishing.
    next_finish: u64,
    /// Steps over all events.
    n_steps: usize,
}

impl EventTable {
    /// An empty table.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// Adds a running event; the oldest finished ones leave if there is no room for it.
    pub fn start(&mut self, event: NewEvent, now: Timestamp) -> Result<(), TableFull> {
        let n_new = event.workers.len();
        while self.events.len() >= self.bounds.events || self.n_steps + n_new > self.bounds.steps {
            let Some((_, arrival)) = self.finished.pop_first() else {
                // A single event larger than all room is still taken into an empty table.
                if self.events.is_empty() {
                    break;
                }
                return Err(TableFull {
                    running: self.events.len(),
                });
            };
            self.drop_event(arrival);
        }
        let NewEvent {
            id,
            kind,
            instance,
            target,
            workers,
        } = event;
        let steps = workers
            .into_iter()
            .map(|worker| StepRecord {
                worker,
                state: StepState::Running,
            })
            .collect();
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.n_steps += n_new;
        self.by_id.insert(id.clone(), arrival);
        self.events.insert(
            arrival,
            Event {
                id,
                kind,
                instance,
                target,
                state: EventState::Running,
                steps,
                num_tokens: None,
                error: None,
                started_at: now,
                finished_at: None,
            },
        );
        Ok(())
    }

    /// Takes back an event whose steps were never sent.
    pub fn withdraw(&mut self, id: &EventId) {
        if let Some(arrival) = self.by_id.get(id).copied() {
            self.finished.retain(|_, finished| *finished != arrival);
            self.drop_event(arrival);
        }
    }

    /// Step `number` of `id` ended.
    pub fn handle_step(&mut self, id: &EventId, number: usize, state: StepState) {
        if let Some(step) = self
            .by_id
            .get(id)
            .and_then(|arrival| self.events.get_mut(arrival))
            .and_then(|event| event.steps.get_mut(number))
        {
            step.state = state;
        }
    }

    /// All steps of `id` ended, with this outcome.
    pub fn finish(&mut self, id: &EventId, outcome: &Outcome, now: Timestamp) {
        let Some(arrival) = self.by_id.get(id).copied() else {
            return;
        };
        let Some(event) = self.events.get_mut(&arrival) else {
            return;
        };
        if event.finished_at.is_some() {
            return;
        }
        event.state = outcome.state();
        event.num_tokens = outcome.num_tokens();
        event.error = outcome.error().map(|mut error| {
            error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
            error.shrink_to_fit();
            error
        });
        event.finished_at = Some(now);
        self.finished.insert(self.next_finish, arrival);
        self.next_finish += 1;
    }

    /// One event.
    pub fn event(&self, id: &str) -> Option<&Event> {
        self.by_id
            .get(id)
            .and_then(|arrival| self.events.get(arrival))
    }

    /// Events that pass `filter`, the latest first.
    pub fn list(&self, filter: &Filter) -> Vec<Event> {
        self.events
            .values()
            .rev()
            .filter(|event| filter.admits(event))
            .take(filter.limit)
            .cloned()
            .collect()
    }

    /// Number of events, running and finished.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Number of events still running.
    pub fn n_running(&self) -> usize {
        self.events.len() - self.finished.len()
    }

    /// Removes an event from all but `finished`, where the caller has removed it.
    fn drop_event(&mut self, arrival: u64) {
        if let Some(event) = self.events.remove(&arrival) {
            self.n_steps -= event.steps.len();
            self.by_id.remove(&event.id);
        }
    }
}

impl Filter {
    fn admits(&self, event: &Event) -> bool {
        self.state.is_none_or(|state| state == event.state)
            && self.instance.as_ref().is_none_or(|instance| {
                *instance == event.instance || Some(instance) == event.target.as_ref()
            })
    }
}

impl EventId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for EventId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl std::borrow::Borrow<str> for EventId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_event(number: usize, ranks: i64) -> NewEvent {
        NewEvent {
            id: format!("Clear{number}").into(),
            kind: CommandKind::Clear,
            instance: "i".into(),
            target: None,
            workers: (0..ranks).map(|rank| WorkerKey::new("i", rank)).collect(),
        }
    }

    fn check_invariants(table: &EventTable) {
        assert_eq!(table.events.len(), table.by_id.len());
        assert_eq!(
            table.n_steps,
            table
                .events
                .values()
                .map(|event| event.steps.len())
                .sum::<usize>()
        );
        let ended = table
            .events
            .values()
            .filter(|event| event.finished_at.is_some());
        assert_eq!(table.finished.len(), ended.count());
        assert!(
            table
                .finished
                .values()
                .all(|arrival| table.events.contains_key(arrival))
        );
    }

    #[test]
    fn the_one_that_finished_first_leaves_first() {
        let mut table = EventTable::new(Bounds {
            events: 3,
            steps: 100,
        });
        for number in 0..3 {
            table
                .start(new_event(number, 1), Timestamp(number as u64))
                .unwrap();
        }
        table.finish(
            &"Clear2".to_owned().into(),
            &Outcome::Tokens(1),
            Timestamp(9),
        );
        table.finish(
            &"Clear0".to_owned().into(),
            &Outcome::Tokens(1),
            Timestamp(10),
        );
        table.start(new_event(3, 1), Timestamp(11)).unwrap();
        check_invariants(&table);
        assert!(table.event("Clear2").is_none());
        assert!(table.event("Clear0").is_some());
        table.start(new_event(4, 1), Timestamp(12)).unwrap();
        assert!(table.event("Clear0").is_none());
        assert_eq!(
            table.start(new_event(5, 1), Timestamp(13)),
            Err(TableFull { running: 3 })
        );
        assert!(table.event("Clear1").is_some());
        check_invariants(&table);
    }

    #[test]
    fn many_events_stay_within_both_bounds() {
        let mut table = EventTable::new(Bounds {
            events: 100,
            steps: 150,
        });
        for number in 0..10_000 {
            let event = new_event(number, (number % 4) as i64);
            let id = event.id.clone();
            table.start(event, Timestamp(number as u64)).unwrap();
            table.finish(&id, &Outcome::Tokens(0), Timestamp(number as u64));
            assert!(table.len() <= 100 && table.n_steps <= 150);
        }
        check_invariants(&table);
        assert!(table.event("Clear9999").is_some());
    }

    #[test]
    fn an_event_larger_than_the_table_is_taken_alone() {
        let mut table = EventTable::new(Bounds {
            events: 10,
            steps: 5,
        });
        table.start(new_event(0, 9), Timestamp(0)).unwrap();
        assert!(table.start(new_event(1, 1), Timestamp(1)).is_err());
        table.finish(
            &"Clear0".to_owned().into(),
            &Outcome::Tokens(0),
            Timestamp(2),
        );
        table.start(new_event(1, 1), Timestamp(3)).unwrap();
        check_invariants(&table);
    }

    #[test]
    fn list_filters_and_puts_the_latest_first() {
        let mut table = EventTable::default();
        for number in 0..5 {
            table.start(new_event(number, 1), Timestamp(0)).unwrap();
        }
        let mut moved = new_event(5, 1);
        moved.target = Some("j".into());
        table.start(moved, Timestamp(0)).unwrap();
        table.finish(
            &"Clear1".to_owned().into(),
            &Outcome::Tokens(7),
            Timestamp(1),
        );
        let ids = |filter: Filter| -> Vec<String> {
            table
                .list(&filter)
                .iter()
                .map(|event| event.id.to_string())
                .collect()
        };
        assert_eq!(
            ids(Filter {
                limit: 2,
                ..Filter::default()
            }),
            ["Clear5", "Clear4"]
        );
        assert_eq!(
            ids(Filter {
                state: Some(EventState::Finished),
                limit: 9,
                ..Filter::default()
            }),
            ["Clear1"]
        );
        assert_eq!(
            ids(Filter {
                instance: Some("j".into()),
                limit: 9,
                ..Filter::default()
            }),
            ["Clear5"]
        );
    }

    #[test]
    fn a_withdrawn_event_leaves_no_trace() {
        let mut table = EventTable::default();
        table.start(new_event(0, 3), Timestamp(0)).unwrap();
        table.withdraw(&"Clear0".to_owned().into());
        assert!(table.is_empty() && table.n_steps == 0);
        check_invariants(&table);
    }
}
