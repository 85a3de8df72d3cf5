//! What both programs need of the command line and of the operating system, whatever they do besides.

pub mod directory;
pub mod episode;
pub mod process;
pub mod random;
pub mod secrets;
pub mod stdio;
pub mod terminal;
pub mod thread;
pub mod usage;
