//! `kvatlas config-reference`: every knob as a Markdown page, made from the table of knobs.
//!
//! docs/configuration.md is this text; a test compares the two.

use std::fmt::Write as _;

use clap::Command;

use crate::config::{Config, ENV_FILE, ENV_PREFIX, KNOBS};

/// The subcommand's name.
pub(super) const NAME: &str = "config-reference";

pub(super) fn command() -> Command {
    Command::new(NAME).about("Print the configuration reference as Markdown")
}

/// The page.
pub fn text() -> String {
    let mut page = format!(
        "<!-- Made by `kvatlas config-reference > docs/configuration.md`; do not edit. -->
# Configuration

Every setting has a key, a flag and an environment variable. What is given on the command line wins
over the environment, which wins over the file, which wins over the default. At start `kvatlas` prints
every setting with its value and where that came from.

| where | how |
|---|---|
| command line | `--flag VALUE`, or `key=value` |
| environment | `{ENV_PREFIX}` and the key in capitals |
| file | YAML, `key: value`; named by `--config FILE` or `{ENV_FILE}` |

A value that does not parse is refused at start (exit code 2) with the key, the source and what was
expected. An unknown key is only warned about, as LMCache's controller ignores them too.

| key | flag | default | what it does |
|---|---|---|---|
"
    );
    let defaults = Config::default().shown();
    for knob in KNOBS {
        let default = defaults
            .iter()
            .find(|(key, _)| *key == knob.key)
            .map_or("", |(_, value)| value.as_str());
        let default = match default {
            "" | "unset" => "unset".to_owned(),
            value => format!("`{}`", cell(value)),
        };
        let row = (knob.key, knob.flag, default, cell(knob.doc));
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | `--{}` | {} | {} |",
            row.0, row.1, row.2, row.3
        );
    }
    page
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    let text: Vec<&str> = text.split_whitespace().collect();
    text.join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_knob_has_a_row_with_its_default() {
        let page = text();
        for knob in KNOBS {
            let row = format!("| `{}` | `--{}` | ", knob.key, knob.flag);
            assert_eq!(page.matches(&row).count(), 1, "{row}");
        }
        assert!(page.contains("| `controller_port` | `--port` | `9000` | "));
    }

    #[test]
    fn the_page_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert!(
            page == text(),
            "the knobs changed: run `make docs` (kvatlas config-reference > docs/configuration.md)"
        );
    }
}
