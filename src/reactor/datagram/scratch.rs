//! The place where a batch of datagrams is received, and from where it is sent on.
//!
//! ```text
//! slot 0   | message, or a run of messages of equal length that the kernel has joined (UDP_GRO)   |
//! slot 1   | ...                                                                                  |
//! ...
//! outbox   header | slot and range | destination        one entry for each datagram
//! ```

use std::net::SocketAddr;
use std::ops::Range;

use super::address::RawAddress;

/// Messages of a batch.
pub const MESSAGES: usize = 32;
/// Bytes of a slot: no datagram is longer, and no run that the kernel joins.
pub const SLOT_BYTES: usize = 65_536;
/// The longest header in bytes: that of IPv6 (RFC 1928 §7).
pub const HEADER_BYTES: usize = 22;

/// Space for a batch of datagrams. It takes 2 MiB of address space, and memory as far as messages have ever filled it.
pub struct Scratch {
    slots: Vec<u8>,
    runs: Vec<Run>,
    pub(super) outbox: Outbox,
    /// Entries of the last outbox that were not sent, and why (errno).
    failures: Vec<(SocketAddr, i32)>,
    pub(super) space: super::space::Space,
}

/// What a slot holds: one datagram, or several of one source and length, of which the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it came from, as the kernel says it: an IPv4 address may be v4-mapped.
    pub source: SocketAddr,
    /// Bytes in all.
    pub length: usize,
    /// Bytes of each datagram but the last. At least 1.
    pub segment: usize,
    /// Whether it was longer than the slot, and has lost its end.
    pub truncated: bool,
}

/// A header in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderId(usize);

/// What is to be sent.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) entries: Vec<Entry>,
    headers: Vec<([u8; HEADER_BYTES], u8)>,
    pub(super) destinations: Vec<(SocketAddr, RawAddress)>,
    /// Payloads that are in no slot.
    copies: Vec<u8>,
}

/// A datagram that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) header: Option<HeaderId>,
    /// The slot of the payload; `None`: it is among the copies.
    pub(super) slot: Option<usize>,
    pub(super) range: Range<usize>,
    /// Its place among the destinations.
    pub(super) destination: usize,
}

impl Run {
    /// The number of datagrams.
    pub fn datagrams(&self) -> u64 {
        self.length.div_ceil(self.segment).max(1) as u64
    }

    /// Where each datagram is in the slot.
    pub fn segments(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Run { length, segment, .. } = *self;
        (0..length.max(1)).step_by(segment).map(move |start| start..(start + segment).min(length))
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            slots: vec![0; MESSAGES * SLOT_BYTES],
            runs: Vec::with_capacity(MESSAGES),
            outbox: Outbox::default(),
            failures: Vec::new(),
            space: super::space::Space::default(),
        }
    }
}

impl Scratch {
    /// The number of slots that hold something.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// What the slot of this number holds.
    pub fn run(&self, slot: usize) -> Option<Run> {
        self.runs.get(slot).copied()
    }

    /// Bytes of a slot.
    pub fn bytes(&self, slot: usize, range: Range<usize>) -> &[u8] {
        let start = slot.saturating_mul(SLOT_BYTES);
        self.slots.get(start..).and_then(|rest| rest.get(range)).unwrap_or_default()
    }

    /// Puts a header into the outbox, which the entries that follow may use.
    pub fn add_header(&mut self, header: &[u8]) -> HeaderId {
        let mut bytes = [0; HEADER_BYTES];
        let length = header.len().min(HEADER_BYTES);
        bytes.iter_mut().zip(header).for_each(|(place, byte)| *place = *byte);
        self.outbox.headers.push((bytes, length as u8));
        HeaderId(self.outbox.headers.len() - 1)
    }

