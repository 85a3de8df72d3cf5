//! Where updates of the screen come from. Two sessions, each in a thread of its own: one polls the server at
//! each interval and closes connections, the other receives events. A third thread reads the keyboard; while
//! the server is away, one tries to reconnect. All updates go through one bounded queue.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use metp_protocol::text::unescape;
use metp_protocol::{Command, ConnectionId, LogSelection, Topic, Topics};

use super::input::{self, KeyPress};
use super::limits::UserLimits;
use super::model::MAX_CONNECTIONS;
use super::news::{self, ConnectionInfo, LogLine, LogRecord, ServerStatus, Snapshot, WatchEvent};
use super::poll::{KEEPALIVE, Pace, Totals, require_1_1};
use crate::connection::Closer;
use crate::failure::Failure;
use crate::render;
use crate::retry::{Attempts, Backoff};
use crate::session::{Server, Session};

/// Updates in the queue. A thread that finds it full waits, and lets the server wait.
const QUEUED_UPDATES: usize = 256;
/// Connections that wait to be closed.
const QUEUED_KILLS: usize = 4;
/// Bytes of a list of connections that are read: enough for [`MAX_CONNECTIONS`] lines of usual length.
const LIST_LIMIT_BYTES: usize = 48 << 20;
/// Records of the access log that are read at the start.
const INITIAL_RECORDS: u64 = 100;
/// Accounts whose limits are asked for at once: more than a screen has rows for. Those with most bytes come first.
const MOST_ACCOUNTS: usize = 64;

/// What the screen has to take into account.
pub enum Update {
    /// The state of the server at an interval.
    Snapshot(Snapshot, SnapshotPermit),
    /// An event.
    Event(WatchEvent),
    /// The message that says whether a connection was closed.
    KillResult(String),
    /// A key was pressed.
    Key(KeyPress),
    /// The terminal has gone away.
    TerminalGone,
    /// The server is back after a restart.
    Reconnected(Box<Reconnected>),
    /// A session has ended: no updates of its pair follow.
    Ended(Failure),
}

/// New sessions after a restart of the server.
pub struct Reconnected {
    sessions: SessionPair,
    backoff: Backoff,
    /// The newest lines of the access log, of finished requests.
    pub records: Vec<LogLine>,
}

/// An update with the number of its pair of sessions, by which updates of ended sessions are recognised; `None`
/// for those of the keyboard.
struct Message {
    sessions: Option<u64>,
    update: Update,
}

/// The queue's end for the threads of one pair of sessions.
#[derive(Clone)]
struct UpdateSender {
    channel: SyncSender<Message>,
    sessions: Option<u64>,
}

impl UpdateSender {
    /// Waits for room in the queue. `false`: the screen has ended.
    fn send(&self, update: Update) -> bool {
        self.channel.send(Message { sessions: self.sessions, update }).is_ok()
    }
}

/// Held from the poll of a snapshot until the screen has applied it. Snapshots can be large: there is one at a
/// time, and none is polled while the screen is not drawn, as when its terminal does not read.
pub struct SnapshotPermit(Arc<AtomicBool>);

impl SnapshotPermit {
    fn take(taken: &Arc<AtomicBool>) -> Option<Self> {
        (!taken.swap(true, Ordering::AcqRel)).then(|| SnapshotPermit(Arc::clone(taken)))
    }
}

impl Drop for SnapshotPermit {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Both sessions. Dropping them closes their connections, which ends their threads.
struct SessionPair {
    kills: SyncSender<ConnectionId>,
    threads: [JoinHandle<()>; 2],
    closers: [Closer; 2],
}

impl SessionPair {
    /// Opens both sessions with `log_in`. Returns the newest lines of the access log, of finished requests.
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
        // Requests that finish from now on come as events.
        let records = news::finished(records, &connections(&mut poller)?);
        let closers = [poller.closer()?, subscriber.closer()?];
        let (kills, kills_receiver) = sync_channel(QUEUED_KILLS);
        let polled = updates.clone();
        let poller = spawn(move || {
            report_end(poll_server(&mut poller, interval, &kills_receiver, &polled), &polled)
        })?;
        let received = updates.clone();
        let subscriber =
            spawn(move || report_end(receive_events(&mut subscriber, &received), &received))?;
        Ok((SessionPair { kills, threads: [poller, subscriber], closers }, records))
    }
}

