//! Events (§5.18): what follows the `650` of a line that the server sends unasked.

use std::fmt;

use super::key;
use super::record::{AuthEvent, CloseEvent, LogEvent, MetricsEvent, OpenEvent};
use super::topic::Topic;
use crate::quantity::decimal;

/// The word in place of a topic where events were lost.
pub const LOST: &str = "lost";
const OPEN: &str = "open";
const CLOSE: &str = "close";

/// An event. Displays as its topic and its pairs.
///
/// ```
/// use metp_protocol::Event;
///
/// let (topic, pairs) = ("connections", "event=close id=17.3 up=512 down=0 reason=killed later-key=1");
/// let Some(Event::Close(closed)) = Event::parse(topic, pairs) else { panic!("a tunnel has ended") };
/// assert_eq!((closed.id.as_str(), closed.up), ("17.3", 512));
/// assert_eq!(Event::parse("later-topic", ""), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A tunnel has opened.
    Open(OpenEvent<'a>),
    /// A tunnel has ended.
    Close(CloseEvent<'a>),
    /// A request is over.
    Log(LogEvent<'a>),
    /// Totals.
    Metrics(MetricsEvent<'a>),
    /// A login, good or bad.
    Auth(AuthEvent<'a>),
    /// This number of events was dropped because the subscriber reads too slowly.
    Lost(u64),
}

impl<'a> Event<'a> {
    /// Reads an event: the word behind the `650`, and what follows that. `None` for one of a later version.
    pub fn parse(topic: &str, pairs: &'a str) -> Option<Self> {
        if topic == LOST {
            let count = key::COUNT.of(pairs).and_then(|count| decimal(count.as_bytes()));
            return Some(Event::Lost(count.unwrap_or(0)));
        }
        match (Topic::parse(topic.as_bytes())?, key::EVENT.of(pairs)) {
            (Topic::Connections, Some(OPEN)) => Some(Event::Open(OpenEvent::parse(pairs))),
            (Topic::Connections, Some(CLOSE)) => Some(Event::Close(CloseEvent::parse(pairs))),
            (Topic::Connections, _) => None,
            (Topic::Logs, _) => Some(Event::Log(LogEvent::parse(pairs))),
            (Topic::Metrics, _) => Some(Event::Metrics(MetricsEvent::parse(pairs))),
            (Topic::Auth, _) => Some(Event::Auth(AuthEvent::parse(pairs))),
        }
    }

    /// The topic; `None` for [`Event::Lost`], which is sent whatever the topics are.
    pub fn topic(&self) -> Option<Topic> {
        match self {
            Event::Open(_) | Event::Close(_) => Some(Topic::Connections),
            Event::Log(_) => Some(Topic::Logs),
            Event::Metrics(_) => Some(Topic::Metrics),
            Event::Auth(_) => Some(Topic::Auth),
            Event::Lost(_) => None,
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.topic().map_or(LOST, Topic::word))?;
        match self {
            Event::Open(open) => write!(f, "{}={OPEN} {open}", key::EVENT),
            Event::Close(close) => write!(f, "{}={CLOSE} {close}", key::EVENT),
            Event::Log(log) => log.fmt(f),
            Event::Metrics(metrics) => metrics.fmt(f),
            Event::Auth(auth) => auth.fmt(f),
            Event::Lost(count) => write!(f, "{}={count}", key::COUNT),
        }
    }
}
