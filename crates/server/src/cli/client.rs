//! Client commands, talking to a running controller: tables for people, `--json` for scripts, and an
//! exit code that says what happened ([`Exit`]).

mod ask;
mod order;
mod progress;
pub mod remote;
mod show;
mod table;
mod tokens;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use thiserror::Error;

use self::order::Order;
use self::remote::{Answer, CallError, Remote, RemoteError};
use self::tokens::{Prompt, TokensError};
use crate::tls::client::Files;

/// Time for an answer that no worker has a part in.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// What a client command was asked for.
#[derive(Debug, Clone, PartialEq, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum ClientCommand {
    /// Who holds a prompt, and how much of it
    Lookup {
        /// The prompt
        #[command(flatten)]
        prompt: Prompt,
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// The registered workers
    Workers {
        /// Only those of this instance
        instance: Option<String>,
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// The instances, with their workers and keys
    Instances {
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// Totals over the fleet
    Stats {
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// Keep the chunks of a prompt from being evicted
    Pin(Order<order::Pin>),
    /// Drop everything an instance holds in a location
    Clear(Order<order::Clear>),
    /// Send the chunks of a prompt to another instance or location
    Move(Order<order::Move>),
    /// Compress the chunks of a prompt; without tokens, all
    Compress(Order<order::Compress>),
    /// Undo compress
    Decompress(Order<order::Compress>),
    /// Whether the workers are well
    Health {
        /// Of this instance; all if absent
        instance: Option<String>,
        /// Seconds a worker may take to answer
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<f64>,
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// The state of an event; the exit code says it too
    Check {
        /// Its id
        event_id: String,
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// Commands that run or have run, or one of them in detail
    Events {
        /// Only this one, with its steps
        event_id: Option<String>,
        /// Only those that are running, finished, failed or partial
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only those from or to this instance
        #[arg(long, value_name = "INSTANCE")]
        instance: Option<String>,
        /// At most so many, the latest first
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// Who is in full sync and why, whose keys are proved, and whether state is kept
    Sync {
        /// Only this instance
        instance: Option<String>,
        /// Which controller
        #[command(flatten)]
        to: To,
    },
    /// How the fleet hashes, and why a prompt is not found
    Diagnose {
        /// The prompt; the fleet alone if absent
        #[command(flatten)]
        prompt: Prompt,
        /// Which controller
        #[command(flatten)]
        to: To,
    },
}

/// Which controller, and in what form to answer.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct To {
    /// The controller
    #[arg(
        long,
        env = "KVATLAS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:9000"
    )]
    url: String,
    /// Bearer token, for a controller behind something that asks for one
    #[arg(
        long,
        env = "KVATLAS_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Authorities to trust with https:// (PEM); the system's if absent
    #[arg(long, env = "KVATLAS_CA_CERT", value_name = "FILE")]
    ca_cert: Option<String>,
    /// Certificate for a controller that asks for one (PEM)
    #[arg(
        long,
        env = "KVATLAS_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key"
    )]
    client_cert: Option<String>,
    /// Its key (PEM)
    #[arg(
        long,
        env = "KVATLAS_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    client_key: Option<String>,
    /// Print the controller's answer as JSON
    #[arg(long)]
    json: bool,
}

/// How a client command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the command was taken and failed, wholly or in part, or a worker is unwell.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: no controller answers there.
    Unreachable,
    /// 4: no such instance or event.
    NotFound,
    /// 5: the controller refuses the request as it is.
    Refused,
    /// 6: still running (`check`).
    Running,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed wholly or in part, 2 usage, \
3 no controller there, 4 no such instance or event, 5 refused, 6 still running (check)";

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub enum Failure {
    /// The URL, or the files for TLS.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The way there.
    #[error(transparent)]
    Call(#[from] CallError),
    /// This process.
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
    /// The controller said no.
    #[error("{}", show::detail(&.0.body))]
    Answer(Answer),
    /// Something said yes that is no controller.
    #[error("the answer is not a controller's: {0}")]
    Stranger(String),
}

/// Runs a client command to its end.
pub fn run(command: ClientCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(command.run()));
    let exit = match outcome {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("kvatlas: {failure}");
            failure.exit()
        }
    };
    ExitCode::from(exit.code())
}

impl ClientCommand {
    async fn run(self) -> Result<Exit, Failure> {
        match self {
            Self::Lookup { prompt, to } => {
                let tokens = prompt.required()?;
                ask::lookup(&to, tokens).await
            }
            Self::Workers { instance, to } => ask::workers(&to, instance.as_deref()).await,
            Self::Instances { to } => ask::instances(&to).await,
            Self::Stats { to } => ask::stats(&to).await,
            Self::Pin(order) => order.run("/pin").await,
            Self::Clear(order) => order.run("/clear").await,
            Self::Move(order) => order.run("/move").await,
            Self::Compress(order) => order.run("/compress").await,
            Self::Decompress(order) => order.run("/decompress").await,
            Self::Health {
                instance,
                timeout,
                to,
            } => ask::health(&to, instance, timeout).await,
            Self::Check { event_id, to } => ask::check(&to, &event_id).await,
            Self::Events {
                event_id: Some(id),
                to,
                ..
            } => ask::event(&to, &id).await,
            Self::Events {
                event_id: None,
                state,
                instance,
                limit,
                to,
            } => ask::events(&to, state, instance, limit).await,
            Self::Sync { instance, to } => ask::sync(&to, instance.as_deref()).await,
            Self::Diagnose { prompt, to } => ask::diagnose(&to, prompt.optional()?).await,
        }
    }
}

impl To {
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn wants_json(&self) -> bool {
        self.json
    }

    pub(super) fn remote(&self) -> Result<Remote, RemoteError> {
        let files = Files {
            ca_cert: self.ca_cert.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
        };
        Remote::new(&self.url, self.token.clone(), &files)
    }

    /// Prints an answer: as it is, or as `show` renders it.
    fn print(&self, body: &Value, show: impl FnOnce(&Value) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(body).unwrap_or_else(|_| body.to_string())
        } else {
            show(body)
        };
        // Whoever reads may have seen enough, as `head` does.
        drop(writeln!(std::io::stdout(), "{}", text.trim_end()));
    }
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotFound => 4,
            Self::Refused => 5,
            Self::Running => 6,
        }
    }
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Remote(_) | Self::Tokens(_) => Exit::Usage,
            Self::Call(_) | Self::Stranger(_) => Exit::Unreachable,
            Self::Runtime(_) => Exit::Failed,
            Self::Answer(Answer { status: 404, .. }) => Exit::NotFound,
            Self::Answer(Answer {
                status: 400..=499, ..
            }) => Exit::Refused,
            Self::Answer(_) => Exit::Failed,
        }
    }
}

impl Answer {
    /// The body of a success; a controller's is always an object.
    fn success(self) -> Result<Value, Failure> {
        if !(200..300).contains(&self.status) {
            return Err(Failure::Answer(self));
        }
        if !self.body.is_object() {
            return Err(Failure::Stranger(show::detail(&self.body)));
        }
        Ok(self.body)
    }
}
