//! Errors as upstream's clients know them: `{"detail": text}`, or for a body that does not fit
//! `{"detail": [{type, loc, msg, input}]}` with status 422.
//!
//! [`Fields`] takes a JSON body apart and gathers everything that is wrong with it, so that one
//! reply names all of it. Conversions are FastAPI's: "5", 5.0 and true are ints.
//!
//! Upstream: FastAPI and pydantic, as `lmcache/v1/api_server/__main__.py` uses them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kvatlas_protocol::ChunkHash;
use serde_json::{Value, json};

/// An answer that is not success.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiError {
    /// A status and its reason.
    Detail(StatusCode, String),
    /// A body or query that does not fit the schema.
    Invalid(Vec<FieldError>),
}

/// One thing wrong with a request.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Kind of error, such as `missing`.
    pub kind: &'static str,
    /// Path to the place: `body` or `query`, then field names and list positions.
    pub loc: Vec<Value>,
    /// The error in words.
    pub msg: String,
    /// What stood there.
    pub input: Value,
}

/// Longest text of a request that an error repeats, in bytes: errors must not amplify.
const MAX_INPUT: usize = 512;

impl ApiError {
    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::Detail(StatusCode::NOT_FOUND, detail.into())
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::Detail(StatusCode::BAD_REQUEST, detail.into())
    }

    /// 422 for one place.
    pub fn invalid(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Detail(status, detail) => {
                (status, Json(json!({ "detail": detail }))).into_response()
            }
            Self::Invalid(errors) => {
                let detail: Vec<Value> = errors.into_iter().map(FieldError::into_json).collect();
                let body = Json(json!({ "detail": detail }));
                (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
            }
        }
    }
}

impl FieldError {
    fn into_json(self) -> Value {
        let Self {
            kind,
            loc,
            msg,
            input,
        } = self;
        json!({ "type": kind, "loc": loc, "msg": msg, "input": input })
    }

    /// A body that is not JSON; `at` is the byte where it stops being.
    pub fn not_json(at: usize, reason: &str) -> Self {
        Self {
            kind: "json_invalid",
            loc: vec!["body".into(), at.into()],
            msg: format!("JSON decode error: {reason}"),
            input: json!({}),
        }
    }
}

