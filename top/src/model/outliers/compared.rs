//! Rules that hold a server against its peers.

use std::collections::BTreeMap;

use super::onset::Onset;
use super::rules::{Case, Said};
use super::track::{LATENCIES, Track};
use super::{FEWEST, is_peer};
use crate::format;
use crate::model::fleet::Tracked;
use crate::source::fleet::{Figure, ServerId};

/// So many times what its peers are apart, a server is from their median.
const APART: f64 = 5.0;
/// The median absolute deviation of a normal distribution is this part of its standard deviation.
const OF_NORMAL: f64 = 1.4826;

/// The numbers of all servers of a group that are up, each sorted, so that one server's can be left out.
#[derive(Debug)]
pub(super) struct Group {
    latencies: [Values; LATENCIES.len()],
    saturation: Values,
    memory: Values,
    errors: Vec<(ServerId, f64, f64)>,
    versions: BTreeMap<String, usize>,
    pub(super) generations: BTreeMap<u32, usize>,
    /// When each started, in seconds since rtop began.
    starts: Values,
}

#[derive(Debug)]
struct Values(Vec<(f64, ServerId)>);

impl Values {
    fn of(values: impl Iterator<Item = (ServerId, f64)>) -> Self {
        let mut values: Vec<(f64, ServerId)> = values.map(|(id, value)| (value, id)).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(values)
    }

    /// The median of all others and how far they are apart; `None` of too few.
    fn others(&self, id: ServerId, scale: fn(f64) -> f64) -> Option<Others> {
        let others: Vec<f64> =
            self.0.iter().filter(|(_, known)| *known != id).map(|(value, _)| scale(*value)).collect();
        if others.len() + 1 < FEWEST {
            return None;
        }
        let middle = median(&others);
        let mut apart: Vec<f64> = others.iter().map(|value| (value - middle).abs()).collect();
        apart.sort_by(f64::total_cmp);
        Some(Others { median: middle, apart: median(&apart) * OF_NORMAL, count: others.len() })
    }

    /// Whether one that is not far above the middle of all is looked at at all.
    fn is_above(&self, value: f64, factor: f64) -> bool {
        self.0.get(self.0.len() / 2).is_some_and(|(middle, _)| value >= middle * factor)
    }
}

/// Of sorted values.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[derive(Clone, Copy, Debug)]
struct Others {
    median: f64,
    apart: f64,
    count: usize,
}

impl Others {
    /// How far a value is above them, in units of how far they are apart, which is at least `least`.
    fn distance(&self, value: f64, least: f64) -> f64 {
        (value - self.median) / self.apart.max(least)
    }
}

impl Group {
    pub(super) fn of(servers: &[&Tracked], tracks: &BTreeMap<ServerId, Track>) -> Self {
        let peers: Vec<(&Tracked, &Track)> = servers
            .iter()
            .filter(|server| is_peer(server))
            .filter_map(|server| Some((*server, tracks.get(&server.id)?)))
            .collect();
        let latencies = [0, 1, 2].map(|kind: usize| {
            Values::of(peers.iter().filter_map(|(server, track)| Some((server.id, track.recent.latencies[kind]?.0))))
        });
        let saturation = peers.iter().filter_map(|(server, track)| Some((server.id, track.recent.saturation?)));
        let memory = peers.iter().filter_map(|(server, _)| Some((server.id, server.figures.get(Figure::Rss)?)));
        let errors = peers.iter().map(|(server, track)| (server.id, track.recent.errors, track.recent.requests));
        let (mut versions, mut generations) = (BTreeMap::new(), BTreeMap::new());
        for (server, _) in &peers {
            if let Some(sample) = &server.sample {
                *versions.entry(sample.run.version.clone()).or_default() += 1;
            }
            if let Some(generation) = server.figures.generation {
                *generations.entry(generation).or_default() += 1;
            }
        }
        let starts = peers.iter().filter_map(|(server, _)| Some((server.id, started(server)?)));
        Self {
            latencies,
            saturation: Values::of(saturation),
            memory: Values::of(memory),
            errors: errors.collect(),
            versions,
            generations,
            starts: Values::of(starts),
        }
    }

    /// The version that three quarters of at least [`FEWEST`] servers run, and how many those are.
    pub(super) fn usual_version(&self) -> Option<(&str, usize)> {
        usual(&self.versions).map(|(version, count)| (version.as_str(), count))
    }

    /// The same of generations.
    pub(super) fn usual_generation(&self) -> Option<(u32, usize)> {
        usual(&self.generations).map(|(generation, count)| (*generation, count))
    }

    /// Whether a server started when the others did, or before; `false` where that is not known, for a number says nothing then.
    pub(super) fn is_as_old(&self, server: &Tracked) -> bool {
        let others = self.starts.others(server.id, |start| start);
        started(server).zip(others).is_some_and(|(start, others)| start <= others.median + 60.0)
    }
}

fn usual<K>(counts: &BTreeMap<K, usize>) -> Option<(&K, usize)> {
    let all: usize = counts.values().sum();
    let (key, count) = counts.iter().max_by_key(|(_, count)| **count)?;
    (all >= FEWEST && *count * 4 >= all * 3).then_some((key, *count))
}

/// When a server started, in seconds since rtop began; `None` where it does not tell.
pub(super) fn started(server: &Tracked) -> Option<f64> {
    let sample = server.sample.as_ref()?;
    let up = sample.now?.checked_sub(sample.run.started_at?)? as f64;
    Some((sample.at.as_micros() as f64 - up) / 1e6)
}

