//! The open connections of a worker, by descriptor number.
//!
//! A connection is taken out while a thread works on it and put back when it waits again, so that it has one owner at a
//! time. Rows are made as descriptors reach them and never move, so that finding one takes no lock but the row's own,
//! which nobody else holds but for a moment.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::connection::Connection;

/// Rows that are made at once.
const BLOCK: usize = 256;
/// Blocks: space for a million descriptors, which is what a system allows a process at most by default.
const BLOCKS: usize = 4096;

type Row = Mutex<Option<Box<Connection>>>;

/// See the module.
pub(super) struct Connections {
    blocks: Box<[OnceLock<Box<[Row]>>]>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { blocks: (0..BLOCKS).map(|_| OnceLock::new()).collect() }
    }
}

impl Connections {
    fn row(&self, fd: usize) -> Option<&Row> {
        let block = self.blocks.get(fd / BLOCK)?;
        block.get_or_init(|| (0..BLOCK).map(|_| Row::default()).collect()).get(fd % BLOCK)
    }

    /// Takes the connection of that descriptor, if it waits.
    pub(super) fn take(&self, fd: usize) -> Option<Box<Connection>> {
        self.row(fd)?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts a connection where [`Connections::take`] finds it; gives it back when its number is beyond the table.
    pub(super) fn put(&self, fd: usize, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        let Some(row) = self.row(fd) else { return Err(connection) };
        *row.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(())
    }

    /// Takes every waiting connection for which `wanted` says so.
    #[expect(clippy::vec_box, reason = "connections stay where they are and are passed on by their boxes")]
    pub(super) fn take_all(&self, mut wanted: impl FnMut(&Connection) -> bool) -> Vec<Box<Connection>> {
        let rows = self.blocks.iter().filter_map(OnceLock::get).flat_map(|block| block.iter());
        rows.filter_map(|row| {
            let mut row = row.try_lock().ok()?;
            if wanted(row.as_deref()?) { row.take() } else { None }
        })
        .collect()
    }
}
