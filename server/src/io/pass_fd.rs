//! Sending a descriptor to another process over a unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Sends `fd`, with the one byte that such a message must have.
///
/// # Errors
/// When the other end is gone or takes nothing.
pub(crate) fn send_fd(socket: impl AsFd, fd: impl AsFd) -> io::Result<()> {
    send_fd_and(socket, fd, &[0])
}

/// Sends `fd` with a few bytes, at least one: all of them or none.
///
/// # Errors
/// When the other end is gone or takes nothing.
pub(crate) fn send_fd_and(socket: impl AsFd, fd: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Receives a descriptor; `None` when the other end closed without sending one.
///
/// # Errors
/// When the socket fails, or nothing is there on a non-blocking one.
pub(crate) fn receive_fd(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    receive_fd_and(socket, &mut [0]).map(|(fd, _)| fd)
}

/// Receives a descriptor and bytes, and how many those are.
///
/// # Errors
/// As [`receive_fd`].
pub(crate) fn receive_fd_and(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(Option<OwnedFd>, usize)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // A read with a time limit is not begun again by itself after a signal.
    let received =
        retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((fd, received.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_and_the_end_is_seen() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut client, socket) = UnixStream::pair().unwrap();
        send_fd(&here, &socket).unwrap();
        drop(socket);
        let mut received = UnixStream::from(receive_fd(&there).unwrap().unwrap());
        received.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        send_fd_and(&here, &received, b"with a word").unwrap();
        let mut word = [0; 11];
        assert!(receive_fd_and(&there, &mut word).unwrap().0.is_some());
        assert_eq!(&word, b"with a word");
        drop(here);
        assert!(receive_fd(&there).unwrap().is_none());
    }
}
