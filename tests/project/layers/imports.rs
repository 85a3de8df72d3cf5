//! Which module of a crate imports which: found in the sources by their words, as far as that goes.
//!
//! A path counts that starts with `crate`, `super`, `self`, the crate's own name or, in a `use`, a child module.
//! A name that a module has imported itself is followed to where it comes from, so that `super::Name` leads to
//! the sibling that the parent has it from. Macros are not expanded.

use std::collections::BTreeMap;

/// A module by its path below the crate's root, which is empty.
pub type Module = Vec<String>;

/// A source of a crate.
pub struct Source {
    pub module: Module,
    pub text: String,
}

/// A path that is written in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The module of the file that the path stands in.
    pub from: Module,
    /// Whether the path stands in a module of the name `tests`, in this file or all of it.
    pub in_test: bool,
    /// The module of the file where it leads, or a crate outside.
    pub to: Destination,
    /// Number of the line, from 1.
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Module(Module),
    Outside(String),
}

/// The module of a source file by the file's name below the folder of the crate's sources.
pub fn module_of(file: &str) -> Module {
    let path = file.strip_suffix(".rs").expect("a source");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let root = ["lib", "mod"].contains(&path);
    if root { Module::new() } else { path.split('/').map(str::to_owned).collect() }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Words, `::` and single signs; no comments, texts or lifetimes.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let taken = if first == 'r' && is_raw(rest) {
            raw_end(rest)
        } else if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            quoted_end(rest, '"')
        } else if first == '\'' {
            // A lifetime has no second quote.
            let mut next = rest.chars().skip(1);
            let character = next.next() == Some('\\') || next.next() == Some('\'');
            if character { quoted_end(rest, '\'') } else { 1 }
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (text, behind) = rest.split_at(taken);
        let silent = text.starts_with("//") || text.starts_with("/*") || text.trim().is_empty();
        if !silent && !text.ends_with('"') && !text.starts_with('\'') {
            found.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    found
}

fn is_raw(text: &str) -> bool {
    text[1..].trim_start_matches('#').starts_with('"')
}

/// The length of the raw text that starts here.
fn raw_end(text: &str) -> usize {
    let signs = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let (start, end) = (signs + 2, format!("\"{}", "#".repeat(signs)));
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// The length of the text that starts here, escapes included.
fn quoted_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

/// A path as it is written: its words, and the name that it gets in a `use`.
struct Written {
    words: Vec<String>,
    name: String,
    line: usize,
}

/// Reads the path or tree of paths that starts at `at`, behind the words of `before`.
/// Returns where the next token is.
fn read_tree(
    tokens: &[Token<'_>],
    at: usize,
    before: &[String],
    found: &mut Vec<Written>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut at = at;
    let mut words = before.to_vec();
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !["}", ""].contains(&text(at)) {
                    at =
                        if text(at) == "," { at + 1 } else { read_tree(tokens, at, &words, found) };
                }
                return at + 1;
            }
            // `self` at the end of a tree is what stands before it.
            "self" if !words.is_empty() => {}
            word => words.push(word.to_owned()),
        }
        let line = tokens.get(at).map_or(0, |token| token.line);
        at += 1;
        if text(at) == "::" && text(at + 1) != "<" {
            at += 1;
            continue;
        }
        let mut name = words.last().cloned().unwrap_or_default();
        if text(at) == "as" {
            name = text(at + 1).to_owned();
            at += 2;
        }
        found.push(Written { words, name, line });
        return at;
    }
}

/// A path from the crate's root, before it is known which part of it is a module.
struct Absolute {
    /// The module of the file that it stands in.
    from: Module,
    in_test: bool,
    path: Module,
    line: usize,
}

/// The sources of a crate, and what they import.
pub struct Crate<'a> {
    /// The crate's own name, as its binaries and tests write it.
    name: &'a str,
    /// Crates outside whose use is of interest.
    outside: &'a [&'a str],
    modules: Vec<Module>,
    /// What modules have imported by name.
    names: BTreeMap<Module, Module>,
    paths: Vec<Absolute>,
    used: Vec<Import>,
}

