//! Loom explores the places where readers and the writer meet without a lock: a bucket whose slot
//! changes its key, a set entry that is freed and reused, and an id given out under a view.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p kvatlas-controller --release loom_` (`make loom`)

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::bucket::{Bucket, Probe};
use super::spill::{Freed, QUARANTINE};

/// The slot of key 1 is emptied and taken by key 2: neither is ever seen with the other's value.
#[test]
fn a_reused_slot_never_mixes_two_keys() {
    loom::model(|| {
        let bucket = Arc::new(Bucket::default());
        bucket.insert(0, 1, 10);
        let shared = Arc::clone(&bucket);
        let reader = thread::spawn(move || (shared.probe(1), shared.probe(2)));
        bucket.replace(0, 11);
        bucket.replace(0, 0);
        bucket.insert(0, 2, 20);
        let (one, two) = reader.join().unwrap();
        assert!(matches!(
            one,
            Probe::Found(10 | 11) | Probe::Absent | Probe::Torn
        ));
        assert!(matches!(
            two,
            Probe::Found(20) | Probe::Absent | Probe::Torn
        ));
    });
}

/// A key that stays is found, whatever happens to its neighbor, unless the reader is told to retry.
#[test]
fn a_key_that_stays_is_never_missed() {
    loom::model(|| {
        let bucket = Arc::new(Bucket::default());
        bucket.insert(0, 1, 10);
        bucket.insert(1, 2, 20);
        let shared = Arc::clone(&bucket);
        let reader = thread::spawn(move || shared.probe(2));
        bucket.replace(0, 0);
        bucket.insert(0, 3, 30);
        bucket.replace(1, 21);
        let seen = reader.join().unwrap();
        assert!(matches!(seen, Probe::Found(20 | 21) | Probe::Torn));
    });
}

/// A key that had no room passes by and sits elsewhere: a search goes on, or the key was not yet there.
#[test]
fn an_overflowing_key_is_found_further_on() {
    loom::model(|| {
        let buckets = Arc::new([Bucket::default(), Bucket::default()]);
        let shared = Arc::clone(&buckets);
        let written = Arc::new(AtomicU32::new(0));
        let done = Arc::clone(&written);
        let reader = thread::spawn(move || {
            let done = done.load(Ordering::Acquire) == 1;
            let found = match shared[0].probe(1) {
                Probe::Further => shared[1].probe(1),
                here => here,
            };
            (done, found)
        });
        buckets[0].pass();
        buckets[1].insert(0, 1, 10);
        written.store(1, Ordering::Release);
        let (done, found) = reader.join().unwrap();
        assert!(!done || matches!(found, Probe::Found(10)), "{found:?}");
    });
}

/// The writer moves the only key of set S to set T, frees S, and reuses S's entry for set U once the
/// quarantine has passed: a reader that believes what it read has read S or T whole.
#[test]
fn a_reused_set_entry_is_not_believed() {
    const S: u32 = 1;
    const T: u32 = 2;
    loom::model(|| {
        let value = Arc::new(AtomicU32::new(S));
        let entry = Arc::new([AtomicU64::new(7), AtomicU64::new(7)]);
        let freed = Arc::new(Freed::default());
        let reader = {
            let (value, entry, freed) = (value.clone(), entry.clone(), freed.clone());
            thread::spawn(move || {
                let entered = freed.enter();
                if value.load(Ordering::Acquire) != S {
                    return None;
                }
                let read = [0, 1].map(|word: usize| entry[word].load(Ordering::Relaxed));
                freed.is_fresh(entered).then_some(read)
            })
        };
        value.store(T, Ordering::Release);
        // S is counted as freed, then enough others are.
        freed.publish(1);
        freed.publish(1 + QUARANTINE);
        fence(Ordering::Release);
        entry[0].store(8, Ordering::Relaxed);
        entry[1].store(8, Ordering::Relaxed);
        value.store(S, Ordering::Release);
        if let Some(read) = reader.join().unwrap() {
            // Either the old tenant, or the new one entered after the reuse.
            assert!(read == [7, 7] || read == [8, 8], "{read:?}");
        }
    });
}

/// As above, but the reader insists that it began before the reuse: then it must see the old tenant.
#[test]
fn a_reader_from_before_the_reuse_sees_the_old_tenant_or_retries() {
    loom::model(|| {
        let value = Arc::new(AtomicU32::new(1));
        let entry = Arc::new(AtomicU64::new(7));
        let freed = Arc::new(Freed::default());
        let entered = freed.enter();
        let reader = {
            let (value, entry, freed) = (value.clone(), entry.clone(), freed.clone());
            thread::spawn(move || {
                let before = value.load(Ordering::Acquire);
                let read = entry.load(Ordering::Relaxed);
                freed.is_fresh(entered).then_some((before, read))
            })
        };
        value.store(2, Ordering::Release);
        freed.publish(QUARANTINE);
        fence(Ordering::Release);
        entry.store(8, Ordering::Relaxed);
        value.store(1, Ordering::Release);
        if let Some((1, read)) = reader.join().unwrap() {
            assert_eq!(read, 7);
        }
    });
}

/// A view meets a key of an id given out after it: the count of ids given out tells it so.
#[test]
fn an_id_given_out_after_the_view_is_noticed() {
    loom::model(|| {
        let published = Arc::new(AtomicU32::new(0));
        let opened = Arc::new(AtomicU64::new(0));
        let bucket = Arc::new(Bucket::default());
        let reader = {
            let (published, opened, bucket) = (published.clone(), opened.clone(), bucket.clone());
            thread::spawn(move || {
                let entered = opened.load(Ordering::Acquire);
                let knows = published.load(Ordering::Acquire) == 1;
                let met = bucket.probe(1) == Probe::Found(10);
                let noticed = opened.load(Ordering::Acquire) != entered;
                (knows, met, noticed)
            })
        };
        published.store(1, Ordering::Release);
        opened.fetch_add(1, Ordering::Release);
        bucket.insert(0, 1, 10);
        let (knows, met, noticed) = reader.join().unwrap();
        assert!(!met || knows || noticed);
    });
}
