//! Which rules can match a question, found without looking at all.
//!
//! Each rule is listed under one of its clauses: for each entry of that clause, it is in the list of this entry. The clause
//! is the one whose lists stay shortest. A question has a few entries (its user, the networks around its addresses, the
//! suffixes of its name, its port), and what can match it is in their lists, or in the list of the rules that say nothing
//! by which they could be found.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use metp_protocol::network::Network;

use super::question::{Asked, Port, Question};
use super::rule::{Destination, Rule, UserPattern};

/// The numbers of rules, ascending.
type List = Vec<u32>;

/// A rule with more ports than these is not listed by them.
const MOST_PORTS: usize = 64;

/// Rules by the entries of their clauses.
#[derive(Debug, Default)]
pub(super) struct Index {
    users: HashMap<Box<[u8]>, List>,
    prefixes: HashMap<Box<[u8]>, List>,
    /// The lengths of prefixes, in bytes.
    prefix_lengths: BTreeSet<usize>,
    sources: Networks,
    networks: Networks,
    names: HashMap<Box<str>, List>,
    suffixes: HashMap<Box<str>, List>,
    ports: HashMap<u16, List>,
    others: List,
    /// Rules that allow and are listed by networks, or by anything of the destination: what is not known yet might match
    /// them.
    allow_networks: List,
    allow_destinations: List,
}

/// Rules by networks.
#[derive(Debug, Default)]
struct Networks {
    of: HashMap<Network, List>,
    /// Family and length of their prefixes, in bits.
    lengths: BTreeSet<(bool, u8)>,
}

impl Networks {
    fn add(&mut self, network: Network, number: u32) {
        self.lengths.insert((network.is_v4(), network.prefix_length()));
        push(self.of.entry(network).or_default(), number);
    }

    fn lists(&self, address: IpAddr) -> impl Iterator<Item = &List> {
        let address = address.to_canonical();
        let lengths = self.lengths.iter().filter(move |(is_v4, _)| *is_v4 == address.is_ipv4());
        lengths.filter_map(move |(_, length)| self.of.get(&Network::around(address, *length)))
    }
}

/// The clause by which a rule is listed.
#[derive(Clone, Copy, Debug)]
enum By {
    User,
    Destination,
    Port,
    Source,
}

/// How many rules have an entry.
#[derive(Default)]
struct Popularity<'a> {
    users: HashMap<&'a UserPattern, usize>,
    destinations: HashMap<&'a Destination, usize>,
    sources: HashMap<&'a Network, usize>,
    ports: HashMap<u16, usize>,
}

impl<'a> Popularity<'a> {
    fn of(rules: impl Iterator<Item = &'a Rule>) -> Self {
        let mut counts = Popularity::default();
        for rule in rules {
            count(&mut counts.users, &rule.users);
            count(&mut counts.destinations, &rule.destinations);
            count(&mut counts.sources, &rule.sources);
            for port in few_ports(rule) {
                *counts.ports.entry(port).or_default() += 1;
            }
        }
        counts
    }

    /// The clause whose longest list is the shortest. `None`: the rule has none by which it could be listed.
    fn best(&self, rule: &Rule) -> Option<By> {
        // A pattern that all names match is none by which to find.
        let users = rule.users.iter().map(|pattern| match pattern {
            UserPattern::Prefix(prefix) if prefix.is_empty() => usize::MAX,
            pattern => self.users.get(pattern).copied().unwrap_or_default(),
        });
        let destinations = rule.destinations.iter().map(|entry| self.destinations.get(entry));
        let sources = rule.sources.iter().map(|entry| self.sources.get(entry));
        let ports = few_ports(rule).into_iter().map(|port| self.ports.get(&port));
        let known = |count: Option<&usize>| count.copied().unwrap_or_default();
        let longest = [
            (users.max(), By::User),
            (destinations.map(known).max(), By::Destination),
            (ports.map(known).max(), By::Port),
            (sources.map(known).max(), By::Source),
        ];
        let longest = longest.into_iter().filter_map(|(count, by)| Some((count?, by)));
        let usable = longest.filter(|(count, _)| *count < usize::MAX);
        usable.min_by_key(|(count, _)| *count).map(|(_, by)| by)
    }
}

fn count<'a, K: Eq + Hash>(counts: &mut HashMap<&'a K, usize>, entries: &'a [K]) {
    for entry in entries {
        *counts.entry(entry).or_default() += 1;
    }
}

