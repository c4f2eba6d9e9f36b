use insta::assert_snapshot;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::model::flame::tests::{any_profile, shop};
use crate::model::threads::STATES;

const BY_ROUTE: About<'_> = About { label: ":9191", by: By::Route };

#[test]
fn the_table_tells_where_the_time_went() {
    assert_snapshot!(table::table(&shop(), BY_ROUTE));
}

#[test]
fn the_json_has_the_same_and_the_sentence() {
    let told: serde_json::Value = serde_json::from_str(&table::json(&shop(), BY_ROUTE)).unwrap();
    assert_eq!(told["samples"], 1_000);
    assert_eq!(told["states"]["database"], 0.62);
    assert!(told["hottest"]["sentence"].as_str().unwrap().starts_with("71 % of busy threads are in psycopg"));
    assert_eq!(told["functions"][0]["place"], "cursor.py:97");
    assert_eq!(told["groups"][0]["name"], "/orders/{}");
}

#[test]
fn collapsed_stacks_are_what_other_programs_read() {
    let text = collapsed::collapsed(&shop(), By::Nothing);
    assert_eq!(text.lines().count(), 5);
    let first = text.lines().next().unwrap();
    assert!(first.ends_with("(/venv/lib/python3.12/site-packages/psycopg/cursor.py:97);[waiting for a database] 620"));
    assert!(collapsed::collapsed(&shop(), By::Route).starts_with("/orders/{};__call__ ("));
}

/// The structure that speedscope's documentation gives, and nothing beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    #[serde(rename = "$schema")]
    schema: String,
    shared: Shared,
    profiles: Vec<Sampled>,
    name: String,
    active_profile_index: usize,
    exporter: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shared {
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame {
    name: String,
    #[serde(rename = "file")]
    _file: Option<String>,
    #[serde(rename = "line")]
    _line: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Sampled {
    r#type: String,
    name: String,
    unit: String,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

fn check(profile: &Profile, about: About<'_>) -> File {
    let file: File = serde_json::from_str(&speedscope::speedscope(profile, about)).unwrap();
    assert_eq!(file.schema, "https://www.speedscope.app/file-format-schema.json");
    assert!(file.active_profile_index < file.profiles.len() && file.exporter.starts_with("rtop"));
    assert!(!file.name.is_empty());
    for one in &file.profiles {
        assert_eq!((one.r#type.as_str(), one.start_value, one.samples.len()), ("sampled", 0, one.weights.len()));
        assert!(one.unit == "microseconds" || one.unit == "none");
        assert_eq!(one.end_value, one.weights.iter().sum::<u64>());
        assert!(one.samples.iter().flatten().all(|frame| *frame < file.shared.frames.len()));
    }
    file
}

#[test]
fn the_speedscope_file_has_all_requests_and_each_group() {
    let file = check(&shop(), BY_ROUTE);
    let names: Vec<_> = file.profiles.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["all requests", "(no route)", "/orders/{}", "/search"]);
    let all = &file.profiles[0];
    assert_eq!(all.end_value, 10_000_000, "a thousand samples at a hundred a second are ten seconds of threads");
    let last = *all.samples[0].last().unwrap();
    assert_eq!(file.shared.frames[last].name, "[waiting for a database]");
}

/// Whether it is XML, and no more than a picture with its own script and style.
fn well_formed(text: &str) {
    let mut reader = quick_xml::Reader::from_str(text);
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Eof => return,
            quick_xml::events::Event::Start(tag) | quick_xml::events::Event::Empty(tag) => {
                for attribute in tag.attributes() {
                    let attribute = attribute.unwrap();
                    let value = String::from_utf8_lossy(&attribute.value).into_owned();
                    let name = attribute.key.0;
                    assert!(name == b"xmlns" || !value.contains("//"), "{value}: something from outside");
                }
            }
            _ => {}
        }
    }
}

#[test]
fn the_picture_stands_alone_and_can_be_read_without_its_script() {
    let text = svg::svg(&shop(), BY_ROUTE);
    well_formed(&text);
    assert!(!text.contains("href") && !text.contains("url(") && !text.contains("@import"));
    for told in [
        ">71 % of busy threads are in psycopg … views.py:41, 87 % waiting for a database<",
        "<title>Cursor.execute",
        "waiting for the global lock 12.0 %",
        ">/orders/{}<",
    ] {
        let told =
            told.replace("Cursor.execute", "execute (cursor.py:97)\n62.0 % of all, 620 samples; 62.0 % in itself");
        assert!(text.contains(&told), "{told} is not in\n{text}");
    }
}

#[test]
fn the_ending_of_the_file_decides() {
    for (name, form) in [
        ("flame.svg", Form::Svg),
        ("a/b.speedscope.json", Form::Speedscope),
        ("x.json", Form::Speedscope),
        ("x.collapsed", Form::Collapsed),
        ("X.TXT", Form::Collapsed),
    ] {
        assert_eq!(form_of(Path::new(name)), Ok(form));
    }
    assert!(profile_file("flame.png").unwrap_err().contains(".svg, .speedscope.json, or .collapsed"));
}

fn named(name: &str) -> impl Strategy<Value = Profile> {
    let name = name.to_owned();
    any_profile().prop_map(move |mut profile| {
        profile.frames.iter_mut().for_each(|frame| frame.function.clone_from(&name));
        profile.stacks.iter_mut().for_each(|stack| stack.route.clone_from(&name));
        profile
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_profile_is_a_file_that_is_sound(profile in prop_oneof![any_profile(), named("<&\"';]]>")]) {
        for by in [By::Nothing, By::Route, By::State] {
            let about = About { label: "<x>&", by };
            let file = check(&profile, about);
            prop_assert_eq!(file.profiles[0].weights.len(), profile.stacks.iter().filter(|one| one.count > 0).count());
            well_formed(&svg::svg(&profile, about));
            let text = collapsed::collapsed(&profile, by);
            let sum: u64 = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
            prop_assert_eq!(sum, profile.samples);
            let told: serde_json::Value = serde_json::from_str(&table::json(&profile, about)).unwrap();
            prop_assert_eq!(told["states"].as_object().unwrap().len(), STATES.len());
            prop_assert!(!table::table(&profile, about).is_empty());
        }
    }
}
