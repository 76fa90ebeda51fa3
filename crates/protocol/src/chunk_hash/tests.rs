//! Chains against LMCache's vectors, CPython's own output, and the definition written out naively.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::chunk_hash::tests::naive::Value;

/// A row of `hash_chains.jsonl`, which was read off LMCache itself.
#[derive(Deserialize)]
struct Vector {
    algorithm: String,
    none_hash_from: String,
    none_hash: i128,
    chunk_size: NonZeroUsize,
    tokens: Vec<i64>,
    chunk_hashes: Vec<i128>,
}

/// A row of `hash_chains_generated.jsonl`; the script beside it says what the fields mean.
#[derive(Deserialize)]
struct GeneratedChain {
    algorithm: String,
    root: String,
    chunk_size: NonZeroUsize,
    count: u64,
    start: u64,
    step: u64,
    shift: u32,
    chunks: usize,
    last: i128,
}

/// A row of `hash_roots_generated.jsonl`, by the same script.
#[derive(Deserialize)]
struct GeneratedRoot {
    algorithm: String,
    seed: String,
    none_hash: i128,
}

fn rows<'a, T: Deserialize<'a>>(text: &'a str) -> impl Iterator<Item = T> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// The Python int that upstream would have for this hash.
fn python_int(algorithm: HashAlgorithm, hash: ChunkHash) -> i128 {
    match algorithm {
        HashAlgorithm::Builtin => hash.as_signed().into(),
        _ => hash.0.into(),
    }
}

fn scheme(algorithm: &str, root: &str, chunk_size: NonZeroUsize) -> HashScheme {
    let (algorithm, root) = (algorithm.parse().unwrap(), root.parse().unwrap());
    HashScheme::new(algorithm, root, chunk_size).unwrap()
}

fn python_chain<T: Copy + Into<i64>>(scheme: &HashScheme, tokens: &[T]) -> Vec<i128> {
    scheme
        .chain(tokens)
        .map(|hash| python_int(scheme.algorithm(), hash))
        .collect()
}

#[test]
fn chains_are_lmcaches() {
    let mut n_rows = 0;
    for row in rows::<Vector>(include_str!("../../testdata/hash_chains.jsonl")) {
        let scheme = scheme(&row.algorithm, &row.none_hash_from, row.chunk_size);
        assert_eq!(
            python_int(scheme.algorithm, scheme.root_value),
            row.none_hash,
            "{scheme}"
        );
        assert_eq!(
            python_chain(&scheme, &row.tokens),
            row.chunk_hashes,
            "{scheme}"
        );
        let narrow: Result<Vec<u32>, _> = row.tokens.iter().map(|&t| u32::try_from(t)).collect();
        if let Ok(tokens) = narrow {
            assert_eq!(python_chain(&scheme, &tokens), row.chunk_hashes, "{scheme}");
        }
        n_rows += 1;
    }
    assert_eq!(n_rows, 248);
}

#[test]
fn chains_are_cpythons() {
    let mut n_rows = 0;
    for row in rows::<GeneratedChain>(include_str!("../../testdata/hash_chains_generated.jsonl")) {
        let GeneratedChain {
            count,
            start,
            step,
            shift,
            ..
        } = row;
        let token = |i: u64| i.wrapping_mul(step).wrapping_add(start).cast_signed();
        let tokens: Vec<i64> = (0..count).map(|i| token(i) >> shift).collect();
        let scheme = scheme(&row.algorithm, &row.root, row.chunk_size);
        let hashes = python_chain(&scheme, &tokens);
        let case = format!("{scheme}: {count} tokens from {start} by {step} >> {shift}");
        assert_eq!(hashes.len(), row.chunks, "{case}");
        assert_eq!(hashes.last(), Some(&row.last), "{case}");
        n_rows += 1;
    }
    assert_eq!(n_rows, 450);
}

#[test]
fn seeded_roots_are_cpythons() {
    let mut n_rows = 0;
    for row in rows::<GeneratedRoot>(include_str!("../../testdata/hash_roots_generated.jsonl")) {
        let algorithm = row.algorithm.parse().unwrap();
        let root = Root::PythonHashSeed(row.seed.parse().unwrap());
        let value = root.value(algorithm).unwrap();
        let case = format!("{algorithm} {:?}", row.seed);
        assert_eq!(python_int(algorithm, value), row.none_hash, "{case}");
        n_rows += 1;
    }
    assert_eq!(n_rows, 79);
}

#[test]
fn names_read_back() {
    for algorithm in HashAlgorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
    }
    assert_eq!("sha256_cbor_64bit".parse(), Ok(HashAlgorithm::Sha256Cbor));
    for name in ["", "Builtin", "hash", "sha256_cbor ", "blake3"] {
        let error = name.parse::<HashAlgorithm>().unwrap_err();
        assert_eq!(error.name, name);
    }
    for text in [
        "absent",
        "pythonhashseed:42",
        "pythonhashseed:",
        "vllm-none-hash",
    ] {
        assert_eq!(text.parse::<Root>().unwrap().to_string(), text);
    }
    assert_eq!(
        "PYTHONHASHSEED=0".parse::<Root>(),
        "pythonhashseed:0".parse()
    );
}

