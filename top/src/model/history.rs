//! The last hour, in bounded memory: samples packed, and the series that charts are drawn from.
//!
//! As long as there is room, every sample is kept (one a second at most). When there is no more, two neighbouring blocks
//! become one of every second of their samples, where that is missed the least: what is twice as old may stand twice as
//! far apart. So the hour is always there, as finely as the budget allows.

use std::collections::VecDeque;
use std::time::Duration;

use super::pack::Block;
use super::{Counts, Sample};
use crate::source::Monotonic;

/// Frames in a block: the most that have to be unpacked to see one.
const BLOCK: usize = 30;
/// How much time is kept.
const SPAN: Duration = Duration::from_secs(3_600);
/// Bytes of packed samples that are kept.
const BUDGET: usize = 9 << 18;
/// Samples that come closer than this go into the history together, as when a screen is fast.
const SPACING: Duration = Duration::from_millis(900);

/// Rows of the heat map: powers of two from below 128 µs up to more than 60 s.
pub(crate) const HEAT_ROWS: usize = 20;

/// The lowest latency (µs) that is counted in a row of the heat map.
pub(crate) fn heat_floor(row: usize) -> u64 {
    if row == 0 { 0 } else { 64 << row }
}

/// One second of the charts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// When.
    pub(crate) at: Monotonic,
    /// Requests per second.
    pub(crate) rps: Option<f32>,
    /// Exceptions per second.
    pub(crate) exceptions: Option<f32>,
    /// 0 to 1.
    pub(crate) utilization: Option<f32>,
    /// µs: p50, p95, p99.
    pub(crate) latency: Option<[u32; 3]>,
    /// Requests and connections that wait.
    pub(crate) queue: u32,
    /// Bytes: PSS where it is known, else RSS.
    pub(crate) memory: u64,
    /// The generation that serves.
    pub(crate) generation: Option<u32>,
    /// Requests by latency, a row for each of [`HEAT_ROWS`].
    pub(crate) heat: [u16; HEAT_ROWS],
}

impl Point {
    /// Takes over what the other one knows.
    fn add(&mut self, other: &Self) {
        self.rps = other.rps.or(self.rps);
        self.utilization = other.utilization.or(self.utilization);
        self.latency = other.latency.or(self.latency);
        self.memory = self.memory.max(other.memory);
    }
}

/// What is remembered of one server.
#[derive(Debug, Default)]
pub(crate) struct History {
    points: VecDeque<Point>,
    ever: Point,
    /// Oldest first.
    blocks: VecDeque<Block>,
    open: Block,
    /// Samples since the last point: those that came too close to have one of their own.
    pending: Pending,
}

/// What the next point is made from.
#[derive(Debug, Default)]
struct Pending {
    rps: Mean,
    exceptions: Mean,
    utilization: Mean,
    latency: Counts,
    /// The longest.
    queue: u64,
    /// The most.
    memory: u64,
    /// The last.
    generation: Option<u32>,
}

/// A mean over time.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    seconds: f64,
}

impl Mean {
    fn add(&mut self, value: Option<f64>, seconds: f64) {
        if let Some(value) = value {
            self.sum += value * seconds;
            self.seconds += seconds;
        }
    }

    fn get(self) -> Option<f32> {
        (self.seconds > 0.0).then(|| (self.sum / self.seconds) as f32)
    }
}

impl Pending {
    fn add(&mut self, sample: &Sample) {
        let totals = &sample.totals;
        // Servers together have no window of their own; their rounds are as long as each other.
        let seconds = sample.window.unwrap_or(1.0);
        self.rps.add(totals.rps, seconds);
        self.exceptions.add(totals.exception_rate, seconds);
        self.utilization.add(totals.utilization, seconds);
        if let Some(latency) = &totals.latency {
            self.latency.merge(latency);
        }
        self.queue = self.queue.max(totals.queue);
        self.generation = sample.snapshot.generation.or(self.generation);
        self.memory = self.memory.max(totals.pss.unwrap_or(totals.rss));
    }

