//! Screens as they look: each of the usual sizes, rendered from documents, kept as pictures in `snapshots/`.

mod acting;
mod changed;
mod findings;
mod generations;
mod hostile;
mod inside;
mod panes;
mod past;
mod several;
mod sizes;

use std::fmt::Write as _;

use insta::assert_snapshot;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rwsgi_stats::{
    Core, LastException, Limits, Queue, Recycled, RequestInfo, Responses, Snapshot, Socket, Worker, latency,
};

use super::keys::Action;
use super::keys::Keys;
use super::{Screen, Setup, Theme};
use crate::model::Pool;
use crate::source::{Document, LocalMicros, Monotonic, Poll, SourceError, parse};

const SIZES: [(u16, u16); 4] = [(40, 10), (80, 24), (120, 40), (250, 80)];
const START: u64 = 1_795_227_000_000_000;

pub(super) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../shared/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

pub(super) fn setup() -> Setup {
    Setup {
        theme: Theme { color: true, unicode: true, ..Theme::default() },
        zone: TimeZone::UTC,
        keys: Keys::default(),
        thresholds: crate::model::Thresholds::default(),
        columns: None,
        sort: None,
        interval: Some(std::time::Duration::from_secs(2)),
        asks: None,
        read_only: false,
        control_named: false,
    }
}

pub(super) fn screen(label: &str, polls: impl IntoIterator<Item = Poll>) -> Screen {
    let mut screen = Screen::new(vec![Pool::new(label.into(), Some("web1".into()))], setup());
    for poll in polls {
        screen.ingest(poll);
    }
    screen
}

pub(super) fn answered(second: u64, document: Vec<u8>) -> Poll {
    poll(second, Ok(parse(document).unwrap()))
}

fn failed(second: u64, error: SourceError) -> Poll {
    poll(second, Err(error))
}

fn poll(second: u64, outcome: Result<Document, SourceError>) -> Poll {
    let (at, taken) = (Monotonic::from_micros(second * 1_000_000), LocalMicros(START + second * 1_000_000));
    Poll { target: 0, at, taken, outcome }
}

/// What the screen shows, trailing blanks cut.
pub(super) fn picture(screen: &mut Screen, (width, height): (u16, u16)) -> String {
    let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width, height });
    screen.draw(&mut buffer);
    let rows = buffer.content.chunks(usize::from(width));
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        let _ = writeln!(text, "{}|", line.trim_end());
    }
    text
}

fn pictures(screen: &mut Screen) -> String {
    let mut text = String::new();
    for size in SIZES {
        let _ = writeln!(text, "--- {}x{}\n{}", size.0, size.1, picture(screen, size));
    }
    text
}

