//! `master-fifo`: orders through a named pipe, in uWSGI's letters.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tracing::warn;

use super::events::{Command, Event, Events, Reload};
use crate::identity::Identity;
use crate::owned_file::{Last, Place, named};

/// What uWSGI does with a letter, as far as rwsgi has it.
fn command(letter: u8) -> Option<Command> {
    Some(match letter {
        b'q' => Command::Stop(false),
        b'Q' => Command::Stop(true),
        b'r' | b'L' | b'w' => Command::Reload(Reload::Rolling),
        b'R' | b'W' => Command::Reload(Reload::Brutal),
        b'c' => Command::Reload(Reload::Chain),
        b'l' => Command::ReopenLog,
        b'P' => Command::WritePidfiles,
        b's' => Command::Stats,
        // uWSGI has no such letter.
        b't' => Command::Stacks,
        _ => return None,
    })
}

/// Makes the pipe if it does not exist, and reads commands from it. `user` is who the server becomes.
///
/// # Errors
/// When there is another kind of file, or the pipe is somebody else's, or cannot be made.
pub(super) fn watch(path: &Path, user: Option<&Identity>, events: &Events) -> anyhow::Result<()> {
    let name = path.display();
    let pipe = open(path, user)?;
    let mut receiver =
        pipe::Receiver::from_owned_fd(pipe).with_context(|| format!("master-fifo: cannot read '{name}'"))?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        while let Ok(letter) = receiver.read_u8().await {
            if letter.is_ascii_whitespace() {
                continue;
            }
            let Some(command) = command(letter) else {
                warn!("master-fifo: '{}' is no order: they are q Q r R L w W c l P s t", letter.escape_ascii());
                continue;
            };
            if events.send(Event::Command(command)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn open(path: &Path, user: Option<&Identity>) -> anyhow::Result<OwnedFd> {
    let name = path.display();
    let place = Place::find(path, Last::Keep, user).with_context(|| format!("master-fifo: cannot use '{name}'"))?;
    let look = || place.look().with_context(|| format!("master-fifo: cannot look at '{name}'"));
    let found = match look()? {
        Some(found) => found,
        None => {
            place.make_pipe().with_context(|| format!("master-fifo: cannot make '{name}'"))?;
            look()?.with_context(|| format!("master-fifo: '{name}' was removed as soon as it was made"))?
        }
    };
    if found.kind() != SFlag::S_IFIFO {
        bail!("master-fifo: '{name}' exists and is not a named pipe: remove it, or choose another file");
    }
    if !place.is_ours(found.owner()) {
        bail!(
            "master-fifo: '{name}' belongs to {}, who could stop this server with it: remove it, or choose another file",
            named(found.owner())
        );
    }
    if found.has_other_names() {
        bail!("master-fifo: '{name}' has several names (hard links): remove it, or choose another file");
    }
    let _rights = place.rights()?;
    // Opened for writing too, so that reading sees no end of file when the last writer closes it.
    let opened = found.open(OFlag::O_RDWR | OFlag::O_NONBLOCK).map_err(|error| place.explain(error));
    Ok(opened.with_context(|| format!("master-fifo: cannot open '{name}'"))?.into())
}
