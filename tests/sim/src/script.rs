//! Bytes as a scenario: what client, target, resolver, administrator and clock do, one step after the other.
//!
//! Any bytes are a scenario, so a fuzzer can cut and splice them as it likes. A step is one byte and its
//! argument another; the highest bit of the step gives the session its turn afterwards. So several things can
//! happen before one turn.

/// Steps in one scenario, at most.
const MOST_STEPS: usize = 200;

/// One thing that happens.
#[derive(Debug)]
pub enum Step<'a> {
    /// The client sends these bytes in one segment.
    Raw(&'a [u8]),
    /// The client sends a whole hello, whole credentials, or a whole request.
    Hello,
    Auth,
    Request(u8),
    /// The client sends a whole request of SOCKS4, or a whole head of HTTP.
    Socks4(u8),
    Head(u8),
    /// Payload of this length from the client, or from the target.
    ClientSends(usize),
    TargetSends(usize),
    /// The next bytes of the client, or of the target, are in one segment with the last.
    ClientJoins,
    TargetJoins,
    ClientEof,
    TargetEof,
    ClientResets,
    TargetResets,
    /// The client, or the target, takes this number of bytes more.
    ClientTakes(usize),
    TargetTakes(usize),
    /// One write takes this number of bytes at most.
    ClientCuts(usize),
    TargetCuts(usize),
    /// Writes fail from now on.
    ClientDeaf,
    TargetDeaf,
    /// Writes fail from now on for want of memory.
    ClientStarvesWrites,
    TargetStarvesWrites,
    /// Calls are interrupted.
    Interruptions(u8),
    /// The target's port answers, or refuses with this choice of errno.
    Connects(u8),
    Refuses(u8),
    /// What becomes of the next attempt to connect, at once.
    NextDial(u8),
    /// The name has these addresses.
    Resolved(u8),
    /// The verdict on the login comes, if it is outstanding.
    Verified,
    /// KILL.
    Kill,
    /// This number of milliseconds passes.
    Time(u64),
    /// CHANGE-BUFFER.
    BufferSize(usize),
    /// DELETE-USER, either seen at once, or after one more turn. ADD-USER with the same name.
    Delete(bool),
    AddAgain,
    /// An event that says nothing new.
    Repeat,
    /// Nothing but a turn.
    Turn,
}

/// The scenario that these bytes are: each step with whether the session gets a turn after it.
pub fn steps(mut data: &[u8]) -> Vec<(Step<'_>, bool)> {
    let mut steps = Vec::new();
    while let Some((&[step, argument], rest)) = data.split_first_chunk::<2>()
        && steps.len() < MOST_STEPS
    {
        data = rest;
        let size = match argument {
            0..0xc0 => usize::from(argument),
            large => (usize::from(large) - 0xbf) * 29,
        };
        let what = match step & 0x7f {
            0 => {
                let (bytes, rest) = data.split_at(data.len().min(argument.into()));
                data = rest;
                Step::Raw(bytes)
            }
            1 => Step::Hello,
            2 => Step::Auth,
            3 => Step::Request(argument),
            4 => Step::ClientSends(size),
            5 => Step::TargetSends(size),
            6 => Step::ClientJoins,
            7 => Step::TargetJoins,
            8 => Step::ClientEof,
            9 => Step::TargetEof,
            10 => Step::ClientResets,
            11 => Step::TargetResets,
            12 => Step::ClientTakes(size),
            13 => Step::TargetTakes(size),
            14 => Step::ClientCuts(size.max(1)),
            15 => Step::TargetCuts(size.max(1)),
            16 => Step::ClientDeaf,
            17 => Step::TargetDeaf,
            18 => Step::Interruptions(argument % 8),
            19 => Step::Connects(argument),
            20 => Step::Refuses(argument),
            21 => Step::NextDial(argument),
            22 => Step::Resolved(argument),
            23 => {
                Step::Time(if argument < 0x80 { 10 } else { 30_000 } * u64::from(argument & 0x7f))
            }
            24 => Step::BufferSize([1, 2, 7, 64, 4096, 65536][usize::from(argument) % 6]),
            25 => Step::Delete(argument & 1 == 1),
            26 => Step::AddAgain,
            27 => Step::Repeat,
            28 => Step::ClientStarvesWrites,
            29 => Step::TargetStarvesWrites,
            30 => Step::Verified,
            31 => Step::Kill,
            32 => Step::Socks4(argument),
            33 => Step::Head(argument),
            _ => Step::Turn,
        };
        steps.push((what, step & 0x80 != 0));
    }
    steps
}

