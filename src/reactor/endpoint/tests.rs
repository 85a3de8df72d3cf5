//! Endpoints over a scripted stream: options that fail, EOF, interruptions.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::super::Flow;
use super::super::lingering_close::LingeringClose;
use super::super::liveness::Liveness;
use super::super::tcp_state::Acknowledgement;
use super::*;

/// A stream that takes all, and answers other calls as its script says: an errno, or success behind its end.
#[derive(Default)]
struct Script {
    reads: VecDeque<i32>,
    writes: VecDeque<i32>,
    options: VecDeque<i32>,
    finishes: VecDeque<i32>,
    /// How often an option was set.
    asked: usize,
    finished: bool,
}

fn answer(script: &mut VecDeque<i32>) -> io::Result<()> {
    script.pop_front().map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
}

/// EOF at the end of the script.
impl Read for Script {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        answer(&mut self.reads).map(|()| 0)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        answer(&mut self.writes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script {
    fn finish(&mut self) -> io::Result<()> {
        self.finished = true;
        answer(&mut self.finishes)
    }

    fn set_nodelay(&mut self) -> io::Result<()> {
        self.asked += 1;
        answer(&mut self.options)
    }

    fn set_liveness(&mut self, _: Liveness) -> io::Result<()> {
        self.set_nodelay()
    }

    fn reset_on_close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn unacknowledged(&self) -> io::Result<usize> {
        Ok(0)
    }

    fn acknowledgement(&self) -> io::Result<Acknowledgement> {
        Ok(Acknowledgement::Complete)
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }

    fn peer_address(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::Unsupported.into())
    }

    fn set_oob_inline(&mut self) -> io::Result<()> {
        self.set_nodelay()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn failure(&self) -> Option<io::Error> {
        None
    }
}

fn endpoint(script: Script) -> Endpoint<Script> {
    let mut endpoint = Endpoint::with_lazy_nodelay(script);
    endpoint.raise(true, true);
    endpoint
}

#[test]
fn an_option_is_tried_again_where_that_may_help() {
    for (errno, tries) in
        [(libc::ENOMEM, 2), (libc::ENOBUFS, 2), (libc::EPERM, 1), (libc::EINVAL, 1)]
    {
        let mut endpoint = endpoint(Script { options: [errno].into(), ..Script::default() });
        for _ in 0..5 {
            assert!(matches!(endpoint.write(b"x"), Transfer::Moved(1)), "{errno}");
        }
        assert_eq!(
            endpoint.stream().asked,
            tries,
            "{errno}: before the second write, and the third"
        );

        endpoint.stream_mut().options = [errno].into();
        for _ in 0..5 {
            endpoint.set_oob_inline();
        }
        assert_eq!(endpoint.stream().asked, 2 * tries, "{errno}");
    }
}

#[test]
fn interruptions_without_end_are_an_error() {
    let mut few = endpoint(Script { writes: [libc::EINTR; 3].into(), ..Script::default() });
    assert!(matches!(few.write(b"x"), Transfer::Moved(1)));
    let mut many = endpoint(Script { writes: vec![libc::EINTR; 5000].into(), ..Script::default() });
    assert!(matches!(many.write(b"x"), Transfer::Failed(_)));
}

#[test]
fn a_lingering_close_that_cannot_send_eof_closes_and_one_that_can_waits() {
    let eagain = libc::EAGAIN;
    for (finishes, flow) in [
        (vec![], Flow::Wait),
        (vec![libc::ENOMEM], Flow::Wait),
        (vec![libc::ENOTCONN], Flow::Wait),
        (vec![libc::ENOMEM; 9], Flow::Close),
        (vec![libc::ENOSYS; 9], Flow::Close),
    ] {
        let script = Script {
            finishes: finishes.clone().into(),
            reads: [eagain].into(),
            ..Script::default()
        };
        let mut peer = endpoint(script);
        let mut pool = Pool::new(64, usize::MAX);
        let mut words = Buffer::default();
        words.append(b"words");
        let turn = LingeringClose::new(Instant::now()).turn(&mut peer, &mut words, &mut pool);
        assert_eq!(turn, flow, "{finishes:?}");
        assert!(peer.stream().finished && words.is_empty());
    }
}
