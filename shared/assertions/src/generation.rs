//! What a generation (a load of the application) did, as a window: since it was loaded, or between two documents.

use rwsgi_stats::{Generation, Snapshot};

use crate::{Counts, Told, Window};

/// The generation that serves and the one before it; while a canary is tried, that one and the one that serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair<'a> {
    /// The newer one.
    pub new: &'a Generation,
    /// The one that it is compared with; `None` when there was none.
    pub old: Option<&'a Generation>,
}

impl<'a> Pair<'a> {
    /// Those of a document; `None` when it tells of no generation that serves.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot) -> Option<Self> {
        let generations = snapshot.generations.as_deref()?;
        let serving = generations.iter().find(|generation| generation.state == "serving");
        let canary = generations.iter().find(|generation| generation.state == "canary");
        if let Some(canary) = canary {
            return Some(Self { new: canary, old: serving });
        }
        let new = serving?;
        let is_before = |old: &&Generation| old.state == "past" && old.generation < new.generation;
        let old = generations.iter().filter(is_before).max_by_key(|generation| generation.generation);
        Some(Self { new, old })
    }
}

impl Window {
    /// What a generation did since it was loaded.
    #[must_use]
    pub fn of_generation(generation: &Generation) -> Self {
        let pss = generation.pss.checked_div(generation.pss_workers.into()).filter(|pss| *pss > 0);
        Self {
            requests: generation.requests,
            exceptions: generation.exceptions,
            failed: Told::Yes([generation.responses.client_error, generation.responses.server_error]),
            latency: if generation.latency.is_empty() {
                Told::No
            } else {
                Told::of(Counts::decode(&generation.latency))
            },
            pss_mean: pss.map_or(Told::Unseen, Told::Yes),
            ..Self::default()
        }
    }

    /// What it did from an earlier document to a later one, so many seconds apart; `None` when the server was started anew
    /// between them.
    #[must_use]
    pub fn of_generation_since(later: &Generation, earlier: &Generation, seconds: f64) -> Option<Self> {
        let (after, before) = (Self::of_generation(later), Self::of_generation(earlier));
        let failed = match (after.failed.get(), before.failed.get()) {
            (Some(after), Some(before)) => {
                Told::Yes([after[0].checked_sub(before[0])?, after[1].checked_sub(before[1])?])
            }
            _ => Told::No,
        };
        let latency = match (after.latency.get(), before.latency.get()) {
            (Some(after), Some(before)) => Told::Yes(after.since(before)?),
            (Some(after), None) => Told::Yes(after.clone()),
            (None, _) => Told::No,
        };
        Some(Self {
            seconds,
            requests: after.requests.checked_sub(before.requests)?,
            exceptions: after.exceptions.checked_sub(before.exceptions)?,
            failed,
            latency,
            ..after
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::{Responses, latency};

    fn generation(number: u32, state: &str, requests: u64) -> Generation {
        let counts = latency::from_counts([(latency::index_of(5_000), requests)]);
        Generation {
            generation: number,
            state: state.into(),
            requests,
            exceptions: requests / 10,
            responses: Responses { server_error: requests / 10, ..Responses::default() },
            latency: latency::encode(&counts),
            pss: 300,
            pss_workers: 3,
            ..Generation::default()
        }
    }

    fn snapshot(generations: &[(u32, &str)]) -> Snapshot {
        let generations = generations.iter().map(|(number, state)| generation(*number, state, 10)).collect();
        Snapshot { generations: Some(generations), ..Snapshot::default() }
    }

    #[test]
    fn the_one_before_is_one_that_has_served() {
        for (generations, expected) in [
            (&[(1, "serving")][..], Some((1, None))),
            (&[(2, "serving"), (1, "past")], Some((2, Some(1)))),
            (&[(3, "undone"), (2, "serving"), (1, "past")], Some((2, Some(1)))),
            (&[(3, "serving"), (2, "undone"), (1, "past")], Some((3, Some(1)))),
            (&[(3, "canary"), (2, "serving"), (1, "past")], Some((3, Some(2)))),
            (&[(1, "past")], None),
            (&[], None),
        ] {
            let snapshot = snapshot(generations);
            let pair = Pair::of(&snapshot);
            let numbers = pair.map(|pair| (pair.new.generation, pair.old.map(|old| old.generation)));
            assert_eq!(numbers, expected, "{generations:?}");
        }
        assert_eq!(Pair::of(&Snapshot::default()), None, "uWSGI");
    }

    #[test]
    fn what_it_did_between_two_documents_is_their_difference() {
        let (before, after) = (generation(1, "serving", 100), generation(1, "serving", 140));
        let window = Window::of_generation_since(&after, &before, 2.0).unwrap();
        assert_eq!((window.requests, window.exceptions, window.seconds), (40, 4, 2.0));
        assert_eq!((window.failed.get(), window.latency.get().unwrap().total()), (Some(&[0, 4]), 40));
        assert_eq!(window.pss_mean, Told::Yes(100), "memory is a level");
        assert_eq!(Window::of_generation_since(&before, &after, 2.0), None, "started anew");
    }
}