#[test]
fn what_cpython_refuses_is_no_seed() {
    // Each of these was tried: CPython 3.11 exits at once.
    for seed in [
        "abc",
        " ",
        "1 ",
        "-1",
        "-",
        "+-1",
        "--0",
        "4294967296",
        "0x10",
        "1.0",
        "١",
    ] {
        assert!(seed.parse::<HashSeed>().is_err(), "{seed:?}");
        assert!(
            format!("pythonhashseed:{seed}").parse::<Root>().is_err(),
            "{seed:?}"
        );
    }
    assert!("0".repeat(65).parse::<HashSeed>().is_err());
    for root in ["", "none", "pythonhashseed", "Absent"] {
        assert!(root.parse::<Root>().is_err(), "{root:?}");
    }
}

#[test]
fn random_roots_have_no_scheme() {
    let size = NonZeroUsize::new(16).unwrap();
    let random = Root::PythonHashSeed("random".parse().unwrap());
    for (algorithm, root) in [
        (HashAlgorithm::Builtin, random),
        (HashAlgorithm::Builtin, Root::VllmNoneHash),
        (HashAlgorithm::XxhashCbor, Root::VllmNoneHash),
        (HashAlgorithm::Xxhash, Root::VllmNoneHash),
    ] {
        let error = HashScheme::new(algorithm, root.clone(), size).unwrap_err();
        assert_eq!(error, RandomRoot { algorithm, root });
    }
}

#[test]
fn the_default_is_upstreams() {
    let size = NonZeroUsize::new(256).unwrap();
    let upstream = HashScheme::new(HashAlgorithm::Builtin, Root::Absent, size).unwrap();
    assert_eq!(HashScheme::default(), upstream);
    assert_eq!(upstream.to_string(), "builtin, root absent, chunk size 256");
}

/// A token that counts how often it is read.
#[derive(Clone, Copy)]
struct Watched<'a>(&'a Cell<usize>);

impl From<Watched<'_>> for i64 {
    fn from(token: Watched<'_>) -> Self {
        token.0.set(token.0.get() + 1);
        7
    }
}

#[test]
fn only_chunks_asked_for_are_hashed() {
    let size = NonZeroUsize::new(16).unwrap();
    for algorithm in HashAlgorithm::ALL {
        let reads = Cell::new(0);
        let tokens = [Watched(&reads); 100];
        let scheme = HashScheme::new(algorithm, Root::Absent, size).unwrap();
        let mut chain = scheme.chain(&tokens);
        assert_eq!((chain.len(), reads.get()), (7, 0));
        chain.next();
        assert_eq!((chain.len(), reads.get()), (6, 16));
        assert_eq!(chain.count(), 6);
        assert_eq!(reads.get(), 100);
    }
}

fn any_token() -> impl Strategy<Value = i64> {
    prop_oneof![
        0..200_000i64,
        any::<i64>(),
        (any::<i64>(), 0..63u32).prop_map(|(bits, shift)| bits >> shift),
    ]
}

fn any_scheme() -> impl Strategy<Value = HashScheme> {
    let root = prop_oneof![
        Just(Root::Absent),
        any::<u32>().prop_map(|seed| Root::PythonHashSeed(seed.into())),
    ];
    let algorithm = proptest::sample::select(&HashAlgorithm::ALL[..]);
    (algorithm, root, 1..40usize).prop_map(|(algorithm, root, size)| {
        HashScheme::new(algorithm, root, NonZeroUsize::new(size).unwrap()).unwrap()
    })
}

