//! The rules for destinations (`--rules`), asked about requests. The server's own ports and local addresses stay closed
//! above all rules: that is [`crate::state::protected`].

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::name::hostname;
use super::request::ActiveRequest;
use super::{Session, State};
use crate::proto::rules::{Asked, Commands, Port, Question, RuleSet, normal_name};
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

/// Whether the rules may allow a request, as far as it can be said before its name is looked up. If not, the rule that
/// decides is noted; so it is in all that follows.
pub fn may_allow(request: &mut ActiveRequest, source: IpAddr, shared: &Shared) -> bool {
    let Some(rules) = &shared.process.rules else { return true };
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
    judge(request, rules, source, known)
}

/// Whether the rules allow a request to end at this address, which is canonical.
pub fn allow(
    request: &mut ActiveRequest,
    source: IpAddr,
    address: SocketAddr,
    shared: &Shared,
) -> bool {
    let Some(rules) = &shared.process.rules else { return true };
    let judged = Some((address, shared.process.rules_number));
    if request.allowed == judged {
        return true;
    }
    let port = match request.command {
        Commands::RESOLVE => Port::Nothing,
        _ => Port::Is(address.port()),
    };
    let target = Rc::clone(&request.target);
    let known = Known { name: name_of(&target), address: Some(address.ip()), port };
    let allowed = judge(request, rules, source, known);
    request.allowed = judged.filter(|_| allowed);
    allowed
}

/// Whether the rules may allow a peer with this address, which is canonical, to connect from some port.
pub fn may_allow_peer(
    request: &mut ActiveRequest,
    source: IpAddr,
    address: IpAddr,
    shared: &Shared,
) -> bool {
    let Some(rules) = &shared.process.rules else { return true };
    let target = Rc::clone(&request.target);
    let known = Known { name: name_of(&target), address: Some(address), port: Port::Unknown };
    judge(request, rules, source, known)
}

/// Whether the rules allow a datagram of an association to this target, which is canonical, and by this name.
pub fn allow_datagram(
    request: &mut ActiveRequest,
    source: IpAddr,
    (name, target): (Option<&str>, SocketAddr),
    shared: &Shared,
) -> bool {
    let Some(rules) = &shared.process.rules else { return true };
    let known = Known { name, address: Some(target.ip()), port: Port::Is(target.port()) };
    judge(request, rules, source, known)
}

/// Whether the rules may allow a datagram to this name, which has not been looked up.
pub fn may_allow_datagram(
    request: &mut ActiveRequest,
    source: IpAddr,
    (name, port): (&str, u16),
    shared: &Shared,
) -> bool {
    let Some(rules) = &shared.process.rules else { return true };
    judge(request, rules, source, Known { name: Some(name), address: None, port: Port::Is(port) })
}

/// Whether the rules allow it, as far as can be said from what is known.
fn judge(request: &mut ActiveRequest, rules: &RuleSet, source: IpAddr, known: Known<'_>) -> bool {
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
            match rules.verdict(&question) {
                Some(verdict) => verdict,
                None => return false,
            }
        }
        _ => match rules.refusal(&question) {
            Some(verdict) => verdict,
            None => return true,
        },
    };
    if request.rule.replace(verdict.line) != Some(verdict.line) {
        rules.count(verdict);
    }
    verdict.allow
}

impl<S: Stream> Session<S> {
    /// Whether the rules as they are now do not allow what the session does. If so, the rule is noted.
    pub fn is_denied(&mut self, shared: &Shared) -> bool {
        let source = self.source.ip();
        let request = match &mut self.state {
            State::Relay(relay) => {
                let peer = relay.peer().map(canonical);
                let request = relay.request_mut();
                return peer.is_some_and(|peer| !allow(request, source, peer, shared));
            }
            State::Resolve(resolve) => resolve.request_mut(),
            State::Reverse(reverse) => reverse.request_mut(),
            State::Connect(connect) => connect.request_mut(),
            State::Bind(bind) => bind.request_mut(),
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
