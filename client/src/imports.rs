//! The imports between the modules of this program form no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Module = Vec<String>;

/// Each module with the path of its file. Tests in files of their own belong to no module.
fn modules(folder: &Path, above: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let module: Module = above.iter().chain([&name]).cloned().collect();
        match name.as_str() {
            "tests" | "main" | "imports" => {}
            _ if path.is_dir() => modules(&path, &module, found),
            "mod" => drop(found.insert(above.to_vec(), read(&path))),
            _ => drop(found.insert(module, read(&path))),
        }
    }
}

/// The code of a file, without comments and tests.
fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source");
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// The paths that `tree` of a `use` stands for: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inner = inner.rsplit_once('}').expect("a closing brace").0;
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inner.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => parts.push(String::new()),
            _ => {}
        }
        if letter != ',' || depth > 0 {
            parts.last_mut().expect("one part").push(letter);
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths(part)).map(|path| before.trim().to_owned() + &path).collect()
}

/// The modules that the code of `module` imports from.
fn imports(module: &Module, code: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let starts = ["\nuse ", "\npub use "].into_iter();
    let trees = starts.flat_map(|start| code.split(start).skip(1));
    let trees = trees.filter_map(|rest| rest.split_once(';'));
    let written = trees.flat_map(|(tree, _)| paths(tree));
    let inline = ["crate::", "super::"].into_iter().flat_map(|start| {
        let rests = code.split(start).skip(1);
        rests.map(move |rest| {
            let end = rest.find(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
            start.to_owned() + &rest[..end.unwrap_or(rest.len())]
        })
    });
    let resolve = |path: String| {
        let mut words: Vec<&str> = path.split("::").collect();
        let mut base = module.clone();
        match words[0] {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            _ => words.insert(0, ""),
        }
        let names = words[1..].iter().map(|name| (*name).to_owned());
        let full: Module = base.iter().cloned().chain(names).collect();
        let known = (1..=full.len()).rev().map(|length| full[..length].to_vec());
        known.into_iter().find(|module| all.contains_key(module))
    };
    let found = written.chain(inline).filter_map(resolve);
    found.filter(|found| found != module).collect()
}

#[test]
fn no_module_imports_one_that_imports_it() {
    let mut all = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut all);
    let mut graph: BTreeMap<Module, BTreeSet<Module>> =
        all.iter().map(|(module, code)| (module.clone(), imports(module, code, &all))).collect();
    let watch = graph[&vec!["watch".to_owned()]].clone();
    assert!(watch.contains(&vec!["watch".to_owned(), "poll".to_owned()]), "{watch:?}");
    // Modules that import none but those that are gone, until all are gone.
    while let Some(leaf) = graph.iter().find(|(_, imports)| imports.is_empty()) {
        let leaf = leaf.0.clone();
        graph.remove(&leaf);
        graph.values_mut().for_each(|imports| imports.retain(|import| *import != leaf));
    }
    assert!(graph.is_empty(), "a circle is among: {graph:?}");
}