/// The ports of a rule; none if there are too many to list it by each.
fn few_ports(rule: &Rule) -> Vec<u16> {
    let ports = rule.ports.iter().flat_map(|(first, last)| *first..=*last);
    let ports: Vec<u16> = ports.take(MOST_PORTS + 1).collect();
    if ports.len() > MOST_PORTS { Vec::new() } else { ports }
}

/// A rule may have an entry twice.
fn push(list: &mut List, number: u32) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}

impl Index {
    pub(super) fn new<'a>(rules: impl Iterator<Item = &'a Rule> + Clone) -> Self {
        let popularity = Popularity::of(rules.clone());
        let mut index = Index::default();
        for (rule, number) in rules.zip(0..) {
            let by = popularity.best(rule);
            index.add(rule, number, by);
        }
        index
    }

    fn add(&mut self, rule: &Rule, number: u32, by: Option<By>) {
        match by {
            None => self.others.push(number),
            Some(By::User) => {
                for pattern in &rule.users {
                    match pattern {
                        UserPattern::Exact(name) => {
                            push(self.users.entry(name.clone()).or_default(), number);
                        }
                        UserPattern::Prefix(prefix) => {
                            self.prefix_lengths.insert(prefix.len());
                            push(self.prefixes.entry(prefix.clone()).or_default(), number);
                        }
                    }
                }
            }
            Some(By::Source) => {
                for network in &rule.sources {
                    self.sources.add(*network, number);
                }
            }
            Some(By::Port) => {
                for port in few_ports(rule) {
                    push(self.ports.entry(port).or_default(), number);
                }
            }
            Some(By::Destination) => {
                for entry in &rule.destinations {
                    match entry {
                        Destination::Network(network) => self.networks.add(*network, number),
                        Destination::Name(name) => {
                            push(self.names.entry(name.clone()).or_default(), number);
                        }
                        Destination::Suffix(suffix) => {
                            push(self.suffixes.entry(suffix.clone()).or_default(), number);
                        }
                    }
                }
            }
        }
        if !rule.allow {
            return;
        }
        let is_network = |entry: &Destination| matches!(entry, Destination::Network(_));
        match by {
            Some(By::Destination) if rule.destinations.iter().any(is_network) => {
                self.allow_networks.push(number);
                self.allow_destinations.push(number);
            }
            Some(By::Destination | By::Port) => self.allow_destinations.push(number),
            _ => {}
        }
    }

    /// Calls `visit` with each list that may have a rule which matches for certain.
    pub(super) fn lists(&self, question: &Question<'_>, mut visit: impl FnMut(&[u32])) {
        visit(&self.others);
        let of_user = self.users.get(question.user);
        let prefix = |length: &usize| self.prefixes.get(question.user.get(..*length)?);
        let of_prefixes = self.prefix_lengths.iter().filter_map(prefix);
        of_user.into_iter().chain(of_prefixes).for_each(|list| visit(list));
        self.sources.lists(question.source).for_each(|list| visit(list));
        let (name, address, port) = match &question.asked {
            Asked::Unknown => return,
            Asked::Name { name, port } => (Some(*name), None, *port),
            Asked::Address { name, address, port } => (*name, Some(*address), *port),
        };
        if let Port::Is(port) = port {
            self.ports.get(&port).into_iter().for_each(|list| visit(list));
        }
        if let Some(address) = address {
            self.networks.lists(address).for_each(|list| visit(list));
        }
        let Some(name) = name else { return };
        if !self.names.is_empty() {
            self.names.get(name).into_iter().for_each(|list| visit(list));
        }
        if !self.suffixes.is_empty() {
            let mut rest = Some(name);
            while let Some(suffix) = rest {
                self.suffixes.get(suffix).into_iter().for_each(|list| visit(list));
                rest = suffix.split_once('.').map(|(_, rest)| rest);
            }
        }
    }

    /// Rules that allow, and may match once more is known than the question says, besides those in [`Index::lists`].
    pub(super) fn undecided(&self, question: &Question<'_>) -> &[u32] {
        match question.asked {
            Asked::Unknown
            | Asked::Name { port: Port::Unknown, .. }
            | Asked::Address { port: Port::Unknown, .. } => &self.allow_destinations,
            Asked::Name { .. } => &self.allow_networks,
            Asked::Address { .. } => &[],
        }
    }
}
