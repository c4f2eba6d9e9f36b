//! Ctrl-C and SIGTERM, taken when there is time for them: what was begun is undone before the program ends.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// From when there is one, neither signal ends the program.
pub(super) struct Interrupt(SignalFd);

impl Interrupt {
    /// Takes over the signals.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn catch() -> nix::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        // The only thread.
        signals.thread_block()?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// Waits so long, or until a signal has come. Whether one has, now or before.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // It is not read, so that it stays told.
        poll(&mut polled, time).is_ok_and(|ready| ready > 0)
    }
}
