//! Bytes on their way: a window over storage that is leased from a pool.
//!
//! A buffer holds storage only while it holds bytes. Its capacity is fixed when storage is leased, so a
//! changed setting acts from the next lease on and can neither lose nor reorder a byte.

use std::cell::Cell;
use std::rc::Rc;

use super::pipe::Pipes;

/// Storage of one size, used again and again. The piece returned last is leased first: it is still warm.
///
/// What is leased is metered. Past the limit only small pieces are leased, so that memory stays bounded
/// while every tunnel still moves.
pub struct Pool {
    size: usize,
    /// Bytes from which on leases are small.
    limit: usize,
    leased: Rc<Cell<usize>>,
    free: Vec<Box<[u8]>>,
    /// What streaming lanes use in place of storage.
    pub pipes: Pipes,
}

/// How much storage is kept for the next lease; the rest goes back to the allocator.
const KEPT_BYTES: usize = 4 << 20;

/// What is leased past the limit, in bytes.
pub const SMALL: usize = 4096;

impl Pool {
    /// A pool of pieces of `size` bytes, at least one, that leases `limit` bytes before it leases small
    /// pieces.
    pub fn new(size: usize, limit: usize) -> Self {
        Pool {
            size: size.max(1),
            limit,
            leased: Rc::default(),
            free: Vec::new(),
            pipes: Pipes::default(),
        }
    }

    /// The size of the pieces.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Changes the size of pieces leased from now on.
    pub fn resize(&mut self, size: usize) {
        if size.max(1) != self.size {
            self.size = size.max(1);
            self.free.clear();
        }
    }

    /// Bytes of storage that buffers hold now.
    pub fn leased(&self) -> usize {
        self.leased.get()
    }

    fn lease(&mut self, capacity: usize) -> Storage {
        let crowded = self.leased.get().saturating_add(capacity) > self.limit;
        let size = if crowded { capacity.min(SMALL) } else { capacity };
        let pooled = if size == self.size { self.free.pop() } else { None };
        Storage::new(pooled.unwrap_or_else(|| vec![0; size].into_boxed_slice()), &self.leased)
    }

    fn give_back(&mut self, mut storage: Storage) {
        let bytes = storage.take();
        if bytes.len() == self.size && (self.free.len() + 1) * self.size <= KEPT_BYTES {
            self.free.push(bytes);
        }
    }
}

/// Leased bytes. However they end, even in a panic, the meter hears of it.
#[derive(Default)]
struct Storage {
    bytes: Box<[u8]>,
    meter: Option<Rc<Cell<usize>>>,
}

impl Storage {
    fn new(bytes: Box<[u8]>, meter: &Rc<Cell<usize>>) -> Self {
        meter.set(meter.get() + bytes.len());
        Storage { bytes, meter: Some(Rc::clone(meter)) }
    }

    fn take(&mut self) -> Box<[u8]> {
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(meter) = &self.meter {
            meter.set(meter.get().saturating_sub(bytes.len()));
        }
        bytes
    }

    /// Grows to `size` bytes.
    fn grow(&mut self, size: usize) {
        let mut grown = self.take().into_vec();
        grown.resize(size, 0);
        self.bytes = grown.into_boxed_slice();
        if let Some(meter) = &self.meter {
            meter.set(meter.get() + self.bytes.len());
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// A queue of bytes with a fixed capacity.
#[derive(Default)]
pub struct Buffer {
    /// Empty while there is nothing to hold.
    storage: Storage,
    /// The bytes are `storage.bytes[start..end]`, and `start <= end <= storage.bytes.len()` always.
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that wait, oldest first.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes.get(self.start..self.end).unwrap_or_default()
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
        } else if self.end == self.storage.bytes.len() {
            self.compact();
        }
        let space = self.storage.bytes.get_mut(self.end..).filter(|space| !space.is_empty())?;
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
        if needed > self.storage.bytes.len() {
            self.storage.grow(needed);
        }
        if let Some(space) = self.storage.bytes.get_mut(self.end..needed) {
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
        if !storage.bytes.is_empty() {
            pool.give_back(storage);
        }
    }

    /// Moves the bytes to the front, so that the free space is behind them in one piece.
    fn compact(&mut self) {
        if self.start > 0 {
            self.storage.bytes.copy_within(self.start..self.end, 0);
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

    const LIMIT: usize = usize::MAX;

    #[test]
    fn past_the_limit_leases_are_small() {
        let mut pool = Pool::new(65536, 100_000);
        let mut buffers: Vec<Buffer> = (0..3).map(|_| Buffer::default()).collect();
        for (buffer, taken) in buffers.iter_mut().zip([65536, SMALL, SMALL]) {
            assert_eq!(put(buffer, &mut pool, 65536, &[7; 65536]), Some(taken));
        }
        assert_eq!(pool.leased(), 65536 + 2 * SMALL);
        let first = buffers.swap_remove(0);
        drop(first);
        assert_eq!(pool.leased(), 2 * SMALL, "dropped storage is metered too");
        assert_eq!(put(&mut Buffer::default(), &mut pool, 65536, &[7; 65536]), Some(65536));
    }

    fn put(buffer: &mut Buffer, pool: &mut Pool, capacity: usize, bytes: &[u8]) -> Option<usize> {
        buffer.fill(pool, capacity, |space| {
            let count = bytes.len().min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            (count, count)
        })
    }

    #[test]
    fn an_empty_buffer_owns_no_storage() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(4, LIMIT));
        assert_eq!(put(&mut buffer, &mut pool, 4, b""), Some(0));
        assert_eq!(buffer.storage.bytes.len(), 0);
        assert_eq!(pool.free.len(), 1);
        assert_eq!(put(&mut buffer, &mut pool, 4, b"abcdef"), Some(4));
        assert_eq!(put(&mut buffer, &mut pool, 4, b"ef"), None);
        assert_eq!((buffer.bytes(), pool.free.len()), (&b"abcd"[..], 0));
        buffer.consume(&mut pool, 3);
        assert_eq!(put(&mut buffer, &mut pool, 4, b"ef"), Some(2));
        assert_eq!(buffer.bytes(), b"def");
        buffer.consume(&mut pool, 3);
        assert_eq!((buffer.storage.bytes.len(), pool.free.len()), (0, 1));
    }

    #[test]
    fn a_new_capacity_acts_from_the_next_lease() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(4, LIMIT));
        put(&mut buffer, &mut pool, 4, b"abcd");
        pool.resize(2);
        assert_eq!(buffer.bytes(), b"abcd");
        buffer.consume(&mut pool, 4);
        assert_eq!(pool.free.len(), 0);
        assert_eq!(put(&mut buffer, &mut pool, 2, b"abcd"), Some(2));
    }

    #[test]
    fn a_pool_keeps_a_bounded_amount() {
        let mut pool = Pool::new(KEPT_BYTES / 2, LIMIT);
        for _ in 0..5 {
            let storage = Storage::new(vec![0; KEPT_BYTES / 2].into(), &pool.leased);
            pool.give_back(storage);
        }
        assert_eq!(pool.free.len(), 2);
    }

    #[test]
    fn append_loses_nothing() {
        let (mut buffer, mut pool) = (Buffer::default(), Pool::new(4, LIMIT));
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
            let (mut buffer, mut pool) = (Buffer::default(), Pool::new(8, LIMIT));
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
                prop_assert_eq!(buffer.storage.bytes.is_empty(), buffer.is_empty());
                prop_assert_eq!(pool.leased(), buffer.storage.bytes.len() * usize::from(buffer.storage.meter.is_some()));
            }
        }
    }
}