/// A JSON body being taken apart.
#[derive(Debug)]
pub struct Fields {
    map: serde_json::Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Reads a body as a JSON object.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let one = |kind, msg: &str, input| {
            ApiError::invalid(FieldError {
                kind,
                loc: vec!["body".into()],
                msg: msg.into(),
                input,
            })
        };
        if body.is_empty() {
            return Err(one("missing", "Field required", Value::Null));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self {
                map,
                errors: Vec::new(),
            }),
            Ok(other) => Err(one(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
                shortened(&other),
            )),
            Err(error) => {
                let at = offset(body, error.line(), error.column());
                Err(ApiError::invalid(FieldError::not_json(
                    at,
                    &error.to_string(),
                )))
            }
        }
    }

    /// A text that must be there.
    pub fn text(&mut self, name: &str) -> String {
        match self.map.get(name) {
            None => self.missing(name),
            Some(Value::String(text)) => return text.clone(),
            Some(_) => self.wrong(name, "string_type", "Input should be a valid string"),
        }
        String::new()
    }

    /// A text that may be absent or null.
    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        match self.map.get(name) {
            None | Some(Value::Null) => None,
            Some(_) => Some(self.text(name)),
        }
    }

    /// A truth value that may be absent or null.
    pub fn optional_bool(&mut self, name: &str) -> Option<bool> {
        let read = match self.map.get(name)? {
            Value::Null => return None,
            Value::Bool(value) => Some(*value),
            Value::Number(number) => match number.as_f64() {
                Some(0.0) => Some(false),
                Some(1.0) => Some(true),
                _ => None,
            },
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if read.is_none() {
            self.wrong(
                name,
                "bool_parsing",
                "Input should be a valid boolean, unable to interpret input",
            );
        }
        read
    }

    /// A list of ints that must be there.
    pub fn ints(&mut self, name: &str) -> Vec<i64> {
        if !self.map.contains_key(name) {
            self.missing(name);
            return Vec::new();
        }
        let Some(Value::Array(items)) = self.map.get(name) else {
            self.wrong(name, "list_type", "Input should be a valid list");
            return Vec::new();
        };
        let mut ints = Vec::with_capacity(items.len());
        let mut errors = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match int(item) {
                Ok(int) => ints.push(int),
                // One wrong item says it; a hundred thousand would be an amplifier.
                Err((kind, msg)) if errors.len() < 8 => errors.push(FieldError {
                    kind,
                    loc: vec!["body".into(), name.into(), at.into()],
                    msg: msg.into(),
                    input: shortened(item),
                }),
                Err(_) => {}
            }
        }
        self.errors.append(&mut errors);
        ints
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// A list of chunk hashes that must be there: ints of 64 bits, signed or unsigned.
    pub fn hashes(&mut self, name: &str) -> Vec<ChunkHash> {
        let unsigned = |value: &Value| value.as_u64().map(ChunkHash);
        let signed = |value: &Value| value.as_i64().map(ChunkHash::from_signed);
        match self.map.get(name) {
            None => self.missing(name),
            Some(Value::Array(items)) => {
                let hashes: Option<Vec<_>> = items
                    .iter()
                    .map(|item| unsigned(item).or_else(|| signed(item)))
                    .collect();
                match hashes {
                    Some(hashes) => return hashes,
                    None => self.wrong(
                        name,
                        "int_type",
                        "Input should be a list of integers from -2^63 to 2^64-1",
                    ),
                }
            }
            Some(_) => self.wrong(name, "list_type", "Input should be a valid list"),
        }
        Vec::new()
    }

    /// A list of ints that may be absent or null.
    pub fn optional_ints(&mut self, name: &str) -> Option<Vec<i64>> {
        match self.map.get(name) {
            None | Some(Value::Null) => None,
            Some(_) => Some(self.ints(name)),
        }
    }

    /// A pair of texts that must be there.
    pub fn text_pair(&mut self, name: &str) -> (String, String) {
        let items = match self.map.get(name) {
            None => {
                self.missing(name);
                return Default::default();
            }
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.wrong(name, "tuple_type", "Input should be a valid tuple");
                return Default::default();
            }
        };
        if items.len() > 2 {
            let msg = format!(
                "Tuple should have at most 2 items after validation, not {}",
                items.len()
            );
            self.wrong(name, "too_long", &msg);
            return Default::default();
        }
        let mut errors = Vec::new();
        let mut item = |at: usize| {
            let (kind, msg, input) = match items.get(at) {
                Some(Value::String(text)) => return text.clone(),
                Some(other) => ("string_type", "Input should be a valid string", other),
                None => ("missing", "Field required", &self.map[name]),
            };
            errors.push(FieldError {
                kind,
                loc: vec!["body".into(), name.into(), at.into()],
                msg: msg.into(),
                input: shortened(input),
            });
            String::new()
        };
        let pair = (item(0), item(1));
        self.errors.append(&mut errors);
        pair
    }

    /// `value` if nothing was wrong, else everything that was.
    pub fn finish<T>(self, value: T) -> Result<T, ApiError> {
        if self.errors.is_empty() {
            Ok(value)
        } else {
            Err(ApiError::Invalid(self.errors))
        }
    }

    fn missing(&mut self, name: &str) {
        self.errors.push(FieldError {
            kind: "missing",
            loc: vec!["body".into(), name.into()],
            msg: "Field required".into(),
            input: shortened(&Value::Object(self.map.clone())),
        });
    }

    fn wrong(&mut self, name: &str, kind: &'static str, msg: &str) {
        let input = self.map.get(name).map_or(Value::Null, shortened);
        self.errors.push(FieldError {
            kind,
            loc: vec!["body".into(), name.into()],
            msg: msg.into(),
            input,
        });
    }
}

/// An int the way pydantic reads one.
fn int(value: &Value) -> Result<i64, (&'static str, &'static str)> {
    const TYPE: (&str, &str) = ("int_type", "Input should be a valid integer");
    const PARSING: (&str, &str) = (
        "int_parsing",
        "Input should be a valid integer, unable to parse string as an integer",
    );
    const FRACTION: (&str, &str) = (
        "int_from_float",
        "Input should be a valid integer, got a number with a fractional part",
    );
    const SIZE: (&str, &str) = (
        "int_parsing_size",
        "Unable to parse input string as an integer, exceeded maximum size",
    );
    match value {
        Value::Bool(value) => Ok(i64::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Ok(int),
            (None, Some(float)) if float.fract() != 0.0 => Err(FRACTION),
            // Below 2^53 the conversion is exact.
            (None, Some(float)) if float.abs() < 9_007_199_254_740_992.0 => Ok(float as i64),
            _ => Err(SIZE),
        },
        Value::String(text) => text.trim().parse().map_err(|_| PARSING),
        _ => Err(TYPE),
    }
}

