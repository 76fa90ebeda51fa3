//! An array that grows and never moves: chunks of doubling size, each set once.
//!
//! Readers index it without a lock; what they find there is theirs to interpret. Growing takes `&self`
//! and is idempotent. Chunk `i` holds `first << i` elements.

use std::sync::OnceLock;

/// Enough for 2^31 elements and any first size.
const CHUNKS: usize = 32;

/// See the module's text.
pub(super) struct Chunked<T> {
    chunks: [OnceLock<Box<[T]>>; CHUNKS],
    /// Elements of chunk 0; a power of two.
    first: usize,
    /// `T`s in one element.
    width: usize,
}

impl<T: Default> Chunked<T> {
    /// An empty array whose elements are runs of `width` `T`s.
    pub(super) fn new(first: usize, width: usize) -> Self {
        debug_assert!(first.is_power_of_two());
        Self {
            chunks: std::array::from_fn(|_| OnceLock::new()),
            first,
            width,
        }
    }

    /// Makes sure that element `index` exists.
    pub(super) fn reach(&self, index: usize) {
        let (chunk, _) = self.locate(index);
        self.chunks[chunk].get_or_init(|| {
            (0..(self.first << chunk) * self.width)
                .map(|_| T::default())
                .collect()
        });
    }

    /// Element `index`, if it was reached.
    #[inline]
    pub(super) fn read(&self, index: usize) -> Option<&[T]> {
        let (chunk, offset) = self.locate(index);
        let start = offset * self.width;
        self.chunks[chunk].get()?.get(start..start + self.width)
    }

    /// Heap bytes.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        chunks.map(|chunk| size_of_val::<[T]>(chunk)).sum()
    }

    #[inline]
    fn locate(&self, index: usize) -> (usize, usize) {
        let scaled = index / self.first + 1;
        let chunk = scaled.ilog2() as usize;
        (chunk, index - self.first * ((1 << chunk) - 1))
    }
}
