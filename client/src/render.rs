//! Texts of fixed form, which people read and scripts parse, and the escaping of what comes from a server.

use std::fmt::Write;

use metp_protocol::Status;
use metp_protocol::text::Escaped;

/// The answer 200 to a command without a body.
pub const DONE: &str = "Operation successful\n";
/// The session has ended with QUIT.
pub const CLOSED: &str = "Connection closed\n";

/// The start of a failed connection's message; ` to HOST:PORT: REASON` follows.
pub const NO_CONNECTION: &str = "Cannot connect";

/// The message before a connection is made. `name` is the account's.
pub fn connecting(host: &str, port: u16, name: &[u8]) -> String {
    format!("Connecting to {} with user '{}'", endpoint(host, port), Escaped(name))
}

/// `HOST:PORT`, with an IPv6 address in brackets.
pub fn endpoint(host: &str, port: u16) -> String {
    let host = text(host.as_bytes());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A line from a server as printable ASCII: every other byte becomes `\xHH`, so that no server can send control
/// sequences to the terminal. Servers of METP send printable ASCII only.
pub fn text(line: &[u8]) -> String {
    line.iter().fold(String::with_capacity(line.len()), |mut shown, &byte| {
        match byte {
            b' '..=b'~' => shown.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(shown, "\\x{byte:02x}")),
        }
        shown
    })
}

/// A line of a body, made printable, with a line end.
pub fn line(line: &[u8]) -> String {
    text(line) + "\n"
}

/// The status line 200 with what followed the code, as it is printed for a line that was sent as it is.
pub fn status(text: &str) -> String {
    let between = if text.is_empty() { "" } else { " " };
    format!("{}{between}{text}\n", Status::OK)
}

/// The figures of GET_METRICS: connections since the start, open connections, and bytes.
pub fn metrics([historical, current, bytes]: [&str; 3]) -> String {
    format!(
        "Historical Connections: {historical}\nCurrent Connections:    {current}\nBytes Transferred:      {bytes}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(text(b"alice admin a\\x20b"), "alice admin a\\x20b");
        assert_eq!(text(b"\x1b]0;x\x07\t\xc2\x9b"), "\\x1b]0;x\\x07\\x09\\xc2\\x9b");
    }

    #[test]
    fn metrics_to_the_letter() {
        assert_eq!(
            metrics(["42", "5", "1048576"]),
            "Historical Connections: 42\nCurrent Connections:    5\nBytes Transferred:      1048576\n"
        );
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        assert_eq!(connecting("::1", 8080, b"a b"), "Connecting to [::1]:8080 with user 'a\\x20b'");
        assert_eq!(endpoint("localhost", 1), "localhost:1");
    }
}
