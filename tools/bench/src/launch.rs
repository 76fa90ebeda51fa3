//! Starts a controller for one trial and waits for its first answer.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::args::{Attach, Launch};
use crate::error::BenchError;
use crate::http::{self, Http};
use crate::process::Process;

/// Longest start.
const DEADLINE: Duration = Duration::from_secs(90);
/// Pause between two attempts to get an answer.
const PAUSE: Duration = Duration::from_millis(1);

/// A controller that answers.
pub(crate) struct Started {
    /// Its process.
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) ports: Attach,
    /// From the start of the process to its first answer over HTTP.
    pub(crate) first_answer: Duration,
}

/// Starts `launch` on free ports and asks for `path` until that is there.
pub(crate) fn start(launch: &Launch, path: &str) -> Result<Started, BenchError> {
    let [http, pull, reply, heartbeat] = free_ports()?;
    let monitor =
        serde_json::json!({ "pull": pull, "reply": reply, "heartbeat": heartbeat }).to_string();
    let shown = launch.command.join(" ");
    let unstarted = |source| BenchError::Start {
        command: shown.clone(),
        source,
    };
    let mut log = tempfile().map_err(unstarted)?;
    let child = Command::new(&launch.command[0])
        .args(&launch.command[1..])
        .args(["--host", "127.0.0.1", "--port", &http.to_string()])
        .args(["--monitor-ports", &monitor])
        // Each run begins with nothing; a command that names a state directory says --no-state=false.
        .env("LMCACHE_CONTROLLER_NO_STATE", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone().map_err(unstarted)?)
        .spawn();
    let began = Instant::now();
    let mut process = Process(child.map_err(unstarted)?);
    let request = http::get(path);
    loop {
        let answer = Http::connect(http).and_then(|mut http| http.ask(&request).map(drop));
        if answer.is_ok() {
            break;
        }
        if !process.runs() || began.elapsed() > DEADLINE {
            return Err(BenchError::Failed {
                command: shown,
                output: tail(&mut log),
            });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Started {
        first_answer: began.elapsed(),
        process,
        ports: Attach { http, pull, reply },
    })
}

/// Ports that were free a moment ago, below those that the system gives out: whoever asks it for any
/// port meanwhile gets none of these.
fn free_ports() -> Result<[u16; 4], BenchError> {
    let first = 10_000 + (std::process::id() % 5_000) as u16 * 4;
    let mut listeners = Vec::new();
    let mut ports = [0; 4];
    let mut candidates = first..32_000;
    let none = || io::Error::from(ErrorKind::AddrInUse);
    for port in &mut ports {
        let listener = loop {
            let candidate = candidates.next().ok_or_else(none)?;
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", candidate)) {
                *port = candidate;
                break listener;
            }
        };
        listeners.push(listener);
    }
    Ok(ports)
}

/// A file without a name.
fn tempfile() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("kvatlas-bench-{}.log", std::process::id()));
    let mut options = File::options();
    let file = options.read(true).append(true).create(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn tail(log: &mut File) -> String {
    const LENGTH: u64 = 2000;
    let mut text = Vec::new();
    let end = log.seek(SeekFrom::End(0)).unwrap_or(0);
    let _ = log.seek(SeekFrom::Start(end.saturating_sub(LENGTH)));
    let _ = log.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
