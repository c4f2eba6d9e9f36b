//! How long the spoolers' queues are: counted when somebody asks, off the loop, and not all the time.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tracing::warn;

use crate::spooler::{Queue, survey};

/// A directory is not read for longer than this part of the time, however often it is asked for.
const SURVEYING_PART: u32 = 20;

/// The queues, as they were counted last.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    /// In the order of the configuration; none before anybody has asked.
    queues: Vec<Queue>,
    /// Until then, these counts are shown.
    good_until: Option<Instant>,
}

impl Queues {
    /// Whether they were counted a moment ago.
    pub(super) fn are_fresh(&self, now: Instant) -> bool {
        self.good_until.is_some_and(|until| now < until)
    }

    /// They were counted.
    pub(super) fn set(&mut self, queues: Vec<Queue>, good_until: Instant) {
        (self.queues, self.good_until) = (queues, Some(good_until));
    }

    /// That of a directory, by its place in the configuration.
    pub(super) fn get(&self, directory: usize) -> Option<&Queue> {
        self.queues.get(directory)
    }
}

/// Counts the jobs in these directories; returns until when that is good enough, too. It may take a while.
pub(super) fn count(directories: &[PathBuf]) -> (Vec<Queue>, Instant) {
    let began = Instant::now();
    let counted = directories.iter().map(|directory| {
        survey(directory).unwrap_or_else(|error| {
            warn!("spooler: the jobs in '{}' cannot be counted: {error}", directory.display());
            Queue::default()
        })
    });
    let queues = counted.collect();
    (queues, Instant::now() + began.elapsed() * SURVEYING_PART)
}

/// Lets a job run `delay` from now. The others see it happen, and with it that the job is free.
///
/// # Errors
/// When there is no such job, or it is another user's.
pub(super) fn put_off(path: &std::path::Path, delay: Duration) -> nix::Result<()> {
    let due = (SystemTime::now() + delay).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    utimensat(AT_FDCWD, path, &TimeSpec::UTIME_OMIT, &TimeSpec::from_duration(due), UtimensatFlags::NoFollowSymlink)
}
