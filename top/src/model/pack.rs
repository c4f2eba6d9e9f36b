//! The packed form of readings: what a frame of the history is kept as.
//!
//! A reading is walked into a list of numbers, and a list is written as the differences to the list before it, runs
//! of zeros as one number. Most of a pool's numbers do not change from one second to the next, so a frame of 64
//! workers takes a few hundred bytes instead of a hundred kilobytes. One walk serves both directions.

use std::collections::HashMap;

use rwsgi_stats::{
    Core, LastException, Limits, Queue, Recycled, RequestInfo, Responses, Snapshot, Socket, Spooler, SpoolerJob,
    Vassal, Worker,
};

use super::{Counts, Percentiles, Rates, Reading, Totals};
use crate::source::{Monotonic, ServerMicros};

/// Goes through a value's numbers in a fixed order: a writer reads them out, a reader puts them in.
trait Walk {
    fn number(&mut self, value: &mut u64);
    fn text(&mut self, value: &mut String);

    fn list<T: Default>(&mut self, values: &mut Vec<T>, mut each: impl FnMut(&mut Self, &mut T)) {
        let mut length = values.len() as u64;
        self.number(&mut length);
        values.resize_with(length as usize, T::default);
        for value in values {
            each(self, value);
        }
    }

    fn option<T: Default>(&mut self, value: &mut Option<T>, each: impl FnOnce(&mut Self, &mut T)) {
        let mut known = u64::from(value.is_some());
        self.number(&mut known);
        if known == 0 {
            *value = None;
        } else {
            each(self, value.get_or_insert_default());
        }
    }

    fn signed(&mut self, value: &mut i32) {
        let mut wide = u64::from(*value as u32);
        self.number(&mut wide);
        *value = wide as u32 as i32;
    }

    fn small(&mut self, value: &mut u32) {
        let mut wide = u64::from(*value);
        self.number(&mut wide);
        *value = wide as u32;
    }

    fn flag(&mut self, value: &mut u8) {
        let mut wide = u64::from(*value);
        self.number(&mut wide);
        *value = wide as u8;
    }

    /// Rates and fractions, to a ten thousandth.
    fn rate(&mut self, value: &mut f64) {
        let mut scaled = (*value * 1e4).round() as u64;
        self.number(&mut scaled);
        *value = scaled as f64 / 1e4;
    }
}

fn reading(walk: &mut impl Walk, reading: &mut Reading) {
    let (mut at, mut clock) = (reading.at.as_micros(), reading.clock.0);
    walk.number(&mut at);
    walk.number(&mut clock);
    (reading.at, reading.clock) = (Monotonic::from_micros(at), ServerMicros(clock));
    walk.option(&mut reading.window, Walk::rate);
    snapshot(walk, &mut reading.snapshot);
    walk.list(&mut reading.workers, rates);
    let totals = &mut reading.totals;
    for rate in
        [&mut totals.rps, &mut totals.exception_rate, &mut totals.tx_rate, &mut totals.utilization, &mut totals.cpu]
    {
        walk.option(rate, Walk::rate);
    }
    for latency in [&mut totals.latency, &mut totals.waiting] {
        walk.option(latency, counts);
    }
    // What the workers add up to is not kept twice; several servers together have no workers of their own.
    if reading.snapshot.workers.is_empty() {
        counters(walk, totals);
    }
}

fn counters(walk: &mut impl Walk, totals: &mut Totals) {
    let Totals { statuses, cores, requests, exceptions, harakiri, respawns, tx, rss, pss, .. } = totals;
    statuses.iter_mut().for_each(|count| walk.number(count));
    [cores, requests, exceptions, harakiri, respawns, tx, rss].into_iter().for_each(|count| walk.number(count));
    walk.option(pss, Walk::number);
    for count in [&mut totals.queue, &mut totals.queue_capacity, &mut totals.queue_errors] {
        walk.number(count);
    }
}

fn counts(walk: &mut impl Walk, counts: &mut Counts) {
    walk.list(counts.pairs_mut(), |walk, (index, count)| {
        let mut wide = u64::from(*index);
        walk.number(&mut wide);
        *index = wide as u16;
        walk.number(count);
    });
}

