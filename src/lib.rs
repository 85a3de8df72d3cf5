//! # socks5d: a SOCKS5 proxy that is administered while it runs
//!
//! One thread runs one event loop with a small state machine for each connection. What may block, name look-ups and
//! writing logs, is done by other threads.
//!
//! # Layers
//!
//! A file imports from its own and lower layers only, and the three kinds of sessions never import each other;
//! `tests/project/layers.rs` fails otherwise.
//!
//! ```text
//! layer 5   main     start: logs, limits of the process, then the server
//!           args     the command line and PROXY_CTRL_SUPERUSER
//!           process  the limit of descriptors
//! layer 4   server/  the loop; admission, run queues, shutdown, control
//! layer 3   socks/   SOCKS sessions      metp/  METP sessions
//! layer 2   state/   what sessions share: accounts, settings, metrics, access log, events. Plain data
//! layer 1   reactor/ readiness, sockets, buffers, timers
//!           workers/ what may block, in threads: name look-ups and logs
//! layer 0   proto/   wire formats: bytes to meaning and back
//! ```
//!
//! Below them are two crates of the workspace, which the command line `client` uses as well: `metp_protocol`, the
//! contract of METP as a library, and `common` (usage errors, secrets, standard streams, threads). The reactor uses
//! neither `proto`, `workers` nor `metp_protocol`.
//!
//! # Threads
//!
//! ```text
//! thread             started by             blocks in            takes
//! main (the loop)    the system             epoll_wait(2)        pool.state  to submit, cancel, take answers
//!                                                                log.state   to put lines into the queue
//! dns (0 to many)    Workers, on demand     getaddrinfo(3),      pool.state  to take jobs and put answers
//!                                          getnameinfo(3)        log.state   to report a panic
//! log (2)            LogWriter::start       write(2)             log.state   to take lines from the queue
//!                                                                sink.open   while it writes
//!
//! pool.state         workers::worker_pool   queue, answers, counts of workers; one for each pool
//! log.state          workers::log_writer    one for each stream: access log, diagnostics
//! sink.open          workers::log_writer    one for each file: both streams may lead to the same one
//! ```
//!
//! Everything else belongs to the loop's thread and needs no lock. No lock is held during a job, and only
//! `sink.open` during a write; the loop never waits for that one, so a log reader that has stopped does not stop the
//! loop. The one lock that is taken while another is held is `log.state` under `pool.state`, to log that a worker
//! cannot be started. Answers of the workers reach the loop through a [`reactor::waker::Waker`], signals through a
//! pipe ([`reactor::signal`]).
//!
//! # Where to begin
//!
//! [`proto`], [`server`], [`socks`] and [`reactor::lane`], in this order, with `selector-notes.md` beside them.
//!
//! This library exists for the binary `socks5d` and for the tests.

pub mod args;
pub mod configuration;
pub mod hash_password;
pub mod http;
pub mod logs;
pub mod metp;
pub mod process;
pub mod proto;
pub mod reactor;
pub mod server;
pub mod socks;
pub mod state;
pub mod workers;
