//! A query string being taken apart, with FastAPI's errors; and the last part of a path.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::Value;

use super::error::{ApiError, FieldError};

/// Shortest time that can be asked for.
pub const SHORTEST: Duration = Duration::from_millis(1);

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
        self.optional_flag(name).unwrap_or(false)
    }

    /// A truth value that may be absent.
    pub fn optional_flag(&mut self, name: &str) -> Option<bool> {
        let msg = "Input should be a valid boolean, unable to interpret input";
        self.parsed(name, "bool_parsing", msg, |text| {
            match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
                _ => None,
            }
        })
    }

    /// A number from 1 to `most` that may be absent.
    pub fn count(&mut self, name: &str, most: usize) -> Option<usize> {
        let msg = format!("Input should be an integer from 1 to {most}");
        self.parsed(name, "int_parsing", &msg, |text| {
            text.parse().ok().filter(|count| (1..=most).contains(count))
        })
    }

    /// A time in seconds, from [`SHORTEST`] to `most`, that may be absent.
    pub fn seconds(&mut self, name: &str, most: Duration) -> Option<Duration> {
        let (least_s, most_s) = (SHORTEST.as_secs_f64(), most.as_secs());
        let msg = format!("Input should be a number of seconds from {least_s} to {most_s}");
        self.parsed(name, "float_parsing", &msg, |text| {
            let time = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
            (SHORTEST..=most).contains(&time).then_some(time)
        })
    }

    /// One of several words, or absent.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let msg = format!("Input should be one of {}", words.join(", "));
        self.parsed(name, "enum", &msg, |text| {
            let found = choices.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value)
        })
    }

    /// Nothing was wrong, or everything that was.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Invalid(self.errors))
        }
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        kind: &'static str,
        msg: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = parse(&text);
        if value.is_none() {
            self.wrong(name, kind, msg, text);
        }
        value
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

/// The last part of a path, decoded. What is not UTF-8 becomes the replacement character, as in
/// upstream's server, and is then a name that nobody has.
pub struct LastSegment(pub String);

impl<S: Sync> FromRequestParts<S> for LastSegment {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let path = parts.uri.path();
        let last = path.rsplit('/').next().unwrap_or(path);
        // A plus is a space in queries only.
        Ok(Self(decoded(&last.replace('+', "%2B"))))
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
    fn values_out_of_range_are_refused() {
        let most = Duration::from_secs(3_600);
        for text in ["0", "1e-9", "-1", "nan", "inf", "3601", "x", ""] {
            let mut query = Query::read(Some(&format!("t={text}&n={text}")));
            assert_eq!(query.seconds("t", most), None, "{text}");
            assert_eq!(query.count("n", 9), None, "{text}");
            let Err(ApiError::Invalid(errors)) = query.finish() else {
                panic!("accepted {text}");
            };
            assert_eq!(errors.len(), 2);
        }
        let mut query = Query::read(Some("t=0.5&n=9"));
        let read = (query.seconds("t", most), query.count("n", 9));
        assert_eq!(read, (Some(Duration::from_millis(500)), Some(9)));
        query.finish().unwrap();
    }

    #[test]
    fn a_wrong_choice_names_the_right_ones() {
        let choices = [("running", 1), ("failed", 2)];
        let mut query = Query::read(Some("a=failed&b=x"));
        assert_eq!(query.choice("a", &choices), Some(2));
        assert_eq!(query.choice("b", &choices), None);
        let Err(ApiError::Invalid(errors)) = query.finish() else {
            panic!("accepted");
        };
        assert_eq!(errors[0].msg, "Input should be one of running, failed");
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
