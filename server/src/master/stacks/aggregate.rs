//! What a profile has seen, counted: equal stacks are one, of bounded number. No system calls here.

use std::collections::HashMap;

use rwsgi_stats::control::{Frame, Profile, ProfileStack, ThreadState};

use crate::stacks::answer::{Answer, Facts, parse_frame, split_frames};
use crate::stacks::drivers::{is_driver, state};

/// Stacks that are told apart.
const MOST_STACKS: usize = 10_000;
/// Frames that are told apart.
const MOST_FRAMES: usize = 50_000;
/// Routes that are told apart.
const MOST_ROUTES: usize = 1_000;

/// Stands for stacks beyond that, and for their frames.
const OTHER: &str = "(other stacks)";
/// Stands outside the outermost frame, where more were cut off.
const CUT: &str = "(outer frames)";
/// Stands for a request that is in no Python code.
const SERVER: &str = "(server)";

/// Samples, counted.
#[derive(Debug, Default)]
pub(super) struct Aggregate {
    /// Each frame as its thread has written it, and its place.
    places: HashMap<Box<[u8]>, u32>,
    frames: Vec<Seen>,
    routes: HashMap<String, u32>,
    /// Frames, the outermost first.
    stacks: HashMap<Key, u64>,
    /// All samples.
    pub(super) samples: u64,
}

/// A frame that was seen.
#[derive(Debug)]
struct Seen {
    frame: Frame,
    is_driver: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    route: u32,
    state: ThreadState,
    frames: Vec<u32>,
}

impl Aggregate {
    /// Counts what a thread in a request of this route has answered, for so many ticks.
    pub(super) fn add(&mut self, route: &str, answer: &Answer, ticks: u64) {
        let written = split_frames(&answer.frames);
        let Some(mut frames) = written.map(|frame| self.place(frame)).collect::<Option<Vec<_>>>() else {
            return self.count(route, state(answer, false), Vec::new(), OTHER, ticks);
        };
        let in_driver = frames.iter().any(|place| self.frames.get(*place as usize).is_some_and(|seen| seen.is_driver));
        let state = state(answer, in_driver);
        frames.reverse();
        let outside = match frames.is_empty() {
            true => SERVER,
            false if answer.facts.has(Facts::CUT) => CUT,
            false => "",
        };
        self.count(route, state, frames, outside, ticks);
    }

    /// Counts a stack, with one of our own frames outside it if that is not empty.
    fn count(&mut self, route: &str, state: ThreadState, mut frames: Vec<u32>, outside: &'static str, ticks: u64) {
        self.samples += ticks;
        if !outside.is_empty() {
            let own = self.own_place(outside);
            frames.insert(0, own);
        }
        let route = self.route(route);
        let key = Key { route, state, frames };
        if let Some(count) = self.stacks.get_mut(&key) {
            *count += ticks;
        } else if self.stacks.len() < MOST_STACKS {
            self.stacks.insert(key, ticks);
        } else {
            // One for each state, and the route that all share when there are too many.
            let other = Key { route: 0, state, frames: vec![self.own_place(OTHER)] };
            *self.stacks.entry(other).or_default() += ticks;
        }
    }

    /// The place of a frame; `None` when there are too many.
    fn place(&mut self, bytes: &[u8]) -> Option<u32> {
        if let Some(place) = self.places.get(bytes) {
            return Some(*place);
        }
        if self.frames.len() >= MOST_FRAMES {
            return None;
        }
        let frame = parse_frame(bytes)?;
        Some(self.add_frame(bytes, frame))
    }

    /// The place of a frame of our own.
    fn own_place(&mut self, name: &'static str) -> u32 {
        match self.places.get(name.as_bytes()) {
            Some(place) => *place,
            None => self.add_frame(name.as_bytes(), Frame { function: name.into(), ..Frame::default() }),
        }
    }

    fn add_frame(&mut self, bytes: &[u8], frame: Frame) -> u32 {
        let place = self.frames.len() as u32;
        self.frames.push(Seen { is_driver: is_driver(&frame.file), frame });
        self.places.insert(bytes.into(), place);
        place
    }

