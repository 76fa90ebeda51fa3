//! Typed ids and units, made at the door and used everywhere behind it.
//!
//! One newtype per thing that could be mistaken for another. Strings are shared
//! (`Arc<str>`) because the same few thousand names stand in millions of places.

use std::fmt;
use std::sync::Arc;

/// Name of one serving engine replica, as its operator configured it (`lmcache_instance_id`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

/// Storage backend name as the worker spells it, such as `LocalCPUBackend`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(Arc<str>);

/// Identifier a worker gives to one full-sync session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncId(Arc<str>);

macro_rules! name {
    ($($t:ident),*) => {$(
        impl $t {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $t {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl From<String> for $t {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl std::borrow::Borrow<str> for $t {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}
name!(InstanceId, Location, SyncId);

/// Rank of a worker inside its instance. Upstream's type is a Python int; negative ranks decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub i64);

/// One worker of the fleet: instance and rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerKey {
    /// Instance the worker belongs to.
    pub instance: InstanceId,
    /// Its rank in that instance.
    pub worker: WorkerId,
}

/// Prefix-chained hash of one chunk, as 64 bits.
///
/// On the wire it is a Python int: i64 with the `builtin` algorithm (may be negative), u64 with the
/// others. Both map to the same 64 bits (two's complement), and this type holds those bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash(pub u64);

/// Position of one operation in a worker's stream for one location; rises by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNum(pub i64);

/// Number of one batch inside a full-sync session, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub i64);

/// A number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenCount(pub u64);

/// Microseconds since the Unix epoch, from a clock that never runs backwards.
///
/// The process derives it once from the wall clock and then from the monotonic clock; rooms that
/// decide only ever receive it as an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl WorkerKey {
    /// Worker `worker` of `instance`.
    pub fn new(instance: impl Into<InstanceId>, worker: i64) -> Self {
        Self {
            instance: instance.into(),
            worker: WorkerId(worker),
        }
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for WorkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.instance, self.worker)
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Timestamp {
    /// Seconds since the Unix epoch, as upstream reports times.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Time that has passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<std::time::Duration> for Timestamp {
    type Output = Self;

    fn add(self, time: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}
