//! What this machine lacks - memory, threads, descriptors, a way to wake the loop - costs look-ups, and never
//! the process or an answer about a name.
//!
//! Most tests have a process of their own, since limits and loggers are those of the whole process.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::Sender;
use std::time::Duration;

use common::thread::MARGIN_BYTES;
use log::{LevelFilter, Log, Metadata, Record};
use socks5d::state::settings::Settings;
use socks5d::workers::dns_cache::Ttls;
use socks5d::workers::families::Family;
use socks5d::workers::resolver::{Lookup, SystemLookup};
use support::alone::{alone, alone_in, is_alone};
use support::origin::Origin;
use support::proxy;
use support::socks::{Client, name_request, wait_until_read};
use support::system::{replace_descriptor, set_limit};
use support::{eventually, read_exactly, test_name};

use crate::inprocess::{Builder, Inprocess};

/// What has been logged.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        LINES.lock().expect("nobody panics with it").push(line);
    }

    fn flush(&self) {}
}

fn gather_lines() {
    log::set_logger(&Lines).expect("the first logger");
    log::set_max_level(LevelFilter::Info);
}

fn lines_with(text: &str) -> Vec<String> {
    let lines = LINES.lock().expect("nobody panics with it");
    lines.iter().filter(|line| line.contains(text)).cloned().collect()
}

/// A value of /proc/self/status, in bytes.
fn own_status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(key)).expect("the key is there");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

/// Remembers for long what may be remembered.
fn remembering() -> Builder {
    let minute = Some(Duration::from_secs(60));
    let names = Ttls { found: minute, failed: minute };
    Builder::default().settings(|settings| settings.names = names)
}

fn code_for(server: &Inprocess, name: &str, port: u16) -> u8 {
    server.client().say(&name_request(name.as_bytes(), port)).reply().0
}

fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(tunnel, 4), b"here");
}

/// 400 names that never answer, of one account, in an address space that has no room for 400 threads: those
/// that can be had are, the others wait, and everybody else is served.
#[test]
fn dead_names_leave_a_limited_address_space_to_others() {
    alone(test_name!("dead_names_leave_a_limited_address_space_to_others"), || {
        gather_lines();
        common::process::share_heaps();
        let change = |settings: &mut Settings| settings.dns_threads = 500;
        let (server, echo) = (remembering().settings(change).start(), Origin::echo());
        server.names().add_ip("good.test", Ipv4Addr::LOCALHOST.into());
        let mut tunnel = server.client().connected(echo.address);
        // A thread that has not begun its work when memory gets short would end the process.
        echoes(&mut tunnel);
        let mut admin = server.admin();
        let dead: Vec<String> = (0..400).map(|number| format!("dead{number}.test")).collect();
        let never: Vec<Sender<()>> = dead.iter().map(|name| server.names().hang(name)).collect();
        let room = MARGIN_BYTES as u64 + (24 << 20);
        let before = set_limit(libc::RLIMIT_AS, own_status("VmSize") + room);
        let waiting: Vec<Client> = dead
            .iter()
            .map(|name| {
                let mut client = server.client();
                client.say(&name_request(name.as_bytes(), 80));
                client
            })
            .collect();
        wait_until_read(&waiting[399].stream);
        eventually("there are no more threads to be had", || {
            !lines_with("no thread for look-ups can be started").is_empty()
        });
        echoes(&mut tunnel);
        assert_eq!(admin.metrics()[1], 401);
        eventually("those that can be had are at work", || server.names().asked().len() > 20);
        assert!(server.names().asked().len() < 400);
        // One that comes free is enough for all others: the newest name first.
        let mut client = server.client();
        client.say(&name_request(b"good.test", echo.address.port()));
        wait_until_read(&client.stream);
        drop(never);
        assert_eq!(client.reply().0, 0);
        for mut client in waiting {
            client.refused(4);
        }
        assert_eq!(lines_with("no thread for look-ups can be started").len(), 1);
        set_limit(libc::RLIMIT_AS, before);
    });
}