    fn point(&self, at: Monotonic) -> Point {
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut heat = [0u16; HEAT_ROWS];
        for (value, count) in self.latency.iter() {
            let row = (1..HEAT_ROWS).rev().find(|row| value >= heat_floor(*row)).unwrap_or(0);
            heat[row] = heat[row].saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
        }
        Point {
            at,
            rps: self.rps.get(),
            exceptions: self.exceptions.get(),
            utilization: self.utilization.get(),
            latency: self.latency.percentiles().map(|p| [p.p50, p.p95, p.p99].map(small)),
            queue: small(self.queue),
            memory: self.memory,
            generation: self.generation,
            heat,
        }
    }
}

impl History {
    /// Remembers a sample.
    pub(crate) fn push(&mut self, sample: &mut Sample) {
        self.pending.add(sample);
        if self.points.back().is_some_and(|last| sample.at < last.at.after(SPACING)) {
            return;
        }
        let point = std::mem::take(&mut self.pending).point(sample.at);
        self.ever.add(&point);
        self.points.push_back(point);
        self.open.push(sample);
        if self.open.times().len() >= BLOCK || self.open.size() > BUDGET / 16 {
            let mut full = std::mem::take(&mut self.open);
            full.close();
            self.blocks.push_back(full);
        }
        self.forget(sample.at);
    }

    /// Lets go of what is too old, and keeps within the budget.
    fn forget(&mut self, now: Monotonic) {
        let oldest = now.before(SPAN);
        while self.points.front().is_some_and(|point| point.at < oldest) {
            self.points.pop_front();
        }
        // The block that reaches back beyond the hour stays until the next one does.
        while self.blocks.get(1).is_some_and(|next| next.start() <= oldest) {
            self.blocks.pop_front();
        }
        while self.blocks.iter().map(Block::size).sum::<usize>() > BUDGET {
            match self.least_missed(now) {
                Some(place) => {
                    if let Some(newer) = self.blocks.remove(place + 1) {
                        let merged = Block::thinned(&self.blocks[place], &newer);
                        self.blocks[place] = merged;
                    }
                }
                None => drop(self.blocks.pop_front()),
            }
        }
    }

    /// The first of the two neighbours that are finest for their age.
    fn least_missed(&self, now: Monotonic) -> Option<usize> {
        let fineness = |place: &usize| {
            let (older, newer) = (&self.blocks[*place], &self.blocks[place + 1]);
            let (age, span) = (now.since(newer.end()), newer.end().since(older.start()));
            // Seconds of age for each second between two frames of the two.
            let frames = older.times().len() + newer.times().len();
            (age + SPAN / 60).as_secs_f64() / (span.as_secs_f64() / frames as f64).max(1e-6)
        };
        let last = self.blocks.len().checked_sub(1)?;
        (0..last).max_by(|a, b| fineness(a).total_cmp(&fineness(b)))
    }

    /// The series of the charts, oldest first.
    pub(crate) fn points(&self) -> &VecDeque<Point> {
        &self.points
    }

    /// What of the series was ever told; its numbers say nothing.
    pub(crate) fn ever(&self) -> &Point {
        &self.ever
    }

    fn blocks(&self) -> impl DoubleEndedIterator<Item = &Block> {
        self.blocks.iter().chain(std::iter::once(&self.open))
    }

    /// The time of the frame `steps` after (before, when negative) the one at `from`; the first or the last when there
    /// are not so many. `None` when nothing is remembered.
    pub(crate) fn step(&self, from: Monotonic, steps: isize) -> Option<Monotonic> {
        let times: Vec<Monotonic> = self.blocks().flat_map(|block| block.times().iter().copied()).collect();
        let place = times.partition_point(|time| *time < from);
        times.get(place.saturating_add_signed(steps).min(times.len().checked_sub(1)?)).copied()
    }

    /// When the last frame was taken.
    pub(crate) fn latest(&self) -> Option<Monotonic> {
        self.blocks().rev().find_map(|block| block.times().last().copied())
    }

    /// The sample that was current at a time: the last one that was taken no later.
    pub(crate) fn at(&self, time: Monotonic) -> Option<Sample> {
        let block = self.blocks().rev().find(|block| block.times().first().is_some_and(|first| *first <= time))?;
        let place = block.times().partition_point(|taken| *taken <= time).checked_sub(1)?;
        block.frame(place)
    }

