//! A fleet's screen as it looks, and what keys do to it.

use std::sync::mpsc::{self, Receiver};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use insta::assert_snapshot;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Drill, FleetScreen};
use crate::model::outliers::made::{Made, Second, slower, well};
use crate::source::LocalMicros;
use crate::source::fleet::{FleetEvent, Server, ServerId};
use crate::view::actions::Outcome;
use crate::view::keys::Action;
use crate::view::live::Feed;
use crate::view::tests::{answered, rwsgi, setup};
use crate::view::theme::Theme;

const START: u64 = 1_795_227_000_000_000;

fn picture(screen: &mut FleetScreen, (width, height): (u16, u16)) -> String {
    let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width, height });
    screen.draw(&mut buffer);
    let lines = buffer.content.chunks(usize::from(width)).map(|row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}|\n", line.trim_end())
    });
    lines.collect()
}

fn press(screen: &mut FleetScreen, keys: &str) -> Vec<Outcome> {
    let code = |key| match key {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        key => KeyCode::Char(key),
    };
    keys.chars().map(|key| screen.press(KeyEvent::new(code(key), KeyModifiers::NONE))).collect()
}

struct Shown {
    screen: FleetScreen,
    made: Made,
    drills: Receiver<Drill>,
}

impl Shown {
    fn new(servers: usize) -> Self {
        let (sender, drills) = mpsc::channel();
        let mut screen = FleetScreen::new(setup(), Some(sender));
        let made = Made::new(servers);
        screen.take(made.joined(|place| vec![("rack".to_owned(), format!("r{}", place % 3))]), LocalMicros(START));
        Self { screen, made, drills }
    }

    fn seconds(&mut self, seconds: u64, does: impl Fn(usize) -> Option<Second>) {
        for _ in 0..seconds {
            let events = self.made.second(&does);
            self.screen.take(events, LocalMicros(START + self.made.second * 1_000_000));
        }
    }
}

/// Eight servers: one is slow since a generation, one is dead.
fn troubled() -> Shown {
    let mut shown = Shown::new(8);
    shown.seconds(30, |_| Some(Second { generation: 11, ..well() }));
    shown.seconds(15, |place| match place {
        3 => None,
        7 => Some(slower(Second { generation: 12, ..well() }, 3)),
        _ => Some(Second { generation: 11, ..well() }),
    });
    shown
}

#[test]
fn a_fleet_with_a_slow_server_and_a_dead_one() {
    let mut shown = troubled();
    let pictures = [(60, 12), (120, 20), (200, 20)].map(|size| picture(&mut shown.screen, size));
    assert_snapshot!(pictures.join("---\n"));
}

#[test]
fn the_heat_map_tells_without_colours_who_is_worse() {
    let mut shown = troubled();
    let mut pictures = String::new();
    for _ in 0..4 {
        shown.screen.act(Action::Chart(3));
        pictures += &picture(&mut shown.screen, (120, 16));
    }
    shown.screen.act(Action::Chart(3));
    assert!(picture(&mut shown.screen, (120, 16)).contains("P99"), "the table is back");
    shown.screen.setup.theme = Theme::default();
    shown.screen.act(Action::Chart(3));
    let plain = picture(&mut shown.screen, (120, 16));
    assert!(plain.is_ascii());
    let line = plain.lines().find(|line| line.starts_with(" web7")).unwrap();
    assert!(line.contains("ooo") || line.contains("OOO") || line.contains("###"), "{line}");
    assert_snapshot!(pictures);
}

#[test]
fn what_stands_out_is_explained_and_so_are_the_keys() {
    let mut shown = troubled();
    shown.screen.act(Action::Why);
    let why = picture(&mut shown.screen, (110, 30));
    shown.screen.act(Action::Back);
    shown.screen.act(Action::Help);
    assert_snapshot!(format!("{why}{}", picture(&mut shown.screen, (110, 45))));
}

/// The names in the order in which they stand.
fn names(screen: &mut FleetScreen) -> Vec<String> {
    let picture = picture(screen, (160, 20));
    let rows = picture.lines().skip_while(|line| !line.starts_with(" SERVER")).skip(1);
    let names = rows.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned());
    names.take_while(|name| name.starts_with("web")).collect()
}

