//! What a profile says in numbers and in a sentence: the functions that have most, and where the application is.

use std::collections::HashMap;

use rwsgi_stats::control::{Frame, Profile};
use serde::Serialize;

use super::flame::place;
use super::threads::{States, package_of};
use crate::format;

/// A function, wherever it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Its file.
    pub(crate) file: String,
    /// The line that was seen most often.
    pub(crate) line: u32,
    /// Samples in itself.
    pub(crate) own: u64,
    /// Samples in it and in what it called; of a recursion once.
    pub(crate) total: States,
}

/// All samples by state.
pub(crate) fn states(profile: &Profile) -> States {
    let mut states = States::default();
    profile.stacks.iter().for_each(|stack| states.add(stack.state, stack.count));
    states
}

/// The functions with the most samples of their own, the most first.
pub(crate) fn functions(profile: &Profile) -> Vec<Function> {
    #[derive(Default)]
    struct Counts {
        own: u64,
        total: States,
        lines: HashMap<u32, u64>,
        /// The last stack that was counted, from 1.
        last: usize,
    }
    let mut all: HashMap<(&str, &str), Counts> = HashMap::new();
    for (number, stack) in profile.stacks.iter().enumerate() {
        let frames: Vec<&Frame> = frames_of(profile, &stack.frames).collect();
        for (depth, frame) in frames.iter().enumerate() {
            let counts = all.entry((&frame.function, &frame.file)).or_default();
            if counts.last != number + 1 {
                counts.last = number + 1;
                counts.total.add(stack.state, stack.count);
            }
            let samples = counts.lines.entry(frame.line).or_default();
            *samples = samples.saturating_add(stack.count);
            if depth + 1 == frames.len() {
                counts.own = counts.own.saturating_add(stack.count);
            }
        }
    }
    let mut functions: Vec<Function> = all
        .into_iter()
        .map(|((name, file), Counts { own, total, lines, .. })| Function {
            name: name.to_owned(),
            file: file.to_owned(),
            line: most(lines),
            own,
            total,
        })
        .collect();
    functions.sort_by(|a, b| {
        let order = |function: &Function| (function.own, function.total.sum());
        order(b).cmp(&order(a)).then_with(|| (&a.file, &a.name).cmp(&(&b.file, &b.name)))
    });
    functions
}

/// The place of the application that most requests are in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Hottest {
    /// All of it in words.
    pub(crate) sentence: String,
    /// Share of the samples of threads in requests, 0 to 1.
    pub(crate) share: f64,
    /// Samples there.
    pub(crate) samples: u64,
    /// Of so many.
    pub(crate) of: u64,
    /// The package of the innermost function, where that is not the application's own.
    pub(crate) package: Option<String>,
    /// The innermost function of the application.
    pub(crate) function: String,
    /// Its file.
    pub(crate) file: String,
    /// The line that was seen most often, 0 when it is unknown.
    pub(crate) line: u32,
    /// What the threads there were doing, most of them.
    pub(crate) state: &'static str,
    /// Share of the samples there that did.
    pub(crate) state_share: f64,
}

/// Where the application is most of the time: of the innermost functions of its own, that with the most samples. Where no frame
/// is the application's own, the innermost of all. `None` for a profile without samples.
pub(crate) fn hottest(profile: &Profile) -> Option<Hottest> {
    #[derive(Default)]
    struct Place<'p> {
        samples: u64,
        states: States,
        lines: HashMap<u32, u64>,
        packages: HashMap<Option<&'p str>, u64>,
    }
    let mut places: HashMap<(&str, &str), Place<'_>> = HashMap::new();
    for stack in &profile.stacks {
        let mut frames = frames_of(profile, &stack.frames).rev();
        let Some(innermost) = frames.next() else { continue };
        let own = std::iter::once(innermost).chain(frames).find(|frame| package_of(frame).is_none());
        let frame = own.unwrap_or(innermost);
        let place = places.entry((&frame.file, &frame.function)).or_default();
        place.samples = place.samples.saturating_add(stack.count);
        place.states.add(stack.state, stack.count);
        *place.lines.entry(frame.line).or_default() += stack.count;
        *place.packages.entry(package_of(innermost)).or_default() += stack.count;
    }
    let ((file, function), found) =
        places.into_iter().max_by(|(a, of_a), (b, of_b)| of_a.samples.cmp(&of_b.samples).then_with(|| b.cmp(a)))?;
    let all = states(profile).sum();
    if found.samples == 0 {
        return None;
    }
    let package =
        found.packages.into_iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0))).and_then(|most| most.0);
    let line = most(found.lines);
    let (share, state) = (found.samples as f64 / all.max(1) as f64, found.states.most());
    let state_share = found.states.0[super::threads::place_of(state.state)] as f64 / found.samples as f64;
    let place = place(file, line);
    let inside = match package {
        // No frame at all: the server says in brackets what it was at.
        _ if file.is_empty() => format!("in {function}"),
        // Not even the outermost function is the application's.
        Some(package) if package_of(&Frame { file: file.to_owned(), ..Frame::default() }).is_some() => {
            format!("in {package}: {function} ({place})")
        }
        Some(package) => format!("in {package} … {place}"),
        None => format!("in {function} ({place})"),
    };
    let doing =
        if state_share >= 0.995 { state.does.to_owned() } else { format!("{} % {}", whole(state_share), state.does) };
    Some(Hottest {
        sentence: format!("{} % of busy threads are {inside}, {doing}", whole(share)),
        share,
        samples: found.samples,
        of: all,
        package: package.map(str::to_owned),
        function: function.to_owned(),
        file: file.to_owned(),
        line,
        state: state.word,
        state_share,
    })
}

