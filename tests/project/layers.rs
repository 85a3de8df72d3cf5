//! A file imports from lower layers only, and modules do not import each other in a circle.
//!
//! ```text
//! layer 5   main  args  process
//! layer 4   server
//! layer 3   socks  metp  http      which never import each other
//! layer 2   state
//! layer 1   reactor  workers       the reactor imports neither workers, proto nor METP
//! layer 0   proto
//! ```
//!
//! Parent and child may import each other: they are one module in several files. Siblings, each with all that is
//! below it, may not. Their tests may: what a test uses besides may be built on what it tests.

mod imports;

use std::collections::{BTreeMap, BTreeSet};

use crate::documents::determinism::sources_below;
use imports::{Crate, Destination, Import, Module, Source, module_of};

const LAYERS: [&[&str]; 6] = [
    &["proto"],
    &["reactor", "workers"],
    &["state"],
    &["socks", "metp", "http"],
    &["server"],
    &["main", "args", "process", "hash_password", "logs", "configuration"],
];

const METP: &str = "metp_protocol";

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// What is wrong with an import, if anything is.
fn fault(import: &Import) -> Option<&'static str> {
    // The root declares the modules and may name them all.
    let from = import.from.first()?;
    let to = match &import.to {
        Destination::Outside(name) if name == METP && from == "reactor" => {
            return Some("the reactor knows no protocol");
        }
        Destination::Outside(_) => return None,
        Destination::Module(to) => to.first()?,
    };
    let Some((above, below)) = layer(from).zip(layer(to)) else {
        return Some("a module without a layer");
    };
    match (from.as_str(), to.as_str()) {
        (from, to) if from == to => None,
        ("reactor", "proto") => Some("the reactor knows no protocol"),
        ("reactor", "workers") => Some("the reactor knows no workers"),
        _ if above < below => Some("a higher layer"),
        _ if above == 3 && below == 3 => Some("another protocol's sessions"),
        _ => None,
    }
}

fn sources_of(folder: &str) -> Vec<Source> {
    let found = sources_below(folder).into_iter();
    let source = |(name, text): (String, String)| {
        let below = name.strip_prefix(folder).and_then(|name| name.strip_prefix('/'));
        Source { module: module_of(below.expect("below the folder")), text }
    };
    found.map(source).collect()
}

fn imports_of(folder: &str, name: &str) -> Vec<Import> {
    let mut sources = sources_of(folder);
    // A binary without a library: its file is the root.
    if !sources.iter().any(|source| source.module.is_empty()) {
        let is_main = |source: &&mut Source| source.module == ["main"];
        sources.iter_mut().find(is_main).expect("a root").module.clear();
    }
    Crate::new(name, &[METP], &sources).imports()
}

fn faults(imports: &[Import]) -> Vec<String> {
    let told = |import: &Import| {
        let from = import.from.join("::");
        fault(import)
            .map(|fault| format!("{from}:{} imports {fault}: {:?}", import.line, import.to))
    };
    imports.iter().filter_map(told).collect()
}

/// Which of its siblings a child of a parent imports.
type Edges<'a> = BTreeMap<(Module, &'a str), BTreeSet<&'a str>>;

/// The siblings that a child imports, directly or through each other.
fn reached<'a>(edges: &Edges<'a>, parent: &Module, child: &'a str) -> BTreeSet<&'a str> {
    let (mut found, mut next) = (BTreeSet::new(), vec![child]);
    while let Some(at) = next.pop() {
        let beyond = edges.get(&(parent.clone(), at)).into_iter().flatten();
        next.extend(beyond.filter(|to| found.insert(**to)));
    }
    found
}

/// Groups of siblings that import each other in a circle, directly or through each other.
fn circles(imports: &[Import]) -> BTreeSet<String> {
    let mut edges = Edges::new();
    for Import { from, to, .. } in imports.iter().filter(|import| !import.in_test) {
        let Destination::Module(to) = to else { continue };
        let common = from.iter().zip(to).take_while(|(from, to)| from == to).count();
        if let (Some(left), Some(right)) = (from.get(common), to.get(common)) {
            edges.entry((from[..common].to_vec(), left)).or_default().insert(right);
        }
    }
    let mut all = BTreeSet::new();
    for (parent, child) in edges.keys() {
        let forth = reached(&edges, parent, child);
        let back = |other: &&&str| reached(&edges, parent, other).contains(child);
        let circle: Vec<&str> = forth.iter().filter(back).copied().collect();
        if !circle.is_empty() {
            all.insert(format!("{}: {}", parent.join("::"), circle.join(", ")));
        }
    }
    all
}

#[test]
fn a_file_imports_from_lower_layers_only() {
    let imports = imports_of("src", "socks5d");
    assert!(imports.len() > 200, "only {} imports were found", imports.len());
    assert_eq!(faults(&imports), [""; 0]);
}