/// A thread that cannot start is a failed look-up: reply 01, at once, and nothing is remembered of the name.
/// The log has one line, with the cause.
#[test]
fn without_any_thread_look_ups_fail_and_nothing_else() {
    alone(test_name!("without_any_thread_look_ups_fail_and_nothing_else"), || {
        gather_lines();
        let (server, echo) = (remembering().start(), Origin::echo());
        server.names().add_ip("good.test", Ipv4Addr::LOCALHOST.into());
        let mut tunnel = server.client().connected(echo.address);
        // A thread that has not begun its work when memory gets short would end the process.
        echoes(&mut tunnel);
        let before = set_limit(libc::RLIMIT_AS, own_status("VmSize") + MARGIN_BYTES as u64 / 2);
        for _ in 0..20 {
            server.client().say(&name_request(b"good.test", echo.address.port())).refused(1);
        }
        echoes(&mut tunnel);
        assert_eq!(server.names().asked(), [""; 0]);
        let lines = lines_with("thread for look-ups");
        let cause = io::Error::from_raw_os_error(libc::ENOMEM);
        let told = format!(
            "WARN no thread for look-ups can be started: {cause}: there is none, and what needs one fails"
        );
        assert_eq!(lines, [told]);
        set_limit(libc::RLIMIT_AS, before);
        assert_eq!(code_for(&server, "good.test", echo.address.port()), 0);
    });
}

/// With no descriptor left, getaddrinfo and getnameinfo cannot read their files or ask anybody. They may call that
/// EAI_NONAME.
#[test]
fn a_look_up_without_descriptors_says_nothing_about_the_name() {
    alone(test_name!("a_look_up_without_descriptors_says_nothing_about_the_name"), || {
        // None below the lowest free one is free.
        let lowest = File::open("/dev/null").expect("Linux").as_raw_fd();
        let lowest = u64::try_from(lowest).expect("not negative");
        let before = set_limit(libc::RLIMIT_NOFILE, lowest);
        for name in ["shortage.invalid", "localhost", "shortage.invalid"] {
            for family in Family::ALL {
                let found = SystemLookup.addresses(name, family, 80);
                let error = found.expect_err("nothing could be asked");
                assert_ne!(error.kind(), ErrorKind::NotFound, "{name} {family:?}: {error}");
            }
        }
        for address in ["192.0.2.1", "127.0.0.1", "2001:db8::1", "::1"] {
            let address: IpAddr = address.parse().expect("an address");
            let error = SystemLookup.name(address).expect_err("nothing could be asked");
            assert_ne!(error.kind(), ErrorKind::NotFound, "{address}: {error}");
        }
        set_limit(libc::RLIMIT_NOFILE, before);
    });
}

/// What is no answer about the name is answered and not remembered; what is one, is.
#[test]
fn only_answers_about_the_name_are_remembered() {
    alone(test_name!("only_answers_about_the_name_are_remembered"), || {
        gather_lines();
        let server = remembering().start();
        let failures: [(io::Error, u8); 8] = [
            (io::Error::from_raw_os_error(libc::EMFILE), 1),
            (io::Error::from_raw_os_error(libc::ENFILE), 1),
            (io::Error::from_raw_os_error(libc::ENOMEM), 1),
            (io::Error::from_raw_os_error(libc::EAGAIN), 1),
            (ErrorKind::OutOfMemory.into(), 1),
            (ErrorKind::Other.into(), 1),
            (io::Error::other("panic"), 1),
            (ErrorKind::TimedOut.into(), 4),
        ];
        for (number, (error, code)) in failures.into_iter().enumerate() {
            let name = format!("name{number}.test");
            let shown = error.to_string();
            server.names().fail(&name, error);
            assert_eq!(code_for(&server, &name, 80), code, "{shown}");
            assert_eq!(code_for(&server, &name, 80), 4, "{shown} was remembered");
            assert_eq!(code_for(&server, &name, 80), 4);
            assert_eq!(
                server.names().asked(),
                [name.as_str(); 2],
                "the second answer is remembered"
            );
            server.names().forget_asked();
        }
        // Each cause once, however often it was met.
        let codes = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN];
        let causes = codes.map(|code| io::Error::from_raw_os_error(code).to_string());
        let causes =
            causes.into_iter().chain([io::Error::from(ErrorKind::OutOfMemory).to_string()]);
        let told: Vec<String> =
            causes.map(|cause| format!("WARN names cannot be looked up: {cause}")).collect();
        assert_eq!(lines_with("looked up"), told);
    });
}

/// Each write that is to wake the loop fails, from some moment on: answers come all the same.
#[test]
fn a_loop_that_cannot_be_woken_answers() {
    alone(test_name!("a_loop_that_cannot_be_woken_answers"), || {
        gather_lines();
        let (server, echo) = (Builder::default().start(), Origin::echo());
        server.names().add_ip("good.test", Ipv4Addr::LOCALHOST.into());
        assert_eq!(code_for(&server, "good.test", echo.address.port()), 0);
        deafen();
        for number in 0..8 {
            let name = format!("name{number}.test");
            server.names().add_ip(&name, IpAddr::V4(Ipv4Addr::LOCALHOST));
            let mut client = server.client();
            client.stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
            assert_eq!(
                client.say(&name_request(name.as_bytes(), echo.address.port())).reply().0,
                0
            );
        }
        assert_eq!(lines_with("cannot wake the loop").len(), 1);
    });
}

