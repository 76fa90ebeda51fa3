//! `kvatlas completions`: a script that teaches a shell the command line, made from the command line.

use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

/// The subcommand's name.
pub(super) const NAME: &str = "completions";

pub(super) fn command() -> Command {
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(clap::value_parser!(Shell))
        .help("Shell that will read it");
    Command::new(NAME)
        .about("Print completions for a shell")
        .arg(shell)
}

/// The script for the shell asked for; `root` is the whole command line.
pub(super) fn text(root: &mut Command, matches: &ArgMatches) -> Vec<u8> {
    let mut script = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(*shell, root, "kvatlas", &mut script);
    }
    script
}
