//! The binary: what it prints, refuses, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use kvatlas_protocol::message::{Message, RegisterMsg};

use crate::support::{ask, eventually, request};

fn kvatlas(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvatlas"));
    command.args(args);
    for (name, _) in std::env::vars() {
        if name.starts_with("LMCACHE_CONTROLLER_") {
            command.env_remove(name);
        }
    }
    command.env("LMCACHE_CONTROLLER_NO_STATE", "true");
    command
}

const FREE_PORTS: [&str; 4] = [
    "--host=127.0.0.1",
    "--port=0",
    "--monitor-ports",
    r#"{"pull": 0, "reply": 0, "heartbeat": 0}"#,
];

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    /// Starts it and reads what it prints up to the line of addresses.
    fn start(command: &mut Command) -> (Self, Vec<String>) {
        Self::start_logging_to(command, Stdio::null())
    }

    /// The same, with standard error somewhere else.
    fn start_logging_to(command: &mut Command, log: Stdio) -> (Self, Vec<String>) {
        let child = command.stdout(Stdio::piped()).stderr(log).spawn();
        let mut running = Self(child.unwrap());
        let mut lines = Vec::new();
        for line in BufReader::new(running.0.stdout.take().unwrap()).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap().starts_with("listening ") {
                return (running, lines);
            }
        }
        panic!("no addresses in {lines:?}");
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.unwrap().success());
    }

    fn ends(&mut self) -> ExitStatus {
        eventually("the process ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn refused(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert_eq!(status.code(), Some(2));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn it_prints_addresses_and_configuration_serves_and_stops() {
    for signal in ["-TERM", "-INT"] {
        let mut command = kvatlas(&FREE_PORTS);
        command.env("LMCACHE_CONTROLLER_LMCACHE_WORKER_TIMEOUT", "77");
        command.arg(r#"extra_config={"password": "hunter2"}"#);
        let (mut running, lines) = Running::start(&mut command);
        let text = lines.join("\n");
        assert!(
            text.contains("lmcache_worker_timeout: 77  (environment)"),
            "{text}"
        );
        assert!(
            text.contains("controller_host: 127.0.0.1  (command line)"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
        let addresses = lines.last().unwrap();
        for name in ["http=", "pull=", "reply=", "heartbeat="] {
            assert!(
                addresses.contains(&format!(" {name}127.0.0.1:")),
                "{addresses}"
            );
        }
        let http = address(&lines, "http");
        eventually("readiness", || {
            (request(http, "GET", "/readyz", "", b"").status == 200).then_some(())
        });
        running.signal(signal);
        assert_eq!(running.ends().code(), Some(0));
    }
}

/// The address of `name` in the line of addresses.
fn address(lines: &[String], name: &str) -> SocketAddr {
    let words = lines.last().unwrap().split(' ');
    let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values.next().unwrap().parse().unwrap()
}

#[test]
fn a_log_that_nobody_reads_stalls_nothing() {
    // The pipe stays open and is never read from.
    let (mut running, lines) = Running::start_logging_to(
        kvatlas(&FREE_PORTS).arg("max_workers=20000"),
        Stdio::piped(),
    );
    let http = address(&lines, "http");
    let worker = zmq::Context::new().socket(zmq::DEALER).unwrap();
    worker.set_linger(0).unwrap();
    worker.set_rcvtimeo(20_000).unwrap();
    worker
        .connect(&format!("tcp://{}", address(&lines, "reply")))
        .unwrap();
    // A line for each: more than the pipe and the queue have room for.
    for worker_id in 0..10_000 {
        let registration = Message::RegisterMsg(RegisterMsg {
            instance_id: "chatty".into(),
            worker_id,
            ip: "10.0.0.1".into(),
            port: 5000,
            peer_init_url: None,
        });
        ask(&worker, &registration.encode_msgpack());
    }
    let page = request(http, "GET", "/metrics", "", b"").body;
    let dropped = page
        .lines()
        .find_map(|line| line.strip_prefix("kvatlas_log_lines_dropped_total "));
    assert!(dropped.unwrap().parse::<f64>().unwrap() > 0.0, "{page}");
    running.signal("-TERM");
    assert_eq!(running.ends().code(), Some(0));
}

#[test]
fn serve_is_what_no_subcommand_does() {
    let args: Vec<&str> = std::iter::once("serve").chain(FREE_PORTS).collect();
    let (mut running, _) = Running::start(&mut kvatlas(&args));
    running.signal("-TERM");
    assert_eq!(running.ends().code(), Some(0));
}

#[test]
fn wrong_values_are_refused_by_name() {
    let text = refused(&mut kvatlas(&["--port", "high"]));
    assert_eq!(
        text,
        "kvatlas: controller_port (command line, controller_port): got \"high\", expected a port number from 0 to 65535\n"
    );
    let mut command = kvatlas(&[]);
    command.env("LMCACHE_CONTROLLER_HEALTH_CHECK_INTERVAL", "0");
    let text = refused(&mut command);
    assert!(
        text.contains("LMCACHE_CONTROLLER_HEALTH_CHECK_INTERVAL") && text.contains("or -1 for off"),
        "{text}"
    );
    let text = refused(&mut kvatlas(&["hash_algorithms=builtim"]));
    for name in ["hash_algorithms", "builtim", "builtin", "sha256_cbor"] {
        assert!(text.contains(name), "{text}");
    }
    let text = refused(&mut kvatlas(&["--config", "/nonexistent.yaml"]));
    assert!(text.contains("/nonexistent.yaml"), "{text}");
}

#[cfg(not(feature = "otlp"))]
#[test]
fn traces_that_this_build_cannot_send_are_refused() {
    let text = refused(&mut kvatlas(&["--otlp-endpoint", "http://127.0.0.1:4318"]));
    assert!(text.contains("--features otlp"), "{text}");
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = format!("{{\"pull\": {port}, \"reply\": 0}}");
    let args = ["--host=127.0.0.1", "--port=0", "--monitor-ports", &ports];
    let output = kvatlas(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let wanted = format!("cannot bind the pull socket to 127.0.0.1:{port}");
    assert!(text.contains(&wanted), "{text}");
}

/// What a process that is started, asked something and stopped writes to its log.
fn log_of(host: &str, settings: &[&str], ask: impl FnOnce(SocketAddr)) -> String {
    let mut command = kvatlas(&[&format!("--host={host}")]);
    command.args(&FREE_PORTS[1..]).args(settings);
    let (mut running, lines) = Running::start_logging_to(&mut command, Stdio::piped());
    let mut http = address(&lines, "http");
    http.set_ip([127, 0, 0, 1].into());
    eventually("readiness", || {
        (request(http, "GET", "/readyz", "", b"").status == 200).then_some(())
    });
    ask(http);
    running.signal("-TERM");
    assert_eq!(running.ends().code(), Some(0));
    let mut log = String::new();
    let mut stderr = running.0.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    log
}

#[test]
fn what_is_open_to_everybody_is_warned_about() {
    let open = "every interface is open and nothing asks for a password";
    let clear = "tokens travel in clear text";
    let locked_out = "commands are refused to everybody";
    for (host, settings, warnings) in [
        ("0.0.0.0", &[][..], &[open][..]),
        ("127.0.0.1", &[], &[]),
        ("0.0.0.0", &["admin_token=x"], &[clear]),
        ("0.0.0.0", &["read_token=x"], &[clear, locked_out]),
        ("127.0.0.1", &["admin_token=x"], &[]),
    ] {
        let log = log_of(host, settings, |_| {});
        for warning in [open, clear, locked_out] {
            let expected = warnings.contains(&warning);
            assert_eq!(
                log.contains(warning),
                expected,
                "{host} {settings:?}: {log}"
            );
        }
    }
}

#[test]
fn tokens_come_from_files_and_the_environment_and_are_never_shown() {
    let path = std::env::temp_dir().join(format!("kvatlas-token-{}", std::process::id()));
    std::fs::write(&path, "from-the-file\n").unwrap();
    let mut command = kvatlas(&FREE_PORTS);
    command.env("LMCACHE_CONTROLLER_READ_TOKEN", "from-the-environment");
    command.arg("--admin-token-file").arg(&path);
    let (_running, lines) = Running::start(&mut command);
    let shown = lines.join("\n");
    assert!(!shown.contains("from-the"), "{shown}");
    let url = format!("http://{}", address(&lines, "http"));
    let code = |args: &[&str], token: &str| {
        let mut client = kvatlas(args);
        client.args(["--url", &url, "--token", token]);
        client.output().unwrap().status.code()
    };
    eventually("readiness", || {
        (code(&["stats"], "from-the-environment") == Some(0)).then_some(())
    });
    assert_eq!(code(&["stats"], "from-the-file"), Some(0));
    assert_eq!(code(&["stats"], "from-the-fil"), Some(5));
    // A command is for admins: refused, and then let through to find nobody.
    assert_eq!(code(&["clear", "a"], "from-the-environment"), Some(5));
    assert_eq!(code(&["clear", "a"], "from-the-file"), Some(4));
    let both = ["--admin-token=x", "--admin-token-file", "/nonexistent"];
    let twice = kvatlas(&[&FREE_PORTS[..], &both].concat())
        .output()
        .unwrap();
    let said = String::from_utf8(twice.stderr).unwrap();
    assert!(!twice.status.success(), "{said}");
    assert!(
        said.contains("admin_token and admin_token_file are both set"),
        "{said}"
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_hangup_reads_tokens_again_and_ends_no_server() {
    let path = std::env::temp_dir().join(format!("kvatlas-renewed-{}", std::process::id()));
    std::fs::write(&path, "first").unwrap();
    let mut command = kvatlas(&FREE_PORTS);
    command.arg("--admin-token-file").arg(&path);
    let (mut running, lines) = Running::start(&mut command);
    let url = format!("http://{}", address(&lines, "http"));
    let code = |token: &str| {
        let mut client = kvatlas(&["clear", "nobody", "--url", &url, "--token", token]);
        client.output().unwrap().status.code()
    };
    eventually("readiness", || (code("first") == Some(4)).then_some(()));
    std::fs::write(&path, "second").unwrap();
    running.signal("-HUP");
    eventually("the new one counts", || {
        (code("second") == Some(4)).then_some(())
    });
    assert_eq!(code("first"), Some(5));
    // What is no token takes none away.
    std::fs::write(&path, " ").unwrap();
    running.signal("-HUP");
    std::fs::remove_file(&path).unwrap();
    running.signal("-HUP");
    assert_eq!(code("second"), Some(4));
    running.signal("-TERM");
    assert!(running.ends().success());

    // Nothing to read again is no reason to end.
    let (mut running, lines) = Running::start(&mut kvatlas(&FREE_PORTS));
    running.signal("-HUP");
    let http = address(&lines, "http");
    eventually("it still answers", || {
        (request(http, "GET", "/readyz", "text/plain", b"").status == 200).then_some(())
    });
    running.signal("-TERM");
    assert!(running.ends().success());
}

#[test]
fn a_terminal_that_goes_away_ends_what_was_started_in_it() {
    let exec = format!("exec {}", env!("CARGO_BIN_EXE_kvatlas"));
    let line = FREE_PORTS
        .iter()
        .fold(exec, |line, argument| format!("{line} '{argument}'"));
    let mut command = Command::new("script");
    command
        .args(["-qfec", &line, "/dev/null"])
        .stdin(Stdio::null());
    command.env("LMCACHE_CONTROLLER_NO_STATE", "true");
    let (mut terminal, lines) = Running::start(&mut command);
    let http = address(&lines, "http");
    eventually("it answers", || {
        (request(http, "GET", "/readyz", "text/plain", b"").status == 200).then_some(())
    });
    terminal.0.kill().unwrap();
    terminal.0.wait().unwrap();
    eventually("it ends", || {
        std::net::TcpStream::connect(http).is_err().then_some(())
    });
}
