//! What users read, and scripts parse: to the letter.

use std::fmt::Write;

use metp_protocol::Status;
use metp_protocol::text::Escaped;

/// A command without a body has been carried out.
pub const DONE: &str = "Operation successful\n";
/// The session has ended as it should.
pub const CLOSED: &str = "Connection closed\n";

/// There is no connection; ` to HOST:PORT: why` follows.
pub const NO_CONNECTION: &str = "Cannot connect";

/// What is said before anything else.
pub fn connecting(host: &str, port: u16, name: &[u8]) -> String {
    format!("Connecting to {} with user '{}'", endpoint(host, port), Escaped(name))
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub fn endpoint(host: &str, port: u16) -> String {
    let host = text(host.as_bytes());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A line of text from the server. It is printable already if the server is what it should be; whatever
/// else a terminal might obey is shown as `\xHH`.
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

/// A line of a body.
pub fn line(line: &[u8]) -> String {
    text(line) + "\n"
}

/// The first line of what the server said to a line that was sent as it is.
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
    fn what_a_terminal_would_obey_is_escaped() {
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
