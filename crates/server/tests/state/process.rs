//! The `kvatlas` process on free ports, and its HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is there.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// A directory that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kvatlas-state-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Files whose name ends so, by name.
    pub(crate) fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(suffix))
            .collect();
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running controller; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) http: String,
    pub(crate) pull: String,
    pub(crate) reply: String,
    pub(crate) heartbeat: String,
    log: PathBuf,
}

impl Process {
    /// Starts it on `state` with more arguments, and waits until it is ready.
    pub(crate) fn start(state: &Path, more: &[&str]) -> Self {
        let mut command = command(state);
        command.args(more);
        Self::spawn(command)
    }

    /// Runs a command that is or becomes the process, and waits until it is ready.
    pub(crate) fn spawn(mut command: Command) -> Self {
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("kvatlas-{}-{n}.log", std::process::id()));
        command
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines
            .map_while(Result::ok)
            .find(|line| line.starts_with("listening "))
            .unwrap_or_else(|| panic!("no addresses: {}", read(&log)));
        let address = |name: &str| {
            let field = line.split(' ').find_map(|field| field.strip_prefix(name));
            field.unwrap().to_owned()
        };
        let process = Self {
            child,
            http: address("http="),
            pull: address("pull="),
            reply: address("reply="),
            heartbeat: address("heartbeat="),
            log,
        };
        eventually("readiness", || {
            (process.request("GET", "/readyz", "")?.0 == 200).then_some(())
        });
        process
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must end well. Returns its log.
    pub(crate) fn terminate(mut self) -> String {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status();
        assert!(status.unwrap().success());
        let status = eventually("the end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }

    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits until the log has `text`: lines are written a moment after what they tell of.
    pub(crate) fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || {
            self.log().contains(text).then_some(())
        });
    }

    /// Status and body; `None` if nobody listens.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.http).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: k\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, "").unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Instances that hold a key.
    pub(crate) fn holders(&self, key: u64) -> Vec<String> {
        let body = format!("{{\"hashes\": [{key}]}}");
        let (status, body) = self.request("POST", "/lookup", &body).unwrap();
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let mut found: Vec<_> = answer["layout_info"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        found.sort();
        found
    }

    /// Waits until everything that happened is on disk.
    pub(crate) fn wait_until_saved(&self) {
        eventually("everything is on disk", || {
            let persistence = &self.get("/sync")["persistence"];
            let is_saved = persistence["state"] == "working" && persistence["records_unsaved"] == 0;
            is_saved.then_some(())
        });
    }

    /// Waits until state is kept or not.
    pub(crate) fn wait_until(&self, state: &str) -> Value {
        eventually(state, || {
            let persistence = self.get("/sync")["persistence"].take();
            (persistence["state"] == state).then_some(persistence)
        })
    }

    pub(crate) fn metrics(&self) -> String {
        self.request("GET", "/metrics", "").unwrap().1
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of a controller ---\n{}", self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The command, without the developer's own configuration.
pub(crate) fn command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvatlas"));
    for (name, _) in std::env::vars() {
        if name.starts_with("LMCACHE_CONTROLLER_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--host=127.0.0.1", "--port=0", "--monitor-ports"])
        .arg(r#"{"pull": 0, "reply": 0, "heartbeat": 0}"#)
        .arg("--state-dir")
        .arg(state);
    command
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}
