//! POST /lookup and /diagnose.

use std::num::NonZeroUsize;

use kvatlas_protocol::message::{FullSyncStartMsg, Message};
use kvatlas_protocol::{HashAlgorithm, HashScheme, Root};

use crate::support::{Controller, LOCATION, eventually, hashes, layout, tokens};

fn scheme(algorithm: HashAlgorithm, chunk_size: usize) -> HashScheme {
    HashScheme::new(
        algorithm,
        Root::Absent,
        NonZeroUsize::new(chunk_size).unwrap(),
    )
    .unwrap()
}

#[test]
fn a_long_prompt_is_found_whole() {
    let controller = Controller::start();
    let mut worker = controller.worker("a", 0);
    worker.register();
    let prompt = tokens(1, 131_072);
    worker.admit(&hashes(&prompt));
    controller.wait_for_keys(512);
    assert_eq!(controller.lookup(&prompt)[0].2, 131_072);
    let binary: Vec<u8> = prompt
        .iter()
        .flat_map(|token| u32::try_from(*token).unwrap().to_le_bytes())
        .collect();
    let reply = controller.request("POST", "/lookup", "application/octet-stream", &binary);
    assert_eq!(layout(&reply.json())[0].2, 131_072);
    // Unusual JSON takes the general reader to the same answer.
    let words: Vec<String> = prompt.iter().map(|token| format!("\"{token}\"")).collect();
    let body = format!("{{\"tokens\": [{}]}}", words.join(","));
    assert_eq!(
        layout(&controller.post("/lookup", &body).json())[0].2,
        131_072
    );
}

#[test]
fn answers_name_their_event_and_keep_best_first() {
    let controller = Controller::start();
    let prompt = tokens(1, 1024);
    let chunks = hashes(&prompt);
    for (instance, n) in [("zz", 2), ("mm", 4), ("aa", 1)] {
        let mut worker = controller.worker(instance, 0);
        worker.register();
        let before = controller.keys();
        worker.admit(&chunks[..n]);
        controller.wait_for_keys(before + n as u64);
    }
    let body = serde_json::json!({ "tokens": prompt }).to_string();
    let answer = controller.post("/lookup", &body).json();
    let event = answer["event_id"].as_str().unwrap();
    assert!(
        event.starts_with("Lookup") && event.len() == 6 + 36,
        "{event}"
    );
    let found: Vec<_> = layout(&answer)
        .into_iter()
        .map(|(instance, _, n)| (instance, n))
        .collect();
    let wanted = [("mm", 1024), ("zz", 512), ("aa", 256)].map(|(id, n)| (id.to_owned(), n));
    assert_eq!(found, wanted);
}

#[test]
fn a_fleet_of_another_scheme_is_found_without_configuration() {
    let controller = Controller::start();
    let mut worker = controller.worker("a", 0);
    worker.register();
    let prompt = tokens(5, 100);
    let chunks: Vec<_> = scheme(HashAlgorithm::Sha256Cbor, 16)
        .chain(&prompt)
        .collect();
    worker.admit(&chunks);
    controller.wait_for_keys(7);
    assert_eq!(controller.lookup(&prompt)[0].2, 100);
    let confirmed = &controller.get("/diagnose").json()["hash_schemes"]["confirmed"];
    assert_eq!(confirmed[0]["algorithm"], "sha256_cbor");
    assert_eq!(confirmed[0]["chunk_size"], 16);
    assert_eq!(confirmed[0]["instances"], serde_json::json!(["a"]));
}

#[test]
fn two_groups_of_different_schemes_are_both_found() {
    let controller = Controller::start();
    let prompt = tokens(5, 1000);
    let groups = [
        ("python", HashScheme::default()),
        ("vllm", scheme(HashAlgorithm::Sha256Cbor, 64)),
    ];
    for (instance, scheme) in &groups {
        let mut worker = controller.worker(instance, 0);
        worker.register();
        let chunks: Vec<_> = scheme.chain(&prompt).collect();
        let before = controller.keys();
        worker.admit(&chunks);
        controller.wait_for_keys(before + chunks.len() as u64);
        controller.lookup(&prompt);
    }
    let found = eventually("both groups are found", || {
        let found = controller.lookup(&prompt);
        (found.len() == 2).then_some(found)
    });
    assert!(found.iter().all(|(.., n)| *n == 1000), "{found:?}");
}

