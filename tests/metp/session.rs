//! METP/1.0: the course of a session. PreAuthCommand, lines, splits, order of replies, ends.

use std::io::Write;

use proptest::prelude::*;
use support::metp::Metp;
use support::proxy::{Builder, Proxy, connect};
use support::read_to_end;

const HELLO: &str = "HELLO METP/1.0\n";
const WELCOME: &str = "200 Welcome to METP/1.0\n";
const OPENED: &str = "200 Welcome to METP/1.0\n200 OK\n";
const EMPTY: &str = "400 Bad Request [SYNTAX] no verb at the beginning of the line\n";
const UNKNOWN: &str = "400 Bad Request [SYNTAX] unknown verb\n";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments\n";
const LONG: &str = "400 Bad Request [SYNTAX] line too long\n";
const ZEROS: &str =
    "HISTORICAL_CONNECTIONS: 0\nCURRENT_CONNECTIONS:    0\nBYTES_TRANSFERRED:      0\n.\n";

/// Everything the server says to these bytes, up to its EOF. The client does not close first.
fn says(proxy: &Proxy, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(proxy.metp_address());
    stream.write_all(bytes.as_ref()).expect("taken");
    String::from_utf8(read_to_end(&mut stream)).expect("ASCII")
}

/// A command filled up with blanks to so many octets, LF included.
fn padded(command: &str, octets: usize) -> String {
    format!("{command:<width$}\n", width = octets - 1)
}

/// The login filled up with blanks, before the name because a password may end in them.
fn padded_login(octets: usize) -> String {
    format!("AUTH{:>width$}\n", " admin 1234", width = octets - 5)
}

#[test]
fn the_opening_to_the_letter() {
    let proxy = Proxy::start();
    let quit = "200 Welcome to METP/1.0\n200 OK\n200 Goodbye\n";
    assert_eq!(says(&proxy, "HELLO METP/1.0\nAUTH admin 1234\nQUIT\n"), quit);
    assert_eq!(says(&proxy, "HELLO METP/1.0\r\nAUTH admin 1234\r\nQUIT\r\n"), quit);
    assert_eq!(says(&proxy, "HELLO METP/1.0\nAUTH  admin 1234\nQUIT\n"), quit);
}

#[test]
fn anything_else_before_login_is_400_and_eof() {
    let proxy = Proxy::start();
    for line in [
        "",
        "\r",
        " ",
        "HELLO",
        "HELLO METP/1.1",
        "HELLO METP/1.0 ",
        "hello METP/1.0",
        "QUIT",
        "GET_METRICS",
        "USERS",
        "ADD-USER evil evil",
        "AUTH",
        "AUTH admin",
        "AUTH admin ",
        "auth admin 1234",
        "\0\u{1}\u{7f}",
    ] {
        let bad = "400 Bad Request\n";
        assert_eq!(says(&proxy, format!("{line}\n")), bad, "{line:?} first");
        let second = says(&proxy, format!("{HELLO}{line}\n{HELLO}AUTH admin 1234\n"));
        assert_eq!(second, format!("{WELCOME}{bad}"), "{line:?} after HELLO");
    }
    assert_eq!(says(&proxy, "AUTH admin 1234\n"), "400 Bad Request\n", "AUTH comes after HELLO");
}

/// A reset could destroy the answer before it is read; so the server listens on until the client closes.
#[test]
fn a_client_that_goes_on_talking_after_its_refusal_is_not_reset() {
    let proxy = Proxy::start();
    let mut witness = proxy.admin();
    for refused in [&"x".repeat(60_000), "QUIT\n", "HELLO METP/1.0\nAUTH admin 12345\n"] {
        let mut stream = connect(proxy.metp_address());
        stream.write_all(refused.as_bytes()).expect("taken");
        assert!(read_to_end(&mut stream).starts_with(b"4") || refused.starts_with("HELLO"));
        for _ in 0..3 {
            stream.write_all(&[b'x'; 5000]).expect("no reset");
            barrier(&mut witness);
        }
        assert!(stream.take_error().expect("a socket").is_none(), "no reset");
    }
}

