//! SOCKS: what a client says and is answered, names, tunnels, and how connections end.

#![cfg(test)]

mod abortive_close;
mod associate;
mod authentication;
mod authentication_bypass;
mod bind;
mod connect;
mod dns;
mod dns_cache;
mod dns_families;
mod dns_shortage;
mod driven;
mod handshake;
#[path = "../inprocess/mod.rs"]
mod inprocess;
mod keepalive;
mod local_addresses;
mod race;
mod routes;
mod rules;
mod seccomp;
mod slow_logins;
mod splice;
mod timeouts;
mod tunnel;
mod vanishing_clients;
mod ways_in;