fn times(ratio: f64) -> String {
    // 2.97 and 3.04 are 3 times.
    let text = if ratio < 10.0 { format!("{ratio:.1}") } else { format!("{ratio:.0}") };
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

pub(super) fn slow(case: &Case<'_>) -> Option<Said> {
    if !is_peer(case.server) {
        return None;
    }
    let of = |kind: usize| {
        let (value, low) = case.track.recent.latencies[kind]?;
        let all = &case.group.latencies[kind];
        let factor = case.threshold(2.0, 1.6);
        if !all.is_above(value, factor) {
            return None;
        }
        let log = |micros: f64| micros.max(1.0).ln();
        let others = all.others(case.server.id, log)?;
        let usual = others.median.exp();
        let is_slow = value >= factor * usual
            && value - usual >= 5_000.0
            && low >= case.threshold(1.5, 1.2) * usual
            && others.distance(log(value), 0.1) >= case.threshold(APART, 3.0);
        is_slow.then_some((value / usual, value, usual, kind, others.count))
    };
    // Where percentiles are told, the mean says less.
    let found = [of(0), of(1)].into_iter().flatten().max_by(|a, b| a.0.total_cmp(&b.0));
    let knows_percentiles = case.track.recent.latencies[0].is_some();
    let (ratio, value, usual, kind, peers) = found.or_else(|| if knows_percentiles { None } else { of(2) })?;
    let name = LATENCIES[kind].name;
    let [value_text, usual_text] = [value, usual].map(|micros| format::micros(micros as u64));
    Some(Said {
        sentence: format!("is {} times slower than its peers ({name} {value_text}, theirs {usual_text})", times(ratio)),
        evidence: vec![
            format!("{name} of its last {} requests: {value_text}", format::count(case.track.recent.requests as u64)),
            format!("{name} of the one in the middle of {peers} peers: {usual_text}"),
        ],
        weight: ratio,
        onset: Onset::of(LATENCIES[kind].figure, (value * usual).sqrt()),
    })
}

pub(super) fn errors(case: &Case<'_>) -> Option<Said> {
    let recent = &case.track.recent;
    if !is_peer(case.server) || recent.requests < 20.0 || recent.errors < 5.0 {
        return None;
    }
    let others = || case.group.errors.iter().filter(|(id, _, requests)| *id != case.server.id && *requests >= 20.0);
    let peers = others().count();
    let share = recent.errors / recent.requests;
    if peers + 1 < FEWEST || share < case.threshold(0.02, 0.01) {
        return None;
    }
    let shares = Values::of(others().map(|(id, errors, requests)| (*id, errors / requests)));
    let apart = shares.others(case.server.id, |share| share)?;
    let (errors, requests) = others().fold((0.0, 0.0), |sum, (_, errors, requests)| (sum.0 + errors, sum.1 + requests));
    let theirs = errors / requests;
    let pooled = (errors + recent.errors) / (requests + recent.requests);
    let error = (pooled * (1.0 - pooled) * (1.0 / requests + 1.0 / recent.requests)).sqrt();
    let stands_out = share >= case.threshold(3.0, 2.0) * theirs
        && share - theirs >= case.threshold(5.0, 3.0) * error
        && apart.distance(share, 0.002) >= case.threshold(APART, 3.0);
    let [share_text, theirs_text] = [share, theirs].map(|share| format!("{}%", format::percent(share)));
    stands_out.then(|| Said {
        sentence: format!("fails {share_text} of its requests, its peers {theirs_text}"),
        evidence: vec![
            format!("{} of its last {} requests failed", recent.errors.round(), format::count(recent.requests as u64)),
            format!("{} of {} of {peers} peers", errors.round(), format::count(requests as u64)),
        ],
        weight: share,
        onset: Onset::of(Figure::Errors, f64::midpoint(share, theirs)),
    })
}

pub(super) fn saturated(case: &Case<'_>) -> Option<Said> {
    let value = case.track.recent.saturation.filter(|_| is_peer(case.server))?;
    if value < case.threshold(0.9, 0.75) {
        return None;
    }
    let others = case.group.saturation.others(case.server.id, |value| value)?;
    let stands_out =
        others.median <= value * case.threshold(0.5, 0.6) && others.distance(value, 0.05) >= case.threshold(APART, 3.0);
    let [mine, theirs] = [value, others.median].map(|share| format!("{}%", format::percent(share)));
    stands_out.then(|| Said {
        sentence: format!("is saturated at {mine}, its peers are at {theirs}"),
        evidence: vec![
            format!("busy threads and waiting requests by threads, mean of {} looks: {mine}", case.track.recent.looks),
            format!("median of {} peers: {theirs}", others.count),
        ],
        weight: value,
        onset: Onset::of(Figure::Saturation, f64::midpoint(value, others.median)),
    })
}

pub(super) fn memory(case: &Case<'_>) -> Option<Said> {
    let value = case.server.figures.get(Figure::Rss).filter(|_| is_peer(case.server))?;
    let factor = case.threshold(2.0, 1.7);
    if !case.group.memory.is_above(value, factor) {
        return None;
    }
    let others = case.group.memory.others(case.server.id, |bytes| bytes.max(1.0).ln())?;
    let usual = others.median.exp();
    let stands_out = value >= factor * usual
        && value - usual >= f64::from(64 << 20)
        && others.distance(value.ln(), 0.1) >= case.threshold(APART, 3.0);
    let [mine, theirs] = [value, usual].map(|bytes| format::size(bytes as u64));
    stands_out.then(|| Said {
        sentence: format!("uses {} times the memory of its peers ({mine}, theirs {theirs})", times(value / usual)),
        evidence: vec![format!("resident memory: {mine}"), format!("median of {} peers: {theirs}", others.count)],
        weight: value / usual,
        onset: Onset::of(Figure::Rss, (value * usual).sqrt()),
    })
}
