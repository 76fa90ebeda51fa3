//! Time to hash a prompt of 8,192 tokens, per algorithm, as the lookup path does it.
//!
//! `u32` is the hot path; `i64` is what a caller with unusual tokens gets. Tokens are spread over a
//! vocabulary of 152,064 (Qwen), so that encodings meet every width.
#![allow(missing_docs, reason = "criterion's macros write undocumented items")]

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kvatlas_protocol::{HashAlgorithm, HashScheme, Root};

const N_TOKENS: u32 = 8192;
const CHUNK_SIZE: NonZeroUsize = NonZeroUsize::new(256).unwrap();

fn chains(c: &mut Criterion) {
    let tokens: Vec<u32> = (0..N_TOKENS)
        .map(|i| i.wrapping_mul(0x9E37_79B9) % 152_064)
        .collect();
    let wide: Vec<i64> = tokens.iter().copied().map(i64::from).collect();
    let mut group = c.benchmark_group("chain_8192");
    group.throughput(Throughput::Elements(u64::from(N_TOKENS)));
    for algorithm in HashAlgorithm::ALL {
        let scheme = HashScheme::new(algorithm, Root::Absent, CHUNK_SIZE)
            .expect("an absent root has a value under every algorithm");
        group.bench_with_input(BenchmarkId::new("u32", algorithm), &tokens, |b, tokens| {
            b.iter(|| scheme.chain(black_box(tokens)).last());
        });
        group.bench_with_input(BenchmarkId::new("i64", algorithm), &wide, |b, tokens| {
            b.iter(|| scheme.chain(black_box(tokens)).last());
        });
    }
    group.finish();
}

criterion_group!(benches, chains);
criterion_main!(benches);
