//! The small tasks that wait for signals and for the workers' notices, and send the loop events.

use std::os::fd::OwnedFd;

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::events::{Event, Events, Reload};
use crate::ipc::Notice;

/// Watches the signals that the master acts on. `reload_on_term` gives SIGTERM the meaning that it has in uWSGI.
///
/// # Errors
/// When a handler cannot be installed.
pub(super) fn watch(events: &Events, reload_on_term: bool) -> anyhow::Result<()> {
    let brutal: fn() -> Event = || Event::Reload(Reload::Brutal);
    let actions: [(SignalKind, fn() -> Event); 5] = [
        (SignalKind::child(), || Event::Child),
        (SignalKind::interrupt(), || Event::Stop(Signal::SIGINT)),
        (SignalKind::terminate(), if reload_on_term { brutal } else { || Event::Stop(Signal::SIGTERM) }),
        (SignalKind::quit(), || Event::Stop(Signal::SIGQUIT)),
        (SignalKind::hangup(), || Event::Reload(Reload::Rolling)),
    ];
    for (kind, event) in actions {
        let mut stream = signal(kind).with_context(|| format!("cannot watch signal {}", kind.as_raw_value()))?;
        let events = events.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() {
                if events.send(event()).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Watches a pipe whose writing end, which is returned, all children inherit: they write [`Notice`]s.
///
/// # Errors
/// When the pipe cannot be made.
pub(super) fn watch_notices(events: &Events) -> anyhow::Result<OwnedFd> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let mut reader = Receiver::from_owned_fd(reader)?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        let mut bytes = [0; 8];
        while reader.read_exact(&mut bytes).await.is_ok() {
            if events.send(Event::Notice(Notice::decode(bytes))).await.is_err() {
                return;
            }
        }
    });
    Ok(writer)
}
