//! The program without a terminal: assertions, their exit codes, JSON and CSV, against a server that counts.
#![allow(clippy::unwrap_used)]

mod program;
mod stats_server;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use program::{Scratch, counting, document, rtop, text};
use serde_json::Value;
use stats_server::{Answer, Server, nobody};

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
    assert_eq!(
        line.split_whitespace().take(8).collect::<Vec<_>>(),
        ["exceptions", "==", "0", "10", "FAIL", "worker", "1:", "10"]
    );
    assert_eq!(table.matches("pass").count(), 3, "{table}");
    assert!(junit.read().contains("tests=\"4\" skipped=\"0\" failures=\"1\" errors=\"0\""), "{}", junit.read());
    assert!(markdown.read().contains("| `exceptions == 0` | 10 | FAIL | worker 1: 10 |"));
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
fn a_file_that_cannot_be_written_is_told_before_anything_is_watched() {
    let kept = Scratch::new("kept.xml");
    std::fs::write(&kept.0, "before").unwrap();
    for option in ["--junit", "--markdown", "--html"] {
        // Nobody answers at this address: it would be waited for.
        let run = ["127.0.0.1:1", "--for", "1h", "--assert", "rps > 1", "--junit", kept.path()];
        let (file, missing) = (Scratch::new("file"), "/nonexistent/directory/file");
        std::fs::write(&file.0, "").unwrap();
        let below = format!("{}/verdict", file.path());
        for path in [missing, &below, "/"] {
            let run = if option == "--junit" { &run[..5] } else { &run };
            let output = rtop(&[run, &[option, path]].concat());
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""), "{said}");
            assert!(said.contains(&format!("{option}: cannot write {path}: ")), "{said}");
        }
    }
    assert_eq!(kept.read(), "before", "what was there stays until there is something new");
}

#[test]
fn a_run_that_is_interrupted_leaves_no_empty_files() {
    let server = Server::start(counting);
    let [junit, markdown, html, kept] = ["cut.xml", "cut.md", "cut.html", "cut-kept.md"].map(Scratch::new);
    // One that leads nowhere yet.
    let link = Scratch::new("cut-link.xml");
    std::os::unix::fs::symlink(&junit.0, &link.0).unwrap();
    std::fs::write(&kept.0, "before").unwrap();
    for markdown in [&markdown, &kept] {
        let run =
            [&server.address, "-f", "0.05", "--for", "1h", "--json", "--assert", "rps > 1", "--junit", link.path()];
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtop"));
        command.args(run).args(["--markdown", markdown.path(), "--html", html.path()]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
    }
    for file in [&junit, &markdown, &html] {
        assert!(!file.0.exists(), "{}", file.path());
    }
    assert_eq!(kept.read(), "before");
}

#[test]
fn a_verdict_goes_through_a_pipe_that_was_opened_before_and_to_a_directory_that_was_emptied() {
    let server = Server::start(counting);
    let junit = Scratch::new("emptied.xml");
    let program = env!("CARGO_BIN_EXE_rtop");
    let (address, path) = (&server.address, junit.path());
    let remove = format!("rm -f {path}; sleep 0.2");
    let pipe = Scratch::new("pipe.md");
    let shell = format!(
        "mkfifo {pipe}; cat {pipe} & {program} {address} -f 0.05 --assert 'requests > 0' --junit {path} \
         --markdown {pipe} -- sh -c '{remove}' >/dev/null; code=$?; wait; exit $code",
        pipe = pipe.path()
    );
    let output = Command::new("bash").args(["-c", &shell]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("| `requests > 0` |"), "{}", text(&output.stdout));
    assert!(junit.read().contains("tests=\"1\""), "{}", junit.read());
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
fn a_mistake_in_the_configuration_is_told_without_a_screen_too() {
    let file = Scratch::new("config.toml");
    std::fs::write(&file.0, "[keys]\nquit = ['cntrl-q']\n").unwrap();
    let output = rtop(&["127.0.0.1:1", "-n", "1", "--config", file.path()]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""));
    assert!(text(&output.stderr).contains("cntrl-q"), "{}", text(&output.stderr));
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

#[test]
fn what_happens_while_warming_up_is_not_judged() {
    // The first answers tell of failures; from the sixth on all goes well.
    let server = || Server::start(|poll| document(7, 100 * poll, 7 * poll.min(5)));
    let judged = |more: &[&str]| {
        let server = server();
        let options = ["-f", "0.1", "--for", "2s", "--assert", "exceptions == 0"];
        rtop(&[&[server.address.as_str()], &options[..], more].concat())
    };
    assert_eq!(judged(&[]).status.code(), Some(1));
    let output = judged(&["--warmup", "1s"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let output = rtop(&["127.0.0.1:1", "--for", "1s", "--warmup", "1s"]);
    assert!(text(&output.stderr).contains("there is none"), "{}", text(&output.stderr));
}

#[test]
fn every_window_must_hold_and_the_worst_is_told() {
    // Nine of ten requests of one second raise; of all, hardly a tenth.
    let server = Server::start(|poll| document(7, 10 * poll, 9 * poll.clamp(20, 25)));
    let options = ["-f", "0.1", "-n", "60", "--assert", "exception_rate < 50%"];
    let whole = rtop(&[&[server.address.as_str()], &options[..]].concat());
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole.stdout));
    let server = Server::start(|poll| document(7, 10 * poll, 9 * poll.clamp(20, 25)));
    let windows = rtop(&[&[server.address.as_str()], &options[..], &["--window", "0.4s"]].concat());
    let said = text(&windows.stdout);
    assert_eq!(windows.status.code(), Some(1), "{said}");
    assert!(said.contains(" windows"), "{said}");
    let output = rtop(&[&[server.address.as_str()], &options[..], &["--window", "0.1s"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("has no two samples"), "{}", text(&output.stdout));
}

#[test]
fn a_verdict_is_not_given_on_what_came_before_the_reader_left() {
    let server = Server::start(counting);
    let junit = Scratch::new("left.xml");
    let program = env!("CARGO_BIN_EXE_rtop");
    let arguments = format!("{} -f 0.02 --for 60s --json --assert 'requests > 0'", server.address);
    let shell =
        format!("{program} {arguments} --junit {} | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}", junit.path());
    let output = Command::new("bash").args(["-c", &shell]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", junit.read());
    assert!(junit.read().contains("standard output was closed before the end"), "{}", junit.read());
}
