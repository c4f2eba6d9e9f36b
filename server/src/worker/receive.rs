//! Receiving right to the end of a vector, without a copy between and without zeros that are overwritten at once.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Appends what is there, at most `most` bytes and never more than the vector has room for: `None` when nothing is there,
/// 0 at the end.
pub(super) fn receive_onto(socket: BorrowedFd<'_>, bytes: &mut Vec<u8>, most: usize) -> io::Result<Option<usize>> {
    let room = bytes.spare_capacity_mut();
    let len = room.len().min(most);
    debug_assert!(len > 0, "an empty room looks like the end");
    loop {
        // SAFETY: `room` is `len` bytes at least, writable, and this vector's alone; the kernel only writes to it.
        let received = unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), len, 0) };
        match usize::try_from(received) {
            Ok(count) => {
                // SAFETY: the kernel has initialized the first `count` of the `len` bytes that follow the vector's own.
                unsafe { bytes.set_len(bytes.len() + count) };
                return Ok(Some(count));
            }
            Err(_) => match Errno::last() {
                Errno::EINTR => {}
                Errno::EAGAIN => return Ok(None),
                error => return Err(error.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_are_appended_up_to_the_room_and_the_limit() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(b"0123456789").unwrap();
        let mut bytes = Vec::with_capacity(8);
        bytes.push(b'x');
        assert_eq!(receive_onto(ours.as_fd(), &mut bytes, 3).unwrap(), Some(3));
        assert_eq!(bytes, b"x012");
        let room = bytes.capacity() - bytes.len();
        assert_eq!(receive_onto(ours.as_fd(), &mut bytes, 100).unwrap(), Some(room.min(7)));
        bytes.reserve(100);
        while let Some(1..) = receive_onto(ours.as_fd(), &mut bytes, 100).unwrap() {}
        assert_eq!(bytes, b"x0123456789");
        drop(theirs);
        assert_eq!(receive_onto(ours.as_fd(), &mut bytes, 100).unwrap(), Some(0));
    }
}