fn rates(walk: &mut impl Walk, rates: &mut Rates) {
    for rate in [&mut rates.rps, &mut rates.tx, &mut rates.utilization, &mut rates.cpu, &mut rates.gil] {
        walk.option(rate, Walk::rate);
    }
    walk.option(&mut rates.latency, |walk, Percentiles { p50, p95, p99, max }| {
        [p50, p95, p99, max].into_iter().for_each(|value| walk.number(value));
    });
    walk.number(&mut rates.respawned);
    walk.list(&mut rates.cores, Walk::rate);
}

fn snapshot(walk: &mut impl Walk, snapshot: &mut Snapshot) {
    for text in [&mut snapshot.version, &mut snapshot.cwd] {
        walk.text(text);
    }
    for text in [&mut snapshot.server, &mut snapshot.hostname, &mut snapshot.python] {
        walk.option(text, Walk::text);
    }
    walk.signed(&mut snapshot.pid);
    walk.small(&mut snapshot.uid);
    walk.small(&mut snapshot.gid);
    for number in [&mut snapshot.listen_queue, &mut snapshot.listen_queue_errors, &mut snapshot.signal_queue] {
        walk.number(number);
    }
    walk.number(&mut snapshot.load);
    walk.option(&mut snapshot.started_at, Walk::number);
    walk.option(&mut snapshot.generation, Walk::small);
    walk.option(&mut snapshot.queue, |walk, Queue { depth, capacity, waiting: _, rejected, .. }| {
        [depth, capacity, rejected].into_iter().for_each(|value| walk.number(value));
    });
    walk.option(&mut snapshot.limits, |walk, Limits { harakiri, reload_on_rss, reload_on_as, max_requests, .. }| {
        [harakiri, reload_on_rss, reload_on_as, max_requests].into_iter().for_each(|value| walk.number(value));
    });
    walk.list(&mut snapshot.sockets, |walk, Socket { name, proto, queue, max_queue, .. }| {
        walk.text(name);
        walk.text(proto);
        walk.number(queue);
        walk.number(max_queue);
    });
    walk.list(&mut snapshot.workers, worker);
    walk.list(&mut snapshot.spoolers, spooler);
    walk.option(&mut snapshot.emperor, |walk, monitors| walk.list(monitors, Walk::text));
    walk.list(&mut snapshot.vassals, |walk, vassal| {
        let Vassal { id, pid, born, last_ready, respawns, ready, accepting, loyal, cursed, .. } = vassal;
        walk.text(id);
        walk.signed(pid);
        [born, last_ready, respawns].into_iter().for_each(|value| walk.number(value));
        [ready, accepting, loyal, cursed].into_iter().for_each(|value| walk.flag(value));
    });
}

fn spooler(walk: &mut impl Walk, spooler: &mut Spooler) {
    let Spooler { dir, pid, tasks, respawns, running, queue, oldest_age, done, retried, failed, run_time: _, job } =
        spooler;
    walk.text(dir);
    walk.signed(pid);
    walk.number(tasks);
    walk.number(respawns);
    walk.flag(running);
    for number in [queue, oldest_age, done, retried, failed] {
        walk.option(number, Walk::number);
    }
    walk.option(job, |walk, SpoolerJob { name, started, elapsed }| {
        walk.text(name);
        walk.number(started);
        walk.number(elapsed);
    });
}

