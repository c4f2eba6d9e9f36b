//! What a profile that was taken says to the rules.

use std::collections::HashMap;

use rwsgi_stats::control::{Frame, Profile, ThreadState};

use super::load::percent;
use super::rules::{Case, RuleMatch};
use crate::format;
use crate::source::Monotonic;

/// For how long a profile says how things are.
const FRESH: u64 = 300;
/// Shares of fewer samples say nothing.
const ENOUGH: u64 = 100;

/// What is kept of a profile.
#[derive(Clone, Debug)]
pub(crate) struct Profiled {
    at: Monotonic,
    samples: u64,
    /// Samples of threads that waited for a database, and where most of those were.
    database: (u64, String),
    /// The innermost function of most samples, and how many.
    hottest: (String, u64),
}

impl Profiled {
    /// Of a profile that came at a moment.
    pub(crate) fn of(profile: &Profile, at: Monotonic) -> Self {
        let innermost = |database: bool| {
            let mut counts: HashMap<&Frame, u64> = HashMap::new();
            for stack in profile.stacks.iter().filter(|stack| !database || stack.state == ThreadState::Database) {
                let frame = stack.frames.last().and_then(|place| profile.frames.get(*place as usize));
                if let Some(frame) = frame {
                    *counts.entry(frame).or_default() += stack.count;
                }
            }
            let most = counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(a.0)));
            most.map_or_else(|| (String::new(), 0), |(frame, count)| (place(frame), count))
        };
        let sum = |database: bool| {
            let stacks = profile.stacks.iter().filter(|stack| !database || stack.state == ThreadState::Database);
            stacks.map(|stack| stack.count).fold(0, u64::saturating_add)
        };
        Self { at, samples: sum(false), database: (sum(true), innermost(true).0), hottest: innermost(false) }
    }

    fn is_of_use(&self, case: &Case<'_>) -> bool {
        self.samples >= ENOUGH && case.sample.at.since(self.at).as_secs() <= FRESH
    }
}

fn place(frame: &Frame) -> String {
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    format::one_line(&format!("{} ({file}:{})", frame.function, frame.line))
}

/// The function that most threads were in, when a profile was taken not long ago, and their share.
pub(super) fn hottest<'a>(case: &Case<'a>) -> Option<(&'a str, f64)> {
    let profiled = case.profiled.filter(|profiled| profiled.is_of_use(case))?;
    let (name, count) = &profiled.hottest;
    (*count > 0).then(|| (name.as_str(), *count as f64 / profiled.samples as f64))
}

pub(super) fn database(case: &Case<'_>) -> Option<RuleMatch> {
    let profiled = case.profiled.filter(|profiled| profiled.is_of_use(case))?;
    let utilization = case.track.minute()?.utilization()?;
    let (waited, at) = &profiled.database;
    let share = *waited as f64 / profiled.samples as f64;
    if share < 0.5 || utilization < case.threshold(0.5, 0.4) {
        return None;
    }
    let ago = format::seconds(case.sample.at.since(profiled.at).as_secs());
    Some(RuleMatch {
        sentence: format!("{} of the threads in requests waited for a database, most in {at}", percent(share)),
        evidence: vec![
            format!("a profile of {ago} ago: {waited} of {} samples", profiled.samples),
            format!("threads were busy for {} of the last minute", percent(utilization)),
        ],
        advice: None,
    })
}
