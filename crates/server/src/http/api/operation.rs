//! What one route takes and gives, written beside the route.
//!
//! Schemas come from the types that are parsed and rendered; examples are from a `kvatlas demo`.

use std::time::Duration;

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::http::error::{Detail, ValidationErrors};
use crate::http::query::SHORTEST;

/// Media type of almost everything.
pub const JSON: &str = "application/json";
/// Media type of what axum sends for a text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Media type of raw tokens.
pub const BYTES: &str = "application/octet-stream";

/// Makes the schema of one type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What one route takes and gives.
pub struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: Option<&'static str>,
    pub(super) parameters: Vec<Parameter>,
    /// Bodies it reads, by media type.
    pub(super) bodies: Vec<Media>,
    pub(super) answers: Vec<Answer>,
}

/// A body, of a request or of an answer.
pub(super) struct Media {
    pub(super) kind: &'static str,
    pub(super) schema: SchemaOf,
    pub(super) examples: Vec<Value>,
}

/// One answer of a handler.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) about: String,
    pub(super) media: Media,
}

/// Something in the path or the query.
pub struct Parameter {
    pub(super) name: &'static str,
    pub(super) is_in_path: bool,
    pub(super) about: String,
    pub(super) schema: Value,
    pub(super) example: Option<Value>,
    /// Whether some values are refused with 422.
    pub(super) is_checked: bool,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    /// An operation by its name in generated clients, and in a line for people.
    pub fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            about: None,
            parameters: Vec::new(),
            bodies: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// What the summary leaves out, as Markdown.
    pub fn about(mut self, text: &'static str) -> Self {
        self.about = Some(text);
        self
    }

    /// A parameter.
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// A JSON body.
    pub fn takes<T: JsonSchema>(self, examples: impl IntoIterator<Item = Value>) -> Self {
        self.body(JSON, schema_of::<T>, examples.into_iter().collect())
    }

    /// A body of another type.
    pub fn takes_as<T: JsonSchema>(self, kind: &'static str) -> Self {
        self.body(kind, schema_of::<T>, Vec::new())
    }

    fn body(mut self, kind: &'static str, schema: SchemaOf, examples: Vec<Value>) -> Self {
        self.bodies.push(Media {
            kind,
            schema,
            examples,
        });
        self
    }

    /// 200 with JSON.
    pub fn gives<T: JsonSchema>(self, about: &str, example: Value) -> Self {
        self.answers::<T>(StatusCode::OK, about, JSON, example)
    }

    /// 200 with a text.
    pub fn gives_text(self, kind: &'static str, about: &str, example: &str) -> Self {
        self.answers::<String>(StatusCode::OK, about, kind, example.into())
    }

    /// A refusal by the handler itself, as `{"detail"}`.
    pub fn refuses(self, status: StatusCode, about: &str, detail: &str) -> Self {
        let example = json!({ "detail": detail });
        self.answers::<Detail>(status, about, JSON, example)
    }

    /// Any answer.
    pub fn answers<T: JsonSchema>(
        mut self,
        status: StatusCode,
        about: &str,
        kind: &'static str,
        example: Value,
    ) -> Self {
        self.answers.push(Answer {
            status,
            about: about.into(),
            media: Media {
                kind,
                schema: schema_of::<T>,
                examples: vec![example],
            },
        });
        self
    }

    /// Whether something it takes is refused with 422.
    pub(super) fn is_checked(&self) -> bool {
        !self.bodies.is_empty() || self.parameters.iter().any(|one| one.is_checked)
    }
}

impl Media {
    pub(super) fn json<T: JsonSchema>(example: Value) -> Self {
        Self {
            kind: JSON,
            schema: schema_of::<T>,
            examples: vec![example],
        }
    }

    pub(super) fn detail(detail: &str) -> Self {
        Self::json::<Detail>(json!({ "detail": detail }))
    }

    pub(super) fn invalid() -> Self {
        Self::json::<ValidationErrors>(json!({ "detail": [{
            "type": "missing",
            "loc": ["body", "tokens"],
            "msg": "Field required",
            "input": {},
        }] }))
    }
}

impl Parameter {
    fn new(name: &'static str, about: &str, schema: Value) -> Self {
        Self {
            name,
            is_in_path: false,
            about: about.into(),
            schema,
            example: None,
            is_checked: true,
        }
    }

    /// A part of the path.
    pub fn path(name: &'static str, about: &str) -> Self {
        Self {
            is_in_path: true,
            ..Self::text(name, about)
        }
    }

    /// Any text.
    pub fn text(name: &'static str, about: &str) -> Self {
        Self {
            is_checked: false,
            ..Self::new(name, about, json!({ "type": "string" }))
        }
    }

    /// What [`Query::int`](crate::http::query::Query::int) reads.
    pub fn int(name: &'static str, about: &str) -> Self {
        Self::new(name, about, json!({ "type": "integer", "format": "int64" }))
    }

    /// What [`Query::count`](crate::http::query::Query::count) reads.
    pub fn count(name: &'static str, most: usize, default: usize, about: &str) -> Self {
        let schema = json!({
            "type": "integer", "minimum": 1, "maximum": most, "default": default,
        });
        Self::new(name, about, schema)
    }

    /// What [`Query::flag`](crate::http::query::Query::flag) reads.
    pub fn flag(name: &'static str, default: bool, about: &str) -> Self {
        let schema = json!({ "type": "boolean", "default": default });
        Self::new(name, about, schema)
    }

    /// What [`Query::seconds`](crate::http::query::Query::seconds) reads.
    pub fn seconds(name: &'static str, most: Duration, about: &str) -> Self {
        let schema = json!({
            "type": "number", "minimum": SHORTEST.as_secs_f64(), "maximum": most.as_secs(),
        });
        Self::new(name, about, schema)
    }

    /// What [`Query::choice`](crate::http::query::Query::choice) reads.
    pub fn choice(
        name: &'static str,
        words: impl IntoIterator<Item = &'static str>,
        about: &str,
    ) -> Self {
        let words: Vec<&str> = words.into_iter().collect();
        Self::new(name, about, json!({ "type": "string", "enum": words }))
    }

    /// One of several words in any case, or the empty text.
    pub fn any_case(
        name: &'static str,
        words: impl IntoIterator<Item = &'static str>,
        about: &str,
    ) -> Self {
        let letter = |c: char| format!("[{}{}]", c.to_ascii_uppercase(), c);
        let words = words.into_iter();
        let words: Vec<String> = words
            .map(|word| word.chars().map(letter).collect())
            .collect();
        let pattern = format!("^({})?$", words.join("|"));
        Self {
            is_checked: false,
            ..Self::new(name, about, json!({ "type": "string", "pattern": pattern }))
        }
    }

    /// A value to try.
    pub fn example(mut self, value: impl Into<Value>) -> Self {
        self.example = Some(value.into());
        self
    }
}
