//! The panes: routes and slow requests, as they look and as they are used.

use std::fmt::Write as _;

use insta::assert_snapshot;
use rwsgi_stats::{
    GarbageCollections, LastException, OTHER_ROUTE, PhaseTimes, Phases, Responses, Route, SlowRequest, SlowestRequest,
    Snapshot, latency,
};

use super::{START, answered, picture, press, rwsgi, screen, setup};
use crate::model::Pool;
use crate::source::Poll;
use crate::view::keys::Action;
use crate::view::{Screen, Theme};

fn histogram(micros: u64, count: u64) -> String {
    let spread = [(micros, 90), (micros * 3, 9), (micros * 20, 1)];
    latency::encode(&latency::from_counts(spread.map(|(value, share)| (latency::index_of(value), share * count))))
}

fn route(name: &str, second: u64, (each, micros): (u64, u64)) -> Route {
    let requests = second * each * 100;
    Route {
        route: name.into(),
        named: !name.starts_with(['/', '(']),
        requests,
        busy_time: requests * micros,
        latency: histogram(micros, second * each),
        responses: Responses { success: requests, ..Responses::default() },
        tx: requests * 2_048,
        gil_wait: requests * micros / 50,
        ..Route::default()
    }
}

/// A server that tells of routes, phases and slow requests: `second` of the latter, one each second.
pub(super) fn told(second: u64) -> Snapshot {
    let mut export = route("orders.views.export", second, (1, 180_000));
    export.responses.server_error = second;
    export.exceptions = second;
    export.memory_samples = second * 100;
    export.memory_growth = second as i64 * 100 * 12_288;
    export.last_exception = Some(LastException {
        kind: "KeyError".into(),
        message: "'total'".into(),
        location: "/srv/app/orders/views.py:41 in export".into(),
        traceback: vec![
            "/srv/app/orders/views.py:41 in export".into(),
            "/srv/app/venv/lib/python3.11/site-packages/django/core/handlers/base.py:197 in _get_response".into(),
        ],
        when: START + 1_000_000,
        request: "GET /orders/7/export?format".into(),
    });
    export.slowest = Some(SlowestRequest { when: START, elapsed: 4_200_000, request: "GET /orders/9/export".into() });
    let slow = |id: u64| SlowRequest {
        id,
        worker: 1 + (id % 2) as u32,
        core: 1,
        pid: 4_101,
        generation: 2,
        started: START + (id - 1) * 1_000_000,
        elapsed: 900_000 + id * 100_000,
        method: "GET".into(),
        uri: format!("/orders/{id}/export?format"),
        route: "orders.views.export".into(),
        remote_addr: "203.0.113.7".into(),
        status: if id.is_multiple_of(3) { 500 } else { 200 },
        outcome: if id == 2 { "harakiri" } else { "done" }.into(),
        phases: PhaseTimes {
            queue: 120_000,
            body: 2_000,
            gil: 60_000,
            application: 700_000 + id * 100_000,
            write: 8_000,
        },
        stack: vec![
            "/srv/app/venv/lib/python3.11/site-packages/psycopg/cursor.py:97 in execute".into(),
            "/srv/app/orders/views.py:41 in export".into(),
            "/srv/app/wsgi.py:12 in application".into(),
        ],
        stack_at: 500_000,
        rss_before: 48 << 20,
        rss_after: (48 << 20) + (1 << 19),
        exception: if id.is_multiple_of(3) { "KeyError: 'total'".into() } else { String::new() },
    };
    let mut snapshot = rwsgi(second, 2);
    snapshot.workers[0].cores[1].req_info.route = Some("orders.views.export".into());
    snapshot.workers[0].cores[1].req_info.uri = Some("/orders/12/export?format".into());
    snapshot.limits.as_mut().unwrap().slow_request = 500_000;
    snapshot.routes = Some(vec![
        route("/users/{}", second, (8, 900)),
        export,
        route("/static/{}", second, (40, 90)),
        route(OTHER_ROUTE, second, (1, 2_000)),
    ]);
    snapshot.phases = Some(Phases {
        queue: histogram(300, second),
        body: histogram(12, second),
        gil: histogram(40, second),
        application: histogram(1_500, second),
        write: histogram(25, second),
    });
    // The server keeps the last three.
    snapshot.slow = Some((1..=second).rev().take(3).map(slow).collect());
    snapshot
}

fn document(second: u64) -> Poll {
    answered(second, serde_json::to_vec(&told(second)).unwrap())
}

fn watched(seconds: u64) -> Screen {
    screen("127.0.0.1:9191", (1..=seconds).map(document))
}

fn pictures(screen: &mut Screen, sizes: &[(u16, u16)]) -> String {
    let mut text = String::new();
    for size in sizes {
        let _ = writeln!(text, "--- {}x{}\n{}", size.0, size.1, picture(screen, *size));
    }
    text
}

/// The first words of the rows below the titles.
fn first_words(screen: &mut Screen, title: &str) -> Vec<String> {
    let picture = picture(screen, (160, 24));
    let rows = picture.lines().skip_while(|line| !line.contains(title)).skip(1);
    let words = rows.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned());
    words.take_while(|word| word != "|").collect()
}

#[test]
fn what_each_route_costs_is_seen_at_every_size() {
    let mut screen = watched(5);
    press(&mut screen, "u");
    assert_snapshot!(pictures(&mut screen, &[(40, 10), (80, 24), (160, 24)]));
}

