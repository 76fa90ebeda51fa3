//! What a controller may ask of an engine, and how its answer is put.
//!
//! One request, one answer, always: an engine that fails, panics or does not know the message
//! answers `ErrorMsg`, for a REP socket without an answer is a worker that is lost. The agent calls
//! [`answer`] on a thread of its own, so an engine may take its time; heartbeats go on.
//! Upstream: `LMCacheWorker.handle_request`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kvatlas_protocol::message::{
    ClearWorkerMsg, ClearWorkerRetMsg, CompressWorkerMsg, CompressWorkerRetMsg,
    DecompressWorkerMsg, DecompressWorkerRetMsg, ErrorMsg, HealthWorkerMsg, HealthWorkerRetMsg,
    Message, MoveWorkerMsg, MoveWorkerRetMsg, PinWorkerMsg, PinWorkerRetMsg,
};
use kvatlas_protocol::{ChunkHash, Location, TokenCount};

use crate::error::EngineError;

/// A serving engine's cache, as its agent sees it. Called from several threads at once.
pub trait Engine: Send + Sync + 'static {
    /// The storages this engine has, in the order in which a full sync lists them.
    fn locations(&self) -> Vec<Location>;

    /// The keys held in `location`.
    ///
    /// **The listing must fit the stream**: an operation reported before this call is in it, one
    /// reported after it is not. An engine that reports and lists under one lock has that for free.
    fn keys(&self, location: &Location) -> Vec<ChunkHash>;

    /// Stop (true) or resume changing the cache, while a full sync runs. It is called on the
    /// agent's event loop and must return quickly; changes that are under way may finish first.
    fn freeze(&self, frozen: bool);

    /// Drop everything in `location` that may be dropped; how many tokens.
    fn clear(&self, location: &Location) -> Result<TokenCount, EngineError>;

    /// Keep the prefix of `tokens` that is held in `location`; its length.
    fn pin(&self, location: &Location, tokens: &[i64]) -> Result<TokenCount, EngineError>;

    /// Compress; how many tokens.
    fn compress(&self, what: &Compression) -> Result<TokenCount, EngineError>;

    /// Undo [`compress`](Self::compress); how many tokens.
    fn decompress(&self, what: &Compression) -> Result<TokenCount, EngineError>;

    /// Copy or move chunks to a peer; how many tokens.
    fn relocate(&self, what: &Movement) -> Result<TokenCount, EngineError>;

    /// 0 if healthy, else a code of the engine's own.
    fn health(&self) -> Result<i64, EngineError>;
}

/// What to compress or decompress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// Method, such as `cachegen`.
    pub method: String,
    /// Storage.
    pub location: Location,
    /// Prompt; `None` means everything in the location.
    pub tokens: Option<Vec<i64>>,
}

/// What to move where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Storage to take from.
    pub from: Location,
    /// Peer URL of the worker to give to, `host:port`.
    pub to_url: String,
    /// Storage to put into.
    pub to: Location,
    /// Prompt; `None` means everything in the location.
    pub tokens: Option<Vec<i64>>,
    /// Whether the source keeps its copy.
    pub copy: bool,
}

/// Carries out the command in `payload`; the answer's bytes.
pub fn answer(engine: &dyn Engine, payload: &[u8]) -> Vec<u8> {
    let message = match Message::decode(payload) {
        // Unwind safety: the engine's own locks decide what a panic leaves behind.
        Ok(message) => catch_unwind(AssertUnwindSafe(|| carry_out(engine, message)))
            .unwrap_or_else(|_| error("the engine panicked; see the worker's log".to_owned())),
        Err(refusal) => error(format!("undecodable command: {refusal}")),
    };
    message.encode_msgpack()
}

fn carry_out(engine: &dyn Engine, message: Message) -> Message {
    let outcome = match message {
        Message::ClearWorkerMsg(ClearWorkerMsg {
            worker_event_id: _,
            location,
        }) => engine.clear(&location.into()).map(|n| {
            ClearWorkerRetMsg {
                num_tokens: count(n),
            }
            .into()
        }),
        Message::PinWorkerMsg(PinWorkerMsg {
            worker_event_id: _,
            location,
            tokens,
        }) => engine.pin(&location.into(), &tokens).map(|n| {
            PinWorkerRetMsg {
                num_tokens: count(n),
            }
            .into()
        }),
        Message::CompressWorkerMsg(CompressWorkerMsg {
            worker_event_id: _,
            method,
            location,
            tokens,
        }) => engine
            .compress(&Compression {
                method,
                location: location.into(),
                tokens,
            })
            .map(|n| {
                CompressWorkerRetMsg {
                    num_tokens: count(n),
                }
                .into()
            }),
        Message::DecompressWorkerMsg(DecompressWorkerMsg {
            worker_event_id: _,
            method,
            location,
            tokens,
        }) => engine
            .decompress(&Compression {
                method,
                location: location.into(),
                tokens,
            })
            .map(|n| {
                DecompressWorkerRetMsg {
                    num_tokens: count(n),
                }
                .into()
            }),
        Message::MoveWorkerMsg(MoveWorkerMsg {
            worker_event_id: _,
            old_position,
            new_position: (to_url, to),
            tokens,
            copy,
        }) => engine
            .relocate(&Movement {
                from: old_position.into(),
                to_url,
                to: to.into(),
                tokens,
                // Python's truth of None: the source loses its copy.
                copy: copy.unwrap_or(false),
            })
            .map(|n| {
                MoveWorkerRetMsg {
                    num_tokens: count(n),
                }
                .into()
            }),
        Message::HealthWorkerMsg(HealthWorkerMsg { worker_event_id: _ }) => engine
            .health()
            .map(|error_code| HealthWorkerRetMsg { error_code }.into()),
        other => return error(format!("{} is not a command for a worker", other.tag())),
    };
    outcome.unwrap_or_else(|refusal| error(refusal.to_string()))
}

