//! When the process is asked to stop: SIGTERM or SIGINT, and a second one that does not wait.
//!
//! SIGHUP has two senses. From a terminal that goes away it ends the process as it always did; from
//! people and systemd it asks a server to read its files again (`reload.rs`), and must not end one that
//! has none.

use std::io::{IsTerminal, stdin};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, caught from the moment this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Of a server; whatever else runs ends by the system's default.
    hangup: Option<Hangup>,
}

struct Hangup {
    signal: Signal,
    /// Started from a terminal.
    has_terminal: bool,
}

impl Hangup {
    /// Completes when the terminal is gone.
    async fn terminal_gone(&mut self) {
        loop {
            let signal = self.signal.recv().await;
            if signal.is_none() {
                return std::future::pending().await;
            }
            if self.has_terminal && !stdin().is_terminal() {
                // Shells and the system each send one: that is no second wish to stop.
                self.has_terminal = false;
                return;
            }
        }
    }
}

impl Signals {
    /// Catches the signals; needs a runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: None,
        })
    }

    /// The same for a server, which SIGHUP does not end.
    pub fn of_server() -> std::io::Result<Self> {
        Ok(Self {
            hangup: Some(Hangup {
                signal: signal(SignalKind::hangup())?,
                has_terminal: stdin().is_terminal(),
            }),
            ..Self::new()?
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
        let gone = async {
            match &mut self.hangup {
                Some(hangup) => hangup.terminal_gone().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = gone => "SIGHUP",
        }
    }
}

/// Exit code of a process that was stopped by force: 128 and SIGINT's number, as shells report it.
const FORCED: i32 = 130;
