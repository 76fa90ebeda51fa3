//! What is shown, and what keys do to it. Knows neither terminal nor network.

use std::collections::VecDeque;

use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::data::{Fleet, Instance, Sample, Sync};
use super::feed::Update;

/// Samples kept: an hour of history and more than an hour of seconds.
const KEPT: usize = 5000;
/// Largest page the controller gives.
const MAX_LIMIT: usize = 500;
/// Longest filter, in characters.
const MAX_FILTER: usize = 100;

/// One of the three pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// Numbers and charts
    Overview,
    /// Every worker
    Fleet,
    /// Who is in full sync
    Sync,
}

/// By what workers are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Worker,
    Keys,
    Seen,
    Gaps,
}

/// Whether there is a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Live,
    Lost(String),
}

/// What the controller is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub view: View,
    pub filter: String,
    pub sort: Sort,
    pub descending: bool,
    pub offset: usize,
    pub limit: usize,
}

/// What comes after a key or an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Draw,
    Quit,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Model {
    pub url: String,
    pub view: View,
    pub link: Link,
    /// Of the latency counts, in seconds.
    pub bounds: Vec<f64>,
    /// Oldest first; never two of the same moment.
    pub samples: VecDeque<Sample>,
    /// Most keys first.
    pub instances: Vec<Instance>,
    pub fleet: Option<Fleet>,
    pub sync: Option<Sync>,
    pub filter: String,
    /// Keys go into the filter.
    pub typing: bool,
    pub sort: Sort,
    pub descending: bool,
    /// Row of the cursor, counted over all rows.
    pub selected: usize,
    /// First row that is shown.
    pub scroll: usize,
    /// Rows there is room for.
    rows: usize,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Overview, Self::Fleet, Self::Sync];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Fleet => "Fleet",
            Self::Sync => "Sync",
        }
    }
}

impl Sort {
    /// As the controller calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Keys => "keys",
            Self::Seen => "seen",
            Self::Gaps => "gaps",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Worker => Self::Keys,
            Self::Keys => Self::Seen,
            Self::Seen => Self::Gaps,
            Self::Gaps => Self::Worker,
        }
    }
}

impl Model {
    pub(super) fn new(url: &str, view: View, filter: String) -> Self {
        Self {
            url: url.to_owned(),
            view,
            link: Link::Connecting,
            bounds: Vec::new(),
            samples: VecDeque::new(),
            instances: Vec::new(),
            fleet: None,
            sync: None,
            filter,
            typing: false,
            sort: Sort::Worker,
            descending: false,
            selected: 0,
            scroll: 0,
            rows: 1,
        }
    }

    pub(super) fn question(&self) -> Question {
        Question {
            view: self.view,
            filter: self.filter.clone(),
            sort: self.sort,
            descending: self.descending,
            offset: self.scroll,
            limit: self.rows,
        }
    }

    /// So many rows can be shown; the cursor stays among them.
    pub(super) fn make_room(&mut self, rows: usize) {
        self.rows = rows.clamp(1, MAX_LIMIT);
        self.selected = self.selected.min(self.n_rows().saturating_sub(1));
        self.scroll = self
            .scroll
            .min(self.selected)
            .max((self.selected + 1).saturating_sub(self.rows));
    }

    pub(super) fn update(&mut self, update: Update) -> After {
        match update {
            Update::History(history) => {
                self.link = Link::Live;
                self.bounds = history.bounds;
                self.samples = history.samples.into();
            }
            Update::Sample(sample) => {
                self.link = Link::Live;
                // A controller that started anew counts from zero: what was before is another story.
                if let Some(last) = self.samples.back()
                    && (sample.at < last.at || sample.operations < last.operations)
                {
                    self.samples.clear();
                }
                self.samples.push_back(*sample);
            }
            Update::Stats(mut stats) => {
                let most_first = |one: &Instance| std::cmp::Reverse(one.key_count);
                stats.instances.sort_by_key(most_first);
                self.instances = stats.instances;
            }
            Update::Fleet(fleet) => self.fleet = Some(fleet),
            Update::Sync(mut sync) => {
                sync.workers.sort_by_key(|w| std::cmp::Reverse(w.urgency()));
                self.sync = Some(sync);
            }
            Update::Lost(reason) => self.link = Link::Lost(reason),
        }
        let excess = self.samples.len().saturating_sub(KEPT);
        self.samples.drain(..excess);
        After::Draw
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> After {
        if key.kind == KeyEventKind::Release {
            return After::Draw;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return After::Quit,
            _ if self.typing => self.type_key(key.code),
            KeyCode::Char('q') => return After::Quit,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.turn(1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.turn(2),
            KeyCode::Char(digit @ '1'..='3') => {
                let at = usize::from(digit as u8 - b'1');
                self.show(View::ALL[at]);
            }
            KeyCode::Char('/') => {
                self.show(View::Fleet);
                self.typing = true;
            }
            KeyCode::Esc => self.refine(|model| model.filter.clear()),
            KeyCode::Char('s') => self.refine(|model| {
                model.sort = model.sort.next();
                // Most keys, longest silence, most gaps first.
                model.descending = model.sort != Sort::Worker;
            }),
            KeyCode::Char('r') => self.refine(|model| model.descending = !model.descending),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.step(self.page()),
            KeyCode::PageUp => self.step(-self.page()),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN / 2),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX / 2),
            _ => {}
        }
        After::Draw
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.refine(|model| model.filter.clear());
            }
            KeyCode::Backspace => self.refine(|model| {
                model.filter.pop();
            }),
            KeyCode::Char(letter) if self.filter.chars().count() < MAX_FILTER => {
                self.refine(|model| model.filter.push(letter));
            }
            _ => {}
        }
    }

    /// Other rows: back to the first.
    fn refine(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        (self.selected, self.scroll) = (0, 0);
    }

    fn turn(&mut self, steps: usize) {
        let at = View::ALL.iter().position(|view| *view == self.view);
        self.show(View::ALL[(at.unwrap_or(0) + steps) % View::ALL.len()]);
    }

    fn show(&mut self, view: View) {
        if self.view != view {
            self.refine(|model| model.view = view);
        }
    }

    fn page(&self) -> isize {
        isize::try_from(self.rows).unwrap_or(1)
    }

    fn step(&mut self, by: isize) {
        let last = self.n_rows().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
        self.make_room(self.rows);
    }

    /// Rows of the table in view.
    fn n_rows(&self) -> usize {
        match self.view {
            View::Overview => 0,
            View::Fleet => self.fleet.as_ref().map_or(0, |fleet| fleet.matching_count),
            View::Sync => self.sync.as_ref().map_or(0, Sync::n_rows),
        }
    }
}

impl Sync {
    /// One for each location, and for a worker that has none.
    pub(super) fn n_rows(&self) -> usize {
        let rows = self.workers.iter().map(|one| one.locations.len().max(1));
        rows.sum()
    }
}

impl super::data::SyncWorker {
    /// What wants attention first.
    fn urgency(&self) -> usize {
        let order = ["in sync", "unproved", "wanted", "running", "unrepairable"];
        let of = |state: &str| order.iter().position(|known| *known == state).unwrap_or(0);
        let wanted = if self.sync_wanted.is_some() { 2 } else { 0 };
        let locations = self.locations.iter().map(|one| match one.incomplete {
            Some(_) => order.len(),
            None => of(&one.state),
        });
        locations.max().unwrap_or(0).max(wanted)
    }
}
