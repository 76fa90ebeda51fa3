//! `kvatlas demo` as people run it: what it says to try works, and while it runs lookups are right,
//! chunks come and go, and nothing is lost on the way.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Room for less than what is asked for, so that chunks are evicted all the time.
const SMALL: [&str; 8] = [
    "--instances=3",
    "--ranks=2",
    "--cpu-chunks=60",
    "--disk-chunks=120",
    "--requests-per-second=25",
    "--seed=11",
    "--port=0",
    "--log-level=warn",
];

struct Demo {
    child: Child,
    /// What it printed.
    said: String,
    url: String,
    /// File with the prompt asked for most.
    prompt: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
            .arg("demo")
            .args(SMALL)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        while !said.ends_with("Ctrl-C ends it.\n") {
            assert!(out.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        }
        // As it was called, so that the lines can be copied where it is not installed.
        let called = concat!(env!("CARGO_BIN_EXE_kvatlas"), " ");
        assert!(
            said.contains(called) && !said.contains("\nkvatlas lookup"),
            "{said}"
        );
        let said = said.replace(called, "kvatlas ");
        let after = |beginning: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(beginning));
            line.unwrap_or_else(|| panic!("no {beginning:?} in {said}"))
        };
        let url = after("export KVATLAS_URL=").to_owned();
        let prompt = after("kvatlas lookup -f ")
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        Self {
            child,
            said,
            url,
            prompt,
        }
    }

    /// Runs a line of a shell in which `kvatlas` is this binary.
    fn shell(&self, line: &str) -> Output {
        let binary = Path::new(env!("CARGO_BIN_EXE_kvatlas")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let shell = Command::new("sh")
            .args(["-c", &format!("set -e; {line}")])
            .env("PATH", path)
            .env("KVATLAS_URL", &self.url)
            .output();
        shell.unwrap()
    }

    /// The JSON that a client command prints.
    fn json(&self, line: &str) -> Value {
        let output = self.shell(&format!("{line} --json"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let authority = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn metric(&self, sample: &str) -> f64 {
        let text = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(sample));
        let value = line.unwrap_or_else(|| panic!("no {sample}"));
        value.trim().parse().unwrap()
    }

    /// Tokens by instance.
    fn lookup(&self, file: &str) -> Vec<(String, u64)> {
        let answer = self.json(&format!("kvatlas lookup -f {file}"));
        let layout = answer["layout_info"].as_object().unwrap();
        let found = layout.iter();
        found
            .map(|(name, found)| (name.clone(), found[1].as_u64().unwrap()))
            .collect()
    }

    /// Ctrl-C; it must end well.
    fn interrupt(&mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.unwrap().success());
        let status = eventually("the end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_the_demo_says_to_try_works() {
    let mut demo = Demo::start();
    eventually("everybody is there", || {
        (demo.json("kvatlas stats")["total_worker_count"] == 6).then_some(())
    });
    eventually("the prompt is held", || {
        (demo.lookup(&demo.prompt).len() == 3).then_some(())
    });
    let has_curl = Command::new("curl").arg("--version").output().is_ok();
    let lines: Vec<&str> = demo
        .said
        .lines()
        .filter(|line| {
            let extra = line.starts_with("kvatlas worker ");
            (line.starts_with("kvatlas ") && !extra && !line.starts_with("kvatlas demo:"))
                || (line.starts_with("curl ") && has_curl)
        })
        .collect();
    assert!(lines.len() >= 5, "{}", demo.said);
    for line in lines {
        let output = demo.shell(&line.replace("curl -s", "curl -sf"));
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success() && !out.is_empty(),
            "{line}: {out}{error}"
        );
    }
    let page = demo.get("/");
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<html"),
        "{page:.200}"
    );

    // One more engine, as it says.
    let line = demo
        .said
        .lines()
        .find(|line| line.starts_with("kvatlas worker "));
    let mut words = line.unwrap().split_whitespace();
    words.next();
    let mut extra = Command::new(env!("CARGO_BIN_EXE_kvatlas"))
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let joined = std::panic::catch_unwind(|| {
        eventually("the extra engine", || {
            let answer = demo.shell("kvatlas workers extra --json");
            answer.status.success().then_some(())
        });
    });
    extra.kill().unwrap();
    extra.wait().unwrap();
    joined.unwrap();

    let bodies = Path::new(&demo.prompt).parent().unwrap().to_owned();
    assert!(bodies.exists());
    demo.interrupt();
    assert!(!bodies.exists(), "it leaves nothing behind");
}

/// How long the soak lasts: `make soak` asks for ten minutes.
fn soak_time() -> Duration {
    let seconds = std::env::var("KVATLAS_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.map_or(20, |text| text.parse().unwrap()))
}

#[test]
fn soak_the_demo_answers_rightly_while_chunks_come_and_go() {
    let mut demo = Demo::start();
    let prompt: Value = serde_json::from_slice(&std::fs::read(&demo.prompt).unwrap()).unwrap();
    let whole = prompt["tokens"].as_array().unwrap().len() as u64;
    // From now on demo-1 holds all of it, whatever else it evicts; a pin holds for five minutes.
    let pin = || {
        let line = format!("kvatlas pin demo-1 -f {} --json", demo.prompt);
        let output = demo.shell(&line);
        // Ranks may disagree while the engine works; then it is asked again.
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        (answer["num_tokens"] == whole).then(Instant::now)
    };
    let mut pinned_at = eventually("all of the prompt is pinned", pin);
    let unknown = format!(
        "{}/{}-nobody.json",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    std::fs::write(
        &unknown,
        json!({ "tokens": (0..1000).collect::<Vec<_>>() }).to_string(),
    )
    .unwrap();
    let evictions = || demo.metric("kvatlas_ingest_changes_total{kind=\"evict\"}");
    let room = 3.0 * 2.0 * (60.0 + 120.0);
    eventually("the storages are full", || {
        (evictions() > room).then_some(())
    });

    let until = Instant::now() + soak_time();
    let (mut rounds, mut partly, before) = (0, 0, evictions());
    while rounds < 10 || Instant::now() < until {
        if pinned_at.elapsed() > Duration::from_secs(60) {
            pinned_at = eventually("what is pinned is held", pin);
        }
        let found = demo.lookup(&demo.prompt);
        assert_eq!(
            found.first(),
            found.iter().find(|f| f.1 == whole),
            "longest first"
        );
        assert!(
            found.contains(&("demo-1".to_owned(), whole)),
            "round {rounds}: {found:?}"
        );
        for (name, tokens) in &found {
            assert!(
                *tokens <= whole && tokens % 256 == 0,
                "{name}: {tokens} of {whole}"
            );
        }
        partly += usize::from(found.iter().filter(|f| f.1 == whole).count() < 3);
        assert_eq!(demo.lookup(&unknown), [], "round {rounds}");
        rounds += 1;
    }
    let evicted = evictions() - before;
    assert!(evicted > 0.0, "nothing was evicted in {rounds} rounds");
    let stats = demo.json("kvatlas stats");
    assert!(
        stats["total_key_count"].as_f64().unwrap() <= room,
        "{stats}"
    );
    let gaps = "lmcache:cache_controller_kv_op_seq_discontinuity_count{role=\"controller\"}";
    assert_eq!(demo.metric(gaps), 0.0);
    let sync = demo.json("kvatlas sync");
    assert_eq!(
        (&sync["sequence_gaps"], &sync["workers_syncing"]),
        (&json!(0), &json!(0))
    );
    // What one misses another may have: engines fetch from each other.
    assert!(demo.metric("kvatlas_peer_lookups_total{result=\"hit\"}") > 0.0);
    let bad = "kvatlas_bad_frames_total{front=\"pull\",reason=\"not_admitted\"}";
    assert_eq!(demo.metric(bad), 0.0);
    println!("{rounds} rounds, {evicted} evictions, {partly} times not everybody had all");
    demo.interrupt();
    let _ = std::fs::remove_file(unknown);
}
