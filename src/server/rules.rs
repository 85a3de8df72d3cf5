//! The rules for destinations: tested, changed line by line, and applied to tunnels that are open.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::Server;
use super::control::ServerControl;
use super::files::outcome_of;
use crate::proto::rules::{
    Asked, BadEdit, Carried, Commands, Judgement, Port, Question, RuleSet, normal_name,
};
use crate::reactor::network::Network as _;
use crate::reactor::slab::Key;
use crate::socks::CloseReason;
use crate::socks::name::hostname;
use crate::state::ProcessWide;
use crate::state::control::{ControlAnswer, RuleChange, RulesVerdict, TestedRequest};
use crate::state::file_health::{WriteOutcome, WrittenFile};
use crate::state::protected::{ClosedBy, closed_by, may_be_sent_to};
use crate::workers::rules_file::{EditError, LoadedRules};

impl ServerControl<'_> {
    /// What a request would come to, as far as it can be said without a look-up.
    pub(super) fn test_rules(
        &mut self,
        tested: &TestedRequest,
        process: &ProcessWide,
    ) -> RulesVerdict {
        let network = &mut *self.network;
        let is_local_delivery = |address: SocketAddr| network.is_local_delivery(address);
        // Who is going to connect is not known.
        let anybody = matches!(&tested.host, Ok(host) if host.is_unspecified())
            && tested.command == Commands::BIND;
        let closed = match &tested.host {
            Ok(_) if anybody => None,
            Ok(address) => closed(tested, *address, process, is_local_delivery),
            Err(name) => hostname(name.as_bytes()).is_none().then_some("name"),
        };
        if let Some(by) = closed {
            return RulesVerdict { allow: Some(false), by, rule: None };
        }
        let by = "rule";
        let nothing = RulesVerdict { allow: None, by, rule: None };
        let Some(rules) = &process.rules else { return nothing };
        let port = match tested.command {
            Commands::RESOLVE => Port::Nothing,
            _ => Port::Is(tested.port),
        };
        let name = tested.host.as_ref().err().map(|name| normal_name(name));
        let asked = match (&tested.host, &name) {
            _ if anybody => Asked::Unknown,
            (Ok(address), _) => Asked::Address { name: None, address: *address, port },
            (_, Some(name)) => Asked::Name { name, port },
            (Err(_), None) => Asked::Unknown,
        };
        let TestedRequest { user, source, command, .. } = tested;
        let question = Question { user, source: *source, command: *command, asked };
        let rule = |line| rules.at_line(line).map(|rule| (line, rule.to_string()));
        match rules.judge(&question) {
            Some(Judgement::Decided(verdict)) => {
                RulesVerdict { allow: Some(verdict.allow), by, rule: rule(verdict.line) }
            }
            Some(Judgement::Depends(line)) => RulesVerdict { allow: None, by, rule: rule(line) },
            None => nothing,
        }
    }
}

/// What closes an address above all rules, in one word.
fn closed(
    tested: &TestedRequest,
    address: std::net::IpAddr,
    process: &ProcessWide,
    is_local_delivery: impl FnMut(SocketAddr) -> io::Result<bool>,
) -> Option<&'static str> {
    let (target, settings) = (SocketAddr::new(address, tested.port), &process.settings);
    // Nobody connects to what is looked up.
    if tested.command == Commands::RESOLVE {
        return None;
    }
    if tested.command == Commands::UDP && !may_be_sent_to(target) {
        return Some("destination");
    }
    match closed_by(tested.source, target, settings, is_local_delivery)? {
        ClosedBy::OwnPort => Some("own-port"),
        ClosedBy::LocalFor => Some("local-for"),
    }
}

impl Server {
    /// A change of the rules has been stored, or not.
    pub(super) fn rules_changed(&mut self, outcome: Result<LoadedRules, EditError>, now: Instant) {
        let change = match outcome {
            Ok(LoadedRules { rules, carried, .. }) => {
                self.replace_rules(rules, &carried);
                // The thread may drop the rules before.
                self.services.files.adopt.get_or_insert_default();
                self.stored(WrittenFile::Rules, now);
                RuleChange::Done
            }
            Err(EditError::Misfit(BadEdit::NoRule(_))) => RuleChange::NoRule,
            Err(EditError::Misfit(other @ BadEdit::Other(..))) => {
                RuleChange::Other(other.to_string())
            }
            Err(invalid @ (EditError::Invalid(_) | EditError::TooLong)) => {
                RuleChange::Invalid(invalid.to_string())
            }
            Err(EditError::Store(error)) => {
                return self.rules_failed(outcome_of(&error), error.to_string(), now);
            }
        };
        self.answer_rule_change(change);
    }

    /// A change of the rules could not be stored.
    pub(super) fn rules_failed(&mut self, outcome: WriteOutcome, cause: String, now: Instant) {
        self.not_stored(WrittenFile::Rules, outcome, cause.clone(), now);
        self.answer_rule_change(RuleChange::NotStored(cause));
    }

    /// Tells the session that has asked for a change of the rules what has become of it.
    fn answer_rule_change(&mut self, change: RuleChange) {
        if let Some(session) = self.services.files.changing_rules() {
            let answer = ControlAnswer::RulesChanged(change);
            self.answer_request(session, answer);
        }
    }

    /// Puts other rules in force. Those that were there before go on counting.
    pub(super) fn replace_rules(&mut self, rules: RuleSet, carried: &Carried) {
        let process = &mut self.services.shared.process;
        if let Some(before) = &process.rules {
            rules.continue_counting(before, carried);
        }
        if let Some(unreachable) = rules.unreachable() {
            log::warn!("rules: {unreachable}");
        }
        process.rules = Some(rules);
        process.rules_number += 1;
    }

    /// Has the connections ended that the rules do not allow any more. Returns how many.
    pub(super) fn cut_denied(&mut self) -> usize {
        let keys: Vec<Key> = self.sessions.iter().map(|(key, _)| key).collect();
        let shared = &self.services.shared;
        let mut count = 0;
        for key in keys {
            if let Some(entry) = self.sessions.get_mut(key)
                && let Some(session) = entry.session.as_socks_mut()
                && session.is_denied(shared)
            {
                count += usize::from(self.pending.end(key, entry, CloseReason::Denied));
            }
        }
        count
    }
}
