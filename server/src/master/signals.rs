//! The small tasks that wait for signals and for workers that say they are ready, and tell the loop.

use std::os::fd::OwnedFd;

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::Event;

/// Watches the signals that the master acts on.
///
/// # Errors
/// When a handler cannot be installed.
pub(super) fn watch(events: &UnboundedSender<Event>) -> anyhow::Result<()> {
    let actions: [(SignalKind, fn() -> Event); 5] = [
        (SignalKind::child(), || Event::Child),
        (SignalKind::interrupt(), || Event::Stop(Signal::SIGINT)),
        (SignalKind::terminate(), || Event::Stop(Signal::SIGTERM)),
        (SignalKind::quit(), || Event::Stop(Signal::SIGQUIT)),
        (SignalKind::hangup(), || Event::Reload),
    ];
    for (kind, event) in actions {
        let mut stream = signal(kind).with_context(|| format!("cannot watch signal {}", kind.as_raw_value()))?;
        let events = events.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() {
                if events.send(event()).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Watches a pipe whose writing end, which is returned, the workers inherit: each writes the number of its slot, four
/// bytes at once, when it serves.
///
/// # Errors
/// When the pipe cannot be made.
pub(super) fn watch_ready(events: &UnboundedSender<Event>) -> anyhow::Result<OwnedFd> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let mut reader = Receiver::from_owned_fd(reader)?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        while let Ok(slot) = reader.read_u32_le().await {
            if events.send(Event::Ready(slot)).is_err() {
                return;
            }
        }
    });
    Ok(writer)
}
