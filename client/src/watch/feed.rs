//! Two sessions with the server, each in a thread of its own: one asks in regular intervals and closes
//! connections, the other hears of events. A third thread reads the keyboard, and while the server is away, a fourth
//! tries to reach it. All that they learn comes out of one bounded queue.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use metp_protocol::{Command, ConnectionId, LogSelection, Topic, Topics};

use super::input::{self, KeyPress};
use super::model::MAX_CONNECTIONS;
use super::news::{self, ConnectionInfo, LogLine, LogRecord, ServerStatus, Snapshot, WatchEvent};
use super::poll::{KEEPALIVE, Pace, Totals, require_1_1};
use crate::connection::Closer;
use crate::failure::Failure;
use crate::render;
use crate::retry::{Attempts, Backoff};
use crate::session::{Server, Session};

/// Update that wait for the screen. A thread whose news find no room taken, and lets the server wait.
const QUEUED_UPDATES: usize = 256;
/// Orders that wait for the server.
const QUEUED_KILLS: usize = 4;
/// Octets of a list of connections: of as many as are kept, if their lines are as long as most are.
const LIST_LIMIT_BYTES: usize = 48 << 20;
/// Records of the access log to begin with.
const INITIAL_RECORDS: u64 = 100;

/// What has been learnt.
pub enum Update {
    /// How things are, at an interval.
    Snapshot(Snapshot, SnapshotPermit),
    /// Something has happened.
    Event(WatchEvent),
    /// What came of an order.
    KillResult(String),
    /// Somebody has pressed a key.
    Key(KeyPress),
    /// The terminal is gone.
    TerminalGone,
    /// The server is back after a restart.
    Reconnected(Box<Reconnected>),
    /// There will be no more news, unless the server comes back.
    Ended(Failure),
}

/// What there is after a restart.
pub struct Reconnected {
    sessions: SessionPair,
    backoff: Backoff,
    /// The newest lines of the access log that are over.
    pub records: Vec<LogLine>,
}

/// Update, and the number of the sessions that they are of. The keyboard's have none.
struct Message {
    sessions: Option<u64>,
    news: Update,
}

/// WatchConfig the threads of some sessions put what they learn.
#[derive(Clone)]
struct UpdateSender {
    channel: SyncSender<Message>,
    sessions: Option<u64>,
}

impl UpdateSender {
    /// Waits for room. `false`: nobody listens any more.
    fn send(&self, news: Update) -> bool {
        self.channel.send(Message { sessions: self.sessions, news }).is_ok()
    }
}

/// A look that has not been taken yet. Looks can be large: there is one at a time, and where the screen is not
/// drawn, because nobody takes it, there are no more.
pub struct SnapshotPermit(Arc<AtomicBool>);

impl SnapshotPermit {
    fn begin(taken: &Arc<AtomicBool>) -> Option<Self> {
        (!taken.swap(true, Ordering::AcqRel)).then(|| SnapshotPermit(Arc::clone(taken)))
    }
}

impl Drop for SnapshotPermit {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Both sessions. When they are dropped, their connections end, and so do their threads.
struct SessionPair {
    kills: SyncSender<ConnectionId>,
    threads: [JoinHandle<()>; 2],
    closers: [Closer; 2],
}

impl SessionPair {
    /// Begins both with what logs in, and hands out the newest lines of the access log that are over.
    fn begin(
        log_in: impl Fn() -> Result<Session, Failure>,
        interval: Duration,
        updates: &UpdateSender,
    ) -> Result<(Self, Vec<LogLine>), Failure> {
        let mut poller = log_in()?;
        require_1_1(&mut poller)?;
        let mut subscriber = log_in()?;
        let records = records(&mut subscriber)?;
        let topics = Topics::default().with(Topic::Connections).with(Topic::Logs);
        subscriber.command(&Command::Subscribe(topics, Duration::from_secs(1)))?;
        // What ends from now on is told of.
        let records = news::finished(records, &connections(&mut poller)?);
        let closers = [poller.closer()?, subscriber.closer()?];
        let (kills, kills_receiver) = sync_channel(QUEUED_KILLS);
        let asked = updates.clone();
        let poller = spawn(move || {
            report_end(poll_server(&mut poller, interval, &kills_receiver, &asked), &asked)
        })?;
        let heard = updates.clone();
        let subscriber =
            spawn(move || report_end(receive_events(&mut subscriber, &heard), &heard))?;
        Ok((SessionPair { kills, threads: [poller, subscriber], closers }, records))
    }
}

impl Drop for SessionPair {
    fn drop(&mut self) {
        self.closers.iter().for_each(Closer::close);
    }
}

/// WatchConfig news come from at present.
enum Source {
    /// The server is there.
    SessionPair(SessionPair),
    /// It is away, and this thread tries to reach it.
    Attempts(JoinHandle<()>),
}

/// Everything that there is news of.
pub struct Feed {
    server: Server,
    interval: Duration,
    receiver: Receiver<Message>,
    channel: SyncSender<Message>,
    /// How many times there have been sessions.
    number: u64,
    source: Source,
    backoff: Backoff,
    since: Instant,
}

impl Feed {
    /// Opens both sessions, and hands out the newest lines of the access log that are over.
    ///
    /// # Errors
    /// If the server is not there, speaks METP/1.0 only, or the account may not ask.
    pub fn open(server: &Server, interval: Duration) -> Result<(Self, Vec<LogLine>), Failure> {
        let (channel, receiver) = sync_channel(QUEUED_UPDATES);
        let updates = UpdateSender { channel: channel.clone(), sessions: Some(0) };
        let (sessions, records) = SessionPair::begin(|| server.log_in(), interval, &updates)?;
        let feed = Feed {
            server: server.clone(),
            interval,
            receiver,
            channel,
            number: 0,
            source: Source::SessionPair(sessions),
            backoff: Backoff::default(),
            since: Instant::now(),
        };
        Ok((feed, records))
    }