/// A document with every key that rwsgi sends, `second` seconds after the start, of a pool that serves `workers` × 2.
pub(super) fn rwsgi(second: u64, workers: u32) -> Snapshot {
    let histogram = |scale: u64, each: u64| {
        latency::encode(&latency::from_counts(
            [(900, 60), (1_500, 30), (7_000, 8), (120_000, 1)]
                .map(|(value, count)| (latency::index_of(value * scale), count * each)),
        ))
    };
    let now = START + second * 1_000_000;
    let worker = |id: u32| {
        let requests = second * 99 * u64::from(id);
        let busy = id == 1;
        let request = RequestInfo {
            request_start: Some(now / 1_000_000 - 2),
            method: Some("GET".into()),
            uri: Some("/reports/annual?year=2026&format=pdf".into()),
            remote_addr: Some("203.0.113.7".into()),
            protocol: Some("HTTP/1.1".into()),
            started: Some(now - 2_345_678),
            elapsed: Some(2_345_678),
            route: None,
        };
        let core = |core: u32| Core {
            id: core,
            requests: requests / 2,
            in_request: u8::from(busy && core == 1),
            req_info: if busy && core == 1 { request.clone() } else { RequestInfo::default() },
            ..Core::default()
        };
        Worker {
            id,
            pid: 4_100 + id as i32,
            accepting: 1,
            requests,
            delta_requests: requests,
            exceptions: u64::from(busy) * 3,
            status: if busy { "busy" } else { "idle" }.into(),
            rss: 48 << 20,
            vsz: 190 << 20,
            running_time: second * 310_000,
            last_spawn: START / 1_000_000,
            respawn_count: 1 + u64::from(id == 2),
            tx: requests * 5_120,
            avg_rt: 1_834,
            cores: vec![core(0), core(1)],
            generation: Some(2),
            busy_time: Some(second * 230_000 * u64::from(id)),
            cpu_time: Some(second * 180_000 * u64::from(id)),
            gil_wait: Some(second * 12_000),
            pss: Some(21 << 20),
            uss: Some(12 << 20),
            rss_peak: Some(52 << 20),
            responses: Some(Responses { success: requests, client_error: 4, server_error: 3, ..Default::default() }),
            recycled: Some(Recycled { max_requests: u64::from(id == 2), ..Recycled::default() }),
            latency: Some(histogram(u64::from(id), second * u64::from(id))),
            last_exception: busy.then(|| LastException {
                kind: "ValueError".into(),
                message: "year out of range".into(),
                location: "/srv/app/reports.py:88 in annual".into(),
                traceback: vec![
                    "/srv/app/reports.py:88 in annual".into(),
                    "/srv/app/venv/lib/python3.11/site-packages/flask/app.py:1488 in dispatch_request".into(),
                    "/srv/app/wsgi.py:12 in application".into(),
                ],
                when: START,
                request: "GET /reports/annual?year=1066".into(),
            }),
            ..Worker::default()
        }
    };
    let mut all = latency::empty();
    let list: Vec<Worker> = (1..=workers).map(worker).collect();
    for worker in &list {
        all.add(latency::decode(worker.latency.as_deref().unwrap()).unwrap()).unwrap();
    }
    Snapshot {
        version: "0.1.0".into(),
        listen_queue: 2,
        pid: 4_099,
        uid: 33,
        gid: 33,
        cwd: "/srv/app".into(),
        sockets: vec![Socket {
            name: "127.0.0.1:9090".into(),
            proto: "http".into(),
            max_queue: 4_096,
            ..Socket::default()
        }],
        workers: list,
        server: Some("rwsgi".into()),
        schema: Some(1),
        hostname: Some("web1".into()),
        started_at: Some(START - 93_784_000_000),
        now: Some(now),
        generation: Some(2),
        python: Some("3.11.2".into()),
        queue: Some(Queue { depth: 2, capacity: 4_096, waiting: histogram(1, second), rejected: 0 }),
        latency: Some(latency::encode(&all)),
        limits: Some(Limits { harakiri: 30, reload_on_rss: 256 << 20, ..Limits::default() }),
        ..Snapshot::default()
    }
}

pub(super) fn rwsgi_screen(seconds: u64, workers: u32) -> Screen {
    let documents = (1..=seconds).map(|second| answered(second, serde_json::to_vec(&rwsgi(second, workers)).unwrap()));
    screen("127.0.0.1:9191", documents)
}

#[test]
fn a_uwsgi_with_busy_and_cheap_workers() {
    let mut screen = screen(":9191", [0, 1].map(|second| answered(second, fixture("uwsgi-busy-cheap"))));
    assert_snapshot!(pictures(&mut screen));
}

#[test]
fn four_workers_of_two_threads_with_their_cores() {
    let mut screen = screen(":9191", [0, 1].map(|second| answered(second, fixture("uwsgi-four-workers-two-threads"))));
    screen.act(Action::Cores);
    let merged = picture(&mut screen, (100, 14));
    screen.act(Action::Cores);
    assert_snapshot!(format!("--- merged\n{merged}--- under workers\n{}", picture(&mut screen, (100, 18))));
}

#[test]
fn an_rwsgi_with_everything_it_tells() {
    assert_snapshot!(pictures(&mut rwsgi_screen(3, 4)));
}

#[test]
fn more_workers_than_lines_scroll_and_the_selection_stays_in_sight() {
    let mut screen = rwsgi_screen(2, 60);
    let top = picture(&mut screen, (80, 14));
    for action in [Action::Down, Action::PageDown, Action::Down] {
        screen.act(action);
        picture(&mut screen, (80, 14));
    }
    let below = picture(&mut screen, (80, 14));
    screen.act(Action::Last);
    assert_snapshot!(format!("{top}--- below\n{below}--- last\n{}", picture(&mut screen, (80, 14))));
}

