//! Every pane, overlay, chart and tab at every size of terminal.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{answered, failed, fixture, press, rwsgi, setup};
use crate::model::Pool;
use crate::source::{Poll, SourceError};
use crate::view::Screen;
use crate::view::charts::Charts;
use crate::view::frame::Frames;
use crate::view::keys::Action;
use crate::view::table::Cores;

/// What can be looked at in a tab, by the keys that lead there.
const LOOKS: [&[Action]; 25] = [
    &[],
    &[Action::Down],
    &[Action::Last],
    &[Action::Last, Action::Detail],
    &[Action::Down, Action::Detail, Action::Last],
    &[Action::Cores],
    &[Action::Cores, Action::Last],
    &[Action::Cores, Action::Cores, Action::Last],
    &[Action::Filter],
    &[Action::Last, Action::Back1],
    &[Action::Last, Action::Detail, Action::Back60],
    &[Action::Fast, Action::Theme],
    &[Action::Charts],
    &[Action::Chart(1)],
    &[Action::Chart(2)],
    &[Action::Chart(3)],
    &[Action::Chart(4)],
    &[Action::Chart(5)],
    &[Action::Chart(6), Action::Last],
    &[Action::Help],
    &[Action::Help, Action::Last],
    &[Action::Columns],
    &[Action::Columns, Action::Last],
    &[Action::Alerts],
    &[Action::Alerts, Action::Last],
];

/// An rwsgi with many workers, a uWSGI, one with spoolers, an emperor, one that went away, and one that never answered.
fn servers() -> Screen {
    let labels = ["web1:9191", "web2:9191", "/run/日本/stats.sock", "@emperor", "gone:9191", "never:9191"];
    let mut screen = Screen::new(labels.map(|label| Pool::new(label.into(), None)).into(), setup());
    for second in 1..=80 {
        let workers = if second % 2 == 0 { 40 } else { 41 };
        let documents = [serde_json::to_vec(&rwsgi(second, workers)).unwrap()];
        let others = ["uwsgi-busy-cheap", "uwsgi-spoolers", "uwsgi-emperor", "uwsgi-four-workers-two-threads"];
        let documents = documents.into_iter().chain(others.map(fixture)).enumerate();
        for (target, document) in documents.filter(|(target, _)| *target == 0 || second < 4) {
            screen.ingest(Poll { target, ..answered(second, document) });
        }
        screen.ingest(Poll { target: 4, ..failed(second, SourceError::Half(812)) });
        screen.ingest(Poll { target: 5, ..failed(second, SourceError::Empty) });
    }
    screen
}

/// All small sizes, and those further apart up to 300x100.
fn sizes() -> impl Iterator<Item = (u16, u16)> {
    let small = (1..=12).flat_map(|width| (1..=8).map(move |height| (width, height)));
    let narrow = [20, 31, 45].into_iter().flat_map(|width| (1..=12).map(move |height| (width, height)));
    let large = [60, 110, 121, 300].into_iter().flat_map(|width| [3, 9, 14, 23, 41, 100].map(|height| (width, height)));
    small.chain(narrow).chain(large)
}

#[test]
fn everything_is_drawn_at_every_size() {
    let mut screen = servers();
    for tab in 0..7 {
        for filter in ["", "0", "no worker is like this"] {
            // What was typed before is dropped.
            press(&mut screen, &format!("/\u{1b}/{filter}\n"));
            for look in LOOKS {
                // With other filters a table is all that differs.
                if !filter.is_empty() && look.iter().any(|action| !matches!(action, Action::Last | Action::Cores)) {
                    continue;
                }
                screen.selection.tab = tab;
                for action in look {
                    screen.act(*action);
                }
                for (width, height) in sizes() {
                    let drawn = catch_unwind(AssertUnwindSafe(|| {
                        Frames::new(width, height).advance(|buf| screen.draw(buf), |_, _, _| ());
                    }));
                    assert!(drawn.is_ok(), "tab {tab}, filter '{filter}', {look:?}, {width}x{height}");
                }
                leave(&mut screen);
            }
        }
    }
}

/// Goes back to the plain tab.
fn leave(screen: &mut Screen) {
    if screen.table.filter.editing {
        press(screen, "\n");
    }
    screen.selection.overlay = None;
    screen.selection.detail = false;
    screen.table.selected = None;
    screen.table.cores = Cores::Off;
    screen.charts = Charts::WhereRoom;
    screen.act(Action::Now);
}
