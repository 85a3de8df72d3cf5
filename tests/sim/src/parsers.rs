//! The parsers of layer 0: pure, total and restartable whatever the bytes are, and true to what they say.

use std::fmt::Debug;

use metp_protocol::text::{Escaped, unescape};
use metp_protocol::{
    BUFFER_SIZES, Command, LINE_LIMIT, LONGEST_NAME, LONGEST_PASSWORD, LogSelection, MetricsBody,
    PreAuthCommand, Response, Role, Status, line,
};
use socks5d::proto::Parsed;
use socks5d::proto::socks5::datagram::{Datagram, Destination, Header};
use socks5d::proto::socks5::{
    AUTH_VERSION, Credentials, Error, Hello, Host, LONGEST_MESSAGE, Request, VERSION,
};

use crate::reference::read_datagram;

/// RFC 1928 §3: version and methods.
pub fn hello(data: &[u8]) {
    restartable(data, LONGEST_MESSAGE, Hello::parse);
    if let Ok(Some((hello, taken))) = Hello::parse(data) {
        let again = [&[VERSION, length(hello.methods)], hello.methods].concat();
        assert_eq!(again, data[..taken], "another message than the one that came");
    }
    if let Err(error) = Hello::parse(data) {
        assert!(data[0] != VERSION && error == Error::Version(data[0]));
    }
}

/// RFC 1929 §2: name and password.
pub fn credentials(data: &[u8]) {
    restartable(data, LONGEST_MESSAGE, Credentials::parse);
    if let Ok(Some((Credentials { name, password }, taken))) = Credentials::parse(data) {
        let name = [&[AUTH_VERSION, length(name)], name].concat();
        let again = [&name[..], &[length(password)], password].concat();
        assert_eq!(again, data[..taken], "another message than the one that came");
    }
    if let Err(error) = Credentials::parse(data) {
        assert!(data[0] != AUTH_VERSION && error == Error::Version(data[0]));
    }
}

