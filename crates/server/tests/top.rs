//! `kvatlas top` as people run it: in a terminal (made by script(1)), and as plain text.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

#[allow(dead_code, reason = "shared with the tests of the fronts")]
#[path = "fronts/support.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use kvatlas_protocol::ChunkHash;

use crate::support::{Controller, eventually};

fn kvatlas(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvatlas"));
    for (name, _) in std::env::vars() {
        if name.starts_with("KVATLAS_") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

fn once(controller: &Controller, args: &[&str]) -> Output {
    let url = format!("http://{}", controller.addresses.http);
    let first = ["top", "--once", "--url", &url];
    kvatlas(&[&first[..], args].concat()).output().unwrap()
}

/// With one worker that holds three keys.
fn small_fleet(controller: &Controller) -> support::Worker {
    let mut worker = controller.worker("engine-a", 0);
    worker.register();
    worker.admit(&[ChunkHash(1), ChunkHash(2), ChunkHash(3)]);
    controller.wait_for_keys(3);
    worker
}

#[test]
fn a_frame_is_printed_for_scripts() {
    let controller = Controller::start();
    let _worker = small_fleet(&controller);
    for (view, parts) in [
        ("overview", &["workers 1 ", "keys 3 ", "operations/s"][..]),
        ("fleet", &["engine-a:0", "alive", "CPU 3", "1 to 1 of 1"]),
        ("sync", &["engine-a:0", "CPU", "in sync", "ready 100 %"]),
    ] {
        let output = once(&controller, &["--view", view]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        for part in parts {
            assert!(text.contains(part), "{view}: no {part} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "escape codes in {text:?}");
    }
    let output = once(
        &controller,
        &["--view", "fleet", "--filter", "nobody", "--json"],
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["sample"]["keys"], 3);
    assert_eq!(json["fleet"]["matching_count"], 0);
}

#[test]
fn failures_have_their_exit_codes() {
    let controller = Controller::with(|config| {
        config.set("read_token", "reading").unwrap().unwrap();
    });
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = once(&controller, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("401"), "{}", said(&refused));
    let allowed = once(&controller, &["--token", "reading"]);
    assert!(allowed.status.success(), "{}", said(&allowed));
    let nobody = ["top", "--once", "--url", "http://127.0.0.1:1"];
    let gone = kvatlas(&nobody).output().unwrap();
    assert_eq!(gone.status.code(), Some(3));
    // Neither end is a terminal.
    let piped = kvatlas(&["top"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(piped.status.code(), Some(2));
    assert!(said(&piped).contains("--once"), "{}", said(&piped));
}

/// A terminal of 80 columns and 24 lines with the command in it.
struct Screen {
    child: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<vt100::Parser>>,
    /// What tty(1) said.
    first_line: Arc<Mutex<Option<String>>>,
}

impl Screen {
    fn open(args: &str) -> Self {
        let bin = env!("CARGO_BIN_EXE_kvatlas");
        let inner = format!("tty; stty rows 24 cols 80; exec '{bin}' {args}");
        let mut child = Command::new("script")
            .args(["-qfec", &inner, "/dev/null"])
            .envs([
                ("TERM", "xterm-256color"),
                ("LC_ALL", "C.UTF-8"),
                ("SHELL", "/bin/sh"),
            ])
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script(1) is part of every Linux system");
        let seen = Arc::new(Mutex::new(vt100::Parser::new(24, 80, 0)));
        let (output, parser) = (child.stdout.take().unwrap(), Arc::clone(&seen));
        let first_line: Arc<Mutex<Option<String>>> = Arc::default();
        let said = Arc::clone(&first_line);
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            *said.lock().unwrap() = Some(line.trim().to_owned());
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..n]);
            }
        });
        Self {
            keys: child.stdin.take().unwrap(),
            child,
            seen,
            first_line,
        }
    }

    /// Gives the terminal another size, as its window would.
    fn resize(&self, terminal: &str, rows: u16, columns: u16) {
        self.seen
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(rows, columns);
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let size = ["-F", terminal, "rows", &rows, "cols", &columns];
        assert!(Command::new("stty").args(size).status().unwrap().success());
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn text(&self) -> String {
        self.seen.lock().unwrap().screen().contents()
    }

    fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} on the screen"), || {
            std::thread::yield_now();
            self.text().contains(text).then_some(())
        });
    }

    fn is_in_alternate(&self) -> bool {
        self.seen.lock().unwrap().screen().alternate_screen()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- screen ---\n{}", self.text());
        }
    }
}

/// A free port below those that the system gives out: no other test gets it while it is free.
fn free_port() -> u16 {
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let mut ports = first..32_000;
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap()
}

fn controller_at(port: u16) -> Controller {
    Controller::with(|config| {
        config
            .set("controller_port", &port.to_string())
            .unwrap()
            .unwrap();
    })
}

#[test]
fn a_terminal_that_changes_its_size_is_filled_anew() {
    let controller = Controller::start();
    let _worker = small_fleet(&controller);
    let url = format!("top --url http://{}", controller.addresses.http);
    let screen = Screen::open(&url);
    let terminal = eventually("the name of the terminal", || {
        let output = screen.first_line.lock().unwrap().clone();
        output.filter(|name| name.starts_with("/dev/pts/"))
    });
    screen.wait_for("workers 1 ");
    let beside = "instances by keys";
    assert!(!screen.text().contains(beside), "there is no room for it");
    screen.resize(&terminal, 40, 130);
    screen.wait_for(beside);
    // The menu at the foot goes with the last line.
    eventually("the last line", || {
        screen
            .text()
            .lines()
            .nth(39)?
            .contains("q quit")
            .then_some(())
    });
    screen.resize(&terminal, 12, 50);
    eventually("what is small again", || {
        let text = screen.text();
        let is_small = !text.contains(beside) && text.lines().nth(11)?.contains("quit");
        is_small.then_some(())
    });
}

#[test]
fn keys_work_in_a_terminal_and_a_lost_controller_is_found_again() {
    let port = free_port();
    let controller = controller_at(port);
    let worker = small_fleet(&controller);
    let mut screen = Screen::open(&format!("top --url http://127.0.0.1:{port}"));
    screen.wait_for("workers 1 ");
    assert!(screen.is_in_alternate());
    screen.press("\t");
    screen.wait_for("engine-a:0");
    screen.press("/nobody\r");
    screen.wait_for("with \"nobody\"");
    screen.wait_for("0 to 0 of 0 (1 in all)");
    screen.press("3");
    screen.wait_for("ready 100 %");

    drop(worker);
    controller.stop();
    screen.wait_for("NO CONTROLLER");
    let controller = controller_at(port);
    screen.wait_for("nothing to sync");
    screen.press("1");
    screen.wait_for("no worker is registered yet");

    screen.press("q");
    let status = eventually("the end", || screen.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    eventually("the terminal is given back", || {
        (!screen.is_in_alternate()).then_some(())
    });
    controller.stop();
}
