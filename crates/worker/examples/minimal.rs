//! The least an engine must do to be a worker: hold chunks, report them, obey.
//!
//! `cargo run -p kvatlas-worker --example minimal` with a controller on this machine, then
//! `kvatlas workers`, `kvatlas clear minimal`. It ends after a minute.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kvatlas_protocol::{ChunkHash, HashScheme, Location, TokenCount, WorkerKey};
use kvatlas_worker::{Agent, AgentConfig, Compression, Engine, EngineError, Movement, Reporter};
use parking_lot::Mutex;

/// A cache in one location. What changes is reported under the lock that listings take.
struct Cache {
    location: Location,
    chunks: Mutex<BTreeSet<ChunkHash>>,
    reporter: Reporter,
}

impl Cache {
    fn store(&self, chain: impl Iterator<Item = ChunkHash>) {
        let mut chunks = self.chunks.lock();
        for hash in chain {
            if chunks.insert(hash) {
                self.reporter.admit(&self.location, hash);
            }
        }
    }
}

impl Engine for Cache {
    fn locations(&self) -> Vec<Location> {
        vec![self.location.clone()]
    }

    fn keys(&self, _: &Location) -> Vec<ChunkHash> {
        self.chunks.lock().iter().copied().collect()
    }

    fn freeze(&self, _: bool) {
        // Nothing changes on its own here.
    }

    fn clear(&self, _: &Location) -> Result<TokenCount, EngineError> {
        let mut chunks = self.chunks.lock();
        let dropped = std::mem::take(&mut *chunks);
        for &hash in &dropped {
            self.reporter.evict(&self.location, hash);
        }
        Ok(TokenCount(dropped.len() as u64 * 256))
    }

    fn pin(&self, _: &Location, _: &[i64]) -> Result<TokenCount, EngineError> {
        Ok(TokenCount(0))
    }

    fn compress(&self, what: &Compression) -> Result<TokenCount, EngineError> {
        Err(EngineError::UnknownMethod {
            method: what.method.clone(),
        })
    }

    fn decompress(&self, what: &Compression) -> Result<TokenCount, EngineError> {
        self.compress(what)
    }

    fn relocate(&self, _: &Movement) -> Result<TokenCount, EngineError> {
        Err(EngineError::Other("this engine has no peers".into()))
    }

    fn health(&self) -> Result<i64, EngineError> {
        Ok(0)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let worker = WorkerKey::new("minimal", 0);
    let config = AgentConfig::new(worker, "127.0.0.1:8300", "127.0.0.1:8400");
    let mut cache = None;
    let agent = Agent::start(config, |reporter| {
        let made = Arc::new(Cache {
            location: "LocalCPUBackend".into(),
            chunks: Mutex::default(),
            reporter,
        });
        cache = Some(made.clone());
        made
    })?;
    if let Some(cache) = cache {
        let tokens: Vec<u32> = (0..1024).collect();
        cache.store(HashScheme::default().chain(&tokens));
    }
    for _ in 0..60 {
        println!("{:?}", agent.status());
        std::thread::sleep(Duration::from_secs(1));
    }
    agent.close(Duration::from_secs(3));
    Ok(())
}