fn worker(walk: &mut impl Walk, worker: &mut Worker) {
    walk.small(&mut worker.id);
    walk.signed(&mut worker.pid);
    walk.flag(&mut worker.accepting);
    walk.text(&mut worker.status);
    for number in [
        &mut worker.requests,
        &mut worker.delta_requests,
        &mut worker.exceptions,
        &mut worker.harakiri_count,
        &mut worker.signals,
        &mut worker.signal_queue,
        &mut worker.rss,
        &mut worker.vsz,
        &mut worker.running_time,
        &mut worker.last_spawn,
        &mut worker.respawn_count,
        &mut worker.tx,
        &mut worker.avg_rt,
    ] {
        walk.number(number);
    }
    walk.option(&mut worker.generation, Walk::small);
    // The clocks that only grow (busy, processor, lock) are in the rates already.
    for number in [&mut worker.pss, &mut worker.uss, &mut worker.rss_peak] {
        walk.option(number, Walk::number);
    }
    walk.option(&mut worker.responses, |walk, responses| {
        let Responses { informational, success, redirect, client_error, server_error, .. } = responses;
        [informational, success, redirect, client_error, server_error].into_iter().for_each(|value| walk.number(value));
    });
    walk.option(&mut worker.recycled, |walk, recycled| {
        let Recycled { max_requests, lifetime, rss, address_space, harakiri, crash, reload, idle, .. } = recycled;
        [max_requests, lifetime, rss, address_space, harakiri, crash, reload, idle]
            .into_iter()
            .for_each(|v| walk.number(v));
    });
    walk.option(&mut worker.last_exception, |walk, exception| {
        let LastException { kind, message, location, traceback, when, request, .. } = exception;
        [kind, message, location, request].into_iter().for_each(|text| walk.text(text));
        walk.list(traceback, Walk::text);
        walk.number(when);
    });
    walk.list(&mut worker.cores, |walk, Core { id, requests, in_request, req_info, write_errors, read_errors, .. }| {
        walk.small(id);
        walk.number(requests);
        walk.number(write_errors);
        walk.number(read_errors);
        walk.flag(in_request);
        if *in_request != 0 {
            request(walk, req_info);
        }
    });
}

fn request(walk: &mut impl Walk, request: &mut RequestInfo) {
    let RequestInfo { request_start, method, uri, remote_addr, protocol, started, elapsed, .. } = request;
    [method, uri, remote_addr, protocol].into_iter().for_each(|text| walk.option(text, Walk::text));
    [request_start, started, elapsed].into_iter().for_each(|number| walk.option(number, Walk::number));
}

/// A run of readings that are packed one upon the other; the first stands alone.
#[derive(Debug, Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// When each frame was taken.
    times: Vec<Monotonic>,
    /// Every text that occurs, once.
    texts: Vec<String>,
    /// The numbers of the last frame, which the next is subtracted from.
    last: Vec<u64>,
    /// Where each text stands; only while frames are added.
    places: HashMap<String, u64>,
}

impl Block {
    /// Adds a reading, later than those that are there.
    pub(crate) fn push(&mut self, frame: &mut Reading) {
        let numbers = Vec::with_capacity(self.last.len());
        let mut writer = Writer { numbers, last: &self.last, texts: &mut self.texts, places: &mut self.places };
        reading(&mut writer, frame);
        let numbers = writer.numbers;
        put(&mut self.bytes, numbers.len() as u64);
        let mut zeros = 0;
        for (index, number) in numbers.iter().enumerate() {
            let difference = number.wrapping_sub(self.last.get(index).copied().unwrap_or(0)) as i64;
            if difference == 0 {
                zeros += 1;
                continue;
            }
            if zeros > 0 {
                put(&mut self.bytes, 0);
                put(&mut self.bytes, std::mem::take(&mut zeros));
            }
            put(&mut self.bytes, ((difference << 1) ^ (difference >> 63)) as u64);
        }
        if zeros > 0 {
            put(&mut self.bytes, 0);
            put(&mut self.bytes, zeros);
        }
        self.times.push(frame.at);
        self.last = numbers;
    }

    /// Says that nothing will be added: what only that needs is let go.
    pub(crate) fn close(&mut self) {
        self.last = Vec::new();
        self.places = HashMap::new();
        self.texts.shrink_to_fit();
        self.bytes.shrink_to_fit();
        self.times.shrink_to_fit();
    }

    /// When each frame was taken, rising.
    pub(crate) fn times(&self) -> &[Monotonic] {
        &self.times
    }

    /// Bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.len() + size_of::<String>()).sum();
        self.bytes.len() + self.times.len() * 8 + self.last.len() * 8 + texts
    }

    /// The frame at a place.
    pub(crate) fn frame(&self, place: usize) -> Option<Reading> {
        let mut frames = self.frames();
        for _ in 0..place {
            frames.advance()?;
        }
        frames.next()
    }

    /// When its first frame was taken.
    pub(crate) fn start(&self) -> Monotonic {
        self.times.first().copied().unwrap_or_default()
    }

    /// When its last frame was taken.
    pub(crate) fn end(&self) -> Monotonic {
        self.times.last().copied().unwrap_or_default()
    }

    /// Every second frame of two blocks that follow each other, as one. One frame at a time is unpacked.
    pub(crate) fn thinned(older: &Self, newer: &Self) -> Self {
        let mut thinned = Self::default();
        // The first of each pair, so that the oldest frame of all stays.
        let mut wanted = true;
        for block in [older, newer] {
            let mut frames = block.frames();
            while if wanted { frames.next().map(|mut frame| thinned.push(&mut frame)) } else { frames.advance() }
                .is_some()
            {
                wanted = !wanted;
            }
        }
        thinned.close();
        thinned
    }

    /// Its frames, unpacked as they are asked for.
    pub(crate) fn frames(&self) -> Frames<'_> {
        Frames { block: self, bytes: &self.bytes, last: Vec::new(), left: self.times.len() }
    }
}

