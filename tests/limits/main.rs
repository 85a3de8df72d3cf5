//! Limits: connections, descriptors and memory; who is let in, who waits, and who has to go.

#![cfg(test)]

mod accept_queue;
mod capacity;
mod clients;
mod connection_limits;
mod descriptors;
mod eviction;
mod memory;
