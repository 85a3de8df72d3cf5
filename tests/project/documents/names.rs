//! Names in the documents about the sources are names of the sources: files, types, and what belongs to them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::determinism::sources_below;
use super::{ARCHITECTURE, CHANGELOG, CLIENT_MANUAL, CONTRIBUTING, NOTES, PROTOCOL, README};
use super::{SECURITY, SERVER_MANUAL, file, read};

/// Where sources are.
const FOLDERS: [&str; 7] = ["src", "client", "metp", "common", "tests", "bench", "fuzz"];

/// Where types are that the documents name without their module. A type of that name elsewhere is another one.
const OF_THE_SERVER: [&str; 3] = ["src", "metp", "common"];

/// Types and kinds of error of Rust, of mio and of libc that the documents name.
const FOREIGN: [&str; 3] = ["WouldBlock", "HashMap", "CamelCase"];

/// What the sources define.
#[derive(Default)]
struct Sources {
    /// Types and variants of the server.
    types: HashSet<String>,
    /// Pairs of a type, or a module, and what belongs to it.
    members: HashSet<(String, String)>,
}

/// What a line of a source opens: a body with this indentation, of a type or of an `impl`.
struct Body {
    indent: usize,
    of: String,
    kind: &'static str,
}

impl Sources {
    fn new() -> Self {
        let mut sources = Sources::default();
        OF_THE_SERVER.iter().for_each(|folder| sources.read_folder(&file(folder)));
        let types = sources.types.clone();
        let others = FOLDERS.iter().filter(|folder| !OF_THE_SERVER.contains(folder));
        others.for_each(|folder| sources.read_folder(&file(folder)));
        Sources { types, ..sources }
    }

    fn read_folder(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("readable").path();
            let stem = module(&path);
            if path.is_dir() {
                if stem != "target" {
                    self.read_folder(&path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.members.insert((module(folder), stem.clone()));
                self.read_source(&stem, &fs::read_to_string(&path).expect("text"));
            }
        }
    }

    /// Sources are formatted by rustfmt: what belongs to a body is indented by four more.
    fn read_source(&mut self, module: &str, text: &str) {
        let mut bodies: Vec<Body> = Vec::new();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let code = line.trim_start();
            let indent = line.len() - code.len();
            let opened = head(code);
            if opened.is_some() || code.starts_with('}') {
                bodies.retain(|body| body.indent < indent);
            }
            let around = bodies.last().filter(|body| body.indent + 4 == indent);
            let owner = around.map_or(module, |body| body.of.as_str()).to_owned();
            match (opened, around.map(|body| body.kind)) {
                (Some(("impl", of)), _) => bodies.push(Body { indent, of, kind: "impl" }),
                (Some((kind, name)), _) => {
                    self.members.insert((owner, name.clone()));
                    if ["struct", "enum", "trait", "type"].contains(&kind) {
                        self.types.insert(name.clone());
                        let inline = code.split_once(" { ").map_or("", |(_, body)| body);
                        for part in inline.split(", ") {
                            self.part(kind, &name, part);
                        }
                        bodies.push(Body { indent, of: name, kind });
                    }
                }
                (None, Some(kind)) => self.part(kind, &owner, code),
                (None, None) => {}
            }
        }
    }

    /// A variant or a field.
    fn part(&mut self, kind: &str, owner: &str, code: &str) {
        let name = identifier(unqualified(code));
        let rest = &unqualified(code)[name.len()..];
        let is_variant = kind == "enum" && name.starts_with(|c: char| c.is_ascii_uppercase());
        if is_variant {
            self.types.insert(name.to_owned());
        }
        if is_variant || (kind == "struct" && rest.starts_with(':')) {
            self.members.insert((owner.to_owned(), name.to_owned()));
        }
    }

    /// Whether a word between backticks can be believed. `None`: it is no name that this test knows how to check.
    fn knows(&self, word: &str) -> Option<bool> {
        let word = word.split(['(', '<']).next().unwrap_or_default();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if word.ends_with(".rs") || word.contains('/') && word.starts_with(is_name) {
            let is_path = word.chars().all(|c| is_name(c) || "./-".contains(c));
            return is_path.then(|| file(word).exists());
        }
        let parts: Vec<&str> = word.split("::").collect();
        if parts.iter().any(|part| part.is_empty() || !part.chars().all(is_name)) {
            return None;
        }
        match parts.as_slice() {
            [.., owner, name] => {
                Some(self.members.contains(&((*owner).to_owned(), (*name).to_owned())))
            }
            [name] if is_camel_case(name) => {
                Some(self.types.contains(*name) || FOREIGN.contains(name) || file(name).exists())
            }
            _ => None,
        }
    }
}

/// The module that a file or a folder is: `mod.rs`, `lib.rs` and `main.rs` are that of their folder.
fn module(path: &Path) -> String {
    let name = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let stem = name(path).unwrap_or_default();
    match (stem.as_str(), path.parent()) {
        ("mod" | "lib" | "main" | "src", Some(folder)) => module(folder),
        _ => stem,
    }
}

fn identifier(code: &str) -> &str {
    let end = code.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &code[..end.unwrap_or(code.len())]
}

/// What follows `pub`, `pub(super)`, `const fn` and the like.
fn unqualified(code: &str) -> &str {
    let visible = code.strip_prefix("pub").map_or(code, |rest| match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(") ").map_or(code, |(_, rest)| rest),
        None => rest.strip_prefix(' ').unwrap_or(code),
    });
    ["const fn", "unsafe fn"].iter().fold(visible, |code, words| match code.starts_with(words) {
        true => &code[words.len() - 2..],
        false => code,
    })
}

