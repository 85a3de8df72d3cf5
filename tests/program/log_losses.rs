//! Lines of the access log that are lost: the diagnostics name cause and place once, and the number at the end.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use support::origin::closed_port;
use tempfile::TempDir;

use super::log_descriptors::{Program, appended, command, text};

const REQUESTS: usize = 50;

/// What the program says of its access log while it is asked again and again.
fn told(arrange: impl FnOnce(&mut Command)) -> Vec<String> {
    let (folder, (_held, closed)) = (TempDir::new().expect("a folder"), closed_port());
    let told = folder.path().join("told");
    let mut command = command();
    command.stderr(appended(&told));
    arrange(&mut command);
    let mut program = Program::start(command, || text(&told));
    program.is_asked(REQUESTS, closed);
    program.stop();
    let lines = text(&told);
    let about = lines.lines().filter(|line| line.contains("access log"));
    about.filter_map(|line| line.split_once("WARN  ")).map(|(_, told)| told.to_owned()).collect()
}

/// A disk that is full, by way of `--access-log` and of a redirection.
#[test]
fn a_full_disk_is_named_with_its_file_and_the_lines_that_it_cost() {
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let by_option = told(|command| {
        command.args(["--access-log", "/dev/full"]).stdout(Stdio::null());
    });
    let by_shell = told(|command| {
        command.stdout(full());
    });
    for (told, object) in [(by_option, "/dev/full"), (by_shell, "stdout")] {
        let cause = format!("No space left on device (os error 28): {object}");
        assert_eq!(
            told,
            [
                format!("the access log cannot be written: {cause}"),
                format!("{REQUESTS} lines of the access log were dropped: {cause}"),
            ]
        );
    }
}

/// A pipe whose reader has ended is no slow one.
#[test]
fn a_reader_that_is_gone_is_called_so() {
    let told = told(|command| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.stdout(OwnedFd::from(writer));
    });
    let cause = "its reader is gone: Broken pipe (os error 32): stdout";
    assert_eq!(
        told,
        [
            format!("the access log cannot be written: {cause}"),
            format!("{REQUESTS} lines of the access log were dropped: {cause}"),
        ]
    );
}

/// Where nothing is lost there is nothing to say.
#[test]
fn a_log_that_takes_all_lines_is_not_mentioned() {
    let null = File::create("/dev/null").expect("Linux");
    let told = told(|command| {
        command.stdout(null);
    });
    assert_eq!(told, [""; 0]);
}