proptest! {
    #[test]
    fn chain_is_the_naive_definition(
        scheme in any_scheme(),
        tokens in proptest::collection::vec(any_token(), 0..200),
    ) {
        let size = scheme.chunk_size.get();
        let mut expected = Vec::new();
        let mut previous = python_int(scheme.algorithm, scheme.root_value);
        for chunk in tokens.chunks(size) {
            let chunk = chunk.iter().map(|&token| Value::Int(token.into())).collect();
            let link = [Value::Int(previous), Value::Tuple(chunk), Value::Tuple(vec![])];
            previous = Value::Tuple(link.into()).hash(scheme.algorithm);
            expected.push(previous);
        }
        prop_assert_eq!(python_chain(&scheme, &tokens), expected);
    }

    #[test]
    fn a_prompts_prefix_has_the_chains_prefix(
        scheme in any_scheme(),
        tokens in proptest::collection::vec(any_token(), 0..200),
        n_chunks in 0..10usize,
    ) {
        let cut = tokens.len().min(n_chunks * scheme.chunk_size.get());
        let whole: Vec<_> = scheme.chain(&tokens).collect();
        let prefix: Vec<_> = scheme.chain(&tokens[..cut]).collect();
        prop_assert!(whole.starts_with(&prefix));
        prop_assert_eq!(prefix.len(), cut.div_ceil(scheme.chunk_size.get()));
    }
}

/// Python's definition over arbitrary nested tuples: slow, recursive, one rule at a time.
mod naive {
    use super::*;

    pub(super) enum Value {
        Int(i128),
        Tuple(Vec<Value>),
    }

    impl Value {
        pub(super) fn hash(&self, algorithm: HashAlgorithm) -> i128 {
            let bytes = match algorithm {
                HashAlgorithm::Builtin => return self.python_hash().into(),
                HashAlgorithm::Sha256Cbor | HashAlgorithm::XxhashCbor => self.cbor(),
                HashAlgorithm::Sha256 | HashAlgorithm::Xxhash => {
                    // Below one frame's size, which the proptest never reaches.
                    let payload = [self.pickle(), vec![b'.']].concat();
                    let length = (payload.len() as u64).to_le_bytes();
                    [&[0x80, 5, 0x95][..], &length, &payload].concat()
                }
            };
            python_int(algorithm, algorithm.digest(&bytes))
        }

        fn python_hash(&self) -> i64 {
            let hash = match self {
                Self::Int(value) => {
                    let sign = value.signum();
                    (sign * (value.abs() % ((1 << 61) - 1))) as i64
                }
                Self::Tuple(members) => {
                    let mut acc = 2_870_177_450_012_600_261u64;
                    for member in members {
                        let lane = member.python_hash().cast_unsigned();
                        acc = acc.wrapping_add(lane.wrapping_mul(14_029_467_366_897_019_727));
                        acc = acc.rotate_right(33);
                        acc = acc.wrapping_mul(11_400_714_785_074_694_791);
                    }
                    let salt = 2_870_177_450_012_600_261 ^ 3_527_539;
                    let acc = acc.wrapping_add(members.len() as u64 ^ salt);
                    return if acc == u64::MAX {
                        1_546_275_796
                    } else {
                        acc.cast_signed()
                    };
                }
            };
            if hash == -1 { -2 } else { hash }
        }

        fn cbor(&self) -> Vec<u8> {
            let (major, number) = match self {
                Self::Int(value) if *value < 0 => (1u8, -1 - value),
                Self::Int(value) => (0, *value),
                Self::Tuple(members) => (4, members.len() as i128),
            };
            let mut bytes = match number {
                0..24 => vec![number as u8],
                _ => {
                    let width = [1, 2, 4, 8].into_iter().find(|w| number >> (8 * w) == 0);
                    let width: usize = width.unwrap();
                    let mut bytes = vec![24 + width.ilog2() as u8];
                    bytes.extend_from_slice(&number.to_be_bytes()[16 - width..]);
                    bytes
                }
            };
            bytes[0] |= major << 5;
            if let Self::Tuple(members) = self {
                bytes.extend(members.iter().flat_map(Self::cbor));
            }
            bytes
        }

        fn pickle(&self) -> Vec<u8> {
            match self {
                Self::Int(value) => {
                    let bytes = value.to_le_bytes();
                    let (opcode, width): (&[u8], usize) = if let 0..256 = value {
                        (b"K", 1)
                    } else if let 0..65_536 = value {
                        (b"M", 2)
                    } else if i32::try_from(*value).is_ok() {
                        (b"J", 4)
                    } else {
                        let fits = |n: &usize| (value << (128 - 8 * n)) >> (128 - 8 * n) == *value;
                        let width = (1..16).find(fits).unwrap();
                        (&[0x8a, width as u8], width)
                    };
                    [opcode, &bytes[..width]].concat()
                }
                Self::Tuple(members) if members.is_empty() => b")".into(),
                Self::Tuple(members) => {
                    let body: Vec<u8> = members.iter().flat_map(Self::pickle).collect();
                    match members.len() {
                        n @ 1..=3 => [&body[..], &[0x84 + n as u8, 0x94]].concat(),
                        _ => [b"(", &body[..], b"t\x94"].concat(),
                    }
                }
            }
        }
    }
}
