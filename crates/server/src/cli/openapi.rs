//! `kvatlas openapi`: the description of the HTTP endpoints, as GET /openapi.json gives it.
//!
//! docs/openapi.json is this text; a test compares the two.

use clap::Command;

use crate::http::openapi;

/// The subcommand's name.
pub(super) const NAME: &str = "openapi";

pub(super) fn command() -> Command {
    Command::new(NAME).about("Print the OpenAPI description of the HTTP endpoints")
}

/// The document.
pub fn text() -> String {
    openapi::text().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(
            document == text(),
            "the endpoints changed: run `make docs` (kvatlas openapi > docs/openapi.json)"
        );
    }
}
