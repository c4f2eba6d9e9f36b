//! Connections on their way from a worker whose threads are all busy to a free thread of another: one queue of the whole
//! server, which every worker sends to and takes from. What is in it outlives the worker that has sent it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::io::pass_fd::{receive_fd_and, send_fd_and};
use crate::ipc::inherit::InheritedFd;

/// See the module.
#[derive(Debug)]
pub(crate) struct PeerQueue {
    /// Where they go in.
    entry: OwnedFd,
    /// Where they come out.
    exit: OwnedFd,
}

impl PeerQueue {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub(super) fn create() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (entry, exit) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok(Self { entry, exit })
    }

    pub(super) fn descriptors(
        &self,
        inherit: impl Fn(BorrowedFd<'_>) -> nix::Result<InheritedFd>,
    ) -> nix::Result<(InheritedFd, InheritedFd)> {
        Ok((inherit(self.entry.as_fd())?, inherit(self.exit.as_fd())?))
    }

    pub(super) fn inherited((entry, exit): &mut (InheritedFd, InheritedFd)) -> io::Result<Self> {
        Ok(Self { entry: entry.take()?, exit: exit.take()? })
    }

    /// Puts a copy of a connection's descriptor into the queue, with what is to be known of it.
    ///
    /// # Errors
    /// When the queue is full, or the system lets no more descriptors be on their way.
    pub(crate) fn send(&self, connection: impl AsFd, about: &[u8]) -> io::Result<()> {
        send_fd_and(&self.entry, connection, about)
    }

    /// Takes the first one, and writes what is known of it to `about`. `None` when there is none.
    ///
    /// # Errors
    /// When the system has no descriptor left for it: it is closed.
    pub(crate) fn take<'a>(&self, about: &'a mut [u8]) -> io::Result<Option<(OwnedFd, &'a [u8])>> {
        match receive_fd_and(&self.exit, about) {
            Ok((Some(connection), len)) => Ok(Some((connection, &about[..len]))),
            Ok((None, _)) => Err(io::Error::other("there is no descriptor left for it")),
            Err(failure) if failure.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What is ready when there is a connection.
    pub(crate) fn exit(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// Its descriptors.
    pub(crate) fn numbers(&self) -> [RawFd; 2] {
        [self.entry.as_raw_fd(), self.exit.as_raw_fd()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn connections_come_out_in_order_whatever_becomes_of_the_senders_copy() {
        let queue = PeerQueue::create().unwrap();
        let mut about = [0; 16];
        assert!(queue.take(&mut about).unwrap().is_none());
        let (mut first, ours) = UnixStream::pair().unwrap();
        queue.send(&ours, b"first").unwrap();
        let (_second, other) = UnixStream::pair().unwrap();
        queue.send(&other, b"second").unwrap();
        drop((ours, other));
        let (taken, text) = queue.take(&mut about).unwrap().unwrap();
        assert_eq!(text, b"first");
        first.write_all(b"x").unwrap();
        assert!(crate::io::receive::has_unread(&taken));
        assert_eq!(queue.take(&mut about).unwrap().unwrap().1, b"second");
    }

    #[test]
    fn a_full_queue_refuses() {
        let queue = PeerQueue::create().unwrap();
        let (_client, ours) = UnixStream::pair().unwrap();
        let sent = (0..100_000).take_while(|_| queue.send(&ours, &[0; 64]).is_ok()).count();
        assert!((1..100_000).contains(&sent), "{sent}");
        queue.take(&mut [0; 64]).unwrap().unwrap();
    }
}
