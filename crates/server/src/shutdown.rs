//! When the process is asked to stop: SIGTERM or SIGINT, and a second one that does not wait.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, caught from the moment this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals; needs a runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes at the first signal. From then on, the next one ends the process at once.
    pub async fn stop(mut self) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping; a second signal stops at once");
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!(signal = name, "second signal, stopping at once");
            std::process::exit(FORCED);
        });
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Exit code of a process that was stopped by force: 128 and SIGINT's number, as shells report it.
const FORCED: i32 = 130;
