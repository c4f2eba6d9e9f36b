//! A spooler: a process that runs the jobs of a directory, each at least once.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, access};
use pyo3::Python;
use rustix::process::fchdir;
use tracing::{error, info, warn};

use super::work::{StopSignal, Work};
use crate::api::spool;
use crate::clock::MonotonicNanos;
use crate::owned_file::named;
use crate::spooler::JobDirectory;
use crate::spooler::claim::{Claim, ClaimResult, Company, take};
use crate::spooler::index::JobIndex;
use crate::spooler::job::{Job, Ticket};
use crate::spooler::watch::DirectoryWatch;
use crate::stats::cell::{SpoolerCell, Verdict};
use crate::wsgi::{application, interpreter};

/// After this time a job that another process holds is looked at again: a process that is killed does not announce it.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Between two jobs, orders and events are looked for this often. Of jobs that take longer, after each.
const LOOK: Duration = Duration::from_millis(1);

/// A running spooler.
struct Spooler<'a> {
    number: u32,
    directory: JobDirectory,
    config: &'a rwsgi_config::Spooler,
    cell: &'a SpoolerCell,
    index: JobIndex,
    watch: DirectoryWatch,
    /// Until then others are taken to work in the directory, though the configuration says nothing of them.
    met_others: Option<Instant>,
    /// The log has said that no function takes a job.
    has_complained: bool,
    /// The log has said that a job is somebody else's.
    has_met_foreign: bool,
}

/// Runs jobs until it is told to leave.
///
/// # Errors
/// When the directory cannot be worked in, or the application cannot be loaded.
pub(super) fn run(py: Python<'_>, work: &Work) -> anyhow::Result<()> {
    let config = &work.config.spooler;
    let number = work.who.number;
    let directory = config.directory_of(number).context("its directory is not configured any more")?;
    access(directory, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).with_context(|| {
        format!("spooler: '{}' cannot be read and written by user {}", directory.display(), nix::unistd::getuid())
    })?;
    // Requests come first, as with uWSGI.
    be_nice();
    // With lazy-apps, without an import option the application's own functions are meant.
    if !work.is_loaded && config.import.is_empty() {
        application::load(py, &work.config)?;
    }
    for module in &config.import {
        interpreter::import(py, module);
    }
    let company = if config.processes > 1 { Company::Others } else { Company::Alone };
    let mut spooler = Spooler {
        number,
        directory: JobDirectory::open(directory).with_context(|| cannot_be_read(directory))?,
        config,
        cell: work.scoreboard.spooler(number - 1),
        index: JobIndex::default(),
        watch: DirectoryWatch::new(directory, company)?,
        met_others: None,
        has_complained: false,
        has_met_foreign: false,
    };
    spooler.enter_own();
    let (mut tasks, mut look_due) = (0, Instant::now());
    loop {
        let moment = Instant::now();
        if look_due <= moment {
            look_due = moment + LOOK;
            let (is_to_leave, has_news) = work.end.has_come_or(spooler.watch.fd());
            if is_to_leave {
                break;
            }
            if has_news {
                spooler.watch.look(&mut spooler.index)?;
            }
        }
        if spooler.watch.scan_due <= moment {
            let frequency = spooler.frequency();
            let scanned = spooler.watch.scan(&mut spooler.index, frequency);
            scanned.with_context(|| cannot_be_read(directory))?;
            // What was scanned may be another than before, under the same name.
            spooler.directory = JobDirectory::open(directory).with_context(|| cannot_be_read(directory))?;
        }
        let now = SystemTime::now();
        let Some(ticket) = spooler.index.next(now) else {
            let timeout = spooler.idle_time(now);
            let news = spooler.watch.fd();
            py.detach(|| wait(&work.end, news, timeout))?;
            look_due = Instant::now();
            continue;
        };
        if spooler.consider(py, ticket, now)? {
            tasks += 1;
            if config.max_tasks.is_some_and(|most| tasks >= most) {
                info!("spooler {number}: spooler-max-tasks: {tasks} jobs are done: leaving for another process");
                break;
            }
        }
    }
    Ok(())
}

fn cannot_be_read(directory: &Path) -> String {
    format!("spooler: '{}' cannot be read", directory.display())
}

/// Gives this process the lowest priority.
fn be_nice() {
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        warn!("spooler: cannot lower its priority: {error}");
    }
}

