//! Rules that need no numbers of peers: what does not answer, what restarts, what serves something else.

use std::time::Duration;

use super::is_peer;
use super::onset::Onset;
use super::rules::{Case, Said};
use super::track::RESTARTS;
use crate::format;
use crate::model::fleet::State;
use crate::source::Monotonic;

/// So many restarts within [`RESTARTS`] are a loop.
const LOOP: usize = 3;
/// A reload takes no longer.
const RELOAD: Duration = Duration::from_secs(300);
/// A server whose generation is older did not leave its peers; they left it.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

fn said(sentence: String, evidence: Vec<String>, since: Monotonic) -> Option<Said> {
    Some(Said { sentence, evidence, weight: 1.0, onset: Onset::At(since) })
}

pub(super) fn dead(case: &Case<'_>) -> Option<Said> {
    let State::Dead { since, why } = &case.server.state else { return None };
    said(format!("is dead: {why}"), vec![why.clone()], *since)
}

pub(super) fn silent(case: &Case<'_>) -> Option<Said> {
    let State::Slow { since } = case.server.state else { return None };
    said("does not answer".to_owned(), vec!["it was asked, and has not answered".to_owned()], since)
}

pub(super) fn restart_loop(case: &Case<'_>) -> Option<Said> {
    let restarts = &case.track.restarted;
    let first = *restarts.front()?;
    if restarts.len() < LOOP {
        return None;
    }
    let [minutes, count] = [RESTARTS.as_secs() / 60, restarts.len() as u64];
    let evidence = restarts.iter().map(|then| format!("{} ago", format::seconds(case.at.since(*then).as_secs())));
    said(format!("was restarted {count} times within {minutes} minutes"), evidence.collect(), first)
}

pub(super) fn reload_hangs(case: &Case<'_>) -> Option<Said> {
    let since = case.track.mixed_since.filter(|_| case.server.state == State::Up)?;
    if case.at.since(since) < RELOAD {
        return None;
    }
    said("serves more than one generation".to_owned(), vec!["its workers are of several generations".to_owned()], since)
}

pub(super) fn version(case: &Case<'_>) -> Option<Said> {
    let (usual, count) = case.group.usual_version()?;
    let version = &case.server.sample.as_ref().filter(|_| is_peer(case.server))?.run.version;
    if version == usual {
        return None;
    }
    let evidence = vec![format!("it runs {version}, {count} peers run {usual}")];
    let sentence = format!("runs version {version}, its peers {usual}");
    Some(Said { sentence, evidence, weight: 1.0, onset: Onset::Unknown })
}

pub(super) fn generation(case: &Case<'_>) -> Option<Said> {
    let (usual, count) = case.group.usual_generation()?;
    let generation = case.server.figures.generation.filter(|_| is_peer(case.server))?;
    if generation == usual || !case.group.is_as_old(case.server) {
        return None;
    }
    let evidence = vec![format!("it serves generation {generation}, {count} peers serve {usual}")];
    let sentence = format!("serves generation {generation}, its peers {usual}");
    // One that has served it for longer was left behind by its peers just now.
    let since = |began: Monotonic| if case.at.since(began) > LEFT_BEHIND { case.at } else { began };
    let onset = case.track.generation_since.map_or(Onset::Unknown, |began| Onset::At(since(began)));
    Some(Said { sentence, evidence, weight: 1.0, onset })
}
