//! `kvatlas man`: manual pages in roff, made from the command line.

use clap::{Arg, ArgMatches, Command};
use clap_mangen::Man;

/// The subcommand's name.
pub(super) const NAME: &str = "man";

pub(super) fn command() -> Command {
    let page = Arg::new("page")
        .value_name("SUBCOMMAND")
        .help("Page of this subcommand instead of the whole");
    Command::new(NAME)
        .about("Print a manual page: kvatlas man | man -l -")
        .arg(page)
}

/// The page asked for; `root` is the whole command line.
pub(super) fn text(root: Command, matches: &ArgMatches) -> Result<Vec<u8>, clap::Error> {
    let mut root = root;
    // Gives every subcommand its full name and usage.
    root.build();
    let page = match matches.get_one::<String>("page") {
        None => Man::new(root),
        Some(name) => {
            let found = root.find_subcommand(name).cloned();
            let page = found.ok_or_else(|| {
                root.error(
                    clap::error::ErrorKind::InvalidSubcommand,
                    format!("no subcommand {name:?}"),
                )
            })?;
            Man::new(page).title(format!("kvatlas-{name}"))
        }
    };
    let mut text = Vec::new();
    page.render(&mut text)?;
    Ok(text)
}
