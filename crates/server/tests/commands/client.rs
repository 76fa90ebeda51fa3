//! `kvatlas` as people and scripts call it, against a running controller.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fleet::{self, Fleet, reply};

/// Exit code, standard output, standard error.
pub(crate) type Ended = (i32, String, String);

pub(crate) async fn kvatlas(url: &str, args: &[&str], stdin: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvatlas"));
    command
        .args(args)
        .env("KVATLAS_URL", url)
        .env_remove("KVATLAS_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // A child that reads nothing may have ended.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = running.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn questions_and_commands_have_their_output_and_exit_code() {
    let mut fleet = Fleet::start().await;
    let worker = fleet.worker("a", 0, None, |request| reply(request, 512));
    let _other = fleet.worker("b", 0, Some("h:1"), |_| fleet::error("on fire"));
    let url = fleet.url();
    let run = async |args: &[&str]| kvatlas(&url, args, "").await;

    let (code, out, _) = run(&["workers"]).await;
    assert!(
        code == 0 && out.contains("INSTANCE") && out.contains("h:1"),
        "{out}"
    );
    let (code, out, _) = run(&["instances", "--json"]).await;
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &out["total_worker_count"]), (0, &json!(2)));
    assert_eq!(run(&["stats"]).await.0, 0);
    assert_eq!(run(&["diagnose"]).await.0, 0);
    assert_eq!(run(&["diagnose", "1", "2"]).await.0, 0);

    let (code, out, _) = run(&["clear", "a"]).await;
    assert_eq!((code, out.as_str()), (0, "512 tokens\n"));
    assert_eq!(run(&["pin", "a", "1", "-2", "3"]).await.0, 0);
    let (code, out, _) = kvatlas(&url, &["pin", "a", "-", "--json"], "[4, 5]").await;
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &out["num_tokens"]), (0, &json!(512)));
    assert_eq!(
        run(&["move", "a", "b", "7", "--copy", "--to-location", "X"])
            .await
            .0,
        0
    );
    assert_eq!(run(&["compress", "a"]).await.0, 0);
    assert_eq!(
        run(&["decompress", "a", "--location", "Disk", "9"]).await.0,
        0
    );
    let seen = worker.seen();
    assert!(seen[1].contains("tokens: [1, -2, 3]"), "{}", seen[1]);
    assert!(seen[2].contains("tokens: [4, 5]"), "{}", seen[2]);
    assert!(seen[3].contains("(\"h:1\", \"X\")") && seen[3].contains("copy: Some(true)"));
    assert!(seen[4].contains("method: \"cachegen\"") && seen[4].contains("tokens: None"));
    assert!(seen[5].contains("\"Disk\"") && seen[5].contains("tokens: Some([9])"));

    let (code, out, _) = run(&["clear", "a", "--no-wait"]).await;
    assert!(code == 0 && out.starts_with("Clear"), "{out}");
    let id = out.trim();
    fleet.until(id, |event| event["state"] != "running").await;
    let (code, out, _) = run(&["check", id]).await;
    assert_eq!((code, out.as_str()), (0, "finished\n"));
    let (code, out, _) = run(&["events", id]).await;
    assert!(
        code == 0 && out.contains("a:0") && out.contains("512"),
        "{out}"
    );
    let (code, out, _) = run(&["events", "--instance", "a", "--limit", "2"]).await;
    assert_eq!((code, out.lines().count()), (0, 3), "{out}");

    let (code, out, _) = run(&["health", "a"]).await;
    // This worker says 512 to everything.
    assert!(code == 1 && out.contains("unwell"), "{out}");
    let (code, out, _) = run(&["health"]).await;
    assert!(code == 1 && out.contains("worker error"), "{out}");
}

#[tokio::test]
async fn failures_are_told_apart_by_exit_code() {
    let mut fleet = Fleet::start().await;
    let _a = fleet.worker("a", 0, None, |_| fleet::error("on fire"));
    let url = fleet.url();
    let run = async |args: &[&str]| kvatlas(&url, args, "").await;
    let (code, _, error) = run(&["clear", "a"]).await;
    assert!(code == 1 && error.contains("on fire"), "{error}");
    let (code, out, _) = run(&["clear", "a", "--json"]).await;
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1);
    let id = out["event_id"].as_str().unwrap();
    assert_eq!(run(&["check", id]).await.0, 1);
    for usage in [
        &["pin", "a"][..],
        &["pin", "a", "x"],
        &["clear"],
        &["pin", "a", "-f", "/no"],
    ] {
        assert_eq!(run(usage).await.0, 2, "{usage:?}");
    }
    assert_eq!(run(&["clear", "a", "--url", "ftp://h"]).await.0, 2);
    let nobody = format!("127.0.0.1:{}", fleet::free_port());
    let (code, _, error) = run(&["stats", "--url", &nobody]).await;
    assert!(code == 3 && error.contains("cannot reach"), "{error}");
    for missing in [
        &["clear", "x"][..],
        &["health", "x"],
        &["check", "x"],
        &["events", "x"],
    ] {
        assert_eq!(run(missing).await.0, 4, "{missing:?}");
    }
    let _b = fleet.worker("b", 0, None, |request| reply(request, 1));
    let (code, _, error) = run(&["move", "a", "b", "1"]).await;
    assert!(code == 5 && error.contains("P2P"), "{error}");
}
