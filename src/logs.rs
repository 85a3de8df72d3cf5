//! Layer 5: where the logs go, and in which form.

use std::io::{self, Write};
use std::time::SystemTime;

use common::stdio::{self, Inherited};
use log::Level;
use metp_protocol::text::{Ascii, Escaped};
use metp_protocol::timestamp::Timestamp;

use crate::args::{AccessLogTo, LogFormat, LogOptions};
use crate::state::json;
use crate::workers::log_writer::{DIAGNOSTICS, LogWriter, Sink};

/// The writers of both logs, each with its thread.
pub struct LogWriters {
    /// The access log. `None`: there is none.
    pub access_log: Option<LogWriter>,
    /// The diagnostics.
    pub diagnostics: LogWriter,
}

impl LogWriters {
    /// Opens the logs. If both lead to one file, they share its sink, and so its descriptor: neither writes over the other,
    /// and both go on into another file when that of the access log is opened again.
    ///
    /// # Errors
    /// If a thread cannot be started, or the file of the access log cannot be opened.
    pub fn open(options: &LogOptions) -> io::Result<Self> {
        let (stdout, stderr) = (stdio::stdout(), stdio::stderr());
        let (out, is_shared) = match &options.access_log {
            AccessLogTo::Off => (None, false),
            AccessLogTo::Stdout => (Some(inherited(stdout, "stdout")), stdout.is_same_as(stderr)),
            AccessLogTo::File(path) => {
                let opened = Sink::file(path.clone()).and_then(|sink| {
                    let found = std::fs::metadata(path)?;
                    Ok((Some(sink), stderr.leads_to(&found)))
                });
                opened.map_err(|error| {
                    let shown = Escaped(path.as_os_str().as_encoded_bytes());
                    io::Error::new(error.kind(), format!("--access-log {shown}: {error}"))
                })?
            }
        };
        if is_shared && stderr.is_file() {
            // What does not come through the sink, such as the message of an abort, writes over nothing either.
            stderr.append()?;
        }
        let err = out.clone().filter(|_| is_shared);
        let err = err.unwrap_or_else(|| inherited(stderr, "stderr"));
        let start = |sink| LogWriter::start("access log", sink);
        Ok(LogWriters {
            access_log: out.map(start).transpose()?,
            diagnostics: LogWriter::start(DIAGNOSTICS, err)?,
        })
    }
}

fn inherited(stream: Inherited, name: &str) -> Sink {
    let sink = match stream.ends_in_mid_line() {
        true => Sink::behind_torn_line(stream),
        false => Sink::new(stream),
    };
    sink.named(name, stream.is_file())
}

/// The parts of a filter that env_logger understands, and whether these are all. It would report the others on
/// stderr itself, and panic if stderr is closed.
pub fn known_filters(text: &str) -> (String, bool) {
    let is_known = |part: &&str| match part.split_once('=').map(|(_, level)| level.trim()) {
        Some(level) => level.is_empty() || level.parse::<log::LevelFilter>().is_ok(),
        None => true,
    };
    let (parts, pattern) = match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => return (String::new(), false),
        Some((parts, pattern)) => (parts, Some(pattern)),
        None => (text, None),
    };
    let known: Vec<&str> = parts.split(',').filter(is_known).collect();
    let all = known.len() == parts.split(',').count();
    let pattern = pattern.map(|pattern| format!("/{pattern}")).unwrap_or_default();
    (known.join(",") + &pattern, all)
}

/// Sends everything that is logged, panics too, to the log writer, as lines of printable ASCII.
pub fn logger(diagnostics: LogWriter, filters: &str, format: LogFormat) -> env_logger::Logger {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Trace)
        .parse_filters(filters)
        .target(env_logger::Target::Pipe(Box::new(diagnostics)))
        .format(move |line, record| {
            let message = Ascii(record.args());
            write_line(line, format, record.level(), SystemTime::now().into(), &message)
        })
        .build()
}

fn write_line(
    line: &mut impl Write,
    format: LogFormat,
    level: Level,
    time: Timestamp,
    message: &dyn std::fmt::Display,
) -> io::Result<()> {
    match format {
        LogFormat::Text => writeln!(line, "{time} {level:<5} {message}"),
        LogFormat::Json => {
            let mut shown = String::new();
            json::string(&message.to_string(), &mut shown);
            let level = level.as_str().to_ascii_lowercase();
            writeln!(line, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{shown}}}")
        }
        LogFormat::Journal => writeln!(line, "<{}>{message}", priority(level)),
    }
}

/// As syslog(3) has it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_lines() {
        let time = Timestamp::from(SystemTime::UNIX_EPOCH);
        let line = |format| {
            let mut line = Vec::new();
            let message: &dyn std::fmt::Display = &"a \"b\" c";
            write_line(&mut line, format, Level::Warn, time, message).expect("memory");
            String::from_utf8(line).expect("text")
        };
        assert_eq!(line(LogFormat::Text), "1970-01-01T00:00:00Z WARN  a \"b\" c\n");
        assert_eq!(
            line(LogFormat::Json),
            "{\"time\":\"1970-01-01T00:00:00Z\",\"level\":\"warn\",\"message\":\"a \\\"b\\\" c\"}\n"
        );
        assert_eq!(line(LogFormat::Journal), "<4>a \"b\" c\n");
    }
}
