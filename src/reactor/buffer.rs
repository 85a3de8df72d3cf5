//! Bytes on their way: a window over storage that is leased from a pool.
//!
//! A buffer holds storage only while it holds bytes. Its capacity is fixed when storage is leased, so a
//! changed setting acts from the next lease on and can neither lose nor reorder a byte.

/// Storage of one size, used again and again. The piece returned last is leased first: it is still warm.
pub struct Pool {
    size: usize,
    free: Vec<Box<[u8]>>,
}

/// How much storage is kept for the next lease; the rest goes back to the allocator.
const KEPT_BYTES: usize = 4 << 20;

impl Pool {
    /// A pool of pieces of `size` bytes, at least one.
    pub fn new(size: usize) -> Self {
        Pool { size: size.max(1), free: Vec::new() }
    }

    /// The size of the pieces.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Changes the size of pieces leased from now on.
    pub fn resize(&mut self, size: usize) {
        if size != self.size {
            *self = Pool::new(size);
        }
    }

    fn lease(&mut self, size: usize) -> Box<[u8]> {
        let pooled = if size == self.size { self.free.pop() } else { None };
        pooled.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give_back(&mut self, storage: Box<[u8]>) {
        if storage.len() == self.size && (self.free.len() + 1) * self.size <= KEPT_BYTES {
            self.free.push(storage);
        }
    }
}

/// A queue of bytes with a fixed capacity.
#[derive(Default)]
pub struct Buffer {
    /// Empty while there is nothing to hold.
    storage: Box<[u8]>,
    /// The bytes are `storage[start..end]`, and `start <= end <= storage.len()` always.
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that wait, oldest first.
    pub fn bytes(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Appends what `read` puts into the free space and returns what it says. `read` gets at least one
    /// byte of space and answers with the count, or with `None` if there was nothing; it is not called,
    /// and the answer is `None`, when the buffer is full. Empty buffers lease `capacity` bytes.
    pub fn fill<R>(
        &mut self,
        pool: &mut Pool,
        capacity: usize,
        read: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Option<R> {
        if self.is_empty() {
            self.storage = pool.lease(capacity);
        } else if self.end == self.storage.len() {
            self.compact();
        }
        let space = self.storage.get_mut(self.end..).filter(|space| !space.is_empty())?;
        let room = space.len();
        let (count, answer) = read(space);
        self.end += count.min(room);
        if self.is_empty() {
            self.release(pool);
        }
        Some(answer)
    }

    /// Appends bytes, all of them: storage grows if it must. For the short messages that this program
    /// itself says.
    pub fn append(&mut self, bytes: &[u8]) {
        self.compact();
        let needed = self.end + bytes.len();
        if needed > self.storage.len() {
            let mut grown = std::mem::take(&mut self.storage).into_vec();
            grown.resize(needed, 0);
            self.storage = grown.into_boxed_slice();
        }
        if let Some(space) = self.storage.get_mut(self.end..needed) {
            space.copy_from_slice(bytes);
            self.end = needed;
        }
    }

    /// Drops the oldest `count` bytes, and the storage with the last of them.
    pub fn consume(&mut self, pool: &mut Pool, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.is_empty() {
            self.release(pool);
        }
    }

    /// Drops all bytes and the storage.
    pub fn release(&mut self, pool: &mut Pool) {
        let Buffer { storage, .. } = std::mem::take(self);
        if !storage.is_empty() {
            pool.give_back(storage);
        }
    }

    /// Moves the bytes to the front, so that the free space is behind them in one piece.
    fn compact(&mut self) {
        if self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn put(buffer: &mut Buffer, pool: &mut Pool, capacity: usize, bytes: &[u8]) -> Option<usize> {
        buffer.fill(pool, capacity, |space| {
            let count = bytes.len().min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            (count, count)
        })
    }

    #[test]
    fn an_empty_buffer_owns_no_storage() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(4));
        assert_eq!(put(&mut buffer, &mut pool, 4, b""), Some(0));
        assert_eq!(buffer.storage.len(), 0);
        assert_eq!(pool.free.len(), 1);
        assert_eq!(put(&mut buffer, &mut pool, 4, b"abcdef"), Some(4));
        assert_eq!(put(&mut buffer, &mut pool, 4, b"ef"), None);
        assert_eq!((buffer.bytes(), pool.free.len()), (&b"abcd"[..], 0));
        buffer.consume(&mut pool, 3);
        assert_eq!(put(&mut buffer, &mut pool, 4, b"ef"), Some(2));
        assert_eq!(buffer.bytes(), b"def");
        buffer.consume(&mut pool, 3);
        assert_eq!((buffer.storage.len(), pool.free.len()), (0, 1));
    }

    #[test]
    fn a_new_capacity_acts_from_the_next_lease() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(4));
        put(&mut buffer, &mut pool, 4, b"abcd");
        pool.resize(2);
        assert_eq!(buffer.bytes(), b"abcd");
        buffer.consume(&mut pool, 4);
        assert_eq!(pool.free.len(), 0);
        assert_eq!(put(&mut buffer, &mut pool, 2, b"abcd"), Some(2));
    }

    #[test]
    fn a_pool_keeps_a_bounded_amount() {
        let mut pool = Pool::new(KEPT_BYTES / 2);
        for _ in 0..5 {
            pool.give_back(vec![0; KEPT_BYTES / 2].into());
        }
        assert_eq!(pool.free.len(), 2);
    }

    #[test]
    fn append_loses_nothing() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(4));
        put(&mut buffer, &mut pool, 4, b"abcd");
        buffer.consume(&mut pool, 1);
        buffer.append(b"efghijkl");
        assert_eq!(buffer.bytes(), b"bcdefghijkl");
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue(
            steps in prop::collection::vec((0usize..40, 1usize..30, 0usize..40, any::<bool>()), 0..60),
        ) {
            let (mut buffer, mut pool) = (Buffer::default(), Pool::new(8));
            let (mut model, mut next) = (VecDeque::new(), 0u8);
            for (give, capacity, take, append) in steps {
                let bytes: Vec<u8> = (0..give).map(|i| next.wrapping_add(i as u8)).collect();
                let taken = if append {
                    buffer.append(&bytes);
                    bytes.len()
                } else {
                    put(&mut buffer, &mut pool, capacity, &bytes).unwrap_or(0)
                };
                model.extend(&bytes[..taken]);
                next = next.wrapping_add(taken as u8);
                prop_assert_eq!(buffer.bytes(), model.make_contiguous());
                buffer.consume(&mut pool, take);
                model.drain(..take.min(model.len()));
                prop_assert_eq!(buffer.bytes(), model.make_contiguous());
                prop_assert_eq!(buffer.storage.is_empty(), buffer.is_empty());
            }
        }
    }
}