impl Drop for SessionPair {
    fn drop(&mut self) {
        self.closers.iter().for_each(Closer::close);
    }
}

/// Where updates come from at present.
enum Source {
    /// The server is connected.
    Connected(SessionPair),
    /// The server is away; this thread tries to reconnect.
    Reconnecting(JoinHandle<()>),
}

/// All sources of updates.
pub struct Feed {
    server: Server,
    interval: Duration,
    receiver: Receiver<Message>,
    channel: SyncSender<Message>,
    /// The number of the present pair of sessions.
    number: u64,
    source: Source,
    backoff: Backoff,
    since: Instant,
}

impl Feed {
    /// Opens both sessions. Returns the newest lines of the access log, of finished requests.
    ///
    /// # Errors
    /// If the server cannot be reached or speaks METP/1.0 only, or the account is not allowed to watch.
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
            source: Source::Connected(sessions),
            backoff: Backoff::default(),
            since: Instant::now(),
        };
        Ok((feed, records))
    }

    /// Starts the thread that turns keys of the terminal into updates.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn read_keys(&self, terminal: File) -> Result<(), Failure> {
        let updates = UpdateSender { channel: self.channel.clone(), sessions: None };
        spawn(move || {
            if input::read_keys(terminal, |key| updates.send(Update::Key(key))) {
                // The screen may have ended.
                updates.send(Update::TerminalGone);
            }
        })
        .map(drop)
    }

    /// Waits up to `timeout` for an update. `None`: there is none, or it was of ended sessions.
    ///
    /// # Errors
    /// If a thread has ended without an [`Update::Ended`].
    pub fn wait(&self, timeout: Duration) -> Result<Option<Update>, Failure> {
        match self.receiver.recv_timeout(timeout) {
            Ok(message) => return Ok(self.current(message)),
            Err(_) if !self.has_ended() => return Ok(None),
            Err(_) => {}
        }
        // The thread may have sent its last update between the two checks.
        match self.receiver.try_recv() {
            Ok(message) => Ok(self.current(message)),
            Err(_) => Err(Failure::Broken("A thread of the watch has ended".to_owned())),
        }
    }

    /// The next update in the queue, without waiting: `Some(None)` if it is of ended sessions.
    pub fn next(&self) -> Option<Option<Update>> {
        match self.receiver.try_recv() {
            Ok(message) => Some(self.current(message)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    fn current(&self, Message { sessions, update }: Message) -> Option<Update> {
        sessions.is_none_or(|sessions| sessions == self.number).then_some(update)
    }

    /// Whether a thread has ended that feeds the queue. Its last update may still be in the queue.
    fn has_ended(&self) -> bool {
        match &self.source {
            Source::Connected(sessions) => sessions.threads.iter().any(JoinHandle::is_finished),
            Source::Reconnecting(thread) => thread.is_finished(),
        }
    }

    /// Has a connection closed; an [`Update::KillResult`] follows. `false` if too many wait to be closed
    /// already, or the server is away.
    pub fn kill(&self, id: ConnectionId) -> bool {
        match &self.source {
            // If the thread has ended, its last update says why.
            Source::Connected(sessions) => {
                !matches!(sessions.kills.try_send(id), Err(TrySendError::Full(_)))
            }
            Source::Reconnecting(_) => false,
        }
    }

    /// Tries to reconnect, after the sessions have ended with `ended`, until [`Update::Reconnected`] or
    /// [`Update::Ended`].
    ///
    /// # Errors
    /// `ended`, if another attempt cannot help or `--wait 0` forbids it.
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
            // The screen may have ended.
            updates.send(match begun {
                Ok((sessions, records)) => {
                    let backoff = attempts.into_backoff();
                    Update::Reconnected(Box::new(Reconnected { sessions, backoff, records }))
                }
                Err(failure) => Update::Ended(failure),
            });
        })?;
        // Drops the sessions before.
        self.source = Source::Reconnecting(thread);
        Ok(())
    }

    /// Goes on with the new sessions. Returns the newest lines of the access log, of finished requests.
    pub fn resume(&mut self, back: Reconnected) -> Vec<LogLine> {
        let Reconnected { sessions, backoff, records } = back;
        self.source = Source::Connected(sessions);
        self.backoff = backoff;
        self.since = Instant::now();
        records
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let no_thread = |error: io::Error| Failure::Broken(format!("Cannot start a thread: {error}"));
    thread::Builder::new().spawn(work).map_err(no_thread)
}

