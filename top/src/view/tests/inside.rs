//! The panes of stacks and of the flame graph: against answers made by hand.

use std::fmt::Write as _;
use std::sync::mpsc::{self, Receiver};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use insta::assert_snapshot;
use proptest::prelude::*;
use rwsgi_stats::control::{Answer, Profile, Request};

use super::{Screen, Setup, answered, picture, rwsgi, setup};
use crate::model::Pool;
use crate::model::flame::tests::{any_profile, shop};
use crate::report::stacks_of_a_test;
use crate::source::{Ask, ControlError, ControlEvent, ControlReply};
use crate::view::Theme;

/// A screen of one server, and what it asks.
fn asking() -> (Screen, Receiver<Ask>) {
    let (asks, asked) = mpsc::channel();
    let setup = Setup { asks: Some(asks), ..setup() };
    let mut screen = Screen::new(vec![Pool::new(":9191".into(), Some("web1".into()))], setup);
    sample(&mut screen, 10);
    (screen, asked)
}

fn sample(screen: &mut Screen, second: u64) {
    screen.ingest(answered(second, serde_json::to_vec(&rwsgi(second, 2)).unwrap()));
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{8}' => KeyCode::Backspace,
            '\u{1b}' => KeyCode::Esc,
            '^' => KeyCode::Up,
            'v' => KeyCode::Down,
            '}' => KeyCode::Right,
            key => KeyCode::Char(key),
        };
        screen.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

fn answer(screen: &mut Screen, asked: &Receiver<Ask>, answer: Result<Answer, ControlError>) -> Ask {
    let ask = asked.try_recv().unwrap();
    screen.told(ControlReply { target: ask.target, ticket: ask.ticket, said: ControlEvent::Answer(answer) });
    ask
}

/// A screen with the graph of a profile.
fn graph(profile: Profile) -> (Screen, Receiver<Ask>) {
    let (mut screen, asked) = asking();
    press(&mut screen, "P\n");
    answer(&mut screen, &asked, Ok(Answer::Profile(profile)));
    (screen, asked)
}

fn pictures(screen: &mut Screen) -> String {
    let mut text = String::new();
    for size in [(40, 10), (80, 24), (120, 40)] {
        let _ = writeln!(text, "--- {}x{}\n{}", size.0, size.1, picture(screen, size));
    }
    text
}

#[test]
fn the_stacks_of_a_worker_are_live() {
    let (mut screen, asked) = asking();
    press(&mut screen, "jb");
    let ask = answer(&mut screen, &asked, Ok(Answer::Stacks(stacks_of_a_test())));
    assert_eq!(ask.request, Request::Stacks { worker: Some(2) });
    assert_snapshot!(pictures(&mut screen));
    assert!(asked.try_recv().is_err(), "one request at a time");
    sample(&mut screen, 12);
    assert!(asked.try_recv().is_ok(), "they are asked for with each sample");
    sample(&mut screen, 14);
    assert!(asked.try_recv().is_err(), "the last request is not answered yet");
    assert!(picture(&mut screen, (80, 24)).contains("4s old"));
    press(&mut screen, "\u{1b}");
    assert!(!picture(&mut screen, (80, 24)).contains("stacks of"));
}

#[test]
fn held_stacks_stay_and_a_failure_is_said() {
    let (mut screen, asked) = asking();
    press(&mut screen, "b");
    assert_eq!(asked.try_recv().unwrap().request, Request::Stacks { worker: None });
    press(&mut screen, " b");
    answer(&mut screen, &asked, Err(ControlError::None));
    sample(&mut screen, 20);
    assert!(asked.try_recv().is_err());
    let shown = picture(&mut screen, (100, 24));
    assert!(shown.contains("start it with --control PATH") && shown.contains("held"), "{shown}");
}

#[test]
fn a_recording_is_not_asked() {
    let mut screen = super::screen(":9191", [answered(10, serde_json::to_vec(&rwsgi(10, 2)).unwrap())]);
    for keys in ["b", "\u{1b}P\n"] {
        press(&mut screen, keys);
        let shown = picture(&mut screen, (80, 24));
        assert!(shown.contains("this is a recording"), "{shown}");
    }
}

#[test]
fn a_profile_is_asked_for_shows_its_progress_and_then_the_graph() {
    let (mut screen, asked) = asking();
    press(&mut screen, "P");
    assert!(picture(&mut screen, (80, 24)).contains("for how many seconds? 10"));
    press(&mut screen, "\u{8}\u{8}0\n");
    assert!(picture(&mut screen, (80, 24)).contains("expected 0.1 to 600 seconds"));
    press(&mut screen, "\u{8}5\n");
    let ask = asked.try_recv().unwrap();
    assert_eq!(ask.request, Request::Profile { seconds: 5.0, rate: 100 });
    sample(&mut screen, 12);
    assert!(picture(&mut screen, (80, 24)).contains("2 s of 5 s"));
    press(&mut screen, "\u{1b}");
    let shown = picture(&mut screen, (80, 24));
    assert!(shown.contains("profiling: 2 s of 5 s  P shows it"), "it goes on: {shown}");
    let said = ControlEvent::Answer(Ok(Answer::Profile(shop())));
    assert!(screen.told(ControlReply { target: 0, ticket: ask.ticket, said }));
    let shown = picture(&mut screen, (120, 24));
    assert!(shown.contains("71 % of busy threads are in psycopg … views.py:41"), "{shown}");
    press(&mut screen, "P");
    assert!(picture(&mut screen, (120, 24)).contains("1000 samples in 10.0s"));
}