/// Puts something that cannot be written in the place of the process's only eventfd.
fn deafen() {
    let (reader, _writer) = io::pipe().expect("a pipe");
    let mut found = 0;
    for entry in std::fs::read_dir("/proc/self/fd").expect("Linux").flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().contains("[eventfd]") {
            let name = entry.file_name().into_string().expect("a number");
            let descriptor: RawFd = name.parse().expect("a number");
            replace_descriptor(descriptor, &reader);
            found += 1;
        }
    }
    assert_eq!(found, 1, "the waker's");
}

/// The program itself, with the system's look-up and a name server that never says anything: in 64 MiB of
/// address space it lives through 400 dead names of one account.
#[test]
fn the_program_lives_through_dead_names_in_little_address_space() {
    let name = test_name!("the_program_lives_through_dead_names_in_little_address_space");
    let script = "command -v ip >/dev/null && ip link set lo up && \
                  printf 'nameserver 127.0.0.1\\n' >/dev/shm/resolv.$$ && \
                  mount --bind /dev/shm/resolv.$$ /etc/resolv.conf && \
                  rm /dev/shm/resolv.$$ || exit 77; exec \"$0\" \"$@\"";
    let outside = ["unshare", "-m", "-n", "sh", "-c", "true"];
    let inside = is_alone(name);
    let can =
        inside || Command::new(outside[0]).args(&outside[1..]).status().is_ok_and(|s| s.success());
    let run = || {
        can && alone_in(
            name,
            &["unshare", "-m", "-n", "sh", "-c", script],
            dead_names_and_the_program,
        )
    };
    if !run() {
        println!("skipped: no namespace of its own can be had");
    }
}

/// In a limited address space the defaults are those that fit; what has been asked for is not changed.
#[test]
fn defaults_fit_into_a_limited_address_space() {
    let value = |proxy: &proxy::Proxy, key: &str| -> usize {
        let answer = proxy.admin().ask(&format!("CONFIG GET {key}"));
        let line = answer.iter().find(|line| line.contains(key)).expect("it is there").clone();
        let word =
            line.split(['=', ' ']).find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let proxy = proxy::Builder::default().limits("-v 65536").start();
    // An eighth of 64 MiB each; 10 KiB for a connection.
    assert_eq!(value(&proxy, "buffer-memory"), 8 << 20);
    assert!(value(&proxy, "max-connections") <= 819);
    let given = ["--buffer-memory", "100000000", "--max-connections", "5000"];
    let proxy = proxy::Builder::default().limits("-v 65536").args(given).start();
    assert_eq!(value(&proxy, "buffer-memory"), 100_000_000);
    assert_eq!(value(&proxy, "max-connections"), 5000);
    let proxy = proxy::Builder::default().start();
    assert_eq!(value(&proxy, "buffer-memory"), 256 << 20);
}

fn dead_names_and_the_program() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("a namespace of its own");
    let builder = proxy::Builder::default().limits("-v 65536").args(["--dns-threads", "400"]);
    let (mut proxy, echo) = (builder.start(), Origin::echo());
    let mut tunnel = proxy.tunnel(echo.address);
    let waiting: Vec<Client> = (0..400)
        .map(|number| {
            let mut client = proxy.client();
            client.say(&name_request(format!("dead{number}.test").as_bytes(), 80));
            client
        })
        .collect();
    let mut asked = [0; 512];
    for _ in 0..20 {
        assert!(silent.recv(&mut asked).expect("names are asked for") > 12);
    }
    wait_until_read(&waiting[399].stream);
    echoes(&mut tunnel);
    assert!(proxy.running());
    assert!(proxy.status_kib("Threads:") > 20);
    assert!(proxy.status_kib("VmPeak:") <= 65536);
    // Names for which nobody has to be asked, and addresses, are served as ever, if a thread is free or not.
    assert_eq!(proxy.client().say(&name_request(b"localhost", echo.address.port())).reply().0, 0);
    assert!(proxy.metrics()[1] >= 401);
    drop(waiting);
    proxy.signal(libc::SIGINT);
    assert!(proxy.wait().success());
}
