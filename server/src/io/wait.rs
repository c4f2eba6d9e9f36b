//! Waiting for one socket, where a thread has nothing else to do.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until the socket is ready for `what`.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when it is not in time.
pub(crate) fn until_ready(socket: impl AsFd, what: PollFlags, patience: Duration) -> io::Result<()> {
    // Longer than anybody waits.
    let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: i32::MAX.into(), tv_nsec: 0 });
    loop {
        match poll(&mut [PollFd::new(&socket, what)], Some(&patience)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
