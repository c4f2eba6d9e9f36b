//! Descriptors that this process inherited, and that say something by becoming readable: `alarm-fd`, `reload-on-fd`.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{error, warn};

use super::events::{Event, Events};
use crate::descriptor::duplicate;

/// Sends an event each time that an inherited descriptor can be read, which is read then.
///
/// # Errors
/// When there is no such descriptor, or it cannot be waited for.
pub(super) fn watch_descriptor(
    option: &'static str,
    number: i32,
    bytes: usize,
    event: impl Fn() -> Event + 'static,
    events: &Events,
) -> anyhow::Result<()> {
    // A copy: nothing says that the number is not a descriptor of our own by now.
    let copy = duplicate(number).with_context(|| format!("{option}: descriptor {number} is not open"))?;
    // Its flags belong to whoever else has it open: it is read only after it was said to be ready.
    // SAFETY: an `OwnedFd` is what it says it is until it is dropped, which the `AsyncFd` does last.
    let watched = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) };
    let watched = watched.with_context(|| format!("{option}: descriptor {number} cannot be waited for"))?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; bytes];
        while let Ok(mut ready) = watched.readable().await {
            match nix::unistd::read(ready.get_inner(), &mut buffer) {
                Ok(0) => return warn!("{option}: descriptor {number} has come to its end: it is not watched any more"),
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {
                    ready.clear_ready();
                    continue;
                }
                Err(failure) => return error!("{option}: descriptor {number} cannot be read: {failure}"),
            }
            // What is left to read is the next event.
            if !is_readable(ready.get_inner()) {
                ready.clear_ready();
            }
            if events.send(event()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn is_readable(descriptor: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