/// Sends the failure that ended a thread, if any.
fn report_end(ended: Result<(), Failure>, updates: &UpdateSender) {
    if let Err(failure) = ended {
        updates.send(Update::Ended(failure));
    }
}

/// Passes events on until the session fails, or the screen has ended.
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

/// Takes a snapshot at each interval, and closes connections in between, until the session fails or the screen
/// has ended.
fn poll_server(
    session: &mut Session,
    interval: Duration,
    kills: &Receiver<ConnectionId>,
    updates: &UpdateSender,
) -> Result<(), Failure> {
    let mut pace = Pace::new(interval, Instant::now());
    let taken = Arc::default();
    loop {
        if let Some(permit) = SnapshotPermit::take(&taken)
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
                // The server closes idle sessions.
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
    let info = session.query(&Command::Info)?;
    let status = ServerStatus::parse(info.lines.iter().map(String::as_str));
    let list = connections(session)?;
    let limits = limits(session, &list)?;
    Ok(Snapshot { at, connections: totals.connections, bytes: totals.bytes, status, list, limits })
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

/// Asks for the limits of the accounts that have these connections. Those without any are left out.
///
/// # Errors
/// If the session ends.
fn limits(
    session: &mut Session,
    list: &[ConnectionInfo],
) -> Result<HashMap<String, UserLimits>, Failure> {
    let mut totals: HashMap<&str, u64> = HashMap::new();
    for connection in list.iter().filter(|connection| connection.user != "-") {
        let total = totals.entry(&connection.user).or_default();
        *total = total.saturating_add(connection.bytes.total());
    }
    let mut names: Vec<(&str, u64)> = totals.into_iter().collect();
    names.sort_unstable_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
    names.truncate(MOST_ACCOUNTS);
    for (name, _) in &names {
        let name = unescape(name.as_bytes()).into_owned();
        session.send_ahead(&Command::UserMetrics(Some(name)))?;
    }
    let mut limits = HashMap::new();
    for (name, _) in names {
        match session.answered() {
            Ok(()) => session.read_body(|line| {
                let found = UserLimits::parse(&render::text(line));
                if found != UserLimits::default() {
                    limits.insert(name.to_owned(), found);
                }
                Ok(())
            })?,
            // It has been deleted meanwhile.
            Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(limits)
}

/// Closes a connection. Returns the message: that it is done, or the reason of the server.
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
            return Err(Failure::Broken(
                "The server sent more records than were asked for".to_owned(),
            ));
        }
        Ok(())
    })?;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_snapshot_waits_at_a_time() {
        let taken = Arc::default();
        let first = SnapshotPermit::take(&taken);
        assert!(first.is_some() && SnapshotPermit::take(&taken).is_none());
        drop(first);
        assert!(SnapshotPermit::take(&taken).is_some());
    }
}
