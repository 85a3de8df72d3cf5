//! Layer 5: the program. Command line, logging, limits; then the server.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::process::cannot;
use common::stdio;
use metp_protocol::Role;
use metp_protocol::text::Escaped;
use socks5d::args::{self, Args, CommandLine, RunAs, SUPERUSER_FILE_VARIABLE, SUPERUSER_VARIABLE};
use socks5d::logs::{LogWriters, known_filters, logger};
use socks5d::process::activation;
use socks5d::process::identity::{self, Identity};
use socks5d::process::pid_file::PidFile;
use socks5d::process::service_manager::{ServiceManager, state_directory};
use socks5d::process::takeover::{self, Predecessor};
use socks5d::process::{self, of_file};
use socks5d::proto::rules::RuleSet;
use socks5d::proto::secret::Secret;
use socks5d::proto::usage_file::Figures;
use socks5d::proto::users_file::FileAccount;
use socks5d::reactor::signal;
use socks5d::server::takeover::TakeoverSocket;
use socks5d::server::{Addresses, Config, Descriptors, Server, bind_ports};
use socks5d::state::configuration::{Configuration, Reading};
use socks5d::state::knobs::Source;
use socks5d::state::service::{PerService, Service};
use socks5d::state::users::Users;
use socks5d::workers::durable::{self, Expected};
use socks5d::workers::resolver::SystemLookup;
use socks5d::workers::rules_file::RulesFile;
use socks5d::workers::state_directory::{StateDirectory, fault_of_path};
use socks5d::workers::store::Files;
use socks5d::workers::users_file::UsersFile;
use socks5d::{configuration, hash_password};

/// EX_USAGE of sysexits(3).
const BAD_USAGE: u8 = 64;

/// Standard input, output and error: the runtime opens those that are closed.
const STANDARD_STREAMS: usize = 3;

/// Descriptors for takeovers.
const TAKEOVER_DESCRIPTORS: usize = 3;

/// How long the logs may take to be written at the end.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Memory of a connection besides its buffers, in bytes, at most; see SECURITY.md.
const CONNECTION_BYTES: usize = 14 * 1024;

fn main() -> ExitCode {
    // Before anything can be sent or written.
    signal::ignore_stray_signals();
    // Both need a process with one thread.
    common::process::share_heaps();
    let superuser = common::process::take_from_environment(SUPERUSER_VARIABLE);
    let superuser_file = std::env::var_os(SUPERUSER_FILE_VARIABLE);
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let manager = ServiceManager::take();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Without /proc they stay readable; nothing else depends on it.
    let _ = common::process::erase_arguments(&args::passwords(&arguments));
    let parsed = args::superuser(superuser, superuser_file.as_deref(), credentials.as_deref())
        .and_then(|superuser| args::parse(arguments, superuser.as_deref()));
    match parsed {
        Ok(CommandLine::Check(args)) => match check(&args) {
            lines if lines.is_empty() => ExitCode::SUCCESS,
            lines => eprint_lines(&lines),
        },
        Ok(CommandLine::Show(text)) => match stdio::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(CommandLine::HashPassword) => match hash_password::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprint_line(&format!("--hash-password: {error}"), hash_password::exit_code(&error))
            }
        },
        Ok(CommandLine::Serve(args)) => match serve(*args, &manager) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Usage(lines)) => eprint_lines(&lines),
            Err(Failure::System(error)) => eprint_line(&error, ExitCode::FAILURE),
        },
        Err(usage) => eprint_lines(usage.lines()),
    }
}

/// Prints what is wrong with options and files.
fn eprint_lines(lines: &[String]) -> ExitCode {
    for line in lines {
        eprint_line(line, ExitCode::from(BAD_USAGE));
    }
    ExitCode::from(BAD_USAGE)
}

/// Prints one line to stderr.
fn eprint_line(what: &dyn std::fmt::Display, code: ExitCode) -> ExitCode {
    // If stderr is closed, the exit code still shows it.
    let _ = stdio::stderr().write_all(format!("socks5d: {what}\n").as_bytes());
    code
}

/// Why the server does not start, or has ended.
enum Failure {
    /// What is wrong with the files that it was given, in lines.
    Usage(Vec<String>),
    /// The system does not allow it.
    System(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::System(error)
    }
}

