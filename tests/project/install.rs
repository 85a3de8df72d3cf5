//! `make install` puts every file where its reader looks for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// What is installed below PREFIX, the mode, and where it comes from.
const INSTALLED: [(&str, u32, &str); 13] = [
    ("bin/client", 0o755, "bin/client"),
    ("bin/socks5d", 0o755, "bin/socks5d"),
    ("share/bash-completion/completions/client", 0o644, "contrib/completions/client.bash"),
    ("share/bash-completion/completions/socks5d", 0o644, "contrib/completions/socks5d.bash"),
    ("share/doc/socks5d/protocol_metp.txt", 0o644, "protocol_metp.txt"),
    ("share/fish/vendor_completions.d/client.fish", 0o644, "contrib/completions/client.fish"),
    ("share/fish/vendor_completions.d/socks5d.fish", 0o644, "contrib/completions/socks5d.fish"),
    ("share/man/man1/client.1", 0o644, "man/client.1"),
    ("share/man/man5/socks5d.conf.5", 0o644, "man/socks5d.conf.5"),
    ("share/man/man7/metp.7", 0o644, "man/metp.7"),
    ("share/man/man8/socks5d.8", 0o644, "man/socks5d.8"),
    ("share/zsh/site-functions/_client", 0o644, "contrib/completions/_client"),
    ("share/zsh/site-functions/_socks5d", 0o644, "contrib/completions/_socks5d"),
];

/// All files below a folder, and their modes.
fn files(folder: &Path, found: &mut BTreeMap<String, u32>, root: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files(&path, found, root);
        } else {
            let mode = fs::metadata(&path).expect("readable").permissions().mode() & 0o7777;
            let name = path.strip_prefix(root).expect("below it").to_str().expect("text");
            found.insert(name.to_owned(), mode);
        }
    }
}

/// In a copy of the tree where all is built and no Rust is there.
#[test]
fn install_puts_every_file_in_its_place() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let (tree, stage) = (folder.path().join("tree"), folder.path().join("the stage"));
    fs::create_dir_all(tree.join("bin")).expect("made");
    for name in ["Makefile", "Cargo.toml", "man", "contrib", "protocol_metp.txt"] {
        symlink(source.join(name), tree.join(name)).expect("made");
    }
    for name in ["bin/socks5d", "bin/client"] {
        fs::write(tree.join(name), name).expect("written");
    }
    let mut make = Command::new("make");
    make.args(["install", "CARGO=false", "PREFIX=/usr"]).current_dir(&tree);
    make.arg(format!("DESTDIR={}", stage.display()));
    // The tests may be run by a make of their own, which has variables of its own.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        make.env_remove(variable);
    }
    let output = make.output().expect("make");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let prefix = stage.join("usr");
    let mut found = BTreeMap::new();
    files(&stage, &mut found, &prefix);
    let expected = INSTALLED.map(|(name, mode, _)| (name.to_owned(), mode));
    assert_eq!(found, BTreeMap::from(expected));
    for (name, _, from) in INSTALLED {
        let read = |path: &Path| fs::read(path).expect("readable");
        assert!(read(&prefix.join(name)) == read(&tree.join(from)), "{name} is not {from}");
    }
}
