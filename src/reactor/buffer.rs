//! Buffers: a window over storage that is leased from a pool.
//!
//! A buffer holds storage only while it holds bytes. Its capacity is fixed when storage is leased, so a
//! changed setting applies from the next lease on and can neither lose nor reorder a byte.

use std::cell::Cell;
use std::rc::Rc;

use super::datagram::{OpenPorts, Scratch};
use super::pipe::Pipes;

/// Storage of one size, used again and again. The piece returned last is leased first: it is still in the cache.
///
/// What is leased is metered. Past the limit only pieces of [`SMALL_LEASE`] bytes are leased, so that memory
/// stays bounded while every tunnel still moves.
pub struct Pool {
    size: usize,
    /// Leased bytes from which on further leases are small.
    limit: usize,
    leased: Rc<Cell<usize>>,
    #[expect(clippy::vec_box, reason = "they stay in their boxes when they are lent")]
    free: Vec<Box<Storage>>,
    /// What streaming lanes use in place of storage.
    pub pipes: Pipes,
    /// The ports of sockets for datagrams.
    pub ports: OpenPorts,
    /// Space for a batch of datagrams, while no association has its turn.
    scratch: Option<Box<Scratch>>,
}

/// Bytes of free storage that are kept for the next leases; the rest goes back to the allocator.
const KEPT_BYTES: usize = 4 << 20;

/// The size of a lease past the limit, in bytes.
pub const SMALL_LEASE: usize = 4096;

impl Pool {
    /// A pool of pieces of `size` bytes (at least 1); leases beyond `limit` bytes in all are of [`SMALL_LEASE`].
    pub fn new(size: usize, limit: usize) -> Self {
        Pool {
            size: size.max(1),
            limit,
            leased: Rc::default(),
            free: Vec::new(),
            pipes: Pipes::default(),
            ports: OpenPorts::default(),
            scratch: None,
        }
    }

    /// The size of a lease, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Sets the size of leases from now on, in bytes.
    pub fn resize(&mut self, size: usize) {
        if size.max(1) != self.size {
            self.size = size.max(1);
            self.free.clear();
        }
    }

    /// Sets the soft limit: leases beyond `limit` bytes in all are of [`SMALL_LEASE`] bytes.
    pub fn limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Bytes that are leased now.
    pub fn leased(&self) -> usize {
        self.leased.get()
    }

    /// Space for a batch of datagrams; to be returned by [`Pool::keep_scratch`]. What a panic has lost is made anew.
    pub fn take_scratch(&mut self) -> Box<Scratch> {
        self.scratch.take().unwrap_or_default()
    }

    /// Keeps the space for the next batch.
    pub fn keep_scratch(&mut self, scratch: Box<Scratch>) {
        self.scratch = Some(scratch);
    }

    fn lease(&mut self, capacity: usize) -> Box<Storage> {
        let past_limit = self.leased.get().saturating_add(capacity) > self.limit;
        let size = if past_limit { capacity.min(SMALL_LEASE) } else { capacity };
        let pooled = if size == self.size { self.free.pop() } else { None };
        let mut storage = pooled.unwrap_or_else(|| Box::new(Storage::new(size)));
        storage.meter(&self.leased);
        storage
    }

    fn give_back(&mut self, mut storage: Box<Storage>) {
        storage.unmeter();
        if storage.bytes.len() == self.size && (self.free.len() + 1) * self.size <= KEPT_BYTES {
            (storage.start, storage.end) = (0, 0);
            self.free.push(storage);
        }
    }
}

/// Leased bytes and the window of them that is filled. Dropping them, even in a panic, takes them off the meter.
struct Storage {
    bytes: Box<[u8]>,
    /// `start <= end <= bytes.len()` always.
    start: usize,
    end: usize,
    meter: Option<Rc<Cell<usize>>>,
}

impl Storage {
    fn new(size: usize) -> Self {
        Storage { bytes: vec![0; size].into_boxed_slice(), start: 0, end: 0, meter: None }
    }

    fn meter(&mut self, meter: &Rc<Cell<usize>>) {
        meter.set(meter.get() + self.bytes.len());
        self.meter = Some(Rc::clone(meter));
    }

