//! The access log: a line for each request, collected in one buffer and written in batches before the thread sleeps.
//!
//! A format is compiled once ([`format`]) to pieces of text and variables ([`variables`]). What comes from requests is
//! escaped by what stands around it ([`escape`]). A line costs no allocation.

mod escape;
mod format;
#[cfg(test)]
mod tests;
mod values;
mod variables;

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use self::format::{Extras, Place, Segment, compile};
use super::state::Worker;
use crate::clock::UnixMicros;
use crate::ids::ThreadIndex;
use crate::local_time::{self, SecondText};
use crate::stats::traces::TraceIds;
use crate::wsgi::gateway::{Incoming, Sent};
use crate::wsgi::serving::{LineChoice, Notes};
use rwsgi_config::{Config, LogDate, LogOnly};
use rwsgi_protocol::path::PathNormalize;

/// What is known of a request that is over.
pub(super) struct Entry<'a> {
    pub(super) request: &'a Incoming<'a>,
    pub(super) client: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) uri: &'a [u8],
    pub(super) protocol: &'a [u8],
    pub(super) status: u16,
    /// Bytes that were sent, with what frames them.
    pub(super) bytes: u64,
    /// How long it took, ns.
    pub(super) took: u64,
    /// What the application sent.
    pub(super) sent: Sent,
    /// The client went away before it had the response.
    pub(super) client_gone: bool,
    /// The rest of the body could not be read.
    pub(super) body_broken: bool,
    /// Its numbers, when it is traced.
    pub(super) traced: Option<TraceIds>,
}

/// Lines are written at once up to this size, so that those of several processes do not mix in a pipe (PIPE_BUF).
const AT_ONCE: usize = 4096;

/// Collects the lines of one thread.
pub(super) struct AccessLog {
    format: Vec<Segment>,
    /// `disable-logging`: only these, and those that the application asks for.
    only: Option<LogOnly>,
    worker: u32,
    thread: u32,
    pid: u32,
    x_forwarded_for: bool,
    paths: PathNormalize,
    lines: Vec<u8>,
    /// The pipe to the loggers of requests; `None` for standard error.
    pipe: Option<Arc<File>>,
    times: Times,
    /// Space for a path without its escapes.
    path: Vec<u8>,
}

/// Times in words, each written once a second.
#[derive(Default)]
struct Times {
    utc: SecondText,
    ctime: SecondText,
    apache: SecondText,
    formatted: SecondText,
    /// `log-date`, when `%(ftime)` is to follow it.
    format: Option<CString>,
}

impl AccessLog {
    /// For a thread of a worker; `None` when it is to log nothing unless the application asks for it.
    pub(super) fn of(worker: &Worker, thread: ThreadIndex) -> Option<Self> {
        let config = &worker.config;
        (!config.disable_logging || config.logs.only.any()).then(|| Self::on_demand(worker, thread))
    }

    /// The same, whatever is configured.
    pub(super) fn on_demand(worker: &Worker, thread: ThreadIndex) -> Self {
        Self::new(&worker.config, worker.id, thread.get(), worker.request_log.clone())
    }

    fn new(config: &Config, worker: u32, thread: u32, pipe: Option<Arc<File>>) -> Self {
        let logs = &config.logs;
        let traces = config.otlp.has_traces();
        let extras = Extras { micros: logs.micros, memory: config.memory_report, traces };
        let format = match &logs.date {
            LogDate::Strftime(format) if logs.strftime => CString::new(format.as_bytes()).ok(),
            _ => None,
        };
        Self {
            format: compile(&logs.format, Place { worker, thread }, extras),
            only: config.disable_logging.then_some(logs.only),
            worker,
            thread,
            pid: std::process::id(),
            x_forwarded_for: logs.x_forwarded_for,
            paths: config.path_normalize,
            lines: Vec::with_capacity(AT_ONCE),
            pipe,
            times: Times { format, ..Times::default() },
            path: Vec::new(),
        }
    }

    /// Adds the line of a request, if it is to have one. `notes` is what the application wanted of it.
    pub(super) fn add(&mut self, entry: &Entry<'_>, notes: Option<&Notes>) {
        let wish = notes.map_or(LineChoice::AsConfigured, |notes| notes.line);
        let is_wanted = match wish {
            LineChoice::AsConfigured => self.only.is_none_or(|only| is_among(only, entry)),
            LineChoice::Logged => true,
            LineChoice::NotLogged => false,
        };
        if !is_wanted {
            return;
        }
        let start = self.lines.len();
        self.write_line(entry, notes, UnixMicros::now());
        if self.lines.len() > AT_ONCE {
            let rest = self.lines.split_off(start);
            self.write();
            self.lines = rest;
        }
    }

    /// Writes what was collected. A log that cannot be written to is no reason to fail a request.
    pub(super) fn write(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let _ = match &self.pipe {
            Some(pipe) => pipe.as_ref().write_all(&self.lines),
            None => std::io::stderr().write_all(&self.lines),
        };
        self.lines.clear();
    }
}

/// Whether a request is one of those that are logged with `disable-logging`, as uWSGI decides it.
fn is_among(only: LogOnly, entry: &Entry<'_>) -> bool {
    let Entry { status, sent, took, client_gone, .. } = entry;
    (only.zero && sent.body == 0)
        || only.slow.is_some_and(|slow| took / 1_000_000 >= u64::from(slow))
        || (only.client_errors && (400..=499).contains(status))
        || (only.server_errors && (500..=599).contains(status))
        || (only.big > 0 && sent.body >= only.big)
        || (only.sendfile && sent.by_file)
        || (only.io_errors && *client_gone)
}

/// `2026-01-31T23:59:59`, of unix seconds, in UTC.
fn write_utc(to: &mut Vec<u8>, second: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    to.extend_from_slice(text.trim_end_matches('Z').as_bytes());
}

fn write_ctime(to: &mut Vec<u8>, second: u64) {
    local_time::write(to, local_time::CTIME, second);
}

fn write_apache(to: &mut Vec<u8>, second: u64) {
    local_time::write(to, local_time::APACHE, second);
}
