//! Temporary files: request bodies beyond `post-buffering`, and responses that wait at the http router for slow clients.
//! All of them are made here. They have no name: nobody else can open them, and nothing is left behind however a process
//! ends.
//!
//! All processes of a server together have no more than `temp-size` in them. Each keeps in shared memory how much it has
//! taken, so that what a process held is free again when it has been reaped. Space is taken in steps, before anything is
//! written and never for what is only announced. Who takes a step adds it first and then looks at the sum: two that do so
//! at once may both be refused, but together they never have more.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::error;

use super::seldom::Seldom;
use crate::stats::scoreboard::{Scoreboard, TempHolder};

/// The first step in which a file takes space, bytes; it takes as much again each time, up to [`STEP_MAX`].
const STEP_MIN: u64 = 64 * 1024;
/// The largest step, bytes.
const STEP_MAX: u64 = 1024 * 1024;

/// What may wait in memory for one client, bytes.
const MEMORY_OF_ONE: usize = 1024 * 1024;
/// The same where there are many slow clients.
const MEMORY_OF_ONE_MIN: usize = 64 * 1024;
/// What may wait for all of them, as long as each has that little.
const MEMORY_OF_ALL: usize = 64 * 1024 * 1024;

/// Where temporary files are, and how much they may hold: the same for all processes of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TempPlace {
    /// An absolute path.
    pub(crate) directory: PathBuf,
    /// `temp-size`, bytes; `None` for no limit.
    pub(crate) limit: Option<u64>,
}

/// Why something cannot be put in a temporary file.
#[derive(Debug, Error)]
pub(crate) enum TempError {
    /// All files together have as much as they may.
    #[error("temporary files have reached temp-size ({limit} bytes)")]
    Limit {
        /// Bytes.
        limit: u64,
    },
    /// The system has refused: the disk is full, the directory cannot be written to, descriptors are out.
    #[error("cannot write to a temporary file in '{}' (temp-dir, TMPDIR): {error}", directory.display())]
    System {
        /// Where.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A process's temporary files.
#[derive(Debug)]
pub(crate) struct TempFiles(Arc<Account>);

/// What a process has taken of the space.
#[derive(Debug)]
struct Account {
    place: TempPlace,
    board: Arc<Scoreboard>,
    holder: TempHolder,
    log: Seldom,
    /// Clients that have not taken what is there for them.
    slow_clients: AtomicUsize,
}

impl TempFiles {
    /// Of a process that has none yet.
    pub(crate) fn new(place: TempPlace, board: Arc<Scoreboard>, holder: TempHolder) -> Self {
        board.temporary(holder).store(0, SeqCst);
        Self(Arc::new(Account { place, board, holder, log: Seldom::default(), slow_clients: AtomicUsize::new(0) }))
    }

    /// A new file.
    ///
    /// # Errors
    /// [`TempError::System`].
    pub(crate) fn create(&self) -> Result<TempFile, TempError> {
        let file = tempfile::tempfile_in(&self.0.place.directory).map_err(|error| self.0.failed(error))?;
        Ok(TempFile { file, len: 0, taken: 0, account: Arc::clone(&self.0) })
    }

    /// Whether so many bytes could be written now. Nothing is taken for them.
    ///
    /// # Errors
    /// [`TempError::Limit`].
    pub(crate) fn check(&self, len: u64) -> Result<(), TempError> {
        match self.0.place.limit {
            Some(limit) if self.0.board.all_temporary().saturating_add(len) > limit => Err(TempError::Limit { limit }),
            _ => Ok(()),
        }
    }

    /// One more client has not taken all that is there for it, or one less.
    pub(crate) fn count_slow_client(&self, is_more: bool) {
        let count = &self.0.slow_clients;
        let _ = if is_more { count.fetch_add(1, Relaxed) } else { count.fetch_sub(1, Relaxed) };
    }

    /// How much may wait in memory for one client before it goes to a file, bytes: most responses fit; of many clients
    /// each has less.
    pub(crate) fn memory_for_one(&self) -> usize {
        let clients = self.0.slow_clients.load(Relaxed).max(1);
        (MEMORY_OF_ALL / clients).clamp(MEMORY_OF_ONE_MIN, MEMORY_OF_ONE)
    }

    /// A body is refused for want of space: counts it, and says so in the log, once a second at most.
    #[cold]
    pub(crate) fn refuse_body(&self, problem: &TempError) {
        self.0.board.limits().refuse_body();
        if let Some(more) = self.0.log.count() {
            error!("a request body cannot be kept, its client gets 503: {problem}{}", more);
        }
    }

    /// A response cannot be put in a file, so that a worker waits for a client: says so in the log, once a second at
    /// most.
    #[cold]
    pub(crate) fn hold_response(&self, problem: &TempError) {
        if let Some(more) = self.0.log.count() {
            error!("a response cannot be kept for a slow client, its worker waits: {problem}{}", more);
        }
    }
}

impl Account {
    fn failed(&self, error: io::Error) -> TempError {
        TempError::System { directory: self.place.directory.clone(), error }
    }

    fn take(&self, bytes: u64) -> Result<(), TempError> {
        self.board.temporary(self.holder).fetch_add(bytes, SeqCst);
        match self.place.limit {
            Some(limit) if self.board.all_temporary() > limit => {
                self.give_back(bytes);
                Err(TempError::Limit { limit })
            }
            _ => Ok(()),
        }
    }

    fn give_back(&self, bytes: u64) {
        // Somebody may have written there that must not.
        let less = |held: u64| Some(held.saturating_sub(bytes));
        let _ = self.board.temporary(self.holder).fetch_update(SeqCst, SeqCst, less);
    }
}

/// One temporary file. What it has taken of the space is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct TempFile {
    file: File,
    /// Bytes that were written.
    len: u64,
    /// Bytes that were taken for them.
    taken: u64,
    account: Arc<Account>,
}

impl TempFile {
    /// Bytes in it.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds `data` at its end: all of it, or nothing.
    ///
    /// # Errors
    /// When there is no space for it, or the system refuses.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), TempError> {
        let len = self.len + data.len() as u64;
        if len > self.taken {
            let needed = len - self.taken;
            let step = self.taken.clamp(STEP_MIN, STEP_MAX).max(needed);
            // Near the limit there may be space for no more than this.
            let taken =
                self.account.take(step).map(|()| step).or_else(|_| self.account.take(needed).map(|()| needed))?;
            self.taken += taken;
        }
        // What a write that failed has left beyond the end is written over, or dropped.
        self.file.write_all_at(data, self.len).map_err(|error| self.account.failed(error))?;
        self.len = len;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.account.give_back(self.taken);
    }
}

