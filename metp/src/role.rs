//! What an account may do (§6).

use std::fmt;

/// What an account may do (§6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May read the metrics, and what concerns the account itself.
    User,
    /// May do everything.
    Admin,
}

impl Role {
    /// Reads the word of the wire.
    pub fn parse(word: &[u8]) -> Option<Self> {
        match word {
            b"user" => Some(Role::User),
            b"admin" => Some(Role::Admin),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::User => "user",
            Role::Admin => "admin",
        })
    }
}
