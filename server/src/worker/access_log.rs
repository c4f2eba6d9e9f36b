//! The access log: a line per request on standard error, written in batches before the thread sleeps.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::UnixMicros;
use crate::log_text::Foreign;
use crate::procfs;
use crate::wsgi::serving::Notes;

/// What a line says.
pub(super) struct Entry<'a> {
    pub(super) client: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) uri: &'a [u8],
    pub(super) protocol: &'a [u8],
    pub(super) status: u16,
    pub(super) bytes: u64,
    /// How long it took, ns.
    pub(super) took: u64,
}

impl<'a> Entry<'a> {
    /// The same, with what rules have made of the request.
    pub(super) fn with(self, notes: &'a Notes) -> Self {
        let of = |name: &[u8], came: &'a [u8]| notes.set_to(name).unwrap_or(came);
        Self {
            client: of(b"REMOTE_ADDR", self.client),
            method: of(b"REQUEST_METHOD", self.method),
            uri: of(b"REQUEST_URI", self.uri),
            ..self
        }
    }
}

/// Lines are written at once up to this size, so that those of several processes do not mix in a pipe (PIPE_BUF).
const AT_ONCE: usize = 4096;

/// Collects the lines of one thread.
pub(super) struct AccessLog {
    prefix: String,
    memory: bool,
    lines: Vec<u8>,
    /// The second that `time` says.
    second: u64,
    time: String,
}

impl AccessLog {
    /// For a thread of a worker; `memory` adds the process's memory to each line.
    pub(super) fn new(worker: u32, thread: u32, memory: bool) -> Self {
        let prefix = format!("worker {worker} thread {thread}");
        Self { prefix, memory, lines: Vec::new(), second: u64::MAX, time: String::new() }
    }

    /// Adds a line, with what the application adds to it.
    pub(super) fn add(&mut self, entry: &Entry<'_>, variables: &[(Vec<u8>, Vec<u8>)]) {
        let now = UnixMicros::now();
        let second = now.as_secs();
        if second != self.second {
            self.second = second;
            self.time = timestamp(second);
        }
        let start = self.lines.len();
        let Entry { client, method, uri, protocol, status, bytes, took } = entry;
        let client = if client.is_empty() { b"-" } else { *client };
        // Writing to a Vec cannot fail.
        let _ = write!(
            self.lines,
            "{}.{:03}Z {} {} \"{} {} {}\" {status} {bytes} bytes {}.{:03} ms",
            self.time,
            now.as_micros() / 1_000 % 1_000,
            self.prefix,
            Foreign(client),
            Quoted(method),
            Quoted(uri),
            Quoted(protocol),
            took / 1_000_000,
            took / 1_000 % 1_000,
        );
        if self.memory {
            let size = procfs::own_memory().unwrap_or_default();
            let _ = write!(self.lines, " rss {} vsz {}", size.resident, size.mapped);
        }
        for (name, value) in variables {
            let _ = write!(self.lines, " {}=\"{}\"", Quoted(name), Quoted(value));
        }
        self.lines.push(b'\n');
        if self.lines.len() > AT_ONCE {
            let rest = self.lines.split_off(start);
            self.write();
            self.lines = rest;
        }
    }

    /// Writes what was collected. A log that cannot be written to is no reason to fail a request.
    pub(super) fn write(&mut self) {
        if !self.lines.is_empty() {
            let _ = std::io::stderr().write_all(&self.lines);
            self.lines.clear();
        }
    }
}

/// `2026-01-31T23:59:59`, of unix seconds, in UTC.
fn timestamp(second: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(second);
    humantime::format_rfc3339_seconds(time).to_string().trim_end_matches('Z').to_owned()
}

/// A client's text as a field in quotes, escaped so that it can end neither the field nor the line.
struct Quoted<'a>(&'a [u8]);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, part) in self.0.split(|byte| *byte == b'"').enumerate() {
            if place > 0 {
                f.write_str("%22")?;
            }
            write!(f, "{}", Foreign(part))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_field_and_no_client_can_end_it_early() {
        let mut log = AccessLog::new(2, 1, true);
        log.add(
            &Entry {
                client: b"10.0.0.1\nforged",
                method: b"GET",
                uri: b"/a\n\" b\xff",
                protocol: b"HTTP/1.1",
                status: 200,
                bytes: 1234,
                took: 5_678_900,
            },
            &[(b"user".to_vec(), b"a\"b".to_vec())],
        );
        let line = String::from_utf8(log.lines.clone()).unwrap();
        assert!(line.contains(
            "Z worker 2 thread 1 10.0.0.1\\nforged \"GET /a\\n%22 b\\xff HTTP/1.1\" 200 1234 bytes 5.678 ms rss "
        ));
        assert!(line.ends_with(" user=\"a%22b\"\n"));
        assert_eq!(line.lines().count(), 1);
        log.lines.clear();
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(timestamp(951_827_696), "2000-02-29T12:34:56");
    }
}