#[test]
fn servers_are_sorted_filtered_and_stay_selected() {
    let mut shown = troubled();
    let names_now = names(&mut shown.screen);
    assert_eq!((names_now.len(), names_now[0].as_str()), (8, "web7"), "the highest p99 first");
    assert_eq!(names_now[7], "web3", "what has no value is below");
    shown.screen.act(Action::Down);
    let selected = shown.screen.sheet.selected.clone();
    shown.screen.act(Action::Reverse);
    assert_eq!(names(&mut shown.screen)[6], "web7");
    assert_eq!(shown.screen.sheet.selected, selected);
    press(&mut shown.screen, "/dead\n");
    assert_eq!(names(&mut shown.screen), ["web3"]);
    press(&mut shown.screen, "\u{1b}");
    assert_eq!(names(&mut shown.screen).len(), 8);
    press(&mut shown.screen, "/rack=r1\n");
    assert_eq!(names(&mut shown.screen), ["web1", "web4"]);
}

#[test]
fn a_server_opens_with_all_that_it_tells_and_closes_again() {
    let mut shown = troubled();
    let fleet = picture(&mut shown.screen, (120, 20));
    press(&mut shown.screen, "\n");
    let Ok(Drill::Open { ticket, target, .. }) = shown.drills.try_recv() else { panic!("nothing is asked for") };
    assert_eq!(target.to_string(), "web7:9191");
    assert!(picture(&mut shown.screen, (120, 20)).contains("waiting for the first response"));
    let poll = |second| Box::new(Feed::Poll(answered(second, serde_json::to_vec(&rwsgi(second, 4)).unwrap())));
    assert!(shown.screen.take_drilled(ticket, *poll(1)));
    assert!(!shown.screen.take_drilled(ticket + 1, *poll(2)), "what is of another one is late");
    let screen = picture(&mut shown.screen, (120, 20));
    assert!(screen.contains("web7 (web7:9191)") && screen.contains(" WID"), "{screen}");
    // What is open in it closes first.
    press(&mut shown.screen, "?\u{1b}");
    assert!(picture(&mut shown.screen, (120, 20)).contains(" WID"));
    press(&mut shown.screen, "\u{1b}");
    assert!(matches!(shown.drills.try_recv(), Ok(Drill::Close)));
    assert_eq!(picture(&mut shown.screen, (120, 20)).lines().next(), fleet.lines().next());
    // `q` goes back as well, and only then leaves.
    assert_eq!(press(&mut shown.screen, "\nqq"), [Outcome::Draw, Outcome::Draw, Outcome::Quit]);
}

#[test]
fn a_server_without_an_address_says_so() {
    let mut shown = Shown::new(0);
    let server = Server { name: "web0".into(), labels: Vec::new(), address: None };
    shown.screen.take(vec![FleetEvent::Joined(ServerId(0), server)], LocalMicros(START));
    press(&mut shown.screen, "\n");
    assert!(shown.drills.try_recv().is_err());
    let screen = picture(&mut shown.screen, (120, 8));
    assert!(screen.contains("nobody knows where web0 tells its stats"), "{screen}");
}

#[test]
fn five_hundred_servers_scroll() {
    let mut shown = Shown::new(500);
    shown.seconds(2, |_| Some(well()));
    assert!(picture(&mut shown.screen, (120, 20)).contains("▼"));
    shown.screen.act(Action::Last);
    let last = picture(&mut shown.screen, (120, 20));
    assert!(last.contains("484▲|") && !last.contains("▼|") && last.contains("500 servers"), "{last}");
}

#[test]
fn a_source_that_cannot_be_read_is_told() {
    let mut shown = Shown::new(2);
    shown.seconds(2, |_| Some(well()));
    let event = FleetEvent::Source("dns:app.internal".into(), Some("no such host".into()));
    shown.screen.take(vec![event], LocalMicros(START));
    assert!(picture(&mut shown.screen, (120, 20)).contains("dns:app.internal: no such host"));
}

#[test]
fn nothing_breaks_at_any_size() {
    let mut shown = troubled();
    for action in [None, Some(Action::Chart(3)), Some(Action::Why), Some(Action::Back), Some(Action::Help)] {
        if let Some(action) = action {
            shown.screen.act(action);
        }
        for width in [1, 2, 3, 7, 20, 39, 40, 41, 80] {
            for height in 1..12 {
                picture(&mut shown.screen, (width, height));
            }
        }
    }
}