#[test]
fn a_route_is_looked_at_closely() {
    let mut screen = watched(5);
    press(&mut screen, "u\n");
    let whole = pictures(&mut screen, &[(100, 60)]);
    let small = picture(&mut screen, (80, 24));
    screen.act(Action::Last);
    assert_snapshot!(format!("{whole}--- small\n{small}--- its end\n{}", picture(&mut screen, (80, 24))));
}

#[test]
fn routes_are_sorted_by_any_field_filtered_and_clicked() {
    use crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let mut screen = watched(5);
    press(&mut screen, "u");
    assert_eq!(first_words(&mut screen, "ROUTE"), ["orders.views.export", "/users/{}", "/static/{}", "(other)"]);
    press(&mut screen, "r");
    assert_eq!(first_words(&mut screen, "ROUTE")[0], "(other)");
    press(&mut screen, "/users");
    assert_eq!(first_words(&mut screen, "ROUTE"), ["/users/{}"]);
    press(&mut screen, "\u{1b}");
    let shown = picture(&mut screen, (160, 24));
    let (y, title) = shown.lines().enumerate().find(|(_, line)| line.contains("ROUTE")).unwrap();
    let x = title.find("RPS").unwrap() as u16;
    let kind = MouseEventKind::Down(MouseButton::Left);
    screen.mouse(MouseEvent { kind, column: x, row: y as u16, modifiers: KeyModifiers::NONE });
    assert_eq!(first_words(&mut screen, "ROUTE")[0], "/static/{}");
    // The workers' filter and selection are others.
    press(&mut screen, "u");
    assert!(picture(&mut screen, (160, 24)).contains("WID"));
    assert_eq!(screen.table.selected, None);
}

#[test]
fn of_several_servers_routes_are_added_up_by_name() {
    let pools = (0..2).map(|_| Pool::new("web:9191".into(), None)).collect();
    let mut screen = Screen::new(pools, setup());
    for second in 1..=3 {
        for target in 0..2 {
            screen.ingest(Poll { target, ..document(second) });
        }
    }
    press(&mut screen, "u");
    let shown = picture(&mut screen, (100, 20));
    let users = shown.lines().find(|line| line.contains("/users")).unwrap();
    assert!(users.contains("1600"), "twice 800 a second: {users}");
    press(&mut screen, "ul");
    assert!(picture(&mut screen, (160, 30)).contains("SERVER"));
    assert_eq!(first_words(&mut screen, "WHEN").len(), 6, "three of each server");
}

#[test]
fn slow_requests_are_kept_when_the_server_lists_them_no_more() {
    let mut screen = watched(7);
    press(&mut screen, "l");
    assert_eq!(first_words(&mut screen, "WHEN").len(), 7);
    assert_snapshot!(pictures(&mut screen, &[(40, 12), (80, 24), (160, 24)]));
}

#[test]
fn a_moment_of_the_past_has_the_slow_requests_and_routes_of_then() {
    let mut screen = watched(7);
    press(&mut screen, "l");
    for _ in 0..4 {
        screen.act(Action::Back1);
    }
    assert_eq!(first_words(&mut screen, "WHEN").len(), 2, "those that had ended three seconds after the start");
    press(&mut screen, "lu");
    let shown = picture(&mut screen, (100, 24));
    let users = shown.lines().find(|line| line.contains("/users")).unwrap();
    assert!(users.contains("800") && users.contains("2400"), "{users}");
}

#[test]
fn the_whole_record_of_a_slow_request() {
    let mut screen = watched(3);
    press(&mut screen, "l\n");
    assert_snapshot!(pictures(&mut screen, &[(80, 30), (40, 12)]));
}

#[test]
fn garbage_collections_that_are_counted_are_told_of_a_worker() {
    let counted = |second: u64| {
        let mut document = told(second);
        let gc = GarbageCollections {
            collections: second * 10,
            time: 52_000,
            longest: 8_000,
            collected: 77,
            ..GarbageCollections::default()
        };
        document.workers[0].gc = Some(gc);
        answered(second, serde_json::to_vec(&document).unwrap())
    };
    let mut screen = screen("127.0.0.1:9191", (1..=3).map(counted));
    screen.act(Action::Back1);
    screen.act(Action::Last);
    screen.act(Action::Detail);
    assert!(picture(&mut screen, (100, 80)).contains("collections 20  time 52.0ms  longest 8.00ms  freed 77"));
}

#[test]
fn panes_without_colours_and_utf_8_are_ascii() {
    let mut screen = watched(5);
    screen.set_theme(Theme::default());
    for keys in ["u", "\n", "\u{1b}ul", "\n"] {
        press(&mut screen, keys);
        let shown = picture(&mut screen, (100, 40));
        assert!(shown.is_ascii(), "{shown}");
    }
}

#[test]
fn what_a_server_does_not_tell_is_said() {
    let mut screen = super::rwsgi_screen(2, 2);
    press(&mut screen, "u");
    assert!(picture(&mut screen, (100, 20)).contains("no requests by route"));
    press(&mut screen, "l");
    assert!(picture(&mut screen, (100, 20)).contains("slow-request = 1s"));
    press(&mut screen, "q");
    assert!(picture(&mut screen, (100, 20)).contains("WID"), "q closes a pane");
}
