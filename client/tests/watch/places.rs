//! The screen of somebody somewhere: characters of the locale, and the time of the clock on the wall.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use metp_protocol::timestamp::Timestamp;
use support::eventually;
use support::metp::value;

use super::{BLOCKS, Tunnel, Watch, proxy};

/// Whether the screen is in ASCII alone, once all of it is there.
fn is_ascii(environment: &[(&str, &str)]) -> bool {
    let proxy = proxy();
    let mut tunnel = Tunnel::open(&proxy, "alice", 1000);
    let terminal = [("TERM", "xterm"), ("LC_ALL", "")];
    let mut watch = Watch::with(&proxy, "admin:1234", &[&terminal, environment].concat(), 80, 24);
    watch.shows(&["CONNECTIONS 1", "every 0.2 s"]);
    eventually("there are bars", || {
        support::exchange(&mut tunnel.stream, 20_000);
        let bars = watch.part(8..26, 3..8);
        bars.contains('#') || bars.contains(|letter| BLOCKS.contains(letter))
    });
    watch.press("?");
    watch.shows(&[" Keys ", " any key closes "]);
    let ascii = watch.terminal.shown().is_ascii();
    let text = watch.screen().contents();
    let edges = if ascii { ["5+", " 0+", "+ Keys -"] } else { ["5┤", " 0└", "┌ Keys ─"] };
    for edge in edges {
        assert!(text.contains(edge), "{edge} {environment:?}: {text}");
    }
    ascii
}

#[test]
fn it_is_in_ascii_where_the_locale_is_not_utf_8() {
    for (environment, ascii) in [
        (&[][..], true),
        (&[("LC_ALL", "C"), ("LC_CTYPE", "C.UTF-8"), ("LANG", "C.UTF-8")], true),
        (&[("LC_CTYPE", "POSIX"), ("LANG", "C.UTF-8")], true),
        (&[("LANG", "de_DE.ISO-8859-1")], true),
        (&[("LANG", "C.UTF-8")], false),
        (&[("LC_CTYPE", "en_US.utf8"), ("LANG", "C")], false),
        (&[("LC_ALL", "C.UTF-8"), ("LC_CTYPE", "C"), ("LANG", "C")], false),
    ] {
        assert_eq!(is_ascii(environment), ascii, "{environment:?}");
    }
}

/// The log of the screen has the time as the C library has it, for whatever `TZ` may say.
#[test]
fn the_log_is_in_local_time() {
    let proxy = proxy();
    drop(Tunnel::open(&proxy, "alice", 1000).stream);
    let record = proxy.admin().ask("GET_LOGS").pop().expect("a record");
    let time = record.strip_prefix('[').and_then(|rest| rest.split_once(']')).expect("a time").0;
    let utc = Timestamp::parse(time).expect("a timestamp").seconds();
    eventually("it is over", || {
        !proxy.admin().ask("CONNECTIONS").iter().any(|line| value(line, "state") == "relay")
    });
    let quarters = |quarters: u64| 900 * quarters;
    let mut zones = vec![("UTC0", 0), ("XYZ-5:45", quarters(23)), ("<+1345>-13:45", quarters(55))];
    if Path::new("/usr/share/zoneinfo/Asia/Kathmandu").exists() {
        zones.extend([("Asia/Kathmandu", quarters(23)), (":Asia/Kathmandu", quarters(23))]);
    } else {
        println!("no zones are installed: only those of POSIX are tried");
    }
    for (zone, ahead) in zones {
        let there = Timestamp::from(UNIX_EPOCH + Duration::from_secs(utc + ahead)).to_string();
        let shown = there[5..19].replace('T', " ");
        let environment = [("TERM", "xterm"), ("TZ", zone)];
        let mut watch = Watch::with(&proxy, "admin:1234", &environment, 80, 24);
        watch.shows(&["every 0.2 s", &format!("\n{shown} ")]);
        watch.press("q");
        assert_eq!(watch.ends().0, 0, "{zone}");
    }
}
