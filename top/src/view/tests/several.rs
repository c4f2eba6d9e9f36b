//! Several servers: what a tab shows and what a click does is the tab's own.

use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use insta::assert_snapshot;

use super::{answered, failed, fixture, picture, rwsgi, setup};
use crate::model::Pool;
use crate::source::{Poll, SourceError};
use crate::view::Screen;
use crate::view::keys::Action;

const SIZE: (u16, u16) = (120, 20);

/// An rwsgi and a uWSGI.
fn mixed() -> Screen {
    let pools = ["ours:9191", "theirs:9191"].map(|label| Pool::new(label.into(), None));
    let mut screen = Screen::new(pools.into(), setup());
    for second in 1..=3 {
        screen.ingest(answered(second, serde_json::to_vec(&rwsgi(second, 4)).unwrap()));
        screen.ingest(Poll { target: 1, ..answered(second, fixture("uwsgi-four-workers-two-threads")) });
    }
    screen
}

/// Clicks where a text stands; in the line that has `within` too.
fn click(screen: &mut Screen, within: &str, text: &str) {
    let shown = picture(screen, SIZE);
    let mut lines = shown.lines().enumerate();
    let (row, line) = lines.find(|(_, line)| line.contains(within) && line.contains(text)).expect("the text is shown");
    let column = line[..line.find(text).unwrap()].chars().count();
    let kind = MouseEventKind::Down(MouseButton::Left);
    screen.mouse(MouseEvent { kind, column: column as u16, row: row as u16, modifiers: KeyModifiers::NONE });
}

fn titles(screen: &mut Screen) -> String {
    picture(screen, SIZE).lines().find(|line| line.contains("WID")).unwrap_or_default().to_owned()
}

#[test]
fn what_only_one_server_tells_takes_no_room_in_the_other_s_tab() {
    let mut screen = mixed();
    screen.act(Action::TabBefore);
    let before = titles(&mut screen);
    assert!(!before.contains("P50") && !before.contains("UTIL%"), "{before}");
    screen.act(Action::TabBefore);
    let ours = titles(&mut screen);
    assert!(ours.contains("P50") && ours.contains("UTIL%"), "{ours}");
    screen.act(Action::TabNext);
    assert_eq!(titles(&mut screen), before);
    // Nor can it be sorted by there.
    for _ in 0..30 {
        screen.act(Action::SortNext);
        assert!(!["p50", "util"].contains(&screen.table.sort.name));
    }
}

#[test]
fn a_server_that_is_replaced_by_another_kind_takes_its_columns_away() {
    let mut screen = super::rwsgi_screen(3, 4);
    assert!(titles(&mut screen).contains("P50"));
    screen.ingest(answered(4, fixture("uwsgi-four-workers-two-threads")));
    assert!(!titles(&mut screen).contains("P50"));
}

#[test]
fn clicks_reach_only_what_is_shown() {
    let mut screen = mixed();
    screen.act(Action::TabNext);
    picture(&mut screen, SIZE);
    let sort = screen.table.sort.name;
    screen.act(Action::TabBefore);
    picture(&mut screen, SIZE);
    // Everywhere in the merged view: the table of the tab is not there to be sorted.
    for row in 3..SIZE.1 {
        for column in (0..SIZE.0).step_by(3) {
            let kind = MouseEventKind::Down(MouseButton::Left);
            screen.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
        }
    }
    assert_eq!((screen.table.sort.name, screen.table.selected), (sort, None));
    // What lies over the table, and a worker looked at closely, are not the table either.
    screen.act(Action::TabNext);
    for over in [Action::Help, Action::Detail] {
        picture(&mut screen, SIZE);
        screen.act(over);
        picture(&mut screen, SIZE);
        let selected = screen.table.selected;
        for row in 3..SIZE.1 {
            let kind = MouseEventKind::Down(MouseButton::Left);
            screen.mouse(MouseEvent { kind, column: 5, row, modifiers: KeyModifiers::NONE });
        }
        assert_eq!((screen.table.sort.name, screen.table.selected), (sort, selected), "{over:?}");
        screen.act(Action::Back);
    }
}

