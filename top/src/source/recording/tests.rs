//! What is written reads back, and what is damaged is told.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::write::compact;
use super::{EndedBy, Ending, Entry, Line, Recorder, Recording, Run};
use crate::source::{LocalMicros, Monotonic, Poll, parse};

/// A file of a test's own, gone when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("rtop-recording-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run() -> Run {
    Run { interval: Some(Duration::from_secs(1)), targets: vec!["web1".into()] }
}

fn poll(requests: u64) -> Poll {
    let raw = format!("{{\"version\":\"1\",\"pid\":7,\n\"workers\":[{{\"id\":1,\"requests\":{requests}}}]}}");
    let (at, taken) = (Monotonic::from_micros(requests * 1_000_000), LocalMicros(9_000_000 + requests * 1_000_000));
    Poll { target: 0, at, taken, outcome: parse(raw.into_bytes()) }
}

/// A word for each entry: a run, the requests and the time of a sample, an end, or damage.
fn told(path: &Path) -> Vec<String> {
    let word = |entry| match entry {
        Entry::Run(run) => format!("run {:?}", run.interval.map(|interval| interval.as_secs())),
        Entry::Poll(poll) => {
            let requests = poll.outcome.unwrap().snapshot.workers[0].requests;
            format!("{} of {} at {}", requests, poll.target, poll.at.as_micros() / 1_000_000)
        }
        Entry::End(ending) => format!("end {:?}", ending.by),
        Entry::Damage(damage) => format!("damage at {} after {}", damage.offset, damage.lines),
    };
    Recording::open(path).unwrap().map(word).collect()
}

#[test]
fn what_was_recorded_reads_back_and_another_run_goes_on_after_it() {
    let scratch = Scratch::new("runs");
    let mut recorder = Recorder::begin(&scratch.0, &run()).unwrap();
    recorder.poll("web1", &poll(1)).unwrap();
    recorder.poll("web2", &poll(2)).unwrap();
    recorder.end(&Ending { at: Monotonic::from_micros(2_500_000), by: EndedBy::Count, why: None }).unwrap();
    let mut again = Recorder::begin(&scratch.0, &run()).unwrap();
    again.poll("web1", &poll(1)).unwrap();
    let told = told(&scratch.0);
    assert_eq!(told[..4], ["run Some(1)", "1 of 0 at 1", "2 of 1 at 2", "end Count"]);
    // Nothing of the second run is before anything of the first.
    let second = told[5].rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(second > 2 && told[4] == "run Some(1)" && told.len() == 6, "{told:?}");
    assert_eq!(Recording::open(&scratch.0).unwrap().targets, ["web1", "web2"]);
}

#[test]
fn a_cut_or_changed_line_is_told_with_its_place_and_the_rest_is_read() {
    let scratch = Scratch::new("damage");
    let mut recorder = Recorder::begin(&scratch.0, &run()).unwrap();
    let mut ends = Vec::new();
    for requests in 1..=3 {
        recorder.poll("web1", &poll(requests)).unwrap();
        ends.push(std::fs::metadata(&scratch.0).unwrap().len() as usize);
    }
    let whole = std::fs::read(&scratch.0).unwrap();
    std::fs::write(&scratch.0, &whole[..ends[2] - 25]).unwrap();
    let damage = format!("damage at {} after 3", ends[1]);
    assert_eq!(told(&scratch.0)[2..], ["2 of 0 at 2".to_owned(), damage]);
    // The second line is missing its end, and the third follows.
    std::fs::write(&scratch.0, [&whole[..ends[1] - 25], &whole[ends[1]..]].concat()).unwrap();
    let damage = format!("damage at {} after 2", ends[0]);
    assert_eq!(told(&scratch.0)[1..], ["1 of 0 at 1".to_owned(), damage, "3 of 0 at 3".to_owned()]);
    std::fs::write(&scratch.0, "no recording").unwrap();
    assert!(Recording::open(&scratch.0).unwrap_err().to_string().contains("no whole sample"));
}

