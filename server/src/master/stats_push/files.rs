//! What goes to files: the document, added to one (`stats-push = file:…`), and a directory with a file for each number
//! (`metrics-dir`).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::Context;
use rwsgi_stats::Snapshot;

use super::Receiver;
use crate::stats::numbers::{self, Number};

/// A file to which documents are added.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    /// What follows each of them.
    pub(super) separator: String,
}

impl Receiver for Document {
    fn name(&self) -> String {
        format!("stats-push: '{}'", self.path.display())
    }

    fn take(&mut self, snapshot: &Snapshot, _with_cores: bool) -> io::Result<()> {
        let mut document = Vec::new();
        rwsgi_stats::write_json(&mut document, snapshot)?;
        document.extend_from_slice(self.separator.as_bytes());
        options().append(true).open(&self.path)?.write_all(&document)
    }
}

/// A directory of numbers.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    open: HashMap<String, (File, i64)>,
}

impl Directory {
    /// # Errors
    /// When there is no such directory, or it cannot be written to.
    pub(super) fn open(path: &std::path::Path) -> anyhow::Result<Self> {
        let path = std::fs::canonicalize(path)
            .with_context(|| format!("metrics-dir: cannot use the directory '{}'", path.display()))?;
        tempfile::tempfile_in(&path).with_context(|| format!("metrics-dir: cannot write to '{}'", path.display()))?;
        Ok(Self { path, open: HashMap::new() })
    }

    /// Writes a number's file when it has changed. The application chooses some of the names.
    fn keep(&mut self, number: &Number) -> io::Result<()> {
        let text = format!("{}\n", number.value);
        match self.open.get_mut(&number.name) {
            Some((_, value)) if *value == number.value => return Ok(()),
            Some((file, value)) => {
                file.write_all_at(text.as_bytes(), 0)?;
                file.set_len(text.len() as u64)?;
                *value = number.value;
            }
            None if number.name.contains('/') || number.name.starts_with('.') => {}
            None => {
                let file = options().write(true).truncate(false).open(self.path.join(&number.name))?;
                file.write_all_at(text.as_bytes(), 0)?;
                file.set_len(text.len() as u64)?;
                self.open.insert(number.name.clone(), (file, number.value));
            }
        }
        Ok(())
    }
}

impl Receiver for Directory {
    fn name(&self) -> String {
        format!("metrics-dir: '{}'", self.path.display())
    }

    fn take(&mut self, snapshot: &Snapshot, with_cores: bool) -> io::Result<()> {
        numbers::of(snapshot, with_cores).iter().try_for_each(|number| self.keep(number))
    }
}

/// Nobody but the user writes, and no link leads to another file.
fn options() -> OpenOptions {
    let mut options = File::options();
    options.create(true).mode(0o640).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    options
}
