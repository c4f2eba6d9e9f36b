//! Sockets of vassals that start on demand: the emperor binds them and waits for the first connection, which the vassal
//! accepts.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use rwsgi_stats::Address;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Event;
use super::ids::VassalId;
use super::spawn::Spawn;
use crate::master::listeners;
use crate::master::privileges::adjust_socket;
use crate::master::task::Task;
use crate::owned_file::named;
use rwsgi_config::{Config, SocketConfig};

/// No address is longer, bytes.
const LONGEST: u64 = 4096;
/// What a client of any user may connect to, as in uWSGI.
const MODE: u32 = 0o666;

/// The address of a vassal's socket, if it starts on demand.
///
/// # Errors
/// When the file with the address cannot be read, or the command that prints it not be run.
pub(super) fn address_of(spawn: &Spawn<'_>) -> anyhow::Result<Option<String>> {
    let config = &spawn.config.emperor;
    let text = if let Some(end) = &config.on_demand_extension {
        let path = spawn.directory.join(format!("{}{end}", spawn.name));
        // A pipe that nobody writes to would hold up the emperor.
        let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open '{}'", path.display())),
        };
        let found = file.metadata()?;
        ensure!(found.is_file(), "'{}' is no plain file", path.display());
        let writer = found.uid();
        let text = std::io::read_to_string(file.take(LONGEST));
        let text = text.with_context(|| format!("cannot read '{}'", path.display()))?;
        let text = first_line(&text).to_owned();
        if config.tyrant && writer != 0 && geteuid().is_root() {
            check_place(&text, spawn.directory, spawn.owner.uid)
                .with_context(|| format!("'{}' belongs to {}", path.display(), named(writer)))?;
        }
        text
    } else if let Some(directory) = &config.on_demand_directory {
        let name = spawn.name.rsplit('/').next().unwrap_or_default();
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        config.start.join(directory).join(format!("{stem}.socket")).to_string_lossy().into_owned()
    } else if let Some(command) = &config.on_demand_exec {
        spawn.ask(command).with_context(|| format!("emperor-on-demand-exec: cannot run '{command}'"))?
    } else {
        return Ok(None);
    };
    let line = first_line(&text);
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

/// Up to the first control character, as uWSGI reads it.
fn first_line(text: &str) -> &str {
    text.split(|character: char| character.is_control()).next().unwrap_or_default()
}

/// Root binds sockets for the owner of a vassal only where the owner could.
fn check_place(address: &str, directory: &Path, owner: u32) -> anyhow::Result<()> {
    match address.parse() {
        Ok(Address::Tcp { port, .. }) if port < 1024 => bail!("root binds no port below 1024 for another user"),
        Ok(Address::Unix(path)) => {
            let path = directory.join(path);
            let parent = path.parent().unwrap_or(Path::new("/"));
            let found = parent.metadata().with_context(|| format!("cannot look at '{}'", parent.display()))?.uid();
            ensure!(
                found == owner,
                "'{}' belongs to {}, and root binds no socket there for another user",
                parent.display(),
                named(found)
            );
            Ok(())
        }
        // What is no address fails where it is bound.
        _ => Ok(()),
    }
}

/// Binds a vassal's socket; a path is relative to the vassal's directory.
///
/// # Errors
/// When it is no address, or cannot be bound.
pub(super) fn bind(text: &str, directory: &Path, backlog: u32) -> anyhow::Result<OwnedFd> {
    let mut address: Address = text.parse().map_err(|error| anyhow::anyhow!("'{text}': {error}"))?;
    if let Address::Unix(path) = &mut address {
        *path = directory.join(&*path);
    }
    let listener = listeners::bind("on demand", &address, backlog, None, &SocketConfig::default())?;
    if let Address::Unix(path) = &address {
        let config = Config { chmod_socket: Some(MODE), ..Config::default() };
        adjust_socket(path, &config, None)?;
    }
    Ok(listener.fd().try_clone_to_owned()?)
}

/// Waits for a connection, from `from` on, and tells the loop.
///
/// # Errors
/// When the socket cannot be watched.
pub(super) fn watch(
    socket: &OwnedFd,
    id: VassalId,
    from: Instant,
    events: tokio::sync::mpsc::Sender<Event>,
) -> anyhow::Result<Task> {
    let socket = socket.as_fd().try_clone_to_owned()?;
    // SAFETY: an owned descriptor stays the same and open as long as the value that the `AsyncFd` owns.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
    let task = tokio::task::spawn_local(async move {
        tokio::time::sleep_until(from.into()).await;
        if socket.readable().await.is_ok() {
            // The loop is gone only when the process is about to be.
            let _ = events.send(Event::Connected(id)).await;
        }
    });
    Ok(Task(task.abort_handle()))
}
