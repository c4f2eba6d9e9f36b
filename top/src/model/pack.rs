//! The packed form of samples: what a frame of the history is kept as.
//!
//! A sample is walked into a list of numbers, and a list is written as the differences to the list before it, runs
//! of zeros as one number. Most of a pool's numbers do not change from one second to the next, so a frame of 64
//! workers takes a few hundred bytes instead of a hundred kilobytes. `postcard` would write each frame whole: it knows no frame
//! before, and the differences are what keeps an hour within a few megabytes.

use std::collections::HashMap;

use super::Sample;
use super::walk::{Walk, sample};
use crate::source::Monotonic;

/// A run of samples that are packed one upon the other; the first stands alone.
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
    /// Adds a sample, later than those that are there.
    pub(crate) fn push(&mut self, frame: &mut Sample) {
        let numbers = Vec::with_capacity(self.last.len());
        let mut writer = Writer { numbers, last: &self.last, texts: &mut self.texts, places: &mut self.places };
        sample(&mut writer, frame);
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
    pub(crate) fn frame(&self, place: usize) -> Option<Sample> {
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
    /// Goes to the next frame's numbers, without making a sample of them.
    fn advance(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        self.last = next(&mut self.bytes, &self.last)?;
        Some(())
    }
}

impl Iterator for Frames<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        self.advance()?;
        let mut frame = Sample::default();
        sample(&mut Reader { numbers: self.last.iter(), texts: &self.block.texts }, &mut frame);
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
    use rwsgi_stats::{Snapshot, Worker};

    proptest! {
        #[test]
        fn numbers_of_every_size_survive(lists in prop::collection::vec(prop::collection::vec(any::<u64>(), 0..20), 1..8)) {
            let mut block = Block::default();
            for list in &lists {
                let workers = list.iter().map(|tx| Worker { tx: *tx, ..Worker::default() }).collect();
                let snapshot = Snapshot { workers, ..Snapshot::default() };
                block.push(&mut Sample { snapshot, ..Sample::default() });
            }
            let back: Vec<Sample> = block.frames().collect();
            prop_assert_eq!(back.len(), lists.len());
            for (frame, list) in back.iter().zip(&lists) {
                prop_assert_eq!(&frame.snapshot.workers.iter().map(|worker| worker.tx).collect::<Vec<_>>(), list);
            }
        }
    }
}
