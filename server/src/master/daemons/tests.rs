//! What becomes of programs, without any.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_config::DaemonConfig;

use super::programs::{Look, Programs, Stage, Told};

const GRACE: Duration = Duration::from_secs(3);

fn plain(command: &str) -> DaemonConfig {
    let text = format!(
        r#"{{"command":"{command}","pidfile":null,"daemonize":false,"frequency":3,"control":false,"stop_signal":15,
           "reload_signal":0,"touch":[],"honour_stdin":false,"uid":null,"gid":null,"chdir":null,"max_throttle":null,
           "notify":false}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn smart(command: &str) -> DaemonConfig {
    DaemonConfig { pidfile: Some("/x.pid".into()), ..plain(command) }
}

fn pid(number: i32) -> Pid {
    Pid::from_raw(number)
}

/// Programs that were started at `now`, with process ids from 100.
fn started(configs: &[DaemonConfig], now: Instant) -> Programs {
    let mut programs = Programs::default();
    assert_eq!(programs.renew(configs, GRACE, now), []);
    for place in programs.due(now) {
        programs.started(place, pid(100 + place as i32), now, 5);
    }
    programs
}

#[test]
fn one_that_dies_in_a_loop_waits_a_second_longer_each_time_up_to_its_most() {
    let mut now = Instant::now();
    let mut programs = started(&[DaemonConfig { max_throttle: Some(3), ..plain("a") }], now);
    for expected in [1, 2, 3, 3] {
        let delay = programs.ended(pid(100), now).unwrap().next.unwrap();
        assert_eq!(delay, Duration::from_secs(expected));
        assert!(programs.due(now).is_empty());
        now = programs.deadline(now).unwrap();
        assert_eq!(programs.due(now), [0]);
        programs.started(0, pid(100), now, 5);
    }
    now += Duration::from_secs(4);
    assert_eq!(programs.ended(pid(100), now).unwrap().next, Some(Duration::ZERO), "it was up for long enough");
    assert_eq!(programs.list[0].starts, 5);
}

#[test]
fn a_reload_starts_them_when_all_that_ran_have_left_with_what_they_have_left_behind() {
    let now = Instant::now();
    let mut programs = started(&[DaemonConfig { reload_signal: 1, ..plain("a") }, plain("b")], now);
    let told = programs.renew(&[plain("b"), plain("c")], GRACE, now);
    let signals: Vec<_> = told.iter().map(|Told { pid, signal, .. }| (pid.as_raw(), *signal)).collect();
    assert_eq!(signals, [(100, 1), (101, 15)]);
    assert_eq!(programs.ended(pid(100), now).unwrap().next, None);
    assert_eq!(programs.see_off(|left| left == pid(101), now), []);
    assert!(programs.due(now).is_empty(), "one has not left");
    assert_eq!(programs.see_off(|_| false, now), []);
    assert_eq!(programs.due(now), [0, 1]);
    assert_eq!((programs.list[0].starts, programs.list[1].starts), (1, 0));
}

#[test]
fn one_that_does_not_leave_is_killed_and_then_not_waited_for() {
    let now = Instant::now();
    let mut programs = started(&[plain("a")], now);
    programs.stop(GRACE, now);
    assert_eq!(programs.see_off(|_| true, now), []);
    assert_eq!(programs.see_off(|_| true, now + GRACE), [("a".to_owned(), pid(100))]);
    assert_eq!(programs.see_off(|_| true, now + GRACE), []);
    assert!(!programs.have_left());
    programs.see_off(|_| true, now + GRACE * 2);
    assert!(programs.have_left());
}

#[test]
fn while_the_server_stops_none_is_started() {
    let now = Instant::now();
    let mut programs = started(&[plain("a"), plain("b")], now);
    programs.ended(pid(100), now);
    programs.hold();
    programs.ended(pid(101), now);
    assert!(programs.due(now + GRACE * 9).is_empty());
    assert_eq!(programs.deadline(now), None);
}

#[test]
fn one_with_a_pidfile_is_known_by_it_and_started_again_when_it_names_nobody() {
    let now = Instant::now();
    let mut programs = started(&[smart("a")], now);
    assert!(programs.places_to_look_at(now).is_empty());
    let now = programs.deadline(now).unwrap();
    assert_eq!(programs.places_to_look_at(now), [0]);
    assert_eq!(programs.looked(0, None, now), Look::AsBefore);
    assert_eq!(programs.ended(pid(100), now).unwrap().next, None, "it has gone to the background");
    assert_eq!(programs.looked(0, Some(pid(7)), now), Look::Changed(pid(7)));
    assert_eq!(programs.looked(0, Some(pid(7)), now), Look::AsBefore);
    assert_eq!(programs.looked(0, Some(pid(8)), now), Look::Changed(pid(8)));
    let long_after = now + GRACE;
    assert_eq!(programs.looked(0, None, long_after), Look::Gone(Duration::ZERO));
    assert_eq!(programs.due(long_after), [0]);
}

#[test]
fn one_that_never_writes_its_pidfile_is_given_its_looks() {
    let now = Instant::now();
    let mut programs = started(&[smart("a")], now);
    let looks = |programs: &mut Programs| [0; 3].map(|_| programs.looked(0, None, now + GRACE));
    assert_eq!(looks(&mut programs), [Look::AsBefore, Look::AsBefore, Look::NotDaemonized]);
    programs.ended(pid(100), now);
    assert_eq!(looks(&mut programs), [Look::AsBefore, Look::AsBefore, Look::Gone(Duration::ZERO)]);
}

#[test]
fn one_with_a_pidfile_outlives_reloads_and_stops_and_is_told_of_them_if_it_wants() {
    let now = Instant::now();
    let notified = DaemonConfig { notify: true, ..smart("b") };
    let configs = [smart("a"), notified];
    let mut programs = started(&configs, now);
    programs.adopted(0, pid(7));
    programs.adopted(1, pid(8));
    let signals = |told: Vec<Told>| told.iter().map(|told| (told.pid.as_raw(), told.signal)).collect::<Vec<_>>();
    assert_eq!(signals(programs.renew(&configs, GRACE, now)), [(8, 1)]);
    assert_eq!(programs.list[0].stage, Stage::Known(pid(7)));
    assert!(programs.due(now).is_empty());
    assert_eq!(signals(programs.stop(GRACE, now)), [(8, 15)]);
    assert!(programs.have_left());
}
