//! CPython's `hash()` for ints, tuples of ints, and ASCII strings under a known seed.
//!
//! Ints are reduced modulo the Mersenne prime 2^61-1 keeping their sign; tuples combine their
//! members' hashes with xxHash's round (CPython >= 3.8); strings are SipHash-1-3 (CPython >= 3.11)
//! under a key drawn from `PYTHONHASHSEED`. -1 means "error" inside CPython and is never a hash.
//! Ints and tuples do not depend on the seed. 64-bit builds only.
//!
//! One token costs one dependent add, rotate and multiply (5 cycles): there is nothing to win by
//! vectors. Upstream: CPython's `Objects/tupleobject.c`, `Python/pyhash.c`,
//! `Python/bootstrap_hash.c`.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// `sys.hash_info.modulus`.
const MODULUS: u64 = (1 << 61) - 1;

/// xxHash's 64-bit primes 1, 2 and 5.
const PRIME_1: u64 = 11_400_714_785_074_694_791;
const PRIME_2: u64 = 14_029_467_366_897_019_727;
const PRIME_5: u64 = 2_870_177_450_012_600_261;

/// What a tuple's length is mixed with, so that `hash(())` stayed what it was before 3.8.
const LENGTH_SALT: u64 = PRIME_5 ^ 3_527_539;

/// What a tuple hashes to where the combiner gives -1.
const TUPLE_MINUS_ONE: u64 = 1_546_275_796;

/// `hash((previous, tuple(tokens), ()))`.
pub(super) fn link<T: Copy + Into<i64>>(previous: i64, tokens: &[T]) -> i64 {
    let mut inner = PRIME_5;
    for &token in tokens {
        inner = round(inner, int(token.into()));
    }
    let inner = finish(inner, tokens.len());
    let outer = round(PRIME_5, int(previous));
    let outer = round(outer, inner);
    let outer = round(outer, const { finish(PRIME_5, 0) });
    finish(outer, 3).cast_signed()
}

/// `hash(text)` in a process started with `PYTHONHASHSEED=seed`; `text` is ASCII.
pub(super) fn string(text: &str, seed: u32) -> i64 {
    if text.is_empty() {
        return 0;
    }
    let [k0, k1] = string_key(seed);
    let mut hasher = SipHasher13::new_with_keys(k0, k1);
    hasher.write(text.as_bytes());
    match hasher.finish().cast_signed() {
        -1 => -2,
        hash => hash,
    }
}

fn int(value: i64) -> u64 {
    // Nearly every token takes the first way; for u32 the compiler sees that all do.
    if value.cast_unsigned() < MODULUS {
        return value.cast_unsigned();
    }
    let reduced = value.unsigned_abs() % MODULUS;
    match (value < 0, reduced) {
        (false, _) => reduced,
        (true, 1) => (-2i64).cast_unsigned(),
        (true, _) => reduced.wrapping_neg(),
    }
}

fn round(accumulator: u64, member: u64) -> u64 {
    accumulator
        .wrapping_add(member.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

const fn finish(accumulator: u64, length: usize) -> u64 {
    match accumulator.wrapping_add(length as u64 ^ LENGTH_SALT) {
        u64::MAX => TUPLE_MINUS_ONE,
        hash => hash,
    }
}

/// SipHash's two key words: zero for seed 0, else the first 16 bytes of CPython's generator.
fn string_key(seed: u32) -> [u64; 2] {
    if seed == 0 {
        return [0, 0];
    }
    let mut state = seed;
    [(); 2].map(|()| {
        u64::from_le_bytes([(); 8].map(|()| {
            state = state.wrapping_mul(214_013).wrapping_add(2_531_011);
            state.to_le_bytes()[2]
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // `[hash(n) for n in ...]` of CPython 3.11.
    #[test]
    fn ints_hash_as_in_cpython() {
        let modulus = MODULUS.cast_signed();
        for (value, hash) in [
            (0, 0),
            (1, 1),
            (-1, -2),
            (-2, -2),
            (-3, -3),
            (modulus - 1, modulus - 1),
            (modulus, 0),
            (modulus + 1, 1),
            (-modulus, 0),
            (-modulus - 1, -2),
            (-modulus - 2, -2),
            (i64::MAX, 3),
            (i64::MIN, -4),
        ] {
            assert_eq!(int(value).cast_signed(), hash, "hash({value})");
        }
    }

    // CPython 3.11: `hash(())`, and `hash("abc")` under three seeds.
    #[test]
    fn constants_are_cpythons() {
        assert_eq!(finish(PRIME_5, 0), 5_740_354_900_026_072_187);
        assert_eq!(string("abc", 0), -4_594_863_902_769_663_758);
        assert_eq!(string("abc", 1), -4_667_308_735_975_688_587);
        assert_eq!(string("abc", 4_294_967_295), -6_122_489_556_238_538_401);
        assert_eq!(string("", 1), 0);
    }

    #[test]
    fn minus_one_is_never_a_hash() {
        let before = u64::MAX.wrapping_sub(3 ^ LENGTH_SALT);
        assert_eq!(finish(before, 3), TUPLE_MINUS_ONE);
        assert_eq!(finish(before.wrapping_sub(1), 3), u64::MAX - 1);
    }
}
