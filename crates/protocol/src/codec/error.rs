//! Why a payload was refused: where, what was expected, what was found.

use std::fmt;

/// A refused payload. Its text names the field (`$.operations[0].op_type`), what was expected
/// there and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    problem: Problem,
    /// From the inside out.
    path: Vec<Step>,
}

/// Kind of refusal, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The payload ends early.
    Truncated,
    /// Not MessagePack or not JSON, or bytes after the message.
    Malformed,
    /// A value of another type or range than the field's.
    Mistyped,
    /// A required field is absent.
    MissingField,
    /// No such message, command or operation.
    UnknownTag,
    /// Nested too deeply.
    TooDeep,
}

impl Reason {
    /// Every reason, for a metric that shows each from the start.
    pub const ALL: [Self; 6] = [
        Self::Truncated,
        Self::Malformed,
        Self::Mistyped,
        Self::MissingField,
        Self::UnknownTag,
        Self::TooDeep,
    ];

    /// Label of a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Mistyped => "mistyped",
            Self::MissingField => "missing_field",
            Self::UnknownTag => "unknown_tag",
            Self::TooDeep => "too_deep",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("payload ends early")]
    Truncated,
    #[error("not MessagePack: reserved byte 0xc1 at byte {0}")]
    Reserved(usize),
    #[error("bytes after the end of the message, from byte {0}")]
    Trailing(usize),
    #[error("not JSON at byte {at}: {expected}")]
    Json { at: usize, expected: &'static str },
    #[error("expected {expected}, found {found}")]
    Mistyped {
        expected: &'static str,
        found: &'static str,
    },
    #[error("expected text in UTF-8, found other bytes")]
    NotUtf8,
    #[error("expected an array of {expected}, found one of {found}")]
    WrongLength { expected: u32, found: u32 },
    #[error("required field `{0}` is missing")]
    Missing(&'static str),
    #[error("unknown value '{0}'")]
    UnknownTag(String),
    #[error("expected {expected}, found '{found}'")]
    UnknownWord {
        expected: &'static str,
        found: String,
    },
    #[error("nested too deeply")]
    TooDeep,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(&'static str),
    Index(usize),
    Key,
    Entry,
}

impl DecodeError {
    pub(crate) fn mistyped(expected: &'static str, found: &'static str) -> Self {
        Problem::Mistyped { expected, found }.into()
    }

    pub(crate) fn missing(field: &'static str) -> Self {
        Problem::Missing(field).into()
    }

    pub(crate) fn unknown_tag(field: &'static str, found: &str) -> Self {
        Self::from(Problem::UnknownTag(excerpt(found))).in_field(field)
    }

    pub(crate) fn unknown_word(expected: &'static str, found: &str) -> Self {
        let found = excerpt(found);
        Problem::UnknownWord { expected, found }.into()
    }

    pub(crate) fn in_field(mut self, name: &'static str) -> Self {
        self.path.push(Step::Field(name));
        self
    }

    pub(crate) fn in_element(mut self, index: usize) -> Self {
        self.path.push(Step::Index(index));
        self
    }

    pub(crate) fn in_key(mut self) -> Self {
        self.path.push(Step::Key);
        self
    }

    pub(crate) fn in_entry(mut self) -> Self {
        self.path.push(Step::Entry);
        self
    }

    /// What kind of refusal this is.
    pub fn reason(&self) -> Reason {
        match self.problem {
            Problem::Truncated => Reason::Truncated,
            Problem::Reserved(_) | Problem::Trailing(_) | Problem::Json { .. } => Reason::Malformed,
            Problem::Mistyped { .. } | Problem::NotUtf8 | Problem::WrongLength { .. } => {
                Reason::Mistyped
            }
            Problem::Missing(_) => Reason::MissingField,
            Problem::UnknownTag(_) | Problem::UnknownWord { .. } => Reason::UnknownTag,
            Problem::TooDeep => Reason::TooDeep,
        }
    }
}

impl From<Problem> for DecodeError {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            path: Vec::new(),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at `$", self.problem)?;
        for step in self.path.iter().rev() {
            match step {
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key => f.write_str(" (a key)")?,
                Step::Entry => f.write_str("[...]")?,
            }
        }
        f.write_str("`")
    }
}

impl std::error::Error for DecodeError {}

/// The first part of a word from the network: enough to recognize it, too little to flood a log.
fn excerpt(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
