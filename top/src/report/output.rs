//! The files that a run writes when it is over. rtop checks that it can write them before the run begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where a run's verdict and page go; `None` for what was not asked for.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The verdict for CI servers.
    pub(super) junit: Option<Output>,
    /// The verdict for people who read CI summaries.
    pub(super) markdown: Option<Output>,
    /// The page about the run.
    pub(super) html: Option<Output>,
}

impl Files {
    /// Opens the files, so that a wrong path is an error before the run and not after it.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub(super) fn open(junit: Option<&Path>, markdown: Option<&Path>, html: Option<&Path>) -> anyhow::Result<Self> {
        let open = |option, path: Option<&Path>, keep| path.map(|path| Output::open(option, path, keep)).transpose();
        Ok(Self {
            junit: open("--junit", junit, Keep::Nothing)?,
            markdown: open("--markdown", markdown, Keep::All)?,
            html: open("--html", html, Keep::Nothing)?,
        })
    }
}

/// What happens to the present contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// They are replaced.
    Nothing,
    /// They stay, and more is appended.
    All,
}

/// A file that is written when the run is over, and keeps its contents until then.
#[derive(Debug)]
pub(super) struct Output {
    option: &'static str,
    path: PathBuf,
    keep: Keep,
    /// A pipe or a device, which is opened only once: closing a pipe before its text is the end for its reader.
    special: Option<File>,
}

impl Output {
    /// Opens the file of an option. A file that did not exist is removed again, so that an interrupted run leaves no empty
    /// files.
    ///
    /// # Errors
    /// When it cannot be written. The message names the option and the path.
    pub(super) fn open(option: &'static str, path: &Path, keep: Keep) -> anyhow::Result<Self> {
        let mut output = Self { option, path: path.to_owned(), keep, special: None };
        let (is_file, file) = try_to_append(path).with_context(|| output.failed())?;
        output.special = (!is_file).then_some(file);
        Ok(output)
    }

    /// Writes the text.
    ///
    /// # Errors
    /// When the disk is full, or the path is gone.
    pub(super) fn write(self, text: &str) -> anyhow::Result<()> {
        let failed = self.failed();
        let file = match (self.special, self.keep) {
            (Some(file), _) => Ok(file),
            // By its path: the file may have been removed meanwhile, and text in a file without a name is lost.
            (None, Keep::Nothing) => File::create(&self.path),
            (None, Keep::All) => append(&self.path),
        };
        file.and_then(|mut file| file.write_all(text.as_bytes())).context(failed)
    }

    fn failed(&self) -> String {
        format!("{}: cannot write {}", self.option, self.path.display())
    }
}

/// Whether it is a regular file, and the file.
fn try_to_append(path: &Path) -> io::Result<(bool, File)> {
    let is_new = !path.try_exists()?;
    let file = append(path)?;
    let about = file.metadata()?;
    if is_new && about.is_file() && about.len() == 0 {
        // Where a link leads to: that is the file that was made.
        fs::remove_file(fs::canonicalize(path)?)?;
    }
    Ok((about.is_file(), file))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
