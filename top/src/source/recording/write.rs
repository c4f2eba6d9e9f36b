//! Writing a recording.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rwsgi_stats::{Shown, Snapshot};
use serde_json::Value;

use super::{Ending, FORMAT, Line, RecordingError, Run};
use crate::source::{Clock, Poll, shown_of};

/// Appends to a file.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    file: File,
}

impl Recorder {
    /// Opens `path` for appending, makes it when it is not there, and writes how the run begins.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub(crate) fn begin(path: &Path, run: &Run) -> Result<Self, RecordingError> {
        // Addresses of clients, paths and texts of exceptions are for who made it.
        let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let file = open.map_err(|error| RecordingError::Io { path: path.to_owned(), error })?;
        let mut recorder = Self { path: path.to_owned(), file };
        recorder.append(&Line {
            rtop: Some(env!("CARGO_PKG_VERSION").to_owned()),
            format: Some(FORMAT),
            started: Some(Clock::local().0),
            interval: run.interval.map(|interval| interval.as_micros() as u64),
            targets: Some(run.targets.clone()),
            ..Line::default()
        })?;
        Ok(recorder)
    }

    /// Writes one sample, whole, with one write.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn poll(&mut self, target: &str, poll: &Poll) -> Result<(), RecordingError> {
        let raw = poll.outcome.as_ref().map(|document| String::from_utf8_lossy(&document.raw));
        let compact = raw.as_ref().map(|text| compact(text));
        let compact = compact.map(|text| match &poll.outcome {
            Ok(document) if tells_secrets(&document.snapshot) => without_secrets(&text),
            _ => text,
        });
        let mut line = Line {
            target: Some(target.to_owned()),
            at: Some(poll.at.as_micros()),
            taken: Some(poll.taken.0),
            // A request may be in any encoding: what is not UTF-8 is replaced, as on the screen.
            lossy: poll.outcome.as_ref().is_ok_and(|document| str::from_utf8(&document.raw).is_err()),
            ..Line::default()
        };
        match &compact {
            Ok(text) => {
                let document = serde_json::from_str(text);
                line.document = Some(document.map_err(|error| self.failed(io::Error::from(error)))?);
            }
            Err(error) => line.error = Some(error.to_string()),
        }
        self.append(&line)
    }

    /// Writes how the run ended.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn end(&mut self, ending: &Ending) -> Result<(), RecordingError> {
        self.append(&Line {
            end: Some(ending.at.as_micros()),
            by: Some(ending.by),
            why: ending.why.clone(),
            ..Line::default()
        })
    }

    pub(super) fn append(&mut self, line: &Line<'_>) -> Result<(), RecordingError> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let encoded = rwsgi_stats::write_json(&mut encoder, line).map_err(io::Error::from);
        let member = encoded.and_then(|()| encoder.write_all(b"\n")).and_then(|()| encoder.finish());
        member.and_then(|member| self.file.write_all(&member)).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> RecordingError {
        RecordingError::Io { path: self.path.clone(), error }
    }
}

/// Whether variables of requests must be left out. A document without such variables is recorded as it came.
fn tells_secrets(snapshot: &Snapshot) -> bool {
    let mut cores = snapshot.workers.iter().flat_map(|worker| &worker.cores);
    shown_of(snapshot.server.as_deref()) != Shown::ALL && cores.any(|core| !core.vars.is_empty())
}

/// A document with only those variables of requests in progress that may be shown.
fn without_secrets(document: &str) -> String {
    // It was understood before.
    let mut value: Value = serde_json::from_str(document).unwrap_or_default();
    let workers = value.get_mut("workers").and_then(Value::as_array_mut).into_iter().flatten();
    let cores = workers.filter_map(|worker| worker.get_mut("cores")?.as_array_mut()).flatten();
    for variables in cores.filter_map(|core| core.get_mut("vars")?.as_array_mut()) {
        *variables = variables.iter().filter_map(shown_variable).collect();
    }
    value.to_string()
}

fn shown_variable(variable: &Value) -> Option<Value> {
    let (name, value) = variable.as_str()?.split_once('=')?;
    let value = Shown::default().variable(name, value)?;
    Some(Value::String(format!("{name}={value}")))
}

/// JSON without the blanks between its parts: uWSGI's documents are of many lines.
pub(super) fn compact(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |character: &char| {
        if quoted {
            (quoted, escaped) = (escaped || *character != '"', !escaped && *character == '\\');
            return true;
        }
        quoted = *character == '"';
        !character.is_ascii_whitespace()
    };
    text.chars().filter(keep).collect()
}
