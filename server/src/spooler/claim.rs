//! Taking a job so that nobody else runs it, and what becomes of its file.
//!
//! Whoever runs a job holds a lock on the whole of its file, as uWSGI does. Ours belongs to the open file and not to the
//! process (`F_OFD_SETLK`): it conflicts with uWSGI's like any other, and the job's own function may open and close the
//! file without losing it. A lock says nothing of a file that is gone: after locking it is looked up again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::index::Moment;
use super::job::{Job, NotAJob, Ticket};
use super::tries;

/// Where files go that are no jobs.
const BAD: &str = ".bad";
/// A job that is written under its own name (uWSGI does so) is empty for a moment, before its writer has locked it.
const WRITERS_MOMENT: Duration = Duration::from_secs(10);

/// What came of trying to take a job.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is ours alone until the claim is dropped.
    Claim(Claim, Job),
    /// Somebody else has it, or still writes it.
    Busy,
    /// It is there no more.
    Gone,
    /// It may not run before this.
    NotBefore(Moment),
    /// Its file is no job's, and was set aside under this name.
    Bad(NotAJob, PathBuf),
}

/// A job that this process has locked.
#[derive(Debug)]
pub(super) struct Claim {
    file: File,
    path: PathBuf,
}

/// Tries to take a job.
///
/// # Errors
/// When the file cannot be worked with although it is there.
pub(super) fn take(directory: &Path, ticket: &Ticket, now: Moment) -> io::Result<Taken> {
    let path = directory.join(ticket.path());
    match try_take(&path, now) {
        Ok(Some(taken)) => Ok(taken),
        Ok(None) => Ok(Taken::Gone),
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Taken::Gone),
        // What `O_NOFOLLOW` says of a symbolic link, and opening for writing of a directory.
        Err(Failure::Io(error)) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR)) => {
            set_aside(directory, ticket, NotAJob::NoFile)
        }
        Err(Failure::Io(error)) => Err(error),
        Err(Failure::Bad(problem, _lock)) => set_aside(directory, ticket, problem),
    }
}

enum Failure {
    Io(io::Error),
    /// The file is held locked meanwhile.
    Bad(NotAJob, File),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// `None` when the file is gone.
fn try_take(path: &Path, now: Moment) -> Result<Option<Taken>, Failure> {
    let open = |writable| {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path)
    };
    // A file that was open for writing is news to every spooler when it is closed: they would wake each other for ever
    // over a job that somebody runs.
    if is_locked(&open(false)?)? {
        return Ok(Some(Taken::Busy));
    }
    let mut file = open(true)?;
    if !lock(&file)? {
        return Ok(Some(Taken::Busy));
    }
    let metadata = file.metadata()?;
    let named = std::fs::symlink_metadata(path)?;
    if metadata.nlink() == 0 || (metadata.dev(), metadata.ino()) != (named.dev(), named.ino()) {
        return Ok(None);
    }
    if !metadata.is_file() {
        return Err(Failure::Bad(NotAJob::NoFile, file));
    }
    let due = modified(&metadata);
    if due > now {
        return Ok(Some(Taken::NotBefore(due)));
    }
    if metadata.len() == 0 && Duration::from_nanos(now - due) < WRITERS_MOMENT {
        return Ok(Some(Taken::Busy));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.read_to_end(&mut bytes)?;
    match Job::read(bytes) {
        Ok(job) => Ok(Some(Taken::Claim(Claim { file, path: path.to_owned() }, job))),
        Err(problem) => Err(Failure::Bad(problem, file)),
    }
}

/// The earliest moment at which a job may run: its file's modification time.
pub(super) fn modified(metadata: &std::fs::Metadata) -> Moment {
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec() as u64)
}

fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

fn is_locked(file: &File) -> io::Result<bool> {
    let mut asked = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(asked.l_type != libc::F_UNLCK as i16)
}

/// Whether the file could be locked.
fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn set_aside(directory: &Path, ticket: &Ticket, problem: NotAJob) -> io::Result<Taken> {
    let bad = directory.join(BAD);
    std::fs::create_dir_all(&bad)?;
    let to = bad.join(ticket.name());
    std::fs::rename(directory.join(ticket.path()), &to)?;
    Ok(Taken::Bad(problem, to))
}

impl Claim {
    /// The job was done: its file goes.
    ///
    /// # Errors
    /// When it cannot be removed; the job will run again.
    pub(super) fn done(self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            // Somebody was quicker: it will not run again either way.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The job is to be tried again after `delay`. Returns how often it was tried, and when it may run.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn retry(self, delay: Duration) -> io::Result<(u32, Moment)> {
        let count = tries::count_one(&self.path);
        let at = SystemTime::now() + delay;
        self.file.set_modified(at)?;
        let due = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok((count, due.as_nanos() as Moment))
    }
}
