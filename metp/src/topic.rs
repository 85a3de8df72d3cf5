//! The topics of events that a session may subscribe to.

use std::fmt;

/// A kind of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Tunnels that open and close.
    Connections,
    /// Requests that are over, as in the access log.
    Logs,
    /// Totals, in regular intervals.
    Metrics,
    /// Logins, good and bad.
    Auth,
}

impl Topic {
    /// All topics, in the order of `CAPA`.
    pub const ALL: [Topic; 4] = [Topic::Connections, Topic::Logs, Topic::Metrics, Topic::Auth];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Topic::Connections => "connections",
            Topic::Logs => "logs",
            Topic::Metrics => "metrics",
            Topic::Auth => "auth",
        }
    }

    /// Reads the word of the wire.
    ///
    /// ```
    /// use metp_protocol::Topic;
    ///
    /// assert_eq!(Topic::parse(b"logs"), Some(Topic::Logs));
    /// assert_eq!(Topic::parse(b"Logs"), None);
    /// ```
    pub fn parse(word: &[u8]) -> Option<Self> {
        Topic::ALL.into_iter().find(|topic| topic.word().as_bytes() == word)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Some topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topics(u8);

impl Topics {
    /// Adds a topic.
    ///
    /// ```
    /// use metp_protocol::{Topic, Topics};
    ///
    /// let topics = Topics::default().with(Topic::Logs).with(Topic::Auth);
    /// assert!(topics.has(Topic::Auth) && !topics.has(Topic::Metrics));
    /// assert_eq!(topics.iter().collect::<Vec<_>>(), [Topic::Logs, Topic::Auth]);
    /// ```
    #[must_use]
    pub fn with(self, topic: Topic) -> Self {
        Topics(self.0 | topic.bit())
    }

    /// Whether the topic is among them.
    pub fn has(self, topic: Topic) -> bool {
        self.0 & topic.bit() != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The topics, in the order of [`Topic::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Topic> {
        Topic::ALL.into_iter().filter(move |topic| self.has(*topic))
    }
}
