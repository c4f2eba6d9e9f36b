//! Assertions on `previous_generation`: the generation that serves, since it does, against the one before; of several
//! servers, all put together.

use rwsgi_assertions::{Assertion, Outcome, Pair, Sureness, Window, judge};
use rwsgi_stats::Snapshot;

use super::verdict::{Judgement, Measured};

/// What a server has told of its generations last.
#[derive(Clone, Debug)]
pub(super) struct Generations {
    new: Window,
    /// `None` when there was none before.
    old: Option<Window>,
}

impl Generations {
    /// What a document tells; `None` when it does not.
    pub(super) fn of(snapshot: &Snapshot) -> Option<Self> {
        let pair = Pair::of(snapshot)?;
        Some(Self { new: Window::of_generation(pair.new), old: pair.old.map(Window::of_generation) })
    }
}

/// Judges over servers, each with its name and what it has told.
pub(super) fn judgement<'a>(
    assertion: Assertion,
    servers: impl Iterator<Item = (&'a str, Option<&'a Generations>)>,
    in_pieces: bool,
    samples: u64,
) -> Judgement {
    let judged = if in_pieces {
        Err("it is of all the time that a generation has served, and --window judges pieces".to_owned())
    } else {
        together(servers).map(|(new, old)| judge(&assertion, &new, Some(&old), Sureness::Once))
    };
    let (threshold, actual, holds) = match judged {
        Err(why) => (None, Err(why), None),
        Ok(judged) => {
            let measured = || judged.value.map(|value| Measured { value, part: None, moment: None, note: None });
            let note = judged.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            let (actual, holds) = match judged.outcome {
                Outcome::Pass => (measured().ok_or_else(String::new), Some(true)),
                Outcome::Fail => (measured().ok_or_else(String::new), Some(false)),
                Outcome::TooFew => (Err(format!("not enough requests to tell{note}")), None),
                Outcome::Unknown(why) => (Err(why), None),
            };
            (judged.threshold, actual, holds)
        }
    };
    Judgement { assertion, threshold, actual, holds, samples, windows: 1 }
}

/// Both generations of all servers; an error when one of them does not tell.
fn together<'a>(servers: impl Iterator<Item = (&'a str, Option<&'a Generations>)>) -> Result<(Window, Window), String> {
    let servers: Vec<_> = servers.collect();
    let named = |label: &str| if servers.len() > 1 { format!("{label}: ") } else { String::new() };
    let (mut new, mut old) = (Window::default(), Window::default());
    for (label, told) in &servers {
        let told = told.ok_or_else(|| format!("{}the server does not tell of generations", named(label)))?;
        let before = told.old.as_ref();
        new.beside(&told.new);
        old.beside(before.ok_or_else(|| format!("{}there is no generation before it to compare with", named(label)))?);
    }
    Ok((new, old))
}
