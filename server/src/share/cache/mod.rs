//! Caches: in memory that the master makes, so that they outlive workers and reloads, behind a lock that outlives its
//! owner. What a process that died was changing is not to be trusted: the cache is emptied then.

mod blocks;
mod index;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use tracing::warn;

use self::table::CacheTable;
use self::table::NotStored;
pub(crate) use self::table::{How, Operation};
use super::mutex::Locked;
use super::parts::{PartedMemory, Parts};
use crate::clock::UnixMicros;
use rwsgi_config::Cache as Shape;

/// The places of the counts among the numbers of the mapping.
#[derive(Clone, Copy)]
enum Count {
    Items,
    Hits,
    Misses,
    Full,
    Changed,
}

/// How many counts there are.
const COUNTS: usize = Count::Changed as usize + 1;

fn parts(shape: &Shape) -> nix::Result<Parts> {
    Ok(Parts { mutexes: 0, numbers: COUNTS, guarded: table::size(shape).ok_or(Errno::EFBIG)? })
}

/// A cache.
#[derive(Debug)]
pub(crate) struct Cache {
    shape: Shape,
    memory: PartedMemory,
}

/// A cache's counts, read without its lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Items in it.
    pub(crate) items: u64,
    /// Lookups that found an item.
    pub(crate) hits: u64,
    /// Lookups that did not.
    pub(crate) misses: u64,
    /// Items that were not stored because the cache was full.
    pub(crate) full: u64,
    /// When it was changed last, unix seconds.
    pub(crate) changed: u64,
}

impl Cache {
    /// Makes one.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub(crate) fn create(shape: &Shape) -> nix::Result<Self> {
        Ok(Self { shape: shape.clone(), memory: PartedMemory::create(c"rwsgi-cache", parts(shape)?)? })
    }

    /// Maps one that the master made.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(crate) fn map(file: OwnedFd, shape: &Shape) -> nix::Result<Self> {
        Ok(Self { shape: shape.clone(), memory: PartedMemory::map(file, parts(shape)?)? })
    }

    /// The memory file.
    #[must_use]
    pub(crate) fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        self.memory.file()
    }

    /// What it is like.
    #[must_use]
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    fn count(&self, count: Count) -> &AtomicU64 {
        self.memory.number(count as usize)
    }

    /// What is known of it.
    #[must_use]
    pub(crate) fn counts(&self) -> Counts {
        let read = |count| self.count(count).load(Relaxed);
        Counts {
            items: read(Count::Items),
            hits: read(Count::Hits),
            misses: read(Count::Misses),
            full: read(Count::Full),
            changed: read(Count::Changed),
        }
    }

    /// Calls `f` with the table locked. A panic releases the lock, and the next owner empties the table.
    fn with<T>(&self, f: impl FnOnce(&mut CacheTable<'_>, u64) -> T) -> nix::Result<T> {
        let mut bytes = self.memory.lock()?;
        let locked = bytes.locked();
        let mut table = CacheTable::new(&self.shape, &mut bytes);
        if locked == Locked::Abandoned {
            warn!("cache '{}' is emptied: a process died or failed while it changed it", self.shape.name);
            table.clear();
        }
        let result = f(&mut table, UnixMicros::now().as_secs());
        self.count(Count::Items).store(table.len(), Relaxed);
        Ok(result)
    }

    fn note(&self, found: bool) {
        self.count(if found { Count::Hits } else { Count::Misses }).fetch_add(1, Relaxed);
    }

    fn note_change(&self) {
        self.count(Count::Changed).store(UnixMicros::now().as_secs(), Relaxed);
    }

    /// A key's value.
    ///
    /// # Errors
    /// When the lock fails.
    pub(crate) fn get(&self, key: &[u8]) -> nix::Result<Option<Vec<u8>>> {
        let value = self.with(|table, now| table.get(key, now))?;
        self.note(value.is_some());
        Ok(value)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// When the lock fails.
    pub(crate) fn exists(&self, key: &[u8]) -> nix::Result<bool> {
        self.with(|table, now| table.exists(key, now))
    }

    /// Sets a key's value for N seconds (0: forever); whether it could be.
    ///
    /// # Errors
    /// When the lock fails.
    pub(crate) fn set(&self, key: &[u8], value: &[u8], seconds: u64, how: How) -> nix::Result<bool> {
        let set = self.with(|table, now| {
            let expires = if seconds == 0 { 0 } else { now.saturating_add(seconds) };
            table.set(key, value, expires, how, now)
        })?;
        match set {
            Ok(()) => self.note_change(),
            Err(NotStored::Unfit) => {}
            Err(NotStored::Full) => {
                if self.count(Count::Full).fetch_add(1, Relaxed) == 0 && !self.shape.ignore_full {
                    warn!("cache '{}' is full: raise its items or blocks, or set lru", self.shape.name);
                }
            }
        }
        Ok(set.is_ok())
    }

    /// Takes a key's value away; whether there was one.
    ///
    /// # Errors
    /// When the lock fails.
    pub(crate) fn del(&self, key: &[u8]) -> nix::Result<bool> {
        let gone = self.with(|table, now| table.del(key, now))?;
        self.note_change();
        Ok(gone)
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// When the lock fails.
    pub(crate) fn clear(&self) -> nix::Result<()> {
        self.with(|table, _| table.clear())?;
        self.note_change();
        Ok(())
    }

    /// Every key.
    ///
    /// # Errors
    /// When the lock fails.
    pub(crate) fn keys(&self) -> nix::Result<Vec<Vec<u8>>> {
        self.with(|table, now| table.keys(now))
    }
}
