//! What the master does for the spoolers beyond starting them: ends jobs that run too long, sees to the job that a dead
//! one leaves, and finds out how long their queues are.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::sys::signal::Signal;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;
use rwsgi_stats::Snapshot;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::auxiliaries::Post;
use super::process::End;
use super::workers::signal;
use super::{Event, Master};
use crate::clock::{MonotonicNanos, UnixMicros};
use crate::config::Config;
use crate::ipc::{Auxiliary, AuxiliaryKind};
use crate::spooler::{Queue, survey, tries};
use crate::stats::cell::Verdict;
use crate::stats::spoolers::SpoolerView;

/// A directory is not read for longer than this part of the time, whoever asks how often.
const SURVEYING_PART: u32 = 20;

/// What the master knows of the spoolers beyond their processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Spoolers {
    /// In the order of the configuration; none before anybody has asked.
    queues: Vec<Queue>,
    /// Until then, they are told as they are here.
    good_until: Option<Instant>,
    /// When the next job could have run too long.
    pub(super) harakiri_due: Option<Instant>,
}

impl Spoolers {
    /// All of them, for a snapshot.
    pub(super) fn views<'a>(&self, config: &'a Config, auxiliaries: &[Post]) -> Vec<SpoolerView<'a>> {
        let config = &config.spooler;
        let posts = auxiliaries.iter().filter(|post| post.who.kind == AuxiliaryKind::Spooler);
        let view = |post: &Post| {
            let number = post.who.number;
            let queue = self.queues.get((number as usize - 1) / config.processes as usize);
            Some(SpoolerView {
                number,
                directory: config.directory_of(number)?,
                pid: post.pid(),
                starts: post.starts,
                queue: queue.map(|queue| (queue.jobs, queue.oldest.map(UnixMicros::from_micros))),
            })
        };
        posts.filter_map(view).collect()
    }
}

impl Master {
    /// Answers with a snapshot, for which the queues are counted first. That may take a while, and is done elsewhere.
    pub(super) fn answer_stats(&mut self, answer: oneshot::Sender<Snapshot>) {
        let directories = self.config.spooler.directories.clone();
        if directories.is_empty() || self.spoolers.good_until.is_some_and(|until| Instant::now() < until) {
            // Who asked may have gone.
            let _ = answer.send(self.snapshot());
            return;
        }
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let counted = tokio::task::spawn_blocking(move || {
                let began = Instant::now();
                (count(&directories), Instant::now() + began.elapsed() * SURVEYING_PART)
            });
            if let Ok((queues, good_until)) = counted.await {
                // The loop is gone only when the process is about to be.
                let _ = events.send(Event::Queues { queues, good_until, answer });
            }
        });
    }

    /// The queues were counted for whoever asked.
    pub(super) fn answer_counted(
        &mut self,
        queues: Vec<Queue>,
        good_until: Instant,
        answer: oneshot::Sender<Snapshot>,
    ) {
        self.spoolers.queues = queues;
        self.spoolers.good_until = Some(good_until);
        let _ = answer.send(self.snapshot());
    }

    /// Kills spoolers that have run one job for longer than `spooler-harakiri`.
    pub(super) fn watch_spoolers(&mut self, now: Instant) {
        let Some(limit) = self.config.spooler.harakiri.map(|limit| Duration::from_secs(limit.into())) else { return };
        if self.spoolers.harakiri_due.is_some_and(|due| due > now) {
            return;
        }
        let clock = MonotonicNanos::now();
        let mut next = limit;
        for post in self.auxiliaries.iter().filter(|post| post.who.kind == AuxiliaryKind::Spooler) {
            let Some(pid) = post.pid() else { continue };
            let Ok(Some(job)) = self.scoreboard.spooler(post.who.number - 1).held() else { continue };
            let age = clock.since(job.started);
            if age < limit {
                next = next.min(limit - age);
                continue;
            }
            error!(
                "spooler-harakiri: {} (pid {pid}) runs {} for longer than the {} s allowed: killing it",
                post.who,
                job.path.display(),
                limit.as_secs()
            );
            signal(pid, Signal::SIGKILL);
        }
        self.spoolers.harakiri_due = Some(now + next.max(Duration::from_millis(100)));
    }

    /// A spooler's process has ended: what it held is counted, and left to others. Returns what it held, to be told.
    pub(super) fn bury_spooler(&self, who: Auxiliary, pid: Pid, end: End) -> Option<String> {
        let cell = self.scoreboard.spooler(who.number - 1);
        if cell.pid() == Some(pid) {
            cell.vacate();
        }
        // What is no job of its directory is nobody's to put off.
        let job = cell.held().ok()??;
        let now = MonotonicNanos::now();
        cell.finish(now, Verdict::Failed);
        let name = job.path.to_string_lossy();
        let config = &self.config.spooler;
        let path = config.directory_of(who.number)?.join(&job.path);
        let age = now.since(job.started);
        let is_harakiri = end == End::Killed(Signal::SIGKILL as i32)
            && config.harakiri.is_some_and(|limit| age >= Duration::from_secs(limit.into()));
        let tries = tries::count_one(&path);
        // One that was killed with its process is innocent at first. One that does it again may be what kills.
        let delay =
            if is_harakiri || tries > 1 { Duration::from_secs(config.frequency.into()) } else { Duration::ZERO };
        if let Err(error) = put_off(&path, delay) {
            // It was done, and the process died before it could say so.
            if error != nix::errno::Errno::ENOENT {
                warn!("{who}: the job {name} cannot be put off: {error}");
            }
        }
        let next = if delay.is_zero() { "at once".to_owned() } else { format!("in {} s", delay.as_secs()) };
        Some(format!("{name} for {} s (try {tries}): again {next}", age.as_secs()))
    }
}

fn count(directories: &[PathBuf]) -> Vec<Queue> {
    let counted = directories.iter().map(|directory| {
        survey(directory).unwrap_or_else(|error| {
            warn!("spooler: the jobs in '{}' cannot be counted: {error}", directory.display());
            Queue::default()
        })
    });
    counted.collect()
}

/// Lets a job run `delay` from now. The others see it happen, and with it that the job is free.
fn put_off(path: &std::path::Path, delay: Duration) -> nix::Result<()> {
    let due = (SystemTime::now() + delay).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    utimensat(AT_FDCWD, path, &TimeSpec::UTIME_OMIT, &TimeSpec::from_duration(due), UtimensatFlags::NoFollowSymlink)
}
