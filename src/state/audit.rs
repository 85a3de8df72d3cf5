//! What is changed over METP, for the diagnostics (§11.9 of `protocol_metp.txt`): each change that is made, once, when
//! it is made. The session that has asked for it may be gone by then.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use metp_protocol::text::Escaped;

use crate::reactor::slab::Key;

/// The target of the lines: they are METP's.
const LOG_TARGET: &str = "socks5d::metp";

/// A change: who makes it, and from where. It holds no password.
pub struct AuditRecord {
    /// The client's address.
    pub remote: SocketAddr,
    /// The account's name.
    pub user: Rc<[u8]>,
    /// The command, without passwords.
    pub command: String,
}

impl AuditRecord {
    /// Logs the change, whatever the log level is: an administrator who can silence the log must not act unseen.
    pub fn write(&self) {
        let (name, command) = (Escaped(&self.user), &self.command);
        let remote = self.remote;
        let line = format_args!("audit: remote={remote} user=\"{name}\" command=\"{command}\"");
        let record =
            log::Record::builder().level(log::Level::Info).target(LOG_TARGET).args(line).build();
        log::logger().log(&record);
    }
}

/// Changes that sessions have asked the server for, and that are not made yet: one at a time for each session.
#[derive(Default)]
pub struct Requested(HashMap<Key, AuditRecord>);

impl Requested {
    /// This session has asked for a change.
    pub fn note(&mut self, session: Key, record: AuditRecord) {
        self.0.insert(session, record);
    }

    /// What the session has asked for is made, or is not going to be.
    pub fn settle(&mut self, session: Key, made: bool) {
        if let Some(record) = self.0.remove(&session).filter(|_| made) {
            record.write();
        }
    }
}