    /// Puts a datagram into the outbox: a header, if it is to have one, and a part of a slot.
    pub fn push(
        &mut self,
        header: Option<HeaderId>,
        slot: usize,
        range: Range<usize>,
        to: SocketAddr,
    ) {
        let destination = self.outbox.destination(to);
        self.outbox.entries.push(Entry { header, slot: Some(slot), range, destination });
    }

    /// Puts a datagram into the outbox whose payload is in no slot.
    pub fn push_copy(&mut self, payload: &[u8], to: SocketAddr) {
        let start = self.outbox.copies.len();
        self.outbox.copies.extend_from_slice(payload);
        let (range, destination) = (start..self.outbox.copies.len(), self.outbox.destination(to));
        self.outbox.entries.push(Entry { header: None, slot: None, range, destination });
    }

    /// Where datagrams of the last outbox went that could not be sent, and why (errno), one for each.
    pub fn failures(&self) -> &[(SocketAddr, i32)] {
        &self.failures
    }

    /// Forgets what was received.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    /// A slot to receive into. Used by implementations of [`Datagrams`](super::Datagrams).
    pub fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        let start = slot.saturating_mul(SLOT_BYTES);
        self.slots.get_mut(start..).and_then(|rest| rest.get_mut(..SLOT_BYTES)).unwrap_or_default()
    }

    /// Says what the next slot holds.
    pub fn add_run(&mut self, run: Run) {
        if self.runs.len() < MESSAGES {
            self.runs.push(run);
        }
    }

    /// The datagrams of the outbox: header, payload, destination.
    pub fn outgoing(&self) -> impl Iterator<Item = (&[u8], &[u8], SocketAddr)> {
        self.outbox.entries.iter().filter_map(|entry| {
            let (destination, _) = self.outbox.destinations.get(entry.destination)?;
            Some((self.header(entry.header), self.payload(entry), *destination))
        })
    }

    /// The outbox has been sent but for what is in `failures`: empties it.
    pub fn sent(&mut self, failures: impl IntoIterator<Item = (SocketAddr, i32)>) {
        self.failures.clear();
        self.failures.extend(failures);
        self.outbox.entries.clear();
        self.outbox.headers.clear();
        self.outbox.destinations.clear();
        self.outbox.copies.clear();
    }

    /// The slots, and the space for the structures of a call.
    pub(super) fn parts(&mut self) -> (&mut [u8], &mut super::space::Space) {
        (&mut self.slots, &mut self.space)
    }

    /// Header and payload of these entries of the outbox.
    pub(super) fn contents(&self, entries: Range<usize>) -> impl Iterator<Item = (&[u8], &[u8])> {
        let entries = self.outbox.entries.get(entries).unwrap_or_default();
        entries.iter().map(|entry| (self.header(entry.header), self.payload(entry)))
    }

    /// Where this entry of the outbox goes.
    pub(super) fn destination(&self, entry: usize) -> &RawAddress {
        let found = self
            .outbox
            .entries
            .get(entry)
            .and_then(|entry| self.outbox.destinations.get(entry.destination));
        found.map_or(&RawAddress::SPACE, |(_, raw)| raw)
    }

    pub(super) fn header(&self, header: Option<HeaderId>) -> &[u8] {
        let found = header.and_then(|HeaderId(index)| self.outbox.headers.get(index));
        found.and_then(|(bytes, length)| bytes.get(..usize::from(*length))).unwrap_or_default()
    }

    pub(super) fn payload(&self, entry: &Entry) -> &[u8] {
        match entry.slot {
            Some(slot) => self.bytes(slot, entry.range.clone()),
            None => self.outbox.copies.get(entry.range.clone()).unwrap_or_default(),
        }
    }
}

impl Outbox {
    /// The place of a destination. Runs go to one, so that the last is mostly the one.
    fn destination(&mut self, to: SocketAddr) -> usize {
        if self.destinations.last().is_none_or(|(last, _)| *last != to) {
            self.destinations.push((to, to.into()));
        }
        self.destinations.len() - 1
    }
}
