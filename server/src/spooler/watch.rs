//! What happens in a directory of jobs: by inotify at once, and by a scan now and then for what that misses (a file
//! system of another machine, an overflow). Keeps an [`JobIndex`] up to date.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tracing::warn;

use super::claim::Company;
use super::index::JobIndex;
use super::job::{Ticket, number};
use super::write::UNFINISHED;

/// A scan never takes more than this part of the time.
const SCANNING_PART: u32 = 50;
/// A file that is older than this and was never finished has lost its writer.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Watches a directory, and those of its priorities.
#[derive(Debug)]
pub(crate) struct DirectoryWatch {
    directory: PathBuf,
    /// Whether jobs are expected to be removed by others.
    company: Company,
    inotify: Inotify,
    /// The subdirectory that each watch is of; empty for the directory itself.
    subdirectories: HashMap<WatchDescriptor, OsString>,
    /// When the next scan is due.
    pub(crate) scan_due: Instant,
}

impl DirectoryWatch {
    /// Begins to watch; a scan is due at once. Alone, a process removes its jobs itself and does not watch that: what
    /// others remove all the same it finds gone when it is to be run, or by a scan.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub(crate) fn new(directory: &Path, company: Company) -> anyhow::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .context("inotify cannot be used (raise fs.inotify.max_user_instances with sysctl)")?;
        let mut watch = Self {
            directory: directory.to_owned(),
            company,
            inotify,
            subdirectories: HashMap::new(),
            scan_due: Instant::now(),
        };
        watch.add(OsStr::new("")).with_context(|| format!("'{}' cannot be watched", directory.display()))?;
        Ok(watch)
    }

    /// Readable when something has happened.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    fn add(&mut self, subdirectory: &OsStr) -> nix::Result<()> {
        let mut wanted = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_ONLYDIR
            // What is done to a job's file after its end is no news.
            | AddWatchFlags::from_bits_retain(nix::libc::IN_EXCL_UNLINK);
        wanted.set(AddWatchFlags::IN_DELETE, self.company == Company::Others);
        let descriptor = self.inotify.add_watch(&self.directory.join(subdirectory), wanted)?;
        self.subdirectories.insert(descriptor, subdirectory.to_owned());
        Ok(())
    }

    /// Takes note of what has happened since the last time. Never blocks.
    pub(crate) fn look(&mut self, index: &mut JobIndex) -> anyhow::Result<()> {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        self.note(index, &event);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("what happens in its directory cannot be read"),
            }
        }
    }

    fn note(&mut self, index: &mut JobIndex, event: &InotifyEvent) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.scan_due = Instant::now();
            return;
        }
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.subdirectories.remove(&event.wd);
            return;
        }
        let (Some(subdirectory), Some(name)) = (self.subdirectories.get(&event.wd).cloned(), &event.name) else {
            return;
        };
        if event.mask.contains(AddWatchFlags::IN_ISDIR) {
            let is_new = event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
            if is_new && subdirectory.is_empty() && number(name.as_bytes()).is_some() {
                self.enter(index, name);
            }
            return;
        }
        let Some(ticket) = Ticket::of(&subdirectory, name) else { return };
        if event.mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
            index.remove(&ticket);
        } else if event.mask == AddWatchFlags::IN_MOVED_TO {
            // A new job as a rule, which may run now. If not, whoever tries to take it learns when it may: that opens its file,
            // which is no event of this kind.
            index.put(ticket, SystemTime::UNIX_EPOCH);
        } else if event.mask != AddWatchFlags::IN_CREATE {
            // One that is created under its own name is not whole before its writer closes it.
            self.learn(index, ticket);
        }
    }

    /// Looks at a file and takes note of the job.
    fn learn(&self, index: &mut JobIndex, ticket: Ticket) {
        match std::fs::symlink_metadata(self.directory.join(ticket.path())).and_then(|metadata| metadata.modified()) {
            Ok(due) => index.put(ticket, due),
            Err(error) if error.kind() == io::ErrorKind::NotFound => index.remove(&ticket),
            Err(error) => warn!("spooler: '{ticket}' cannot be looked at: {error}"),
        }
    }

    /// A directory of a priority's jobs has come to be.
    fn enter(&mut self, index: &mut JobIndex, subdirectory: &OsStr) {
        // Watched first: what comes while it is read comes twice, and not never.
        let entered = self.add(subdirectory).map_err(io::Error::from).and_then(|()| self.read(index, subdirectory));
        if let Err(error) = entered
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("spooler: '{}' cannot be read: {error}", self.directory.join(subdirectory).display());
        }
    }

    /// Reads everything; the next scan is due after `frequency`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn scan(&mut self, index: &mut JobIndex, frequency: Duration) -> io::Result<()> {
        let began = Instant::now();
        index.begin_scan();
        self.read(index, OsStr::new(""))?;
        index.end_scan();
        let now = Instant::now();
        self.scan_due = now + frequency.max((now - began) * SCANNING_PART);
        Ok(())
    }

    fn read(&mut self, index: &mut JobIndex, subdirectory: &OsStr) -> io::Result<()> {
        let mut subdirectories = Vec::new();
        for entry in std::fs::read_dir(self.directory.join(subdirectory))? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(ticket) = Ticket::of(subdirectory, &name) {
                if !index.seen(&ticket) {
                    self.learn(index, ticket);
                }
            } else if subdirectory.is_empty() && number(name.as_bytes()).is_some() {
                subdirectories.push(name);
            } else if name.as_bytes().starts_with(UNFINISHED.as_bytes()) {
                remove_abandoned(&entry.path(), entry.metadata());
            }
        }
        for subdirectory in subdirectories {
            self.enter(index, &subdirectory);
        }
        Ok(())
    }
}

/// Removes a file that its writer did not live to finish: it never was a job.
fn remove_abandoned(path: &Path, metadata: io::Result<Metadata>) {
    let changed = metadata.and_then(|metadata| metadata.created().or_else(|_| metadata.modified()));
    let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
    if age.is_some_and(|age| age > ABANDONED) && std::fs::remove_file(path).is_ok() {
        warn!("spooler: '{}' was never finished: removed", path.display());
    }
}
