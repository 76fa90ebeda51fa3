//! The tokens of a prompt: from the arguments, a file, or standard input.
//!
//! A source holds integers with anything of ` ,[]` and newlines between them, so that JSON lists and
//! plain columns both work, or a JSON object with a list `tokens`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use thiserror::Error;

/// Largest source, in bytes; a million tokens are 7 MB.
const MAX_BYTES: u64 = 64 << 20;

/// Where a prompt is to be found.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Prompt {
    /// Token ids; `-` reads them from standard input
    #[arg(value_name = "TOKENS", allow_negative_numbers = true)]
    tokens: Vec<String>,
    /// File with token ids, as numbers or JSON; `-` is standard input
    #[arg(long, short, value_name = "FILE", conflicts_with = "tokens")]
    file: Option<PathBuf>,
}

/// Tokens that cannot be had.
#[derive(Debug, Error)]
pub enum TokensError {
    /// Nothing given.
    #[error("no tokens given: name them, or --file FILE, or - for standard input")]
    None,
    /// The source cannot be read.
    #[error("cannot read tokens from {origin}: {error}")]
    Unreadable {
        /// Where they should be.
        origin: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The source is endless.
    #[error("{origin} holds more than {MAX_BYTES} bytes of tokens")]
    TooLarge {
        /// Which.
        origin: String,
    },
    /// Not a number.
    #[error("{text:?} in {origin} is not a token id")]
    NotAToken {
        /// Where.
        origin: String,
        /// What stands there.
        text: String,
    },
}

impl Prompt {
    /// The tokens; there must be some.
    pub fn required(&self) -> Result<Vec<i64>, TokensError> {
        self.optional()?.ok_or(TokensError::None)
    }

    /// The tokens, if any source is named.
    pub fn optional(&self) -> Result<Option<Vec<i64>>, TokensError> {
        let stdin = Path::new("-");
        let (origin, text) = match (&self.file, self.tokens.as_slice()) {
            (Some(file), _) if file == stdin => standard_input()?,
            (Some(file), _) => {
                let origin = file.display().to_string();
                let text = std::fs::File::open(file).and_then(read);
                (origin.clone(), text_of(text, &origin)?)
            }
            (None, []) => return Ok(None),
            (None, [only]) if only == "-" => standard_input()?,
            (None, tokens) => ("the arguments".to_owned(), tokens.join(" ")),
        };
        parse(&text, &origin).map(Some)
    }
}

fn standard_input() -> Result<(String, String), TokensError> {
    let origin = "standard input".to_owned();
    let text = text_of(read(std::io::stdin().lock()), &origin)?;
    Ok((origin, text))
}

/// One byte more than allowed, at most.
fn read(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn text_of(text: std::io::Result<String>, origin: &str) -> Result<String, TokensError> {
    let origin = origin.to_owned();
    match text {
        Ok(text) if text.len() as u64 > MAX_BYTES => Err(TokensError::TooLarge { origin }),
        Ok(text) => Ok(text),
        Err(error) => Err(TokensError::Unreadable { origin, error }),
    }
}

fn parse(text: &str, origin: &str) -> Result<Vec<i64>, TokensError> {
    if text.trim_start().starts_with('{')
        && let Ok(body) = serde_json::from_str::<serde_json::Value>(text)
        && let Some(tokens) = body.get("tokens")
    {
        return parse(&tokens.to_string(), origin);
    }
    text.split(|c: char| c.is_whitespace() || ",[]".contains(c))
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse().map_err(|_| TokensError::NotAToken {
                origin: origin.to_owned(),
                text: word.chars().take(40).collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_of_the_usual_forms() {
        for text in [
            "1 -2 3",
            "1,-2,3\n",
            "[1, -2, 3]",
            " {\"tokens\": [1,-2,3]}",
            "1\n-2\n3\n",
        ] {
            assert_eq!(parse(text, "x").unwrap(), [1, -2, 3], "{text}");
        }
        assert_eq!(parse("[]", "x").unwrap(), [0_i64; 0]);
    }

    #[test]
    fn what_is_no_token_is_named() {
        for (text, named) in [("1 x", "\"x\""), ("1.5", "\"1.5\""), ("{\"a\": 1}", "{")] {
            let error = parse(text, "the file").unwrap_err().to_string();
            assert!(
                error.contains(named) && error.contains("the file"),
                "{error}"
            );
        }
    }

    #[test]
    fn no_source_is_told_from_an_empty_one() {
        let prompt = |tokens: &[&str]| Prompt {
            tokens: tokens.iter().map(|text| (*text).to_owned()).collect(),
            file: None,
        };
        assert_eq!(prompt(&[]).optional().unwrap(), None);
        assert!(matches!(prompt(&[]).required(), Err(TokensError::None)));
        assert_eq!(prompt(&["[]"]).optional().unwrap(), Some(vec![]));
        let missing = Prompt {
            tokens: vec![],
            file: Some("/nowhere/at/all".into()),
        };
        assert!(matches!(
            missing.optional(),
            Err(TokensError::Unreadable { .. })
        ));
    }
}
