//! The program: command line, logging, limits; then the server.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use socks5d::args::{self, Args, Invocation, SUPERUSER_VARIABLE};
use socks5d::ledger::settings::Settings;
use socks5d::ledger::users::Users;
use socks5d::process;
use socks5d::proto::metp::Role;
use socks5d::proto::timestamp::Timestamp;
use socks5d::reactor::log_thread::Outlet;
use socks5d::reactor::resolver::{Limits, system_lookup};
use socks5d::reactor::selector::Service;
use socks5d::server::{Config, Server};

/// EX_USAGE of sysexits(3).
const BAD_USAGE: u8 = 64;

/// How long the logs may take to be written when everything else is over.
const LAST_FLUSH: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Before there is any other thread: see there.
    let superuser = process::take_from_environment(SUPERUSER_VARIABLE);
    match args::parse(std::env::args_os().skip(1), superuser.as_deref()) {
        Ok(Invocation::Show(text)) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(Invocation::Serve(args)) => match serve(*args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, ExitCode::FAILURE),
        },
        Err(usage) => complain(&usage, ExitCode::from(BAD_USAGE)),
    }
}

/// One line on stderr.
fn complain(what: &dyn std::fmt::Display, code: ExitCode) -> ExitCode {
    // If nobody reads it, the exit code still tells.
    let _ = writeln!(io::stderr(), "socks5d: {what}");
    code
}

fn serve(args: Args) -> io::Result<()> {
    process::harden()?;
    let descriptors = usize::try_from(process::raise_descriptor_limit()?).unwrap_or(usize::MAX);
    let access_log = Outlet::start("access log", io::stdout())?;
    let diagnostics = Outlet::start("diagnostics", io::stderr())?;
    let warnings = warnings(&args);
    let server = Server::bind(config(args, descriptors, access_log.clone())?)?;

    log_to(diagnostics.clone());
    for warning in warnings {
        log::warn!("{warning}");
    }
    for (name, service) in [("socks", Service::Socks), ("metp", Service::Metp)] {
        if let Some(address) = server.address(service) {
            log::info!("listening: service={name} address={address}");
        }
    }
    let result = server.run();
    if let Err(error) = &result {
        log::error!("the event loop failed: {error}");
    }
    let deadline = Instant::now() + LAST_FLUSH;
    access_log.flush(deadline);
    diagnostics.flush(deadline);
    result
}

/// What an administrator should know before anything else.
fn warnings(args: &Args) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if args.superuser.is_none() && args.users.is_empty() {
        warnings.push(
            "there is no account: nobody can log in (give PROXY_CTRL_SUPERUSER=NAME:PASS or -u NAME:PASS)",
        );
    } else if args.superuser.is_none() {
        warnings.push("there is no administrator: PROXY_CTRL_SUPERUSER is not set");
    }
    if args.superuser_repeated {
        warnings.push("-u names the superuser again: PROXY_CTRL_SUPERUSER wins");
    }
    warnings
}

fn config(args: Args, descriptors: usize, access_log: Outlet) -> io::Result<Config> {
    let mut users = Users::default();
    let admin = args.superuser.iter().map(|login| (login, Role::Admin));
    for (login, role) in admin.chain(args.users.iter().map(|login| (login, Role::User))) {
        users
            .add(&login.name, &login.password, role)
            .map_err(|_| io::Error::other("an account is named twice"))?;
    }
    Ok(Config {
        listen: args.listen,
        port: args.port,
        metp_listen: args.metp_listen,
        metp_port: args.metp_port,
        users,
        settings: Settings {
            buffer_size: args.buffer_size,
            buffer_memory: args.buffer_memory,
            max_connections: args.max_connections.unwrap_or(affordable(descriptors)),
            max_connections_per_ip: args.max_connections_per_ip,
            max_metp_sessions: args.max_metp_sessions,
            allow_local: args.allow_local,
            names: args.names,
            timeouts: args.timeouts,
            own_ports: Vec::new(),
        },
        log_entries: args.log_entries,
        dns: Limits {
            threads: args.dns_threads,
            threads_in_all: stuck_threads(args.dns_threads, descriptors),
            queue: args.dns_queue,
        },
        lookup: Box::new(system_lookup),
        descriptors,
        grace: args.grace,
        access_log: Some(access_log),
        signals: Some(process::signals()?),
    })
}

/// How many tunnels of two descriptors each there can be, besides a reserve from which METP, DNS and logs
/// live, so that an administrator can always get in.
fn affordable(descriptors: usize) -> usize {
    let reserve = (descriptors / 4).min(128);
    (descriptors.saturating_sub(reserve) / 2).max(1)
}

/// How many look-ups there may be, those of dead names included: each may hold a descriptor.
fn stuck_threads(threads: usize, descriptors: usize) -> usize {
    threads.saturating_mul(16).min((descriptors / 3).max(4))
}

/// Sends everything that is logged, panics too, through the outlet. `RUST_LOG` is respected;
/// what it does not name is logged from level info on.
fn log_to(diagnostics: Outlet) {
    let filters = std::env::var("RUST_LOG").unwrap_or_default();
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .parse_filters(&filters)
        .target(env_logger::Target::Pipe(Box::new(diagnostics)))
        .format(|line, record| {
            let time = Timestamp::from(SystemTime::now());
            writeln!(line, "{time} {:<5} {}", record.level(), record.args())
        })
        .init();
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}
