use super::super::ids::COMPARED;
use super::*;

const TOLERANCE: Duration = Duration::from_secs(30);

fn seen(name: &str, age: u64) -> Seen {
    let id = VassalId { monitor: 0, name: name.into() };
    Seen { id, modified: SystemTime::UNIX_EPOCH + Duration::from_secs(age), owner: Owner { uid: 5, gid: 5 } }
}

fn vassals() -> Vassals {
    Vassals::new(Some(Throttle::new(Duration::from_secs(1), Duration::from_secs(180))), true)
}

fn pid(number: i32) -> Pid {
    Pid::from_raw(number)
}

#[test]
fn a_file_makes_a_vassal_a_touch_reloads_it_and_another_owner_stops_it() {
    let (mut vassals, file, now) = (vassals(), seen("a.ini", 1), Moment::now());
    assert_eq!(vassals.judge(&file, now), Verdict::Add);
    vassals.add(file.clone(), None, "/etc/vassals");
    vassals.started(&file.id, pid(10), now);
    assert_eq!(vassals.judge(&file, now), Verdict::Nothing);
    let touched = seen("a.ini", 2);
    assert_eq!(vassals.judge(&touched, now), Verdict::Reload);
    vassals.reloaded(&file.id, Some(touched.modified), now);
    assert_eq!(vassals.judge(&touched, now), Verdict::Nothing);
    assert_eq!(vassals.get(&file.id).unwrap().record.respawns, 1);
    let given_away = Seen { owner: Owner { uid: 6, gid: 5 }, ..touched };
    assert_eq!(vassals.judge(&given_away, now), Verdict::Stop);
}

#[test]
fn one_that_dies_before_it_is_loyal_waits_and_a_loyal_one_does_not() {
    let (mut vassals, file, now) = (vassals(), seen("a.ini", 1), Moment::now());
    let die = |vassals: &mut Vassals, number| {
        vassals.add(file.clone(), None, "m");
        vassals.started(&file.id, pid(number), now);
        let ended = vassals.ended(pid(number), now);
        vassals.remove(&file.id);
        ended
    };
    let after = |ms| Ended::Vassal(file.id.clone(), Then::Remove, Some(Duration::from_millis(ms)));
    assert_eq!(die(&mut vassals, 10), after(1));
    assert_eq!(die(&mut vassals, 11), after(1001));
    assert_eq!(vassals.judge(&file, now), Verdict::Nothing);
    assert_eq!(vassals.judge(&seen("a.ini", 2), now), Verdict::Add, "somebody has mended it");
    vassals.add(file.clone(), None, "m");
    vassals.started(&file.id, pid(12), now);
    vassals.heard(&file.id, Report::Loyal, now);
    let later = Moment { at: now.at + PAUSE, ..now };
    assert_eq!(vassals.ended(pid(12), later), Ended::Vassal(file.id.clone(), Then::Remove, None));
    assert_eq!(vassals.ended(pid(99), now), Ended::Unknown);
}

#[test]
fn no_vassal_is_started_again_and_again_without_a_pause() {
    let (mut vassals, file, now) = (Vassals::new(None, false), seen("a.ini", 1), Moment::now());
    vassals.add(file.clone(), None, "m");
    vassals.started(&file.id, pid(10), now);
    let soon = Moment { at: now.at + PAUSE / 4, ..now };
    assert_eq!(vassals.ended(pid(10), soon), Ended::Vassal(file.id.clone(), Then::Remove, Some(PAUSE * 3 / 4)));
    vassals.remove(&file.id);
    assert_eq!(vassals.judge(&file, soon), Verdict::Nothing, "whatever else a scan is for");
    assert_eq!(vassals.judge(&file, Moment { at: now.at + PAUSE, ..now }), Verdict::Add);
}

#[test]
fn heartbeats_that_wait_to_be_read_count() {
    let (mut vassals, file, now) = (vassals(), seen("a.ini", 1), Moment::now());
    let heartbeat = Duration::from_secs(30);
    let at = |seconds| Moment { at: now.at + Duration::from_secs(seconds), ..now };
    vassals.add(file.clone(), None, "m");
    vassals.started(&file.id, pid(10), now);
    vassals.heard(&file.id, Report::Heartbeat, now);
    assert!(vassals.overdue(heartbeat, TOLERANCE, Moment { unix: now.unix + 999, ..now }).is_empty(), "a clock is set");
    assert!(vassals.overdue(heartbeat, TOLERANCE, at(60)).is_empty(), "the emperor was stopped");
    vassals.heard(&file.id, Report::Heartbeat, at(60));
    assert!(vassals.overdue(heartbeat, TOLERANCE, at(62)).is_empty());
}

