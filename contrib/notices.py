#!/usr/bin/env python3
"""Prints the licences of all crates that the programs contain, with their notices, for packages and images."""

import json
import os
import pathlib
import subprocess
import sys

CARGO = os.environ.get("CARGO", "cargo")
NOTICES = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE")


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def notices(folder):
    """The files with notices. The Apache licence is long, and nearly always a choice beside MIT."""
    files = sorted(path for path in folder.iterdir() if path.name.upper().startswith(NOTICES) and path.is_file())
    return [path for path in files if "APACHE" not in path.name.upper()] or files


def main():
    os.chdir(pathlib.Path(__file__).resolve().parent.parent)
    tree = output(CARGO, "tree", "--locked", "--package=socks5d", "--package=client",
                  "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}")
    names = {tuple(line.split()[:2]) for line in tree.splitlines() if line and "(/" not in line}
    host = next(line.split()[1] for line in output("rustc", "-vV").splitlines() if line.startswith("host:"))
    metadata = output(CARGO, "metadata", "--locked", "--format-version=1", f"--filter-platform={host}")
    found = {(package["name"], "v" + package["version"]): package for package in json.loads(metadata)["packages"]}
    if missing := names - found.keys():
        sys.exit(f"no metadata: {missing}")
    print("The programs contain the standard library of Rust (https://www.rust-lang.org, MIT OR Apache-2.0)\n"
          "and these crates of https://crates.io:")
    for package in (found[name] for name in sorted(names)):
        print(f"\n{'=' * 80}\n{package['name']} {package['version']}: {package['license']}")
        for path in notices(pathlib.Path(package["manifest_path"]).parent):
            print(f"\n{path.read_text(errors='replace').strip()}")


main()