/// `value`, or how long it is if an error should not repeat it.
fn shortened(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) if text.len() <= MAX_INPUT => value.clone(),
        Value::String(text) => format!("text of {} bytes", text.len()).into(),
        Value::Array(items) if items.len() > 64 => format!("list of {} items", items.len()).into(),
        other => {
            let text = other.to_string();
            if text.len() <= MAX_INPUT {
                other.clone()
            } else {
                format!("JSON of {} bytes", text.len()).into()
            }
        }
    }
}

/// Byte position of a line and column, both from 1.
fn offset(body: &[u8], line: usize, column: usize) -> usize {
    let before: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + column.saturating_sub(1)).min(body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_named_at_once() {
        let mut fields = Fields::read(br#"{"tokens": [1, "x", 2.5, "7", true], "b": 3}"#).unwrap();
        let values = (fields.text("a"), fields.text("b"), fields.ints("tokens"));
        let Err(ApiError::Invalid(errors)) = fields.finish(values) else {
            panic!("accepted");
        };
        let seen: Vec<_> = errors
            .iter()
            .map(|error| (error.kind, &error.loc))
            .collect();
        let loc = |parts: &[Value]| parts.to_vec();
        assert_eq!(
            seen,
            [
                ("missing", &loc(&["body".into(), "a".into()])),
                ("string_type", &loc(&["body".into(), "b".into()])),
                (
                    "int_parsing",
                    &loc(&["body".into(), "tokens".into(), 1.into()])
                ),
                (
                    "int_from_float",
                    &loc(&["body".into(), "tokens".into(), 2.into()])
                ),
            ]
        );
    }

    #[test]
    fn ints_are_read_as_fastapi_does() {
        let mut fields = Fields::read(br#"{"t": [5, "5", 5.0, true, -1]}"#).unwrap();
        let ints = fields.ints("t");
        assert_eq!(fields.finish(ints).unwrap(), [5, 5, 5, 1, -1]);
        let mut fields = Fields::read(br#"{"t": [9223372036854775808]}"#).unwrap();
        let ints = fields.ints("t");
        let Err(ApiError::Invalid(errors)) = fields.finish(ints) else {
            panic!("accepted");
        };
        assert_eq!(errors[0].kind, "int_parsing_size");
    }

    #[test]
    fn bodies_that_are_no_object_are_told_apart() {
        let kind = |body: &[u8]| match Fields::read(body) {
            Err(ApiError::Invalid(errors)) => errors[0].kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(b""), "missing");
        assert_eq!(kind(b"{\"a\": "), "json_invalid");
        assert_eq!(kind(b"[1]"), "model_attributes_type");
    }

    #[test]
    fn pairs_are_read_as_fastapi_does() {
        let kinds = |body: &str| {
            let mut fields = Fields::read(body.as_bytes()).unwrap();
            let pair = fields.text_pair("p");
            match fields.finish(pair) {
                Err(ApiError::Invalid(errors)) => errors
                    .into_iter()
                    .map(|error| (error.kind, error.loc.len()))
                    .collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(kinds("{}"), [("missing", 2)]);
        assert_eq!(kinds(r#"{"p": "ab"}"#), [("tuple_type", 2)]);
        assert_eq!(kinds(r#"{"p": ["a"]}"#), [("missing", 3)]);
        assert_eq!(kinds(r#"{"p": ["a", 5]}"#), [("string_type", 3)]);
        assert_eq!(kinds(r#"{"p": ["a", "b", "c"]}"#), [("too_long", 2)]);
    }

    #[test]
    fn an_error_repeats_no_large_input() {
        let body = format!(r#"{{"a": "{}"}}"#, "x".repeat(100_000));
        let mut fields = Fields::read(body.as_bytes()).unwrap();
        let ints = fields.ints("a");
        let Err(ApiError::Invalid(errors)) = fields.finish(ints) else {
            panic!("accepted");
        };
        assert_eq!(errors[0].input, "text of 100000 bytes");
    }
}
