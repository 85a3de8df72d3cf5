//! Rules that answer questions.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::index::Index;
use super::question::{Asked, Port, Question};
use super::rule::Rule;
use super::{LineError, NumberedRule, parse};
use crate::proto::addresses::leads_to;

/// Rules in their order, the last of which is unconditional, and what each of them has decided.
#[derive(Debug)]
pub struct RuleSet {
    compiled: Arc<Compiled>,
    hits: Box<[Cell<u64>]>,
}

/// Rules as they are found. Threads share them: what is large is made and dropped where nobody waits.
#[derive(Debug)]
pub struct Compiled {
    rules: Vec<NumberedRule>,
    index: Index,
}

/// Where rules were in the set before: for each the place there.
#[derive(Debug, Default)]
pub struct Carried(Vec<Option<u32>>);

impl Compiled {
    /// Which rules were there before, by their text. Where equal ones are, they are taken in their order.
    pub fn carried(&self, before: &Compiled) -> Carried {
        let mut places: HashMap<&Rule, VecDeque<u32>> = HashMap::new();
        for ((_, rule), place) in before.rules.iter().zip(0..) {
            places.entry(rule).or_default().push_back(place);
        }
        let place = |(_, rule): &NumberedRule| places.get_mut(rule).and_then(VecDeque::pop_front);
        Carried(self.rules.iter().map(place).collect())
    }
}

/// The rule that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is allowed.
    pub allow: bool,
    /// The line of the file.
    pub line: u32,
    /// The place of the rule, from 0 on.
    number: u32,
}

/// The answer to a question of which not all may be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Whatever else there is to know, it ends so.
    Decided(Verdict),
    /// The rule in this line decides, or not, once more is known.
    Depends(u32),
}

/// Whether a clause matches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// That depends on what is not known.
    Maybe,
}

impl From<bool> for Match {
    fn from(matches: bool) -> Self {
        if matches { Match::Yes } else { Match::No }
    }
}

impl RuleSet {
    /// Reads a file.
    ///
    /// # Errors
    /// Those of [`parse`].
    pub fn parse(content: &[u8]) -> Result<Self, Vec<LineError>> {
        parse(content).map(RuleSet::new)
    }

    /// Rules of a file that is good.
    fn new(rules: Vec<NumberedRule>) -> Self {
        let index = Index::new(rules.iter().map(|(_, rule)| rule));
        let hits = rules.iter().map(|_| Cell::new(0)).collect();
        RuleSet { compiled: Arc::new(Compiled { rules, index }), hits }
    }

    /// The rules without what they have decided.
    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    fn rules(&self) -> &[NumberedRule] {
        &self.compiled.rules
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules().len()
    }

    /// Never: there is at least the last one.
    pub fn is_empty(&self) -> bool {
        self.rules().is_empty()
    }

    /// The rules from a place on, counted from 0: line, hits, rule.
    pub fn from(&self, place: usize) -> impl Iterator<Item = (u32, u64, &Rule)> {
        let counted = self.rules().iter().zip(&self.hits).skip(place);
        counted.map(|((line, rule), hits)| (*line, hits.get(), rule))
    }

    /// The rule in a line.
    pub fn at_line(&self, line: u32) -> Option<&Rule> {
        let place = self.rules().binary_search_by_key(&line, |(line, _)| *line).ok()?;
        self.rules().get(place).map(|(_, rule)| rule)
    }

    /// What is to be said of rules that never apply since one before them is unconditional: a sentence with the lines.
    pub fn unreachable(&self) -> Option<String> {
        let place = self.rules().iter().position(|(_, rule)| rule.is_unconditional())?;
        let (decides, never) = (self.rules().get(place)?.0, self.rules().get(place + 1)?.0);
        Some(format!("line {never} is never reached: line {decides} decides about all the rest"))
    }

    /// A decision of this rule has been acted upon.
    pub fn count(&self, verdict: Verdict) {
        if let Some(hits) = self.hits.get(verdict.number as usize) {
            hits.set(hits.get().saturating_add(1));
        }
    }

    /// Goes on counting for rules that were there before.
    pub fn continue_counting(&self, before: &RuleSet, carried: &Carried) {
        for (hits, place) in self.hits.iter().zip(&carried.0) {
            let counted = place.and_then(|place| before.hits.get(place as usize));
            hits.set(counted.map_or(0, Cell::get));
        }
    }

