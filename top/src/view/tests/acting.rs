//! Actions: what is told first, that nothing is asked without a yes, and the answer.

use std::sync::mpsc::{self, Receiver};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use insta::assert_snapshot;
use rwsgi_stats::control::{Answer, Request};

use super::{Screen, Setup, answered, picture, rwsgi, setup};
use crate::model::Pool;
use crate::source::{Ask, ControlError, ControlEvent, ControlReply};

/// A screen of one server with a control socket, and what it asks.
fn screen(change: impl FnOnce(&mut Setup)) -> (Screen, Receiver<Ask>) {
    let (asks, asked) = mpsc::channel();
    let mut setup = Setup { asks: Some(asks), control_named: true, ..setup() };
    change(&mut setup);
    let mut screen = Screen::new(vec![Pool::new(":9191".into(), None)], setup);
    screen.ingest(answered(10, serde_json::to_vec(&rwsgi(10, 2)).unwrap()));
    (screen, asked)
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        let code = if key == 'v' { KeyCode::Down } else { KeyCode::Char(key) };
        screen.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

fn foot(screen: &mut Screen) -> String {
    picture(screen, (140, 24)).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn an_action_is_told_in_full_and_done_after_a_yes_alone() {
    let (mut screen, asked) = screen(|_| {});
    press(&mut screen, "vX");
    assert_snapshot!(picture(&mut screen, (100, 24)));
    for no in ["n", "q", "\n", "X"] {
        press(&mut screen, no);
        assert!(asked.try_recv().is_err(), "{no:?} is no yes");
        press(&mut screen, "X");
    }
    press(&mut screen, "y");
    let ask = asked.try_recv().unwrap();
    assert_eq!(ask.request, Request::Recycle { worker: 2 });
    for (said, shown) in [
        (
            ControlEvent::Progress("worker 2 serves until then".into()),
            "recycle of worker 2: worker 2 serves until then",
        ),
        (
            ControlEvent::Answer(Ok(Answer::Text("worker 2 is process 7 now".into()))),
            "recycle of worker 2: worker 2 is process 7 now",
        ),
    ] {
        screen.told(ControlReply { target: ask.target, ticket: ask.ticket, said });
        assert!(foot(&mut screen).contains(shown), "{}", foot(&mut screen));
    }
    press(&mut screen, "v");
    assert!(!foot(&mut screen).contains("process 7"), "the next key takes it away");
}

#[test]
fn an_answer_that_is_longer_than_the_screen_is_wide_is_shown_whole() {
    let (mut screen, asked) = screen(|_| {});
    press(&mut screen, "vDy");
    let ask = asked.try_recv().unwrap();
    let said = "worker 2 (pid 4102) takes no new requests from the next second on, and finishes those that it has; \
                undrain ends it";
    let answer = ControlEvent::Answer(Ok(Answer::Text(said.into())));
    screen.told(ControlReply { target: ask.target, ticket: ask.ticket, said: answer });
    let shown = picture(&mut screen, (80, 24));
    assert!(shown.ends_with("undrain ends it|\n"), "{shown}");
    press(&mut screen, "v");
    assert!(!picture(&mut screen, (80, 24)).contains("from the next second"));
}

#[test]
fn a_worker_that_is_given_no_requests_is_told_apart_from_an_idle_one() {
    let mut document = rwsgi(10, 2);
    assert_eq!(document.workers[1].status, "idle");
    document.workers[1].accepting = 0;
    let mut screen = super::screen(":9191", [answered(10, serde_json::to_vec(&document).unwrap())]);
    let shown = picture(&mut screen, (100, 24));
    assert!(shown.lines().any(|line| line.starts_with("   2") && line.contains(" closed ")), "{shown}");
}

#[test]
fn why_something_was_not_done_is_a_line() {
    let (mut screen, asked) = screen(|_| {});
    press(&mut screen, "X");
    assert!(foot(&mut screen).contains("select a worker first"));
    press(&mut screen, "Ry");
    let ask = asked.try_recv().unwrap();
    let said = ControlEvent::Answer(Err(ControlError::Failed("generation 2 could not be loaded".into())));
    screen.told(ControlReply { target: ask.target, ticket: ask.ticket, said });
    assert!(foot(&mut screen).contains("reload: generation 2 could not be loaded"));
}

#[test]
fn without_a_control_socket_a_line_says_so_and_read_only_has_no_such_keys() {
    let (mut unnamed, asked) = screen(|setup| setup.control_named = false);
    press(&mut unnamed, "R");
    assert!(foot(&mut unnamed).contains("no control socket: start it with --control"), "{}", foot(&mut unnamed));
    assert!(asked.try_recv().is_err());
    let (mut looking, asked) = screen(|setup| setup.read_only = true);
    press(&mut looking, "Ry");
    assert!(asked.try_recv().is_err());
    press(&mut looking, "?");
    assert!(!picture(&mut looking, (140, 60)).contains("act: load"), "help does not have them");
}

#[test]
fn a_yes_to_a_question_of_processes_that_are_gone_does_nothing() {
    let (mut screen, asked) = screen(|_| {});
    press(&mut screen, "vX");
    let mut restarted = rwsgi(11, 2);
    restarted.pid += 1;
    screen.ingest(answered(11, serde_json::to_vec(&restarted).unwrap()));
    press(&mut screen, "y");
    assert!(asked.try_recv().is_err());
    assert!(foot(&mut screen).contains("not done: another process"), "{}", foot(&mut screen));
    press(&mut screen, "X");
    restarted.workers[1].pid += 10;
    screen.ingest(answered(12, serde_json::to_vec(&restarted).unwrap()));
    press(&mut screen, "y");
    assert!(asked.try_recv().is_err(), "the worker is another");
    press(&mut screen, "Xy");
    assert!(asked.try_recv().is_ok());
}

#[test]
fn each_of_two_actions_has_its_answer_told() {
    let (mut screen, asked) = screen(|_| {});
    press(&mut screen, "RyvXy");
    let (reload, recycle) = (asked.try_recv().unwrap(), asked.try_recv().unwrap());
    assert!(!reload.given_up.load(std::sync::atomic::Ordering::Relaxed));
    let said = ControlEvent::Answer(Ok(Answer::Text("worker 2 is process 7 now".into())));
    screen.told(ControlReply { target: recycle.target, ticket: recycle.ticket, said });
    assert!(foot(&mut screen).contains("recycle of worker 2: worker 2 is process 7"));
    let said = ControlEvent::Answer(Err(ControlError::Failed("generation 2 could not be loaded".into())));
    screen.told(ControlReply { target: reload.target, ticket: reload.ticket, said });
    assert!(foot(&mut screen).contains("reload: generation 2 could not be loaded"));
}
