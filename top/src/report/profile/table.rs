//! The functions with most, as a table and as a line of JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rwsgi_stats::control::Profile;
use serde::Serialize;

use super::About;
use crate::format;
use crate::model::flame::{By, Tree, place};
use crate::model::hot::{Hottest, functions, hottest, states};
use crate::model::threads::{STATES, States};

/// Functions that are told.
const TOP: usize = 10;
/// Groups that are told.
const GROUPS: usize = 20;

/// What was sampled, in words.
pub(crate) fn samples(profile: &Profile) -> String {
    let missed = match profile.missed {
        0 => String::new(),
        missed => format!(" ({} could not be taken)", format::count(missed)),
    };
    format!(
        "{} samples of threads in requests, in {} at {} a second{missed}",
        format::count(profile.samples),
        format::micros(profile.micros),
        profile.rate,
    )
}

/// What was sampled, in fewer words.
pub(crate) fn samples_in_short(profile: &Profile) -> String {
    let missed = match profile.missed {
        0 => String::new(),
        missed => format!(", {} missed", format::count(missed)),
    };
    let (count, time) = (format::count(profile.samples), format::micros(profile.micros));
    format!("{count} samples in {time} at {} a second{missed}", profile.rate)
}

/// Whether so many samples could not be taken that the shares may be wrong.
pub(crate) fn is_patchy(profile: &Profile) -> bool {
    profile.missed > profile.samples / 5
}

/// The shares of the states, in words.
fn shares(states: States) -> String {
    let shares = states.shares().map(|(name, share)| format!("{} {} %", name.word, format::percent(share)));
    shares.collect::<Vec<_>>().join(", ")
}

pub(super) fn table(profile: &Profile, about: About<'_>) -> String {
    let mut text = format!("{}: {}\n{}\n", about.label, samples(profile), shares(states(profile)));
    if let Some(hottest) = hottest(profile) {
        let _ = writeln!(text, "{}", hottest.sentence);
    }
    if is_patchy(profile) {
        text.push_str("many samples could not be taken: the shares may be wrong; try a lower --rate\n");
    }
    if about.by != By::Nothing {
        let tree = Tree::of(profile, about.by);
        let _ = writeln!(text, "\n {:>6}  {}", "TOTAL%", if about.by == By::Route { "ROUTE" } else { "STATE" });
        for group in tree.node(0).children.iter().take(GROUPS) {
            let (name, states) = (&tree.node(*group).name, shares(tree.node(*group).total));
            let states = if about.by == By::Route { format!("  ({states})") } else { String::new() };
            let _ = writeln!(text, " {:>6}  {name}{states}", format::percent(tree.share(*group)));
        }
    }
    let all = states(profile).sum().max(1) as f64;
    let rows: Vec<_> = functions(profile).into_iter().take(TOP).collect();
    let width = rows.iter().map(|row| format::width(&row.name)).max().unwrap_or(0).clamp(8, 40);
    let _ = write!(text, "\n {:>6} {:>6}", "SELF%", "TOTAL%");
    for state in &STATES {
        let _ = write!(text, " {:>8}", state.word.to_uppercase());
    }
    let _ = writeln!(text, "  {:width$}  WHERE", "FUNCTION");
    for row in rows {
        let share = |count: u64| format::percent(count as f64 / all);
        let _ = write!(text, " {:>6} {:>6}", share(row.own), share(row.total.sum()));
        for count in row.total.0 {
            let told = if count == 0 { "-".to_owned() } else { share(count) };
            let _ = write!(text, " {told:>8}");
        }
        let name = format::padded(&format::start_of(&row.name, width), width, false);
        let where_ = if row.line == 0 { row.file } else { format!("{}:{}", row.file, row.line) };
        let _ = writeln!(text, "  {name}  {where_}");
    }
    text
}

#[derive(Serialize)]
struct ProfileLine<'a> {
    target: &'a str,
    /// µs.
    sampled: u64,
    rate: u32,
    samples: u64,
    missed: u64,
    states: BTreeMap<&'static str, f64>,
    hottest: Option<Hottest>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Group>,
    functions: Vec<Row>,
}

#[derive(Serialize)]
struct Group {
    name: String,
    share: f64,
    states: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct Row {
    function: String,
    file: String,
    line: u32,
    place: String,
    own: f64,
    total: f64,
    /// Shares of its own total.
    states: BTreeMap<&'static str, f64>,
}

fn by_word(states: States) -> BTreeMap<&'static str, f64> {
    let mut all: BTreeMap<&'static str, f64> = STATES.iter().map(|state| (state.word, 0.0)).collect();
    all.extend(states.shares().map(|(name, share)| (name.word, share)));
    all
}

pub(super) fn json(profile: &Profile, about: About<'_>) -> String {
    let all = states(profile);
    let share = |count: u64| count as f64 / all.sum().max(1) as f64;
    let row = |row: crate::model::hot::Function| Row {
        place: place(&row.file, row.line),
        own: share(row.own),
        total: share(row.total.sum()),
        states: by_word(row.total),
        function: row.name,
        file: row.file,
        line: row.line,
    };
    let groups = match about.by {
        By::Nothing => Vec::new(),
        by => {
            let tree = Tree::of(profile, by);
            let group = |place: &usize| Group {
                name: tree.node(*place).name.clone(),
                share: tree.share(*place),
                states: by_word(tree.node(*place).total),
            };
            tree.node(0).children.iter().take(GROUPS).map(group).collect()
        }
    };
    let told = ProfileLine {
        target: about.label,
        sampled: profile.micros,
        rate: profile.rate,
        samples: profile.samples,
        missed: profile.missed,
        states: by_word(all),
        hottest: hottest(profile),
        groups,
        functions: functions(profile).into_iter().take(TOP).map(row).collect(),
    };
    // Maps of texts and numbers cannot fail.
    serde_json::to_string(&told).unwrap_or_default() + "\n"
}
