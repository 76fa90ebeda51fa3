//! `kvatlas bench`: hands the command line to the benchmark library.

use std::process::ExitCode;

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use kvatlas_bench::Args;

use super::Request;

/// The subcommand's name.
pub(super) const NAME: &str = "bench";

pub(super) fn command() -> Command {
    Args::augment_args(Command::new(NAME))
        .about("Measure this controller, or others, over their real sockets")
}

pub(super) fn request(matches: &ArgMatches) -> Result<Request, clap::Error> {
    Ok(Request::Bench(Box::new(Args::from_arg_matches(matches)?)))
}

/// Runs the benchmark; a refusal or a failed check is an error of the process.
pub fn run(args: &Args) -> ExitCode {
    // A fleet's connections are files of this process.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    match kvatlas_bench::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvatlas bench: {error}");
            ExitCode::FAILURE
        }
    }
}
