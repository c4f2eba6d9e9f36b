//! The small tasks that wait for signals and for the workers' notices, and send the loop events.

use std::io::IsTerminal;
use std::os::fd::OwnedFd;

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::events::{Command, Event, Events, Reload};
use crate::ipc::Notice;
use rwsgi_config::Config;
use rwsgi_config::hooks::{Action, Function, Phase};

/// Watches the signals that the master acts on. `brutal-reload-on-term` gives SIGTERM the meaning that it has in uWSGI, and
/// a hook `unix_signal` of `master-start` gives a signal that of one of its functions.
///
/// # Errors
/// When a handler cannot be installed.
pub(super) fn watch(events: &Events, config: &Config) -> anyhow::Result<()> {
    let reload_on_term = config.brutal_reload_on_term;
    let brutal: fn() -> Event = || Event::Reload(Reload::Brutal);
    let actions: Vec<(SignalKind, fn() -> Event)> = vec![
        (SignalKind::child(), || Event::Child),
        (SignalKind::interrupt(), || Event::Stop(Signal::SIGINT)),
        (SignalKind::terminate(), if reload_on_term { brutal } else { || Event::Stop(Signal::SIGTERM) }),
        (SignalKind::quit(), || Event::Stop(Signal::SIGQUIT)),
        (SignalKind::hangup(), || Event::Reload(Reload::Rolling)),
        // uWSGI logs how the workers are; gunicorn and nginx open their logs again, which does uWSGI's users no harm.
        (SignalKind::user_defined1(), || Event::Command(Command::ReopenLogAndStats)),
        (SignalKind::user_defined2(), || Event::Command(Command::Stats)),
    ];
    // A terminal sends these itself, to a program in the background: to stop it, which they do by default.
    let number_of_workers: [(SignalKind, fn() -> Event); 2] = [
        (SignalKind::from_raw(Signal::SIGTTIN as i32), || Event::Command(Command::OneMore)),
        (SignalKind::from_raw(Signal::SIGTTOU as i32), || Event::Command(Command::OneFewer)),
    ];
    let has_terminal =
        std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal();
    let actions = actions.into_iter().chain(number_of_workers.into_iter().filter(|_| !has_terminal));
    let mut actions: Vec<(SignalKind, Box<dyn Fn() -> Event>)> =
        actions.map(|(kind, event)| (kind, Box::new(event) as Box<dyn Fn() -> Event>)).collect();
    for hook in config.hooks.of(Phase::MasterStart) {
        let Action::UnixSignal(number, function) = hook.action else { continue };
        let kind = SignalKind::from_raw(number);
        actions.retain(|(other, _)| *other != kind);
        let stop = Signal::try_from(number).ok().filter(|_| function == Function::GracefullyKillThemAll);
        actions.push((kind, Box::new(move || stop.map_or(Event::Function(function), Event::Stop))));
    }
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
