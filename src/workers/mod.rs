//! Layer 1: what may block, off the loop: jobs such as name look-ups, and writing logs, in threads behind bounded
//! queues. The reactor does not import it; it imports the reactor's waker, keys and classes of errors.

pub mod dns_cache;
pub mod durable;
pub mod families;
#[cfg(test)]
mod fixture;
pub mod getaddrinfo;
pub mod getnameinfo;
pub mod log_writer;
pub mod passwords;
pub mod resolver;
pub mod rules_file;
pub mod state_directory;
pub mod store;
pub mod users_file;
pub mod worker_pool;
