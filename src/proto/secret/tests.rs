use super::*;

/// As `argon2` of the reference implementation makes it for the password `password`, salt `somesalt`, scaled down.
const ARGON2: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
/// A test vector of crypt_blowfish, for the password `U*U`.
const BCRYPT: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

fn fault(text: &str) -> Fault {
    Secret::parse(text.as_bytes()).expect_err(text)
}

#[test]
fn hashes_of_known_schemes_are_read() {
    for text in [
        ARGON2,
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=65536,t=4,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        BCRYPT,
        &BCRYPT.replace("$2y$05$", "$2b$13$"),
    ] {
        assert_eq!(Secret::parse(text.as_bytes()), Ok(Secret::Slow(text.into())));
    }
}

#[test]
fn an_empty_secret_is_nobodys() {
    for text in [&b""[..], b"="] {
        assert_eq!(Secret::parse(text), Ok(Secret::None));
    }
    assert!(!Token::new([7; 16], b"").matches(b""));
}

#[test]
fn a_password_in_clear_is_that_of_metp() {
    for (text, password) in [
        (&b"=secret"[..], &b"secret"[..]),
        (b"=in\\x20clear", b"in clear"),
        (b"=a\\x3ab", b"a:b"),
        (b"=\\", b"\\"),
        (b"==", b"="),
        (b"=$2y$", b"$2y$"),
        (b"=\xc3\xa4", b"\xc3\xa4"),
    ] {
        assert_eq!(Secret::parse(text), Ok(Secret::Clear(password.into())));
    }
    for text in ["=\\x00", "=a\\x0ab", "=\\x0d", &format!("={}", "x".repeat(256))] {
        assert_eq!(fault(text), Fault::Password, "{text}");
    }
    assert!(Secret::parse(format!("={}", "x".repeat(255)).as_bytes()).is_ok());
}

#[test]
fn what_costs_too_much_is_refused() {
    let argon2 = |costs: &str| ARGON2.replace("m=256,t=2,p=1", costs);
    for costs in [
        "m=4194304,t=1,p=1",
        "m=65537,t=1,p=1",
        "m=65536,t=5,p=1",
        "m=256,t=4294967295,p=1",
        "m=256,t=1,p=17",
    ] {
        assert_eq!(fault(&argon2(costs)), Fault::TooCostly, "{costs}");
    }
    for cost in [14, 31] {
        assert_eq!(fault(&BCRYPT.replace("$05$", &format!("${cost}$"))), Fault::TooCostly);
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    let argon2 = |costs: &str| ARGON2.replace("m=256,t=2,p=1", costs);
    for text in [
        "$argon2id$",
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ",
        "$argon2id$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        &ARGON2.replace("v=19", "v=16"),
        &ARGON2.replace("/4", "/4="),
        &format!("{ARGON2}$more"),
        &argon2("m=256,t=2"),
        &argon2("m=256,t=0,p=1"),
        &argon2("m=256,t=2,p=0"),
        &argon2("m=7,t=2,p=1"),
        &argon2("m=99999999999,t=2,p=1"),
        &argon2("m=256,t=2,p=1,keyid=AAAA"),
        // 15 bytes.
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAA",
    ] {
        assert_eq!(fault(text), Fault::Malformed("argon2id"), "{text}");
    }
    for text in [
        "$2y$05$abc",
        &BCRYPT.replace("$05$", "$5$0"),
        &BCRYPT.replace("$05$", "$03$"),
        &BCRYPT.replace("$05$", "$+5$"),
        &BCRYPT.replace("E5Y", "E!Y"),
        &format!("{BCRYPT}x"),
    ] {
        assert_eq!(fault(text), Fault::Malformed("bcrypt"), "{text}");
    }
    for text in [
        "$b2$",
        "$b2$AAAAAAAAAAAAAAAAAAAAAA",
        "$b2$AAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$b2$m=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert_eq!(fault(text), Fault::Malformed("b2"), "{text}");
    }
    for text in ["$apr1$a$b", "$1$a$b", "$5$a$b", "$6$a$b", "$2a$05$x", "$argon2i$x", "{SHA}abc"] {
        assert_eq!(fault(text), Fault::Unsupported, "{text}");
    }
    for text in ["secret", "$", "$$", "$unknown$", "x", " ", "\u{e4}", "!"] {
        assert_eq!(fault(text), Fault::Unknown, "{text}");
    }
    assert_eq!(fault(&"x".repeat(1025)), Fault::TooLong);
}

#[test]
fn a_token_is_that_of_its_password() {
    let token = Token::new([7; 16], b"generated");
    assert!(token.matches(b"generated"));
    for other in [&b"generate"[..], b"generated\0", b"", b"Generated"] {
        assert!(!token.matches(other));
    }
    assert!(Token::new([8; 16], b"generated") != token);
    assert_eq!(Secret::parse(token.text().as_bytes()), Ok(Secret::Token(Box::new(token))));
}

/// As Python's hashlib has it: `hashlib.blake2b(bytes(range(16)) + b"pw", digest_size=32)`.
#[test]
fn a_token_is_blake2b() {
    let salt = std::array::from_fn(|index| index as u8);
    assert_eq!(
        Token::new(salt, b"pw").text(),
        "$b2$AAECAwQFBgcICQoLDA0ODw$7ROmZqJamw+not6GFDOhqE5HyAunO7QamJHd+JYg4go",
    );
}

#[test]
fn nothing_of_it_is_shown() {
    let token = Token::new([7; 16], b"generated");
    let secrets =
        [Secret::None, Secret::Clear(b"pw".as_slice().into()), Secret::Slow(ARGON2.into())];
    assert_eq!(format!("{secrets:?} {token:?}"), "[None, Clear, Slow] Token");
    assert_eq!(format!("{:?}", Secret::Token(Box::new(token))), "Token");
}
