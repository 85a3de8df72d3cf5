//! Accounts in a users file: what is stored, what a login costs, what happens when the server or a call fails.

#![cfg(test)]

mod audit;
mod crash;
mod faults;
mod figures;
mod hash_password;
mod limits;
mod logins;
mod permissions;
mod rates;
mod reload;
mod start;
mod store;
mod store_errors;

use std::fs;
use std::path::PathBuf;

use support::proxy::{Builder, Proxy};
use support::socks::{Client, HELLO, credentials};
use tempfile::TempDir;

/// The hash of a generated password that nobody knows.
pub const TOKEN: &str = "$b2$AAECAwQFBgcICQoLDA0ODw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// A vector of crypt_blowfish: the hash of the password `U*U`.
pub const BCRYPT: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// A users file in a directory of its own.
pub struct UsersFile {
    /// The directory.
    pub directory: TempDir,
    /// The file.
    pub path: PathBuf,
}

impl UsersFile {
    /// A file with this text.
    pub fn new(text: &str) -> Self {
        let file = UsersFile::missing();
        fs::write(&file.path, text).expect("written");
        file
    }

    /// There is no such file yet.
    pub fn missing() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("users");
        UsersFile { directory, path }
    }

    /// A proxy with this file, and an administrator in memory.
    pub fn proxy(&self) -> Proxy {
        self.builder().start()
    }

    /// What starts such a proxy.
    pub fn builder(&self) -> Builder {
        Builder::default().args([&PathBuf::from("--users"), &self.path])
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.path).expect("UTF-8")
    }

    /// The names in the directory.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).expect("read");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

/// The status of a login over SOCKS (RFC 1929 section 2); nothing if the connection is closed without one.
pub fn login(proxy: &Proxy, name: &str, password: &str) -> Vec<u8> {
    let mut client = Client::new(proxy.socks());
    client.say(HELLO).hears(b"\x05\x02");
    client.say(&credentials(name.as_bytes(), password.as_bytes()));
    status(&mut client)
}

/// The status that a client is told.
pub fn status(client: &mut Client) -> Vec<u8> {
    use std::io::Read;
    let mut status = Vec::new();
    let read = (&client.stream).take(2).read_to_end(&mut status);
    read.expect("an orderly end");
    status
}
