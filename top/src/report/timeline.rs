//! A run in the order of time: each server's windows, as many as a page shows, and what happened to it.

use std::collections::BTreeMap;

use super::window::Steps;
use crate::model::Pool;
use crate::source::{LocalMicros, Monotonic};
use rwsgi_assertions::Window;

/// Slices that are kept of a server; when there are more, each two neighbours become one.
const MOST_SLICES: usize = 180;
const _: () = assert!(MOST_SLICES.is_multiple_of(2), "the slice that is one too many is then without a neighbour");
/// Events that are kept of a server; the rest is counted.
const MOST_EVENTS: usize = 500;

/// A part of the run: one window, with when it was.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) begin: Monotonic,
    pub(super) end: Monotonic,
    /// What this machine's clock said at the end.
    pub(super) taken: LocalMicros,
    pub(super) window: Window,
    /// The most resident memory of each worker that had some, bytes, by its number.
    pub(super) memory: BTreeMap<u32, u64>,
}

impl Slice {
    fn remember(&mut self, memory: BTreeMap<u32, u64>) {
        for (id, rss) in memory {
            let most = self.memory.entry(id).or_default();
            *most = rss.max(*most);
        }
    }
}

/// What happened to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The server was restarted.
    Restarted,
    /// It loaded the application anew: the number of the generation.
    Generation(u32),
    /// Processes of these workers were started.
    Respawned(Vec<u32>),
    /// It gave no sample, until then; `None` when it never did again.
    Silent(String, Option<Monotonic>),
}

/// Something that happened, with when it was seen.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Monotonic,
    pub(super) taken: LocalMicros,
    pub(super) what: What,
}

/// What was seen of one server.
#[derive(Debug)]
pub(super) struct Track {
    steps: Steps,
    /// Oldest first, each of as many steps as the others; only the last may have fewer.
    slices: Vec<Slice>,
    per_slice: u32,
    in_last: u32,
    events: Vec<Event>,
    not_kept: u64,
    /// The place of the event of a silence that is not over.
    silence: Option<usize>,
    known: Option<Known>,
}

/// What the next sample is compared with.
#[derive(Debug)]
struct Known {
    restarts: u64,
    generation: Option<u32>,
    /// Each worker's number, and how often its process was started.
    respawns: Vec<(u32, u64)>,
}

impl Known {
    fn of(pool: &Pool) -> Option<Self> {
        let snapshot = &pool.current.as_ref()?.snapshot;
        Some(Self {
            restarts: pool.restarts,
            generation: snapshot.generation,
            respawns: snapshot.workers.iter().map(|worker| (worker.id, worker.respawn_count)).collect(),
        })
    }
}

impl Default for Track {
    fn default() -> Self {
        Self {
            steps: Steps::default(),
            slices: Vec::new(),
            per_slice: 1,
            in_last: 1,
            events: Vec::new(),
            not_kept: 0,
            silence: None,
            known: None,
        }
    }
}

impl Track {
    /// Takes in what the server's pool has just learned from a sample that was taken `at`.
    pub(super) fn take(&mut self, pool: &Pool, at: Monotonic, taken: LocalMicros) {
        if let Some(trouble) = &pool.trouble {
            if self.silence.is_none() && self.happened(at, taken, What::Silent(trouble.message.clone(), None)) {
                self.silence = Some(self.events.len() - 1);
            }
            return;
        }
        if let Some(place) = self.silence.take()
            && let Some(Event { what: What::Silent(_, until), .. }) = self.events.get_mut(place)
        {
            *until = Some(at);
        }
        self.compare(pool, at, taken);
        let Some(step) = self.steps.step(pool, taken) else { return };
        let workers = pool.current.iter().flat_map(|sample| &sample.snapshot.workers);
        let memory = workers.filter(|worker| worker.pid > 0 && worker.rss > 0).map(|worker| (worker.id, worker.rss));
        let memory = memory.collect();
        match self.slices.last_mut() {
            Some(last) if self.in_last < self.per_slice => {
                self.in_last += 1;
                last.window.then(&step.whole);
                last.remember(memory);
                (last.end, last.taken) = (step.end, taken);
            }
            _ => {
                self.in_last = 1;
                self.slices.push(Slice { begin: step.begin, end: step.end, taken, window: step.whole, memory });
            }
        }
        if self.slices.len() > MOST_SLICES {
            self.join_neighbours();
        }
    }

