//! `kvatlas top`: the page's Overview, Fleet and Sync at a terminal.
//!
//! ```text
//! keys  (thread)  --> channel --+
//! feed  (task)    --> channel --+--> Model --> draw
//!   ^                               |
//!   +------ what is to be asked ----+
//! ```
//! Files: [`data`] the answers as far as they are shown, [`feed`] getting them over HTTP, [`model`]
//! what is shown and what keys do, [`draw`] how it looks. Only this file touches the terminal.
//!
//! A controller that goes away is said so in the first line, and looked for until it is back. Nothing
//! here changes anything at the controller.

mod data;
mod draw;
mod feed;
mod model;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Command, FromArgMatches};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::draw::Look;
use self::model::{After, Model, View};
use super::client::To;
use super::client::remote::{CallError, RemoteError};

/// Most updates and keys waiting to be drawn.
const WAITING: usize = 64;
/// Size of what `--once` prints where there is no terminal.
const PLAIN_SIZE: (u16, u16) = (100, 40);
/// Exit codes, as of the client commands.
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// What `kvatlas top` was asked for.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct TopArgs {
    /// What to begin with
    #[arg(long, value_name = "VIEW", value_enum, default_value_t = View::Overview)]
    view: View,
    /// Show only workers whose name or address has this in it
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Print one frame as plain text and end; with --json the answers it is made from
    #[arg(long)]
    once: bool,
    /// Which controller
    #[command(flatten)]
    to: To,
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{0}")]
    Refused(String),
    #[error("this is no terminal; --once prints a frame as plain text")]
    NoTerminal,
    #[error("--json goes with --once")]
    Json,
    #[error("terminal: {0}")]
    Terminal(#[from] std::io::Error),
}

/// The subcommand.
pub fn command() -> Command {
    TopArgs::augment_args(Command::new("top"))
        .about("Watch the fleet at a terminal: who holds how much, how fast, who is in sync")
}

/// Its arguments, taken apart.
pub fn parse(matches: &clap::ArgMatches) -> Result<TopArgs, clap::Error> {
    TopArgs::from_arg_matches(matches)
}

/// Runs until `q`.
pub fn run(args: TopArgs) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(TopError::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(args.run());
            // A name being resolved cannot be stopped.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvatlas top: {error}");
            ExitCode::from(match error {
                TopError::Remote(_) | TopError::NoTerminal | TopError::Json => USAGE,
                TopError::Call(_) => UNREACHABLE,
                TopError::Refused(_) | TopError::Terminal(_) => 1,
            })
        }
    }
}

impl TopArgs {
    async fn run(self) -> Result<(), TopError> {
        let remote = self.to.remote()?;
        let mut model = Model::new(self.to.url(), self.view, self.filter.clone());
        if self.once {
            return self.once(&remote, &mut model).await;
        }
        if self.to.wants_json() {
            return Err(TopError::Json);
        }
        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return Err(TopError::NoTerminal);
        }
        let look = Look::of_environment();
        let (asking, asked) = watch::channel(model.question());
        let (to_model, mut updates) = mpsc::channel(WAITING);
        let mut terminate = signal(SignalKind::terminate())?;
        // From here on the terminal is ours; a panic gives it back too.
        let mut terminal = ratatui::try_init()?;
        let _back = Restore;
        let feed = tokio::spawn(feed::run(remote, asked, to_model));
        let mut keys = keys();
        loop {
            terminal.draw(|frame| draw::draw(frame, &mut model, look))?;
            // Drawing finds out how many rows there is room for.
            asking.send_if_modified(|question| {
                let now = model.question();
                let changed = *question != now;
                *question = now;
                changed
            });
            let after = tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => model.update(update),
                    None => break,
                },
                key = keys.recv() => match key {
                    Some(Ok(Event::Key(key))) => model.key(key),
                    // A new size, or the focus: draw again.
                    Some(Ok(_)) => After::Draw,
                    Some(Err(error)) => return Err(error.into()),
                    None => break,
                },
                _ = terminate.recv() => break,
            };
            if after == After::Quit {
                break;
            }
        }
        feed.abort();
        Ok(())
    }

    async fn once(
        &self,
        remote: &super::client::remote::Remote,
        model: &mut Model,
    ) -> Result<(), TopError> {
        let (width, height) = match ratatui::crossterm::terminal::size() {
            Ok(size) if std::io::stdout().is_terminal() => size,
            _ => PLAIN_SIZE,
        };
        model.make_room(usize::from(height).saturating_sub(draw::AROUND_TABLES));
        let updates = feed::once(remote, &model.question()).await?;
        let text = if self.to.wants_json() {
            let shown: serde_json::Map<_, _> = updates
                .iter()
                .filter_map(|update| {
                    let (name, value) = update.as_json()?;
                    Some((name.to_owned(), value))
                })
                .collect();
            format!("{:#}\n", json!(shown))
        } else {
            for update in updates {
                model.update(update);
            }
            let mut terminal = Terminal::new(TestBackend::new(width, height))
                .map_err(|never| -> TopError { match never {} })?;
            terminal
                .draw(|frame| draw::draw(frame, model, Look::plain()))
                .map_err(|never| -> TopError { match never {} })?;
            text_of(terminal.backend().buffer())
        };
        // Whoever reads may have seen enough, as `head` does.
        drop(std::io::stdout().write_all(text.as_bytes()));
        Ok(())
    }
}

/// Gives the terminal back.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Keys from a thread: the terminal is read blocking, and the thread ends with the process.
fn keys() -> mpsc::Receiver<std::io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if sender.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

/// A frame as lines, without what is blank at their ends and below the last.
fn text_of(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let mut covered = 0;
        for x in buffer.area.left()..buffer.area.right() {
            let Some(cell) = buffer.cell((x, y)) else {
                continue;
            };
            // A wide character covers the cell after it.
            if covered > 0 {
                covered -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            covered = ratatui::text::Span::raw(cell.symbol())
                .width()
                .saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let end = text.trim_end_matches('\n').len();
    text.truncate(end);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
