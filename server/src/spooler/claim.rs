//! Taking a job so that nobody else runs it, and what becomes of its file.
//!
//! The process that runs a job holds a lock on the whole of its file, as uWSGI does. Ours belongs to the open file and
//! not to the process (`F_OFD_SETLK`): it conflicts with uWSGI's like any other, and the job's own function may open
//! and close the file without losing it. A lock says nothing of a file that is gone: after locking it is looked up
//! again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, renameat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use rustix::fs::{AtFlags, FileType, Mode as FileMode, OFlags, Stat, fstat, openat, statat, unlinkat};

use super::directory::JobDirectory;
use super::job::{Job, NotAJob, Ticket};
use super::tries;
use rwsgi_config::Spooler;

/// Where files go that are no jobs.
const BAD: &str = ".bad";
/// A job that is written under its own name (uWSGI does so) is empty for a moment, before its writer has locked it.
const WRITERS_MOMENT: Duration = Duration::from_secs(10);

/// What came of trying to take a job.
#[derive(Debug)]
pub(crate) enum ClaimResult {
    /// It is ours alone until the claim is dropped.
    Claim(Claim, Job),
    /// Somebody else has it, or still writes it.
    Busy,
    /// It is there no more.
    Gone,
    /// It may not run before this.
    NotBefore(SystemTime),
    /// Its file is no job's, and was set aside under this name.
    Bad(NotAJob, PathBuf),
    /// It belongs to this user, who is neither root nor the user of this process: it is left alone.
    Foreign(u32),
}

/// A job that this process has locked.
#[derive(Debug)]
pub(crate) struct Claim {
    file: File,
    /// Relative to the spooler's directory.
    path: PathBuf,
}

/// Who else may work in the directory, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// Nobody: what is there is most likely free.
    Alone,
    /// Others, who may have any of the jobs.
    Others,
}

/// Tries to take a job, of no more bytes than `config` allows. It is not run twice whatever `company` says, which
/// decides how often others are woken and what it costs.
///
/// # Errors
/// When the file cannot be worked with although it is there.
pub(crate) fn take(
    directory: &JobDirectory,
    ticket: &Ticket,
    config: &Spooler,
    company: Company,
    now: SystemTime,
) -> io::Result<ClaimResult> {
    let path = ticket.path();
    match try_take(directory, &path, config, company, now) {
        Ok(Some(taken)) => Ok(taken),
        Ok(None) => Ok(ClaimResult::Gone),
        Err(ClaimError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(ClaimResult::Gone),
        // What `O_NOFOLLOW` says of a symbolic link, and opening for writing of a directory.
        Err(ClaimError::Io(error)) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR)) => {
            set_aside(directory.path(), ticket, NotAJob::NoFile)
        }
        Err(ClaimError::Io(error)) => match named(directory, &path) {
            // The usual reason: a job is readable by its owner alone.
            Ok(stat) if is_foreign(&stat) => Ok(ClaimResult::Foreign(stat.st_uid)),
            _ => Err(error),
        },
        Err(ClaimError::Bad(problem, _lock)) => set_aside(directory.path(), ticket, problem),
    }
}

enum ClaimError {
    Io(io::Error),
    /// The file is held locked meanwhile.
    Bad(NotAJob, File),
}

impl From<io::Error> for ClaimError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// `None` when the file is gone.
fn try_take(
    directory: &JobDirectory,
    path: &Path,
    config: &Spooler,
    company: Company,
    now: SystemTime,
) -> Result<Option<ClaimResult>, ClaimError> {
    // A lock needs a file that is open for writing. Closing one is news, also to the process that closed it: over a job
    // that is not to be taken yet, spoolers would wake each other and themselves forever. So where there are others it
    // is opened to be read first.
    let first = if company == Company::Alone { OFlags::RDWR } else { OFlags::RDONLY };
    let mut file = open_job(directory, path, first)?;
    let mut stat = status(&file)?;
    if is_foreign(&stat) {
        return Ok(Some(ClaimResult::Foreign(stat.st_uid)));
    }
    if let Some(not_now) = not_now(&stat, now) {
        return Ok(Some(not_now));
    }
    if company == Company::Others {
        if is_locked(&file)? {
            return Ok(Some(ClaimResult::Busy));
        }
        file = open_job(directory, path, OFlags::RDWR)?;
        stat = status(&file)?;
    }
    if !lock(&file)? {
        return Ok(Some(ClaimResult::Busy));
    }
    let named = named(directory, path)?;
    if (stat.st_dev, stat.st_ino) != (named.st_dev, named.st_ino) {
        return Ok(None);
    }
    // Of the same file, and as it is now that it is locked.
    let stat = named;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(ClaimError::Bad(NotAJob::NoFile, file));
    }
    if is_foreign(&stat) {
        return Ok(Some(ClaimResult::Foreign(stat.st_uid)));
    }
    // It may have been run, and put off, since it was looked at.
    if let Some(not_now) = not_now(&stat, now) {
        return Ok(Some(not_now));
    }
    let size = stat.st_size.unsigned_abs();
    if !config.takes(size) {
        return Err(ClaimError::Bad(NotAJob::TooLarge { size, limit: config.job_limit }, file));
    }
    match Job::read(read(&mut file, size)?) {
        Ok(job) => Ok(Some(ClaimResult::Claim(Claim { file, path: path.to_owned() }, job))),
        Err(problem) => Err(ClaimError::Bad(problem, file)),
    }
}

