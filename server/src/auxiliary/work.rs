//! What an auxiliary process works with, and how it learns that it is to leave.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use crate::ipc::Auxiliary;
use crate::stats::scoreboard::Scoreboard;
use rwsgi_config::Config;

/// What an auxiliary process works with.
pub(super) struct Work {
    /// Which one it is.
    pub(super) who: Auxiliary,
    /// The configuration in force.
    pub(super) config: Config,
    /// The scoreboard.
    pub(super) scoreboard: Scoreboard,
    /// Whether the fork server has loaded the application.
    pub(super) is_loaded: bool,
    /// Says when to leave.
    pub(super) end: StopSignal,
}

/// The order to leave, and the master's end, which means the same.
pub(super) struct StopSignal {
    /// Readable when SIGTERM has come.
    pub(super) stop: EventFd,
    /// At its end when the master is gone.
    pub(super) liveness: OwnedFd,
}

impl StopSignal {
    /// The descriptors to wait for: when one has something to say, ask [`Self::has_come`].
    pub(super) fn poll_fds(&self) -> [PollFd<'_>; 2] {
        [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN), PollFd::new(self.liveness.as_fd(), PollFlags::empty())]
    }

    /// Whether it is time to leave.
    pub(super) fn has_come(&self) -> bool {
        let mut fds = self.poll_fds();
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                // Nothing that a wait for descriptors of ours could fail with will pass by waiting longer.
                outcome => return outcome.map_or(true, |ready| ready > 0),
            }
        }
    }

    /// Whether it is time to leave, and whether there is something to read from `news`: as [`Self::has_come`], by the
    /// same system call.
    pub(super) fn has_come_or(&self, news: BorrowedFd<'_>) -> (bool, bool) {
        let [stop, liveness] = self.poll_fds();
        let mut fds = [stop, liveness, PollFd::new(news, PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                Err(_) => return (true, false),
                Ok(_) => {
                    let [stop, liveness, news] = fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
                    return (stop || liveness, news);
                }
            }
        }
    }
}
