//! Which rules can match a question, found without looking at all.
//!
//! Each rule is listed under one of its clauses: for each entry of that clause, it is in the list of this entry. The clause
//! is the one whose lists stay shortest. A question has a few entries (its user, the networks around its addresses, the
//! suffixes of its name, its port), and what can match it is in their lists, or in the list of the rules that say nothing
//! by which they could be found.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

use metp_protocol::network::Network;

use super::question::{Asked, Port, Question};
use super::rule::{Commands, Destination, Rule, UserPattern};
use crate::proto::addresses::leads_to;

/// The numbers of rules, ascending.
type List = Vec<u32>;

/// A rule with more ports than these is not listed by them.
const MOST_PORTS: usize = 64;

/// Rules by what a question says of them.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// All of them, by what matches for certain.
    all: Lists,
    /// For questions of which not all is known: rules that allow, and may match once more is. Of rules that differ in
    /// nothing that is known the first alone is here.
    open: OpenLists,
}

/// Rules that allow, by what is known.
#[derive(Debug, Default)]
struct OpenLists {
    /// Those with a clause of the destination or the port, by the client: nothing else is known.
    client: Lists,
    /// Those with networks, by client and port: the name is known, its addresses are not.
    name: Lists,
    /// The same by the client: the port is not known either.
    name_alone: Lists,
    /// Those with ports, by client and destination: only the port is not known.
    no_port: Lists,
}

/// Rules by the entries of their clauses.
#[derive(Debug, Default)]
struct Lists {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// Of these clauses the one whose longest list is the shortest. `None`: the rule has none by which it could be listed.
    fn best(&self, rule: &Rule, of: &[By]) -> Option<By> {
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
        let usable = longest.filter(|(count, by)| *count < usize::MAX && of.contains(by));
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
        let mut seen = HashSet::new();
        for (rule, number) in rules.zip(0..) {
            const ALL: [By; 4] = [By::User, By::Destination, By::Port, By::Source];
            index.all.add(rule, number, popularity.best(rule, &ALL));
            if rule.allow {
                index.open.add(rule, number, &popularity, &mut seen);
            }
        }
        index
    }

    /// Calls `visit` with each list that may have a rule which matches for certain.
    pub(super) fn lists(&self, question: &Question<'_>, visit: impl FnMut(&[u32])) {
        self.all.visit(question, visit);
    }

    /// Calls `visit` with each list that may have a rule which allows, and may match once more is known than the question
    /// says.
    pub(super) fn undecided(&self, question: &Question<'_>, mut visit: impl FnMut(&[u32])) {
        let OpenLists { client, name, name_alone, no_port } = &self.open;
        match question.asked {
            Asked::Unknown => client.visit(question, visit),
            Asked::Name { port: Port::Unknown, .. } => {
                name_alone.visit(question, &mut visit);
                no_port.visit(question, visit);
            }
            Asked::Name { .. } => name.visit(question, visit),
            Asked::Address { port: Port::Unknown, .. } => no_port.visit(question, visit),
            Asked::Address { .. } => {}
        }
    }
}

/// What rules have in common that differ in nothing that is known: which of the lists, and the clauses.
type Known<'a> = (u8, &'a [UserPattern], &'a [Network], Option<Commands>, Rest<'a>);

/// What else is known.
#[derive(PartialEq, Eq, Hash)]
enum Rest<'a> {
    Nothing,
    Ports(&'a [(u16, u16)]),
    Destinations(&'a [Destination]),
}

impl OpenLists {
    /// Adds a rule that allows to the lists of which it is one.
    fn add<'a>(
        &mut self,
        rule: &'a Rule,
        number: u32,
        popularity: &Popularity<'a>,
        seen: &mut HashSet<Known<'a>>,
    ) {
        let Rule { users, sources, commands, destinations, ports, .. } = rule;
        let has_network = destinations.iter().any(|entry| matches!(entry, Destination::Network(_)));
        let (has_to, has_ports) = (!destinations.is_empty(), !ports.is_empty());
        let lists = [
            (&mut self.client, has_to || has_ports, Rest::Nothing, &[By::User, By::Source][..]),
            (&mut self.name, has_network, Rest::Ports(ports), &[By::User, By::Port, By::Source]),
            (&mut self.name_alone, has_network, Rest::Nothing, &[By::User, By::Source]),
            (
                &mut self.no_port,
                has_ports,
                Rest::Destinations(destinations),
                &[By::User, By::Destination, By::Source],
            ),
        ];
        for ((lists, is_one, rest, by), which) in lists.into_iter().zip(0..) {
            if is_one && seen.insert((which, users, sources, *commands, rest)) {
                lists.add(rule, number, popularity.best(rule, by));
            }
        }
    }
}

impl Lists {
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
    }

    /// Calls `visit` with each list that may have a rule which matches.
    fn visit(&self, question: &Question<'_>, mut visit: impl FnMut(&[u32])) {
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
            for other in leads_to(address) {
                self.networks.lists(other).for_each(|list| visit(list));
            }
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
}

#[cfg(test)]
mod tests {
    use super::super::question::normal_name;
    use super::*;

    /// Rules that are looked at for a question of which not all is known.
    fn looked_at(rules: &[String], asked: Asked<'_>) -> usize {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|text| Rule::parse(text.as_bytes()).expect("good").expect("a rule"))
            .collect();
        let index = Index::new(rules.iter());
        let source = [192, 0, 2, 1].into();
        let question = Question { user: b"u7", source, command: Commands::CONNECT, asked };
        let mut count = 0;
        index.undecided(&question, |list| count += list.len());
        count
    }

    /// However many rules allow something, few are looked at before all is known.
    #[test]
    fn what_is_not_known_yet_needs_no_scan() {
        let name = normal_name("www.example.com");
        let (known, none) = (Port::Is(80), Port::Unknown);
        let address = |port| Asked::Address { name: None, address: [10, 0, 7, 1].into(), port };
        let net = |n: usize| format!("10.{}.{}.0/24", n / 256, n % 256);
        type Text = Box<dyn Fn(usize) -> String>;
        let sets: [Text; 7] = [
            Box::new(move |n| format!("allow user u{n} to {}", net(n))),
            Box::new(move |n| format!("allow user u7 to {} port 443", net(n))),
            Box::new(move |n| format!("allow to {} port 443", net(n))),
            Box::new(move |n| format!("allow from {} to 10.0.0.0/8", net(n))),
            Box::new(move |n| format!("allow to h{n}.example.com")),
            Box::new(move |n| format!("allow to h{n}.example.com port 443 command connect,bind")),
            Box::new(move |n| format!("allow user u{n} to 10.0.0.0/8,h{n}.example.com port {n}")),
        ];
        for rule in sets {
            let mut rules: Vec<String> = (1..5000).map(rule).collect();
            rules.push("deny".to_owned());
            for asked in [
                Asked::Unknown,
                Asked::Name { name: &name, port: known },
                Asked::Name { name: &name, port: none },
                address(none),
                address(known),
            ] {
                let count = looked_at(&rules, asked);
                assert!(count <= 4, "{count}: {} {asked:?}", rules[0]);
            }
        }
    }
}
