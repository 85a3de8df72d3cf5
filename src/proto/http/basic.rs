//! The scheme Basic (RFC 7617): a name and a password in Base64 (RFC 4648 §4).

use std::fmt;

use metp_protocol::text::{Escaped, split_account};

/// The longest name and the longest password, in bytes: no account has longer ones.
const LONGEST: usize = 255;

/// A name and a password, of 0 to 255 bytes each.
#[derive(PartialEq, Eq)]
pub struct Credentials {
    /// The account's name; no `:` in it.
    pub name: Vec<u8>,
    /// Its password.
    pub password: Vec<u8>,
}

/// Shows the name alone, so that no debug print can carry a password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", Escaped(&self.name))
    }
}

impl Credentials {
    /// Reads the value of a field Proxy-Authorization. `None`: it is of another scheme, or cannot be read, or holds a
    /// name or a password that is too long.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let blank = value.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = value.split_at(blank);
        if !scheme.eq_ignore_ascii_case(b"Basic") {
            return None;
        }
        let decoded = decode(rest.trim_ascii())?;
        let (name, password) = split_account(&decoded)?;
        if name.len() > LONGEST || password.len() > LONGEST {
            return None;
        }
        Some(Credentials { name: name.to_vec(), password: password.to_vec() })
    }
}

/// Reads Base64 with its padding. `None` if anything else is in it, or bits that stand for nothing are set.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (quantums, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(quantums.len().saturating_mul(3));
    for (number, quantum) in quantums.iter().enumerate() {
        let is_last = number.checked_add(1) == Some(quantums.len());
        let count = match quantum {
            [_, _, b'=', b'='] if is_last => 1,
            [_, _, _, b'='] if is_last => 2,
            _ => 3,
        };
        let mut bits = 0_u32;
        for (position, character) in quantum.iter().enumerate() {
            let value = if position > count { 0 } else { sextet(*character)? };
            bits = bits << 6 | u32::from(value);
        }
        let [_, octets @ ..] = bits.to_be_bytes();
        let (used, unused) = octets.split_at_checked(count)?;
        if unused.iter().any(|octet| *octet != 0) {
            return None;
        }
        bytes.extend(used);
    }
    Some(bytes)
}

/// The value of a character (RFC 4648, table 1).
fn sextet(character: u8) -> Option<u8> {
    let (first, value) = match character {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(character - first + value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 4648 §10.
    #[test]
    fn base64_is_read() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode(b"+/+/").as_deref(), Some(&b"\xfb\xff\xbf"[..]));
        for text in [
            "Z", "Zg", "Zg=", "Zh==", "Zm9=", "=Zg=", "Zg==Zg==", "====", "Zm9v\n", "Z-9v", "Zm 9v",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    /// RFC 7617 §2: the name ends at the first colon.
    #[test]
    fn name_and_password() {
        let read = |value: &str| {
            Credentials::parse(value.as_bytes())
                .map(|Credentials { name, password }| (name, password))
        };
        let alice = Some((b"Aladdin".to_vec(), b"open sesame".to_vec()));
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), alice);
        assert_eq!(read("bASIC   QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), alice);
        assert_eq!(read("Basic YTpiOmM="), Some((b"a".to_vec(), b"b:c".to_vec())));
        assert_eq!(read("Basic dGVzdDoxMjPCow=="), Some((b"test".to_vec(), "123\u{a3}".into())));
        assert_eq!(read("Basic Og=="), Some((Vec::new(), Vec::new())));
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic YWxpY2U=",
            "Digest YTpi",
            "Basicx YTpi",
            "Basic YTpi YTpi",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn nobody_has_a_longer_name() {
        for (name, password, good) in [(255, 255, true), (256, 1, false), (1, 256, false)] {
            let text = format!("{}:{}", "n".repeat(name), "p".repeat(password));
            let value = format!("Basic {}", encode(text.as_bytes()));
            assert_eq!(Credentials::parse(value.as_bytes()).is_some(), good);
        }
    }

    /// An independent writer: by the bits, one after the other.
    fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits: Vec<u8> =
            bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
        let value =
            |bits: &[u8]| (0..6).fold(0, |sum, n| sum << 1 | bits.get(n).copied().unwrap_or(0));
        let mut text: String =
            bits.chunks(6).map(|bits| char::from(ALPHABET[usize::from(value(bits))])).collect();
        while !text.len().is_multiple_of(4) {
            text.push('=');
        }
        text
    }

    proptest! {
        #![proptest_config(support::property::config(256))]

        #[test]
        fn what_was_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn what_is_decoded_has_one_form(text in "[A-Za-d0-9+/=]{0,12}") {
            if let Some(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