    fn unmeter(&mut self) -> Option<Rc<Cell<usize>>> {
        let meter = self.meter.take()?;
        meter.set(meter.get().saturating_sub(self.bytes.len()));
        Some(meter)
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves the filled window to the front, so that the free space after it is contiguous.
    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Grows to `size` bytes.
    fn grow(&mut self, size: usize) {
        let meter = self.unmeter();
        let mut grown = std::mem::take(&mut self.bytes).into_vec();
        grown.resize(size, 0);
        self.bytes = grown.into_boxed_slice();
        if let Some(meter) = meter {
            self.meter(&meter);
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.unmeter();
    }
}

/// A queue of bytes with a fixed capacity. One pointer wide, since an idle tunnel has four of them.
#[derive(Default)]
pub struct Buffer {
    /// `None` while there is nothing to hold.
    storage: Option<Box<Storage>>,
}

impl Buffer {
    /// The buffered bytes, oldest first.
    pub fn bytes(&self) -> &[u8] {
        self.storage.as_ref().map_or(&[], |storage| storage.filled())
    }

    /// Whether no byte is buffered.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Appends what `read` puts into the free space. `read` gets at least one byte of space and returns the count
    /// and a result, which is passed on. `None`: the buffer is full, and `read` was not called. An empty buffer
    /// leases `capacity` bytes first.
    pub fn fill<R>(
        &mut self,
        pool: &mut Pool,
        capacity: usize,
        read: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Option<R> {
        let storage = self.storage.get_or_insert_with(|| pool.lease(capacity));
        if storage.end == storage.bytes.len() {
            storage.compact();
        }
        let space = storage.bytes.get_mut(storage.end..).filter(|space| !space.is_empty())?;
        let room = space.len();
        let (count, answer) = read(space);
        storage.end += count.min(room);
        self.consume(pool, 0);
        Some(answer)
    }

    /// Appends all of `bytes`; the storage grows as needed. For the short messages of this program itself.
    pub fn append(&mut self, bytes: &[u8]) {
        let storage = self.storage.get_or_insert_with(|| Box::new(Storage::new(bytes.len())));
        storage.compact();
        let needed = storage.end + bytes.len();
        if needed > storage.bytes.len() {
            storage.grow(needed);
        }
        if let Some(space) = storage.bytes.get_mut(storage.end..needed) {
            space.copy_from_slice(bytes);
            storage.end = needed;
        }
    }

    /// Lets a full buffer take up to `capacity` bytes in all.
    pub fn make_room(&mut self, capacity: usize) {
        if let Some(storage) = &mut self.storage
            && storage.filled().len() == storage.bytes.len()
            && storage.bytes.len() < capacity
        {
            storage.grow(capacity);
        }
    }

    /// Drops the oldest `count` bytes, and the storage with the last of them.
    pub fn consume(&mut self, pool: &mut Pool, count: usize) {
        if let Some(storage) = &mut self.storage {
            storage.start = storage.start.saturating_add(count).min(storage.end);
            if storage.start == storage.end {
                self.release(pool);
            }
        }
    }

    /// Drops all bytes and the storage.
    pub fn release(&mut self, pool: &mut Pool) {
        if let Some(storage) = self.storage.take() {
            pool.give_back(storage);
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
        for (buffer, taken) in buffers.iter_mut().zip([65536, SMALL_LEASE, SMALL_LEASE]) {
            assert_eq!(put(buffer, &mut pool, 65536, &[7; 65536]), Some(taken));
        }
        assert_eq!(pool.leased(), 65536 + 2 * SMALL_LEASE);
        let first = buffers.swap_remove(0);
        drop(first);
        assert_eq!(pool.leased(), 2 * SMALL_LEASE, "dropped storage is metered too");
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
        assert!(buffer.storage.is_none());
        assert_eq!(pool.free.len(), 1);
        assert_eq!(put(&mut buffer, &mut pool, 4, b"abcdef"), Some(4));
        assert_eq!(put(&mut buffer, &mut pool, 4, b"ef"), None);
        assert_eq!((buffer.bytes(), pool.free.len()), (&b"abcd"[..], 0));
        buffer.consume(&mut pool, 3);
        assert_eq!(put(&mut buffer, &mut pool, 4, b"ef"), Some(2));
        assert_eq!(buffer.bytes(), b"def");
        buffer.consume(&mut pool, 3);
        assert_eq!((buffer.storage.is_none(), pool.free.len()), (true, 1));
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
            pool.give_back(Box::new(Storage::new(KEPT_BYTES / 2)));
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
        #![proptest_config(support::property::config(256))]

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
                prop_assert_eq!(buffer.storage.is_none(), buffer.is_empty());
                let metered = buffer.storage.as_ref().filter(|storage| storage.meter.is_some());
                prop_assert_eq!(pool.leased(), metered.map_or(0, |storage| storage.bytes.len()));
            }
        }
    }
}
