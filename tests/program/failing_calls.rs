//! Calls that fail again and again, whatever the error says: the loop goes on, or ends, but never stays with them.

use support::proxy::{connect, wait_for_exit};
use support::socks::{Client, HELLO};
use support::strace::Injected;
use support::{PATIENCE, read_the_end};

/// signal(7): a call on a socket that does not block is never interrupted, so one that always is has failed.
#[test]
fn calls_that_are_always_interrupted_end_the_session() {
    for call in ["recvfrom", "sendto"] {
        let Some(server) = Injected::start(&format!("{call}:error=EINTR")) else { return };
        let mut client = Client::new(connect(server.socks));
        client.say(HELLO);
        read_the_end(&mut client.stream);
        server.ends_by_sigterm();
    }
}

#[test]
fn a_wait_that_is_always_interrupted_ends_the_process() {
    let inject = "?epoll_wait,?epoll_pwait:error=EINTR";
    let Some(mut server) = Injected::start(inject) else { return };
    server.wait_for("the event loop failed");
    assert_eq!(wait_for_exit(&mut server.child, PATIENCE).code(), Some(1));
}