fn serve(mut args: Args, manager: &ServiceManager) -> Result<(), Failure> {
    // Before any descriptor is opened.
    let mut sockets =
        activation::sockets(&manager.sockets).map_err(|line| Failure::Usage(vec![line]))?;
    common::process::harden()?;
    process::give_large_blocks_back();
    // Before the descriptors that are open are counted.
    let notifier = manager.notifier()?;
    let limit =
        process::raise_descriptor_limit().map_err(cannot("read the limit of descriptors"))?;
    let inherited = process::descriptors_below(limit).saturating_sub(STANDARD_STREAMS);
    // Its socket, a conversation, and the server before.
    let inherited = inherited + if args.takeover.is_some() { TAKEOVER_DESCRIPTORS } else { 0 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let descriptors = Descriptors::new(limit, inherited)?;
    let identity = args.run_as.as_ref().map(find_identity).transpose();
    let identity = identity.map_err(|line| Failure::Usage(vec![line]))?;
    if identity.is_some() && !identity::is_root() {
        return Err(io::Error::other("--run-as: only root can become another user").into());
    }
    let addresses = addresses(&args);
    let takeover_path = args.takeover.clone();
    let mut predecessor = match &takeover_path {
        Some(path) => Predecessor::connect(path, identity.map(Identity::user))
            .map_err(|error| of_file("--takeover", path, error))?,
        None => None,
    };
    let mut others = Vec::new();
    if let Some(predecessor) = &mut predecessor {
        others = predecessor.give(&addresses, &mut sockets)?;
    }
    if let Some(identity) = identity {
        // Files are opened, and threads started, as that user.
        bind_ports(&addresses, &args.settings.timeouts, &mut sockets)?;
        identity.assume()?;
    }
    let LogWriters { access_log, diagnostics } =
        LogWriters::open(&args.logs).map_err(cannot("open the logs"))?;
    let (filters, all_good) = known_filters(&std::env::var("RUST_LOG").unwrap_or_default());
    let mut accounts = Accounts::read(&mut args)?;
    let errors = std::mem::take(&mut accounts.errors);
    let mut warnings = warnings(&args, &accounts);
    for address in others {
        warnings.push(format!("--takeover: {address} of the server before is not served any more"));
    }
    if !all_good {
        warnings.push("RUST_LOG: ignoring what is neither a level nor a filter".to_owned());
    }
    let logger = logger(diagnostics.clone(), &filters, args.logs.format);
    if std::env::var_os("RUST_LOG").is_some() {
        // What RUST_LOG excludes stays excluded, whatever log-level is set to.
        args.settings.log_level = logger.filter();
    }
    let level = args.settings.log_level;
    let pid_file = args.pid_file.take();
    let logs = LogWriters { access_log: access_log.clone(), diagnostics: diagnostics.clone() };
    let socket = takeover_path
        .as_deref()
        .map(|path| TakeoverSocket::open(path).map_err(|error| of_file("--takeover", path, error)));
    let takeover = socket.transpose()?;
    let keeps_figures = accounts.files.state.is_some();
    let config = config(args, accounts, descriptors, logs)?;
    let mut server = Server::bind(Config { notifier, sockets, takeover, ..config })?;
    let has_predecessor = predecessor.is_some();
    warnings.extend(takeover::complete(predecessor, &mut server, keeps_figures)?);

    let pid_file = match pid_file.map(|path| (PidFile::write(&path), path)) {
        None => None,
        Some((Ok(file), _)) => Some(file),
        Some((Err(error), path)) => {
            let error = of_file("--pid-file", &path, error);
            if !has_predecessor {
                return Err(error.into());
            }
            // The server before accepts no more: this one serves without the file.
            warnings.push(error.to_string());
            None
        }
    };

    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    std::panic::set_hook(Box::new(|panic| {
        // A record is a line, whatever the message holds.
        log::error!("{}", panic.to_string().replace('\n', " "));
    }));
    for error in errors {
        log::error!("{error}");
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    for (name, service) in
        [("socks", Service::Socks), ("metp", Service::Metp), ("http", Service::Http)]
    {
        if let Some(address) = server.address(service) {
            log::info!("listening: service={name} address={address}");
        }
    }
    let result = server.run().map_err(cannot("wait for events"));
    if let Err(error) = &result {
        log::error!("the event loop failed: {error}");
    }
    drop(pid_file);
    let deadline = Instant::now() + LAST_FLUSH;
    if let Some(access_log) = access_log {
        access_log.flush(deadline);
        access_log.report_losses();
    }
    diagnostics.flush(deadline);
    diagnostics.report_losses();
    diagnostics.flush(deadline);
    Ok(result?)
}

/// Where the options have the services listen.
fn addresses(args: &Args) -> Addresses {
    PerService {
        socks: Some((args.listen, args.port)),
        metp: Some((Some(args.metp_listen), args.metp_port)),
        http: args.http.map(|http| (Some(http.ip()), http.port())),
    }
}

/// The user and group of `--run-as`, or what is wrong with them, in a line.
fn find_identity(run_as: &RunAs) -> Result<Identity, String> {
    let RunAs { user, group } = run_as;
    Identity::find(user, group.as_deref())
        .map_err(|fault| format!("--run-as {}: {fault}", Escaped(&run_as.text())))
}

/// What is wrong with the path of the state directory, in a line.
fn fault_of_state(path: &Path) -> Option<String> {
    let fault = fault_of_path(path)?;
    Some(format!("--state {}: {fault}", Escaped(path.as_os_str().as_bytes())))
}

/// What is wrong with the files that the options name. Nothing is bound, made or written, and no hash is computed.
fn check(args: &Args) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(path) = &args.users_file {
        let shown = Escaped(path.as_os_str().as_bytes());
        if let Err(error) = UsersFile::read(path) {
            lines.extend(error.lines().into_iter().map(|line| format!("--users {shown}: {line}")));
        }
    }
    if let Some(path) = &args.rules_file {
        let shown = Escaped(path.as_os_str().as_bytes());
        let errors = RulesFile::read(path).err().unwrap_or_default();
        lines.extend(errors.into_iter().map(|line| format!("--rules {shown}: {line}")));
    }
    lines.extend(args.state.as_deref().and_then(fault_of_state));
    lines.extend(args.run_as.as_ref().and_then(|run_as| find_identity(run_as).err()));
    lines
}

/// The accounts and rules at the start, and the files in which they and their figures are kept.
struct Accounts {
    users: Users,
    rules: Option<RuleSet>,
    rules_fixed: bool,
    files: Files<Reading>,
    configuration: Configuration,
    figures: Option<Figures>,
    /// Files that are damaged.
    store_errors: u64,
    /// Whether the file is changed by others alone.
    fixed: bool,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Accounts {
    /// Reads the users file, if there is one, and adds the accounts that live in memory. Those that the file has, too,
    /// are those of the file.
    fn read(args: &mut Args) -> Result<Self, Failure> {
        let mut users = Users::default();
        let (mut files, mut warnings, mut fixed) = (Files::default(), Vec::new(), args.users_fixed);
        files.configuration = configuration::reader(args);
        if let Some(path) = args.users_file.take() {
            let shown = Escaped(path.as_os_str().as_bytes()).to_string();
            let loaded = UsersFile::read(&path).map_err(|error| {
                let line = |line: String| format!("--users {shown}: {line}");
                Failure::Usage(error.lines().into_iter().map(line).collect())
            })?;
            if loaded.state == Expected::Missing {
                warnings.push(format!("--users {shown}: there is no such file yet"));
            }
            if loaded.exposed {
                warnings.push(format!("--users {shown}: others than its owner may read it"));
            }
            let clear = |account: &&FileAccount| matches!(account.secret, Secret::Clear(_));
            match loaded.content.accounts.iter().filter(clear).count() {
                0 => {}
                count => warnings.push(format!(
                    "--users {shown}: passwords in clear: {count} (socks5d --hash-password makes hashes)"
                )),
            }
            match (!fixed).then(|| durable::check_replaceable(&path)) {
                None => {}
                Some(Ok(kept)) => {
                    warnings.extend(kept.warning().map(|what| format!("--users {shown}: {what}")));
                }
                Some(Err(error)) => {
                    warnings.push(format!(
                        "--users {shown}: METP cannot change it, as with --users-fixed: {error}"
                    ));
                    fixed = true;
                }
            }
            users.load(loaded.content);
            files.users = Some(UsersFile { path, state: loaded.state });
        }
        let (mut rules, mut rules_fixed) = (None, false);
        if let Some(path) = args.rules_file.take() {
            let shown = Escaped(path.as_os_str().as_bytes()).to_string();
            let loaded = RulesFile::read(&path).map_err(|lines| {
                let line = |line: String| format!("--rules {shown}: {line}");
                Failure::Usage(lines.into_iter().map(line).collect())
            })?;
            let unreachable = loaded.rules.unreachable();
            warnings.extend(unreachable.map(|what| format!("--rules {shown}: {what}")));
            match durable::check_replaceable(&path) {
                Ok(kept) => {
                    warnings.extend(kept.warning().map(|what| format!("--rules {shown}: {what}")));
                }
                Err(error) => {
                    warnings.push(format!("--rules {shown}: METP cannot change it: {error}"));
                    rules_fixed = true;
                }
            }
            rules = Some(loaded.rules);
            files.rules = Some(RulesFile::new(path, loaded.state));
        }
        let superuser = args.superuser.take();
        let admin = superuser.iter().map(|login| (login, Role::Admin, SUPERUSER_VARIABLE));
        let others = std::mem::take(&mut args.users);
        for (login, role, option) in
            admin.chain(others.iter().map(|login| (login, Role::User, "-u")))
        {
            if users.add(&login.name, &login.password, role).is_err() {
                warnings.push(format!(
                    "{option} {}: the users file has this account, and it stays as it is",
                    Escaped(&login.name)
                ));
            }
        }
        let (mut figures, mut store_errors, mut errors) = (None, 0, Vec::new());
        let mut saved = Vec::new();
        if let Some(path) = args.state.take().or_else(state_directory) {
            let shown = Escaped(path.as_os_str().as_bytes()).to_string();
            if let Some(fault) = fault_of_state(&path) {
                return Err(io::Error::other(fault).into());
            }
            let mut state = StateDirectory::open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => {
                    io::Error::other(format!("--state {shown}: another server has it"))
                }
                _ => io::Error::new(error.kind(), format!("--state {shown}: {error}")),
            })?;
            let (found, faults) = state.read();
            store_errors = u64::from(!faults.is_empty());
            errors.extend(faults.into_iter().map(|fault| format!("--state {shown}: {fault}")));
            figures = found.map(|mut found| {
                users.restore_figures(std::mem::take(&mut found.accounts));
                found
            });
            let (settings, faults) = state.read_settings();
            saved = settings;
            errors.extend(faults.into_iter().map(|fault| format!("--state {shown}: {fault}")));
            files.state = Some(state);
        }
        let read = configuration::reading(args);
        let (configuration, faults) = Configuration::new(read, saved, &mut args.settings);
        errors.extend(faults.into_iter().map(|fault| format!("--state: {fault}")));
        let is_saved = |key| configuration.source(key) == Source::Saved;
        args.max_connections_given |= is_saved("max-connections");
        args.buffer_memory_given |= is_saved("buffer-memory");
        Ok(Accounts {
            users,
            rules,
            rules_fixed,
            files,
            configuration,
            figures,
            store_errors,
            fixed,
            warnings,
            errors,
        })
    }
}