/// A page in the administrator's browser can make it send any body to this port.
#[test]
fn a_browser_cannot_be_made_to_give_commands() {
    let proxy = Proxy::start();
    let request = "POST / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: text/plain\r\n\r\n\
                   HELLO METP/1.0\nAUTH admin 1234\nADD-USER evil evil\n";
    assert_eq!(says(&proxy, request), "400 Bad Request\n");
    let cookies = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(says(&proxy, cookies), "400 Bad Request\n");
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin"]);
}

#[test]
fn a_bad_login_is_401_and_eof_whoever_it_names() {
    let proxy = Proxy::start();
    for login in ["admin 12345", "admin 123", "admin  1234", "admin 1234 ", "Admin 1234", "x 1234"]
    {
        let said = says(&proxy, format!("{HELLO}AUTH {login}\nADD-USER evil evil\n"));
        assert_eq!(said, format!("{WELCOME}401 Unauthorized\n"), "{login}");
    }
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin"]);
}

#[test]
fn a_password_is_the_rest_of_the_line() {
    let proxy = Builder::default().superuser(Some("b: x y ")).start();
    assert_eq!(
        says(&proxy, format!("{HELLO}AUTH b  x y \nQUIT\n")),
        format!("{OPENED}200 Goodbye\n")
    );
    assert_eq!(
        says(&proxy, format!("{HELLO}AUTH b  x y \r\nQUIT\r\n")),
        format!("{OPENED}200 Goodbye\n")
    );
    for wrong in ["b x y ", "b  x y", "b  x  y ", "b  x"] {
        let said = says(&proxy, format!("{HELLO}AUTH {wrong}\n"));
        assert_eq!(said, format!("{WELCOME}401 Unauthorized\n"), "{wrong:?}");
    }
}

#[test]
fn an_unknown_line_after_login_is_400_and_the_session_stays() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for line in ["", "\r", " ", " USERS"] {
        admin.say(&format!("{line}\n")).hears(EMPTY);
    }
    for line in ["HELP", "HELLO METP/1.0", "AUTH admin 1234", "CAPABILITIES", "\0", "."] {
        admin.say(&format!("{line}\n")).hears(UNKNOWN);
    }
    admin.say_bytes(b"\xff\xfe\n").hears(UNKNOWN);
    admin.say("USERS all\n").hears(SYNTAX);
    admin.say("GET_METRICS\n").hears("200 OK\n").hears(ZEROS);
}

