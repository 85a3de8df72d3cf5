//! The options about rules.

use common::usage::bad_value;
use metp_protocol::quantity::count;
use metp_protocol::text::latin1_encode;
use metp_protocol::{Command, RULE_TEST_RULE, RuleCommand, RuleTest};

use super::line::{needs_two, values};
use super::options::UsageError;

/// The command of an option about rules; `None` for any other option.
///
/// # Errors
/// What is wrong with its values.
pub fn command(option: &str, text: &str) -> Result<Option<Command>, UsageError> {
    Ok(Some(Command::Rules(match option {
        "--rules" => RuleCommand::List,
        "--rules-test" => {
            let encoded = latin1_encode(text);
            let words = encoded.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            let words: Vec<&[u8]> = words.collect();
            let test = RuleTest::parse(&words)
                .filter(|test| test.source().is_some() && test.endpoint().is_some());
            let wrong = || UsageError(bad_value(option, text, &RULE_TEST_RULE));
            RuleCommand::Test(test.ok_or_else(wrong)?)
        }
        "--rule-insert" => {
            let (line, rule) = numbered(option, text)?;
            RuleCommand::Insert(line, rule)
        }
        "--rule-delete" => {
            let (line, rule) = numbered(option, text)?;
            RuleCommand::Delete(line, rule)
        }
        _ => return Ok(None),
    })))
}

/// The number of a line, and a rule.
fn numbered(option: &str, text: &str) -> Result<(u32, String), UsageError> {
    let (line, Some(rule)) = values(text) else { return Err(needs_two(option)) };
    let number = count(line).and_then(|line| u32::try_from(line).ok());
    let wrong = || UsageError(bad_value(option, line, &"the number of a line"));
    let words = rule.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>();
    let is_plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_graphic());
    if words.is_empty() || !words.iter().all(is_plain) {
        return Err(UsageError(bad_value(option, rule, &"a rule of printable ASCII")));
    }
    Ok((number.ok_or_else(wrong)?, words.join(" ")))
}
