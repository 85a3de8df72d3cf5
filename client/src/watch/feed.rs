//! Two sessions with the server, each in a thread of its own: one asks in regular intervals and closes
//! connections, the other hears of events. A third thread reads the keyboard. All that they learn comes out of
//! one bounded queue.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socks5d::proto::metp::{Command, ConnectionId, LogSelection, Topic, Topics};

use super::figures::Totals;
use super::keyboard::{self, Key};
use super::model::MOST_CONNECTIONS;
use super::news::{Condition, Connection, Event, LogLine, Look};
use super::pace::{Pace, STIR};
use super::records::{self, Record};
use crate::answer::{Answer, Kind};
use crate::conversation::{Conversation, Failure, Server};
use crate::render;

/// News that wait for the screen. A thread whose news find no room waits, and lets the server wait.
const MOST_NEWS: usize = 256;
/// Orders that wait for the server.
const MOST_ORDERS: usize = 4;
/// Octets of a list of connections: of as many as are kept, if their lines are as long as most are.
const MOST_OCTETS: usize = 48 << 20;
/// Records of the access log to begin with.
const FIRST_RECORDS: u64 = 100;

/// What has been learnt.
pub enum News {
    /// How things are, at an interval.
    Look(Look, Waiting),
    /// Something has happened.
    Event(Event),
    /// What came of an order.
    Answer(String),
    /// Somebody has pressed a key.
    Key(Key),
    /// The terminal is gone.
    Unplugged,
    /// There will be no more news.
    Over(Failure),
}

/// A look that has not been taken yet. Looks can be large: there is one at a time, and where the screen is not
/// drawn, because nobody takes it, there are no more.
pub struct Waiting(Arc<AtomicBool>);

