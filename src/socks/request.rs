//! A request that is being served: account, target, reply and accounting.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use super::close_reason::CloseReason;
use super::dialect::Dialect;
use super::{Context, Next};
use crate::proto::rules::{Commands, Verdict};
use crate::proto::socks5::{ReplyCode, Target};
use crate::reactor::buffer::Buffer;
use crate::reactor::endpoint::Stream;
use crate::reactor::slab::Key;
use crate::state::access_log::{FinishedRequest, Record};
use crate::state::connection::id_of;
use crate::state::users::{LimitReached, RequestGuard, SessionGuard};
use crate::state::{Shared, Traffic};
use metp_protocol::{Event, Field, OpenEvent, Topic};

/// A request that is being served.
pub struct ActiveRequest {
    /// The account.
    pub guard: SessionGuard,
    /// DST.ADDR and DST.PORT.
    pub target: Rc<Target>,
    /// How the client asks and is answered.
    pub dialect: Dialect,
    /// The reply; `GeneralFailure` until there is one.
    pub status: ReplyCode,
    /// Payload delivered.
    pub traffic: Traffic,
    /// Counts it for the account's limits. `None`: it is not served (any more).
    pub served: Option<RequestGuard>,
    /// What the rules call it.
    pub command: Commands,
    /// The line of the rule that has decided. `None`: there are no rules, or none was asked.
    pub rule: Option<u32>,
    /// What has been done by it: the number of the rules, and the verdict.
    pub acted_on: Option<(u64, Verdict)>,
    /// The address that was judged last, by the rules of which number, and how.
    pub judged: Option<(SocketAddr, u64, Decision)>,
    /// The account's name, which the log needs even after the account is gone.
    name: Rc<[u8]>,
    began: Instant,
}

/// What the rules say of a request, and by which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allow: bool,
    /// The rule that decides. `None`: there are no rules, or none that refuses what is known so far.
    pub(super) verdict: Option<Verdict>,
}

impl Decision {
    /// Nothing is against it.
    pub(super) const OPEN: Decision = Decision { allow: true, verdict: None };

    /// The line of the rule.
    pub fn line(&self) -> Option<u32> {
        self.verdict.map(|verdict| verdict.line)
    }
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Decision { allow: verdict.allow, verdict: Some(verdict) }
    }
}

impl ActiveRequest {
    /// A request that has just been read.
    pub fn new(
        guard: SessionGuard,
        name: Rc<[u8]>,
        dialect: Dialect,
        (command, target): (Commands, Target),
        now: Instant,
    ) -> Self {
        ActiveRequest {
            guard,
            target: Rc::new(target),
            dialect,
            status: ReplyCode::GeneralFailure,
            traffic: Traffic::default(),
            served: None,
            command,
            rule: None,
            acted_on: None,
            judged: None,
            name,
            began: now,
        }
    }

    /// When the request was complete.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The account's name.
    pub fn name(&self) -> &Rc<[u8]> {
        &self.name
    }

    /// The tunnel of the client at `source` is open: it appears in METP's access log.
    pub fn open(&mut self, key: Key, source: SocketAddr, shared: &mut Shared) {
        self.status = ReplyCode::Succeeded;
        self.traffic.record = Some(shared.access_log.open(Record {
            time: SystemTime::now().into(),
            user: Rc::clone(&self.name),
            source: source.ip(),
            target: Rc::clone(&self.target),
            bytes: 0,
        }));
        shared.events.publish(Topic::Connections, || {
            Event::Open(OpenEvent {
                id: Field::new(id_of(key)),
                user: Field::name(&self.name),
                source: Field::new(source),
                destination: Field::new(&self.target),
                rule: self.rule.map(u64::from),
            })
        });
    }

    /// The request is finished: its line is written and subscribers get their events.
    pub fn finish(
        &self,
        key: Key,
        source: SocketAddr,
        reason: CloseReason,
        now: Instant,
        shared: &mut Shared,
    ) {
        shared.close(&FinishedRequest {
            id: id_of(key),
            time: SystemTime::now().into(),
            user: Rc::clone(&self.name),
            source,
            target: Rc::clone(&self.target),
            status: self.status,
            traffic: self.traffic,
            duration: now.saturating_duration_since(self.began),
            reason: reason.word(),
            kind: self.dialect.kind(),
            rule: self.rule,
        });
    }
}

/// Answers a request that is finished with its answer, and lingers.
pub fn answer<S: Stream>(
    mut request: Box<ActiveRequest>,
    reply: &[u8],
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    request.served = None;
    request.status = ReplyCode::Succeeded;
    cx.shared.metrics.count_reply(request.status);
    output.append(reply);
    Next::linger(cx.now, Some(request), CloseReason::Finished)
}

/// Refuses a request with `code` and lingers.
pub fn refuse<S: Stream>(
    request: Box<ActiveRequest>,
    code: ReplyCode,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    refuse_for(CloseReason::Refused, request, code, output, cx)
}

/// Refuses a request that a limit of its account does not allow.
pub fn refuse_beyond<S: Stream>(
    reached: LimitReached,
    request: Box<ActiveRequest>,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    cx.shared.metrics.limits.count(reached);
    let reason = CloseReason::LimitRefused(reached);
    refuse_for(reason, request, ReplyCode::NotAllowed, output, cx)
}

fn refuse_for<S: Stream>(
    reason: CloseReason,
    mut request: Box<ActiveRequest>,
    code: ReplyCode,
    output: &mut Buffer,
    cx: &mut Context<'_, S>,
) -> Next<S> {
    // While the client reads the reply, another request may be served.
    request.served = None;
    request.status = code;
    cx.shared.metrics.count_reply(code);
    output.append(&request.dialect.refusal(code));
    Next::linger(cx.now, Some(request), reason)
}