impl<'a> Crate<'a> {
    pub fn new(name: &'a str, outside: &'a [&'a str], sources: &[Source]) -> Self {
        let modules = sources.iter().map(|source| source.module.clone()).collect();
        let (names, paths, used) = Default::default();
        let mut new = Crate { name, outside, modules, names, paths, used };
        for source in sources {
            new.read(source);
        }
        new
    }

    /// All imports that lead from one file to another, or to one of the crates outside.
    pub fn imports(mut self) -> Vec<Import> {
        let mut found = std::mem::take(&mut self.used);
        for Absolute { from, in_test, path, line } in std::mem::take(&mut self.paths) {
            let to = self.file(&self.resolved(path));
            if to != from {
                found.push(Import { from, in_test, to: Destination::Module(to), line });
            }
        }
        found
    }

    fn read(&mut self, source: &Source) {
        let tokens = tokens(&source.text);
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        // Modules within the file, each with the depth of braces at which it ends.
        let (mut inner, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
        let mut at = 0;
        while at < tokens.len() {
            let here = || -> Module {
                let inner = inner.iter().map(|(name, _)| name.clone());
                source.module.iter().cloned().chain(inner).collect()
            };
            let starts = at == 0 || text(at - 1) != "::";
            match text(at) {
                "mod" if text(at + 2) == "{" => {
                    inner.push((text(at + 1).to_owned(), depth));
                    depth += 1;
                    at += 3;
                }
                "use" => {
                    let mut found = Vec::new();
                    at = read_tree(&tokens, at + 1, &[], &mut found);
                    for written in found {
                        self.note(&source.module, &here(), written, true);
                    }
                }
                word if starts && self.is_root(word) && text(at + 1) == "::" => {
                    let mut found = Vec::new();
                    at = read_tree(&tokens, at, &[], &mut found);
                    for written in found {
                        self.note(&source.module, &here(), written, false);
                    }
                }
                word => {
                    if word == "{" {
                        depth += 1;
                    } else if word == "}" {
                        depth = depth.saturating_sub(1);
                        inner.pop_if(|(_, outer)| *outer == depth);
                    }
                    at += 1;
                }
            }
        }
    }

    fn is_root(&self, word: &str) -> bool {
        ["crate", "super", "self", self.name].contains(&word) || self.outside.contains(&word)
    }

    fn note(&mut self, file: &Module, here: &Module, written: Written, import: bool) {
        let Written { words, name, line } = written;
        let first = words.first().map_or("", String::as_str);
        let (from, in_test) = (file.clone(), here.iter().any(|module| module == "tests"));
        let child = || here.iter().cloned().chain([first.to_owned()]).collect::<Module>();
        if self.outside.contains(&first) {
            let to = Destination::Outside(first.to_owned());
            return self.used.push(Import { from, in_test, to, line });
        }
        let leads_to_child = import && self.modules.contains(&child());
        if !self.is_root(first) && !leads_to_child {
            return;
        }
        let mut path = here.clone();
        for word in &words {
            match word.as_str() {
                "crate" => path.clear(),
                "self" => {}
                "super" => drop(path.pop()),
                own if own == self.name => path.clear(),
                word => path.push(word.to_owned()),
            }
        }
        if import && name != "*" {
            let alias = here.iter().cloned().chain([name]).collect();
            self.names.insert(alias, path.clone());
        }
        self.paths.push(Absolute { from, in_test, path, line });
    }

    /// The path with names that are imported on the way replaced by what they stand for.
    fn resolved(&self, mut path: Module) -> Module {
        // There are no longer chains; an import of itself would never end.
        for _ in 0..8 {
            let known = (1..=path.len()).find_map(|length| {
                let (head, tail) = path.split_at(length);
                let real = self.names.get(head).filter(|real| *real != head)?;
                Some(real.iter().chain(tail).cloned().collect::<Module>())
            });
            match known {
                Some(real) if !self.modules.contains(&path) => path = real,
                _ => break,
            }
        }
        path
    }

    /// The module of the file in which this path ends.
    fn file(&self, path: &Module) -> Module {
        let lengths = (0..=path.len()).rev();
        let mut heads = lengths.map(|length| path[..length].to_vec());
        heads.find(|head| self.modules.contains(head)).unwrap_or_default()
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let sources = [
        ("lib.rs", "pub mod low; pub mod high;"),
        ("low/mod.rs", "mod leaf;\npub use leaf::Leaf;\npub use self::twig::{self, Twig as Wood};"),
        (
            "low/leaf.rs",
            "use crate::{high::{self, Top}, low};\nmod tests { use super::super::twig; }",
        ),
        (
            "low/twig.rs",
            "// crate::high\nfn f<'a>(x: &'a super::Leaf) { \"crate::high\"; own::high::g(); r#\"\"\"# }",
        ),
        (
            "high.rs",
            "use crate::low::Wood;\nuse contract::X;\npub(crate) fn f(c: char) { c == '\"'; super::low::Leaf::new() }",
        ),
    ];
    let sources = sources.map(|(name, text)| Source { module: module_of(name), text: text.into() });
    let found = Crate::new("own", &["contract"], &sources).imports();
    let mut found: Vec<String> = found
        .into_iter()
        .map(|Import { from, in_test, to, line }| {
            let to = match to {
                Destination::Module(to) => to.join("::"),
                Destination::Outside(to) => format!("extern {to}"),
            };
            let test = if in_test { " test" } else { "" };
            format!("{}:{line} {to}{test}", from.join("::"))
        })
        .collect();
    found.sort();
    let expected = [
        "high:1 low::twig",
        "high:2 extern contract",
        "high:3 low::leaf",
        "low:2 low::leaf",
        "low:3 low::twig",
        "low:3 low::twig",
        "low::leaf:1 high",
        "low::leaf:1 high",
        "low::leaf:1 low",
        "low::leaf:2 low::twig test",
        "low::twig:2 high",
        "low::twig:2 low::leaf",
    ];
    assert_eq!(found, expected);
}
