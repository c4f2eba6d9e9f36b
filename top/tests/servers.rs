//! The program without a terminal: servers that die, are silent, restart or tell less, and several of them.
#![allow(clippy::unwrap_used)]

mod program;
mod stats_server;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use program::{Scratch, counting, document, rtop, text};
use stats_server::{Answer, Server, nobody};

/// rtop while it runs, with what it says so far.
fn start(arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtop"));
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_server_that_died_is_not_measured() {
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let mut server = Server::start(move |poll| {
        counter.store(poll, Ordering::SeqCst);
        document(7, 100 * poll, 0)
    });
    let options = ["-f", "0.05", "--for", "1.5s", "--timeout", "0.5", "--assert", "exceptions == 0"];
    let rtop = start(&[&[server.address.as_str()], &options[..]].concat());
    while asked.load(Ordering::SeqCst) < 4 {
        std::thread::yield_now();
    }
    server.die();
    let output = rtop.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("{}: no sample at the end", server.address)), "{said}");
}

#[test]
fn a_server_that_was_silent_in_the_middle_is_not_measured() {
    // It hangs once, and longer than the gap that is allowed.
    let server = Server::start(|poll| if poll == 3 { Answer::Hang(String::new()) } else { document(7, 100 * poll, 0) });
    let options = ["-f", "0.05", "-n", "8", "--timeout", "1.5", "--assert", "exceptions == 0"];
    let output = rtop(&[&[server.address.as_str()], &options[..]].concat());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no sample for "), "{said}");
}

#[test]
fn a_server_may_end_with_the_command_only_when_that_is_expected() {
    let run = |expected: &[&str]| {
        // The command tells the server to end: it answers once more at most.
        let flag = Scratch::new(if expected.is_empty() { "ends" } else { "ends-expected" });
        let path = flag.path().to_owned();
        let gone = path.clone();
        let server = Server::start(move |poll| match std::fs::exists(&gone).unwrap() {
            true => Answer::Text(String::new()),
            false => document(7, 100 * poll, 0),
        });
        let command = format!("sleep 0.3; touch {path}; sleep 0.1");
        let options = ["-f", "0.05", "--timeout", "0.5", "--assert", "requests > 0"];
        let output =
            rtop(&[&[server.address.as_str()], &options[..], expected, &["--", "sh", "-c", command.as_str()]].concat());
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = run(&[]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = run(&["--expect-exit"]);
    assert_eq!(code, Some(0), "{said}");
}

/// What an rwsgi says beside a uWSGI: it counts responses and memory with shared pages divided.
fn rwsgi(requests: u64, failed: u64) -> Answer {
    Answer::Text(format!(
        r#"{{"version":"1","server":"rwsgi","pid":7,"workers":[{{"id":1,"pid":8,"status":"idle","requests":{requests},
        "rss":52428800,"pss":1000,"respawn_count":1,"busy_time":{requests},"cpu_time":{requests},
        "responses":{{"5xx":{failed}}},"cores":[{{"id":0}}]}}]}}"#
    ))
}

#[test]
fn what_one_of_several_servers_does_not_tell_is_not_measured_and_it_is_named() {
    let check = |assertion: &str, status: i32, told: &[&str]| {
        let (ours, uwsgi) =
            (Server::start(|poll| rwsgi(100 * poll, 0)), Server::start(|poll| document(7, 100 * poll, 50 * poll)));
        let options = ["-f", "0.05", "-n", "3", "--assert", assertion];
        let output = rtop(&[&[ours.address.as_str(), uwsgi.address.as_str()], &options[..]].concat());
        let said = text(&output.stdout).replace(&uwsgi.address, "UWSGI").replace(&ours.address, "RWSGI");
        assert_eq!(output.status.code(), Some(status), "{assertion}: {said}");
        for told in told {
            assert!(said.contains(told), "{assertion}: {said}");
        }
    };
    for metric in ["cpu", "utilization", "client_error_rate"] {
        check(&format!("{metric} < 10000%"), 2, &["UWSGI does not tell"]);
    }
    check("pss.sum < 1GiB", 2, &["UWSGI does not tell"]);
    // Half of one server's requests raise: a quarter of all.
    check("error_rate < 20%", 1, &["25%", "counts exceptions, for UWSGI does not tell status codes"]);
}

#[test]
fn what_is_told_of_all_workers_together_is_the_sum_over_servers() {
    let judged = |assertion: &str| {
        let servers = [3, 5].map(|queue| {
            Server::start(move |poll| {
                Answer::Text(format!(
                    r#"{{"version":"2","pid":7,"listen_queue":{queue},"workers":[{{"id":1,"pid":8,"rss":314572800,
                    "pss":209715200,"requests":{poll},"cores":[{{"id":0}}]}}]}}"#
                ))
            })
        });
        let options = ["-f", "0.05", "-n", "2", "--assert", assertion];
        let addresses = servers.each_ref().map(|server| server.address.as_str());
        let output = rtop(&[&addresses[..], &options[..]].concat());
        (output.status.code(), text(&output.stdout))
    };
    for assertion in
        ["rss.sum == 600MiB", "pss.sum == 400MiB", "queue.max == 8", "workers.min == 2", "rss.max == 300MiB"]
    {
        let (code, said) = judged(assertion);
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(judged("rss.sum < 400MiB").0, Some(1));
}

#[test]
fn so_many_samples_are_taken_of_each_server() {
    // The second answers slowly.
    let slow = Server::start(|poll| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        document(9, 100 * poll, 0)
    });
    let quick = Server::start(|poll| document(7, 100 * poll, 0));
    let output = rtop(&[&quick.address, &slow.address, "-f", "0.05", "-n", "3", "--csv"]);
    let rows = text(&output.stdout);
    for address in [&quick.address, &slow.address] {
        assert_eq!(rows.matches(address.as_str()).count(), 3, "{rows}");
    }
}

#[test]
fn samples_that_are_judged_are_counted_from_when_all_servers_have_answered() {
    let quick = Server::start(|poll| document(7, 100 * poll, 0));
    let slow = Server::start(|poll| {
        // The first would have used up its samples meanwhile.
        std::thread::sleep(std::time::Duration::from_millis(if poll == 0 { 600 } else { 0 }));
        document(9, 100 * poll, 0)
    });
    let options = ["-f", "0.05", "-n", "3", "--assert", "requests == 600"];
    let output = rtop(&[&[quick.address.as_str(), slow.address.as_str()], &options[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    // One that never answers is not waited for when its attempts are over.
    let nobody = nobody();
    let output = rtop(&[&[quick.address.as_str(), nobody.as_str()], &options[..]].concat());
    let said = text(&output.stdout);
    assert!(output.status.code() == Some(2) && said.contains(&format!("{nobody}: no sample")), "{said}");
}

#[test]
fn a_server_that_is_named_twice_is_refused() {
    let server = Server::start(counting);
    let output = rtop(&[&server.address, &server.address, "-n", "2", "--assert", "requests > 300"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(&format!("{} is named twice", server.address)), "{}", text(&output.stderr));
}