#[test]
fn a_profile_that_is_given_up_is_not_waited_for() {
    let (mut screen, asked) = asking();
    press(&mut screen, "P\n");
    let ask = asked.try_recv().unwrap();
    press(&mut screen, "\u{8}");
    assert!(ask.given_up.load(std::sync::atomic::Ordering::Relaxed));
    assert!(!screen.told(ControlReply {
        target: 0,
        ticket: ask.ticket,
        said: ControlEvent::Answer(Ok(Answer::Profile(shop())))
    }));
    assert!(!picture(&mut screen, (80, 24)).contains("busy threads"));
}

#[test]
fn a_profile_without_a_request_says_so() {
    let (mut screen, _asked) = graph(Profile::default());
    assert!(picture(&mut screen, (80, 24)).contains("no request ran meanwhile"));
}

#[test]
fn a_profile_that_failed_can_be_left_and_the_one_before_is_there_again() {
    let (mut screen, asked) = graph(shop());
    press(&mut screen, "r\n");
    answer(&mut screen, &asked, Ok(Answer::Profile(Profile::default())));
    assert!(picture(&mut screen, (120, 24)).contains("no request ran meanwhile"));
    press(&mut screen, "\u{1b}");
    let shown = picture(&mut screen, (120, 24));
    assert!(!shown.contains("no request ran meanwhile") && shown.contains("P shows it"), "{shown}");
    press(&mut screen, "P");
    assert!(picture(&mut screen, (120, 24)).contains("1000 samples in 10.0s"));
}

#[test]
fn what_an_old_profile_says_has_its_age() {
    let (mut screen, _asked) = graph(shop());
    press(&mut screen, "\u{1b}");
    sample(&mut screen, 11);
    assert!(!picture(&mut screen, (140, 24)).contains(" ago"));
    sample(&mut screen, 10 + 125);
    let shown = picture(&mut screen, (140, 24));
    assert!(shown.contains("87 % waiting for a database, 2m05s ago  P shows it"), "{shown}");
}

#[test]
fn the_flame_graph_at_every_size() {
    let (mut screen, _asked) = graph(shop());
    assert_snapshot!(pictures(&mut screen));
}

#[test]
fn the_flame_graph_is_grouped_zoomed_searched_and_folded() {
    let (mut screen, _asked) = graph(shop());
    let mut text = String::new();
    let mut see = |screen: &mut Screen, what: &str, keys: &str| {
        press(screen, keys);
        let _ = writeln!(text, "--- {what}\n{}", picture(screen, (80, 16)));
    };
    see(&mut screen, "by route", "g");
    see(&mut screen, "zoomed into the function at the cursor", "\n");
    see(&mut screen, "back, by state", "\u{8}g");
    see(&mut screen, "all again, and a search", "g/search\n");
    see(&mut screen, "folded", "^ ");
    assert_snapshot!(text);
    press(&mut screen, "\u{1b}\u{1b}");
    assert!(picture(&mut screen, (120, 24)).contains("P shows it"), "esc drops the search, then closes");
}

#[test]
fn the_flame_graph_without_colours_and_in_ascii() {
    let (mut screen, _asked) = graph(shop());
    screen.set_theme(Theme::default());
    let shown = picture(&mut screen, (80, 12));
    assert!(shown.is_ascii(), "{shown}");
    assert_snapshot!(shown);
}

#[test]
fn a_click_selects_and_another_zooms() {
    let (mut screen, _asked) = graph(shop());
    picture(&mut screen, (80, 24));
    let click = |screen: &mut Screen| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        screen.mouse(MouseEvent { kind, column: 60, row: 6, modifiers: KeyModifiers::NONE });
    };
    click(&mut screen);
    let shown = picture(&mut screen, (80, 24));
    assert!(shown.contains("search 23.0 %, itself 3.0 %"), "{shown}");
    click(&mut screen);
    assert!(picture(&mut screen, (80, 24)).contains("zoomed into 23.0 % of all"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn no_profile_no_key_and_no_size_is_too_much(
        profile in any_profile(),
        keys in "[gnr/a\n\u{8}\u{1b}v^}  ]{0,40}",
        width in 1..130u16,
        height in 1..40u16,
        at in any::<(u16, u16)>(),
    ) {
        let (mut screen, _asked) = graph(profile);
        for key in keys.chars() {
            press(&mut screen, &key.to_string());
            picture(&mut screen, (width, height));
            let kind = MouseEventKind::Down(MouseButton::Left);
            let (column, row) = (at.0 % width, at.1 % height);
            screen.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
        }
    }
}
