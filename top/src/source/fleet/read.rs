//! Reading of a document what a row of a fleet shows, and nothing else: the rest is passed over, without room for it.

use std::borrow::Cow;
use std::sync::Arc;

use rwsgi_assertions::Counts;
use serde::Deserialize;

use super::{Latency, Run, ServerSample};
use crate::format;
use crate::source::{Monotonic, SourceError};

/// A longer version is cut: one server's takes no room from the others' columns.
const LONGEST_VERSION: usize = 32;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Row<'a> {
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    server: Option<Cow<'a, str>>,
    #[serde(borrow)]
    hostname: Option<Cow<'a, str>>,
    pid: i32,
    started_at: Option<u64>,
    now: Option<u64>,
    generation: Option<u32>,
    ready: Option<bool>,
    draining: Option<bool>,
    listen_queue: u64,
    listen_queue_errors: u64,
    sockets: Vec<SocketRow>,
    queue: Option<QueueRow>,
    #[serde(borrow)]
    latency: Option<Cow<'a, str>>,
    workers: Vec<WorkerRow>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SocketRow {
    max_queue: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct QueueRow {
    depth: u64,
    capacity: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WorkerRow {
    pid: i32,
    generation: Option<u32>,
    requests: u64,
    exceptions: u64,
    harakiri_count: u64,
    respawn_count: u64,
    tx: u64,
    running_time: u64,
    busy_time: Option<u64>,
    cpu_time: Option<u64>,
    rss: u64,
    pss: Option<u64>,
    responses: Option<ResponsesRow>,
    cores: Vec<CoreRow>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponsesRow {
    #[serde(rename = "4xx")]
    client_error: u64,
    #[serde(rename = "5xx")]
    server_error: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CoreRow {
    in_request: u8,
}

/// Reads one server's documents: what did not change since its last one is shared with that.
#[derive(Debug, Default)]
pub(super) struct RowReader {
    run: Arc<Run>,
    /// The histogram's text, and what it says.
    latency: Option<(String, Latency)>,
}

impl RowReader {
    /// Understands a document that was there at `at`.
    ///
    /// # Errors
    /// Those of [`parse`](crate::source::parse).
    pub(super) fn read(&mut self, raw: &[u8], at: Monotonic) -> Result<Box<ServerSample>, SourceError> {
        if raw.iter().all(u8::is_ascii_whitespace) {
            return Err(SourceError::Empty);
        }
        let row: Row<'_> = match serde_json::from_slice(raw) {
            Ok(row) => row,
            Err(error) if error.is_eof() => return Err(SourceError::Half(raw.len())),
            Err(error) => return Err(SourceError::not_stats(&error)),
        };
        if row.version.is_empty() && row.pid == 0 && row.workers.is_empty() {
            return Err(SourceError::NotStats("it has neither 'version' nor 'pid' nor 'workers'".to_owned()));
        }
        Ok(Box::new(self.sample(&row, at)))
    }

    fn sample(&mut self, row: &Row<'_>, at: Monotonic) -> ServerSample {
        let workers = &row.workers;
        // Saturating, for a document of nonsense.
        let sum = |value: fn(&WorkerRow) -> u64| workers.iter().map(value).fold(0, u64::saturating_add);
        // A sum of what only some tell would say less than there is.
        let told = |value: fn(&WorkerRow) -> Option<u64>| {
            let sum = workers.iter().map(value).reduce(|sum, one| Some(sum?.saturating_add(one?)));
            sum.flatten()
        };
        let living = || workers.iter().filter(|worker| worker.pid > 0);
        let cores = || living().flat_map(|worker| &worker.cores);
        let generations = || living().filter_map(|worker| worker.generation);
        let failed = |class: fn(&ResponsesRow) -> u64| {
            let sum = workers.iter().map(|worker| worker.responses.as_ref().map(class));
            sum.reduce(|sum, one| Some(sum?.saturating_add(one?))).flatten()
        };
        ServerSample {
            at,
            now: row.now,
            run: self.run(row),
            generation: row.generation,
            mixed_generations: generations().min() != generations().max(),
            ready: row.ready,
            draining: row.draining,
            requests: sum(|worker| worker.requests),
            exceptions: sum(|worker| worker.exceptions),
            failed: failed(|row| row.client_error).zip(failed(|row| row.server_error)).map(<[u64; 2]>::from),
            harakiri: sum(|worker| worker.harakiri_count),
            respawns: sum(|worker| worker.respawn_count.saturating_sub(1)),
            tx: sum(|worker| worker.tx),
            running_time: sum(|worker| worker.running_time),
            busy_time: told(|worker| worker.busy_time),
            cpu_time: told(|worker| worker.cpu_time),
            latency: self.latency(row.latency.as_deref()),
            workers: living().count() as u32,
            threads: cores().count() as u32,
            busy_threads: cores().filter(|core| core.in_request > 0).count() as u32,
            waiting: row.queue.as_ref().map_or(row.listen_queue, |queue| queue.depth),
            capacity: match &row.queue {
                Some(queue) => queue.capacity,
                None => row.sockets.iter().map(|socket| socket.max_queue).max().unwrap_or(0),
            },
            rejected: row.listen_queue_errors,
            rss: sum(|worker| worker.rss),
            rss_max: workers.iter().map(|worker| worker.rss).max().unwrap_or(0),
            pss: {
                let known = workers.iter().filter(|worker| worker.rss > 0);
                let known = known.map(|worker| worker.pss.filter(|pss| *pss > 0));
                known.reduce(|sum, pss| Some(sum?.saturating_add(pss?))).flatten()
            },
        }
    }

    fn run(&mut self, row: &Row<'_>) -> Arc<Run> {
        let known = &*self.run;
        let same = known.pid == row.pid
            && known.started_at == row.started_at
            && known.is_rwsgi == (row.server.as_deref() == Some("rwsgi"))
            && known.version == row.version
            && known.hostname.as_deref() == row.hostname.as_deref();
        if !same {
            self.run = Arc::new(Run {
                is_rwsgi: row.server.as_deref() == Some("rwsgi"),
                version: format::start_of(&format::one_line(&row.version), LONGEST_VERSION).into_owned(),
                hostname: row.hostname.as_deref().map(format::one_line),
                pid: row.pid,
                started_at: row.started_at,
            });
        }
        Arc::clone(&self.run)
    }

    fn latency(&mut self, text: Option<&str>) -> Option<Latency> {
        let text = text?;
        if let Some((known, counts)) = &self.latency
            && known == text
        {
            return Some(Arc::clone(counts));
        }
        let counts = Arc::new(Counts::decode(text)?);
        let (known, _) = self.latency.insert((String::new(), Arc::clone(&counts)));
        known.push_str(text);
        Some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Totals;
    use crate::source::hostile;
    use proptest::prelude::*;
    use rwsgi_stats::{Core, Responses, Snapshot, Worker, latency, saturation};

    fn read(raw: &[u8]) -> Result<Box<ServerSample>, SourceError> {
        RowReader::default().read(raw, Monotonic::default())
    }

    fn agrees(sample: &ServerSample, snapshot: &Snapshot) {
        let totals = Totals::of(snapshot);
        assert_eq!(
            (sample.requests, sample.exceptions, sample.harakiri, sample.respawns, sample.tx, sample.rss),
            (totals.requests, totals.exceptions, totals.harakiri, totals.respawns, totals.tx, totals.rss)
        );
        assert_eq!(
            (sample.waiting, sample.capacity, sample.rejected, sample.pss, u64::from(sample.threads)),
            (totals.queue, totals.queue_capacity, totals.queue_errors, totals.pss, totals.cores)
        );
        assert_eq!(
            (sample.run.pid, sample.generation, sample.ready),
            (snapshot.pid, snapshot.generation, snapshot.ready)
        );
    }

    #[test]
    fn a_row_says_what_the_server_s_own_screen_says() {
        for name in ["busy-cheap", "four-workers-two-threads", "spoolers", "emperor", "daemons"] {
            let path = format!("{}/../shared/tests/fixtures/uwsgi-{name}.json", env!("CARGO_MANIFEST_DIR"));
            let raw = std::fs::read(path).unwrap();
            let (sample, document) = (read(&raw).unwrap(), crate::source::parse(raw).unwrap());
            agrees(&sample, &document.snapshot);
            assert_eq!(sample.saturation(), saturation(&document.snapshot), "{name}");
        }
    }

    #[test]
    fn what_only_rwsgi_tells_is_read_of_it() {
        let counts = latency::from_counts([(latency::index_of(900), 60)]);
        let worker = |pid, generation| Worker {
            pid,
            generation: Some(generation),
            busy_time: Some(7),
            responses: Some(Responses { client_error: 3, server_error: 2, ..Responses::default() }),
            cores: vec![Core { in_request: 1, ..Core::default() }, Core::default()],
            ..Worker::default()
        };
        let mut snapshot = Snapshot {
            server: Some("rwsgi".to_owned()),
            version: "1".to_owned(),
            pid: 5,
            latency: Some(latency::encode(&counts)),
            draining: Some(true),
            workers: vec![worker(8, 3), worker(9, 3), worker(0, 2)],
            ..Snapshot::default()
        };
        let mut reader = RowReader::default();
        let mut again =
            |snapshot: &Snapshot| reader.read(&serde_json::to_vec(snapshot).unwrap(), Monotonic::default()).unwrap();
        let first = again(&snapshot);
        assert_eq!((first.failed, first.busy_time, first.draining), (Some([9, 6]), Some(21), Some(true)));
        assert_eq!((first.threads, first.busy_threads, first.mixed_generations), (4, 2, false));
        assert!(first.run.is_rwsgi);
        let second = again(&snapshot);
        assert!(Arc::ptr_eq(&first.run, &second.run));
        assert!(Arc::ptr_eq(first.latency.as_ref().unwrap(), second.latency.as_ref().unwrap()));
        snapshot.workers[0].generation = Some(4);
        assert!(again(&snapshot).mixed_generations);
        snapshot.workers[1].busy_time = None;
        assert_eq!(again(&snapshot).busy_time, None);
        snapshot.version = "1\u{1b}[2J".to_owned();
        assert!(format::is_plain_line(&again(&snapshot).run.version));
        snapshot.version = "9".repeat(900);
        assert_eq!(again(&snapshot).run.version.chars().count(), LONGEST_VERSION);
    }

    #[test]
    fn a_request_in_another_encoding_hides_no_numbers() {
        let raw = b"{\"version\":\"2\",\"workers\":[{\"requests\":7,\"cores\":[{\"vars\":[\"PATH_INFO=/caf\xe9\"]}]}]}";
        assert_eq!(read(raw).unwrap().requests, 7);
    }

    #[test]
    fn what_is_no_document_is_said_to_be_so() {
        assert!(matches!(read(b"{\"version\":\"2\",").unwrap_err(), SourceError::Half(15)));
        assert!(matches!(read(b" \n").unwrap_err(), SourceError::Empty));
        for other in [&b"{\"status\":\"ok\"}"[..], b"<html>", b"[]"] {
            assert!(matches!(read(other).unwrap_err(), SourceError::NotStats(_)));
        }
    }

    proptest! {
        #[test]
        fn whatever_a_server_sends_is_read_as_its_own_screen_reads_it(polls in hostile::polls()) {
            let mut reader = RowReader::default();
            for poll in polls {
                if let Ok(document) = poll.outcome {
                    // What a row does not show may be of another kind than it should.
                    agrees(&reader.read(&document.raw, poll.at).unwrap(), &document.snapshot);
                }
            }
        }
    }
}
