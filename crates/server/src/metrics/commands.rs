//! Commands to workers, counted by what became of them.

use std::array::from_fn;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kvatlas_controller::events::EventState;
use kvatlas_controller::plan::CommandKind;

use super::histogram::Histogram;
use super::text::Page;
use super::{add, value, zero};
use crate::dispatch::name;

const KINDS: [CommandKind; 6] = [
    CommandKind::Clear,
    CommandKind::Pin,
    CommandKind::Compress,
    CommandKind::Decompress,
    CommandKind::Move,
    CommandKind::Health,
];

/// How a command that was taken can end.
const ENDS: [EventState; 3] = [
    EventState::Finished,
    EventState::Partial,
    EventState::Failed,
];

/// Commands by kind and end, and how long they took.
#[derive(Debug)]
pub(super) struct Commands {
    ended: [[AtomicU64; ENDS.len()]; KINDS.len()],
    seconds: Histogram,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            ended: from_fn(|_| from_fn(|_| AtomicU64::default())),
            seconds: Histogram::default(),
        }
    }
}

impl Commands {
    pub(super) fn observe(&self, kind: CommandKind, end: EventState, took: Duration) {
        let places = KINDS.iter().zip(&self.ended);
        let of_kind = places.filter(|(known, _)| **known == kind);
        let ends = of_kind.flat_map(|(_, ended)| ENDS.iter().zip(ended));
        for (_, count) in ends.filter(|(known, _)| **known == end) {
            add(count, 1);
        }
        self.seconds.observe(took);
    }

    pub(super) fn reset(&self) {
        self.ended.iter().flatten().for_each(zero);
        self.seconds.reset();
    }

    pub(super) fn render(&self, page: &mut Page) {
        let metric = "kvatlas_commands_total";
        page.head(
            metric,
            "Commands to workers that ended, by command and state",
            "counter",
        );
        for (kind, ended) in KINDS.iter().zip(&self.ended) {
            for (end, count) in ENDS.iter().zip(ended) {
                let labels = [
                    ("command", name::command(*kind)),
                    ("state", name::state(*end)),
                ];
                page.sample(metric, &labels, value(count) as f64);
            }
        }
        page.histogram(
            "kvatlas_command_seconds",
            "Commands to workers: time from request to the last worker's answer",
            &self.seconds,
        );
    }
}
