//! Grammar as RFC 5234 writes it (and %s"..." of RFC 7405), read out of a text and run over bytes.
//!
//! Matching follows every alternative at once: from a set of positions to the set of positions that can be
//! reached. So no rule needs to be written with an eye on this program.

use std::collections::{BTreeSet, HashMap};

/// Rules by name.
pub struct Grammar(HashMap<String, Rule>);

enum Rule {
    Any(Vec<Rule>),
    All(Vec<Rule>),
    /// At least, at most.
    Many(usize, usize, Box<Rule>),
    Range(u8, u8),
    /// Octets, and whether letters have to be of the same case.
    Text(Vec<u8>, bool),
    Named(String),
}

type Positions = BTreeSet<usize>;

impl Grammar {
    /// Reads all rules of a text: they are indented by six columns, what continues them by more.
    pub fn read(text: &str) -> Self {
        let mut sources: Vec<String> = Vec::new();
        let mut open = false;
        for line in text.lines() {
            let code = line.split(" ;").next().unwrap_or_default();
            let name = code.strip_prefix("      ").and_then(|code| code.split_once('='));
            let name = name.map_or("", |(name, _)| name.trim_end());
            let named = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            if named {
                sources.push(code.to_owned());
                open = true;
            } else if open && code.starts_with("       ") {
                sources.last_mut().expect("one is open").push_str(code);
            } else {
                open = false;
            }
        }
        let core = ["SP = %x20", "DIGIT = %x30-39", "ALPHA = %x41-5A / %x61-7A", "CR = %x0D"];
        let more = ["HEXDIG = DIGIT / \"A\" / \"B\" / \"C\" / \"D\" / \"E\" / \"F\"", "LF = %x0A"];
        let mut rules = HashMap::new();
        for source in core.iter().chain(&more).map(|&core| core.to_owned()).chain(sources) {
            let (name, body) = source.split_once('=').expect("a rule has a =");
            let mut reader = Reader(body.as_bytes());
            let rule = reader.alternatives();
            assert!(reader.0.is_empty(), "{name}: cannot read {:?}", reader.rest());
            assert!(
                rules.insert(name.trim().to_owned(), rule).is_none(),
                "{name} is defined twice"
            );
        }
        Grammar(rules)
    }

    /// Names that are used and not defined.
    pub fn missing(&self) -> Vec<&str> {
        let mut used = Vec::new();
        self.0.values().for_each(|rule| rule.names(&mut used));
        used.into_iter().filter(|name| !self.0.contains_key(*name)).collect()
    }

    /// The keys of the pairs that the rule describes, in their order: the words before a `=` in its literals, and
    /// in those of the rules that it names.
    pub fn keys(&self, name: &str) -> Vec<String> {
        let mut literals = Vec::new();
        self.literals(&self.0[name], &mut literals);
        let words = literals.iter().flat_map(|text| text.split(' '));
        let keys = words.filter_map(|word| word.split_once('=')).map(|(key, _)| key.to_owned());
        keys.filter(|key| !key.is_empty()).collect()
    }

    /// The names of all rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn literals(&self, rule: &Rule, found: &mut Vec<String>) {
        match rule {
            Rule::Any(rules) | Rule::All(rules) => {
                rules.iter().for_each(|rule| self.literals(rule, found));
            }
            Rule::Many(_, _, rule) => self.literals(rule, found),
            Rule::Text(text, _) => found.push(String::from_utf8_lossy(text).into_owned()),
            Rule::Named(name) => self.literals(&self.0[name], found),
            Rule::Range(..) => {}
        }
    }

    /// Whether the whole input is what the rule describes.
    pub fn matches(&self, name: &str, input: &[u8]) -> bool {
        let ends = self.ends(&self.0[name], input, &Positions::from([0]));
        ends.contains(&input.len())
    }

    fn ends(&self, rule: &Rule, input: &[u8], from: &Positions) -> Positions {
        match rule {
            Rule::Any(rules) => {
                rules.iter().flat_map(|rule| self.ends(rule, input, from)).collect()
            }
            Rule::All(rules) => {
                rules.iter().fold(from.clone(), |from, rule| self.ends(rule, input, &from))
            }
            Rule::Many(least, most, rule) => {
                let (mut current, mut ends, mut count) = (from.clone(), Positions::new(), 0);
                loop {
                    if count >= *least {
                        current = current.difference(&ends).copied().collect();
                        ends.extend(&current);
                    }
                    if current.is_empty() || count == *most {
                        return ends;
                    }
                    current = self.ends(rule, input, &current);
                    count += 1;
                }
            }
            Rule::Range(low, high) => from
                .iter()
                .filter(|at| input.get(**at).is_some_and(|byte| (*low..=*high).contains(byte)))
                .map(|at| at + 1)
                .collect(),
            Rule::Text(text, exact) => from
                .iter()
                .filter(|at| {
                    input.get(**at..**at + text.len()).is_some_and(|there| {
                        there == text || (!exact && there.eq_ignore_ascii_case(text))
                    })
                })
                .map(|at| at + text.len())
                .collect(),
            Rule::Named(name) => self.ends(&self.0[name], input, from),
        }
    }
}

