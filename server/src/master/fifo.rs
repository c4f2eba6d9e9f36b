//! `master-fifo`: orders through a named pipe, in uWSGI's letters.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::stat::Mode;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tracing::warn;

use super::events::{Command, Event, Events, Reload};

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
        _ => return None,
    })
}

/// Makes the pipe if need be, and takes orders from it.
///
/// # Errors
/// When there is another kind of file, or the pipe cannot be made.
pub(super) fn watch(path: &Path, events: &Events) -> anyhow::Result<()> {
    let name = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_fifo() => {}
        Ok(_) => bail!("master-fifo: '{name}' exists and is no named pipe"),
        Err(_) => nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
            .with_context(|| format!("master-fifo: cannot make '{name}'"))?,
    }
    // Opened for both, so that it does not end when a writer goes.
    let mut receiver = pipe::OpenOptions::new()
        .read_write(true)
        .open_receiver(path)
        .with_context(|| format!("master-fifo: cannot open '{name}'"))?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        while let Ok(letter) = receiver.read_u8().await {
            if letter.is_ascii_whitespace() {
                continue;
            }
            let Some(command) = command(letter) else {
                warn!("master-fifo: '{}' is no order: they are q Q r R w W c l P s", letter.escape_ascii());
                continue;
            };
            if events.send(Event::Command(command)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
