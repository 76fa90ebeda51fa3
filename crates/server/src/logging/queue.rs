//! Lines of the log on their way to standard error: a bounded buffer and the thread that writes.
//!
//! Whoever logs never waits for whoever reads. A line that finds no room is dropped and counted;
//! once there is room again, a line says how many are missing. One lock, held for a copy at most,
//! never while writing.
//!
//! Not `tracing-appender`: when its queue is full at the end, it prints to standard output, which
//! panics where that is closed.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Most bytes that wait to be written; as many again may be on their way out.
const MAX_BYTES: usize = 1 << 20;

/// Time that [`Flush`] waits for a slow reader.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    dropped: u64,
    /// Of these, those the log does not tell of yet.
    untold: u64,
}

/// Waits, when dropped, until everything is written, for a second at most.
#[derive(Debug)]
#[must_use = "what still waits at the end is lost without it"]
pub struct Flush(Lines);

impl Lines {
    /// Starts the thread that writes to `out`; without a thread every line is dropped.
    pub(super) fn start(out: impl Write + Send + 'static) -> (Self, Flush) {
        let lines = Self::default();
        let queue = lines.clone();
        let thread = std::thread::Builder::new().name("kvatlas-log".into());
        if let Err(error) = thread.spawn(move || queue.write_to(out)) {
            eprintln!("kvatlas: no log, its thread cannot start: {error}");
        }
        (lines.clone(), Flush(lines))
    }

    /// Lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.state.lock().dropped
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.waiting.len() + line.len() > MAX_BYTES {
            state.dropped += 1;
            state.untold += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        self.0.filled.notify_one();
    }

    fn write_to(&self, mut out: impl Write) {
        let mut bytes = Vec::new();
        loop {
            let mut state = self.0.state.lock();
            state.writing = false;
            self.0.written.notify_all();
            while state.waiting.is_empty() {
                self.0.filled.wait(&mut state);
            }
            bytes.clear();
            std::mem::swap(&mut bytes, &mut state.waiting);
            state.writing = true;
            drop(state);
            // A log that cannot be written has nobody to tell.
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
            let untold = std::mem::take(&mut self.0.state.lock().untold);
            if untold > 0 {
                tracing::warn!(
                    lines = untold,
                    "nobody read the log in time: lines were dropped"
                );
            }
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let queue = &self.0.0;
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let mut state = queue.state.lock();
        queue.written.wait_while_for(&mut state, busy, PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Stands still until told to write.
    struct Gate {
        open: mpsc::Receiver<()>,
        out: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Stays open once the other end is gone.
            let _ = self.open.recv();
            self.out.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_the_rest_is_written_whole() {
        let (key, open) = mpsc::channel();
        let out = Arc::default();
        let (lines, flush) = Lines::start(Gate {
            open,
            out: Arc::clone(&out),
        });
        let line = [b'x'; 1000];
        for _ in 0..10_000 {
            lines.push(&line);
        }
        let dropped = lines.dropped();
        // One buffer waits, another may be on its way out.
        assert!(dropped >= 10_000 - 2 * 1049, "{dropped}");
        drop(key);
        drop(flush);
        let kept = 10_000 - usize::try_from(dropped).unwrap();
        assert_eq!(out.lock().len(), kept * line.len());
    }
}