#[test]
fn modules_do_not_import_each_other_in_a_circle() {
    for (folder, name) in [
        ("src", "socks5d"),
        ("client/src", "client"),
        ("metp/src", "metp_protocol"),
        ("common/src", "common"),
    ] {
        assert_eq!(circles(&imports_of(folder, name)), BTreeSet::new(), "{folder}");
    }
}

/// Each `mod.rs` says to which layer it belongs.
#[test]
fn every_module_names_its_layer() {
    for (number, layer) in LAYERS.iter().enumerate() {
        for module in layer.iter() {
            let mut sources = sources_of("src").into_iter();
            if let Some(source) = sources.find(|source| source.module == [*module]) {
                let says = format!("//! Layer {number}: ");
                assert!(source.text.starts_with(&says), "{module} does not start with {says:?}");
            }
        }
    }
}

/// Sources of which each has the fault that is named behind it.
#[test]
fn an_import_of_a_higher_layer_or_another_protocol_is_found() {
    for (file, text, expected) in [
        ("reactor/lane.rs", "use crate::state::Shared;", "a higher layer"),
        ("proto/mod.rs", "fn f() { crate::reactor::f() }", "a higher layer"),
        ("socks/relay.rs", "use crate::{metp, proto};", "another protocol's sessions"),
        ("metp/mod.rs", "use super::socks::Session;", "another protocol's sessions"),
        ("server/mod.rs", "use {crate::args::Args};", "a higher layer"),
        ("reactor/slab.rs", "use metp_protocol::ConnectionId;", "the reactor knows no protocol"),
        ("reactor/slab.rs", "use crate::proto::Parsed;", "the reactor knows no protocol"),
        (
            "reactor/slab.rs",
            "mod a { use super::super::super::workers::f; }",
            "the reactor knows no workers",
        ),
        ("workers/new.rs", "use crate::state::users::Users;", "a higher layer"),
        ("state/users.rs", "use crate::elsewhere::f;", "a module without a layer"),
        ("server/mod.rs", "use crate::{metp::f, socks::g, state, reactor::h, proto};", ""),
        ("workers/mod.rs", "use crate::reactor::f; use metp_protocol::Role;", ""),
        ("main.rs", "use socks5d::server::Server;", ""),
        ("lib.rs", "use crate::server::Server;", ""),
    ] {
        let modules = LAYERS.concat();
        let mut sources: Vec<Source> = modules
            .iter()
            .map(|name| (format!("{name}/mod.rs"), ""))
            .chain([("lib.rs".to_owned(), ""), ("elsewhere.rs".to_owned(), "")])
            .filter(|(name, _)| name != file)
            .map(|(name, text)| Source { module: module_of(&name), text: text.to_owned() })
            .collect();
        sources.push(Source { module: module_of(file), text: text.to_owned() });
        let found = faults(&Crate::new("socks5d", &[METP], &sources).imports());
        let good = match expected {
            "" => found.is_empty(),
            fault => found.len() == 1 && found[0].contains(fault),
        };
        assert!(good, "{file}: {text}: {found:?}");
    }
}

#[test]
fn a_circle_is_found_and_a_parent_with_its_child_is_none() {
    let circles_of = |sources: &[(&str, &str)]| {
        let source = |(name, text): &(&str, &str)| Source {
            module: module_of(name),
            text: (*text).to_owned(),
        };
        let sources: Vec<Source> = sources.iter().map(source).collect();
        let found = circles(&Crate::new("socks5d", &[], &sources).imports());
        found.into_iter().collect::<Vec<_>>().join("; ")
    };
    let root = ("lib.rs", "");
    // Directly, through the parent's names, and through a third.
    for (c, d, circle) in [
        ("use super::d::f;", "use crate::a::c;", "a: c, d"),
        ("use super::Late;", "use super::c::f;", "a: c, d"),
        ("use super::Late;", "use super::e;", "a: c, d, e"),
        ("use super::Late;", "use super::Own;", ""),
        ("use super::Late;", "mod tests { use super::super::c::f; }", ""),
        ("use super::Late;", "", ""),
    ] {
        let parent = "mod c; mod d; mod e; use d::Late; pub struct Own;";
        let e = ("a/e.rs", "use super::c::f;");
        let sources = [root, ("a/mod.rs", parent), ("a/c.rs", c), ("a/d.rs", d), e];
        assert_eq!(circles_of(&sources), circle, "{c} {d}");
    }
    // Between folders, although no file is in a circle.
    let sources = [
        root,
        ("a/mod.rs", ""),
        ("a/c.rs", "use crate::b::d;"),
        ("b/mod.rs", ""),
        ("b/d.rs", ""),
        ("b/e.rs", "use crate::a;"),
    ];
    assert_eq!(circles_of(&sources), ": a, b");
}