#[test]
fn a_server_that_is_silent_keeps_its_last_numbers_and_says_why() {
    let mut screen = screen(
        ":9191",
        [
            answered(0, fixture("uwsgi-busy-cheap")),
            failed(5, SourceError::TimedOut(std::time::Duration::from_secs(3))),
            failed(9, SourceError::Half(812)),
        ],
    );
    assert_snapshot!(picture(&mut screen, (80, 10)));
}

#[test]
fn before_the_first_answer_there_is_a_line_and_not_an_empty_screen() {
    let mut waiting = screen("/run/stats.sock", []);
    let mut refused = screen("/run/stats.sock", [failed(2, SourceError::Empty)]);
    assert_snapshot!(format!("{}{}", picture(&mut waiting, (60, 4)), picture(&mut refused, (90, 4))));
}

#[test]
fn without_utf_8_every_character_is_ascii() {
    let mut plain = rwsgi_screen(3, 30);
    plain.set_theme(Theme::default());
    assert!(picture(&mut plain, (120, 12)).is_ascii());
}

pub(super) fn press(screen: &mut Screen, keys: &str) {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            character => KeyCode::Char(character),
        };
        screen.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

#[test]
fn what_is_too_long_is_cut_before_a_wide_character_that_has_no_room() {
    let area = Rect { x: 0, y: 0, width: 8, height: 1 };
    for (text, right, shown) in [
        ("⚡⚡⚡⚡⚡", false, "⚡ ⚡ …   "),
        ("⚡⚡⚡⚡⚡", true, " ⚡ ⚡ …  "),
        ("a⚡⚡⚡⚡", false, "a⚡ ⚡ …  "),
        ("⚡⚡⚡", false, "⚡ ⚡ ⚡   "),
        ("abcdefgh", false, "abcde…  "),
    ] {
        let mut buffer = Buffer::empty(area);
        super::table::put(&mut buffer, 0, 0, text, 6, right);
        let symbols: String = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        assert_eq!(symbols, shown, "{text} {right}");
    }
}

#[test]
fn ctrl_c_leaves_at_once_whatever_is_open() {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    for open in [Action::Help, Action::Columns, Action::Alerts, Action::Detail, Action::Filter, Action::Pause] {
        let mut screen = rwsgi_screen(2, 3);
        screen.act(open);
        let outcome = screen.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert_eq!(outcome, super::actions::Outcome::Quit, "{open:?}");
    }
}

/// The first cell of each row of the table, which is what is looked at in tests of order and filter.
fn first_cells(screen: &mut Screen) -> Vec<String> {
    let picture = picture(screen, (80, 14));
    let rows = picture.lines().skip_while(|line| !line.contains("WID")).skip(1);
    let cells = rows.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned());
    cells.take_while(|cell| cell.chars().all(|c| c.is_ascii_digit() || c == ':') && !cell.is_empty()).collect()
}

#[test]
fn a_worker_is_looked_at_closely() {
    let mut screen = rwsgi_screen(90, 4);
    for _ in 0..4 {
        screen.act(Action::Down);
        picture(&mut screen, (80, 24));
    }
    screen.act(Action::Detail);
    assert_snapshot!(pictures(&mut screen));
}

#[test]
fn a_closely_looked_at_worker_scrolls_to_its_end_and_no_further() {
    let mut screen = rwsgi_screen(90, 4);
    picture(&mut screen, (80, 24));
    screen.act(Action::Last);
    screen.act(Action::Detail);
    let top = picture(&mut screen, (80, 24));
    assert!(top.contains("last exception") && !top.contains("recycled by reason"), "{top}");
    for action in [Action::PageDown, Action::PageDown, Action::Last] {
        screen.act(action);
        let below = picture(&mut screen, (80, 24));
        assert!(below.contains("recycled by reason") && !below.contains('▼'), "{below}");
    }
    screen.act(Action::First);
    assert_eq!(picture(&mut screen, (80, 24)), top);
    // Another worker is read from its beginning, and the rows of the table are where they were.
    screen.act(Action::Last);
    screen.act(Action::Up);
    assert!(picture(&mut screen, (80, 24)).contains("worker 2 "));
    screen.act(Action::Back);
    assert_eq!(screen.table.selected, Some((1, None)));
}

