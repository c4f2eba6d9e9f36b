//! Times: how old what is shown is, and the past as it was.

use rwsgi_stats::{Snapshot, latency};

use super::{answered, failed, fixture, picture, rwsgi, rwsgi_screen, screen, setup};
use crate::model::Pool;
use crate::source::{Poll, SourceError};
use crate::view::Screen;
use crate::view::keys::Action;

#[test]
fn the_past_is_shown_as_it_was_and_does_not_move() {
    let mut screen = rwsgi_screen(50, 2);
    let then = picture(&mut rwsgi_screen(48, 2), (80, 20));
    screen.act(Action::Back1);
    screen.act(Action::Back1);
    let paused = picture(&mut screen, (80, 20));
    assert!(paused.contains("paused, 2s ago"), "{paused}");
    // Everything but the first line and the foot is as it was then.
    let body = |picture: &str| picture.lines().skip(1).take(8).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(body(&paused), body(&then));
    assert!(!screen.ingest(answered(51, serde_json::to_vec(&rwsgi(51, 2)).unwrap())), "nothing to draw");
    assert_eq!(body(&picture(&mut screen, (80, 20))), body(&then));
    screen.act(Action::Back60);
    assert!(picture(&mut screen, (80, 20)).contains("paused, 50s ago"));
    screen.act(Action::Now);
    assert!(!picture(&mut screen, (80, 20)).contains("paused"));
}

#[test]
fn how_old_a_sample_is_does_not_depend_on_the_server_s_clock() {
    let mut document = rwsgi(1, 2);
    document.now = document.now.map(|now| now - 598_000_000);
    let polls = [answered(1, serde_json::to_vec(&document).unwrap()), failed(3, SourceError::Empty)];
    let shown = picture(&mut screen(":9191", polls), (120, 10));
    assert!(shown.contains("the numbers are 2s old"), "{shown}");
}

#[test]
fn a_clock_that_is_set_back_stops_neither_history_nor_slopes_nor_alarms() {
    let pools = ["web1:9191", "web2:9191"].map(|label| Pool::new(label.into(), None));
    let mut screen = Screen::new(pools.into(), setup());
    for second in 0..200 {
        for target in 0..2 {
            let mut document = rwsgi(second, 2);
            // As uWSGI, which tells no time; its worker starts four times in the tenth second.
            document.now = None;
            document.workers[0].rss += second << 20;
            document.workers[0].respawn_count += if second < 10 { 0 } else { 4 };
            let mut poll = Poll { target, ..answered(second, serde_json::to_vec(&document).unwrap()) };
            if second > 20 {
                poll.taken.0 -= 3_600_000_000;
            }
            screen.ingest(poll);
        }
    }
    let pool = &screen.pools[0];
    assert_eq!(screen.merged.history.points().len(), 200);
    assert_eq!(pool.history.points().len(), 200);
    assert_eq!(pool.current.as_ref().unwrap().workers[0].respawned, 0, "that was three minutes ago");
    let growth = pool.memory(0).unwrap().growth(pool.current.as_ref().unwrap().at).unwrap();
    assert_eq!((growth.per_hour.value / f64::from(1 << 20)).round(), 3_600.0);
}

#[test]
fn a_paused_moment_is_the_same_on_every_tab() {
    let pools = ["web1:9191", "web2:9191"].map(|label| Pool::new(label.into(), None));
    let mut screen = Screen::new(pools.into(), setup());
    for second in 1..=10 {
        for target in 0..2 {
            let mut document = rwsgi(second, 2);
            document.now = document.now.map(|now| now + target as u64 * 3_600_000_000);
            screen.ingest(Poll { target, ..answered(second, serde_json::to_vec(&document).unwrap()) });
        }
    }
    screen.act(Action::TabNext);
    for _ in 0..3 {
        screen.act(Action::Back1);
    }
    for _ in 0..2 {
        let shown = picture(&mut screen, (120, 16));
        assert!(shown.contains("paused, 3s ago"), "{shown}");
        screen.act(Action::TabNext);
    }
}

#[test]
fn a_paused_moment_looks_as_it_did() {
    let mut emperor: Snapshot = serde_json::from_slice(&fixture("uwsgi-emperor")).unwrap();
    emperor.emperor_tyrant = Some(1);
    let mut spooling = rwsgi(3, 2);
    let runs = latency::from_counts([(latency::index_of(2_000), 9)]);
    spooling.spoolers = vec![rwsgi_stats::Spooler {
        dir: "/jobs".into(),
        queue: Some(3),
        run_time: Some(latency::encode(&runs)),
        ..Default::default()
    }];
    for document in [emperor, spooling] {
        let mut screen = screen(":9191", [answered(0, serde_json::to_vec(&document).unwrap())]);
        let lines = |screen: &mut Screen| {
            let picture = picture(screen, (200, 40));
            // The first says that it is paused.
            picture.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let now = lines(&mut screen);
        screen.act(Action::Pause);
        assert_eq!(lines(&mut screen), now);
    }
}
