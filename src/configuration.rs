//! Layer 5: the options as the server keeps them, so that it can read them again.

use crate::args::{Args, read_again};
use crate::state::configuration::Reading;
use crate::state::knobs::{KNOBS, Source};
use crate::state::settings::Settings;
use crate::workers::store::ReadConfiguration;

/// What the command line and the configuration file say of settings.
pub fn reading(args: &Args) -> Reading {
    let sources = KNOBS.iter().map(|knob| (knob.key, args.sources.of_key(knob.key)));
    let given = sources.filter(|(_, source)| *source != Source::Default);
    Reading { settings: args.settings.clone(), sources: given.collect(), restart: Vec::new() }
}

/// What reads both again, if there is a file. It holds no password.
pub fn reader(args: &Args) -> Option<Box<ReadConfiguration<Reading>>> {
    let command_line = args.command_line.clone()?;
    let start = fixed(args);
    Some(Box::new(move || {
        let args = read_again(&command_line).map_err(|error| error.lines().to_vec())?;
        let pairs = start.iter().zip(fixed(&args));
        let restart = pairs.filter(|((_, before), (_, now))| before != now);
        let restart = restart.map(|((key, _), _)| (*key).to_owned()).collect();
        Ok(Reading { restart, ..reading(&args) })
    }))
}

/// Options that are used at the start alone, with what they are.
fn fixed(args: &Args) -> [(&'static str, String); 22] {
    let Settings { bind_out, bind, udp, .. } = &args.settings;
    [
        ("listen", format!("{:?}", args.listen)),
        ("port", args.port.to_string()),
        ("metp-listen", args.metp_listen.to_string()),
        ("metp-port", args.metp_port.to_string()),
        ("http", format!("{:?}", args.http)),
        ("http-host", format!("{:?}", args.settings.http.host)),
        ("http-pac", format!("{:?}", args.settings.http.pac)),
        ("users", format!("{:?}", args.users_file)),
        ("users-fixed", args.users_fixed.to_string()),
        ("rules", format!("{:?}", args.rules_file)),
        ("state", format!("{:?}", args.state)),
        ("run-as", format!("{:?}", args.run_as)),
        ("pid-file", format!("{:?}", args.pid_file)),
        ("takeover", format!("{:?}", args.takeover)),
        ("access-log", format!("{:?}", args.logs.access_log)),
        ("access-log-format", format!("{:?}", args.logs.access_log_format)),
        ("log-format", format!("{:?}", args.logs.format)),
        ("bind-out", format!("{bind_out:?}")),
        ("bind-ports", format!("{:?}", bind.ports)),
        ("bind-advertise", format!("{:?}", bind.advertise)),
        ("udp-ports", format!("{:?}", udp.ports)),
        ("udp-advertise", format!("{:?}", udp.advertise)),
    ]
}
