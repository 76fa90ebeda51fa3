//! What the dashboard reads: its files, GET /live, GET /fleet, POST /lookup/chunks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Controller, LOCATION, eventually, hashes, tokens};

/// The stream of /live, event by event.
struct Live(BufReader<TcpStream>);

impl Live {
    fn open(controller: &Controller) -> Self {
        let mut stream = TcpStream::connect(controller.addresses.http).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(b"GET /live HTTP/1.1\r\nhost: kvatlas\r\n\r\n")
            .unwrap();
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        Self(reader)
    }

    /// Name and data of the next event; `None` when the stream has ended.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                name = Some(event.trim().to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name?, serde_json::from_str(data.trim()).unwrap()));
            }
        }
    }
}

#[test]
fn the_page_and_its_files_are_served_with_a_policy() {
    let controller = Controller::start();
    let page = controller.get("/");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html"));
    assert!(page.head.contains("default-src 'none'"), "{}", page.head);
    assert!(!page.body.contains("//cdn"), "nothing from elsewhere");
    let mut n_files = 0;
    for name in page
        .body
        .split('"')
        .filter(|part| part.starts_with("static/"))
    {
        let file = controller.get(&format!("/{name}"));
        assert_eq!(file.status, 200, "{name}");
        n_files += 1;
        // The modules it imports are there too.
        for import in file
            .body
            .split('\'')
            .filter_map(|part| part.strip_prefix("./"))
        {
            let module = controller.get(&format!("/static/{import}"));
            assert_eq!(module.status, 200, "{import}");
            assert!(module.head.contains("content-type: text/javascript"));
        }
    }
    assert!(n_files >= 2, "{}", page.body);
    assert_eq!(controller.get("/static/../Cargo.toml").status, 404);
    assert_eq!(controller.get("/static/nothing.js").status, 404);
}

#[test]
fn live_begins_with_history_and_follows_the_fleet() {
    let controller = Controller::start();
    let mut live = Live::open(&controller);
    let (name, history) = live.next().unwrap();
    assert_eq!(name, "history");
    let bounds = history["bounds"].as_array().unwrap().len();
    assert!(history["samples"].is_array());
    let (name, first) = live.next().unwrap();
    assert_eq!((name.as_str(), &first["workers"]), ("sample", &json!(0)));
    assert!(first["lookups"]["latency"].as_array().unwrap().len() >= bounds);

    let mut worker = controller.worker("a", 0);
    worker.register();
    let prompt = tokens(1, 1024);
    worker.admit(&hashes(&prompt));
    controller.wait_for_keys(4);
    controller.lookup(&prompt);
    controller.lookup(&tokens(2, 300));
    let seen = std::iter::from_fn(|| live.next())
        .take(20)
        .find(|(_, sample)| {
            sample["workers"] == 1
                && sample["keys"] == 4
                && sample["operations"] == 4
                && sample["lookups"]["hits"] == 1
                && sample["lookups"]["misses"] == 1
        });
    assert!(seen.is_some(), "the stream never told of the worker");
}

#[test]
fn live_ends_with_the_controller() {
    let controller = Controller::start();
    let mut live = Live::open(&controller);
    live.next().unwrap();
    controller.stop();
    while live.next().is_some() {}
}

#[test]
fn fleet_filters_sorts_and_pages() {
    let controller = Controller::start();
    for (instance, rank, n) in [("left", 0, 1), ("left", 1, 3), ("right", 0, 2)] {
        let mut worker = controller.worker(instance, rank);
        worker.register();
        let before = controller.keys();
        worker.admit(&hashes(&tokens(9, n * 256)));
        controller.wait_for_keys(before + n as u64);
    }
    let ask = |query: &str| {
        let page = controller.get(&format!("/fleet?{query}")).json();
        let names: Vec<String> = page["workers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|worker| {
                let instance = worker["instance_id"].as_str().unwrap();
                format!("{instance}:{}", worker["worker_id"])
            })
            .collect();
        (names.join(" "), page["matching_count"].clone())
    };
    for (query, names, matching) in [
        ("", "left:0 left:1 right:0", 3),
        ("desc=true", "right:0 left:1 left:0", 3),
        ("sort=keys", "left:0 right:0 left:1", 3),
        ("sort=keys&desc=true&limit=1", "left:1", 3),
        ("offset=1&limit=1", "left:1", 3),
        ("offset=99", "", 3),
        ("q=LEFT", "left:0 left:1", 2),
        ("q=t:0", "left:0 right:0", 2),
        ("q=10.0.0.1", "left:0 left:1 right:0", 3),
        ("q=nobody", "", 0),
    ] {
        assert_eq!(ask(query), (names.to_owned(), json!(matching)), "{query}");
    }
    let page = controller.get("/fleet?q=left:1").json();
    assert_eq!(page["total_count"], 3);
    let worker = &page["workers"][0];
    assert_eq!(worker["key_count"], 3);
    assert_eq!(
        worker["locations"],
        json!([{"location": LOCATION, "key_count": 3, "gaps": 0, "sync": "in sync"}])
    );
    assert!(worker["silent_s"].as_f64().unwrap() >= 0.0);
    for query in ["sort=color", "limit=x", "offset=-1x"] {
        assert_eq!(
            controller.get(&format!("/fleet?{query}")).status,
            422,
            "{query}"
        );
    }
}

#[test]
fn a_picture_shows_chunks_behind_a_gap() {
    let controller = Controller::start();
    let prompt = tokens(3, 1100);
    let chain = hashes(&prompt);
    assert_eq!(chain.len(), 5);
    let mut whole = controller.worker("whole", 0);
    whole.register();
    whole.admit(&chain);
    controller.wait_for_keys(5);
    let mut holed = controller.worker("holed", 2);
    holed.register();
    holed.admit(&[chain[0], chain[2]]);
    controller.wait_for_keys(7);
    let body = json!({ "tokens": prompt }).to_string();
    let picture = eventually("a picture", || {
        let picture = controller.post("/lookup/chunks", &body).json();
        (picture["instances"].as_array()?.len() == 2).then_some(picture)
    });
    assert_eq!(picture["n_tokens"], 1100);
    assert_eq!(picture["n_chunks"], 5);
    assert_eq!(picture["chunk_size"], 256);
    assert_eq!(picture["hashes"][0], format!("{:016x}", chain[0].0));
    let held = json!([[2, LOCATION]]);
    assert_eq!(
        picture["instances"][0],
        json!({"instance_id": "holed", "prefix_tokens": 256, "chunks": [held, null, held, null, null]})
    );
    assert_eq!(picture["instances"][1]["prefix_tokens"], 1100);

    let nobody = json!({ "tokens": tokens(4, 512) }).to_string();
    let picture = controller.post("/lookup/chunks", &nobody).json();
    assert_eq!(picture["instances"], json!([]));
    assert_eq!(controller.post("/lookup/chunks", "{}").status, 422);
    let hashes = json!({ "hashes": [1, 2] }).to_string();
    assert!((400..500).contains(&controller.post("/lookup/chunks", &hashes).status));
}