#[test]
fn rows_are_sorted_by_any_column_and_turned_round() {
    let mut screen = rwsgi_screen(2, 3);
    picture(&mut screen, (200, 20));
    assert_eq!(first_cells(&mut screen), ["3", "2", "1"]);
    press(&mut screen, "r");
    assert_eq!(first_cells(&mut screen), ["1", "2", "3"]);
    // The column after the requests is their rate; the highest first.
    press(&mut screen, "s");
    assert_eq!(first_cells(&mut screen), ["3", "2", "1"]);
    press(&mut screen, "SSS");
    assert!(picture(&mut screen, (200, 20)).contains("%▼"));
}

#[test]
fn a_click_on_a_title_sorts_and_on_a_row_selects() {
    use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let mut screen = rwsgi_screen(2, 3);
    let before = picture(&mut screen, (80, 14));
    let (y, title) = before.lines().enumerate().find(|(_, line)| line.contains("WID")).unwrap();
    let x = title.find("EXC").unwrap() as u16;
    let mut click = |column: u16, row: u16| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        screen.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
    };
    click(x, y as u16);
    click(5, y as u16 + 2);
    assert_eq!(first_cells(&mut screen)[0], "1", "the one with exceptions is on top");
    assert_eq!(screen.table.selected, Some((1, None)), "the second row of the old order is selected");
}

#[test]
fn a_filter_keeps_the_rows_that_match() {
    let mut screen = rwsgi_screen(2, 12);
    press(&mut screen, "/410[12]");
    assert_eq!(first_cells(&mut screen), ["2", "1"]);
    assert!(picture(&mut screen, (80, 14)).contains("filter: 410[12]"));
    press(&mut screen, "\n");
    // Keys are keys again, and the filter stays in sight.
    press(&mut screen, "r");
    assert_eq!(first_cells(&mut screen), ["1", "2"]);
    assert!(picture(&mut screen, (80, 14)).contains("filter: 410[12]"));
    press(&mut screen, "/\u{8}\u{8}\u{8}\u{8}\u{8}\u{8}\u{8}reports");
    assert_eq!(first_cells(&mut screen), ["1"]);
    press(&mut screen, "\u{1b}");
    assert!(first_cells(&mut screen).len() > 2);
}

#[test]
fn charts_stand_where_there_is_room() {
    let mut screen = rwsgi_screen(100, 3);
    let tall = picture(&mut screen, (130, 44));
    screen.act(Action::Chart(3));
    let heat = picture(&mut screen, (80, 24));
    screen.act(Action::Chart(2));
    let latency = picture(&mut screen, (80, 24));
    screen.act(Action::Charts);
    screen.act(Action::Charts);
    assert!(!picture(&mut screen, (130, 44)).contains("requests per second"), "never means never");
    assert_snapshot!(format!("{tall}--- heat\n{heat}--- latency\n{latency}"));
}

#[test]
fn emperors_and_spoolers_have_tables_of_their_own() {
    let mut emperor = screen(":9191", [answered(0, fixture("uwsgi-emperor"))]);
    let mut spoolers = screen(":9191", [answered(0, fixture("uwsgi-spoolers"))]);
    assert_snapshot!(format!("{}{}", picture(&mut emperor, (80, 8)), picture(&mut spoolers, (80, 12))));
}

#[test]
fn crons_have_a_table_below_the_workers() {
    let mut crons = screen(":9191", [answered(0, fixture("uwsgi-caches-crons-metrics"))]);
    assert_snapshot!(picture(&mut crons, (80, 14)));
}

#[test]
fn what_lies_over_the_table_explains_chooses_and_warns() {
    let mut screen = rwsgi_screen(2, 3);
    screen.act(Action::Help);
    let help = picture(&mut screen, (80, 24));
    screen.act(Action::Quit);
    screen.act(Action::Columns);
    screen.act(Action::Down);
    screen.act(Action::Pause);
    let columns = picture(&mut screen, (80, 16));
    screen.act(Action::Back);
    assert!(!first_line_with(&mut screen, "WID").contains('%'), "the share is hidden");
    screen.act(Action::Alerts);
    assert_snapshot!(format!("{help}--- columns\n{columns}--- alerts\n{}", picture(&mut screen, (80, 12))));
}

fn first_line_with(screen: &mut Screen, text: &str) -> String {
    let picture = picture(screen, (120, 20));
    picture.lines().find(|line| line.contains(text)).unwrap_or_default().replace("UTIL%", "").replace("CPU%", "")
}
