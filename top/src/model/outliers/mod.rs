//! Which servers of a fleet stand out from their peers, in plain words, by rules: what is slower than the others, fails more,
//! is dead. Nothing is said without its numbers, and nothing of noise.
//!
//! Peers are servers of the same job and role. A number of one server is held against the median of its peers', in units of
//! how far those are apart (the median absolute deviation), and never of fewer than [`FEWEST`] servers or of few requests.

mod alone;
mod compared;
#[cfg(test)]
pub(crate) mod made;
mod onset;
mod rules;
#[cfg(test)]
mod tests;
mod track;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use self::onset::Began;
pub(crate) use self::rules::RULES;
use self::rules::{Case, Rule};
use self::track::Track;
use super::fleet::{Fleet, State, Tracked};
use crate::source::Monotonic;
use crate::source::fleet::ServerId;

/// Fewer servers than this, itself included, have no peers to compare with.
pub(crate) const FEWEST: usize = 4;
/// For how long something is told when its rule holds no more, so that it does not flicker.
const LINGER: Duration = Duration::from_secs(10);
/// How often the numbers of what is told change.
const REFRESH: Duration = Duration::from_secs(5);

/// A server that stands out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outlier {
    /// Which it is.
    pub(crate) id: ServerId,
    /// What it is called.
    pub(crate) server: String,
    /// The place of its rule in [`RULES`]: the first is the most severe.
    pub(crate) rule: usize,
    /// By how much it stands out, to put what one rule finds in order; more is worse.
    pub(crate) weight: f64,
    /// Since when, in seconds since rtop began (less than 0: before that); `None` when it has been so for longer than is known.
    pub(crate) since: Option<f64>,
    /// What it began with.
    pub(crate) began: Began,
    /// All of it in a line: `web7 is 3 times slower than its peers since generation 12`.
    pub(crate) sentence: String,
    /// What to do.
    pub(crate) advice: &'static str,
    /// The numbers that it rests on, a line each.
    pub(crate) evidence: Vec<String>,
}

impl Outlier {
    /// Its rule.
    pub(crate) fn rule(&self) -> &'static Rule {
        &RULES[self.rule.min(RULES.len() - 1)]
    }
}

/// What the rules have found in a fleet.
#[derive(Debug, Default)]
pub(crate) struct Outliers {
    tracks: BTreeMap<ServerId, Track>,
    states: BTreeMap<(usize, ServerId), Held>,
    found: Vec<Outlier>,
}

/// What a rule has said of a server.
#[derive(Debug)]
struct Held {
    /// It has held since then.
    since: Monotonic,
    /// It last held then.
    last: Monotonic,
    /// What is said, and since when in these words.
    told: Option<(Outlier, Monotonic)>,
}

impl Outliers {
    /// What is found, the most severe first.
    pub(crate) fn found(&self) -> &[Outlier] {
        &self.found
    }

    /// In how many ways a server stands out.
    pub(crate) fn count_of(&self, id: ServerId) -> usize {
        self.found.iter().filter(|outlier| outlier.id == id).count()
    }

    /// Judges the fleet at the end of a sweep.
    pub(crate) fn advance(&mut self, fleet: &Fleet, at: Monotonic) {
        self.tracks.retain(|id, _| fleet.get(*id).is_some());
        self.states.retain(|(_, id), _| fleet.get(*id).is_some());
        let mut groups: BTreeMap<String, Vec<&Tracked>> = BTreeMap::new();
        for server in fleet.servers() {
            self.tracks.entry(server.id).or_default().push(server, at);
            groups.entry(group_of(server)).or_default().push(server);
        }
        for servers in groups.values() {
            let group = compared::Group::of(servers, &self.tracks);
            for server in servers {
                let Some(track) = self.tracks.get(&server.id) else { continue };
                for (place, rule) in RULES.iter().enumerate() {
                    let held = self.states.get(&(place, server.id));
                    let told = held.is_some_and(|held| held.told.is_some());
                    let case = Case { server, track, group: &group, at, told };
                    let lacks_peers = rule.needs_peers && servers.len() < FEWEST;
                    let said = if lacks_peers { None } else { (rule.found)(&case) };
                    let known = (place, rule, *server, at);
                    hold(&mut self.states, known, said, track);
                }
            }
        }
        self.found = self.states.values().filter_map(|held| held.told.as_ref()).map(|(told, _)| told.clone()).collect();
        let name = |outlier: &Outlier| outlier.server.clone();
        self.found.sort_by(|a, b| {
            a.rule.cmp(&b.rule).then(b.weight.total_cmp(&a.weight)).then_with(|| name(a).cmp(&name(b)))
        });
    }
}

/// Keeps what a rule says of a server, and for how long.
fn hold(
    states: &mut BTreeMap<(usize, ServerId), Held>,
    (place, rule, server, at): (usize, &'static Rule, &Tracked, Monotonic),
    said: Option<rules::Said>,
    track: &Track,
) {
    let key = (place, server.id);
    let Some(said) = said else {
        let is_over = |held: &Held| held.told.is_none() || at.since(held.last) >= LINGER || rule.is_exact;
        if states.get(&key).is_some_and(is_over) {
            states.remove(&key);
        }
        return;
    };
    let held = states.entry(key).or_insert(Held { since: at, last: at, told: None });
    held.last = at;
    if at.since(held.since) < rule.after {
        return;
    }
    if held.told.as_ref().is_some_and(|(_, written)| at.since(*written) < REFRESH && !rule.is_exact) {
        return;
    }
    // When it began is known best when it is found: later the history may be shorter.
    let onset = match &held.told {
        Some((told, _)) => (told.since, told.began),
        None => onset::of(server, track, &said),
    };
    let outlier = Outlier {
        id: server.id,
        server: server.server.name.clone(),
        rule: place,
        weight: said.weight,
        since: onset.0,
        began: onset.1,
        sentence: format!("{} {}{}", server.server.name, said.sentence, onset::words(onset, &said, at)),
        advice: rule.advice,
        evidence: said.evidence,
    };
    held.told = Some((outlier, at));
}

/// What servers are compared within: the job and the role that their source gives them.
fn group_of(server: &Tracked) -> String {
    const GROUPS: [&str; 5] = ["job", "role", "app", "service", "group"];
    let label =
        |name: &str| server.server.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    GROUPS.map(|name| label(name).unwrap_or_default()).join("\n")
}

/// Whether it takes part in comparisons: one that leaves has little to do.
fn is_peer(server: &Tracked) -> bool {
    let leaves = server.sample.as_ref().is_some_and(|sample| sample.draining == Some(true));
    server.state == State::Up && !leaves
}
