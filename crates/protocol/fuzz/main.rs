//! Mutation fuzzing of every decoder, on the stable toolchain.
//!
//! `KVATLAS_FUZZ_SECONDS=60 cargo run --release -p kvatlas-protocol --example fuzz [target..]`
//! runs each target that long (default 60). Inputs are the reference vectors, mutated by a seeded
//! generator (`KVATLAS_FUZZ_SEED`), so a run can be repeated; mutants that are accepted join the
//! corpus. A failed property panics and prints the input in hexadecimal.

#![expect(clippy::print_stderr, reason = "a program for people")]

use std::io::Write as _;
use std::panic;
use std::time::{Duration, Instant};

use kvatlas_protocol::Message;
use kvatlas_protocol::codec::pull::{PullMessage, decode_pull};

mod mutate;

use mutate::Mutator;

/// Reads an input, checks what must hold, and says whether the input was accepted.
type Check = fn(&[u8]) -> bool;

const TARGETS: [(&str, Check); 4] = [
    ("msgpack", check_message),
    ("json", check_json),
    ("pull", check_pull),
    ("skip", check_skip),
];

/// Accepted mutants kept beside the vectors; more would only cost memory.
const CORPUS_LIMIT: usize = 4096;

/// No input here is longer than some kilobytes, so a decoder this slow is not linear.
const TOO_SLOW: Duration = Duration::from_secs(5);

fn main() {
    let seconds = number("KVATLAS_FUZZ_SECONDS").unwrap_or(60);
    let seed = number("KVATLAS_FUZZ_SEED").unwrap_or(1);
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for (name, check) in TARGETS {
        if chosen.is_empty() || chosen.iter().any(|target| target == name) {
            run(name, check, Duration::from_secs(seconds), seed);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(name: &str, check: Check, time: Duration, seed: u64) {
    let mut corpus = mutate::corpus(name == "json");
    let mut mutator = Mutator::new(seed);
    let (mut runs, mut accepted) = (0_u64, 0_u64);
    let begin = Instant::now();
    let mut shown = begin;
    while begin.elapsed() < time {
        for _ in 0..256 {
            let input = mutator.mutant(&corpus);
            let started = Instant::now();
            let Ok(is_accepted) = panic::catch_unwind(|| check(&input)) else {
                eprintln!("\n{name}: failed on {}", hex::encode(&input));
                std::process::exit(1);
            };
            // A machine that stood still is no fault of the decoder: it must be slow again.
            assert!(
                started.elapsed() < TOO_SLOW || time_of(check, &input) < TOO_SLOW,
                "slow on {}",
                hex::encode(&input)
            );
            runs += 1;
            if is_accepted {
                accepted += 1;
                if corpus.len() < CORPUS_LIMIT {
                    corpus.push(input);
                } else {
                    mutator.replace(&mut corpus, input);
                }
            }
        }
        if shown.elapsed() >= Duration::from_secs(1) {
            shown = Instant::now();
            eprint!(
                "\r{name:8} {:4} of {} s, {runs} inputs, {accepted} accepted ",
                begin.elapsed().as_secs(),
                time.as_secs()
            );
            // Progress only; a closed terminal is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }
    eprintln!(
        "\r{name:8} clean: {runs} inputs, {accepted} accepted, {} s      ",
        time.as_secs()
    );
}

fn time_of(check: Check, input: &[u8]) -> Duration {
    let started = Instant::now();
    check(input);
    started.elapsed()
}

/// What is accepted must survive its own encoding, in both forms.
fn check_message(input: &[u8]) -> bool {
    let Ok(message) = Message::decode(input) else {
        return false;
    };
    let bytes = message.encode_msgpack();
    let again = Message::decode(&bytes).expect("own MessagePack is refused");
    // Bytes, not values, are compared: NaN is not itself.
    assert_eq!(again.encode_msgpack(), bytes);
    // JSON says NaN and infinity as null, as upstream does, so only its form is checked.
    let json = message.encode_json();
    serde_json::from_str::<serde_json::Value>(&json).expect("own JSON is malformed");
    true
}

fn check_json(input: &[u8]) -> bool {
    if input.first() != Some(&b'{') {
        return false;
    }
    let accepted = check_message(input);
    if accepted {
        let message = Message::decode(input).expect("accepted a moment ago");
        let again = Message::decode(message.encode_json().as_bytes()).expect("own JSON is refused");
        assert_eq!(again, message);
    }
    accepted
}

/// The hot path and the strict reader agree, and a refused part leaves the sinks alone.
fn check_pull(input: &[u8]) -> bool {
    let (mut operations, mut keys) = (Vec::new(), Vec::new());
    let hot = decode_pull(input, &mut operations, &mut keys);
    match (hot, Message::decode(input)) {
        (Err(_), Err(_)) => {
            assert!(operations.is_empty() && keys.is_empty());
            false
        }
        (Ok(PullMessage::Other(other)), Ok(message)) => {
            assert_eq!(other.encode_msgpack(), message.encode_msgpack());
            true
        }
        (Ok(_), Ok(message)) => {
            let (n_operations, n_keys) = match message {
                Message::BatchedKVOperationMsg(batch) => (batch.operations.len(), 0),
                Message::FullSyncBatchMsg(batch) => (0, batch.keys.len()),
                _ => (1, 0),
            };
            assert_eq!((operations.len(), keys.len()), (n_operations, n_keys));
            true
        }
        (hot, strict) => panic!("verdicts differ: {hot:?} and {strict:?}"),
    }
}

/// The input as the value of an unknown field: accepted only if it is exactly one value.
fn check_skip(input: &[u8]) -> bool {
    let mut payload = b"\x83\xa4type\xa8ErrorMsg\xa1x".to_vec();
    payload.extend_from_slice(input);
    payload.extend_from_slice(b"\xa5error\xa1e");
    Message::decode(&payload).is_ok()
}
