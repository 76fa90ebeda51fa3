//! Workload KVIDX-1: sessions of chained chunks with shared prefixes, each held by two workers.
//!
//! Everything is derived from fixed seeds, so that two indexes, or two machines, do the same work; the
//! check values below are part of the workload's definition.

/// SplitMix64's output function.
pub fn mix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The workload's generator.
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        let out = mix64(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        out
    }

    /// The next number, modulo `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }
}

/// Sessions.
pub const SESSIONS: u64 = 2000;
/// Chunks of a session.
pub const CHUNKS: u64 = 128;
/// Of those, shared by the sessions of a group.
pub const SHARED: u64 = 32;
/// Sessions of a group.
pub const GROUP: u64 = 50;

/// Key of chunk `i` of session `s`, in generation `t`.
pub fn key(t: u64, s: u64, i: u64) -> u64 {
    if i < SHARED {
        mix64((1 << 62) | ((s / GROUP) << 16) | i)
    } else {
        mix64((2 << 62) | (t << 40) | (s << 16) | i)
    }
}

/// A key nobody holds.
pub fn unknown(s: u64, i: u64) -> u64 {
    mix64((3 << 62) | (s << 16) | i)
}

/// The two workers of each session.
pub fn placement(workers: u64) -> Vec<[u64; 2]> {
    let mut rng = Rng(42);
    let mut pair = || {
        let a = rng.below(workers);
        let b = rng.below(workers - 1);
        [a, b + u64::from(b >= a)]
    };
    (0..SESSIONS).map(|_| pair()).collect()
}

/// The (session, replica) pairs in the order in which they are stored.
pub fn store_order() -> Vec<(u64, usize)> {
    let mut order: Vec<_> = (0..SESSIONS).flat_map(|s| [(s, 0), (s, 1)]).collect();
    let mut rng = Rng(43);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    order
}

/// Checksum of 2,000 hit lookups, and distinct pairs, for a number of workers.
pub fn expected(workers: u64) -> (u64, u64) {
    match workers {
        8 => (896_000, 394_240),
        64 => (3_638_400, 449_088),
        256 => (5_675_200, 489_824),
        _ => panic!("KVIDX-1 is defined for 8, 64 and 256 workers"),
    }
}

/// Panics if the generator does not give the workload's own check values.
pub fn check_generator() {
    assert_eq!(key(0, 0, 0), 0x00aa_50ea_8e0f_a9eb);
    assert_eq!(key(0, 0, 32), 0x0508_fd17_befc_6122);
    assert_eq!(key(0, 1999, 127), 0x0a66_d39f_5eab_d7d9);
    assert_eq!(store_order()[..3], [(1380, 0), (1117, 1), (234, 0)]);
    let mut rng = Rng(44);
    assert_eq!([(); 3].map(|()| rng.below(SESSIONS)), [1331, 1730, 437]);
}
