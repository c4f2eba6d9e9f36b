//! Reading what a socket has.

use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// What one read got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing more for now.
    Nothing,
    /// The other end sends no more; or the connection is broken.
    End,
}

/// Reads once into `buffer`, which is not empty. Never waits: an application that has a connection for WebSocket may have
/// made it blocking.
#[inline]
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Received {
    debug_assert!(!buffer.is_empty(), "an empty buffer looks like the end");
    loop {
        if let Some(received) = outcome(recv(&socket, &mut *buffer, RecvFlags::DONTWAIT).map(|(_, count)| count)) {
            return received;
        }
    }
}

/// Reads once to behind what `bytes` holds, as much as it has space for: no copy between, no zeros that are
/// overwritten.
pub(crate) fn append(socket: impl AsFd, bytes: &mut Vec<u8>) -> Received {
    debug_assert!(bytes.capacity() > bytes.len(), "an empty buffer looks like the end");
    loop {
        if let Some(received) =
            outcome(recv(&socket, spare_capacity(bytes), RecvFlags::empty()).map(|(_, count)| count))
        {
            return received;
        }
    }
}

/// Whether bytes have come that nobody has read.
pub(crate) fn has_unread(socket: impl AsFd) -> bool {
    matches!(recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 1..)))
}

/// `None` when it is to be tried again.
#[inline]
fn outcome(received: Result<usize, Errno>) -> Option<Received> {
    match received {
        Ok(0) => Some(Received::End),
        Ok(count) => Some(Received::Bytes(count)),
        Err(Errno::AGAIN) => Some(Received::Nothing),
        Err(Errno::INTR) => None,
        Err(_) => Some(Received::End),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_are_appended_as_long_as_there_is_space() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(b"0123456789").unwrap();
        assert!(has_unread(&ours));
        let mut bytes = Vec::with_capacity(4);
        bytes.push(b'x');
        let buffer = bytes.capacity() - 1;
        assert_eq!(append(&ours, &mut bytes), Received::Bytes(buffer.min(10)));
        bytes.reserve(100);
        while let Received::Bytes(_) = append(&ours, &mut bytes) {}
        assert_eq!(bytes, b"x0123456789");
        assert!(!has_unread(&ours));
        assert_eq!(receive(&ours, &mut [0]), Received::Nothing);
        drop(theirs);
        assert_eq!(append(&ours, &mut bytes), Received::End);
        assert_eq!(receive(&ours, &mut [0]), Received::End);
    }

    #[test]
    fn a_socket_that_the_application_made_blocking_is_not_waited_for() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(receive(&ours, &mut [0])));
        assert_eq!(told.recv_timeout(std::time::Duration::from_secs(10)), Ok(Received::Nothing));
    }
}
