use metp_protocol::text::Escaped;
use metp_protocol::{Period, Quota};
use proptest::prelude::*;

use super::*;
use crate::proto::limits::{LimitKey, Said};

const TOKEN: &str = "$b2$AAECAwQFBgcICQoLDA0ODw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const BCRYPT: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// The accounts of a good file, as `name role secret`.
fn read(content: &[u8]) -> Vec<String> {
    let shown = |account: FileAccount| {
        let lock = if account.locked { " locked" } else { "" };
        format!("{} {:?} {:?}{lock}", Escaped(&account.name), account.role, account.secret)
    };
    parse(content).expect("good").accounts.into_iter().map(shown).collect()
}

/// What is wrong with a bad file.
fn wrong(content: &[u8]) -> Vec<String> {
    parse(content).expect_err("bad").iter().map(LineError::to_string).collect()
}

fn edit(name: &str, change: Change) -> Edit {
    Edit { name: name.as_bytes().into(), change }
}

fn add(name: &str) -> Edit {
    edit(name, Change::Add { secret: TOKEN.into(), locked: false, role: Role::User, limits: None })
}

#[test]
fn a_file_is_read() {
    let file = format!(
        "# comment: with a colon\n\n  # indented\n \t\n*::role=user\nalice:{TOKEN}:role=admin\n\
         bob:{BCRYPT}\ncarol:=in\\x20clear:\nmallory:!{BCRYPT}: \trole=user \nin need:=x\n\
         a\\x3ab:=y\nDOM\\bob:=z\n\\x2a:=w\nnobody:\nlocked:!\n"
    );
    let accounts = read(file.as_bytes());
    assert_eq!(
        accounts,
        [
            "alice Admin Token",
            "bob User Slow",
            "carol User Clear",
            "mallory User Slow locked",
            "in\\x20need User Clear",
            "a:b User Clear",
            "DOM\\x5cbob User Clear",
            "* User Clear",
            "nobody User None",
            "locked User None locked",
        ]
    );
    assert_eq!(read(b""), [""; 0]);
}