#[test]
fn one_that_does_not_stop_is_killed_and_one_whose_heart_stops_too() {
    let (mut vassals, file, now) = (vassals(), seen("a.ini", 1), Moment::now());
    vassals.add(file.clone(), None, "m");
    vassals.started(&file.id, pid(10), now);
    vassals.heard(&file.id, Report::Heartbeat, now);
    let heartbeat = Duration::from_secs(30);
    let late = Moment { at: now.at + heartbeat + PAUSE, ..now };
    assert!(vassals.overdue(heartbeat, TOLERANCE, now).is_empty());
    assert!(vassals.overdue(heartbeat, TOLERANCE, late).is_empty());
    let missed = Moment { at: vassals.next_kill().unwrap(), ..now };
    assert_eq!(vassals.overdue(heartbeat, TOLERANCE, missed), [(file.id.clone(), pid(10), true)]);
    assert!(vassals.overdue(heartbeat, TOLERANCE, missed).is_empty(), "once");
    assert!(vassals.stop(&file.id, Then::Remove, TOLERANCE, now), "it is told");
    assert!(!vassals.stop(&file.id, Then::Remove, TOLERANCE, now), "once");
    let at = vassals.next_kill().unwrap();
    assert_eq!(vassals.overdue(heartbeat, TOLERANCE, Moment { at, ..now }), [(file.id.clone(), pid(10), false)]);
    assert!(vassals.next_kill().unwrap() > at);
}

#[test]
fn one_that_starts_on_demand_waits_again_when_it_leaves() {
    let (mut vassals, file, now) = (vassals(), seen("a.ini", 1), Moment::now());
    vassals.add(file.clone(), Some("/a.sock".into()), "m");
    vassals.started(&file.id, pid(10), now);
    vassals.heard(&file.id, Report::Loyal, now);
    assert!(vassals.heard(&file.id, Report::Stop, now));
    assert!(vassals.stop(&file.id, Then::Wait, TOLERANCE, now));
    assert!(!vassals.lost(&file.id, TOLERANCE, now), "it was told to stop");
    assert_eq!(vassals.ended(pid(10), now), Ended::Vassal(file.id.clone(), Then::Wait, None));
    vassals.wait(&file.id);
    vassals.started(&file.id, pid(11), now);
    assert!(vassals.lost(&file.id, TOLERANCE, now));
    let ended = vassals.ended(pid(11), now);
    assert!(matches!(ended, Ended::Vassal(_, Then::Wait, Some(_))), "it died early: {ended:?}");
}

#[test]
fn what_a_vassal_costs_does_not_grow_with_their_number() {
    let cost = |count: u64| {
        let (mut vassals, now) = (vassals(), Moment::now());
        let files: Vec<_> = (0..count).map(|number| seen(&format!("{number:04}.ini"), 1)).collect();
        COMPARED.set(0);
        for (number, file) in (1..).zip(&files) {
            assert_eq!(vassals.judge(file, now), Verdict::Add);
            vassals.add(file.clone(), None, "m");
            let run = vassals.started(&file.id, pid(number), now);
            assert_eq!(vassals.of_run(run).unwrap().id, file.id);
            vassals.heard(&file.id, Report::Loyal, now);
        }
        for file in &files {
            assert_eq!(vassals.judge(file, now), Verdict::Nothing);
        }
        COMPARED.get() as u64 / count
    };
    let (few, many) = (cost(100), cost(1_600));
    assert!(many < 3 * few, "{few} comparisons for each of 100, {many} for each of 1600");
}

#[test]
fn a_run_that_is_over_is_nobodys() {
    let (mut vassals, file, now) = (vassals(), seen("a.ini", 1), Moment::now());
    vassals.add(file.clone(), None, "m");
    let first = vassals.started(&file.id, pid(10), now);
    let second = vassals.started(&file.id, pid(11), now);
    assert!(vassals.of_run(first).is_none() && vassals.of_run(second).is_some());
    vassals.remove(&file.id);
    assert!(vassals.of_run(second).is_none());
}