    /// Who decides about a question. `None`: only for a set without rules, which there is none of.
    pub fn judge(&self, question: &Question<'_>) -> Option<Judgement> {
        let verdict = self.first(question)?;
        Some(match self.undecided(question, verdict.number, !verdict.allow) {
            Some(line) => Judgement::Depends(line),
            None => Judgement::Decided(verdict),
        })
    }

    /// The verdict on a question of which all is known.
    pub fn verdict(&self, question: &Question<'_>) -> Option<Verdict> {
        self.first(question)
    }

    /// The verdict if the answer is no, whatever else there is to know.
    pub fn refusal(&self, question: &Question<'_>) -> Option<Verdict> {
        let verdict = self.first(question).filter(|verdict| !verdict.allow)?;
        self.undecided(question, verdict.number, true).is_none().then_some(verdict)
    }

    /// The first rule that matches for certain.
    fn first(&self, question: &Question<'_>) -> Option<Verdict> {
        let mut best: Option<(u32, &NumberedRule)> = None;
        self.compiled.index.lists(question, |list| {
            for number in list {
                if best.is_some_and(|(best, _)| best <= *number) {
                    break;
                }
                let rule = self.rules().get(*number as usize);
                if let Some(rule) = rule.filter(|(_, rule)| rule.meets(question) == Match::Yes) {
                    best = Some((*number, rule));
                    break;
                }
            }
        });
        let (number, (line, rule)) = best?;
        Some(Verdict { allow: rule.allow, line: *line, number })
    }

    /// The line of a rule before `end` with the verdict `allow` that may match once more is known.
    fn undecided(&self, question: &Question<'_>, end: u32, allow: bool) -> Option<u32> {
        if let Asked::Address { port: Port::Is(_) | Port::Nothing, .. } = question.asked {
            return None;
        }
        let may_match =
            |(_, rule): &&NumberedRule| rule.allow == allow && rule.meets(question) == Match::Maybe;
        if !allow {
            // No request asks this, but administrators do: all that is before is looked at.
            let before = self.rules().get(..end as usize).unwrap_or_default();
            return before.iter().find(may_match).map(|(line, _)| *line);
        }
        let first_in = |list: &[u32]| {
            let before = list.iter().take_while(|number| **number < end);
            before.filter_map(|number| self.rules().get(*number as usize)).find(may_match)
        };
        let mut found = None;
        self.compiled.index.undecided(question, |list| {
            found = found.or_else(|| first_in(list).map(|(line, _)| *line));
        });
        found
    }
}

impl Rule {
    fn meets(&self, question: &Question<'_>) -> Match {
        let Question { user, source, command, asked } = question;
        let users = &self.users;
        let known = (users.is_empty() || users.iter().any(|pattern| pattern.matches(user)))
            && self.commands.is_none_or(|commands| commands.has(*command))
            && (self.sources.is_empty()
                || self.sources.iter().any(|network| network.contains(*source)));
        if !known {
            return Match::No;
        }
        let to = &self.destinations;
        let (port, destination) = match *asked {
            Asked::Unknown => {
                let open = |is_any: bool| if is_any { Match::Yes } else { Match::Maybe };
                (open(self.ports.is_empty()), open(to.is_empty()))
            }
            Asked::Name { name, port } => {
                let named = to.is_empty() || to.iter().any(|entry| entry.matches_name(name));
                let is_network =
                    |entry: &super::Destination| matches!(entry, super::Destination::Network(_));
                let open = !named && to.iter().any(is_network);
                (self.meets_port(port), if open { Match::Maybe } else { named.into() })
            }
            Asked::Address { name, address, port } => {
                // What is denied is so in all its spellings; what is allowed is so in the one that is written.
                let leads = |entry: &super::Destination| {
                    !self.allow && leads_to(address).any(|other| entry.contains(other))
                };
                let meets = |entry: &super::Destination| {
                    entry.contains(address)
                        || name.is_some_and(|name| entry.matches_name(name))
                        || leads(entry)
                };
                (self.meets_port(port), (to.is_empty() || to.iter().any(meets)).into())
            }
        };
        match (port, destination) {
            (Match::No, _) | (_, Match::No) => Match::No,
            (Match::Yes, Match::Yes) => Match::Yes,
            _ => Match::Maybe,
        }
    }

    fn meets_port(&self, port: Port) -> Match {
        let within =
            |port: u16| self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
        match port {
            _ if self.ports.is_empty() => Match::Yes,
            Port::Is(port) => within(port).into(),
            Port::Nothing => Match::No,
            Port::Unknown => Match::Maybe,
        }
    }
}
