//! One stats server that the exporter reads, and what came of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rwsgi_metrics::Scrapes;
use rwsgi_stats::Snapshot;

use super::render::stats_uri;
use crate::source::{Fetcher, Target};

/// Fetchers that are kept for the next scrape: two Prometheus servers, as one has for availability, ask at once at most.
const MOST_KEPT: usize = 2;

/// A server and how its scrapes went.
#[derive(Debug)]
pub(super) struct Watched {
    /// The address as it is shown, and asked for.
    pub(super) name: String,
    /// The address as `timonwong/uwsgi_exporter` would show it.
    pub(super) stats_uri: String,
    target: Target,
    timeout: Duration,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// They know which address of a name answered last, and never resolve a name twice at once.
    idle: Vec<Fetcher>,
    scrapes: Scrapes,
    failing: bool,
}

impl Watched {
    pub(super) fn new(target: Target, timeout: Duration) -> Self {
        Self { name: target.to_string(), stats_uri: stats_uri(&target), target, timeout, record: Mutex::default() }
    }

    /// Held for no longer than it takes to write a number down, never while the server is read.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn scrapes(&self) -> Scrapes {
        self.record().scrapes
    }

    /// Reads the server: `None` when it does not answer. The first failure in a row is logged, and the end of them.
    pub(super) fn read(&self) -> (Option<Box<Snapshot>>, Scrapes) {
        let idle = self.record().idle.pop();
        let mut fetcher = idle.unwrap_or_else(|| Fetcher::new(self.target.clone(), self.timeout));
        let begun = Instant::now();
        let outcome = fetcher.fetch();
        let mut record = self.record();
        if record.idle.len() < MOST_KEPT {
            record.idle.push(fetcher);
        }
        record.scrapes.count += 1;
        let was_failing = std::mem::replace(&mut record.failing, outcome.is_err());
        match &outcome {
            Ok(_) => record.scrapes.seconds += begun.elapsed().as_secs_f64(),
            Err(_) => record.scrapes.errors += 1,
        }
        let scrapes = record.scrapes;
        drop(record);
        match outcome {
            Ok(document) => {
                if was_failing {
                    super::note(&format!("{}: answers again", self.name));
                }
                (Some(document.snapshot), scrapes)
            }
            Err(error) => {
                if !was_failing {
                    super::note(&format!("{}: {error}; trying again at each scrape", self.name));
                }
                (None, scrapes)
            }
        }
    }
}