/// METP section 1: the server accepts LF or CRLF; it sends LF alone, and `.` LF at the end of a body.
#[test]
fn the_server_never_sends_a_cr() {
    let proxy = Proxy::start();
    let commands = "GET_METRICS\r\nUSERS\r\nGET_LOGS\r\n\r\nCHANGE-BUFFER 1\r\nQUIT\r\n";
    let said = says(&proxy, format!("HELLO METP/1.0\r\nAUTH admin 1234\r\n{commands}"));
    let expected = format!(
        "{OPENED}200 OK\n{ZEROS}200 OK\nadmin admin\n.\n200 OK\n.\n{EMPTY}200 OK\n200 Goodbye\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn quit_ends_the_session_whatever_follows() {
    let proxy = Proxy::start();
    let said = says(&proxy, format!("{HELLO}AUTH admin 1234\nQUIT\nADD-USER late late\nUSERS\n"));
    assert_eq!(said, format!("{OPENED}200 Goodbye\n"));
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin"]);
}

#[test]
fn all_that_was_pipelined_before_a_half_close_is_answered_then_eof() {
    let proxy = Proxy::start();
    let mut session = proxy.metp();
    let many = 500;
    session.say(&format!("{HELLO}AUTH admin 1234\n{}", "USERS\nnonsense\n".repeat(many)));
    session.say("GET_METRICS").half_close();
    session.hears(OPENED);
    for _ in 0..many {
        session.hears("200 OK\nadmin admin\n.\n").hears(UNKNOWN);
    }
    // A line without its LF is no command.
    session.hears_eof();
}

#[test]
fn a_line_of_4096_octets_is_a_command() {
    let proxy = Proxy::start();
    for octets in [4095, 4096] {
        let mut session = proxy.metp();
        session.say(HELLO).hears(WELCOME);
        session.say(&padded_login(octets)).hears("200 OK\n");
        session.say(&padded("GET_METRICS", octets)).hears("200 OK\n").hears(ZEROS);
        let crlf = padded("GET_METRICS", octets - 1).replace('\n', "\r\n");
        session.say(&crlf).hears("200 OK\n").hears(ZEROS);
    }
}

#[test]
fn a_longer_line_before_login_is_400_and_eof() {
    let proxy = Proxy::start();
    for octets in [4097, 4098, 8192, 60_000] {
        let said = says(&proxy, format!("{HELLO}{}USERS\n", padded_login(octets)));
        assert_eq!(said, format!("{WELCOME}400 Bad Request\n"), "{octets}");
        assert_eq!(says(&proxy, padded("HELLO METP/1.0", octets)), "400 Bad Request\n");
    }
    // The answer does not wait for the end of the line.
    assert_eq!(says(&proxy, "x".repeat(4096)), "400 Bad Request\n");
}

#[test]
fn a_longer_line_after_login_is_skipped_up_to_its_lf() {
    let proxy = Proxy::start();
    let mut session = proxy.admin();
    for octets in [4097, 4098, 8191, 8192, 8193, 60_000] {
        let long = padded("GET_METRICS", octets);
        session.say(&format!("{long}USERS\n")).hears(LONG).hears("200 OK\nadmin admin\n.\n");
    }
    session.say(&format!("{}QUIT\nUSERS\n", "x".repeat(4097)));
    session.hears(LONG).hears("200 OK\nadmin admin\n.\n");
    // Exactly one answer, and it does not wait for the end of the line.
    session.say(&"x".repeat(4096)).hears(LONG);
    session.say(&"x".repeat(9000)).say("\nUSERS\n").hears("200 OK\nadmin admin\n.\n");
    session.say(&"x".repeat(5000)).half_close().hears(LONG).hears_eof();
}

/// Returns when the server has taken all that was sent before: its loop serves connections in order.
fn barrier(witness: &mut Metp) {
    witness.metrics();
}

#[test]
fn a_long_line_may_be_split_anywhere_around_the_limit() {
    let proxy = Proxy::start();
    let (mut session, mut witness) = (proxy.admin(), proxy.admin());
    for at in [1, 4094, 4095, 4096, 4097, 4098] {
        for (octets, answer) in [(4096, format!("200 OK\n{ZEROS}")), (4097, LONG.to_owned())] {
            let bytes = format!("{}USERS\n", padded("GET_METRICS", octets));
            let (first, second) = bytes.split_at(at);
            session.say(first);
            barrier(&mut witness);
            session.say(second).hears(&answer).hears("200 OK\nadmin admin\n.\n");
        }
    }
}

const TRANSCRIPT: &str = "HELLO METP/1.0\r\nAUTH admin 1234\nCHANGE-BUFFER 4096\nGET_METRICS\r\n\nADD-USER\nUSERS\nQUIT\n";

fn transcript_answer() -> String {
    format!("{OPENED}200 OK\n200 OK\n{ZEROS}{EMPTY}{SYNTAX}200 OK\nadmin admin\n.\n200 Goodbye\n")
}

#[test]
fn a_session_may_be_split_at_every_byte() {
    let proxy = Proxy::start();
    let mut witness = proxy.admin();
    for at in 1..TRANSCRIPT.len() {
        let (first, second) = TRANSCRIPT.split_at(at);
        let mut stream = connect(proxy.metp_address());
        stream.write_all(first.as_bytes()).expect("taken");
        barrier(&mut witness);
        stream.write_all(second.as_bytes()).expect("taken");
        let said = String::from_utf8(read_to_end(&mut stream)).expect("ASCII");
        assert_eq!(said, transcript_answer(), "split at {at}");
    }
}

#[test]
fn a_session_may_come_byte_by_byte() {
    let proxy = Proxy::start();
    let mut witness = proxy.admin();
    let mut stream = connect(proxy.metp_address());
    for byte in TRANSCRIPT.bytes() {
        stream.write_all(&[byte]).expect("taken");
        barrier(&mut witness);
    }
    assert_eq!(String::from_utf8(read_to_end(&mut stream)).expect("ASCII"), transcript_answer());
}

fn command() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["admin", "u1", "u2", ".dot", "nobody"]);
    let word = prop::sample::select(vec!["user", "admin", "0", "17", "4096abc", "x y", "", "  "]);
    let verb = prop::sample::select(vec![
        "GET_METRICS",
        "GET_LOGS",
        "USERS",
        "CHANGE-BUFFER",
        "ADD-USER",
        "DELETE-USER",
        "SET-ROLE",
        "PING",
        "CAPA",
        "GET_LOGS LAST",
        "USER-METRICS",
        "CONNECTIONS",
        "CONNECTIONS USER",
        "KILL",
        "KILL USER",
        "CONFIG GET",
        "CONFIG SET",
        "UNSUBSCRIBE",
        "SHUTDOWN GRACE x",
        "HELP",
        "",
        "get_metrics",
        "AUTH",
        "x",
    ]);
    let end = prop::sample::select(vec!["\n", "\r\n"]);
    let long = prop::sample::select(vec![0, 0, 0, 0, 0, 0, 0, 0, 4080, 4096, 9000]);
    (verb, prop::option::of(name), prop::option::of(word), long, end).prop_map(
        |(verb, name, word, long, end)| {
            let argument = |text: Option<&str>| text.map_or(String::new(), |t| format!(" {t}"));
            format!("{verb}{}{}{}{end}", argument(name), argument(word), "y".repeat(long))
        },
    )
}

