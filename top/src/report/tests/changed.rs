//! Whatever numbers a server sends, every report is written; and what was judged live is judged again from a recording.

use std::time::Duration;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::{Scratch, take};
use crate::model::Pool;
use crate::report::Batch;
use crate::report::judge::{Judge, Phases};
use crate::report::lines::{csv_header, csv_rows, json_line};
use crate::source::hostile::polls;
use crate::source::{EndedBy, Ending, Entry, Recorder, Recording, Run};
use rwsgi_assertions::Assertion;
use rwsgi_assertions::METRICS;
use rwsgi_assertions::Window;

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]
    #[test]
    fn any_document_is_reported_and_judged_the_same_from_a_recording(polls in polls()) {
        let assertions: Vec<Assertion> =
            METRICS.iter().map(|metric| format!("{} >= 0", metric.name).parse().unwrap()).collect();
        let new = || {
            let pools = vec![Pool::new("a".into(), None)];
            let labels = pools.iter().map(|pool| pool.label.clone());
            (Judge::new(&assertions, &[], labels, Phases::default(), Duration::from_secs(1)), pools)
        };
        let scratch = Scratch(std::env::temp_dir().join(format!("rtop-changed-{}", std::process::id())));
        let _ = std::fs::remove_file(&scratch.0);
        let run = Run { interval: Some(Duration::from_secs(1)), targets: vec!["a".into()] };
        let mut recorder = Recorder::begin(&scratch.0, &run).unwrap();
        let (mut live, mut pools) = new();
        let batch = Batch { zone: TimeZone::UTC, unicode: true };
        let columns = csv_header().split(',').count();
        let mut end = None;
        for poll in polls {
            end = Some(poll.at);
            recorder.poll("a", &poll).unwrap();
            take(&mut live, &mut pools, poll);
            let Some(sample) = &pools[0].current else { continue };
            prop_assert!(!batch.table(&pools[0], sample).is_empty());
            for row in csv_rows(&pools[0], sample).lines() {
                prop_assert!(row.split(',').count() >= columns, "{}", row);
            }
            let line = json_line(&pools[0], sample, &Window::default());
            prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{}", line);
        }
        let ending = Ending { at: end.unwrap(), by: EndedBy::Time, why: None };
        recorder.end(&ending).unwrap();
        let (mut replayed, mut again) = new();
        for entry in Recording::open(&scratch.0).unwrap() {
            match entry {
                Entry::Poll(poll) => take(&mut replayed, &mut again, poll),
                Entry::Run(_) | Entry::End(_) => {}
                Entry::Damage(damage) => prop_assert!(false, "{}", damage),
            }
        }
        let told = live.finish(&ending);
        prop_assert_eq!(told.json(), replayed.finish(&ending).json());
        let zone = TimeZone::UTC;
        prop_assert!(!told.table(&zone).is_empty() && !told.markdown(&zone).is_empty() && told.junit(&zone).is_ok());
    }
}
