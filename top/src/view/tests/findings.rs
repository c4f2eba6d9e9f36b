//! What is wrong, in plain words: the line, and what is behind it.

use insta::assert_snapshot;
use rwsgi_stats::{Queue, Snapshot, latency};

use super::panes::told;
use super::{answered, picture, press, screen, setup};
use crate::model::Pool;
use crate::source::Poll;
use crate::view::keys::Action;
use crate::view::{Screen, Theme};

/// Every thread is in a request, and others wait.
pub(super) fn full(second: u64) -> Snapshot {
    let mut document = told(second);
    let request = document.workers[0].cores[1].req_info.clone();
    for worker in &mut document.workers {
        worker.busy_time = Some(second * 2_000_000);
        for core in &mut worker.cores {
            (core.in_request, core.req_info) = (1, request.clone());
        }
    }
    let counts = latency::from_counts([(latency::index_of(900_000), second * 100)]);
    document.queue = Some(Queue { depth: 7, capacity: 100, waiting: latency::encode(&counts), rejected: 0 });
    document
}

fn document(second: u64) -> Poll {
    answered(second, serde_json::to_vec(&full(second)).unwrap())
}

fn watched(seconds: u64) -> Screen {
    screen("127.0.0.1:9191", (1..=seconds).map(document))
}

#[test]
fn a_line_says_what_is_wrong_and_a_key_shows_its_numbers() {
    let mut screen = watched(30);
    let narrow = picture(&mut screen, (40, 10));
    let usual = picture(&mut screen, (80, 24));
    let wide = picture(&mut screen, (160, 16));
    press(&mut screen, "y");
    let why = picture(&mut screen, (100, 30));
    assert_snapshot!(format!("{narrow}--- 80x24\n{usual}--- 160x16\n{wide}--- why\n{why}"));
    press(&mut screen, "y");
    assert_eq!(picture(&mut screen, (80, 24)), usual);
}

#[test]
fn a_pool_that_is_well_has_no_line() {
    let mut well = super::rwsgi_screen(60, 2);
    assert!(!picture(&mut well, (80, 24)).contains(" → "));
    press(&mut well, "y");
    assert!(picture(&mut well, (80, 24)).contains("nothing is wrong that the rules know of"));
}

#[test]
fn the_past_has_the_findings_of_then() {
    let mut screen = watched(30);
    for _ in 0..25 {
        screen.act(Action::Back1);
    }
    assert!(!picture(&mut screen, (120, 24)).contains("threads busy for"));
    for _ in 0..15 {
        screen.act(Action::Forward1);
    }
    assert!(picture(&mut screen, (120, 24)).contains("4 of 4 threads busy for 1"));
}

#[test]
fn of_several_servers_the_line_names_the_one_that_is_meant() {
    let pools = ["web1:9191", "web2:9191"].map(|label| Pool::new(label.into(), None)).into();
    let mut screen = Screen::new(pools, setup());
    for second in 1..=30 {
        screen.ingest(Poll { target: 0, ..answered(second, serde_json::to_vec(&super::rwsgi(second, 2)).unwrap()) });
        screen.ingest(Poll { target: 1, ..document(second) });
    }
    let all = picture(&mut screen, (120, 24));
    assert!(all.lines().any(|line| line.starts_with("web2:9191: 4 of 4 threads busy")), "{all}");
    screen.act(Action::TabNext);
    assert!(!picture(&mut screen, (120, 24)).contains("threads busy for"));
}

#[test]
fn without_utf_8_the_line_is_ascii() {
    let mut screen = watched(30);
    screen.set_theme(Theme::default());
    let shown = picture(&mut screen, (80, 24));
    assert!(shown.is_ascii() && shown.contains("threads busy"), "{shown}");
}

#[test]
fn what_is_open_scrolls_no_further_than_to_its_end() {
    for keys in ["y", "?"] {
        let mut screen = watched(30);
        press(&mut screen, keys);
        let first = picture(&mut screen, (60, 10));
        screen.act(Action::Last);
        let end = picture(&mut screen, (60, 10));
        assert!(end != first, "{end}");
        screen.act(Action::Up);
        assert!(picture(&mut screen, (60, 10)) != end, "one step back is seen at once: {end}");
    }
}
