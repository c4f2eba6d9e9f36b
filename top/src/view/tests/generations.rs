//! The generation that serves beside the one before: as a pane, and as marks in charts.

use insta::assert_snapshot;
use rwsgi_stats::{Canary, ErrorCount, Generation, GenerationRoute, Responses, Snapshot, latency};

use super::{START, answered, picture, press, rwsgi, screen};
use crate::view::Screen;

fn histogram(micros: u64, count: u64) -> String {
    latency::encode(&latency::from_counts([(latency::index_of(micros), count)]))
}

fn generation(number: u32, state: &str, requests: u64, micros: u64, raised: u64) -> Generation {
    Generation {
        generation: number,
        state: state.into(),
        started_at: START - u64::from(9 - number) * 3_600_000_000,
        workers: 4,
        requests,
        exceptions: raised,
        responses: Responses { success: requests - raised, server_error: raised, ..Responses::default() },
        running_time: requests * micros,
        latency: histogram(micros, requests),
        pss: u64::from(number) * (30 << 20),
        pss_workers: 4,
        errors: (raised > 0).then(|| ErrorCount { kind: "ValueError".into(), count: raised }).into_iter().collect(),
        routes: vec![GenerationRoute {
            route: "/reports/{}".into(),
            requests: requests / 2,
            busy_time: 1,
            latency: histogram(micros * 2, requests / 2),
        }],
    }
}

fn shown(generations: Vec<Generation>, canary: Option<Canary>) -> Screen {
    let document = |second| Snapshot {
        generation: Some(if second < 8 { 1 } else { 2 }),
        generations: Some(generations.clone()),
        canary: canary.clone(),
        ..rwsgi(second, 2)
    };
    let polls = (1..=20).map(|second| answered(second, serde_json::to_vec(&document(second)).unwrap()));
    screen("127.0.0.1:9191", polls)
}

fn two() -> Vec<Generation> {
    vec![generation(2, "serving", 5_000, 60_000, 400), generation(1, "past", 90_000, 6_000, 90)]
}

#[test]
fn a_deploy_that_made_it_worse_says_so() {
    let mut screen = shown(two(), None);
    press(&mut screen, "g");
    let worse = picture(&mut screen, (100, 30));
    press(&mut screen, "g");
    assert!(!picture(&mut screen, (100, 30)).contains("did it get worse"), "the key closes it again");
    let canary = Canary { generation: 3, workers: 1, started_at: START, until: START + 30_000_000 };
    let tried = vec![generation(3, "canary", 12, 60_000, 1), generation(2, "serving", 5_000, 6_000, 0)];
    let mut screen = shown(tried, Some(canary));
    press(&mut screen, "g");
    assert_snapshot!(format!("{worse}--- a canary\n{}", picture(&mut screen, (100, 30))));
}

#[test]
fn charts_mark_where_a_generation_took_over() {
    let mut screen = shown(two(), None);
    for chart in ["1", "2", "3", "4", "5", "6"] {
        press(&mut screen, chart);
        let picture = picture(&mut screen, (100, 30));
        assert_eq!(picture.matches("▲2").count(), 1, "{picture}");
        press(&mut screen, chart);
    }
    press(&mut screen, "1");
    assert_snapshot!(picture(&mut screen, (70, 24)));
}

#[test]
fn of_uwsgi_there_is_none_to_show() {
    let mut screen = screen(":9191", [answered(0, super::fixture("uwsgi-busy-cheap"))]);
    press(&mut screen, "g");
    assert!(picture(&mut screen, (100, 20)).contains("of rwsgi alone"));
}
