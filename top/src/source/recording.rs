//! Recordings: every raw document that was read, one line of JSON each, in a gzip member of its own.
//!
//! A file of gzip members is itself gzip: it can be appended to, `zcat` reads it, and after a crash everything up to
//! the last whole member is there. A line is `{"target":"…","taken":unix µs,"document":{…}}`, or has `"error":"…"` in
//! place of the document.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{LocalMicros, Monotonic, Sample, SourceError, parse};

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    target: &'a str,
    taken: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    document: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What goes wrong with a recording as a whole.
#[derive(Debug, Error)]
pub(crate) enum RecordingError {
    /// The file cannot be opened, read or written.
    #[error("recording {0}: {1}", .path.display(), .error)]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no whole sample in it.
    #[error("recording {}: it holds no whole sample; was it made by rtop --record?", .0.display())]
    Empty(PathBuf),
}

/// Appends samples to a file.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    file: File,
}

impl Recorder {
    /// Opens `path` for appending, and makes it when it is not there.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self, RecordingError> {
        let open = OpenOptions::new().create(true).append(true).open(path);
        let file = open.map_err(|error| RecordingError::Io { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes one sample, whole, with one write.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn write(&mut self, target: &str, sample: &Sample) -> Result<(), RecordingError> {
        let document = match &sample.outcome {
            Ok(document) => serde_json::from_slice(document.raw.as_slice()).ok(),
            Err(_) => None,
        };
        let error = match &sample.outcome {
            Ok(_) if document.is_none() => Some("the document is not UTF-8".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let line = Line { target, taken: sample.taken.0, document, error };
        self.append(&line).map_err(|error| RecordingError::Io { path: self.path.clone(), error })
    }

    fn append(&mut self, line: &Line<'_>) -> io::Result<()> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        serde_json::to_writer(&mut encoder, line)?;
        encoder.write_all(b"\n")?;
        self.file.write_all(&encoder.finish()?)
    }
}

/// A recording that is being read, oldest sample first.
#[derive(Debug)]
pub(crate) struct Recording {
    /// What was recorded, in the order of first appearance; a sample's `target` is a place in it.
    pub(crate) targets: Vec<String>,
    file: BufReader<File>,
    path: PathBuf,
    first: Option<Sample>,
    started: Option<u64>,
}

impl Recording {
    /// Opens a recording and reads its first sample.
    ///
    /// # Errors
    /// When the file cannot be read or holds no whole sample.
    pub(crate) fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(|error| RecordingError::Io { path: path.to_owned(), error })?;
        let path = path.to_owned();
        let mut recording = Self { targets: Vec::new(), file: BufReader::new(file), path, first: None, started: None };
        recording.first = recording.read();
        if recording.first.is_none() {
            return Err(RecordingError::Empty(recording.path));
        }
        Ok(recording)
    }

    /// The next whole sample; `None` at the end, which is where the file ends or its last write was cut short.
    fn read(&mut self) -> Option<Sample> {
        if self.file.fill_buf().ok()?.is_empty() {
            return None;
        }
        let mut text = String::new();
        GzDecoder::new(&mut self.file).read_to_string(&mut text).ok()?;
        let line: Line<'_> = serde_json::from_str(&text).ok()?;
        let target = match self.targets.iter().position(|known| known == line.target) {
            Some(index) => index,
            None => {
                self.targets.push(line.target.to_owned());
                self.targets.len() - 1
            }
        };
        let started = *self.started.get_or_insert(line.taken);
        let outcome = match (line.document, line.error) {
            (Some(document), _) => parse(document.get().as_bytes().to_vec()),
            (None, error) => Err(SourceError::Recorded(error.unwrap_or_default())),
        };
        let at = Monotonic::from_micros(line.taken.saturating_sub(started));
        Some(Sample { target, at, taken: LocalMicros(line.taken), outcome })
    }
}

impl Iterator for Recording {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        self.first.take().or_else(|| self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(requests: u64) -> Sample {
        let raw = format!("{{\"version\":\"1\",\"pid\":7,\n\"workers\":[{{\"id\":1,\"requests\":{requests}}}]}}");
        Sample {
            target: 0,
            at: Monotonic::default(),
            taken: LocalMicros(1_000_000 * (requests + 1)),
            outcome: parse(raw.into_bytes()),
        }
    }

    fn requests(recording: Recording) -> Vec<u64> {
        recording.map(|sample| sample.outcome.unwrap().snapshot.workers[0].requests).collect()
    }

    #[test]
    fn what_was_recorded_reads_back_and_a_cut_file_up_to_its_last_whole_sample() {
        let directory = std::env::temp_dir().join(format!("rtop-recording-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a.rtop");
        Recorder::open(&path).unwrap().write("web1", &sample(1)).unwrap();
        // A second run appends.
        let mut again = Recorder::open(&path).unwrap();
        again.write("web1", &sample(2)).unwrap();
        again.write("web2", &sample(3)).unwrap();
        assert_eq!(requests(Recording::open(&path).unwrap()), [1, 2, 3]);
        let mut recording = Recording::open(&path).unwrap();
        assert_eq!(
            recording.by_ref().map(|s| (s.target, s.at.as_micros())).collect::<Vec<_>>(),
            [(0, 0), (0, 1_000_000), (1, 2_000_000)]
        );
        assert_eq!(recording.targets, ["web1", "web2"]);

        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(requests(Recording::open(&path).unwrap()), [1, 2]);
        std::fs::write(&path, "no recording").unwrap();
        assert!(Recording::open(&path).unwrap_err().to_string().contains("no whole sample"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
