//! speedscope's file format, of its kind `sampled`.

use std::collections::{BTreeMap, HashMap};

use rwsgi_stats::control::{Profile, ProfileStack};
use serde::Serialize;

use super::About;
use super::table::samples;
use crate::model::flame::By;
use crate::model::threads::{STATES, place_of};

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared<'a>,
    profiles: Vec<Sampled>,
    name: String,
    #[serde(rename = "activeProfileIndex")]
    active_profile_index: usize,
    exporter: &'static str,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Named<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(line: &u32) -> bool {
    *line == 0
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// The file: all requests, and behind them each group by itself. What a thread waited for is a last frame.
pub(super) fn speedscope(profile: &Profile, about: About<'_>) -> String {
    let mut frames: Vec<Named<'_>> = profile
        .frames
        .iter()
        .map(|frame| Named { name: &frame.function, file: &frame.file, line: frame.line })
        .collect();
    let states: HashMap<usize, usize> = STATES
        .iter()
        .enumerate()
        .filter_map(|(place, state)| {
            frames.push(Named { name: state.frame?, file: "", line: 0 });
            Some((place, frames.len() - 1))
        })
        .collect();
    // A sample stands for the time until the next one of its thread.
    let (unit, weight) = match profile.rate {
        0 => ("none", 1),
        rate => ("microseconds", 1_000_000 / u64::from(rate)),
    };
    let sampled = |name: &str, stacks: &mut dyn Iterator<Item = &ProfileStack>| {
        let (mut samples, mut weights, mut end) = (Vec::new(), Vec::new(), 0u64);
        for stack in stacks.filter(|stack| stack.count > 0) {
            let known = stack.frames.iter().map(|place| *place as usize).filter(|place| *place < profile.frames.len());
            samples.push(known.chain(states.get(&place_of(stack.state)).copied()).collect());
            weights.push(stack.count.saturating_mul(weight));
            end = end.saturating_add(stack.count.saturating_mul(weight));
        }
        Sampled { r#type: "sampled", name: name.to_owned(), unit, start_value: 0, end_value: end, samples, weights }
    };
    let mut profiles = vec![sampled("all requests", &mut profile.stacks.iter())];
    let by = if about.by == By::Nothing { By::State } else { about.by };
    let mut groups: BTreeMap<&str, Vec<&ProfileStack>> = BTreeMap::new();
    for stack in &profile.stacks {
        if let Some(group) = by.group(&stack.route, stack.state) {
            groups.entry(group).or_default().push(stack);
        }
    }
    profiles.extend(groups.into_iter().map(|(name, stacks)| sampled(name, &mut stacks.into_iter())));
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        shared: Shared { frames },
        profiles,
        name: format!("{}: {}", about.label, samples(profile)),
        active_profile_index: 0,
        exporter: concat!("rtop ", env!("CARGO_PKG_VERSION")),
    };
    // Maps of texts and numbers cannot fail.
    serde_json::to_string(&file).unwrap_or_default() + "\n"
}
