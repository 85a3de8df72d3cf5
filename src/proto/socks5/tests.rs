//! Literal messages, every truncation of them, and arbitrary bytes.

use proptest::prelude::*;

use super::*;

/// Every proper prefix needs more bytes; the whole takes exactly its own length and leaves what follows.
fn each_truncation<'a, T: PartialEq + fmt::Debug>(
    message: &'a [u8],
    longer: &'a [u8],
    parse: impl Fn(&'a [u8]) -> Parsed<T, Error>,
    expected: T,
) {
    for end in 0..message.len() {
        assert_eq!(parse(&message[..end]), Ok(None), "first {end} bytes of {message:02x?}");
    }
    assert!(longer.starts_with(message) && longer.len() > message.len());
    assert_eq!(parse(longer), Ok(Some((expected, message.len()))));
}

#[test]
fn hello_rfc1928_section_3() {
    each_truncation(
        b"\x05\x03\x00\x01\x02",
        b"\x05\x03\x00\x01\x02tail",
        Hello::parse,
        Hello { methods: &[0, 1, 2] },
    );
    each_truncation(b"\x05\x00", b"\x05\x00tail", Hello::parse, Hello { methods: &[] });
}

#[test]
fn a_wrong_version_is_refused_at_its_first_byte() {
    assert_eq!(Hello::parse(b"\x04"), Err(Error::Version(4)));
    assert_eq!(Hello::parse(b"GET / HTTP/1.1\r\n"), Err(Error::Version(b'G')));
    assert_eq!(Credentials::parse(b"\x05"), Err(Error::Version(5)));
    assert_eq!(Request::parse(b"\x01"), Err(Error::Version(1)));
}

#[test]
fn credentials_rfc1929_section_2() {
    each_truncation(
        b"\x01\x05alice\x06se:ret",
        b"\x01\x05alice\x06se:ret\x05",
        Credentials::parse,
        Credentials { name: b"alice", password: b"se:ret" },
    );
    each_truncation(
        b"\x01\x00\x00",
        b"\x01\x00\x00\x00",
        Credentials::parse,
        Credentials { name: b"", password: b"" },
    );
    let mut longest = vec![1, 255];
    longest.extend([b'n'; 255]);
    longest.push(255);
    longest.extend([b'p'; 255]);
    assert_eq!(longest.len(), LONGEST_MESSAGE);
    let more = [longest.as_slice(), b"x"].concat();
    each_truncation(
        &longest,
        &more,
        Credentials::parse,
        Credentials { name: &[b'n'; 255], password: &[b'p'; 255] },
    );
}

#[test]
fn debug_output_has_no_password() {
    let shown = format!("{:?}", Credentials { name: b"alice", password: b"hunter2" });
    assert_eq!(shown, "Credentials(alice)");
}

fn request(command: Command, host: Host, port: u16) -> Request {
    Request { command, target: Target { host, port } }
}

#[test]
fn request_rfc1928_section_4() {
    each_truncation(
        b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50GET",
        Request::parse,
        request(Command::Connect, Host::Ip([127, 0, 0, 1].into()), 80),
    );
    each_truncation(
        b"\x05\x02\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
        b"\x05\x02\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb\0",
        Request::parse,
        request(Command::Bind, Host::Ip(Ipv6Addr::LOCALHOST.into()), 443),
    );
    each_truncation(
        b"\x05\x03\xff\x03\x0bexample.com\xff\xff",
        b"\x05\x03\xff\x03\x0bexample.com\xff\xff\xff",
        Request::parse,
        request(Command::UdpAssociate, Host::Name((*b"example.com").into()), 65535),
    );
    each_truncation(
        b"\x05\x99\x00\x03\x00\x00\x00",
        b"\x05\x99\x00\x03\x00\x00\x00\x00",
        Request::parse,
        request(Command::Unknown(0x99), Host::Name([].into()), 0),
    );
}

#[test]
fn an_unknown_address_type_is_refused_at_its_byte() {
    assert_eq!(Request::parse(b"\x05\x01\x00"), Ok(None));
    for kind in [0x00, 0x02, 0x05, 0xff] {
        assert_eq!(Request::parse(&[5, 1, 0, kind]), Err(Error::AddressType(kind)));
    }
}

#[test]
fn replies_rfc1928_section_6() {
    assert_eq!(
        Reply::refusal(ReplyCode::ConnectionRefused).encode(),
        b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"
    );
    let bound = "[::1]:258".parse().expect("a literal");
    assert_eq!(
        Reply { code: ReplyCode::Succeeded, bound }.encode(),
        b"\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02"
    );
    assert_eq!(method_choice(METHOD_PASSWORD), [5, 2]);
    assert_eq!(method_choice(METHOD_NO_ACCEPTABLE), [5, 0xff]);
    assert_eq!(auth_status(true), [1, 0]);
    assert_eq!(auth_status(false), [1, 1]);
}

#[test]
fn targets_display_with_brackets_and_escapes() {
    let shown = |host, port| Target { host, port }.to_string();
    assert_eq!(shown(Host::Ip(Ipv6Addr::LOCALHOST.into()), 80), "[::1]:80");
    assert_eq!(shown(Host::Ip([10, 0, 0, 1].into()), 80), "10.0.0.1:80");
    assert_eq!(shown(Host::Name((*b"a b\n").into()), 1), "a\\x20b\\x0a:1");
}

fn any_host() -> impl Strategy<Value = Host> {
    prop_oneof![
        any::<IpAddr>().prop_map(|address| Host::Ip(address.to_canonical())),
        prop::collection::vec(any::<u8>(), 0..256).prop_map(|name| Host::Name(name.into())),
    ]
}

proptest! {
    #![proptest_config(support::property::config(256))]

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..600)) {
        for version in [None, Some(5), Some(1)] {
            let mut input = input.clone();
            if let (Some(version), Some(first)) = (version, input.first_mut()) {
                *first = version;
            }
            if let Ok(Some((_, taken))) = Hello::parse(&input) { prop_assert!(taken <= input.len()); }
            if let Ok(Some((_, taken))) = Credentials::parse(&input) { prop_assert!(taken <= input.len()); }
            if let Ok(Some((_, taken))) = Request::parse(&input) { prop_assert!(taken <= input.len()); }
        }
    }

    #[test]
    fn requests_survive_encode_and_parse(host in any_host(), port: u16, command: u8) {
        let request = request(command.into(), host, port);
        let wire = request.encode();
        prop_assert_eq!(Request::parse(&wire), Ok(Some((request, wire.len()))));
        for end in 0..wire.len() {
            prop_assert_eq!(Request::parse(&wire[..end]), Ok(None));
        }
    }
}

/// The access log shows REP as a decimal number.
#[test]
fn reply_codes_are_shown_as_numbers() {
    let shown =
        [ReplyCode::Succeeded, ReplyCode::HostUnreachable, ReplyCode::AddressTypeNotSupported]
            .map(|code| code.to_string());
    assert_eq!(shown, ["0", "4", "8"]);
}
