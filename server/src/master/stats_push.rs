//! Sends the stats without being asked: to files, statsd, Datadog's agent, carbon (`--stats-push`, `--carbon`), and keeps
//! a file for each number (`--metrics-dir`).
//!
//! A task for each receiver, which writes on a blocking thread and begins the next interval only when that is done. So a
//! receiver that is slow, or gone, costs one thread that waits for a bounded time. Nothing is kept for it meanwhile: the
//! next interval has the numbers of its own moment.

mod carbon;
mod datagrams;
mod dogstatsd;
mod files;
mod socket;
mod statsd;

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use rwsgi_stats::Snapshot;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use self::carbon::Carbon;
use self::datagrams::Datagrams;
use self::dogstatsd::Dogstatsd;
use self::files::{Directory, Document};
use self::socket::Plain;
use self::statsd::Statsd;
use super::events::{Event, Events};
use crate::stats::snapshot::{Purpose, SnapshotRequest};
use rwsgi_config::{Config, PushTo, StatsPushConfig};

/// How often the files of `metrics-dir` are written.
const FILES: Duration = Duration::from_secs(1);

/// Somebody who gets the stats, and what is kept for that between two times.
trait Receiver: Send {
    /// Who, for the log: the option and the address.
    fn name(&self) -> String;

    /// Sends them, in bounded time; the numbers of single threads only `with_cores`.
    ///
    /// # Errors
    /// What kept them from being sent.
    fn take(&mut self, snapshot: &Snapshot, with_cores: bool) -> io::Result<()>;

    /// How often a failure is tried again before the next time comes, and how long after it.
    fn retries(&self) -> (u32, Duration) {
        (0, Duration::ZERO)
    }
}

/// Starts a task for each who gets the stats.
///
/// # Errors
/// When the directory of `metrics-dir` is none, or cannot be written to.
pub(super) fn start(config: &Config, events: &Events) -> anyhow::Result<()> {
    let StatsPushConfig { to, frequency, directory, metrics_no_cores, .. } = &config.stats_push;
    let with_cores = !metrics_no_cores;
    if let Some(directory) = directory {
        spawn(Box::new(Directory::open(directory)?), FILES, with_cores, events);
    }
    for push in to {
        let seconds = push.frequency.unwrap_or(*frequency);
        spawn(receiver(push.to.clone(), config), Duration::from_secs(seconds.into()), with_cores, events);
    }
    for server in &config.carbon.servers {
        let every = Duration::from_secs(config.carbon.frequency.into());
        let has_cheap_workers = config.cheaper.workers.is_some();
        spawn(Box::new(Carbon::new(server, &config.carbon, has_cheap_workers)), every, with_cores, events);
    }
    Ok(())
}

fn receiver(to: PushTo, config: &Config) -> Box<dyn Receiver> {
    match to {
        PushTo::File(path, separator) => Box::new(Document { path, separator }),
        PushTo::Statsd(address, prefix) => {
            Box::new(Statsd { to: Datagrams::to(address), prefix, options: config.statsd.clone() })
        }
        PushTo::Dogstatsd(address, prefix) => {
            Box::new(Dogstatsd { to: Datagrams::to(address), prefix, options: config.dogstatsd.clone() })
        }
        PushTo::Datagrams(address, prefix) => Box::new(Plain { to: Datagrams::to(address), prefix }),
    }
}

fn spawn(mut receiver: Box<dyn Receiver>, every: Duration, with_cores: bool, events: &Events) {
    let events = events.clone();
    tokio::task::spawn_local(async move {
        let (retries, delay) = receiver.retries();
        let (mut failing, mut tries) = (false, 0);
        let mut next = Instant::now() + every;
        loop {
            tokio::time::sleep_until(next).await;
            let (answer, snapshot) = oneshot::channel();
            let asked = SnapshotRequest { purpose: Purpose::Document, answer };
            // The loop is gone only when the process is about to be.
            let (Ok(()), Ok(snapshot)) = (events.send(Event::Stats(asked)).await, snapshot.await) else { return };
            let sent = tokio::task::spawn_blocking(move || {
                let outcome = receiver.take(&snapshot, with_cores);
                (receiver, outcome)
            });
            let Ok((again, outcome)) = sent.await else { return };
            receiver = again;
            let has_failed = outcome.is_err();
            match outcome {
                Ok(()) if std::mem::take(&mut failing) => info!("{}: works again", receiver.name()),
                Ok(()) => {}
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    warn!("{}: {error}; trying again, without logging more failures", receiver.name());
                }
                Err(_) => {}
            }
            tries = if has_failed && tries < retries { tries + 1 } else { 0 };
            next = Instant::now() + if tries > 0 { delay.min(every) } else { every };
        }
    });
}

/// A name without blanks, control characters, and those that the receiver's format has a use for: the application chooses
/// some of the names.
fn plain<'a>(name: &'a str, special: &str) -> Cow<'a, str> {
    let is_special = |c: char| c.is_whitespace() || c.is_control() || special.contains(c);
    if name.contains(is_special) { name.replace(is_special, "_").into() } else { name.into() }
}
