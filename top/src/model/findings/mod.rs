//! What is wrong, in plain words: sentences made of a server's numbers, by rules. Nothing is said without its evidence, and
//! nothing when all is well.

mod load;
mod processes;
mod profiled;
mod requests;
mod rules;
#[cfg(test)]
mod tests;
mod track;

use std::time::Duration;

use rwsgi_stats::Snapshot;
use rwsgi_stats::control::Profile;

use self::profiled::Profiled;
pub(crate) use self::rules::RULES;
use self::rules::{Case, Rule};
use self::track::Track;
use super::{MemoryTrack, Sample};
use crate::source::{Monotonic, Room};

/// For how long a finding stays when its rule holds no more, so that it does not flicker.
const LINGER: Duration = Duration::from_secs(10);
/// How often the numbers of a finding change.
const REFRESH: Duration = Duration::from_secs(5);

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The place of its rule in [`RULES`]: the first matters most.
    pub(crate) rule: usize,
    /// Since when it has held.
    pub(crate) since: Monotonic,
    /// What is wrong, made of numbers.
    pub(crate) sentence: String,
    /// What to do about it.
    pub(crate) advice: String,
    /// The numbers that it rests on, a line each.
    pub(crate) evidence: Vec<String>,
}

impl Finding {
    /// Its rule.
    pub(crate) fn rule(&self) -> &'static Rule {
        &RULES[self.rule.min(RULES.len() - 1)]
    }

    /// All of it in a line.
    pub(crate) fn line(&self) -> String {
        format!("{} → {}", self.sentence, self.advice)
    }
}

/// Asks the machine for [`Room`], when the server of a document runs on it.
pub(crate) type AskRoom = fn(&Snapshot) -> Option<Room>;

/// What the rules have found of a server.
#[derive(Debug, Default)]
pub(super) struct Findings {
    track: Track,
    /// What the last profile says.
    profiled: Option<Profiled>,
    /// By the place of the rule.
    states: Vec<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The condition has held since then.
    since: Option<Monotonic>,
    /// It last held then.
    last: Monotonic,
    /// What is said, and since when in these words.
    told: Option<(Finding, Monotonic)>,
}

impl Findings {
    /// Takes a profile of the server in.
    pub(super) fn profiled(&mut self, profile: &Profile, at: Monotonic) {
        self.profiled = Some(Profiled::of(profile, at));
    }

    /// Takes a sample in, and returns what is wrong, the most important first.
    pub(super) fn advance(&mut self, sample: &Sample, memory: &[MemoryTrack], room: Option<AskRoom>) -> Vec<Finding> {
        let fresh = self.track.push(sample);
        self.states.resize_with(RULES.len(), State::default);
        if fresh {
            for (place, rule) in RULES.iter().enumerate() {
                self.judge(place, rule, sample, memory, room);
            }
        }
        self.states.iter().filter_map(|state| state.told.as_ref()).map(|(finding, _)| finding.clone()).collect()
    }

    fn judge(
        &mut self,
        place: usize,
        rule: &'static Rule,
        sample: &Sample,
        memory: &[MemoryTrack],
        room: Option<AskRoom>,
    ) {
        let at = sample.at;
        let mut before = RULES.iter().zip(&self.states).take(place);
        if before.any(|(before, state)| before.name == rule.under && state.told.is_some()) {
            self.states[place] = State::default();
            return;
        }
        let state = &self.states[place];
        let case = Case {
            sample,
            track: &self.track,
            memory,
            room,
            profiled: self.profiled.as_ref(),
            told: state.told.is_some(),
            held: state.since.map_or(Duration::ZERO, |since| at.since(since)),
        };
        let said = (rule.found)(&case);
        let state = &mut self.states[place];
        let Some(said) = said else {
            if state.told.is_none() || at.since(state.last) >= LINGER {
                *state = State::default();
            }
            return;
        };
        let since = *state.since.get_or_insert(at);
        state.last = at;
        if at.since(since) < rule.after {
            return;
        }
        // The words stay for a while, so that they can be read.
        if state.told.as_ref().is_none_or(|(_, written)| at.since(*written) >= REFRESH) {
            let advice = said.advice.unwrap_or_else(|| rule.advice.to_owned());
            let finding = Finding { rule: place, since, sentence: said.sentence, advice, evidence: said.evidence };
            state.told = Some((finding, at));
        }
    }
}