/// Each editor leaves its own traces at the ends of lines and files.
#[test]
fn line_ends_and_marks_are_no_part_of_a_line() {
    for file in [
        &b"alice:=x\nbob:=y:role=admin\n"[..],
        b"alice:=x\nbob:=y:role=admin",
        b"alice:=x\r\nbob:=y:role=admin\r\n",
        b"\xef\xbb\xbfalice:=x\r\nbob:=y:role=admin\r",
        b"\xef\xbb\xbf# c\nalice:=x\n\r\nbob:=y:role=admin",
    ] {
        assert_eq!(read(file), ["alice User Clear", "bob Admin Clear"]);
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let file = format!(
        "alice:=x\nalice\nal\\x69ce:=y\nbob:{BCRYPT}:rat=5\nbob:=x:role=root\ncarol:=x:role=user role=admin\n\
         :=x\n-:=x\n lead:=x\ntrail :=x\ndave:secret\neve:=a:b\nfay:=x:role\n*:=x\n*::role=admin\n\
         *::\n*::\nnul:=a\0b\ncr:=a\rb\n\n*:!\ngus:=x:role=user x=\u{e4}\n"
    );
    assert_eq!(
        wrong(file.as_bytes()),
        [
            "line 2: no colon between name and secret",
            "line 3: its name is that of line 1",
            "line 4: unknown key \"rat\": known are role, conns, sources, rate, quota, expires, from",
            "line 5: role is user or admin",
            "line 6: role is given twice",
            "line 7: a name has 1 to 255 bytes, is not \"-\", and has its first and last blank as \\x20",
            "line 8: a name has 1 to 255 bytes, is not \"-\", and has its first and last blank as \\x20",
            "line 9: a name has 1 to 255 bytes, is not \"-\", and has its first and last blank as \\x20",
            "line 10: a name has 1 to 255 bytes, is not \"-\", and has its first and last blank as \\x20",
            "line 11: the secret is no $argon2id$, $2b$, $2y$ or $b2$ hash; a password in clear begins with =",
            "line 12: unknown key \"b\": known are role, conns, sources, rate, quota, expires, from",
            "line 13: role is user or admin",
            "line 14: the line of * has no secret: *::KEY=VALUE",
            "line 15: role=admin is for single accounts, not for *",
            "line 17: its name is that of line 16",
            "line 18: control character \\x00",
            "line 19: control character \\x0d",
            "line 21: the line of * has no secret: *::KEY=VALUE",
            "line 22: unknown key \"x\": known are role, conns, sources, rate, quota, expires, from",
        ]
    );
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    for line in ["eve:=pass:Word7", "eve:=a:longer-than-a-key-is=5", "eve:=a:\u{e4}"] {
        assert_eq!(
            wrong(line.as_bytes()),
            [
                "line 1: unknown key \"...\": known are role, conns, sources, rate, quota, expires, from"
            ]
        );
    }
}

#[test]
fn lines_and_errors_are_bounded() {
    let long = format!("alice:={}\n", "x".repeat(1 << 20));
    assert_eq!(wrong(long.as_bytes()), ["line 1: more than 4096 bytes"]);
    let comment = format!("#{}\n", "x".repeat(4095));
    assert_eq!(read(comment.as_bytes()), [""; 0]);
    assert_eq!(wrong("x\n".repeat(1000).as_bytes()).len(), MOST_ERRORS);
    let name = "\\xff".repeat(255);
    assert_eq!(read(format!("{name}:=x").as_bytes()), [format!("{name} User Clear")]);
    assert_eq!(wrong(format!("{name}a:=x").as_bytes()).len(), 1);
}

#[test]
fn a_line_alone_is_that_of_an_account() {
    assert_eq!(parse_line(b"alice:=x:role=admin").map(|account| account.role), Ok(Role::Admin));
    for (line, fault) in [
        (&b"# comment"[..], Fault::NoColon),
        (b"", Fault::NoColon),
        (b"*::role=user", Fault::Name),
        (b"alice:x", Fault::Secret(secret::Fault::Unknown)),
        (b"a:=x\nb:=y", Fault::Control(b'\n')),
    ] {
        assert_eq!(parse_line(line), Err(fault));
    }
}

#[test]
fn only_touched_lines_change() {
    let file = format!(
        "\u{feff}# staff\r\nalice:{TOKEN}:role=admin\r\n\n  # odd\nbob :  \nbo\\x62:{BCRYPT}: \nzoe:=x"
    );
    let rewritten = |edits: &[Edit]| {
        let text = rewrite(file.as_bytes(), edits).expect("fits");
        String::from_utf8(text).expect("UTF-8")
    };
    assert_eq!(rewritten(&[]), file);
    for (change, line) in [
        (Change::Lock(true), format!("bo\\x62:!{BCRYPT}: ")),
        (Change::Lock(false), format!("bo\\x62:{BCRYPT}: ")),
        (Change::Secret(TOKEN.into()), format!("bo\\x62:{TOKEN}: ")),
        (Change::Role(Role::Admin), format!("bo\\x62:{BCRYPT}:role=admin")),
    ] {
        let before = format!("bo\\x62:{BCRYPT}: ");
        assert_eq!(rewritten(&[edit("bob", change)]), file.replace(&before, &line));
    }
    assert_eq!(
        rewritten(&[edit("alice", Change::Role(Role::User))]),
        file.replace("role=admin", "role=user")
    );
    assert_eq!(
        rewritten(&[edit("alice", Change::Delete)]),
        file.replace(&format!("alice:{TOKEN}:role=admin\r\n"), "")
    );
    assert_eq!(rewritten(&[add("dave")]), format!("{file}\r\ndave:{TOKEN}\r\n"));
}

/// There is one at the beginning of the file, before whatever line is the first; others come from files that were joined.
#[test]
fn a_byte_order_mark_becomes_no_part_of_a_name() {
    let delete = |name: &str| edit(name, Change::Delete);
    let admin = |name: &str| edit(name, Change::Role(Role::Admin));
    for (file, edits, wanted) in [
        ("^a:\nb:\n", vec![delete("a")], "^b:\n"),
        ("^a:\n^b:\n", vec![delete("a")], "^b:\n"),
        ("^a:\n^b:\n", vec![delete("a"), admin("b")], "^b::role=admin\n"),
        ("^a:\n^b:\n^c:\n", vec![delete("a"), delete("b")], "^c:\n"),
        ("^a:\n^b:\n^c:\n", vec![delete("b")], "^a:\n^c:\n"),
        ("a:\n^b:\nc:\n", vec![delete("b")], "a:\nc:\n"),
        ("a:\n^b:\nc:\n", vec![delete("a"), delete("b")], "^c:\n"),
        ("^a:\n^# c\n^\n", vec![delete("a")], "^# c\n^\n"),
        ("^a:\r\n^b:", vec![delete("a"), admin("b")], "^b::role=admin"),
        ("^a:\n", vec![admin("a")], "^a::role=admin\n"),
        ("^a:\n", vec![delete("a")], "^"),
        ("^", vec![add("n")], "^n:T\n"),
        ("^\n", vec![add("n")], "^\nn:T\n"),
        ("^a:", vec![delete("a"), add("n")], "^n:T\n"),
        ("^a:\r\n", vec![add("n")], "^a:\r\nn:T\r\n"),
        ("^a:", vec![add("n")], "^a:\nn:T\n"),
        ("a:\r\nb:\r", vec![add("n")], "a:\r\nb:\r\nn:T\r\n"),
        // The second mark is a part of the name.
        ("^a:\n^^b:\n", vec![delete("a")], "^^b:\n"),
    ] {
        let [file, wanted] = [file, wanted].map(|text| text.replace('^', "\u{feff}"));
        let text = rewrite(file.as_bytes(), &edits).expect("fits");
        let shown = String::from_utf8(text).expect("UTF-8").replace(TOKEN, "T");
        assert_eq!(shown, wanted, "{file:?} {edits:?}");
        assert!(parse(shown.replace(":T", &format!(":{TOKEN}")).as_bytes()).is_ok(), "{shown:?}");
    }
}

/// What could not be read at the next start is not written.
#[test]
fn lines_and_files_do_not_become_too_long() {
    let blanks = " ".repeat(LONGEST_LINE - "alice:=x:".len());
    for mark in ["", "\u{feff}"] {
        let file = format!("{mark}alice:=x:{blanks}\nbob:\n");
        assert!(parse(file.as_bytes()).is_ok());
        for change in [Change::Lock(true), Change::Secret("=xx".into())] {
            let edits = [edit("bob", Change::Delete), edit("alice", change)];
            let refused = rewrite(file.as_bytes(), &edits).expect_err("too long");
            assert_eq!(refused.to_string(), "the line of alice would have more than 4096 bytes");
        }
        // What is short enough in the end is good.
        let edits =
            [Change::Lock(true), Change::Secret("".into())].map(|edits| edit("alice", edits));
        assert!(parse(&rewrite(file.as_bytes(), &edits).expect("it fits")).is_ok());
    }
    let name = "\\xff".repeat(255);
    let long = Change::Limits(vec![(LimitKey::From, "1.1.1.1,".repeat(600).into())]);
    let all = Edit { name: ALL_ACCOUNTS.into(), change: long.clone() };
    let refused = rewrite(b"", &[all]).expect_err("too long");
    assert_eq!(refused.to_string(), "the line of * would have more than 4096 bytes");
    let named = Edit { name: [0xff; 255].into(), change: long };
    let refused = rewrite(format!("{name}:\n").as_bytes(), &[named]).expect_err("too long");
    assert!(refused.to_string().starts_with("the line of \\xff\\xff"));
    let fits = add("n");
    let length = "a:\n".len() + "n:\n".len() + TOKEN.len();
    let most = length as u64;
    assert!(rewrite_within(most, b"a:\n", std::slice::from_ref(&fits)).is_ok());
    let refused = rewrite_within(most - 1, b"a:\n", &[fits]).expect_err("too long");
    assert_eq!(refused.to_string(), format!("it would have more than {} bytes", most - 1));
}

#[test]
fn edits_of_one_account_come_one_after_the_other() {
    let edits = [
        add("a"),
        add("b"),
        edit("a", Change::Role(Role::Admin)),
        edit("b", Change::Delete),
        edit("a", Change::Lock(true)),
        edit("z", Change::Delete),
        add("z"),
        add("c"),
        edit("c", Change::Delete),
    ];
    let text = rewrite(b"z:=x:role=admin\n", &edits).expect("fits");
    assert_eq!(String::from_utf8_lossy(&text), format!("z:{TOKEN}\na:!{TOKEN}:role=admin\n"));
}

#[test]
fn what_does_not_fit_is_refused() {
    for edits in [
        vec![add("alice")],
        vec![edit("bob", Change::Delete)],
        vec![add("bob"), add("bob")],
        vec![edit("alice", Change::Delete), edit("alice", Change::Lock(true))],
    ] {
        assert_eq!(rewrite(b"alice:=x\n", &edits), Err(BadEdit::Misfit), "{edits:?}");
    }
}

#[test]
fn a_new_line_is_that_of_its_name() {
    for name in ["alice", "#x", "*", "*x", "a:b", " a ", "\u{e4}", "a\\x41", "!", "="] {
        let line = account_line(name.as_bytes(), TOKEN, true, Role::Admin, None);
        let account = parse_line(line.as_bytes()).expect(&line);
        assert_eq!(
            (&*account.name, account.role, account.locked),
            (name.as_bytes(), Role::Admin, true)
        );
    }
}

#[test]
fn no_debug_print_shows_a_secret() {
    let account = parse_line(b"alice:=hunter2").expect("good");
    assert!(!format!("{account:?}{:?}", add("bob")).contains("hunter2"));
    assert!(!format!("{:?}", add("bob")).contains("$b2$"));
}

/// A line that is good on its own: of an account with a name of its own, or blank.
fn good_line(number: usize) -> impl Strategy<Value = String> {
    let secret = prop_oneof![
        Just(TOKEN.to_owned()),
        Just(BCRYPT.to_owned()),
        Just(String::new()),
        "=[ -9;-~]{0,8}",
    ];
    let keys = prop_oneof![
        Just(""),
        Just(":"),
        Just(":role=admin"),
        Just(": role=user\t"),
        Just(":conns=3 rate=1Mbit"),
        Just(":quota=1GB/day conns=9 role=admin")
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n")];
    let account = ("[a-z \\\\*#]{0,3}", any::<bool>(), secret, keys, end.clone()).prop_map(
        move |(name, locked, secret, keys, end)| {
            let lock = if locked { "!" } else { "" };
            format!("n{number}{}x:{lock}{secret}{keys}{end}", name)
        },
    );
    let blank = ("[ \t]{0,2}", "(#.{0,9})?", end).prop_map(|(a, b, end)| format!("{a}{b}{end}"));
    prop_oneof![4 => account, 1 => blank]
}

fn good_file() -> impl Strategy<Value = Vec<String>> {
    (0..12_usize).prop_flat_map(|lines| (0..lines).map(good_line).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(support::property::config(256))]

    /// Parse, print, parse: the accounts are the same.
    #[test]
    fn what_is_printed_is_read_again(name in prop::collection::vec(any::<u8>(), 1..256), locked: bool, admin: bool, salt: [u8; 16], conns: Option<u32>, day in 1..=31_u8) {
        prop_assume!(name != b"-");
        let role = if admin { Role::Admin } else { Role::User };
        let token = secret::Token::new(salt, &name);
        let line = account_line(&name, &token.text(), locked, role, None);
        prop_assert!(parse_line(line.as_bytes()).is_ok_and(|account| account.limits.is_none()));
        let connections = conns.map_or(Said::Unlimited, Said::Limit);
        let quota = Said::Limit(Quota { bytes: u64::from(day) * 1000, period: Period::Month(day) });
        let limits = Box::new(Limits { connections, quota, ..Limits::default() });
        let line = account_line(&name, &token.text(), locked, role, Some(&limits));
        let account = FileAccount { name: name.into(), secret: Secret::Token(Box::new(token)), locked, role, limits: Some(limits) };
        prop_assert_eq!(parse_line(line.as_bytes()), Ok(account));
    }

    /// A change of one account leaves every other line as it is, byte for byte, and the file good.
    #[test]
    fn untouched_lines_stay(lines in good_file(), marks: u16, which: prop::sample::Index, kind in 0..7_u8) {
        let marked = |(place, line): (usize, &String)| match marks >> place & 1 {
            1 => format!("\u{feff}{line}"),
            _ => line.clone(),
        };
        let lines: Vec<String> = lines.iter().enumerate().map(marked).collect();
        let file = lines.concat();
        let before = parse(file.as_bytes()).expect("good lines are a good file");
        let accounts = &before.accounts;
        prop_assert_eq!(rewrite(file.as_bytes(), &[]), Ok(file.clone().into_bytes()));
        if accounts.is_empty() {
            return Ok(());
        }
        let place = which.index(accounts.len());
        let account = &accounts[place];
        let change = match kind {
            0 => Change::Delete,
            1 => Change::Role(Role::Admin),
            2 => Change::Role(Role::User),
            3 => Change::Lock(!account.locked),
            4 => Change::Limits(vec![(LimitKey::Connections, "7".into())]),
            5 => Change::Limits(vec![(LimitKey::Connections, "".into())]),
            _ => Change::Secret(TOKEN.into()),
        };
        let edits = [Edit { name: account.name.clone(), change }];
        let text = rewrite(file.as_bytes(), &edits).expect("fits");
        let after = parse(&text).expect("still good");
        let mut wanted = before.accounts.clone();
        let mut limits = account.limits.clone().unwrap_or_default();
        match kind {
            0 => drop(wanted.remove(place)),
            1 => wanted[place].role = Role::Admin,
            2 => wanted[place].role = Role::User,
            3 => wanted[place].locked = !account.locked,
            4 | 5 => {
                let said = if kind == 4 { &b"7"[..] } else { b"" };
                limits.set(LimitKey::Connections, said).expect("in range");
                wanted[place].limits = Some(limits).filter(|limits| !limits.is_empty());
            }
            _ => wanted[place].secret = Secret::parse(TOKEN.as_bytes()).expect("good"),
        }
        prop_assert_eq!(after, FileAccounts { accounts: wanted, ..before.clone() });
        // The lines that are not of this account, in their order.
        let number = lines.iter().position(|line| {
            parse_line(line.as_bytes()).is_ok_and(|found| found.name == account.name)
        }).expect("the line of the account");
        let before = lines[..number].concat();
        let mut behind = lines[number + 1..].concat();
        // The mark at the beginning of the file stays there.
        if kind == 0 && number == 0 && marks & 1 == 1 {
            behind = format!("\u{feff}{}", behind.trim_start_matches('\u{feff}'));
        }
        prop_assert!(text.starts_with(before.as_bytes()) && text.ends_with(behind.as_bytes()));
    }

    /// Any bytes give an answer, and what is good stays good when it is rewritten.
    #[test]
    fn any_bytes_have_an_answer(content in prop::collection::vec(
        prop_oneof![3 => Just(b'\n'), 3 => Just(b':'), 2 => Just(b'='), 1 => Just(b'!'), 6 => any::<u8>()], 0..200),
        mark: bool)
    {
        let mark = if mark { "\u{feff}" } else { "" };
        let content = [mark.as_bytes(), &content].concat();
        if let Ok(FileAccounts { accounts, .. }) = parse(&content) {
            let text = rewrite(&content, &[add("new")]);
            let news = accounts.iter().all(|account| &*account.name != b"new");
            prop_assert_eq!(text.is_ok(), news);
            prop_assert_eq!(parse(&text.unwrap_or_default()).map(|all| all.accounts.len()), Ok(if news { accounts.len() + 1 } else { 0 }));
        }
    }
}