/// What was written, from its beginning.
impl io::Read for TempFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl AsFd for TempFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
impl TempFiles {
    /// Of a process that has the whole server to itself.
    pub(crate) fn of_test(limit: Option<u64>) -> Self {
        use crate::stats::scoreboard::Layout;
        let board = Arc::new(Scoreboard::create(Layout::new(1, 1)).unwrap());
        Self::new(TempPlace::of_test(limit), board, TempHolder::Router)
    }

    /// Bytes that are taken.
    pub(crate) fn taken(&self) -> u64 {
        self.0.board.all_temporary()
    }
}

#[cfg(test)]
impl TempPlace {
    pub(crate) fn of_test(limit: Option<u64>) -> Self {
        Self { directory: std::env::temp_dir(), limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SlotId;
    use crate::stats::scoreboard::Layout;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_keeps_what_is_written_and_has_no_name() {
        let files = TempFiles::of_test(None);
        let mut file = files.create().unwrap();
        assert_eq!(file.file.metadata().unwrap().nlink(), 0);
        file.append(b"what is ").unwrap();
        file.append(b"kept").unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), file.len()), ("what is kept", 12));
    }

    #[test]
    fn all_processes_together_have_no_more_than_the_limit() {
        let board = Arc::new(Scoreboard::create(Layout::new(1, 1)).unwrap());
        let holders = [TempHolder::Router, TempHolder::Worker(SlotId::new(0)), TempHolder::Worker(SlotId::new(1))];
        let limit = 8 * STEP_MAX;
        let processes =
            holders.map(|holder| TempFiles::new(TempPlace::of_test(Some(limit)), Arc::clone(&board), holder));
        let mut files: Vec<_> = processes.iter().map(|process| process.create().unwrap()).collect();
        let piece = vec![1; 100_000];
        let mut written = 0;
        while files.iter_mut().all(|file| file.append(&piece).is_ok()) {
            written += 3 * piece.len() as u64;
            assert!(board.all_temporary() <= limit);
        }
        assert!(written > limit - 3 * STEP_MAX && written <= limit, "{written}");
        assert!(matches!(processes[0].check(STEP_MAX), Err(TempError::Limit { .. })));
        // One of them ends; another is killed, which the master sees.
        files.remove(0);
        let left = board.all_temporary();
        board.clear(SlotId::new(0)).unwrap();
        assert!(board.all_temporary() < left);
        assert!(processes[0].check(STEP_MAX).is_ok());
        drop(files);
        assert_eq!(board.all_temporary(), 0);
    }

    #[test]
    fn a_little_takes_little() {
        let files = TempFiles::of_test(Some(1 << 30));
        let mut small = files.create().unwrap();
        small.append(b"x").unwrap();
        assert_eq!(files.taken(), STEP_MIN);
        let mut large = files.create().unwrap();
        large.append(&vec![0; 5_000_000]).unwrap();
        assert_eq!(files.taken(), STEP_MIN + 5_000_000);
    }

    #[test]
    fn of_many_slow_clients_each_has_less_memory() {
        let files = TempFiles::of_test(None);
        assert_eq!(files.memory_for_one(), MEMORY_OF_ONE);
        (0..128).for_each(|_| files.count_slow_client(true));
        assert_eq!(files.memory_for_one(), MEMORY_OF_ONE / 2);
        (0..1_000_000).for_each(|_| files.count_slow_client(true));
        assert_eq!(files.memory_for_one(), MEMORY_OF_ONE_MIN);
        (0..1_000_100).for_each(|_| files.count_slow_client(false));
        assert_eq!(files.memory_for_one(), MEMORY_OF_ONE);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let place = TempPlace { directory: "/nowhere".into(), limit: None };
        let board = Arc::new(Scoreboard::create(Layout::new(1, 1)).unwrap());
        let problem = TempFiles::new(place, board, TempHolder::Router).create().unwrap_err();
        assert!(problem.to_string().contains("'/nowhere' (temp-dir"), "{problem}");
    }
}