/// The frames of a [`Block`], one after the other.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    block: &'a Block,
    bytes: &'a [u8],
    last: Vec<u64>,
    left: usize,
}

impl Frames<'_> {
    /// Goes to the next frame's numbers, without making a reading of them.
    fn advance(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        self.last = next(&mut self.bytes, &self.last)?;
        Some(())
    }
}

impl Iterator for Frames<'_> {
    type Item = Reading;

    fn next(&mut self) -> Option<Reading> {
        self.advance()?;
        let mut frame = Reading::default();
        reading(&mut Reader { numbers: self.last.iter(), texts: &self.block.texts }, &mut frame);
        if !frame.snapshot.workers.is_empty() {
            frame.totals = std::mem::take(&mut frame.totals).with_counters_of(&frame.snapshot);
        }
        Some(frame)
    }
}

fn next(bytes: &mut &[u8], last: &[u64]) -> Option<Vec<u64>> {
    let length = take(bytes)? as usize;
    let mut numbers = Vec::with_capacity(length);
    while numbers.len() < length {
        let before = last.get(numbers.len()).copied().unwrap_or(0);
        match take(bytes)? {
            0 => {
                let end = numbers.len() + take(bytes)? as usize;
                while numbers.len() < end {
                    numbers.push(last.get(numbers.len()).copied().unwrap_or(0));
                }
            }
            coded => {
                let difference = (coded >> 1) as i64 ^ -((coded & 1) as i64);
                numbers.push(before.wrapping_add(difference as u64));
            }
        }
    }
    Some(numbers)
}

/// Seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

struct Writer<'a> {
    numbers: Vec<u64>,
    last: &'a [u64],
    texts: &'a mut Vec<String>,
    places: &'a mut HashMap<String, u64>,
}

impl Walk for Writer<'_> {
    fn number(&mut self, value: &mut u64) {
        self.numbers.push(*value);
    }

    fn text(&mut self, value: &mut String) {
        // Nearly always it is the text that stood here a frame ago.
        let before = self.last.get(self.numbers.len()).copied();
        let same = before.filter(|place| self.texts.get(*place as usize).is_some_and(|known| known == value));
        let place = same.or_else(|| self.places.get(value).copied()).unwrap_or_else(|| {
            let place = self.texts.len() as u64;
            self.texts.push(value.clone());
            self.places.insert(value.clone(), place);
            place
        });
        self.numbers.push(place);
    }
}

struct Reader<'a> {
    numbers: std::slice::Iter<'a, u64>,
    texts: &'a [String],
}

impl Walk for Reader<'_> {
    fn number(&mut self, value: &mut u64) {
        *value = self.numbers.next().copied().unwrap_or(0);
    }

    fn text(&mut self, value: &mut String) {
        let mut place = 0;
        self.number(&mut place);
        value.clear();
        value.push_str(self.texts.get(place as usize).map_or("", String::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_of_every_size_survive(lists in prop::collection::vec(prop::collection::vec(any::<u64>(), 0..20), 1..8)) {
            let mut block = Block::default();
            for list in &lists {
                let workers = list.iter().map(|tx| Worker { tx: *tx, ..Worker::default() }).collect();
                let snapshot = Snapshot { workers, ..Snapshot::default() };
                block.push(&mut Reading { snapshot, ..Reading::default() });
            }
            let back: Vec<Reading> = block.frames().collect();
            prop_assert_eq!(back.len(), lists.len());
            for (frame, list) in back.iter().zip(&lists) {
                prop_assert_eq!(&frame.snapshot.workers.iter().map(|worker| worker.tx).collect::<Vec<_>>(), list);
            }
        }
    }
}
