//! What an event belongs to, and how that travels in the 64 bits of a token.

use mio::Token;

use super::slab::Key;

/// The number of a listener. The server gives it and knows what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub u16);

/// Which of a session's descriptors, four at most. What the other three are depends on the session's state:
///
/// | | `Client` | `First` | `Second` | `Third` |
/// |---|---|---|---|---|
/// | CONNECT | accepted | the target | | |
/// | CONNECT, several attempts at once | accepted | attempt | attempt | attempt |
/// | BIND | accepted | the listener | the accepted peer | |
/// | UDP ASSOCIATE | accepted (control) | towards the client | towards IPv4 targets | towards IPv6 targets |
///
/// A state ignores events of a side that it does not use: they may be left over from the state before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The connection that was accepted.
    Client,
    /// The first further descriptor: the target's, with CONNECT.
    First,
    /// The second further descriptor.
    Second,
    /// The third further descriptor.
    Third,
}

impl Side {
    /// All sides, in the order of their numbers in a token.
    pub const ALL: [Side; 4] = [Side::Client, Side::First, Side::Second, Side::Third];
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Connections wait to be accepted.
    Listener(ListenerId),
    /// Another thread has called the [`Waker`](super::waker::Waker).
    Wake,
    /// A signal has been delivered.
    Signal,
    /// Another server asks for the listeners.
    Takeover,
    /// A session's descriptor is ready.
    Session(Key, Side),
}

const _: () = assert!(usize::BITS >= 64, "a token has to hold a whole key");

/// The bit of a token that says that it belongs to a session.
const SESSION_BIT: u64 = 1 << 63;
/// The two bits of the side, or of the kind if it is no session.
const SIDE_SHIFT: u32 = 61;

/// ```text
///  63 62 61 60                          32 31                            0
/// +--+-----+------------------------------+------------------------------+
/// | 1| side| generation (29 bits)         | slot (32 bits)               |  session
/// +--+-----+------------------------------+------------------------------+
/// | 0| kind| 0                            | 0 | number of a listener     |  0 listener, 1 wake-up, 2 signal, 3 takeover
/// +--+-----+------------------------------+------------------------------+
/// ```
impl From<Source> for Token {
    fn from(source: Source) -> Self {
        let bits = match source {
            Source::Session(key, side) => SESSION_BIT | (side as u64) << SIDE_SHIFT | key.pack(),
            Source::Listener(ListenerId(number)) => u64::from(number),
            Source::Wake => 1 << SIDE_SHIFT,
            Source::Signal => 2 << SIDE_SHIFT,
            Source::Takeover => 3 << SIDE_SHIFT,
        };
        Token(bits as usize)
    }
}

impl From<Token> for Source {
    fn from(token: Token) -> Self {
        let bits = token.0 as u64;
        match (bits & SESSION_BIT != 0, bits >> SIDE_SHIFT & 3) {
            (true, 0) => Source::Session(Key::unpack(bits), Side::Client),
            (true, 1) => Source::Session(Key::unpack(bits), Side::First),
            (true, 2) => Source::Session(Key::unpack(bits), Side::Second),
            (true, _) => Source::Session(Key::unpack(bits), Side::Third),
            (false, 0) => Source::Listener(ListenerId(bits as u16)),
            (false, 1) => Source::Wake,
            (false, 2) => Source::Signal,
            (false, _) => Source::Takeover,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_two_sources_share_a_token() {
        let listeners = [0, 1, u16::MAX].map(|number| Source::Listener(ListenerId(number)));
        let keys = [0, 1, 1 << 31, 1 << 32, 1 << 60, u64::MAX].map(Key::unpack);
        let sessions =
            keys.into_iter().flat_map(|key| Side::ALL.map(|side| Source::Session(key, side)));
        let all: Vec<Source> = sessions
            .chain(listeners)
            .chain([Source::Wake, Source::Signal, Source::Takeover])
            .collect();
        for source in &all {
            let token = Token::from(*source);
            assert_eq!(Source::from(token), *source);
            let others = all.iter().filter(|other| Token::from(**other) == token).count();
            assert_eq!(others, 1, "{source:?} shares its token");
        }
    }

    proptest! {
        #![proptest_config(support::property::config(256))]

        #[test]
        fn sessions_survive_as_tokens(bits: u64, side in prop::sample::select(&Side::ALL[..])) {
            let source = Source::Session(Key::unpack(bits), side);
            prop_assert_eq!(Source::from(Token::from(source)), source);
        }

        #[test]
        fn every_token_means_something(bits: usize) {
            let source = Source::from(Token(bits));
            prop_assert_eq!(Source::from(Token::from(source)), source);
        }
    }
}
