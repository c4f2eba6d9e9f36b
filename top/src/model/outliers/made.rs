//! Servers that are made for tests: what they tell, second by second.

use std::sync::Arc;

use crate::source::fleet::{FleetEvent, Run, Server, ServerId, ServerSample};
use crate::source::{Monotonic, SourceError};
use rwsgi_assertions::Counts;
use rwsgi_stats::latency;

/// What a server does in a second.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    pub(crate) latencies: Vec<u64>,
    pub(crate) errors: u64,
    pub(crate) busy: u32,
    pub(crate) rss: u64,
    pub(crate) generation: u32,
}

/// A server that is well: 40 requests of 10 to 20 ms.
pub(crate) fn well() -> Second {
    let latencies = (0..40).map(|n| 10_000 + n * 250).collect();
    Second { latencies, errors: 0, busy: 1, rss: 200 << 20, generation: 1 }
}

/// So many times as slow.
pub(crate) fn slower(second: Second, factor: u64) -> Second {
    Second { latencies: second.latencies.iter().map(|micros| micros * factor).collect(), ..second }
}

/// So many seconds after rtop began.
pub(crate) fn at(second: u64) -> Monotonic {
    Monotonic::from_micros(second * 1_000_000)
}

fn counts(latencies: &[u64]) -> Counts {
    let mut indices: Vec<u16> = latencies.iter().map(|micros| latency::index_of(*micros) as u16).collect();
    indices.sort_unstable();
    let mut counts = Counts::default();
    for index in indices {
        match counts.pairs_mut().last_mut() {
            Some((last, count)) if *last == index => *count += 1,
            _ => counts.pairs_mut().push((index, 1)),
        }
    }
    counts
}

/// Servers web0, web1 …
pub(crate) struct Made {
    pub(crate) samples: Vec<ServerSample>,
    pub(crate) second: u64,
}

fn fresh(run: Run) -> ServerSample {
    ServerSample {
        run: Arc::new(run),
        threads: 8,
        workers: 4,
        failed: Some([0, 0]),
        latency: Some(Arc::default()),
        ..ServerSample::default()
    }
}

impl Made {
    pub(crate) fn new(servers: usize) -> Self {
        let run = |place: usize| Run {
            is_rwsgi: true,
            version: "0.1.0".into(),
            pid: 100 + place as i32,
            started_at: Some(1_000_000),
            ..Run::default()
        };
        Self { samples: (0..servers).map(|place| fresh(run(place))).collect(), second: 0 }
    }

    /// They become known, with labels of their own.
    pub(crate) fn joined(&self, labels: impl Fn(usize) -> Vec<(String, String)>) -> Vec<FleetEvent> {
        let server = |place: usize| Server {
            name: format!("web{place}"),
            labels: labels(place),
            address: format!("web{place}:9191").parse().ok(),
        };
        (0..self.samples.len()).map(|place| FleetEvent::Joined(ServerId(place as u32), server(place))).collect()
    }

    /// A second goes by in which each server does this; `None` is one that cannot be read.
    pub(crate) fn second(&mut self, mut does: impl FnMut(usize) -> Option<Second>) -> Vec<FleetEvent> {
        self.second += 1;
        let mut events = Vec::new();
        for place in 0..self.samples.len() {
            let id = ServerId(place as u32);
            let Some(did) = does(place) else {
                events.push(FleetEvent::Failed(id, at(self.second), SourceError::Empty));
                continue;
            };
            let sample = &mut self.samples[place];
            sample.at = at(self.second);
            sample.now = Some(3_600_000_000 + self.second * 1_000_000);
            sample.requests += did.latencies.len() as u64;
            sample.running_time += did.latencies.iter().sum::<u64>();
            sample.failed = sample.failed.map(|[client, server]| [client, server + did.errors]);
            let mut all = sample.latency.as_deref().cloned().unwrap_or_default();
            all.merge(&counts(&did.latencies));
            sample.latency = Some(Arc::new(all));
            (sample.busy_threads, sample.rss, sample.rss_max) = (did.busy, did.rss, did.rss);
            sample.generation = Some(did.generation);
            events.push(FleetEvent::Sample(id, Box::new(sample.clone())));
        }
        events.push(FleetEvent::Sweep(at(self.second)));
        events
    }

    /// Another run of a server answers from now on.
    pub(crate) fn restart(&mut self, place: usize) {
        let run = &self.samples[place].run;
        let run = Run { pid: run.pid + 1_000, started_at: Some(self.second * 1_000_000), ..(**run).clone() };
        self.samples[place] = fresh(run);
    }

    /// A server is of another version.
    pub(crate) fn version(&mut self, place: usize, version: &str) {
        let run = &self.samples[place].run;
        self.samples[place].run = Arc::new(Run { version: version.into(), ..(**run).clone() });
    }
}
