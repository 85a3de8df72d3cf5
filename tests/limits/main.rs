//! Limits: connections, descriptors and memory; who is let in, who waits, and who has to go.

mod admission;
mod capacity;
mod descriptors;
mod eviction;
mod memory;
mod scarcity;