/// A share in whole percent; never 0 for what there is, never 100 for what is not all.
fn whole(share: f64) -> String {
    let percent = (share * 100.0).round();
    let percent = if share > 0.0 { percent.max(1.0) } else { percent };
    format::tenths(if share < 1.0 { percent.min(99.0) } else { percent }).trim_end_matches(".0").to_owned()
}

/// The frames of a stack, the outermost first.
pub(crate) fn frames_of<'p>(profile: &'p Profile, places: &'p [u32]) -> impl DoubleEndedIterator<Item = &'p Frame> {
    places.iter().filter_map(|place| profile.frames.get(*place as usize))
}

fn most(lines: HashMap<u32, u64>) -> u32 {
    let most = lines.into_iter().max_by_key(|(line, count)| (*count, std::cmp::Reverse(*line)));
    most.map_or(0, |(line, _)| line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::flame::tests::{any_profile, profile, shop};
    use proptest::prelude::*;
    use rwsgi_stats::control::ThreadState;

    #[test]
    fn the_place_of_the_application_with_most_is_told_in_a_sentence() {
        let hottest = hottest(&shop()).unwrap();
        assert_eq!(hottest.sentence, "71 % of busy threads are in psycopg … views.py:41, 87 % waiting for a database");
        assert_eq!((hottest.samples, hottest.of, hottest.line), (710, 1_000, 41));
    }

    #[test]
    fn the_application_s_own_code_has_no_package() {
        let own = profile(&[("", ThreadState::Running, &["app /srv/a.py:1", "burn /srv/a.py:7"], 5)]);
        assert_eq!(hottest(&own).unwrap().sentence, "100 % of busy threads are in burn (a.py:7), running");
        let library = profile(&[("", ThreadState::Waiting, &["recv /usr/lib/python3.12/socket.py:7"], 5)]);
        let sentence = hottest(&library).unwrap().sentence;
        assert_eq!(sentence, "100 % of busy threads are in socket: recv (socket.py:7), waiting");
        assert_eq!(hottest(&Profile::default()), None);
    }

    #[test]
    fn what_is_no_code_of_python_is_told_as_the_server_does() {
        let server = profile(&[("", ThreadState::Running, &["(server) :0"], 5)]);
        assert_eq!(hottest(&server).unwrap().sentence, "100 % of busy threads are in (server), running");
    }

    #[test]
    fn a_recursion_is_counted_once() {
        let frames = &["walk /srv/a.py:1", "walk /srv/a.py:2", "walk /srv/a.py:2", "leaf /srv/a.py:9"];
        let functions = functions(&profile(&[("", ThreadState::Running, frames, 5)]));
        let told: Vec<_> =
            functions.iter().map(|one| (one.name.as_str(), one.own, one.total.sum(), one.line)).collect();
        assert_eq!(told, [("leaf", 5, 5, 9), ("walk", 0, 5, 2)]);
    }

    proptest! {
        #[test]
        fn no_function_has_more_than_there_is(profile in any_profile()) {
            let all = states(&profile).sum();
            let functions = functions(&profile);
            prop_assert!(functions.iter().all(|one| one.own <= one.total.sum() && one.total.sum() <= all));
            prop_assert!(functions.iter().map(|one| one.own).sum::<u64>() <= all);
            if let Some(hottest) = hottest(&profile) {
                prop_assert!(hottest.share > 0.0 && hottest.share <= 1.0 && hottest.state_share <= 1.0);
            }
        }
    }
}
