//! Waiting for one socket, where a thread has nothing else to do.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until the socket is ready for `what`.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] when it is not in time.
pub(crate) fn until_ready(socket: impl AsFd, what: PollFlags, patience: Duration) -> io::Result<()> {
    let began = Instant::now();
    loop {
        // A thread that is sampled is interrupted a thousand times a second.
        let left = patience.saturating_sub(began.elapsed());
        // Longer than anybody waits.
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i32::MAX.into(), tv_nsec: 0 });
        match poll(&mut [PollFd::new(&socket, what)], Some(&left)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use nix::sys::signal::Signal;
    use nix::unistd::{Pid, gettid};

    use super::*;
    use crate::ipc::thread_signal;
    use crate::process_setup::ignore;

    #[test]
    fn signals_make_a_wait_no_longer() {
        ignore(&[Signal::SIGUSR2]).unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let (sender, receiver) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            sender.send(gettid()).unwrap();
            let waited = until_ready(&socket, PollFlags::IN, Duration::from_millis(200));
            drop(sender);
            waited
        });
        let thread = receiver.recv().unwrap();
        let sent = (0..3_000).take_while(|_| {
            let _ = thread_signal::send(Pid::this(), thread, Signal::SIGUSR2 as i32, 0);
            matches!(receiver.recv_timeout(Duration::from_millis(10)), Err(mpsc::RecvTimeoutError::Timeout))
        });
        assert!(sent.count() < 3_000, "it waits on and on");
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