#[test]
fn a_click_selects_a_server_and_opens_a_tab() {
    let mut screen = mixed();
    screen.ingest(Poll { target: 0, ..failed(4, SourceError::Empty) });
    click(&mut screen, " up ", "theirs:9191");
    screen.act(Action::Detail);
    assert!(picture(&mut screen, SIZE).starts_with("uwsgi-"));
    click(&mut screen, " all ", "ours:9191");
    assert!(picture(&mut screen, SIZE).starts_with("rwsgi-"));
    click(&mut screen, " all ", "all");
    assert!(picture(&mut screen, SIZE).starts_with("rtop  2 servers"));
}

#[test]
fn several_servers_are_shown_as_one_and_each_by_itself() {
    let pools = ["web1:9191", "web2:9191", "web3:9191"].map(|label| Pool::new(label.into(), None));
    let mut screen = Screen::new(pools.into(), setup());
    for second in 1..=3 {
        for target in 0..2 {
            let document = serde_json::to_vec(&rwsgi(second, 2 + target as u32)).unwrap();
            screen.ingest(Poll { target, ..answered(second, document) });
        }
        screen.ingest(Poll { target: 2, ..failed(second, SourceError::Empty) });
    }
    let all = picture(&mut screen, (120, 16));
    screen.act(Action::TabNext);
    let first = picture(&mut screen, (120, 10));
    screen.act(Action::TabBefore);
    screen.act(Action::Down);
    screen.act(Action::Detail);
    assert!(picture(&mut screen, (120, 16)).contains(" 4103 "), "the second server has a third worker");
    assert_snapshot!(format!("{all}--- web1\n{first}"));
}

#[test]
fn servers_together_are_added_up_by_rounds_and_a_silent_one_has_no_rate() {
    let pools = ["web1:9191", "web2:9191"].map(|label| Pool::new(label.into(), None));
    let mut screen = Screen::new(pools.into(), setup());
    // Each serves 99 requests a second per worker and its number: 297 with two workers, 594 with three. The second
    // server's clock is an hour ahead.
    let answer = |target: usize, second: u64| {
        let mut document = rwsgi(second, 2 + target as u32);
        document.now = document.now.map(|now| now + target as u64 * 3_600_000_000);
        Poll { target, ..answered(second, serde_json::to_vec(&document).unwrap()) }
    };
    let header = |screen: &mut Screen| picture(screen, (120, 16)).lines().nth(2).unwrap_or_default().to_owned();
    for second in 1..=3 {
        screen.ingest(answer(0, second));
        screen.ingest(answer(1, second));
    }
    assert!(header(&mut screen).contains("RPS 891"), "{}", header(&mut screen));
    // Half of a round changes nothing.
    screen.ingest(answer(0, 4));
    assert!(header(&mut screen).starts_with("req 2673 "), "{}", header(&mut screen));
    // The second server says nothing more: what it has served stays, what it serves is not known.
    screen.ingest(Poll { target: 1, ..failed(4, SourceError::Empty) });
    assert!(header(&mut screen).starts_with("req 2970 "), "{}", header(&mut screen));
    assert!(header(&mut screen).contains("RPS 297"), "{}", header(&mut screen));
    // A round is over as well when one has answered twice.
    screen.ingest(answer(0, 5));
    screen.ingest(answer(0, 6));
    assert!(header(&mut screen).starts_with("req 3267 "), "{}", header(&mut screen));
    // The past as it was, of both.
    for _ in 0..2 {
        screen.act(Action::Back1);
    }
    assert!(header(&mut screen).contains("RPS 891"), "{}", picture(&mut screen, (120, 16)));
    let rows = picture(&mut screen, (120, 16));
    for row in ["297", "594"] {
        assert!(rows.contains(row), "{rows}");
    }
}
