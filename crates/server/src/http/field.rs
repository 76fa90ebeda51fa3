//! Types of the fields of JSON bodies: how each is read, and its schema, which says as exactly as a
//! schema can what the reading accepts.

use std::borrow::Cow;

use kvatlas_protocol::ChunkHash;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::fields::Fields;

/// Something a field of a body may hold.
pub trait Field: JsonSchema {
    /// Reads the field called `name`; what is wrong is left in `fields`.
    fn take(fields: &mut Fields, name: &str) -> Self;
}

impl Field for String {
    fn take(fields: &mut Fields, name: &str) -> Self {
        fields.text(name)
    }
}

impl Field for Option<String> {
    fn take(fields: &mut Fields, name: &str) -> Self {
        fields.optional_text(name)
    }
}

impl Field for (String, String) {
    fn take(fields: &mut Fields, name: &str) -> Self {
        fields.text_pair(name)
    }
}

/// Ints of 64 bits with sign, read as pydantic does.
#[derive(Debug, Default)]
pub struct Ints(pub Vec<i64>);

impl Field for Ints {
    fn take(fields: &mut Fields, name: &str) -> Self {
        Self(fields.ints(name))
    }
}

impl Field for Option<Ints> {
    fn take(fields: &mut Fields, name: &str) -> Self {
        fields.optional_ints(name).map(Ints)
    }
}

impl JsonSchema for Ints {
    fn schema_name() -> Cow<'static, str> {
        "Ints".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        integers(
            i64::MAX as u64,
            "Integers of 64 bits with sign. Digits as text, true and false are read as integers, as LMCache's controller reads them.",
        )
    }
}

/// An array of what is read as an integer.
fn integers(maximum: u64, description: &str) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": ["integer", "string", "boolean"],
            "minimum": i64::MIN,
            "maximum": maximum,
            "pattern": r"^\s*[+-]?[0-9]{1,18}\s*$",
        },
        "description": description,
    })
}

/// Chunk hashes, first chunk first.
pub struct Hashes(pub Vec<ChunkHash>);

impl Field for Hashes {
    fn take(fields: &mut Fields, name: &str) -> Self {
        Self(fields.hashes(name))
    }
}

impl JsonSchema for Hashes {
    fn schema_name() -> Cow<'static, str> {
        "Hashes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        integers(
            u64::MAX,
            "Chunk hashes, first chunk first: integers of 64 bits, signed or unsigned.",
        )
    }
}

/// A truth value; false where it is null or absent.
pub struct Truth(pub bool);

impl Field for Truth {
    fn take(fields: &mut Fields, name: &str) -> Self {
        Self(fields.optional_bool(name).unwrap_or(false))
    }
}

impl JsonSchema for Truth {
    fn schema_name() -> Cow<'static, str> {
        "Truth".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["boolean", "string", "integer", "null"],
            "minimum": 0,
            "maximum": 1,
            "pattern": "^([tT]([rR][uU][eE])?|[fF]([aA][lL][sS][eE])?|[yY]([eE][sS])?|[nN][oO]?|[oO]([nN]|[fF][fF])|[01](\\.0)?)$",
            "default": false,
        })
    }
}
