//! The arguments of `kvatlas bench`.

use std::path::PathBuf;
use std::str::FromStr;

use crate::cases::Case;

/// Measure controllers side by side, or look at what was measured.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(
    after_help = "A controller is NAME=COMMAND; the arguments that choose host and ports are appended.\n\
    Without --controller this program measures itself."
)]
pub struct Args {
    /// Controller to start for every trial, as NAME=COMMAND; repeat it for several in one run
    #[arg(long = "controller", value_name = "NAME=COMMAND")]
    pub controllers: Vec<Launch>,
    /// Drive a controller that already runs on this host, at its HTTP, pull and reply ports
    #[arg(long, value_name = "HTTP,PULL,REPLY", conflicts_with = "controllers")]
    pub attach: Option<Attach>,
    /// Program of tools/peers to run its trials beside; repeatable
    #[arg(long = "peers", value_name = "PROGRAM")]
    pub peers: Vec<PathBuf>,
    /// Leave out controllers: run only --peers and --state-keys
    #[arg(long)]
    pub only_peers: bool,
    /// What is measured, for the results: NAME=VERSION; repeatable
    #[arg(long = "note", value_name = "NAME=VERSION")]
    pub notes: Vec<String>,
    /// Engine instances in the fleet, one or several
    #[arg(long, value_delimiter = ',', default_value = "4,50,400,1000")]
    pub instances: Vec<usize>,
    /// Cases to run, in this order
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Case::ALL)]
    pub cases: Vec<Case>,
    /// Fresh processes per controller and fleet
    #[arg(long, default_value_t = 5)]
    pub trials: u32,
    /// Operations ingested
    #[arg(long, default_value_t = 1_000_000)]
    pub operations: usize,
    /// Keys in the part about kept state: journal, snapshot, restarts, then everybody syncing; `make bench` takes 10,000,000
    #[arg(long, default_value_t = 0, value_name = "KEYS")]
    pub state_keys: usize,
    /// HTTP connections of the throughput case
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Longest time one rate is measured, in milliseconds
    #[arg(long, default_value_t = 1000)]
    pub window_ms: u64,
    /// Append every sample to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Compare two results and measure nothing
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"])]
    pub compare: Vec<PathBuf>,
    /// Summarize results and measure nothing
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// With --report: write a Markdown document, and its charts beside it
    #[arg(long, value_name = "FILE", requires = "report")]
    pub markdown: Option<PathBuf>,
    /// With --report: replace the table between the marks in this Markdown file by the main results
    #[arg(long, value_name = "FILE", requires = "report")]
    pub summary: Option<PathBuf>,
}

/// A controller that a trial starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its name in results.
    pub name: String,
    /// Program and first arguments.
    pub command: Vec<String>,
}

impl FromStr for Launch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
        let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if name.is_empty() || command.is_empty() {
            return Err("expected NAME=COMMAND".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            command,
        })
    }
}

/// Ports of a controller that runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    /// HTTP.
    pub http: u16,
    /// PULL.
    pub pull: u16,
    /// ROUTER for requests.
    pub reply: u16,
}

impl FromStr for Attach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports: Result<Vec<u16>, _> = text.split(',').map(str::parse).collect();
        match ports.as_deref() {
            Ok(&[http, pull, reply]) => Ok(Self { http, pull, reply }),
            _ => Err("expected three ports: HTTP,PULL,REPLY".to_owned()),
        }
    }
}
