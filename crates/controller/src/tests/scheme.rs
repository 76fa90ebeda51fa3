//! Finding out how the fleet hashes.

use std::num::NonZeroUsize;

use kvatlas_protocol::{HashAlgorithm, HashScheme};

use super::*;
use crate::scheme::SchemeChoice;

fn scheme(algorithm: HashAlgorithm, root: &str, chunk_size: usize) -> HashScheme {
    let chunk_size = NonZeroUsize::new(chunk_size).unwrap();
    HashScheme::new(algorithm, root.parse().unwrap(), chunk_size).unwrap()
}

fn prompt(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|n| seed * 1_000_003 + n).collect()
}

/// The worker caches the first `n_chunks` chunks of a prompt.
fn cache(f: &mut Fleet, instance: &str, scheme: &HashScheme, tokens: &[u32], n_chunks: usize) {
    let keys: Vec<u64> = scheme.chain(tokens).take(n_chunks).map(|h| h.0).collect();
    f.admit(instance, 0, &keys);
}

fn found(f: &Fleet, tokens: &[u32], now: Timestamp) -> Vec<String> {
    f.controller
        .lookup_tokens(tokens, now)
        .iter()
        .map(|m| format!("{}={}", m.found.instance, m.tokens))
        .collect()
}

fn users(f: &Fleet, scheme: &HashScheme) -> Vec<String> {
    let reports = f.controller.schemes();
    let report = reports.iter().find(|report| report.scheme == *scheme);
    let names = report.unwrap().instances.iter();
    names.map(ToString::to_string).collect()
}

#[test]
fn any_scheme_of_the_field_is_found_without_configuration() {
    for (algorithm, root, chunk_size) in [
        (HashAlgorithm::Builtin, "absent", 256),
        (HashAlgorithm::Sha256Cbor, "pythonhashseed:0", 16),
        (HashAlgorithm::Sha256, "vllm-none-hash", 64),
        (HashAlgorithm::Xxhash, "pythonhashseed:42", 512),
        (HashAlgorithm::XxhashCbor, "absent", 1024),
    ] {
        let scheme = scheme(algorithm, root, chunk_size);
        let mut f = Fleet::of(&[("i", 0)]);
        let tokens = prompt(1, 4000);
        cache(&mut f, "i", &scheme, &tokens, 2);
        let expected = format!("i={}", 2 * chunk_size);
        assert_eq!(found(&f, &tokens, at(1)), [expected], "{scheme}");
        assert_eq!(users(&f, &scheme), ["i"]);
        assert!(f.controller.instances_without_scheme().is_empty());
    }
}

#[test]
fn two_schemes_in_one_fleet_are_merged_by_tokens() {
    let (builtin, sha) = (
        HashScheme::default(),
        scheme(HashAlgorithm::Sha256Cbor, "pythonhashseed:0", 16),
    );
    let mut f = Fleet::of(&[("small", 0), ("large", 0)]);
    let tokens = prompt(1, 1000);
    cache(&mut f, "large", &builtin, &tokens, 3);
    cache(&mut f, "small", &sha, &tokens, 5);
    assert_eq!(found(&f, &tokens, at(1)), ["large=768", "small=80"]);
    // The last, partial chunk counts to the end of the prompt.
    cache(&mut f, "large", &builtin, &tokens, 4);
    assert_eq!(found(&f, &tokens, at(1)), ["large=1000", "small=80"]);
    assert_eq!(
        (users(&f, &builtin), users(&f, &sha)),
        (vec!["large".into()], vec!["small".into()])
    );
}

#[test]
fn what_is_certain_costs_one_chain() {
    let mut f = Fleet::of(&[("i", 0)]);
    let tokens = prompt(1, 1000);
    cache(&mut f, "i", &HashScheme::default(), &tokens, 3);
    found(&f, &tokens, at(1));
    let before = f.controller.schemes.searches();
    for _ in 0..10 {
        found(&f, &prompt(2, 1000), at(1));
    }
    assert_eq!(f.controller.schemes.searches(), before);
}

#[test]
fn a_short_prompt_is_answered_but_teaches_nothing() {
    let mut f = Fleet::of(&[("i", 0)]);
    let tokens = prompt(1, 10);
    cache(&mut f, "i", &HashScheme::default(), &tokens, 1);
    assert_eq!(found(&f, &tokens, at(1)), ["i=10"]);
    assert_eq!(f.controller.instances_without_scheme(), ["i".into()]);
}

#[test]
fn one_chunk_is_likely_and_two_of_another_scheme_correct_it() {
    // The short last chunk of a 16-token prompt looks like a full chunk of size 16.
    let mut f = Fleet::of(&[("i", 0)]);
    let short = prompt(1, 16);
    cache(&mut f, "i", &HashScheme::default(), &short, 1);
    let wrong = scheme(HashAlgorithm::Builtin, "absent", 16);
    assert_eq!(found(&f, &short, at(1)), ["i=16"]);
    assert_eq!(users(&f, &wrong), ["i"]);
    let long = prompt(2, 1024);
    cache(&mut f, "i", &HashScheme::default(), &long, 4);
    assert_eq!(found(&f, &long, at(1)), ["i=1024"]);
    assert_eq!(users(&f, &HashScheme::default()), ["i"]);
    assert!(users(&f, &wrong).is_empty());
}

#[test]
fn a_restart_forgets_the_scheme() {
    let mut f = Fleet::of(&[("i", 0)]);
    let tokens = prompt(1, 1000);
    cache(&mut f, "i", &HashScheme::default(), &tokens, 3);
    found(&f, &tokens, at(1));
    f.register("i", 0);
    assert!(users(&f, &HashScheme::default()).is_empty());
    let other = scheme(HashAlgorithm::Xxhash, "absent", 128);
    cache(&mut f, "i", &other, &tokens, 3);
    assert_eq!(found(&f, &tokens, at(1)), ["i=384"]);
    f.controller.handle_deregister(&key("i", 0), at(2));
    assert!(users(&f, &other).is_empty());
}

#[test]
fn fruitless_searches_become_rare() {
    let mut f = Fleet::of(&[("i", 0)]);
    f.admit("i", 0, &[1, 2, 3]);
    let tokens = prompt(1, 300);
    for _ in 0..64 {
        found(&f, &tokens, at(1));
    }
    // A key that a search would find now.
    let chunk = HashScheme::default();
    assert!(found(&f, &tokens, at(2)).is_empty());
    cache(&mut f, "i", &chunk, &tokens, 1);
    assert!(
        found(&f, &tokens, at(2)).is_empty(),
        "searched a moment ago"
    );
    assert_eq!(found(&f, &tokens, at(3)), ["i=256"]);
}

#[test]
fn a_fixed_scheme_is_all_that_is_tried() {
    let fixed = scheme(HashAlgorithm::Sha256Cbor, "absent", 32);
    let mut f = Fleet::with(Settings {
        schemes: SchemeChoice::Fixed(fixed.clone()),
        ..Settings::default()
    });
    f.register("i", 0);
    let tokens = prompt(1, 100);
    cache(&mut f, "i", &HashScheme::default(), &tokens, 1);
    assert!(found(&f, &tokens, at(1)).is_empty());
    cache(&mut f, "i", &fixed, &tokens, 4);
    assert_eq!(found(&f, &tokens, at(1)), ["i=100"]);
    assert_eq!(f.controller.probe_schemes(&tokens).len(), 1);
    assert!(f.controller.is_scheme_fixed());
}