#[test]
fn recordings_of_the_first_form_are_read_and_have_no_poll_interval() {
    let scratch = Scratch::new("first");
    let mut file = File::create(&scratch.0).unwrap();
    for second in [5, 6, 4] {
        let mut member = GzEncoder::new(Vec::new(), Compression::default());
        let line = format!(
            "{{\"target\":\"web1\",\"taken\":{second}000000,\"document\":{{\"version\":\"1\",\"workers\":[{{\"requests\":{second}}}]}}}}\n"
        );
        member.write_all(line.as_bytes()).unwrap();
        file.write_all(&member.finish().unwrap()).unwrap();
    }
    // The clock was set back before the third.
    assert_eq!(told(&scratch.0), ["run None", "5 of 0 at 0", "6 of 0 at 1", "4 of 0 at 1"]);
}

#[test]
fn a_recording_of_a_later_rtop_is_refused() {
    let scratch = Scratch::new("later");
    let mut recorder = Recorder::begin(&scratch.0, &run()).unwrap();
    recorder.append(&Line { format: Some(9), ..Line::default() }).unwrap();
    assert!(Recording::open(&scratch.0).unwrap_err().to_string().contains("its format is 9"));
}

proptest! {
    #[test]
    fn compact_json_says_the_same(text in "[a\\\\\"\u{e9} \n\t{}:,]{0,20}", number in any::<i32>()) {
        let value = serde_json::json!({"a b": [text, number, {"x": null}], " ": 1.5});
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(compact(&pretty), serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn whatever_happens_to_a_recording_the_rest_of_it_is_read_and_the_damage_told(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, prop::collection::vec(any::<u8>(), 0..4)), 1..4),
    ) {
        let scratch = Scratch::new("changed");
        let _ = std::fs::remove_file(&scratch.0);
        let mut recorder = Recorder::begin(&scratch.0, &run()).unwrap();
        for number in 1..6 {
            recorder.poll("web1", &poll(number)).unwrap();
        }
        let whole = std::fs::read(&scratch.0).unwrap();
        let mut bytes = whole.clone();
        for (at, gone, new) in changes {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + gone);
            bytes.splice(at..end, new);
        }
        std::fs::write(&scratch.0, &bytes).unwrap();
        let Ok(read) = Recording::open(&scratch.0) else { return Ok(()) };
        let (mut samples, mut damages) = (Vec::new(), 0);
        for entry in read {
            match entry {
                Entry::Poll(poll) => {
                    prop_assert_eq!(poll.outcome.as_ref().map(|document| document.snapshot.workers.len()).unwrap(), 1);
                    samples.push(poll.outcome.unwrap().snapshot.workers[0].requests);
                }
                Entry::Damage(damage) => {
                    prop_assert!(damage.offset <= bytes.len() as u64);
                    damages += 1;
                }
                Entry::Run(_) | Entry::End(_) => {}
            }
        }
        // Nothing is told that was not recorded, nor twice.
        prop_assert!(samples.windows(2).all(|two| two[0] < two[1]) && samples.iter().all(|number| *number < 6));
        prop_assert!(damages > 0 || samples.len() == 5 || bytes.len() < whole.len(), "{:?}", samples);
    }

    #[test]
    fn any_bytes_are_a_recording_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        lines in prop::collection::vec("[{}\":a-z0-9\\[\\],]{0,40}|\\{\"(target|taken|at|end|format)\":[0-9\"a-z]{1,22}\\}", 0..4),
    ) {
        let scratch = Scratch::new("any");
        let mut file = File::create(&scratch.0).unwrap();
        for line in lines {
            let mut member = GzEncoder::new(Vec::new(), Compression::default());
            member.write_all(format!("{line}\n").as_bytes()).unwrap();
            file.write_all(&member.finish().unwrap()).unwrap();
        }
        file.write_all(&bytes).unwrap();
        match Recording::open(&scratch.0) {
            Ok(read) => prop_assert!(read.count() < 300),
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }
}
