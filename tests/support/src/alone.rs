//! Tests that change what belongs to their whole process - limits, the logger, the hook for panics - have a process
//! of their own: the test program starts itself again for one test alone.

use std::env;
use std::process::Command;

/// Set in the process that runs one test alone.
const ALONE: &str = "SOCKS5D_TEST_ALONE";
/// The exit code of a command that cannot run the test.
const SKIPPED: i32 = 77;

/// Runs the body of a test in a process of its own. `test` is its whole name ([`test_name!`](crate::test_name)).
pub fn alone(test: &str, body: impl FnOnce()) {
    assert!(alone_in(test, &[], body));
}

/// As [`alone`], in a process that the command `start` starts; the program and its arguments follow. `false`: the
/// test was not run, because the command could not do what it has to, which it says with exit code 77.
pub fn alone_in(test: &str, start: &[&str], body: impl FnOnce()) -> bool {
    if is_alone(test) {
        body();
        return true;
    }
    let program = env::current_exe().expect("a test knows where it is");
    let mut words = start.iter().map(Into::into).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().expect("at least the program"));
    command.args(words).args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let output = command.env(ALONE, test).output().expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.code() == Some(SKIPPED) {
        return false;
    }
    // A name that is misspelt would run no test, which succeeds.
    assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
    true
}

/// Whether this is the process that runs this test alone.
pub fn is_alone(test: &str) -> bool {
    env::var_os(ALONE).is_some_and(|name| name == test)
}