    /// Seconds between the samples around a time: what one step goes.
    pub(crate) fn spacing(&self, time: Monotonic) -> u64 {
        let apart = |steps| self.step(time, steps).map_or(0, |other| other.as_micros().abs_diff(time.as_micros()));
        // At an end there is nothing on the other side; between a fine and a coarse part, the fine one is near.
        let (before, after) = (apart(-1), apart(1));
        let nearer = if before == 0 || after == 0 { before.max(after) } else { before.min(after) };
        (nearer + 500_000) / 1_000_000
    }

    /// Bytes that it takes, about.
    #[cfg(test)]
    fn size(&self) -> usize {
        self.points.len() * size_of::<Point>() + self.blocks().map(Block::size).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Percentiles, Rates, RouteWindow, Totals};
    use rwsgi_stats::{Core, LastException, RequestInfo, Route, Snapshot, Worker};

    fn seconds(seconds: u64) -> Monotonic {
        Monotonic::from_micros(seconds * 1_000_000)
    }

    /// A pool in which every worker is busy, so that as many numbers change as can.
    fn sample(second: u64, workers: u32) -> Sample {
        let noise = |seed: u64| (second * 7_919 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50;
        let worker = |id: u32| {
            let seed = u64::from(id);
            let request = RequestInfo {
                uri: Some(format!("/page/{}", noise(seed) % 10)),
                elapsed: Some(noise(seed)),
                ..RequestInfo::default()
            };
            let core = Core { requests: second * 30 + seed, in_request: 1, req_info: request, ..Core::default() };
            Worker {
                id,
                pid: 4_000 + id as i32,
                status: if noise(seed) % 2 == 0 { "busy" } else { "idle" }.into(),
                requests: second * 60 + noise(seed) % 9,
                tx: second * 100_000 + noise(seed),
                running_time: second * 600_000 + noise(seed),
                avg_rt: noise(seed),
                rss: (40 << 20) + (noise(seed) << 12),
                cores: vec![core.clone(), core],
                ..Worker::default()
            }
        };
        let rates = |id: u64| Rates {
            rps: Some(60.0 + (noise(id) % 9) as f64),
            utilization: Some((noise(id) % 1_000) as f64 / 1e3),
            latency: Some(Percentiles { p50: noise(id), p95: 2 * noise(id), p99: 3 * noise(id), max: 4 * noise(id) }),
            cores: vec![30.0, 31.0],
            ..Rates::default()
        };
        let snapshot = Snapshot {
            version: "1".into(),
            pid: 9,
            workers: (1..=workers).map(worker).collect(),
            ..Snapshot::default()
        };
        let totals = Totals { rps: Some(second as f64), ..Totals::of(&snapshot) };
        let workers = (1..=u64::from(workers)).map(rates).collect();
        Sample { at: seconds(second), window: Some(1.0), snapshot, workers, totals, ..Sample::default() }
    }

    #[test]
    fn a_sample_comes_back_as_it_was() {
        let mut history = History::default();
        for second in 1..=100 {
            history.push(&mut sample(second, 3));
        }
        for second in [1, 29, 30, 31, 77, 100] {
            assert_eq!(
                history.at(Monotonic::from_micros(second * 1_000_000 + 5)).unwrap(),
                sample(second, 3),
                "second {second}"
            );
        }
        assert_eq!(history.at(seconds(0)), None);
        assert_eq!(history.step(seconds(50), -1), Some(seconds(49)));
        assert_eq!(history.step(seconds(50), 1_000), Some(seconds(100)));
        assert_eq!(history.step(seconds(50), -1_000), Some(seconds(1)));
        assert_eq!(History::default().step(seconds(5), 1), None);
    }

    #[test]
    fn an_hour_of_any_pool_is_kept_within_bounds_and_finer_the_newer_it_is() {
        for (workers, coarsest) in [(4, 1), (64, 32), (1_000, 640)] {
            let mut history = History::default();
            // What stands far apart is of a large pool; making its samples is most of this test's time.
            for second in (1..=4_000).step_by(if workers > 64 { 20 } else { 1 }) {
                history.push(&mut sample(second, workers));
            }
            assert!(history.size() < BUDGET + BUDGET / 4 + (1 << 19), "{workers}: {} bytes", history.size());
            let latest = history.latest().unwrap();
            let oldest = history.step(seconds(0), 0).unwrap();
            let back = latest.since(oldest).as_secs();
            assert!(back >= 3_500, "{workers}: {back} seconds are left");
            let spacings = [0, 600, 1_800, 3_000].map(|ago| {
                let time = history.step(latest.before(Duration::from_secs(ago)), 0).unwrap();
                assert_eq!(history.at(time).unwrap(), sample(time.as_micros() / 1_000_000, workers));
                history.spacing(time)
            });
            assert!(spacings.is_sorted() && spacings[3] <= coarsest, "{workers}: {spacings:?}");
        }
    }

    #[test]
    fn an_hour_of_200_busy_routes_is_kept_within_the_same_bounds() {
        let with_routes = |second: u64| {
            let noise = |seed: u64| (second * 7_919 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50;
            let exception = |id: u64| LastException {
                kind: "ValueError".into(),
                message: format!("no {id}").repeat(20),
                traceback: vec![format!("/srv/app/views/{id}.py:41 in view"); 5],
                when: second / 60,
                ..LastException::default()
            };
            let route = |id: u64| Route {
                route: format!("/pages/{id}/{{}}"),
                requests: second * 60 + noise(id) % 9,
                tx: second * 100_000 + noise(id),
                last_exception: Some(exception(id)),
                ..Route::default()
            };
            let window = |id: u64| RouteWindow {
                requests: 60 + noise(id) % 9,
                busy: 600_000 + noise(id),
                tx: 100_000 + noise(id),
                gil_wait: noise(id),
                latency: Some(Percentiles {
                    p50: noise(id),
                    p95: 2 * noise(id),
                    p99: 3 * noise(id),
                    max: 4 * noise(id),
                }),
                ..RouteWindow::default()
            };
            let mut sample = sample(second, 4);
            sample.snapshot.routes = Some((0..200).map(route).collect());
            sample.routes = (0..200).map(window).collect();
            sample
        };
        let mut history = History::default();
        for second in (1..=4_000).step_by(5) {
            history.push(&mut with_routes(second));
        }
        assert!(history.size() < BUDGET + BUDGET / 4 + (1 << 19), "{} bytes", history.size());
        let latest = history.latest().unwrap();
        assert_eq!(history.at(latest).unwrap(), with_routes(latest.as_micros() / 1_000_000));
        assert!(latest.since(history.step(seconds(0), 0).unwrap()).as_secs() >= 3_500);
    }

    #[test]
    fn a_fast_screen_does_not_shorten_the_hour() {
        let mut history = History::default();
        for tenth in 0..100 {
            let mut sample = sample(1, 1);
            sample.at = Monotonic::from_micros(tenth * 100_000);
            history.push(&mut sample);
        }
        assert!(history.points().len() <= 12, "{}", history.points().len());
    }

    #[test]
    fn a_point_tells_of_all_that_was_read_since_the_one_before() {
        let mut history = History::default();
        // Ten samples a second; the odd seconds' requests all fall into one tenth of them, where they raise and queue.
        for tenth in 0..=60u64 {
            let busy = tenth % 20 == 13;
            let mut sample = Sample {
                at: Monotonic::from_micros(tenth * 100_000),
                window: Some(0.1),
                totals: Totals {
                    rps: Some(if busy { 1_000.0 } else { 0.0 }),
                    exception_rate: Some(if busy { 20.0 } else { 0.0 }),
                    utilization: Some(if busy { 1.0 } else { 0.0 }),
                    queue: if busy { 50 } else { 0 },
                    ..Totals::default()
                },
                ..Sample::default()
            };
            history.push(&mut sample);
        }
        let seconds = || history.points().iter().skip(1);
        let requests: f32 = seconds().map(|point| point.rps.unwrap_or(0.0)).sum();
        assert!((requests - 300.0).abs() < 40.0, "three times 100 requests: {requests}");
        let raised: f32 = seconds().map(|point| point.exceptions.unwrap_or(0.0)).sum();
        assert!((raised - 6.0).abs() < 1.0, "{raised}");
        let busy = seconds().filter(|point| point.queue == 50 && point.utilization.is_some_and(|share| share > 0.09));
        assert_eq!(busy.count(), 3);
    }
}
