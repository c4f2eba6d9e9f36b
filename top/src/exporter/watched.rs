//! One stats server that the exporter reads, and what came of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rwsgi_stats::Snapshot;

use crate::source::{Fetcher, Target};

/// Fetchers that are kept for the next scrape: two Prometheus servers, as one has for availability, ask at once at most.
const MOST_KEPT: usize = 2;

/// A server and how its scrapes went.
#[derive(Debug)]
pub(super) struct Watched {
    /// The address as it is shown, and asked for.
    pub(super) name: String,
    target: Target,
    timeout: Duration,
    /// They know which address of a name answered last, and never resolve a name twice at once.
    idle: Mutex<Vec<Fetcher>>,
    failing: AtomicBool,
    pub(super) read: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Watched {
    pub(super) fn new(target: Target, timeout: Duration) -> Self {
        Self {
            name: target.to_string(),
            target,
            timeout,
            idle: Mutex::default(),
            failing: AtomicBool::default(),
            read: AtomicU64::default(),
            failed: AtomicU64::default(),
        }
    }

    /// Reads the server; `None` when it does not answer. The first failure in a row is logged, and the end of them.
    pub(super) fn read(&self) -> Option<Snapshot> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut fetcher = idle.unwrap_or_else(|| Fetcher::new(self.target.clone(), self.timeout));
        let outcome = fetcher.fetch();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_KEPT {
            idle.push(fetcher);
        }
        drop(idle);
        match outcome {
            Ok(document) => {
                self.read.fetch_add(1, Ordering::Relaxed);
                if self.failing.swap(false, Ordering::Relaxed) {
                    super::note(&format!("{}: answers again", self.name));
                }
                Some(*document.snapshot)
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    super::note(&format!("{}: {error}; trying again at each scrape", self.name));
                }
                None
            }
        }
    }
}
