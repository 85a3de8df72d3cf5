//! Commands about the rules for destinations (§5.27).

use super::execute::{CommandExecutor, Execution, refusal};
use super::listing::Listing;
use crate::proto::rules::{Commands, Edit, Rule};
use crate::state::control::{ControlRequest, TestedRequest};
use metp_protocol::text::ip_literal;
use metp_protocol::{Cause, RULE_TEST_RULE, Response, RuleCommand, RuleTest};

impl CommandExecutor<'_> {
    /// Executes a command about rules.
    pub(super) fn rules(&mut self, command: RuleCommand) -> Execution {
        if self.shared.process.rules.is_none() {
            return Execution::Done(Response::NoRules.into());
        }
        match command {
            RuleCommand::List => Execution::Done(Listing::Rules(0).into()),
            RuleCommand::Insert(line, rule) => self.change_rules(line, &rule, Edit::Insert),
            RuleCommand::Delete(line, rule) => self.change_rules(line, &rule, Edit::Delete),
            RuleCommand::Test(test) => test_rules(&test),
        }
    }

    fn change_rules(
        &mut self,
        line: u32,
        rule: &str,
        edit: impl FnOnce(u32, Rule) -> Edit,
    ) -> Execution {
        if self.shared.process.rules_fixed {
            return Execution::Done(Response::RulesFixed.into());
        }
        match Rule::parse(rule.as_bytes()) {
            Ok(Some(rule)) => {
                let (session, edit) = (self.session, edit(line, rule));
                Execution::Ask(ControlRequest::ChangeRules { session, edit })
            }
            // A comment.
            Ok(None) => Execution::Done(refusal(Cause::Syntax)),
            Err(fault) => Execution::Done(Response::BadRule(fault.to_string()).into()),
        }
    }
}

fn test_rules(test: &RuleTest) -> Execution {
    let command = match &test.command {
        None => Some(Commands::CONNECT),
        Some(word) => Commands::find(word.as_bytes()),
    };
    let asked = test.source().zip(test.endpoint()).zip(command);
    let Some(((source, (host, port)), command)) = asked else {
        return Execution::Done(Response::Range(RULE_TEST_RULE.to_owned()).into());
    };
    let (user, source) = (test.user.as_slice().into(), source.to_canonical());
    let address = ip_literal(host).map(|address| address.to_canonical());
    let host = address.ok_or_else(|| host.to_owned());
    Execution::Ask(ControlRequest::TestRules(TestedRequest { user, source, command, host, port }))
}
