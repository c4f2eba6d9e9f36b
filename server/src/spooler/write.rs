//! Queuing a job: written whole under a name that no spooler looks at, synced, and then given its real name.
//!
//! Both the file and its directory are synced before the job counts as queued. On ext4 this order costs half of what
//! syncing after the rename does (the file's own sync then has to wait for the directory's part of the journal), and
//! writers that sync at the same time share a commit of the journal.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use super::job::new_name;
use crate::clock::UnixMicros;

/// How the name begins that a file has until it is a job.
pub(super) const UNFINISHED: &str = ".new_";

/// A job to be queued.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// The file's beginning: [`super::job::head`].
    pub(crate) head: &'a [u8],
    /// What follows it.
    pub(crate) body: &'a [u8],
    /// Jobs of a lower number go first, and all of them before those without one.
    pub(crate) priority: Option<u64>,
    /// The earliest moment at which it may run, since 1970.
    pub(crate) at: Option<Duration>,
}

/// Queues a job in `directory`; it is safe on the disk when this returns its file.
///
/// # Errors
/// When the directory cannot be written to, or the disk is full; nothing is queued then.
pub(crate) fn write(directory: &Path, order: &Order<'_>) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let count = COUNT.fetch_add(1, Relaxed) + 1;
    // Machines that share a directory may have the same name.
    let random = RandomState::new().hash_one(count) as u32;
    let name = new_name(&host, std::process::id() as i32, count, random, UnixMicros::now().as_micros());
    let subdirectory = match order.priority {
        None => directory.to_owned(),
        Some(priority) => numbered(directory, priority)?,
    };
    let unfinished = subdirectory.join(format!("{UNFINISHED}{name}"));
    let path = subdirectory.join(name);
    let finished = fill(&unfinished, order).and_then(|()| std::fs::rename(&unfinished, &path));
    if let Err(error) = finished {
        // Whatever has failed, nothing else can be done about it.
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    sync(&subdirectory)?;
    Ok(path)
}

fn fill(path: &Path, order: &Order<'_>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(order.head)?;
    file.write_all(order.body)?;
    if let Some(at) = order.at {
        file.set_modified(SystemTime::UNIX_EPOCH + at)?;
    }
    file.sync_all()
}

/// The directory of a priority's jobs, made when it is not there.
fn numbered(directory: &Path, priority: u64) -> io::Result<PathBuf> {
    let subdirectory = directory.join(priority.to_string());
    match DirBuilder::new().mode(0o777).create(&subdirectory) {
        Ok(()) => sync(directory)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(subdirectory)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
