//! Access log and diagnostics in one file, to which the streams were redirected without `>>`: neither overwrites the
//! other, at the start and after the file was opened again.

use std::fs::{self, File};
use std::path::Path;

use support::eventually;
use support::origin::closed_port;
use support::proxy::send_signal;
use tempfile::TempDir;

use super::log_descriptors::{Program, appended, command, is_diagnostic, is_request, text};

const REQUESTS: usize = 40;
const FAILURES: usize = 10;

/// Requests and failed logins by turns, each with a line: the logins are those of a source each.
fn use_it(program: &Program) {
    let (_held, closed) = closed_port();
    program.is_asked(REQUESTS / 2, closed);
    program.is_tried(FAILURES, b"nobody");
    program.is_asked(REQUESTS / 2, closed);
}

/// Lines of requests, and of failed logins. All others are whole, too.
fn lines(text: &str) -> (usize, usize) {
    let torn: Vec<&str> =
        text.lines().filter(|line| !is_request(line) && !is_diagnostic(line)).collect();
    assert_eq!(torn, [""; 0], "{text}");
    let requests = text.lines().filter(|line| is_request(line)).count();
    (requests, text.matches(" auth failed: ").count())
}

fn wait_for_lines(path: &Path, wanted: (usize, usize)) {
    eventually("all lines are there", || {
        let text = text(path);
        let requests = text.lines().filter(|line| is_request(line)).count();
        (requests, text.matches(" auth failed: ").count()) == wanted
    });
}

/// `--access-log FILE 2>FILE`, rotated as logrotate does it.
#[test]
fn an_access_log_in_the_file_of_stderr_is_shared() {
    let folder = TempDir::new().expect("a folder");
    let (log, before) = (folder.path().join("log"), folder.path().join("log.1"));
    let mut command = command();
    command.arg("--access-log").arg(&log).stderr(File::create(&log).expect("made"));
    let mut program = Program::start(command, || text(&log));
    use_it(&program);
    wait_for_lines(&log, (REQUESTS, FAILURES));
    fs::rename(&log, &before).expect("renamed");
    send_signal(&program.child, libc::SIGUSR1);
    eventually("a new file", || log.exists());
    use_it(&program);
    wait_for_lines(&log, (REQUESTS, FAILURES));
    program.stop();
    assert_eq!(lines(&text(&before)), (REQUESTS, FAILURES));
    assert_eq!(lines(&text(&log)), (REQUESTS, FAILURES));
    assert!(text(&before).contains("service=metp address="), "the first lines are there");
    assert!(text(&log).contains(" served: "), "the diagnostics have come along");
}

/// `>FILE 2>FILE`.
#[test]
fn streams_that_were_opened_apart_are_one_log() {
    let folder = TempDir::new().expect("a folder");
    let log = folder.path().join("log");
    let mut command = command();
    let open = || File::create(&log).expect("made");
    command.stdout(open()).stderr(open());
    let mut program = Program::start(command, || text(&log));
    use_it(&program);
    program.stop();
    assert_eq!(lines(&text(&log)), (REQUESTS, FAILURES));
}

/// The file of the access log is that of stderr from the time on when it is opened again.
#[test]
fn a_file_that_turns_out_to_be_that_of_stderr_is_appended_to() {
    let folder = TempDir::new().expect("a folder");
    let (log, told) = (folder.path().join("log"), folder.path().join("told"));
    let mut command = command();
    command.arg("--access-log").arg(&log).stderr(File::create(&told).expect("made"));
    let mut program = Program::start(command, || text(&told));
    fs::remove_file(&log).expect("removed");
    fs::hard_link(&told, &log).expect("linked");
    send_signal(&program.child, libc::SIGUSR1);
    use_it(&program);
    program.stop();
    assert_eq!(lines(&text(&told)), (REQUESTS, FAILURES));
}

/// What goes to another file is left alone: `2>FILE` writes where it stands.
#[test]
fn a_file_of_its_own_is_not_touched() {
    let folder = TempDir::new().expect("a folder");
    let (log, told) = (folder.path().join("log"), folder.path().join("told"));
    let mut command = command();
    let theirs = File::create(&told).expect("made");
    let ours = theirs.try_clone().expect("a descriptor");
    command.arg("--access-log").arg(&log).stderr(theirs);
    let mut program = Program::start(command, || text(&told));
    assert!(!support::system::is_appending(&ours), "the flag is the parent's");
    program.stop();
    appended(&log);
}
