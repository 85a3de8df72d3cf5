//! The configuration file: any bytes have an answer, and no password is in one that is an error.

use socks5d::args::config_text;

/// Reads a file. What it is made of is never shown in full: a line may hold a password.
pub fn config_file(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    match config_text(data) {
        Ok(arguments) => {
            assert!(arguments.len() <= lines);
            assert!(arguments.iter().all(|argument| argument.starts_with("--")));
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            for (number, fault) in faults {
                assert!((1..=lines).contains(&number), "no such line");
                assert!(!fault.contains('\n'), "{fault:?}");
            }
        }
    }
}