impl Waiting {
    fn begin(waits: &Arc<AtomicBool>) -> Option<Self> {
        (!waits.swap(true, Ordering::AcqRel)).then(|| Waiting(Arc::clone(waits)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Both sessions, and the keyboard.
pub struct Feed {
    /// What they learn.
    pub news: Receiver<News>,
    sender: SyncSender<News>,
    orders: SyncSender<ConnectionId>,
    sessions: [JoinHandle<()>; 2],
}

impl Feed {
    /// Opens both, and hands out the newest lines of the access log that are over.
    ///
    /// # Errors
    /// If the server is not there, speaks METP/1.0 only, or the account may not ask.
    pub fn open(server: &Server, interval: Duration) -> Result<(Self, Vec<LogLine>), Failure> {
        let mut asking = server.log_in()?;
        super::require_1_1(&mut asking)?;
        let mut hearing = server.log_in()?;
        let records = records(&mut hearing)?;
        let topics = Topics::default().with(Topic::Connections).with(Topic::Logs);
        hearing.command(&Command::Subscribe(topics, Duration::from_secs(1)))?;
        // What ends from now on is told of.
        let records = records::over(records, &connections(&mut asking)?);
        let (sender, news) = sync_channel(MOST_NEWS);
        let (orders, orders_receiver) = sync_channel(MOST_ORDERS);
        let asked = sender.clone();
        let asking =
            spawn(move || over(ask(&mut asking, interval, &orders_receiver, &asked), &asked))?;
        let heard = sender.clone();
        let hearing = spawn(move || over(hear(&mut hearing, &heard), &heard))?;
        let sessions = [asking, hearing];
        Ok((Feed { news, sender, orders, sessions }, records))
    }

    /// Has the keys of a terminal be news, too.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub fn listen(&self, terminal: File) -> Result<(), Failure> {
        let sender = self.sender.clone();
        spawn(move || {
            if keyboard::read(terminal, |key| sender.send(News::Key(key)).is_ok()) {
                // Nobody may listen any more.
                let _ = sender.send(News::Unplugged);
            }
        })
        .map(drop)
    }

    /// Whether a session is over. Its last news may not have been taken yet.
    pub fn is_over(&self) -> bool {
        self.sessions.iter().any(JoinHandle::is_finished)
    }

    /// Asks for the end of a connection; [`News::Answer`] tells what comes of it. `false` if too many orders
    /// wait already.
    pub fn cut(&self, id: ConnectionId) -> bool {
        // If the thread is gone, its news tell why.
        !matches!(self.orders.try_send(id), Err(TrySendError::Full(_)))
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let no_thread = |error: io::Error| Failure::Broken(format!("Cannot start a thread: {error}"));
    thread::Builder::new().spawn(work).map_err(no_thread)
}

/// Tells why there are no more news, unless nobody listens any more.
fn over(ended: Result<(), Failure>, news: &SyncSender<News>) {
    if let Err(failure) = ended {
        let _ = news.send(News::Over(failure));
    }
}

/// Hears of events. Ends when nobody listens.
fn hear(conversation: &mut Conversation, news: &SyncSender<News>) -> Result<(), Failure> {
    loop {
        let (topic, fields) = conversation.event()?;
        if let Some(event) = Event::parse(&topic, &fields)
            && news.send(News::Event(event)).is_err()
        {
            return Ok(());
        }
    }
}

/// Looks at the server at each interval, and gives orders in between. Ends when nobody listens.
fn ask(
    conversation: &mut Conversation,
    interval: Duration,
    orders: &Receiver<ConnectionId>,
    news: &SyncSender<News>,
) -> Result<(), Failure> {
    let mut pace = Pace::new(interval, Instant::now());
    let waits = Arc::default();
    loop {
        if let Some(waiting) = Waiting::begin(&waits)
            && news.send(News::Look(look(conversation)?, waiting)).is_err()
        {
            return Ok(());
        }
        pace.next(Instant::now());
        while let Some(left) = pace.left(Instant::now()) {
            match orders.recv_timeout(left.min(STIR)) {
                Ok(id) => {
                    let answer = cut(conversation, id)?;
                    if news.send(News::Answer(answer)).is_err() {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                // A session that says nothing for too long is closed.
                Err(RecvTimeoutError::Timeout) if left > STIR => {
                    conversation.command(&Command::Ping(None))?;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn look(conversation: &mut Conversation) -> Result<Look, Failure> {
    let totals = Totals::ask(conversation)?;
    let at = Instant::now();
    let mut condition = Condition::default();
    let text = conversation.command(&Command::Info)?;
    let told = Answer::read(Kind::Pairs, text, conversation)?;
    told.lines.iter().for_each(|line| condition.take(line));
    let list = connections(conversation)?;
    Ok(Look { at, connections: totals.connections, bytes: totals.bytes, condition, list })
}

fn connections(conversation: &mut Conversation) -> Result<Vec<Connection>, Failure> {
    let (mut list, mut octets) = (Vec::new(), 0_usize);
    conversation.command(&Command::Connections(None))?;
    conversation.body(|line| {
        octets = octets.saturating_add(line.len());
        if list.len() >= MOST_CONNECTIONS || octets > MOST_OCTETS {
            return Err(Failure::Broken("The server has too many connections to watch".to_owned()));
        }
        list.push(Connection::parse(&render::text(line)));
        Ok(())
    })?;
    Ok(list)
}

/// What there is to say of it: that it is done, or why it is not.
fn cut(conversation: &mut Conversation, id: ConnectionId) -> Result<String, Failure> {
    match conversation.command(&Command::Kill(id)) {
        Ok(_) => Ok(format!("Cut {id}")),
        Err(Failure::Refused(answer)) => Ok(format!("{id} has not been cut: {answer}")),
        Err(failure) => Err(failure),
    }
}

fn records(conversation: &mut Conversation) -> Result<Vec<Record>, Failure> {
    let selection = LogSelection { last: Some(FIRST_RECORDS), user: None };
    conversation.command(&Command::GetLogs(selection))?;
    let mut lines = Vec::new();
    conversation.body(|line| {
        lines.push(Record::parse(line));
        if lines.len() as u64 > FIRST_RECORDS {
            return Err(Failure::Broken("The server tells more than it was asked".to_owned()));
        }
        Ok(())
    })?;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_waits_at_a_time() {
        let waits = Arc::default();
        let first = Waiting::begin(&waits);
        assert!(first.is_some() && Waiting::begin(&waits).is_none());
        drop(first);
        assert!(Waiting::begin(&waits).is_some());
    }
}