    /// The number of a route; 0 is none.
    fn route(&mut self, route: &str) -> u32 {
        if route.is_empty() {
            return 0;
        }
        if let Some(number) = self.routes.get(route) {
            return *number;
        }
        if self.routes.len() >= MOST_ROUTES {
            return 0;
        }
        let number = self.routes.len() as u32 + 1;
        self.routes.insert(route.to_owned(), number);
        number
    }

    /// All that was counted, as it is told; what was sampled, and how, is the caller's to say.
    pub(super) fn into_profile(self) -> Profile {
        let mut routes = vec![String::new(); self.routes.len() + 1];
        for (route, number) in self.routes {
            routes[number as usize] = route;
        }
        let stack = |(key, count): (Key, u64)| {
            let route = routes.get(key.route as usize).cloned().unwrap_or_default();
            ProfileStack { route, state: key.state, frames: key.frames, count }
        };
        let mut stacks: Vec<_> = self.stacks.into_iter().map(stack).collect();
        stacks.sort_by(|a, b| (b.count, &a.route, &a.frames, a.state).cmp(&(a.count, &b.route, &b.frames, b.state)));
        Profile {
            samples: self.samples,
            frames: self.frames.into_iter().map(|seen| seen.frame).collect(),
            stacks,
            ..Profile::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, file: &str) -> Vec<u8> {
        let head = [name.len() as u8, file.len() as u8, 7, 0, 0, 0];
        [&head[..], name.as_bytes(), file.as_bytes()].concat()
    }

    fn answer(frames: &[(&str, &str)], facts: Facts) -> Answer {
        let frames = frames.iter().flat_map(|(name, file)| frame(name, file)).collect();
        Answer { facts, frames, ..Answer::default() }
    }

    fn told(profile: &Profile) -> Vec<(String, ThreadState, u64)> {
        let names = |stack: &ProfileStack| {
            let names = stack.frames.iter().map(|place| profile.frames[*place as usize].function.as_str());
            names.collect::<Vec<_>>().join(";")
        };
        profile
            .stacks
            .iter()
            .map(|stack| (stack.route.clone() + " " + &names(stack), stack.state, stack.count))
            .collect()
    }

    #[test]
    fn equal_stacks_are_counted_as_one_by_route_and_state() {
        let mut seen = Aggregate::default();
        let inner = answer(&[("f", "a.py"), ("main", "a.py")], Facts::HAS_GIL);
        for _ in 0..3 {
            seen.add("/x", &inner, 1);
        }
        seen.add("/y", &inner, 1);
        seen.add("/x", &answer(&[("f", "a.py"), ("main", "a.py")], Facts::WAITS_FOR_GIL), 1);
        seen.add("", &answer(&[("execute", "/v/psycopg/cursor.py")], Facts::WAITS | Facts::CUT), 1);
        seen.add("", &answer(&[], Facts::default()), 1);
        let profile = seen.into_profile();
        assert_eq!((profile.samples, profile.stacks[0].count), (7, 3));
        let told = told(&profile);
        assert_eq!(told[0], ("/x main;f".into(), ThreadState::Running, 3));
        for expected in [
            ("/y main;f", ThreadState::Running),
            ("/x main;f", ThreadState::Gil),
            (" (outer frames);execute", ThreadState::Database),
            (" (server)", ThreadState::Native),
        ] {
            assert!(told.contains(&(expected.0.into(), expected.1, 1)), "{told:?}");
        }
    }

    #[test]
    fn what_is_told_apart_is_bounded_and_every_sample_counts() {
        let mut seen = Aggregate::default();
        for number in 0..MOST_FRAMES + 1_000 {
            let name = format!("f{number}");
            seen.add(&format!("/{number}"), &answer(&[(&name, "a.py")], Facts::HAS_GIL), 2);
        }
        let profile = seen.into_profile();
        assert!(profile.stacks.len() <= MOST_STACKS + 8 && profile.frames.len() <= MOST_FRAMES + 8);
        assert_eq!(profile.stacks.iter().map(|stack| stack.count).sum::<u64>(), profile.samples);
        assert_eq!(told(&profile)[0].0, " (other stacks)");
    }
}