    /// Has the keys of a terminal be news, too.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub fn read_keys(&self, terminal: File) -> Result<(), Failure> {
        let updates = UpdateSender { channel: self.channel.clone(), sessions: None };
        spawn(move || {
            if input::read_keys(terminal, |key| updates.send(Update::Key(key))) {
                // Nobody may listen any more.
                updates.send(Update::TerminalGone);
            }
        })
        .map(drop)
    }

    /// Waits for news. `None`: there are none yet.
    ///
    /// # Errors
    /// If there cannot be any more.
    pub fn wait(&self, timeout: Duration) -> Result<Option<Update>, Failure> {
        match self.receiver.recv_timeout(timeout) {
            Ok(message) => return Ok(self.current(message)),
            Err(_) if !self.is_over() => return Ok(None),
            Err(_) => {}
        }
        // Its last words come before its end.
        match self.receiver.try_recv() {
            Ok(message) => Ok(self.current(message)),
            Err(_) => Err(Failure::Broken("The watch has broken off".to_owned())),
        }
    }

    /// The next news, if there are any: of those, `None` are of sessions that have ended.
    pub fn next(&self) -> Option<Option<Update>> {
        match self.receiver.try_recv() {
            Ok(message) => Some(self.current(message)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    fn current(&self, Message { sessions, news }: Message) -> Option<Update> {
        sessions.is_none_or(|sessions| sessions == self.number).then_some(news)
    }

    /// Whether a thread has ended that should not. Its last news may not have been taken yet.
    fn is_over(&self) -> bool {
        match &self.source {
            Source::SessionPair(sessions) => sessions.threads.iter().any(JoinHandle::is_finished),
            Source::Attempts(thread) => thread.is_finished(),
        }
    }

    /// Asks for the end of a connection; [`Update::KillResult`] tells what comes of it. `false` if too many kills
    /// wait already, or the server is away.
    pub fn kill(&self, id: ConnectionId) -> bool {
        match &self.source {
            // If the thread is gone, its news tell why.
            Source::SessionPair(sessions) => {
                !matches!(sessions.kills.try_send(id), Err(TrySendError::Full(_)))
            }
            Source::Attempts(_) => false,
        }
    }

    /// The sessions have ended. Tries to reach the server again, until [`Update::Reconnected`].
    ///
    /// # Errors
    /// Why they have ended, if that is no matter of permit.
    pub fn reconnect(&mut self, ended: Failure) -> Result<(), Failure> {
        let backoff = std::mem::take(&mut self.backoff);
        let lasted = self.since.elapsed();
        let Some(mut attempts) = Attempts::after(&self.server, &ended, backoff, lasted) else {
            return Err(ended);
        };
        self.number = self.number.saturating_add(1);
        let updates = UpdateSender { channel: self.channel.clone(), sessions: Some(self.number) };
        let (server, interval) = (self.server.clone(), self.interval);
        let thread = spawn(move || {
            let begun = attempts.run(
                ended,
                |_| (),
                |time| SessionPair::begin(|| server.log_in_once(time), interval, &updates),
            );
            // Nobody may listen any more.
            updates.send(match begun {
                Ok((sessions, records)) => {
                    let backoff = attempts.into_backoff();
                    Update::Reconnected(Box::new(Reconnected { sessions, backoff, records }))
                }
                Err(failure) => Update::Ended(failure),
            });
        })?;
        // The sessions before end with this.
        self.source = Source::Attempts(thread);
        Ok(())
    }

    /// Takes the sessions with a server that is back. Returns the newest lines of its access log that are over.
    pub fn resume(&mut self, back: Reconnected) -> Vec<LogLine> {
        let Reconnected { sessions, backoff, records } = back;
        self.source = Source::SessionPair(sessions);
        self.backoff = backoff;
        self.since = Instant::now();
        records
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let no_thread = |error: io::Error| Failure::Broken(format!("Cannot start a thread: {error}"));
    thread::Builder::new().spawn(work).map_err(no_thread)
}

/// Tells why there are no more news, unless nobody listens any more.
fn report_end(ended: Result<(), Failure>, updates: &UpdateSender) {
    if let Err(failure) = ended {
        updates.send(Update::Ended(failure));
    }
}

/// Hears of events. Ends when nobody listens.
fn receive_events(session: &mut Session, updates: &UpdateSender) -> Result<(), Failure> {
    loop {
        let (topic, fields) = session.next_event()?;
        if let Some(event) = WatchEvent::parse(&topic, &fields)
            && !updates.send(Update::Event(event))
        {
            return Ok(());
        }
    }
}

/// Looks at the server at each interval, and gives kills in between. Ends when nobody listens.
fn poll_server(
    session: &mut Session,
    interval: Duration,
    kills: &Receiver<ConnectionId>,
    updates: &UpdateSender,
) -> Result<(), Failure> {
    let mut pace = Pace::new(interval, Instant::now());
    let taken = Arc::default();
    loop {
        if let Some(permit) = SnapshotPermit::begin(&taken)
            && !updates.send(Update::Snapshot(take_snapshot(session)?, permit))
        {
            return Ok(());
        }
        pace.next(Instant::now());
        while let Some(left) = pace.left(Instant::now()) {
            match kills.recv_timeout(left.min(KEEPALIVE)) {
                Ok(id) => {
                    let answer = kill(session, id)?;
                    if !updates.send(Update::KillResult(answer)) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                // A session that says nothing for too long is closed.
                Err(RecvTimeoutError::Timeout) if left > KEEPALIVE => {
                    session.command(&Command::Ping(None))?;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn take_snapshot(session: &mut Session) -> Result<Snapshot, Failure> {
    let totals = Totals::query(session)?;
    let at = Instant::now();
    let mut status = ServerStatus::default();
    session.query(&Command::Info)?.lines.iter().for_each(|line| status.take(line));
    let list = connections(session)?;
    Ok(Snapshot { at, connections: totals.connections, bytes: totals.bytes, status, list })
}

fn connections(session: &mut Session) -> Result<Vec<ConnectionInfo>, Failure> {
    let (mut list, mut octets) = (Vec::new(), 0_usize);
    session.command(&Command::Connections(None))?;
    session.read_body(|line| {
        octets = octets.saturating_add(line.len());
        if list.len() >= MAX_CONNECTIONS || octets > LIST_LIMIT_BYTES {
            return Err(Failure::Broken("The server has too many connections to watch".to_owned()));
        }
        list.push(ConnectionInfo::parse(&render::text(line)));
        Ok(())
    })?;
    Ok(list)
}

/// What there is to say of it: that it is done, or why it is not.
fn kill(session: &mut Session, id: ConnectionId) -> Result<String, Failure> {
    match session.command(&Command::Kill(id)) {
        Ok(_) => Ok(format!("Cut {id}")),
        Err(Failure::Refused(answer)) => Ok(format!("{id} has not been cut: {answer}")),
        Err(failure) => Err(failure),
    }
}

fn records(session: &mut Session) -> Result<Vec<LogRecord>, Failure> {
    let selection = LogSelection { last: Some(INITIAL_RECORDS), user: None };
    session.command(&Command::GetLogs(selection))?;
    let mut lines = Vec::new();
    session.read_body(|line| {
        lines.push(LogRecord::parse(line));
        if lines.len() as u64 > INITIAL_RECORDS {
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
        let taken = Arc::default();
        let first = SnapshotPermit::begin(&taken);
        assert!(first.is_some() && SnapshotPermit::begin(&taken).is_none());
        drop(first);
        assert!(SnapshotPermit::begin(&taken).is_some());
    }
}
