//! The structures of C for one call of recvmmsg(2) or sendmmsg(2).

use std::ops::Range;

use super::address::RawAddress;

/// Bytes of a control message with a number: its header, the number, and what fills it up.
pub const CONTROL_BYTES: usize = 24;
/// Where the number of a control message is.
pub const CONTROL_DATA: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(CONTROL_DATA + size_of::<libc::c_int>() <= CONTROL_BYTES);

/// The control message of one message.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Control(pub [u8; CONTROL_BYTES]);

/// Space for the structures of one call. Between calls nothing in it points anywhere.
#[derive(Default)]
pub struct Space {
    pub messages: Vec<libc::mmsghdr>,
    pub parts: Vec<libc::iovec>,
    pub names: Vec<RawAddress>,
    pub controls: Vec<Control>,
    /// Which entries of the outbox each message holds.
    pub groups: Vec<Group>,
}

/// Entries of the outbox that travel in one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The entries.
    pub entries: Range<usize>,
    /// Bytes of each datagram but the last, headers included.
    pub segment: usize,
    /// Their payload, without headers.
    pub payload: u64,
}

impl Control {
    /// A control message that carries a number.
    pub fn with_number(level: libc::c_int, kind: libc::c_int, number: u16) -> Self {
        let mut bytes = [0; CONTROL_BYTES];
        let length = CONTROL_DATA + size_of::<u16>();
        let fields = [
            &length.to_ne_bytes()[..],
            &level.to_ne_bytes(),
            &kind.to_ne_bytes(),
            &number.to_ne_bytes(),
        ];
        bytes.iter_mut().zip(fields.into_iter().flatten()).for_each(|(place, byte)| *place = *byte);
        Control(bytes)
    }

    /// The number, if it is a message of this level and kind.
    pub fn number(&self, level: libc::c_int, kind: libc::c_int) -> Option<libc::c_int> {
        let number =
            |at: usize| self.0.get(at..at + 4)?.try_into().ok().map(libc::c_int::from_ne_bytes);
        let [found_level, found_kind] = [CONTROL_DATA - 8, CONTROL_DATA - 4].map(number);
        ((found_level, found_kind) == (Some(level), Some(kind)))
            .then(|| number(CONTROL_DATA))
            .flatten()
    }
}

impl Space {
    /// Empties it, so that nothing in it points anywhere.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.parts.clear();
        self.names.clear();
        self.controls.clear();
        self.groups.clear();
    }
}