/// The answer to one command: a status line, and a body if it is a list that succeeded.
fn answer(session: &mut Metp, command: &str) -> String {
    session.say(command);
    let mut answer = session.line() + "\n";
    let lists = ["GET_", "USERS", "CAPA", "USER-", "CONNECTIONS", "CONFIG GET"];
    if answer == "200 OK\n" && lists.iter().any(|list| command.starts_with(list)) {
        for line in session.body() {
            answer += &(line + "\n");
        }
        answer += ".\n";
    }
    answer
}

/// METP section 1: pipelining is allowed, replies in order; commands may be split anywhere. Each reading has a
/// server of its own, since what a command has changed would be there in the next one.
#[test]
fn any_commands_split_anywhere_get_the_answers_they_get_one_by_one() {
    let sequences = (
        prop::collection::vec(command(), 1..30),
        prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    );
    let result = support::property::runner(40).run(&sequences, |(commands, cuts)| {
        let proxy = Proxy::start();
        let mut session = proxy.admin();
        let one_by_one: String = commands.iter().map(|text| answer(&mut session, text)).collect();

        let bytes = commands.concat() + "QUIT\n";
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let proxy = Proxy::start();
        let (mut session, mut witness) = (proxy.admin(), proxy.admin());
        for (part, cut) in cuts.windows(2).enumerate() {
            session.say(&bytes[cut[0]..cut[1]]);
            if part % 2 == 0 {
                barrier(&mut witness);
            }
        }
        session.hears(&one_by_one).hears("200 Goodbye\n").hears_eof();
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
