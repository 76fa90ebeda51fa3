//! A JSON body being taken apart, as FastAPI and pydantic would.
//!
//! [`Fields`] gathers everything that is wrong, so that one reply names all of it. Conversions are
//! pydantic's: "5", 5.0 and true are ints. Memory stays in proportion to the body: fields are kept as
//! ranges of it and read when asked for, lists of ints straight into a vector; errors repeat no
//! large input.

use std::fmt;
use std::ops::Range;

use axum::body::Bytes;
use indexmap::IndexMap;
use kvatlas_protocol::ChunkHash;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{ApiError, FieldError};
use super::field::Field;

/// Longest text of a request that an error repeats, in bytes: errors must not amplify.
const MAX_INPUT: usize = 512;
/// Fields remembered; no request has more than a handful.
const MAX_FIELDS: usize = 64;
/// Wrong items of one list that are named.
const MAX_WRONG_ITEMS: usize = 8;

/// What editors put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A JSON object, field by field.
#[derive(Debug)]
pub struct Fields {
    body: Bytes,
    places: IndexMap<String, Range<usize>>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Reads a body as a JSON object.
    pub fn read(body: &Bytes) -> Result<Self, ApiError> {
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
        // Python's reader skips the mark too.
        let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        match serde_json::from_slice::<Object<'_>>(text) {
            Ok(Object(fields)) => {
                let start = body.as_ptr().addr();
                let place = |raw: &str| {
                    let at = raw.as_ptr().addr() - start;
                    at..at + raw.len()
                };
                Ok(Self {
                    places: fields
                        .into_iter()
                        .map(|(name, raw)| (name, place(raw.get())))
                        .collect(),
                    body: body.clone(),
                    errors: Vec::new(),
                })
            }
            Err(error) if error.is_data() => Err(one(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
                shown(std::str::from_utf8(text).unwrap_or_default()),
            )),
            Err(error) => {
                let at = offset(text, error.line(), error.column());
                let error = FieldError::not_json(at, &error.to_string());
                Err(ApiError::invalid(error))
            }
        }
    }

    /// A field, read as its type is.
    pub fn take<T: Field>(&mut self, name: &str) -> T {
        T::take(self, name)
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A text that must be there.
    pub fn text(&mut self, name: &str) -> String {
        let Some(raw) = self.raw(name) else {
            self.missing(name);
            return String::new();
        };
        match serde_json::from_str(raw) {
            Ok(text) => text,
            Err(_) => {
                self.wrong(name, "string_type", "Input should be a valid string");
                String::new()
            }
        }
    }

    /// A text that may be absent or null.
    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        self.is_given(name).then(|| self.text(name))
    }

    /// A truth value that may be absent or null.
    pub fn optional_bool(&mut self, name: &str) -> Option<bool> {
        if !self.is_given(name) {
            return None;
        }
        let raw = self.raw(name)?;
        let word: String = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
        let read = match word.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" | "1.0" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" | "0.0" => Some(false),
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
        let Some(list) = self.list(name) else {
            return Vec::new();
        };
        let beyond = list.beyond.map(|at| {
            let input = Value::from(list.ints[at].cast_unsigned());
            (at, TOO_LARGE, input)
        });
        for (at, (kind, msg), input) in list.wrong.into_iter().chain(beyond) {
            self.errors.push(FieldError {
                kind,
                loc: vec!["body".into(), name.into(), at.into()],
                msg: msg.into(),
                input,
            });
        }
        list.ints
    }

    /// A list of ints that may be absent or null.
    pub fn optional_ints(&mut self, name: &str) -> Option<Vec<i64>> {
        self.is_given(name).then(|| self.ints(name))
    }

    /// A list of chunk hashes that must be there: ints of 64 bits, signed or unsigned.
    pub fn hashes(&mut self, name: &str) -> Vec<ChunkHash> {
        let Some(list) = self.list(name) else {
            return Vec::new();
        };
        if !list.wrong.is_empty() {
            self.wrong(
                name,
                "int_type",
                "Input should be a list of integers from -2^63 to 2^64-1",
            );
        }
        list.ints.into_iter().map(ChunkHash::from_signed).collect()
    }

    /// A pair of texts that must be there.
    pub fn text_pair(&mut self, name: &str) -> (String, String) {
        let none = Default::default();
        let Some(raw) = self.raw(name) else {
            self.missing(name);
            return none;
        };
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw) else {
            self.wrong(name, "tuple_type", "Input should be a valid tuple");
            return none;
        };
        if items.len() > 2 {
            let n = items.len();
            let msg = format!("Tuple should have at most 2 items after validation, not {n}");
            self.wrong(name, "too_long", &msg);
            return none;
        }
        let mut errors = Vec::new();
        let mut item = |at: usize| {
            let (kind, msg, input) = match items.get(at) {
                None => ("missing", "Field required", raw),
                Some(item) => match serde_json::from_str(item.get()) {
                    Ok(text) => return text,
                    Err(_) => ("string_type", "Input should be a valid string", item.get()),
                },
            };
            errors.push(FieldError {
                kind,
                loc: vec!["body".into(), name.into(), at.into()],
                msg: msg.into(),
                input: shown(input),
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

    fn raw(&self, name: &str) -> Option<&str> {
        let place = self.places.get(name)?;
        // serde_json has read it as text before.
        std::str::from_utf8(&self.body[place.clone()]).ok()
    }

    /// There, and not null.
    fn is_given(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|raw| raw != "null")
    }

    fn list(&mut self, name: &str) -> Option<Ints> {
        let Some(raw) = self.raw(name) else {
            self.missing(name);
            return None;
        };
        let list = serde_json::from_str(raw).ok();
        if list.is_none() {
            self.wrong(name, "list_type", "Input should be a valid list");
        }
        list
    }

    fn missing(&mut self, name: &str) {
        self.errors.push(FieldError {
            kind: "missing",
            loc: vec!["body".into(), name.into()],
            msg: "Field required".into(),
            input: shown(std::str::from_utf8(&self.body).unwrap_or_default()),
        });
    }

    fn wrong(&mut self, name: &str, kind: &'static str, msg: &str) {
        let input = self.raw(name).map_or(Value::Null, shown);
        self.errors.push(FieldError {
            kind,
            loc: vec!["body".into(), name.into()],
            msg: msg.into(),
            input,
        });
    }
}

/// A JSON object with its values unread. Of a repeated field the last counts, as in Python.
struct Object<'a>(IndexMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object<'de>, A::Error> {
                let mut fields = IndexMap::new();
                while let Some(name) = access.next_key::<String>()? {
                    if fields.len() < MAX_FIELDS || fields.contains_key(&name) {
                        fields.insert(name, access.next_value()?);
                    } else {
                        access.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

type Reason = (&'static str, &'static str);

const NO_INT: Reason = ("int_type", "Input should be a valid integer");
const NO_INT_TEXT: Reason = (
    "int_parsing",
    "Input should be a valid integer, unable to parse string as an integer",
);
const FRACTION: Reason = (
    "int_from_float",
    "Input should be a valid integer, got a number with a fractional part",
);
const TOO_LARGE: Reason = (
    "int_parsing_size",
    "Unable to parse input string as an integer, exceeded maximum size",
);

/// A list of ints, with what in it was none.
#[derive(Debug, Default)]
struct Ints {
    /// In the place of a wrong item stands 0.
    ints: Vec<i64>,
    wrong: Vec<(usize, Reason, Value)>,
    /// First item above i64, whose bits stand in its place: a hash, but no token.
    beyond: Option<usize>,
}

impl<'de> Deserialize<'de> for Ints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Ints;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Ints, A::Error> {
                let mut list = Ints::default();
                while let Some(item) = access.next_element::<&RawValue>()? {
                    let at = list.ints.len();
                    list.ints.push(match Item::read(item.get()) {
                        Item::Int(int) => int,
                        Item::Beyond(bits) => {
                            list.beyond.get_or_insert(at);
                            bits.cast_signed()
                        }
                        Item::Wrong(reason) => {
                            if list.wrong.len() < MAX_WRONG_ITEMS {
                                list.wrong.push((at, reason, shown(item.get())));
                            }
                            0
                        }
                    });
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// One item of a list of ints.
enum Item {
    Int(i64),
    /// Above i64, within u64.
    Beyond(u64),
    Wrong(Reason),
}

impl Item {
    /// Reads one JSON value as pydantic reads an int.
    fn read(json: &str) -> Self {
        if let Ok(int) = json.parse() {
            return Self::Int(int);
        }
        match json.as_bytes().first() {
            Some(b'"') => {
                let text: String = serde_json::from_str(json).unwrap_or_default();
                let int = text.trim().parse();
                int.map_or(Self::Wrong(NO_INT_TEXT), Self::Int)
            }
            Some(b't') => Self::Int(1),
            Some(b'f') => Self::Int(0),
            Some(b'-' | b'0'..=b'9') => Self::number(json),
            _ => Self::Wrong(NO_INT),
        }
    }

    /// A number that is no plain i64.
    fn number(json: &str) -> Self {
        // Below 2^53 the conversion is exact.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if let Ok(bits) = json.parse() {
            return Self::Beyond(bits);
        }
        match json.parse::<f64>() {
            Ok(float) if float.is_finite() && float.fract() != 0.0 => Self::Wrong(FRACTION),
            Ok(float) if float.abs() < EXACT => Self::Int(float as i64),
            _ => Self::Wrong(TOO_LARGE),
        }
    }
}

/// JSON as it stood, or its size if an error should not repeat it.
fn shown(json: &str) -> Value {
    if json.len() <= MAX_INPUT {
        serde_json::from_str(json).unwrap_or(Value::Null)
    } else {
        format!("JSON of {} bytes", json.len()).into()
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

    fn read(body: &str) -> Result<Fields, ApiError> {
        Fields::read(&Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let mut fields = read(r#"{"tokens": [1, "x", 2.5, "7", true], "b": 3}"#).unwrap();
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
        let mut fields = read(r#"{"t": [5, "5", 5.0, true, -1]}"#).unwrap();
        let ints = fields.ints("t");
        assert_eq!(fields.finish(ints).unwrap(), [5, 5, 5, 1, -1]);
        let mut fields = read(r#"{"t": [9223372036854775808]}"#).unwrap();
        let ints = fields.ints("t");
        let Err(ApiError::Invalid(errors)) = fields.finish(ints) else {
            panic!("accepted");
        };
        assert_eq!(errors[0].kind, "int_parsing_size");
    }

    #[test]
    fn bodies_that_are_no_object_are_told_apart() {
        let kind = |body: &[u8]| match Fields::read(&Bytes::copy_from_slice(body)) {
            Err(ApiError::Invalid(errors)) => errors[0].kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(b""), "missing");
        assert_eq!(kind(b"{\"a\": "), "json_invalid");
        assert_eq!(kind(b"[1]"), "model_attributes_type");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_body() {
        let mut fields = read("\u{feff}{\"a\": [1, 2]}").unwrap();
        let ints = fields.ints("a");
        assert_eq!(fields.finish(ints).unwrap(), [1, 2]);
    }

    #[test]
    fn pairs_are_read_as_fastapi_does() {
        let kinds = |body: &str| {
            let mut fields = read(body).unwrap();
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
        let mut fields = read(&body).unwrap();
        let ints = fields.ints("a");
        let Err(ApiError::Invalid(errors)) = fields.finish(ints) else {
            panic!("accepted");
        };
        assert_eq!(errors[0].input, "JSON of 100002 bytes");
    }

    #[test]
    fn hashes_may_be_signed_or_unsigned() {
        let mut fields = read(r#"{"h": [-1, 18446744073709551615, 5]}"#).unwrap();
        let hashes = fields.hashes("h");
        let wanted = [ChunkHash(u64::MAX), ChunkHash(u64::MAX), ChunkHash(5)];
        assert_eq!(fields.finish(hashes).unwrap(), wanted);
        let mut fields = read(r#"{"h": [18446744073709551616]}"#).unwrap();
        let hashes = fields.hashes("h");
        assert!(fields.finish(hashes).is_err());
    }

    #[test]
    fn of_many_fields_few_are_kept_and_the_last_of_a_name_counts() {
        let many: Vec<String> = (0..1000).map(|n| format!("\"f{n}\": {n}")).collect();
        let body = format!("{{\"a\": 1, {}, \"a\": \"last\"}}", many.join(","));
        let mut fields = read(&body).unwrap();
        assert_eq!(fields.places.len(), MAX_FIELDS);
        let text = fields.text("a");
        assert_eq!(fields.finish(text).unwrap(), "last");
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_more() {
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        if let Ok(mut fields) = read(&deep) {
            let ints = fields.ints("a");
            assert!(fields.finish(ints).is_err());
        }
    }
}