/// The kind of an item that begins with this line, and its name; of an `impl`, that of its type.
fn head(code: &str) -> Option<(&'static str, String)> {
    const KINDS: [&str; 8] =
        ["struct", "enum", "trait", "type", "fn", "const", "static", "macro_rules!"];
    let code = unqualified(code);
    if code.starts_with("impl ") || code.starts_with("impl<") {
        let of = code.split(" where").next().unwrap_or(code);
        let of = of.rsplit_once(" for ").map_or_else(|| behind_generics(&of[4..]), |(_, of)| of);
        let of = of.trim_start().trim_start_matches(['&', '(']);
        let path = of.split(['<', ' ', '{']).next().unwrap_or_default();
        return Some(("impl", path.rsplit("::").next().unwrap_or_default().to_owned()));
    }
    let kind = KINDS
        .into_iter()
        .find(|kind| code.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' ')))?;
    Some((kind, identifier(&code[kind.len() + 1..]).to_owned()))
}

/// What follows the parameters of an `impl`.
fn behind_generics(code: &str) -> &str {
    let mut depth = 0_usize;
    for (at, letter) in code.char_indices() {
        match letter {
            '<' => depth += 1,
            // Not the arrow of a function.
            '>' if !code[..at].ends_with('-') => depth = depth.saturating_sub(1),
            _ if depth == 0 => return &code[at..],
            _ => {}
        }
    }
    code
}

fn is_camel_case(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.contains(|c: char| c.is_ascii_lowercase())
        && !word.contains('_')
}

/// What stands between single backticks, blocks of code apart.
fn quoted(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, block) in text.split("```").enumerate().filter(|(at, _)| at % 2 == 0) {
        let parts: Vec<&str> = block.split('`').collect();
        assert!(parts.len() % 2 == 1, "backticks of block {at} come in pairs: {block}");
        words.extend(parts.into_iter().skip(1).step_by(2).map(str::to_owned));
    }
    words
}

#[test]
fn names_in_the_documents_are_names_of_the_sources() {
    let sources = Sources::new();
    let mut wrong = Vec::new();
    for document in [ARCHITECTURE, CONTRIBUTING, NOTES] {
        let words = quoted(&read(document));
        let checked: Vec<_> =
            words.iter().filter_map(|word| Some((word, sources.knows(word)?))).collect();
        assert!(checked.len() > 5, "{document}: {checked:?}");
        let unknown = checked.iter().filter(|(_, known)| !known);
        wrong.extend(unknown.map(|(word, _)| format!("{document}: `{word}`")));
    }
    assert!(wrong.is_empty(), "no file, type or member has these names:\n{}", wrong.join("\n"));
}

/// The test above would fail: these look like names and are none, or are at another place.
#[test]
fn made_up_names_are_found_out() {
    let sources = Sources::new();
    for good in [
        "Server",
        "Server::turn",
        "Server::run()",
        "server::Server",
        "State",
        "State::Linger",
        "SessionEntry::close_pending",
        "Endpoint::with_lazy_nodelay",
        "table::KNOBS",
        "common::thread",
        "src/server/mod.rs",
        "tests/sim",
        "Makefile",
        "WouldBlock",
        "history::Sample",
    ] {
        assert_eq!(sources.knows(good), Some(true), "{good}");
    }
    for bad in [
        "Gatekeeper",
        "Server::spin",
        "Server::KNOBS",
        "State::Goodbye",
        "SessionEntry::doomed",
        "server::Gatekeeper",
        "Sample",
        "Tombstones",
        "common::fibre",
        "src/server/gate.rs",
        "mod.rs",
        "tests/checks",
    ] {
        assert_eq!(sources.knows(bad), Some(false), "{bad}");
    }
    for other in ["--grace", "SO_LINGER", "setsockopt", "make test", "2>&1", "/proc/PID/environ"] {
        assert_eq!(sources.knows(other), None, "{other}");
    }
}

/// Pictures that were names once: a reader who knows other proxies would not search for them. Each is cut in two
/// here, so that this file does not hold it.
#[test]
fn retired_words_do_not_return() {
    const RETIRED: [[&str; 2]; 7] = [
        ["ho", "use"],
        ["prem", "ises"],
        ["resi", "dent"],
        ["err", "and"],
        ["fare", "well"],
        ["resp", "ite"],
        ["grave", "stone"],
    ];
    let documents = [
        ARCHITECTURE,
        CHANGELOG,
        CLIENT_MANUAL,
        CONTRIBUTING,
        NOTES,
        PROTOCOL,
        README,
        SECURITY,
        SERVER_MANUAL,
        "bench/README.md",
    ];
    let documents = documents.map(|name| (name.to_owned(), read(name)));
    let sources = FOLDERS.iter().flat_map(|folder| sources_below(folder));
    let retired = RETIRED.map(|halves| halves.concat());
    for (name, text) in documents.into_iter().chain(sources) {
        for (number, line) in text.lines().enumerate() {
            // A name that Prometheus prescribes.
            let line = line.replace(&format!("process_{}_memory_bytes", retired[2]), "");
            let mut words = line.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
            let found = words.find(|word| retired.contains(word));
            assert_eq!(found, None, "{name}:{}: {line}", number + 1);
        }
    }
}
