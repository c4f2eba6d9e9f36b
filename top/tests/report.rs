//! The program without a terminal: assertions, their exit codes, recordings, JSON and CSV, against a server that counts.
#![allow(clippy::unwrap_used)]

mod stats_server;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use stats_server::{Answer, Server, nobody};

/// A server that has served 100 more requests each time it is asked, two of them with an exception.
fn counting(poll: u64) -> Answer {
    document(7, 100 * poll, 2 * poll)
}

fn document(pid: u64, requests: u64, exceptions: u64) -> Answer {
    Answer::Text(format!(
        r#"{{"version":"2.0.31","pid":{pid},"workers":[{{"id":1,"pid":8,"status":"idle","requests":{requests},
        "exceptions":{exceptions},"rss":52428800,"respawn_count":1,"cores":[{{"id":0,"requests":{requests}}}]}}]}}"#
    ))
}

fn rtop(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtop"));
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of this test alone, gone when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rtop-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn assertions_that_hold_end_with_0_and_one_that_fails_with_1() {
    let server = Server::start(counting);
    let (junit, markdown) = (Scratch::new("junit.xml"), Scratch::new("summary.md"));
    let holds = ["--assert", "requests == 500", "--assert", "error_rate <= 2%", "--assert", "rss.max < 100MiB"];
    let output = rtop(&[&[&server.address, "-f", "0.02", "-n", "5"], &holds[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));

    let server = Server::start(counting);
    let files = ["--junit", junit.path(), "--markdown", markdown.path(), "--assert", "exceptions == 0"];
    let output = rtop(&[&[&server.address, "-f", "0.02", "-n", "5"], &holds[..], &files[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let table = text(&output.stdout);
    let line = table.lines().find(|line| line.starts_with("exceptions == 0")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["exceptions", "==", "0", "10", "FAIL"]);
    assert_eq!(table.matches("pass").count(), 3, "{table}");
    assert!(junit.read().contains("tests=\"4\" failures=\"1\" errors=\"0\""), "{}", junit.read());
    assert!(markdown.read().contains("| `exceptions == 0` | 10 | FAIL |"));
}

#[test]
fn what_could_not_be_measured_ends_with_2_and_says_why() {
    let check = |address: &str, assertion: &str, why: &str| {
        let output = rtop(&[address, "-f", "0.02", "-n", "3", "--timeout", "0.5", "--assert", assertion]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    };
    check(&nobody(), "rps >= 0", "cannot connect");
    let hanging = Server::start(|_| Answer::Hang("{\"version\":".to_owned()));
    check(&hanging.address, "rps >= 0", "no answer within 0.5 s");
    // Its master is another one from the third answer on.
    let restarting = Server::start(|poll| document(if poll < 2 { 7 } else { 9 }, 100 * poll, 0));
    check(&restarting.address, "rps >= 0", "restarted");
    let idle = Server::start(|_| document(7, 100, 0));
    check(&idle.address, "error_rate < 1%", "no requests");
    let silent_of_latency = Server::start(counting);
    check(&silent_of_latency.address, "p99 < 50ms", "the server does not tell");
    let restarting = Server::start(|poll| document(if poll < 2 { 7 } else { 9 }, 100 * poll, 0));
    let output = rtop(&[&restarting.address, "-f", "0.02", "-n", "3", "--assert", "restarts <= 1"]);
    assert_eq!(output.status.code(), Some(0), "a restart that is asserted is measured");
}

#[test]
fn a_mistake_in_an_assertion_is_told_before_anything_is_watched() {
    let output = rtop(&["127.0.0.1:1", "--for", "1h", "--assert", "p98 < 50ms"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no metric 'p98'; did you mean 'p9"), "{}", text(&output.stderr));
    let output = rtop(&["127.0.0.1:1", "--assert", "p99 < 50ms"]);
    assert!(text(&output.stderr).contains("for how long"), "{}", text(&output.stderr));
    let output = rtop(&[]);
    assert!(text(&output.stderr).contains("rtop 127.0.0.1:9191"), "{}", text(&output.stderr));
}

#[test]
fn it_watches_as_long_as_a_command_runs_and_sees_it_fail() {
    let server = Server::start(counting);
    let assertion = ["--assert", "requests > 0"];
    let watched = [&[&server.address, "-f", "0.02"], &assertion[..], &["--", "sleep", "0.2"]].concat();
    let output = rtop(&watched);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let output = rtop(&[&[&server.address, "-f", "0.02"], &assertion[..], &["--", "false"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("'false' ended with exit status: 1"), "{}", text(&output.stdout));
    let address = server.address.as_str();
    let output = rtop(&[&[address], &assertion[..], &["--", "/nonexistent/load"]].concat());
    assert!(text(&output.stderr).contains("cannot start '/nonexistent/load'"));
}

#[test]
fn it_watches_until_a_process_is_gone() {
    let server = Server::start(counting);
    let mut process = Command::new("sleep").arg("0.3").spawn().unwrap();
    let pid = process.id().to_string();
    let waiting = std::thread::spawn(move || process.wait());
    let output = rtop(&[&server.address, "-f", "0.02", "--until-exit", &pid, "--assert", "requests >= 100"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    waiting.join().unwrap().unwrap();
    let output = rtop(&[&server.address, "--until-exit", &pid, "--assert", "requests >= 100"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no such process"), "{}", text(&output.stderr));
}

#[test]
fn assertions_come_from_a_file_too() {
    let server = Server::start(counting);
    let file = Scratch::new("slo.toml");
    std::fs::write(&file.0, "assert = ['requests == 300', 'harakiri == 0']").unwrap();
    let output = rtop(&[&server.address, "-f", "0.02", "-n", "3", "--assert-file", file.path(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4, "three samples and the verdict");
    assert_eq!(lines[0]["totals"]["requests"], 100, "a line tells of its own window");
    assert_eq!(lines[3]["assertions"][0]["actual"], 300);
    std::fs::write(&file.0, "assert = ['requests = 300']").unwrap();
    let output = rtop(&[&server.address, "-n", "3", "--assert-file", file.path()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("slo.toml"), "{}", text(&output.stderr));
}

#[test]
fn a_recording_tells_the_same_as_the_server_did() {
    let server = Server::start(counting);
    let recording = Scratch::new("recording.rtop");
    let live = rtop(&[&server.address, "-f", "0.02", "-n", "4", "--csv", "--record", recording.path()]);
    assert!(live.status.success());
    let replayed = rtop(&["--replay", recording.path(), "--csv"]);
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    let (live, replayed) = (text(&live.stdout), text(&replayed.stdout));
    assert_eq!(live.lines().count(), 5);
    // Rates divide by the time between the samples, which is the same; totals are the same to the digit.
    let counted = |csv: &str| {
        let place = csv.lines().next().unwrap().split(',').position(|name| name == "req").unwrap();
        csv.lines().map(|line| line.split(',').nth(place).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(counted(&replayed)[..5], counted(&live)[..5]);
    assert_eq!(counted(&live)[1..], ["100", "200", "300", "400"]);
    let judged = rtop(&["--replay", recording.path(), "--assert", "exceptions > 0", "--assert", "requests > 1k"]);
    assert_eq!(judged.status.code(), Some(1), "{}", text(&judged.stdout));
    let missing = rtop(&["--replay", "/nonexistent/file"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/nonexistent/file"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let server = Server::start(counting);
    let program = env!("CARGO_BIN_EXE_rtop");
    let shell = format!("{program} {} -f 0.02 --json | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}", server.address);
    let output = Command::new("bash").args(["-c", &shell]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn it_prints_what_others_need_to_know_of_it() {
    for (option, told) in [
        ("--list-metrics", "error_rate"),
        ("--print-config", "[thresholds]"),
        ("--json-schema", "\"p99\""),
        ("--man", ".TH rtop"),
        ("--completions=bash", "_rtop"),
        ("--completions=zsh", "#compdef rtop"),
        ("--completions=fish", "complete -c rtop"),
        ("--version", "rtop "),
    ] {
        let output = rtop(&[option]);
        assert!(output.status.success(), "{option}");
        assert!(text(&output.stdout).contains(told), "{option}: {}", text(&output.stdout));
    }
}
