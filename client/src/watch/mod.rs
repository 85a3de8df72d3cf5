//! Everything live.

use std::time::Duration;

use crate::conversation::{Failure, Server};

pub fn watch(_: &Server, _: Duration, _: bool) -> Result<(), Failure> {
    Err(Failure::Lacking("--watch".to_owned()))
}
