//! Sends the stats without being asked (`--stats-push`), and keeps a file for each number (`--metrics-dir`). A task for
//! each who gets them; writing happens on a blocking thread.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rwsgi_stats::Snapshot;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::events::{Event, Events};
use crate::stats::numbers::{self, Number, NumberKind};
use rwsgi_config::{Config, PushTo, StatsPushConfig};

/// How often the files of `metrics-dir` are written.
const FILES: Duration = Duration::from_secs(1);

/// Who gets the numbers, and what is kept for that between two times.
enum Receiver {
    Document(PathBuf, String),
    Statsd { address: String, prefix: String },
    Datagrams { address: String, prefix: String },
    Files { directory: PathBuf, open: HashMap<String, (File, i64)> },
}

/// Starts a task for each who gets the stats.
///
/// # Errors
/// When the directory of `metrics-dir` is none, or cannot be written to.
pub(super) fn start(config: &Config, events: &Events) -> anyhow::Result<()> {
    let StatsPushConfig { to, frequency, directory, metrics_no_cores, .. } = &config.stats_push;
    let with_cores = !metrics_no_cores;
    if let Some(directory) = directory {
        let directory = std::fs::canonicalize(directory)
            .with_context(|| format!("metrics-dir: cannot use the directory '{}'", directory.display()))?;
        tempfile::tempfile_in(&directory)
            .with_context(|| format!("metrics-dir: cannot write to '{}'", directory.display()))?;
        spawn(Receiver::Files { directory, open: HashMap::new() }, FILES, with_cores, events);
    }
    for push in to {
        let seconds = push.frequency.unwrap_or(*frequency);
        let receiver = match push.to.clone() {
            PushTo::File(path, separator) => Receiver::Document(path, separator),
            PushTo::Statsd(address, prefix) => Receiver::Statsd { address, prefix },
            PushTo::Datagrams(address, prefix) => Receiver::Datagrams { address, prefix },
        };
        spawn(receiver, Duration::from_secs(seconds.into()), with_cores, events);
    }
    Ok(())
}

fn spawn(mut receiver: Receiver, every: Duration, with_cores: bool, events: &Events) {
    let events = events.clone();
    tokio::task::spawn_local(async move {
        let mut failing = false;
        loop {
            tokio::time::sleep(every).await;
            let (sender, snapshot) = oneshot::channel();
            // The loop is gone only when the process is about to be.
            let (Ok(()), Ok(snapshot)) = (events.send(Event::Stats(sender)).await, snapshot.await) else { return };
            let sent = tokio::task::spawn_blocking(move || {
                let outcome = receiver.take(&snapshot, with_cores);
                (receiver, outcome)
            });
            let Ok((again, outcome)) = sent.await else { return };
            receiver = again;
            match outcome {
                Ok(()) if std::mem::take(&mut failing) => info!("{}: works again", receiver.name()),
                Ok(()) => {}
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    warn!("{}: {error}; trying again, without logging more failures", receiver.name());
                }
                Err(_) => {}
            }
        }
    });
}

impl Receiver {
    fn name(&self) -> String {
        match self {
            Self::Document(path, _) => format!("stats-push: '{}'", path.display()),
            Self::Statsd { address, .. } | Self::Datagrams { address, .. } => format!("stats-push: {address}"),
            Self::Files { directory, .. } => format!("metrics-dir: '{}'", directory.display()),
        }
    }

    fn take(&mut self, snapshot: &Snapshot, with_cores: bool) -> io::Result<()> {
        match self {
            Self::Document(path, separator) => {
                let mut document = Vec::new();
                rwsgi_stats::write_json(&mut document, snapshot)?;
                document.extend_from_slice(separator.as_bytes());
                options().append(true).open(path)?.write_all(&document)
            }
            Self::Statsd { address, prefix } => send(address, &numbers::of(snapshot, with_cores), |number| {
                let kind = if number.kind == NumberKind::Gauge { 'g' } else { 'c' };
                format!("{prefix}.{}:{}|{kind}", number.name, number.value)
            }),
            Self::Datagrams { address, prefix } => send(address, &numbers::of(snapshot, with_cores), |number| {
                format!("{prefix}.{} {} {}", number.name, number.kind as u8, number.value)
            }),
            Self::Files { directory, open } => {
                numbers::of(snapshot, with_cores).iter().try_for_each(|number| keep(directory, open, number))
            }
        }
    }
}

/// Nobody but the user writes, and no link leads to another file.
fn options() -> OpenOptions {
    let mut options = File::options();
    options.create(true).mode(0o640).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    options
}

/// Writes a number's file when it has changed. The application chooses some of the names.
fn keep(directory: &Path, open: &mut HashMap<String, (File, i64)>, number: &Number) -> io::Result<()> {
    let text = format!("{}\n", number.value);
    match open.get_mut(&number.name) {
        Some((_, value)) if *value == number.value => return Ok(()),
        Some((file, value)) => {
            file.write_all_at(text.as_bytes(), 0)?;
            file.set_len(text.len() as u64)?;
            *value = number.value;
        }
        None if number.name.contains('/') || number.name.starts_with('.') => {}
        None => {
            let file = options().write(true).truncate(false).open(directory.join(&number.name))?;
            file.write_all_at(text.as_bytes(), 0)?;
            file.set_len(text.len() as u64)?;
            open.insert(number.name.clone(), (file, number.value));
        }
    }
    Ok(())
}

/// A datagram for each number. What the network has no place for is lost, as with UDP anywhere.
fn send(address: &str, numbers: &[Number], text: impl Fn(&Number) -> String) -> io::Result<()> {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    for number in numbers {
        match socket.send(text(number).as_bytes()) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}
