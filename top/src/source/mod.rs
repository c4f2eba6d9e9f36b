//! Where snapshots come from: a stats socket, a stats server that speaks HTTP, a recording.
//!
//! A source gives whole documents or says in one line why it has none. It subtracts nothing and draws nothing.

mod clock;
mod connect;
mod control;
mod fetch;
pub(crate) mod fleet;
#[cfg(test)]
pub(crate) mod hostile;
mod machine;
mod place;
mod player;
mod poller;
mod prometheus;
mod reader;
mod recording;
mod ssh;
mod target;

pub(crate) use clock::{Clock, LocalMicros, Monotonic, ServerMicros};
pub(crate) use control::{Ask, Asker, Control, ControlError, ControlEvent, ControlReply};
pub(crate) use fetch::Fetcher;
pub(crate) use machine::{Room, room};
pub(crate) use place::{Place, Spot};
pub(crate) use player::Player;
pub(crate) use poller::Poller;
use reader::Reader;
pub(crate) use recording::{EndedBy, Ending, Entry, Recorder, Recording, RecordingError, Run};
pub(crate) use ssh::Tunnels;
pub(crate) use target::Target;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rwsgi_stats::{Shown, Snapshot};
use thiserror::Error;

use crate::format;

/// One attempt to read one server.
#[derive(Debug)]
pub(crate) struct Poll {
    /// Which of the targets it is of, by its place on the command line.
    pub(crate) target: usize,
    /// When the answer was there: what rates divide by when the server has no clock.
    pub(crate) at: Monotonic,
    /// What this machine's clock said then.
    pub(crate) taken: LocalMicros,
    /// The document, or why there is none.
    pub(crate) outcome: Result<Document, SourceError>,
}

/// A document as it came and as it was understood.
#[derive(Debug)]
pub(crate) struct Document {
    /// The bytes of the JSON text, for a recording. Shared with the reader, which takes their room back afterwards.
    pub(crate) raw: Arc<Vec<u8>>,
    /// What they say.
    pub(crate) snapshot: Box<Snapshot>,
}

/// Why there is no document. Each message is one line for the foot of the screen; the address is shown beside it.
#[derive(Debug, Error)]
pub(crate) enum SourceError {
    /// The name has no address.
    #[error("the host name is not known: {0}")]
    Resolve(io::Error),
    /// Whoever knows names did not answer in time.
    #[error("the host name was not resolved within {:.1} s", .0.as_secs_f64())]
    Unresolved(Duration),
    /// Nobody listens, or the socket file is missing or not ours to open.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// Connected or not, there was no whole answer in time.
    #[error("no answer within {:.1} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// Connected, and not a byte came unasked: it may wait for a request.
    #[error("no answer within {:.1} s (if it has stats-http, write http:// before its address)", .0.as_secs_f64())]
    Silent(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Read(io::Error),
    /// The server closed without a byte.
    #[error("the server closed the connection without an answer")]
    Empty,
    /// The document ends in the middle.
    #[error("truncated response ({0} bytes)")]
    Half(usize),
    /// An HTTP body that is shorter than it was said to be.
    #[error("truncated response ({sent} of {told} bytes)")]
    Short {
        /// Bytes that came.
        sent: usize,
        /// Bytes that were told.
        told: usize,
    },
    /// Something else answers at this address.
    #[error("the answer is not a stats document: {0}")]
    NotStats(String),
    /// An HTTP server with something else to say.
    #[error("HTTP status {0} instead of 200")]
    Status(u16),
    /// It answers while others' answers take all the memory that there is for them.
    #[error("its answer finds no memory: those of other servers take it")]
    Crowded,
    /// The tunnel to the server is not there, or leads nowhere.
    #[error("ssh: {0}")]
    Tunnel(String),
    /// Prometheus knows of the server, and could not read it.
    #[error("Prometheus cannot scrape it")]
    Unscraped,
    /// Prometheus does not answer a question.
    #[error("Prometheus: {0}")]
    Refused(String),
    /// Something else than Prometheus answers.
    #[error("the answer is not Prometheus's: {0}")]
    NotPrometheus(String),
    /// The attempt failed when the recording was made.
    #[error("{0}")]
    Recorded(String),
    /// More than any pool's stats are.
    #[error("the answer is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
}

impl SourceError {
    /// The same of a server that was sent a request: it does not wait for one.
    fn of_who_was_asked(self) -> Self {
        if let Self::Silent(timeout) = self { Self::TimedOut(timeout) } else { self }
    }

    /// What is wrong with an answer; the words may be the answer's own.
    pub(crate) fn not_stats(why: &dyn fmt::Display) -> Self {
        Self::NotStats(format::one_line(&why.to_string()))
    }

    /// What a recording says of an attempt that failed.
    pub(crate) fn recorded(why: &str) -> Self {
        Self::Recorded(format::one_line(why))
    }
}

/// What is shown of the requests in a document of this server. `rwsgi` leaves secrets out itself; uWSGI sends everything.
pub(crate) fn shown_of(server: Option<&str>) -> Shown {
    if server == Some("rwsgi") { Shown::ALL } else { Shown::default() }
}

/// Understands a document.
///
/// # Errors
/// When it is cut short, or is not JSON, or has none of the keys that a stats server sends.
pub(crate) fn parse(raw: Vec<u8>) -> Result<Document, SourceError> {
    if raw.iter().all(u8::is_ascii_whitespace) {
        return Err(SourceError::Empty);
    }
    // uWSGI copies request variables as the client sent them, whatever their encoding.
    let text = str::from_utf8(&raw).map_or_else(|_| String::from_utf8_lossy(&raw), Cow::Borrowed);
    let snapshot: Snapshot = serde_json::from_str(&text)
        .map_err(|error| if error.is_eof() { SourceError::Half(raw.len()) } else { SourceError::not_stats(&error) })?;
    if snapshot.version.is_empty() && snapshot.pid == 0 && snapshot.workers.is_empty() {
        return Err(SourceError::NotStats("it has neither 'version' nor 'pid' nor 'workers'".to_owned()));
    }
    Ok(Document { snapshot: Box::new(snapshot), raw: Arc::new(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = include_bytes!("../../../shared/tests/fixtures/uwsgi-busy-cheap.json");

    #[test]
    fn every_cut_document_is_called_half_and_never_shown() {
        for cut in 1..WHOLE.len() - 2 {
            let error = parse(WHOLE[..cut].to_vec()).unwrap_err();
            assert!(matches!(error, SourceError::Half(_) | SourceError::Empty), "{cut}: {error}");
        }
        assert_eq!(parse(WHOLE.to_vec()).unwrap().snapshot.workers.len(), 4);
    }

    #[test]
    fn a_request_in_another_encoding_hides_no_numbers() {
        let raw =
            br#"{"version":"2","pid":3,"workers":[{"id":1,"requests":7,"cores":[{"vars":["PATH_INFO=/caf\xe9"]}]}]}"#;
        let raw = String::from_utf8_lossy(raw).replace("\\xe9", "\u{1}");
        let raw: Vec<u8> = raw.bytes().map(|b| if b == 1 { 0xe9 } else { b }).collect();
        assert_eq!(parse(raw).unwrap().snapshot.workers[0].requests, 7);
    }

    #[test]
    fn another_service_s_json_is_refused() {
        assert!(matches!(parse(b"{\"status\":\"ok\"}".to_vec()), Err(SourceError::NotStats(_))));
        assert!(matches!(parse(b"<html>".to_vec()), Err(SourceError::NotStats(_))));
        assert!(matches!(parse(b" \n".to_vec()), Err(SourceError::Empty)));
    }
}