    fn join_neighbours(&mut self) {
        let joined = self.slices.chunks(2).map(|pair| {
            let mut first = pair[0].clone();
            if let [_, second] = pair {
                first.window.then(&second.window);
                first.remember(second.memory.clone());
                (first.end, first.taken) = (second.end, second.taken);
            }
            first
        });
        let joined = joined.collect();
        // The last one, which was just begun, has no neighbour: it goes on.
        self.per_slice *= 2;
        self.slices = joined;
    }

    fn compare(&mut self, pool: &Pool, at: Monotonic, taken: LocalMicros) {
        let Some(now) = Known::of(pool) else { return };
        if let Some(before) = self.known.take() {
            if before.restarts != now.restarts {
                self.happened(at, taken, What::Restarted);
            } else {
                let started = now.respawns.iter().filter(|(id, count)| {
                    before.respawns.iter().any(|(known, earlier)| known == id && count > earlier)
                });
                let started: Vec<u32> = started.map(|(id, _)| *id).collect();
                if !started.is_empty() {
                    self.happened(at, taken, What::Respawned(started));
                }
                if let Some(generation) = now.generation.filter(|_| before.generation != now.generation) {
                    self.happened(at, taken, What::Generation(generation));
                }
            }
        }
        self.known = Some(now);
    }

    /// Returns whether it is kept.
    fn happened(&mut self, at: Monotonic, taken: LocalMicros, what: What) -> bool {
        let kept = self.events.len() < MOST_EVENTS;
        if kept {
            self.events.push(Event { at, taken, what });
        } else {
            self.not_kept += 1;
        }
        kept
    }

    /// The run, oldest first.
    pub(super) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// What happened, oldest first, and how much more did that is not kept.
    pub(super) fn events(&self) -> (&[Event], u64) {
        (&self.events, self.not_kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Poll, SourceError, parse};

    /// A server of which each sample is one of these.
    fn track(documents: impl IntoIterator<Item = Option<String>>) -> Track {
        let (mut pool, mut track) = (Pool::new("web1".into(), None), Track::default());
        for (second, document) in (0u64..).zip(documents) {
            let (at, taken) = (Monotonic::from_micros(second * 1_000_000), LocalMicros(second * 1_000_000));
            let outcome = document.map_or(Err(SourceError::Empty), |text| parse(text.into_bytes()));
            pool.ingest(Poll { target: 0, at, taken, outcome });
            track.take(&pool, at, taken);
        }
        track
    }

    fn document(requests: u64, generation: u32, respawns: u64, pid: u32) -> Option<String> {
        Some(format!(
            r#"{{"version":"1","pid":{pid},"generation":{generation},
            "workers":[{{"id":3,"pid":8,"requests":{requests},"respawn_count":{respawns}}}]}}"#
        ))
    }

    #[test]
    fn a_long_run_loses_no_request_and_stays_bounded() {
        for length in [1, 2, 180, 181, 182, 363, 1_000, 5_001] {
            let track = track((0..length).map(|second| document(second * 7, 1, 1, 9)));
            let slices = track.slices();
            assert!(slices.len() <= MOST_SLICES, "{length}: {}", slices.len());
            assert_eq!(slices.iter().map(|slice| slice.window.requests).sum::<u64>(), (length - 1) * 7, "{length}");
            assert!(slices.windows(2).all(|pair| pair[0].end == pair[1].begin), "{length}");
            assert_eq!(slices.last().unwrap().end, Monotonic::from_micros((length - 1) * 1_000_000));
        }
    }

    #[test]
    fn restarts_generations_workers_starts_and_silences_are_told_once_each() {
        let documents = [
            document(1, 1, 1, 9),
            document(2, 2, 1, 9),
            document(3, 2, 3, 9),
            None,
            None,
            document(4, 2, 3, 9),
            document(0, 1, 1, 10),
            None,
        ];
        let track = track(documents);
        let told = track.events().0.iter().map(|event| (event.at.as_micros() / 1_000_000, event.what.clone()));
        let why = SourceError::Empty.to_string();
        let expected = [
            (1, What::Generation(2)),
            (2, What::Respawned(vec![3])),
            (3, What::Silent(why.clone(), Some(Monotonic::from_micros(5_000_000)))),
            (6, What::Restarted),
            (7, What::Silent(why, None)),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_server_that_always_starts_something_does_not_fill_the_memory() {
        let track = track((0..1_000).map(|second| document(second, 1, second, 9)));
        let (kept, more) = track.events();
        assert_eq!((kept.len(), more), (MOST_EVENTS, 999 - MOST_EVENTS as u64));
    }
}