/// Warnings about accounts and trusted networks, for the first lines of the diagnostics.
fn warnings(args: &Args, accounts: &Accounts) -> Vec<String> {
    let mut warnings = accounts.warnings.clone();
    let trust = &args.settings.trust;
    if accounts.users.is_empty() && trust.networks().is_empty() {
        warnings.push(
            "there is no account: nobody can log in (give PROXY_CTRL_SUPERUSER=NAME:PASS or -u NAME:PASS)".to_owned(),
        );
    } else if !accounts.users.has_administrator() {
        warnings.push("there is no administrator: PROXY_CTRL_SUPERUSER is not set".to_owned());
    }
    if args.superuser_repeated {
        warnings.push("-u names the superuser again: PROXY_CTRL_SUPERUSER wins".to_owned());
    }
    if args.config_exposed {
        warnings.push("--config: others than its owner may read the passwords in it".to_owned());
    }
    for network in trust.everything() {
        warnings.push(format!("trusting {network}: everybody who can connect needs no login"));
    }
    if trust.any_login && trust.networks().is_empty() {
        warnings.push("--trust-any-login does nothing without --trust".to_owned());
    }
    warnings
}

fn config(
    args: Args,
    accounts: Accounts,
    descriptors: Descriptors,
    logs: LogWriters,
) -> io::Result<Config> {
    let mut settings = args.settings;
    if !args.max_connections_given {
        settings.max_connections = affordable(descriptors.usable());
    }
    let address_space = common::process::address_space();
    if let Some(bytes) = address_space {
        // Look-ups get half of it, connections and buffers an eighth each.
        if !args.max_connections_given {
            let fitting = (bytes / 8 / CONNECTION_BYTES).max(1);
            settings.max_connections = settings.max_connections.min(fitting);
        }
        if !args.buffer_memory_given {
            settings.buffer_memory = settings.buffer_memory.min(bytes / 8);
        }
    }
    Ok(Config {
        listen: args.listen,
        port: args.port,
        metp_listen: args.metp_listen,
        metp_port: args.metp_port,
        http: args.http,
        sockets: PerService::default(),
        users: accounts.users,
        files: accounts.files,
        configuration: accounts.configuration,
        figures: accounts.figures,
        store_errors: accounts.store_errors,
        users_fixed: accounts.fixed,
        rules: accounts.rules,
        rules_fixed: accounts.rules_fixed,
        settings,
        lookup: Box::new(SystemLookup),
        verifier: None,
        descriptors,
        address_space,
        access_log: logs.access_log,
        access_log_format: args.logs.access_log_format,
        diagnostics: Some(logs.diagnostics),
        // Before `signals`, which replaces the inherited disposition of SIGHUP.
        on_terminal: signal::starts_on_terminal(),
        signals: Some(signal::signals()?),
        notifier: None,
        takeover: None,
    })
}

/// The number of tunnels, of two descriptors each, besides a reserve for METP, look-ups and logs, so that an
/// administrator can always log in.
fn affordable(descriptors: usize) -> usize {
    let reserve = (descriptors / 4).min(128);
    (descriptors.saturating_sub(reserve) / 2).max(1)
}
