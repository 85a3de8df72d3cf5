//! A head of HTTP, read line by line (RFC 9112 §2 to §5).
//!
//! What it takes for a request is one; of a head with control characters, or other bytes than ASCII in its first line,
//! and of targets with odd characters in other methods than CONNECT, it says that it does not know.

use std::net::{IpAddr, Ipv4Addr};

use super::{Asked, Dialect, Heard, Policy, Stage, Who};

/// The longest head that has to be taken.
const LONGEST: usize = 8192;
/// The most fields.
const MOST_FIELDS: usize = 100;
/// The first words of HTTP, for a server that does not serve it.
const WORDS: [&str; 10] = [
    "GET ",
    "HEAD ",
    "POST ",
    "PUT ",
    "DELETE ",
    "CONNECT ",
    "OPTIONS ",
    "TRACE ",
    "PATCH ",
    "PRI * HTTP/",
];
/// Those of others that are told by them.
const OTHERS: [&str; 4] = ["PROXY ", "HELLO METP/", "SSH-", "EHLO "];

/// `None`: it is not whole yet, or the login not decided.
pub fn converse(
    bytes: &[u8],
    policy: Policy,
    decide: impl FnOnce(&[u8], &[u8]) -> Option<Option<Who>>,
    heard: &mut Heard,
) -> Option<Stage> {
    if !policy.http {
        return off(bytes, policy);
    }
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
    let head = end.map_or(bytes, |end| &bytes[..end + 4]);
    if has_loose_ends(head) || head.len() > LONGEST || (end.is_none() && head.len() == LONGEST) {
        return Some(Stage::Status(400));
    }
    if end.is_none() {
        return Some(Stage::Head);
    }
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n' | 0x80..);
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if !head.iter().all(is_text) || !line.is_ascii() {
        return Some(Stage::Unknown);
    }
    // One character for each byte: fields may hold any byte from 80 on.
    let text: String = head.iter().copied().map(char::from).collect();
    let Some((method, target, version, fields)) = lines(&text) else {
        return Some(Stage::Status(400));
    };
    if method != "CONNECT" {
        let odd = target.chars().any(|c| "\"<>\\^`{|}".contains(c));
        return Some(if odd { Stage::Unknown } else { Stage::Status(501) });
    }
    let named = |name: &str| -> Vec<&str> {
        let is_named = |field: &&(&str, &str)| field.0.eq_ignore_ascii_case(name);
        fields.iter().filter(is_named).map(|(_, value)| *value).collect()
    };
    let hosts = named("host").len();
    let lengths = named("content-length");
    let logins = named("proxy-authorization");
    let good = (hosts == 1 || (hosts == 0 && version == "HTTP/1.0"))
        && lengths.len() <= 1
        && lengths.iter().all(|length| !length.is_empty() && length.bytes().all(|c| c == b'0'))
        && named("transfer-encoding").is_empty()
        && logins.len() <= 1;
    let Some((host, port)) = authority(target).filter(|_| good) else {
        return Some(Stage::Status(400));
    };
    heard.who = match logins.first() {
        None => policy.trusted.then_some(Who::Trusted),
        Some(value) => match basic(value) {
            Some((name, password)) => decide(&name, &password)?,
            None => (policy.trusted && policy.any_login).then_some(Who::Trusted),
        },
    };
    if heard.who.is_none() {
        return Some(Stage::Status(407));
    }
    let asked = Asked { dialect: Dialect::Http, command: 1, host, port, taken: head.len() };
    Some(Stage::Asked(asked))
}

/// HTTP is not served: whoever needs no login learns it, as soon as the first word is there.
fn off(bytes: &[u8], policy: Policy) -> Option<Stage> {
    let is_any = |words: &[&str]| words.iter().any(|word| bytes.starts_with(word.as_bytes()));
    match () {
        () if !policy.trusted || is_any(&OTHERS) => Some(Stage::Over),
        () if is_any(&WORDS) => Some(Stage::Status(400)),
        () if bytes.len() >= 16 => Some(Stage::Over),
        () => None,
    }
}

/// Whether a CR or LF stands alone, or there is a NUL.
fn has_loose_ends(head: &[u8]) -> bool {
    let at = |position: usize| head.get(position).copied();
    (0..head.len()).any(|position| match head[position] {
        b'\n' => position == 0 || at(position - 1) != Some(b'\r'),
        b'\r' => at(position + 1).is_some_and(|next| next != b'\n'),
        byte => byte == 0,
    })
}

/// Method, target, version and fields. `None`: it is malformed.
#[expect(clippy::type_complexity, reason = "the parts of a head")]
fn lines(head: &str) -> Option<(&str, &str, &str, Vec<(&str, &str)>)> {
    let is_token = |text: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        !text.is_empty() && text.chars().all(good)
    };
    let mut lines = head.strip_suffix("\r\n\r\n")?.split("\r\n");
    let words: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, target, version @ ("HTTP/1.0" | "HTTP/1.1")] = words[..] else { return None };
    if !is_token(method) || target.is_empty() || target.contains('\t') {
        return None;
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').filter(|(name, _)| is_token(name))?;
        fields.push((name, value.trim_matches([' ', '\t'])));
    }
    (fields.len() <= MOST_FIELDS).then_some((method, target, version, fields))
}

/// The host and the port of `host:port`.
fn authority(text: &str) -> Option<(Result<IpAddr, Vec<u8>>, u16)> {
    let colon = text.rfind(':')?;
    let (host, digits) = (&text[..colon], &text[colon + 1..]);
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let number: u32 = digits.parse().ok()?;
    if !(1..=65535).contains(&number) {
        return None;
    }
    let host = if host.starts_with('[') {
        let literal = host.strip_prefix('[')?.strip_suffix(']')?;
        let address: std::net::Ipv6Addr = literal.parse().ok()?;
        Ok(IpAddr::V6(address).to_canonical())
    } else if let Ok(address) = host.parse::<Ipv4Addr>() {
        Ok(address.into())
    } else {
        let odd = host.chars().any(|c| ":/?#[]@\\\"<>^`{|}".contains(c));
        if odd || host.is_empty() || host.len() > 255 {
            return None;
        }
        Err(host.as_bytes().to_vec())
    };
    Some((host, number as u16))
}

/// Name and password of the scheme Basic. `None`: it is another, or cannot be read.
fn basic(value: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, code) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let code = code.trim();
    let padding = code.len() - code.trim_end_matches('=').len();
    if code.len() % 4 != 0 || padding > 2 {
        return None;
    }
    let alphabet: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut bits: Vec<bool> = Vec::new();
    for character in code[..code.len() - padding].chars() {
        let value = alphabet.iter().position(|known| *known == character)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1 == 1));
    }
    let whole = bits.len() / 8 * 8;
    if bits[whole..].iter().any(|bit| *bit) {
        return None;
    }
    let octet = |bits: &[bool]| bits.iter().fold(0, |sum: u8, bit| sum << 1 | u8::from(*bit));
    let decoded: Vec<u8> = bits[..whole].chunks(8).map(octet).collect();
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = (decoded[..colon].to_vec(), decoded[colon + 1..].to_vec());
    (name.len() <= 255 && password.len() <= 255).then_some((name, password))
}