fn error(error: String) -> Message {
    ErrorMsg { error }.into()
}

fn count(tokens: TokenCount) -> i64 {
    i64::try_from(tokens.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use kvatlas_protocol::message::CheckFinishWorkerMsg;

    use super::*;

    /// Answers with what it was asked; fails and panics on demand.
    struct Echo;

    impl Engine for Echo {
        fn locations(&self) -> Vec<Location> {
            vec!["cpu".into()]
        }
        fn keys(&self, _: &Location) -> Vec<ChunkHash> {
            Vec::new()
        }
        fn freeze(&self, _: bool) {}
        fn clear(&self, location: &Location) -> Result<TokenCount, EngineError> {
            match location.as_str() {
                "cpu" => Ok(TokenCount(7)),
                "panic" => panic!("a fault of the engine"),
                _ => Err(EngineError::UnknownLocation {
                    location: location.clone(),
                    known: "cpu".into(),
                }),
            }
        }
        fn pin(&self, _: &Location, tokens: &[i64]) -> Result<TokenCount, EngineError> {
            Ok(TokenCount(tokens.len() as u64))
        }
        fn compress(&self, what: &Compression) -> Result<TokenCount, EngineError> {
            Err(EngineError::UnknownMethod {
                method: what.method.clone(),
            })
        }
        fn decompress(&self, _: &Compression) -> Result<TokenCount, EngineError> {
            Ok(TokenCount(3))
        }
        fn relocate(&self, what: &Movement) -> Result<TokenCount, EngineError> {
            assert_eq!(what.to_url, "h:1");
            Ok(TokenCount(if what.copy { 1 } else { 2 }))
        }
        fn health(&self) -> Result<i64, EngineError> {
            Ok(-1)
        }
    }

    fn ask(message: impl Into<Message>) -> Message {
        Message::decode(&answer(&Echo, &message.into().encode_msgpack())).unwrap()
    }

    fn clear(location: &str) -> Message {
        ask(ClearWorkerMsg {
            worker_event_id: "e".into(),
            location: location.into(),
        })
    }

    fn relocate(copy: Option<bool>) -> Message {
        ask(MoveWorkerMsg {
            worker_event_id: "e".into(),
            old_position: "cpu".into(),
            new_position: ("h:1".into(), "disk".into()),
            tokens: None,
            copy,
        })
    }

    #[test]
    fn every_command_reaches_the_engine() {
        assert_eq!(clear("cpu"), ClearWorkerRetMsg { num_tokens: 7 }.into());
        let pin = PinWorkerMsg {
            worker_event_id: "e".into(),
            location: "cpu".into(),
            tokens: vec![1, 2, 3],
        };
        assert_eq!(ask(pin), PinWorkerRetMsg { num_tokens: 3 }.into());
        assert_eq!(
            relocate(Some(true)),
            MoveWorkerRetMsg { num_tokens: 1 }.into()
        );
        assert_eq!(
            relocate(Some(false)),
            MoveWorkerRetMsg { num_tokens: 2 }.into()
        );
        assert_eq!(relocate(None), MoveWorkerRetMsg { num_tokens: 2 }.into());
        let health = HealthWorkerMsg {
            worker_event_id: "e".into(),
        };
        assert_eq!(ask(health), HealthWorkerRetMsg { error_code: -1 }.into());
        let decompress = DecompressWorkerMsg {
            worker_event_id: "e".into(),
            method: "cachegen".into(),
            location: "cpu".into(),
            tokens: None,
        };
        assert_eq!(
            ask(decompress),
            DecompressWorkerRetMsg { num_tokens: 3 }.into()
        );
    }

    #[test]
    fn refusals_panics_and_nonsense_are_answered() {
        let said = |message: Message| match message {
            Message::ErrorMsg(ErrorMsg { error }) => error,
            other => panic!("expected an error, got {other:?}"),
        };
        assert_eq!(said(clear("tape")), "no location tape, this engine has cpu");
        assert!(said(clear("panic")).contains("panicked"));
        let compress = CompressWorkerMsg {
            worker_event_id: "e".into(),
            method: "zip".into(),
            location: "cpu".into(),
            tokens: None,
        };
        assert!(said(ask(compress)).contains("\"zip\""));
        let finish = CheckFinishWorkerMsg {
            worker_event_id: "e".into(),
        };
        assert!(said(ask(finish)).contains("CheckFinishWorkerMsg"));
        let garbage = Message::decode(&answer(&Echo, b"\xc1 not a message")).unwrap();
        assert!(said(garbage).starts_with("undecodable"));
    }
}
