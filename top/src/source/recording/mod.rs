//! Recordings: JSON Lines in gzip, an object a line, each in a gzip member of its own.
//!
//! A file of gzip members is itself gzip: it can be appended to, `zcat` reads it, and damage in one place leaves the rest.
//! A run of rtop writes a [`Run`], then its samples in the order in which they were judged, then an [`Ending`]. What is
//! missing or unreadable is told as [`Damage`], with its place.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::Recording;
pub(crate) use write::Recorder;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Monotonic, Poll};

/// The form that is written. The first had no runs and no endings.
const FORMAT: u32 = 2;

/// A line of any kind: a run has `format`, a sample `target`, an ending `end`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rtop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    taken: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lossy: bool,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    document: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<EndedBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// How a run of rtop began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Time between two polls; `None` in a recording of the first form, which did not tell.
    pub(crate) interval: Option<Duration>,
    /// The servers, as they were typed.
    pub(crate) targets: Vec<String>,
}

/// What ended a run, which says what there must be at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EndedBy {
    /// The time, a process, a command or the user: there is a sample of each server then.
    Time,
    /// The number of samples: each server's last is its end.
    Count,
    /// As `Time`, but servers were expected to be gone by then.
    Exit,
}

/// How a run of rtop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// When.
    pub(crate) at: Monotonic,
    /// What ended it.
    pub(crate) by: EndedBy,
    /// Why nothing of it counts, as when the command failed.
    pub(crate) why: Option<String>,
}

/// A part of a recording that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where in the file it begins, in bytes.
    pub(crate) offset: u64,
    /// How many whole lines come before it.
    pub(crate) lines: u64,
    /// What is wrong.
    pub(crate) what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the recording is damaged at byte {}, after {} whole lines: {}", self.offset, self.lines, self.what)
    }
}

/// What a recording holds.
#[derive(Debug)]
pub(crate) enum Entry {
    /// rtop was started.
    Run(Run),
    /// A server was asked.
    Poll(Poll),
    /// The run is over.
    End(Ending),
    /// Something cannot be read.
    Damage(Damage),
}

/// What goes wrong with a recording as a whole.
#[derive(Debug, Error)]
pub(crate) enum RecordingError {
    /// The file cannot be opened, read or written.
    #[error("recording {}: {}", .path.display(), .error)]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no sample in it.
    #[error("recording {}: it holds no whole sample; was it made by rtop --record?", .0.display())]
    Empty(PathBuf),
    /// It is of a later rtop.
    #[error("recording {}: its format is {}, and this rtop reads formats up to {}", .0.display(), .1, FORMAT)]
    Later(PathBuf, u32),
}