#[test]
fn a_fixed_scheme_is_the_only_one() {
    let controller = Controller::with(|config| {
        let set = config.set("hash_scheme", "xxhash_cbor/absent/32");
        set.unwrap().unwrap();
    });
    let prompt = tokens(5, 100);
    let mut worker = controller.worker("a", 0);
    worker.register();
    worker.admit(&hashes(&prompt));
    controller.wait_for_keys(1);
    assert_eq!(controller.lookup(&prompt), []);
    let chunks: Vec<_> = scheme(HashAlgorithm::XxhashCbor, 32)
        .chain(&prompt)
        .collect();
    worker.admit(&chunks);
    controller.wait_for_keys(5);
    assert_eq!(controller.lookup(&prompt)[0].2, 100);
}

#[test]
fn hashes_may_be_asked_for_directly() {
    let controller = Controller::start();
    let mut worker = controller.worker("a", 0);
    worker.register();
    let prompt = tokens(9, 512);
    let chunks = hashes(&prompt);
    worker.admit(&chunks);
    controller.wait_for_keys(2);
    // Signed, as Python's builtin hash gives them, and unsigned.
    for list in [
        format!("[{}, {}]", chunks[0].as_signed(), chunks[1].as_signed()),
        format!("[{}, {}]", chunks[0].0, chunks[1].0),
    ] {
        let reply = controller.post("/lookup", &format!("{{\"hashes\": {list}}}"));
        assert_eq!(layout(&reply.json())[0].2, 512);
    }
}

#[test]
fn diagnosis_says_why_in_words() {
    let controller = Controller::start();
    let prompt = tokens(1, 600);
    let body = serde_json::json!({ "tokens": prompt }).to_string();
    let reasons = |controller: &Controller| {
        let report = controller.post("/diagnose", &body).json();
        let reasons = report["reasons"].as_array().unwrap().clone();
        let words: Vec<String> = reasons
            .into_iter()
            .map(|reason| reason.as_str().unwrap().to_owned())
            .collect();
        words.join("\n")
    };
    assert!(reasons(&controller).contains("no worker is registered"));
    let mut worker = controller.worker("a", 0);
    worker.register();
    let words = reasons(&controller);
    assert!(words.contains("reported no keys"), "{words}");
    assert!(words.contains("no heartbeat has come from a:0"), "{words}");
    worker.admit(&[kvatlas_protocol::ChunkHash(12345)]);
    controller.wait_for_keys(1);
    let words = reasons(&controller);
    assert!(words.contains("none of the"), "{words}");
    worker.admit(&hashes(&prompt));
    controller.wait_for_keys(4);
    let words = reasons(&controller);
    assert!(
        words.contains("holds the first 600 of 600 tokens"),
        "{words}"
    );
    let tried = controller.post("/diagnose", &body).json();
    let best = tried["tried"].as_array().unwrap().iter().find(|row| {
        row["algorithm"] == "builtin" && row["chunk_size"] == 256 && row["root"] == "absent"
    });
    assert_eq!(best.unwrap()["matches"][0]["chunks"], 3);
}

#[test]
fn diagnosis_names_ranks_that_hold_less_and_syncs_that_run() {
    let controller = Controller::start();
    let prompt = tokens(2, 1024);
    let body = serde_json::json!({ "tokens": prompt }).to_string();
    let reasons = || controller.post("/diagnose", &body).json()["reasons"].to_string();
    let chunks = hashes(&prompt);
    let (mut first, mut second) = (controller.worker("tp", 0), controller.worker("tp", 1));
    first.register();
    second.register();
    first.admit(&chunks);
    second.admit(&[kvatlas_protocol::ChunkHash(7)]);
    controller.wait_for_keys(5);
    assert!(controller.lookup(&prompt).is_empty());
    let words = reasons();
    assert!(
        words.contains(
            "ranks of instance tp differ: one holds the first 1024 tokens, but tp:1 holds 0"
        ),
        "{words}"
    );
    assert!(!words.contains("none of the"), "{words}");
    second.admit(&chunks[..2]);
    controller.wait_for_keys(7);
    let words = reasons();
    assert!(words.contains("holds the first 512 of 1024"), "{words}");
    assert!(words.contains("tp:1 holds 512"), "{words}");
    assert!(!words.contains("full sync"), "{words}");
    let started = second.ask(&Message::FullSyncStartMsg(FullSyncStartMsg {
        instance_id: "tp".into(),
        worker_id: 1,
        location: LOCATION.into(),
        sync_id: "s".into(),
        total_keys: 10,
        batch_count: 3,
    }));
    assert!(matches!(started, Message::FullSyncStartRetMsg(_)));
    let words = reasons();
    assert!(
        words.contains("full syncs are running: tp:1 LocalCPUBackend (0 of 3 batches)"),
        "{words}"
    );
}
