//! The programs from outside: start, signals, logs, secrets, and a system that fails.

#![cfg(test)]

mod activation;
mod configuration;
mod end_to_end;
mod fail2ban;
mod failing_calls;
mod identity;
#[path = "../inprocess/mod.rs"]
mod inprocess;
mod log_descriptors;
mod log_files;
mod log_injection;
mod log_losses;
mod logs;
mod notify;
mod one_log_file;
mod panic;
mod refused_clients;
mod secrets;
mod shortages;
mod shutdown;
mod signals;
mod start;
mod suspended;
mod takeover;