fn open_job(directory: &JobDirectory, path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // That it was read is not worth writing its inode. Only its owner and root may say so.
    let opened = match openat(directory, path, flags | OFlags::NOATIME, FileMode::empty()) {
        Err(rustix::io::Errno::PERM) => openat(directory, path, flags, FileMode::empty()),
        opened => opened,
    };
    Ok(opened?.into())
}

fn status(file: &File) -> io::Result<Stat> {
    Ok(fstat(file)?)
}

/// What has this name now.
fn named(directory: &JobDirectory, path: &Path) -> io::Result<Stat> {
    Ok(statat(directory, path, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A job may be larger than the memory that there is: then it is an error, and not the end of this process.
fn read(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
    // The file may grow meanwhile.
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a file is of another user than root and the one that this process runs as: whoever can put a file into the
/// directory would have the application do what that file says.
fn is_foreign(stat: &Stat) -> bool {
    stat.st_uid != 0 && stat.st_uid != geteuid().as_raw()
}

/// Why a file is to be left alone for now, if it is. Its modification time is the earliest moment at which a job may
/// run.
fn not_now(stat: &Stat, now: SystemTime) -> Option<ClaimResult> {
    // What was before 1970 is over anyway.
    let due = u64::try_from(stat.st_mtime)
        .map_or(Duration::ZERO, |seconds| Duration::new(seconds, stat.st_mtime_nsec as u32));
    let due = SystemTime::UNIX_EPOCH + due;
    match now.duration_since(due) {
        // It lies in the future.
        Err(_) => Some(ClaimResult::NotBefore(due)),
        Ok(age) if stat.st_size == 0 && age < WRITERS_MOMENT => Some(ClaimResult::Busy),
        Ok(_) => None,
    }
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

fn set_aside(directory: &Path, ticket: &Ticket, problem: NotAJob) -> io::Result<ClaimResult> {
    let bad = directory.join(BAD);
    std::fs::create_dir_all(&bad)?;
    // Another user may have put a link there.
    let there = open(&bad, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let from = directory.join(ticket.subdirectory());
    let here = open(&from, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    renameat(&here, ticket.name(), &there, ticket.name())?;
    Ok(ClaimResult::Bad(problem, bad.join(ticket.name())))
}

impl Claim {
    /// The job was done: its file goes from the directory that it was taken from.
    ///
    /// # Errors
    /// When it cannot be removed; the job will run again.
    pub(crate) fn done(self, directory: &JobDirectory) -> io::Result<()> {
        match unlinkat(directory, &self.path, AtFlags::empty()) {
            // Somebody was faster: it will not run again either way.
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The job is to be tried again after `delay`. Returns how often it was tried, and when it may run.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn retry(self, directory: &JobDirectory, delay: Duration) -> io::Result<(u32, SystemTime)> {
        let count = tries::count_one(&directory.path().join(&self.path));
        let at = SystemTime::now() + delay;
        self.file.set_modified(at)?;
        Ok((count, at))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::super::index::JobIndex;
    use super::super::job::head;
    use super::super::watch::DirectoryWatch;
    use super::super::write::{Order, write};
    use super::*;

    /// A directory of its own for a test.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rwsgi-claim-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn open(&self) -> JobDirectory {
            JobDirectory::open(&self.0).unwrap()
        }

        /// Queues a job that may run from `at` on.
        fn queue(&self, at: Option<Duration>) -> Ticket {
            let head = head(&[(b"a", b"b")]).unwrap();
            let path = write(&self.0, &Order { head: &head, body: b"body", priority: None, at }).unwrap();
            Ticket::of(OsStr::new(""), path.file_name().unwrap()).unwrap()
        }

        fn take(&self, ticket: &Ticket) -> ClaimResult {
            let config = Spooler { job_limit: 100, ..Spooler::default() };
            take(&self.open(), ticket, &config, Company::Others, SystemTime::now()).unwrap()
        }

        fn take_alone(&self, ticket: &Ticket) -> ClaimResult {
            let config = Spooler { job_limit: 100, ..Spooler::default() };
            take(&self.open(), ticket, &config, Company::Alone, SystemTime::now()).unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_job_has_one_owner_at_a_time() {
        let place = Place::new("owner");
        let ticket = place.queue(None);
        let ClaimResult::Claim(claim, job) = place.take(&ticket) else { panic!("it is free") };
        assert_eq!(job.body(), b"body");
        assert!(matches!(place.take(&ticket), ClaimResult::Busy));
        // As uWSGI's function might do with its own file.
        drop(File::open(place.0.join(ticket.path())).unwrap());
        assert!(matches!(place.take(&ticket), ClaimResult::Busy));
        drop(claim);
        let ClaimResult::Claim(claim, _) = place.take(&ticket) else { panic!("it is free again") };
        claim.done(&place.open()).unwrap();
        assert!(matches!(place.take(&ticket), ClaimResult::Gone));
    }

    #[test]
    fn a_job_is_taken_once_also_by_those_who_take_themselves_to_be_alone() {
        let place = Place::new("alone");
        let ticket = place.queue(None);
        let ClaimResult::Claim(claim, _) = place.take(&ticket) else { panic!("it is free") };
        assert!(matches!(place.take_alone(&ticket), ClaimResult::Busy));
        drop(claim);
        let ClaimResult::Claim(claim, job) = place.take_alone(&ticket) else { panic!("it is free again") };
        assert_eq!(job.body(), b"body");
        assert!(matches!(place.take_alone(&ticket), ClaimResult::Busy));
        assert!(matches!(place.take(&ticket), ClaimResult::Busy));
        claim.retry(&place.open(), Duration::from_secs(60)).unwrap();
        assert!(matches!(place.take_alone(&ticket), ClaimResult::NotBefore(_)));
        let file = File::options().write(true).open(place.0.join(ticket.path())).unwrap();
        file.set_modified(SystemTime::now()).unwrap();
        let ClaimResult::Claim(claim, _) = place.take_alone(&ticket) else { panic!("it is due") };
        claim.done(&place.open()).unwrap();
        assert!(matches!(place.take_alone(&ticket), ClaimResult::Gone));
        let unwritten = Ticket::of(OsStr::new(""), OsStr::new("uwsgi_spoolfile_on_x")).unwrap();
        File::create(place.0.join(unwritten.path())).unwrap();
        assert!(matches!(place.take_alone(&unwritten), ClaimResult::Busy), "its writer has a moment");
    }

    #[test]
    fn a_job_that_failed_may_run_later_and_its_tries_are_counted() {
        let place = Place::new("retry");
        let ticket = place.queue(None);
        for expected in 1..=3 {
            let ClaimResult::Claim(claim, _) = place.take(&ticket) else { panic!("it is due") };
            let (tries, due) = claim.retry(&place.open(), Duration::from_secs(60)).unwrap();
            assert_eq!(tries, expected);
            assert!(
                matches!(place.take(&ticket), ClaimResult::NotBefore(moment) if due.duration_since(moment).is_ok_and(|cut| cut < Duration::from_secs(1)))
            );
            let file = File::options().write(true).open(place.0.join(ticket.path())).unwrap();
            file.set_modified(SystemTime::now()).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_no_job_is_set_aside_whole() {
        let place = Place::new("bad");
        let ticket = Ticket::of(OsStr::new(""), OsStr::new("uwsgi_spoolfile_on_x")).unwrap();
        std::fs::write(place.0.join(ticket.path()), "hello").unwrap();
        let ClaimResult::Bad(problem, to) = place.take(&ticket) else { panic!("it is no job") };
        assert_eq!(problem, NotAJob::Modifier(b'h'));
        assert_eq!(std::fs::read(to).unwrap(), b"hello");
        assert!(matches!(place.take(&ticket), ClaimResult::Gone));
    }

    #[test]
    fn a_job_above_the_limit_is_set_aside_unread() {
        let place = Place::new("large");
        let ticket = place.queue(None);
        let file = File::options().write(true).open(place.0.join(ticket.path())).unwrap();
        // More than can be read in a test's time.
        file.set_len(1 << 43).unwrap();
        let ClaimResult::Bad(problem, to) = place.take(&ticket) else { panic!("it is too large") };
        assert_eq!(problem, NotAJob::TooLarge { size: 1 << 43, limit: 100 });
        assert_eq!(std::fs::metadata(to).unwrap().len(), 1 << 43);
        assert!(matches!(place.take(&ticket), ClaimResult::Gone));
    }

    #[test]
    fn what_is_set_aside_does_not_go_where_a_link_leads() {
        let place = Place::new("link");
        let elsewhere = Place::new("elsewhere");
        std::os::unix::fs::symlink(&elsewhere.0, place.0.join(BAD)).unwrap();
        let ticket = Ticket::of(OsStr::new(""), OsStr::new("uwsgi_spoolfile_on_x")).unwrap();
        std::fs::write(place.0.join(ticket.path()), "hello").unwrap();
        assert!(take(&place.open(), &ticket, &Spooler::default(), Company::Alone, SystemTime::now()).is_err());
        assert_eq!(std::fs::read_dir(&elsewhere.0).unwrap().count(), 0);
    }

    #[test]
    fn looking_at_a_job_that_is_not_to_be_taken_is_no_news() {
        let place = Place::new("news");
        let claimed = place.queue(None);
        let ClaimResult::Claim(_claim, _) = place.take(&claimed) else { panic!("it is free") };
        let later = place
            .queue(Some(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + Duration::from_secs(60)));
        let unwritten = Ticket::of(OsStr::new(""), OsStr::new("uwsgi_spoolfile_on_x")).unwrap();
        File::create(place.0.join(unwritten.path())).unwrap();
        let mut watch = DirectoryWatch::new(&place.0, Company::Others).unwrap();
        watch.look(&mut JobIndex::default()).unwrap();
        assert!(matches!(place.take(&claimed), ClaimResult::Busy));
        assert!(matches!(place.take(&later), ClaimResult::NotBefore(_)));
        assert!(matches!(place.take(&unwritten), ClaimResult::Busy));
        let mut fds = [PollFd::new(watch.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0), "nothing has happened in the directory");
    }

    #[test]
    fn a_job_for_later_is_looked_at_twice_and_not_over_and_over() {
        let place = Place::new("later");
        let (mut watch, mut index) = (DirectoryWatch::new(&place.0, Company::Alone).unwrap(), JobIndex::default());
        let now = SystemTime::now();
        let due = now + Duration::from_secs(60);
        let ticket = place.queue(Some(due.duration_since(SystemTime::UNIX_EPOCH).unwrap()));
        watch.look(&mut index).unwrap();
        // It was not looked at when it came.
        assert_eq!(index.next(now), Some(ticket.clone()));
        let ClaimResult::NotBefore(moment) = place.take_alone(&ticket) else { panic!("it is for later") };
        index.put(ticket, moment);
        // That its file was closed is news.
        watch.look(&mut index).unwrap();
        assert_eq!((index.next(now), index.next_due()), (None, Some(moment)));
        let mut fds = [PollFd::new(watch.fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0));
    }

    #[test]
    fn a_job_that_is_done_goes_from_the_directory_that_it_was_taken_from() {
        let (place, other) = (Place::new("moved"), Place::new("instead"));
        let ticket = place.queue(None);
        let (config, directory) = (Spooler::default(), place.open());
        let now = SystemTime::now();
        let Ok(ClaimResult::Claim(claim, _)) = take(&directory, &ticket, &config, Company::Alone, now) else {
            panic!("it is free")
        };
        // Another directory comes in its place, with a job of the same name.
        std::fs::copy(place.0.join(ticket.path()), other.0.join(ticket.path())).unwrap();
        let aside = place.0.with_extension("aside");
        std::fs::rename(&place.0, &aside).unwrap();
        std::fs::rename(&other.0, &place.0).unwrap();
        claim.done(&directory).unwrap();
        assert!(place.0.join(ticket.path()).exists() && !aside.join(ticket.path()).exists());
        std::fs::rename(&aside, &other.0).unwrap();
    }
}