impl Rule {
    fn names<'a>(&'a self, used: &mut Vec<&'a str>) {
        match self {
            Rule::Any(rules) | Rule::All(rules) => rules.iter().for_each(|rule| rule.names(used)),
            Rule::Many(_, _, rule) => rule.names(used),
            Rule::Named(name) => used.push(name),
            Rule::Range(..) | Rule::Text(..) => {}
        }
    }
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn rest(&self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }

    fn blanks(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn take(&mut self, wanted: &str) -> bool {
        let rest = self.0.strip_prefix(wanted.as_bytes());
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn word(&mut self, belongs: impl Fn(u8) -> bool) -> String {
        let end = self.0.iter().position(|byte| !belongs(*byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        String::from_utf8_lossy(word).into_owned()
    }

    fn alternatives(&mut self) -> Rule {
        let mut rules = vec![self.sequence()];
        while self.take("/") {
            rules.push(self.sequence());
        }
        Rule::Any(rules)
    }

    fn sequence(&mut self) -> Rule {
        let mut rules = Vec::new();
        loop {
            self.blanks();
            if matches!(self.0.first(), None | Some(b'/' | b')' | b']')) {
                assert!(!rules.is_empty(), "nothing before {:?}", self.rest());
                return Rule::All(rules);
            }
            rules.push(self.repetition());
        }
    }

    fn repetition(&mut self) -> Rule {
        let number = |text: String| text.parse().ok();
        let least: Option<usize> = number(self.word(|byte| byte.is_ascii_digit()));
        let (least, most) = if self.take("*") {
            let most = number(self.word(|byte| byte.is_ascii_digit()));
            (least.unwrap_or(0), most.unwrap_or(usize::MAX))
        } else {
            (least.unwrap_or(1), least.unwrap_or(1))
        };
        Rule::Many(least, most, Box::new(self.element()))
    }

    fn element(&mut self) -> Rule {
        if self.take("(") {
            let rule = self.alternatives();
            assert!(self.take(")"), "no ) before {:?}", self.rest());
            return rule;
        }
        if self.take("[") {
            let rule = self.alternatives();
            assert!(self.take("]"), "no ] before {:?}", self.rest());
            return Rule::Many(0, 1, Box::new(rule));
        }
        let exact = self.take("%s");
        if self.take("\"") {
            let text = self.word(|byte| byte != b'"');
            assert!(self.take("\""), "no \" after {text:?}");
            return Rule::Text(text.into_bytes(), exact);
        }
        if self.take("%x") {
            let low = self.octet();
            let high = if self.take("-") { self.octet() } else { low };
            return Rule::Range(low, high);
        }
        let name = self.word(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        assert!(!name.is_empty(), "cannot read {:?}", self.rest());
        Rule::Named(name)
    }

    fn octet(&mut self) -> u8 {
        let digits = self.word(|byte| byte.is_ascii_hexdigit());
        u8::from_str_radix(&digits, 16).expect("an octet has two digits")
    }
}

#[test]
fn the_reader_of_grammars_reads_grammars() {
    let text = "\n      list = item *( \",\" item )\n             [ \"!\" ] ; a comment\n\n      item = %s\"x\" / 2*3DIGIT / %x61-62\n";
    let grammar = Grammar::read(text);
    assert_eq!(grammar.missing(), [""; 0]);
    for good in ["x", "a,b!", "x,12,123", "12!"] {
        assert!(grammar.matches("list", good.as_bytes()), "{good}");
    }
    for bad in ["", "X", "c", "1", "1234", "x,", "x!!", "x,,x"] {
        assert!(!grammar.matches("list", bad.as_bytes()), "{bad}");
    }
}
