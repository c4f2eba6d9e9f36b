//! The files that tell of a run when it is over. Whether they can be written is known before it begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where a run's verdict and its page go; nowhere what was not asked for.
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
    /// Nobody waits for the end of a run to learn that what it tells has no place.
    ///
    /// # Errors
    /// When one of them could not be written.
    pub(super) fn open(junit: Option<&Path>, markdown: Option<&Path>, html: Option<&Path>) -> anyhow::Result<Self> {
        let open = |option, path: Option<&Path>, keep| path.map(|path| Output::open(option, path, keep)).transpose();
        Ok(Self {
            junit: open("--junit", junit, Keep::Nothing)?,
            markdown: open("--markdown", markdown, Keep::All)?,
            html: open("--html", html, Keep::Nothing)?,
        })
    }
}

/// What becomes of what is in the file already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// It is replaced.
    Nothing,
    /// It stays, and more comes behind it.
    All,
}

/// A file that is written when the run is over. What it held until then stays.
#[derive(Debug)]
pub(super) struct Output {
    option: &'static str,
    path: PathBuf,
    keep: Keep,
    /// A pipe or a device is opened once: whoever reads from a pipe would take a second opening for the end.
    special: Option<File>,
}

impl Output {
    /// The file of an option. One that was not there is not there afterwards: a run that is interrupted leaves no empty
    /// files.
    ///
    /// # Errors
    /// When it could not be written. The message names the option and the path.
    fn open(option: &'static str, path: &Path, keep: Keep) -> anyhow::Result<Self> {
        let mut output = Self { option, path: path.to_owned(), keep, special: None };
        let (is_file, file) = try_to_append(path).with_context(|| output.failed())?;
        output.special = (!is_file).then_some(file);
        Ok(output)
    }

    /// Writes what it is for.
    ///
    /// # Errors
    /// When the disk does not take it, or the path has gone.
    pub(super) fn write(self, text: &str) -> anyhow::Result<()> {
        let failed = self.failed();
        let file = match (self.special, self.keep) {
            (Some(file), _) => Ok(file),
            // By its path again: the directory may have been emptied meanwhile, and a text in a file without a name is lost.
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
