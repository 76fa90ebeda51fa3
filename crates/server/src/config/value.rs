//! How the value of a knob is read from text and shown again.
//!
//! One reader serves every layer: scalars of the file, environment variables and flags all arrive
//! here as text. A [`Refusal`] says only what was expected; the layers add key and source.

use std::num::NonZeroUsize;
use std::time::Duration;

/// A value that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What would have been.
    pub expected: String,
}

/// A type that knobs may have.
pub trait KnobValue: Sized {
    /// Reads the value from text.
    fn read(text: &str) -> Result<Self, Refusal>;
    /// Shows it; nothing secret.
    fn show(&self) -> String;
}

/// `null` and the empty text unset an optional knob.
impl<T: KnobValue> KnobValue for Option<T> {
    fn read(text: &str) -> Result<Self, Refusal> {
        match text {
            "" | "null" | "None" | "~" => Ok(None),
            text => T::read(text).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "unset".into(), T::show)
    }
}

impl KnobValue for String {
    fn read(text: &str) -> Result<Self, Refusal> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl KnobValue for bool {
    fn read(text: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(expected("true or false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl KnobValue for u16 {
    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse()
            .map_err(|_| expected("a port number from 0 to 65535"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Seconds, fractions allowed.
impl KnobValue for Duration {
    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse()
            .ok()
            .filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds))
            .map(Duration::from_secs_f64)
            .ok_or_else(|| expected("a number of seconds, 0 or more"))
    }

    fn show(&self) -> String {
        self.as_secs_f64().to_string()
    }
}

/// Longest time a knob may name: a century, in seconds.
const MAX_SECONDS: f64 = 3.2e9;

/// A count or size of at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positive(pub usize);

impl KnobValue for Positive {
    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse()
            .ok()
            .filter(|count| *count > 0)
            .map(Self)
            .ok_or_else(|| expected("a whole number, 1 or more"))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A share, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl KnobValue for Share {
    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
            .map(Self)
            .ok_or_else(|| expected("a number from 0 to 1"))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Time between two looks for silent workers; `None` is off, written -1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckInterval(pub Option<Duration>);

impl KnobValue for CheckInterval {
    fn read(text: &str) -> Result<Self, Refusal> {
        if text == "-1" {
            return Ok(Self(None));
        }
        Duration::read(text)
            .ok()
            .filter(|interval| !interval.is_zero())
            .map(|interval| Self(Some(interval)))
            .ok_or_else(|| expected("a number of seconds above 0, or -1 for off"))
    }

    fn show(&self) -> String {
        self.0
            .map_or_else(|| "-1".into(), |interval| interval.show())
    }
}

/// Ports of the worker fronts; `None` where a front is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorPorts {
    /// Port of the pull front.
    pub pull: u16,
    /// Port of the reply front.
    pub reply: Option<u16>,
    /// Port of the heartbeat front.
    pub heartbeat: Option<u16>,
    /// Nobody asked for this heartbeat port: when it is taken, any other will do, because workers
    /// learn it when they register.
    pub heartbeat_is_default: bool,
}

impl Default for MonitorPorts {
    fn default() -> Self {
        Self {
            pull: 8300,
            reply: Some(8400),
            heartbeat: Some(8500),
            heartbeat_is_default: true,
        }
    }
}

impl KnobValue for MonitorPorts {
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || {
            expected(
                r#"JSON such as {"pull": 8300, "reply": 8400, "heartbeat": 8500}, ports from 0 to 65535"#,
            )
        };
        if matches!(text, "" | "null" | "None") {
            return Ok(Self::default());
        }
        let map: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|_| refusal())?;
        let mut ports = Self::default();
        for (name, value) in map {
            let port = match &value {
                serde_json::Value::Null => None,
                serde_json::Value::Number(number) => Some(
                    number
                        .as_u64()
                        .and_then(|port| u16::try_from(port).ok())
                        .ok_or_else(refusal)?,
                ),
                serde_json::Value::String(text) => Some(text.parse().map_err(|_| refusal())?),
                _ => return Err(refusal()),
            };
            match (name.as_str(), port) {
                ("pull", Some(port)) => ports.pull = port,
                ("reply", port) => ports.reply = port,
                ("heartbeat", port) => {
                    ports.heartbeat = port;
                    ports.heartbeat_is_default = false;
                }
                _ => return Err(refusal()),
            }
        }
        Ok(ports)
    }

    fn show(&self) -> String {
        let port = |port: Option<u16>| port.map_or_else(|| "null".into(), |port| port.to_string());
        format!(
            r#"{{"pull": {}, "reply": {}, "heartbeat": {}}}"#,
            self.pull,
            port(self.reply),
            port(self.heartbeat)
        )
    }
}

/// A JSON object that nobody reads yet. Shown without its values: they may be secret.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonMap(pub serde_json::Map<String, serde_json::Value>);

impl KnobValue for JsonMap {
    fn read(text: &str) -> Result<Self, Refusal> {
        serde_json::from_str(text)
            .map(Self)
            .map_err(|_| expected("a JSON object"))
    }

    fn show(&self) -> String {
        let keys: Vec<_> = self.0.keys().map(|key| format!("{key}: ***")).collect();
        format!("{{{}}}", keys.join(", "))
    }
}

/// Something nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl KnobValue for Secret {
    /// Takes any text: a refusal would print it.
    fn read(text: &str) -> Result<Self, Refusal> {
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        "***".into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A hash scheme as text, `algorithm/root/chunk size`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemeText(pub String);

impl KnobValue for SchemeText {
    fn read(text: &str) -> Result<Self, Refusal> {
        match text.split('/').count() {
            3 => Ok(Self(text.to_owned())),
            _ => Err(expected(
                "algorithm/root/chunk size, such as builtin/absent/256",
            )),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl KnobValue for LogFormat {
    fn read(text: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(expected("text or json")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Json => "json".into(),
        }
    }
}

/// What is asked of HTTP clients when authorities for their certificates are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No connection without a certificate.
    Required,
    /// Without one, only what is open without a token.
    ExceptOpen,
    /// A certificate is checked if there is one.
    Optional,
}

impl KnobValue for ClientAuth {
    fn read(text: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "required" => Ok(Self::Required),
            "except-open" => Ok(Self::ExceptOpen),
            "optional" => Ok(Self::Optional),
            _ => Err(expected("required, except-open or optional")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Required => "required".into(),
            Self::ExceptOpen => "except-open".into(),
            Self::Optional => "optional".into(),
        }
    }
}

/// What is logged at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(pub tracing::Level);

/// Names of log levels, Python's too, in any case.
pub const LEVELS: [(&str, tracing::Level); 9] = [
    ("trace", tracing::Level::TRACE),
    ("notset", tracing::Level::TRACE),
    ("debug", tracing::Level::DEBUG),
    ("info", tracing::Level::INFO),
    ("warn", tracing::Level::WARN),
    ("warning", tracing::Level::WARN),
    ("error", tracing::Level::ERROR),
    ("critical", tracing::Level::ERROR),
    ("fatal", tracing::Level::ERROR),
];

impl KnobValue for LogLevel {
    /// Reads Python's names too (`WARNING`, `CRITICAL`).
    fn read(text: &str) -> Result<Self, Refusal> {
        let mut levels = LEVELS.iter();
        levels
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, level)| Self(*level))
            .ok_or_else(|| expected("error, warn, info, debug or trace"))
    }

    fn show(&self) -> String {
        self.0.to_string().to_ascii_lowercase()
    }
}

/// Comma-separated text or a JSON list.
impl KnobValue for Vec<String> {
    fn read(text: &str) -> Result<Self, Refusal> {
        if text.trim_start().starts_with('[') {
            let items: Vec<serde_json::Value> = serde_json::from_str(text)
                .map_err(|_| expected("a list, as JSON or separated by commas"))?;
            return Ok(items
                .into_iter()
                .map(|item| match item {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                })
                .collect());
        }
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect())
    }

    fn show(&self) -> String {
        self.join(",")
    }
}

impl KnobValue for Vec<NonZeroUsize> {
    fn read(text: &str) -> Result<Self, Refusal> {
        Vec::<String>::read(text)?
            .iter()
            .map(|item| item.parse())
            .collect::<Result<_, _>>()
            .map_err(|_| expected("a list of whole numbers, 1 or more each"))
    }

    fn show(&self) -> String {
        let items: Vec<_> = self.iter().map(ToString::to_string).collect();
        items.join(",")
    }
}

fn expected(expected: &str) -> Refusal {
    Refusal {
        expected: expected.to_owned(),
    }
}
