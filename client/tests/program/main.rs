//! The client called with arguments: answers, exit codes, servers that fail, secrets, terminals.

#![cfg(test)]

mod commands;
mod descriptors;
mod faulty_servers;
mod live;
mod restart;
mod secrets;
mod servers;
mod terminal;
mod users_file;