/// Whole requests.
pub const REQUESTS: [&[u8]; 18] = [
    b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50",
    b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
    b"\x05\x01\x00\x03\x0bexample.com\x00\x50",
    b"\x05\x01\x00\x03\x12remembered.example\x00\x50",
    b"\x05\x01\x00\x03\x09127.0.0.1\x00\x50",
    b"\x05\x01\x00\x03\x05[::1]\x00\x50",
    b"\x05\x01\x00\x01\x7f\x00\x00\x01\x04\x38",
    b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\x00\x00\x01\x00\x50",
    b"\x05\x01\x00\x03\x00\x00\x50",
    b"\x05\x01\x00\x03\x03a b\x00\x50",
    b"\x05\x02\x00\x01\xc0\x00\x02\x01\x00\x50",
    b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00",
    b"\x05\x01\x00\x09\xc0\x00\x02\x01\x00\x50",
    b"\x05\x01\x00\x01\xc0\x00\x02\x01\x04\x38",
    b"\x05\xf0\x00\x03\x0bexample.com\x00\x00",
    b"\x05\xf0\x00\x01\xc0\x00\x02\x01\x00\x00",
    b"\x05\xf1\x00\x01\xc0\x00\x02\x01\x00\x00",
    b"\x05\xf1\x00\x03\x0bexample.com\x00\x00",
];

/// Whole requests of SOCKS4 and 4A.
pub const SOCKS4: [&[u8]; 9] = [
    b"\x04\x01\x00\x50\xc0\x00\x02\x01\x00",
    b"\x04\x01\x00\x50\xc0\x00\x02\x01Fred\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01Fred\x00example.com\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\xff\x00remembered.example\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01\x00::1\x00",
    b"\x04\x01\x04\x38\x7f\x00\x00\x01\x00",
    b"\x04\x02\x00\x50\xc0\x00\x02\x01\x00",
    b"\x04\xf0\x00\x00\x00\x00\x00\x01\x00example.com\x00",
    b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00",
];

/// Whole heads. The logins are alice:pw, alice:no, and alice with an empty password.
pub const HEADS: [&str; 16] = [
    "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6cHc=\r\n\r\n",
    "CONNECT example.com:80 HTTP/1.1\r\nHost: a\r\nproxy-authorization: basic YWxpY2U6cHc=\r\n\r\n",
    "CONNECT remembered.example:80 HTTP/1.0\r\nProxy-Authorization: Basic YWxpY2U6cHc=\r\n\r\n",
    "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6bm8=\r\n\r\n",
    "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6\r\n\r\n",
    "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Digest a=b\r\n\r\n",
    "CONNECT 127.0.0.1:1080 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6cHc=\r\n\r\n",
    "CONNECT [::ffff:127.0.0.1]:80 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6cHc=\r\n\r\n",
    "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: a\r\nHost: b\r\nProxy-Authorization: Basic YWxpY2U6cHc=\r\n\r\n",
    "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    "CONNECT 192.0.2.1:80 HTTP/1.1\nHost: a\n\n",
    "GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
    "SSH-2.0-OpenSSH_9.6\r\n",
    "CONNECT * HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWxpY2U6cHc=\r\n\r\n",
];

/// What a name may turn out to be.
pub const ANSWERS: [&[&str]; 6] = [
    &[],
    &["192.0.2.1"],
    &["192.0.2.1", "2001:db8::1", "192.0.2.2"],
    &["127.0.0.1", "192.0.2.1"],
    &["::ffff:192.0.2.9", "fe80::1"],
    &["::1", "169.254.169.254", "0.0.0.0"],
];