impl Spooler<'_> {
    fn frequency(&self) -> Duration {
        self.cell.frequency().unwrap_or(Duration::from_secs(self.config.frequency.into()))
    }

    /// Makes `spooler-chdir`, or else the spooler's own directory, the one that a job's function runs in.
    fn enter_own(&self) {
        match &self.config.chdir {
            Some(directory) => self.note_entered(directory, std::env::set_current_dir(directory)),
            None => self.note_entered(self.directory.path(), fchdir(&self.directory).map_err(io::Error::from)),
        }
    }

    /// As [`Self::enter_own`], for a job in a numbered directory.
    fn enter(&self, subdirectory: &OsStr) {
        if self.config.chdir.is_some() {
            return self.enter_own();
        }
        let directory = self.directory.path().join(subdirectory);
        self.note_entered(&directory, std::env::set_current_dir(&directory));
    }

    fn note_entered(&self, directory: &Path, entered: io::Result<()>) {
        if let Err(error) = entered {
            warn!("spooler {}: '{}' cannot be entered: {error}", self.number, directory.display());
        }
    }

    /// How long there is nothing to do if nothing happens.
    fn idle_time(&self, now: SystemTime) -> Duration {
        let until_scan = self.watch.scan_due.saturating_duration_since(Instant::now());
        let until_job = self.index.next_due().map(|due| due.duration_since(now).unwrap_or_default());
        until_job.map_or(until_scan, |until_job| until_job.min(until_scan))
    }

    /// Who is to be expected in the directory.
    fn company(&mut self) -> Company {
        // One that was met is not asked about at each job.
        self.met_others = self.met_others.filter(|until| Instant::now() < *until);
        if self.config.processes > 1 || self.met_others.is_some() { Company::Others } else { Company::Alone }
    }

    /// Tries to take a job, and runs it. Whether it was run.
    fn consider(&mut self, py: Python<'_>, ticket: Ticket, now: SystemTime) -> anyhow::Result<bool> {
        let number = self.number;
        let company = self.company();
        match take(&self.directory, &ticket, self.config, company, now) {
            Ok(ClaimResult::Claim(claim, job)) => return self.run_job(py, ticket, claim, &job),
            Ok(ClaimResult::Busy) => {
                self.met_others = Some(Instant::now() + self.frequency().max(SECOND_LOOK * 2));
                self.index.put(ticket, now + SECOND_LOOK);
            }
            Ok(ClaimResult::NotBefore(due)) => self.index.put(ticket, due),
            Ok(ClaimResult::Gone) => self.index.remove(&ticket),
            Ok(ClaimResult::Bad(problem, to)) => {
                error!("spooler {number}: '{ticket}' is no job: {problem}: set aside as '{}'", to.display());
                self.index.remove(&ticket);
            }
            Ok(ClaimResult::Foreign(owner)) => {
                if !std::mem::replace(&mut self.has_met_foreign, true) {
                    error!(
                        "spooler {number}: '{ticket}' belongs to {} and is not run: jobs are run that belong to root or to \
                         user {}; later ones are not logged",
                        named(owner),
                        nix::unistd::geteuid()
                    );
                }
                self.index.hold(ticket, now + self.frequency());
            }
            Err(error) => {
                error!("spooler {number}: '{ticket}' cannot be taken: {error}");
                self.index.hold(ticket, now + self.frequency());
            }
        }
        Ok(false)
    }

    fn run_job(&mut self, py: Python<'_>, ticket: Ticket, claim: Claim, job: &Job) -> anyhow::Result<bool> {
        let number = self.number;
        if !ticket.subdirectory().is_empty() {
            self.enter(ticket.subdirectory());
        }
        let began = MonotonicNanos::now();
        self.cell.begin(began, ticket.path().as_os_str().as_bytes());
        let verdict = spool::run(py, ticket.name().as_bytes(), job);
        let ended = MonotonicNanos::now();
        if verdict == Verdict::Done {
            // Counted when it will not run again.
            if let Err(error) = claim.done(&self.directory) {
                self.cell.finish(ended, Verdict::Failed);
                return Err(error).with_context(|| format!("spooler: '{ticket}' is done but cannot be removed"));
            }
            self.cell.finish(ended, verdict);
            if !self.config.quiet {
                info!("spooler {number}: {ticket}: done in {} ms", ended.since(began).as_millis());
            }
            self.index.remove(&ticket);
        } else if verdict == Verdict::Ignored {
            self.cell.finish(ended, verdict);
            if !std::mem::replace(&mut self.has_complained, true) {
                warn!(
                    "spooler {number}: {ticket}: no function of this process is for it (spooler-import loads more): left \
                     to others; later ones are not logged"
                );
            }
            self.index.hold(ticket, SystemTime::now() + self.frequency());
        } else {
            self.cell.finish(ended, verdict);
            let delay = self.frequency();
            let (tries, due) = claim
                .retry(&self.directory, delay)
                .with_context(|| format!("spooler: '{ticket}' cannot be put off"))?;
            let what = if verdict == Verdict::Retry { "wants to be tried again" } else { "raised an exception" };
            let line = format!("spooler {number}: {ticket}: {what} (try {tries}): again in {} s", delay.as_secs());
            if verdict == Verdict::Failed {
                error!("{line}");
            } else if !self.config.quiet {
                info!("{line}");
            }
            self.index.put(ticket, due);
        }
        // Wherever the job has gone to.
        self.enter_own();
        Ok(verdict != Verdict::Ignored)
    }
}

/// Waits until something happens in the directory, it is time to leave, or `timeout` is over.
fn wait(end: &StopSignal, news: BorrowedFd<'_>, timeout: Duration) -> anyhow::Result<()> {
    let [stop, liveness] = end.poll_fds();
    let mut fds = [stop, liveness, PollFd::new(news, PollFlags::POLLIN)];
    // Rounded up: a wait that ends too early would be followed by one of no length.
    let timeout = timeout.as_millis() as u64 + 1;
    match poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("spooler: cannot wait for jobs"),
    }
}