/// How an IPv4 address in the form of IPv6 begins, behind its type: RFC 4291 §2.5.5.2.
const MAPPED: [u8; 13] = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// RFC 1928 §4: command and target.
pub fn request(data: &[u8]) {
    restartable(data, LONGEST_MESSAGE, Request::parse);
    match Request::parse(data) {
        Ok(Some((request, taken))) => {
            let again = request.encode();
            // RSV is skipped when it is read, and 00 when it is written. A mapped address is an IPv4 address.
            let came = match data[3..taken].strip_prefix(&MAPPED) {
                Some(ipv4) => [&data[..2], &[0, 1], ipv4].concat(),
                None => [&data[..2], &[0], &data[3..taken]].concat(),
            };
            assert_eq!(again, came, "another message than the one that came");
            assert_eq!(Request::parse(&again), Ok(Some((request.clone(), again.len()))));
            let shown = request.target.to_string();
            assert!(shown.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{shown:?}");
            if let Host::Name(name) = request.target.host {
                assert!(name.len() <= 255);
            }
        }
        Ok(None) => {}
        Err(Error::Version(byte)) => assert!(byte == data[0] && byte != VERSION),
        Err(Error::AddressType(byte)) => assert!(byte == data[3] && !matches!(byte, 1 | 3 | 4)),
    }
}

/// RFC 1928 §7: the header of a datagram, against an independent reading.
pub fn datagram(bytes: &[u8]) {
    let expected = read_datagram(bytes);
    let Ok(datagram) = Datagram::parse(bytes) else { return assert_eq!(expected, None) };
    let expected = expected.expect("a datagram by RFC 1928");
    assert_eq!(bytes.len() - datagram.header, expected.payload);
    match datagram.destination {
        Destination::Address(address) => {
            assert_eq!((Ok(address.ip()), address.port()), (expected.host, expected.port));
            let header = Header::new(address);
            assert_eq!(header.bytes()[3..], bytes[3..datagram.header], "written as it was read");
        }
        Destination::Name(name, port) => {
            assert_eq!((Err(name.to_vec()), port), (expected.host, expected.port));
        }
    }
}

/// METP §3 to §7: lines, openings, commands of both roles, status lines, bodies.
pub fn metp_line(data: &[u8]) {
    let mut rest = data;
    let mut lines = Vec::new();
    loop {
        let parsed = line(rest);
        assert_eq!(parsed, line(rest), "not pure");
        let Ok(Some((text, taken))) = parsed else {
            let open = rest.len() < LINE_LIMIT;
            assert!(!rest.iter().take(LINE_LIMIT).any(|byte| *byte == b'\n'));
            assert_eq!(parsed.is_ok(), open, "a line has {LINE_LIMIT} octets at most");
            break;
        };
        assert!(taken <= LINE_LIMIT && !text.contains(&b'\n'));
        assert_eq!(line(&rest[..taken]), Ok(Some((text, taken))));
        for end in [0, taken / 2, taken - 1] {
            assert_eq!(line(&rest[..end]), Ok(None));
        }
        let ending: &[u8] = if taken == text.len() + 2 { b"\r\n" } else { b"\n" };
        assert_eq!([text, ending].concat(), rest[..taken], "a line with something added");
        one_line(text);
        lines.push(text);
        rest = &rest[taken..];
    }
    one_line(data);
    if let Some(metrics) = MetricsBody::parse(lines.iter().copied()) {
        let printed = metrics.lines();
        let again = MetricsBody::parse(printed.iter().map(|line| line.as_bytes()));
        assert_eq!(again, Some(metrics));
    }
}

fn one_line(text: &[u8]) {
    opening(text);
    commands(text);
    if let Some(status) = Status::parse(text) {
        assert_eq!(status.to_string().as_bytes(), &text[..3]);
        assert_eq!(Status::parse(status.to_string().as_bytes()), Some(status));
    }
    let shown = Escaped(text).to_string();
    assert!(shown.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{shown:?}");
    assert_eq!(&*unescape(shown.as_bytes()), text);
}

fn opening(text: &[u8]) {
    let opening = PreAuthCommand::parse(text);
    assert!(opening == PreAuthCommand::parse(text), "not pure");
    match &opening {
        None => return,
        Some(PreAuthCommand::Hello) => assert_eq!(text, b"HELLO METP/1.0"),
        Some(PreAuthCommand::Auth { name, password }) => {
            assert!(!name.is_empty() && !password.is_empty() && text.ends_with(password));
            let travels = !password.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
            let encoded = opening.as_ref().and_then(PreAuthCommand::encode);
            assert_eq!(encoded.is_some(), travels, "a password that cannot travel");
        }
    }
    if let Some(wire) = opening.as_ref().and_then(PreAuthCommand::encode).filter(|wire| fits(wire))
    {
        let again = PreAuthCommand::parse(whole(&wire));
        assert!(again == opening, "another opening than the one that came");
    }
}

fn commands(text: &[u8]) {
    let (admin, user) = (Command::parse(text, Role::Admin), Command::parse(text, Role::User));
    assert!(admin == Command::parse(text, Role::Admin), "not pure");
    assert!(user == admin || user == Err(Response::Forbidden), "roles see different verbs");
    assert!(admin != Err(Response::Forbidden), "an administrator may do everything");
    if let Ok(command) = &user {
        let own = matches!(
            command,
            Command::GetMetrics
                | Command::GetAllMetrics
                | Command::Quit
                | Command::Capabilities
                | Command::Ping(_)
                | Command::UserMetrics(_)
                | Command::ChangePassword { .. }
        );
        assert!(own, "a user's command that is for administrators: {command}");
    }
    let command = match &admin {
        Ok(command) => command,
        Err(response) => {
            let line = response.to_string();
            assert_eq!(Status::parse(line.as_bytes()), Some(Status::BAD_REQUEST));
            return;
        }
    };
    match command {
        Command::ChangeBuffer(size) => assert!(BUFFER_SIZES.contains(size)),
        Command::AddUser { name, password } => {
            assert!((1..=LONGEST_NAME).contains(&name.len()) && name != b"-");
            assert!((1..=LONGEST_PASSWORD).contains(&password.len()));
        }
        Command::ChangePassword { name, password } => {
            assert!(!name.is_empty() && (1..=LONGEST_PASSWORD).contains(&password.len()));
        }
        Command::DeleteUser(name)
        | Command::SetRole(name, _)
        | Command::KillUser(name)
        | Command::UserMetrics(Some(name))
        | Command::Connections(Some(name)) => assert!(!name.is_empty()),
        Command::Subscribe(topics, every) => {
            assert!(!topics.is_empty() && (1..=3600).contains(&every.as_secs()));
        }
        Command::Shutdown(Some(grace)) => assert!(grace.as_secs_f64() <= 86_400.0),
        Command::GetLogs(LogSelection { last: Some(last), .. }) => assert!(*last < 10_000_000_000),
        _ => {}
    }
    told_without_passwords(command);
    let wire = command.encode().expect("what came in a line fits into one");
    if fits(&wire) {
        let again = Command::parse(whole(&wire), Role::Admin);
        assert!(again == admin, "another command than the one that came");
    }
}

/// What the audit shows of a command is one line of printable ASCII without its password.
fn told_without_passwords(command: &Command) {
    let told = command.to_string();
    assert!(told.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{told:?}");
    if let Command::AddUser { name, password } | Command::ChangePassword { name, password } =
        command
    {
        let (verb, rest) = told.split_once(' ').expect("a verb and a name");
        assert!(["ADD-USER", "CHANGE-PASSWORD"].contains(&verb) && !password.is_empty());
        assert_eq!(rest, Escaped(name).to_string(), "more than the name");
    }
}

/// Whether a line is short enough to be read; escapes make it longer than the one that came.
fn fits(wire: &[u8]) -> bool {
    wire.len() <= LINE_LIMIT
}

fn whole(wire: &[u8]) -> &[u8] {
    match line(wire) {
        Ok(Some((text, taken))) if taken == wire.len() => text,
        _ => panic!("encoded as something else than one line"),
    }
}

/// A parser is pure: equal bytes give equal results. A whole message is read alike with and without bytes behind it. No
/// proper prefix is a message, and a prefix is an error only if every continuation gives that error.
pub fn restartable<'a, T, E>(
    data: &'a [u8],
    longest: usize,
    parse: impl Fn(&'a [u8]) -> Parsed<T, E>,
) where
    T: PartialEq + Debug + 'a,
    E: PartialEq + Debug + 'a,
{
    let parsed = parse(data);
    assert_eq!(parsed, parse(data), "not pure");
    let end = match &parsed {
        Ok(Some((_, taken))) => {
            assert!((1..=data.len().min(longest)).contains(taken));
            assert_eq!(parse(&data[..*taken]), parsed, "bytes behind a message changed it");
            *taken
        }
        Ok(None) => {
            assert!(data.len() < longest, "no message is as long as that");
            data.len()
        }
        Err(_) => data.len().min(longest),
    };
    for cut in 0..end {
        let early = parse(&data[..cut]);
        assert!(
            early == Ok(None) || (early.is_err() && early == parsed),
            "{cut} of {end} bytes say {early:?}, all of them {parsed:?}"
        );
    }
}

fn length(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).expect("a length byte holds it")
}
