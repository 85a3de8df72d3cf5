//! Rules for destinations: who may ask for what. One a line, and the first that matches decides.
//!
//! ```text
//! # a comment; it may also follow a rule
//! deny  to 10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7
//! allow user alice,dev-* to .corp.example port 443,8000-8099
//! deny  from 203.0.113.0/24 command bind,udp
//! allow
//! ```
//!
//! A rule is `allow` or `deny` and clauses, in any order: what a rule does not say is any. The last one says nothing else,
//! so that what happens to the rest is there to be read. A file is good as a whole or not at all.
//!
//! [`parse`] reads a file; [`RuleSet`] answers questions.

mod edit;
mod fault;
mod index;
mod question;
mod rule;
mod rule_set;

pub use edit::{BadEdit, Edit, edit};
pub use fault::{Fault, LineError};
pub use question::{Asked, Port, Question, normal_name};
pub use rule::{Commands, Destination, Rule, UserPattern};
pub use rule_set::{Carried, Compiled, Judgement, RuleSet, Verdict};

/// The most bytes of a file.
pub const MOST_BYTES: u64 = 16 << 20;
/// The longest line, in bytes, without its end.
pub const LONGEST_LINE: usize = 4096;
/// The most rules of a file.
pub const MOST_RULES: usize = 100_000;
/// The most errors that are told of one file.
pub const MOST_ERRORS: usize = 100;

/// What some editors put in front of a file of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A rule, and the line of the file in which it is, counted from 1.
pub type NumberedRule = (u32, Rule);

/// Reads a whole file: its rules in their order, the last of which is unconditional.
///
/// # Errors
/// All that is wrong with it, in the order of the lines, but no more than [`MOST_ERRORS`].
///
/// ```
/// use socks5d::proto::rules::parse;
///
/// let rules = parse(b"deny to 10.0.0.0/8 # ours\n\nallow\n").expect("good");
/// assert_eq!((rules[0].0, rules[1].0), (1, 3));
/// assert_eq!(rules[0].1.to_string(), "deny to 10.0.0.0/8");
/// let errors = parse(b"deny prot 25\nallow\n").expect_err("misspelt");
/// assert!(errors[0].to_string().starts_with("line 1: unknown word \"prot\": "));
/// ```
pub fn parse(content: &[u8]) -> Result<Vec<NumberedRule>, Vec<LineError>> {
    let mut rules: Vec<NumberedRule> = Vec::new();
    let mut errors = Vec::new();
    let content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content);
    let mut number = 0_u32;
    for line in lines(content) {
        number = number.saturating_add(1);
        match Rule::parse(line) {
            Ok(None) => {}
            Ok(Some(_)) if rules.len() == MOST_RULES => {
                errors.push(LineError { line: number, fault: Fault::TooMany });
                return Err(errors);
            }
            Ok(Some(rule)) => rules.push((number, rule)),
            Err(fault) => errors.push(LineError { line: number, fault }),
        }
        if errors.len() == MOST_ERRORS {
            return Err(errors);
        }
    }
    // A rule that could not be read may have been the last.
    if errors.is_empty() {
        match rules.last() {
            None => errors.push(LineError { line: number.max(1), fault: Fault::Nothing }),
            Some((line, rule)) if !rule.is_unconditional() => {
                errors.push(LineError { line: *line, fault: Fault::LastIsConditional });
            }
            Some(_) => {}
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

/// The lines of a file, each with its end.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split_inclusive(|byte| *byte == b'\n')
}

/// A line without its end.
fn without_end(line: &[u8]) -> &[u8] {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    text.strip_suffix(b"\r").unwrap_or(text)
}

#[cfg(test)]
mod tests;
