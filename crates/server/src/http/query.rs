//! A query string being taken apart, with FastAPI's errors.

use serde_json::Value;

use super::error::{ApiError, FieldError};

/// Parameters of a request; of a repeated one the last counts, as in FastAPI.
#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Reads the part after the question mark.
    pub fn read(text: Option<&str>) -> Self {
        let pairs = text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name), decoded(value))
            })
            .collect();
        Self {
            pairs,
            errors: Vec::new(),
        }
    }

    /// A text that may be absent.
    pub fn text(&self, name: &str) -> Option<String> {
        let pair = self.pairs.iter().rev().find(|(key, _)| key == name)?;
        Some(pair.1.clone())
    }

    /// An int that may be absent.
    pub fn int(&mut self, name: &str) -> Option<i64> {
        let text = self.text(name)?;
        let int = text.trim().parse().ok();
        if int.is_none() {
            self.wrong(
                name,
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
                text,
            );
        }
        int
    }

    /// A truth value; false if absent.
    pub fn flag(&mut self, name: &str) -> bool {
        let Some(text) = self.text(name) else {
            return false;
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => true,
            "false" | "f" | "no" | "n" | "off" | "0" => false,
            _ => {
                self.wrong(
                    name,
                    "bool_parsing",
                    "Input should be a valid boolean, unable to interpret input",
                    text,
                );
                false
            }
        }
    }

    /// Nothing was wrong, or everything that was.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Invalid(self.errors))
        }
    }

    fn wrong(&mut self, name: &str, kind: &'static str, msg: &str, mut input: String) {
        input.truncate(input.floor_char_boundary(256));
        self.errors.push(FieldError {
            kind,
            loc: vec!["query".into(), name.into()],
            msg: msg.into(),
            input: Value::String(input),
        });
    }
}

/// Percent-decoding as browsers and Python write it; what is not UTF-8 becomes the replacement
/// character.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                match (digit(high), digit(low)) {
                    (Some(high), Some(low)) => {
                        bytes.extend(u8::try_from(high * 16 + low));
                        rest = after;
                    }
                    _ => bytes.push(b'%'),
                }
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::read(Some("a=x%20y+z&b=%E5%AE%9E&c&a=%zz&d=%4"));
        assert_eq!(query.text("a").as_deref(), Some("%zz"));
        assert_eq!(query.text("b").as_deref(), Some("实"));
        assert_eq!(query.text("c").as_deref(), Some(""));
        assert_eq!(query.text("d").as_deref(), Some("%4"));
        assert_eq!(query.text("e"), None);
    }

    #[test]
    fn a_wrong_int_is_fastapis_error() {
        let mut query = Query::read(Some("worker_id=x"));
        assert_eq!(query.int("worker_id"), None);
        let Err(ApiError::Invalid(errors)) = query.finish() else {
            panic!("accepted");
        };
        assert_eq!(errors[0].kind, "int_parsing");
        assert_eq!(errors[0].loc, ["query", "worker_id"]);
        assert_eq!(errors[0].input, "x");
    }
}
