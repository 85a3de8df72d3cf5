//! The rules for destinations (`--rules`), asked about requests. The server's own ports and local addresses stay closed
//! above all rules: that is [`crate::state::protected`].

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::name::hostname;
use super::request::{ActiveRequest, Decision};
use super::{Session, State};
use crate::proto::rules::{Asked, Commands, Port, Question, normal_name};
use crate::proto::socks5::{Host, Target};
use crate::reactor::endpoint::Stream;
use crate::reactor::listener::canonical;
use crate::state::Shared;
use metp_protocol::text::ip_literal;

/// What is known of a destination.
#[derive(Clone, Copy)]
struct Known<'a> {
    /// The name that the client has asked for.
    name: Option<&'a str>,
    /// Its address.
    address: Option<IpAddr>,
    /// The port.
    port: Port,
}

impl Known<'_> {
    /// Nothing is known.
    const NOTHING: Known<'static> = Known { name: None, address: None, port: Port::Unknown };
}

/// The name that a target has, unless that is a literal.
fn name_of(target: &Target) -> Option<&str> {
    match &target.host {
        Host::Ip(_) => None,
        Host::Name(name) => hostname(name).filter(|name| ip_literal(name).is_none()),
    }
}

/// Whether the rules may allow a request, as far as it can be said before its name is looked up. If not, the rule is
/// noted.
pub fn may_allow(request: &mut ActiveRequest, source: IpAddr, shared: &Shared) -> bool {
    let target = Rc::clone(&request.target);
    let is_address = name_of(&target).is_none();
    let known = match request.command {
        // It is judged when it is used.
        Commands::CONNECT | Commands::RESOLVE if is_address => return true,
        // Who is going to answer or to connect is not known.
        Commands::UDP => Known::NOTHING,
        Commands::BIND => Known { name: name_of(&target), ..Known::NOTHING },
        Commands::RESOLVE => {
            Known { name: name_of(&target), port: Port::Nothing, ..Known::NOTHING }
        }
        _ => Known { name: name_of(&target), port: Port::Is(target.port), ..Known::NOTHING },
    };
    let decision = judge(request, source, known, shared);
    act_on(request, decision, shared);
    decision.allow
}

/// What the rules say of a request that ends at this address, which is canonical. The last answer is kept, since a
/// connection is judged before the attempt and when it is there.
pub fn decide(
    request: &mut ActiveRequest,
    source: IpAddr,
    address: SocketAddr,
    shared: &Shared,
) -> Decision {
    let number = shared.process.rules_number;
    if let Some((judged, by, decision)) = request.judged
        && (judged, by) == (address, number)
    {
        return decision;
    }
    let port = match request.command {
        Commands::RESOLVE => Port::Nothing,
        _ => Port::Is(address.port()),
    };
    let target = Rc::clone(&request.target);
    let known = Known { name: name_of(&target), address: Some(address.ip()), port };
    let decision = judge(request, source, known, shared);
    request.judged = Some((address, number, decision));
    decision
}

/// Whether the rules may allow a peer with this address, which is canonical, to connect from some port. If not, the rule
/// is noted.
pub fn may_allow_peer(
    request: &mut ActiveRequest,
    source: IpAddr,
    address: IpAddr,
    shared: &Shared,
) -> bool {
    let target = Rc::clone(&request.target);
    let known = Known { name: name_of(&target), address: Some(address), port: Port::Unknown };
    let decision = judge(request, source, known, shared);
    act_on(request, decision, shared);
    decision.allow
}

/// What the rules say of a datagram of an association to this target, which is canonical, and by this name.
pub fn decide_datagram(
    request: &ActiveRequest,
    source: IpAddr,
    (name, target): (Option<&str>, SocketAddr),
    shared: &Shared,
) -> Decision {
    // A port of 0 stands for all.
    let port = if target.port() == 0 { Port::Unknown } else { Port::Is(target.port()) };
    judge(request, source, Known { name, address: Some(target.ip()), port }, shared)
}

/// What the rules say of a datagram to a name that has not been looked up.
pub fn decide_datagram_name(
    request: &ActiveRequest,
    source: IpAddr,
    (name, port): (&str, u16),
    shared: &Shared,
) -> Decision {
    let known = Known { name: Some(name), address: None, port: Port::Is(port) };
    judge(request, source, known, shared)
}

/// What the rules say, as far as can be said from what is known.
fn judge(request: &ActiveRequest, source: IpAddr, known: Known<'_>, shared: &Shared) -> Decision {
    let Some(rules) = &shared.process.rules else { return Decision::OPEN };
    let Known { name, address, port } = known;
    let name = name.map(normal_name);
    let name = name.as_deref();
    let asked = match (name, address) {
        (name, Some(address)) => Asked::Address { name, address, port },
        (Some(name), None) => Asked::Name { name, port },
        (None, None) => Asked::Unknown,
    };
    let user = &**request.name();
    let question = Question { user, source, command: request.command, asked };
    let verdict = match asked {
        Asked::Address { port: Port::Is(_) | Port::Nothing, .. } => {
            let nobody = Decision { allow: false, verdict: None };
            return rules.verdict(&question).map_or(nobody, Decision::from);
        }
        _ => rules.refusal(&question),
    };
    verdict.map_or(Decision::OPEN, Decision::from)
}

/// The server does what the rules say. The rule is shown from now on, and counted if it is another one than before. An
/// address that is denied after another one was allowed is not what the request comes to.
pub fn act_on(request: &mut ActiveRequest, decision: Decision, shared: &Shared) {
    let allowed_before = request.acted_on.is_some_and(|(_, before)| before.allow);
    if decision.allow || !allowed_before {
        overrule(request, decision, shared);
    }
}

/// The same for a connection that is there: it was counted when it was attempted, unless it is denied by now.
pub fn confirm(request: &mut ActiveRequest, decision: Decision, shared: &Shared) {
    match decision.allow {
        true => show(request, decision, shared),
        false => overrule(request, decision, shared),
    }
}

/// The server does what the rules say, whatever was before.
pub fn overrule(request: &mut ActiveRequest, decision: Decision, shared: &Shared) {
    let before = request.acted_on;
    show(request, decision, shared);
    if request.acted_on != before
        && let (Some(verdict), Some(rules)) = (decision.verdict, &shared.process.rules)
    {
        rules.count(verdict);
    }
}

/// The rule is shown from now on.
fn show(request: &mut ActiveRequest, decision: Decision, shared: &Shared) {
    if let Some(verdict) = decision.verdict {
        request.acted_on = Some((shared.process.rules_number, verdict));
        request.rule = Some(verdict.line);
    }
}

impl<S: Stream> Session<S> {
    /// Whether the rules as they are now do not allow what the session does. If so, the rule is noted.
    pub fn is_denied(&mut self, shared: &Shared) -> bool {
        let source = self.source.ip();
        let request = match &mut self.state {
            State::Relay(relay) => {
                let peer = relay.peer().map(canonical);
                let request = relay.request_mut();
                let Some(peer) = peer else { return false };
                let decision = decide(request, source, peer, shared);
                confirm(request, decision, shared);
                return !decision.allow;
            }
            State::Resolve(resolve) => resolve.request_mut(),
            State::Reverse(reverse) => reverse.request_mut(),
            State::Connect(connect) => connect.request_mut(),
            State::Bind(bind) => return bind.is_denied(source, shared),
            State::Associate(association) => association.request_mut(),
            State::Hello
            | State::Auth
            | State::Verify(_)
            | State::Request(_)
            | State::Linger(..)
            | State::Ended(..) => return false,
        };
        !may_allow(request, source, shared)
    }
}
