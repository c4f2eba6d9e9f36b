//! The program without a terminal: assertions, their exit codes, recordings, JSON and CSV, against a server that counts.
#![allow(clippy::unwrap_used)]

mod stats_server;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
fn a_verdict_goes_through_a_pipe_that_was_opened_before_and_to_a_directory_that_was_emptied() {
    let server = Server::start(counting);
    let junit = Scratch::new("emptied.xml");
    let program = env!("CARGO_BIN_EXE_rtop");
    let (address, path) = (&server.address, junit.path());
    let remove = format!("rm {path}; sleep 0.2");
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
fn a_recording_is_json_lines_and_reads_back_whatever_the_servers_send_and_are_called() {
    // A request in Latin-1, a document over several lines, and a socket whose name needs escapes.
    let directory = std::env::temp_dir();
    let socket = directory.join(format!("rtop-{}-a\"b\\c.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for (poll, stream) in listener.incoming().enumerate() {
            let text = format!(
                "{{\n\t\"version\":\"2\",\"pid\":7,\n\t\"workers\":[{{\"id\":1,\"pid\":8,\"requests\":{},\"cores\":[{{\"vars\":[\"PATH_INFO=/caf#\"]}}]}}]}}",
                100 * poll
            );
            let bytes: Vec<u8> = text.bytes().map(|byte| if byte == b'#' { 0xe9 } else { byte }).collect();
            stream.unwrap().write_all(&bytes).unwrap();
        }
    });
    let recording = Scratch::new("lines.rtop");
    let target = socket.to_str().unwrap();
    let live = rtop(&[target, "-f", "0.05", "--for", "0.4s", "--assert", "requests > 0", "--record", recording.path()]);
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(live.status.code(), Some(0), "{}", text(&live.stdout));
    let lines = Command::new("zcat").arg(recording.path()).output().unwrap().stdout;
    let lines: Vec<Value> = text(&lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["target"] == target && line["lossy"] == true), "{lines:?}");
    assert!(!lines.iter().any(|line| line.get("error").is_some()), "{lines:?}");
    let replayed = rtop(&["--replay", recording.path(), "--assert", "requests > 0"]);
    assert_eq!(text(&replayed.stdout), text(&live.stdout), "{}", text(&replayed.stderr));
}

#[test]
fn a_damaged_recording_is_said_to_be_so_and_is_not_judged() {
    let server = Server::start(counting);
    let (recording, damaged) = (Scratch::new("whole.rtop"), Scratch::new("damaged.rtop"));
    let options = ["-f", "0.02", "-n", "4", "--assert", "exceptions > 0", "--record", recording.path()];
    assert!(rtop(&[&[server.address.as_str()], &options[..]].concat()).status.success());
    let whole = std::fs::read(&recording.0).unwrap();
    let replayed = |bytes: &[u8]| {
        std::fs::write(&damaged.0, bytes).unwrap();
        let output = rtop(&["--replay", damaged.path(), "--assert", "exceptions > 0"]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(replayed(&whole).0, Some(0));
    // Cut in the middle of its last line; cut, and gone on with by another run; a byte in the middle that has changed.
    let cut = &whole[..whole.len() - 9];
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 0x55;
    for bytes in [cut.to_vec(), [cut, &whole].concat(), changed] {
        let (code, said) = replayed(&bytes);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("damaged at byte "), "{said}");
    }
    // What follows the damage is still shown.
    std::fs::write(&damaged.0, [cut, &whole].concat()).unwrap();
    let rows = text(&rtop(&["--replay", damaged.path(), "--csv"]).stdout);
    // The second run begins with fewer requests: its first sample is one of a server that was restarted.
    assert_eq!(rows.lines().count(), 1 + 4 + 5, "{rows}");
    // Two whole runs are two windows.
    let (code, said) = replayed(&[whole.as_slice(), &whole].concat());
    assert!(code == Some(2) && said.contains("2 runs"), "{said}");
}

#[test]
fn the_last_sample_of_a_run_is_recorded() {
    let server = Server::start(counting);
    let recording = Scratch::new("last.rtop");
    // One poll at the beginning, and the look at the end.
    let options = ["-f", "5", "--for", "0.2s", "--assert", "requests == 100", "--record", recording.path()];
    let live = rtop(&[&[server.address.as_str()], &options[..]].concat());
    assert_eq!(live.status.code(), Some(0), "{}", text(&live.stdout));
    let replayed = rtop(&["--replay", recording.path(), "--assert", "requests == 100"]);
    assert_eq!(text(&replayed.stdout), text(&live.stdout));
}

#[test]
fn a_recording_that_cannot_be_written_is_told_at_once() {
    let server = Server::start(counting);
    let output = rtop(&[&server.address, "-n", "2", "--record", "/dev/full"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("No space left"), "{}", text(&output.stderr));
    // The disk is full only later: a file may have a kilobyte.
    let recording = Scratch::new("full.rtop");
    let (program, path) = (env!("CARGO_BIN_EXE_rtop"), recording.path());
    let rtop = format!("exec {program} {} -f 0.05 --for 60s --assert 'requests > 0' --record {path}", server.address);
    let limited = format!("trap '' XFSZ; ulimit -f 1; {rtop}");
    let mut limited = Command::new("bash").args(["-c", &limited]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(limited.stderr.take().unwrap()).read_line(&mut line).unwrap();
    limited.kill().unwrap();
    limited.wait().unwrap();
    assert!(
        line.contains(path) && line.contains("File too large") && line.contains("nothing more is recorded"),
        "{line}"
    );
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
fn a_run_is_compared_with_a_recording() {
    let run = |errors: u64, more: &[&str]| {
        let server = Server::start(move |poll| document(7, 100 * poll, errors * poll));
        rtop(&[&[server.address.as_str(), "-f", "0.02", "-n", "3"], more].concat())
    };
    let before = Scratch::new("before.rtop");
    let recorded = run(10, &["--assert", "requests > 0", "--record", before.path()]);
    assert_eq!(recorded.status.code(), Some(0), "{}", text(&recorded.stdout));
    let compared = ["--baseline", before.path(), "--assert", "exception_rate < 1.10 * baseline"];
    let output = run(10, &compared);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let output = run(20, &compared);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("baseline (11%)  20%"), "{}", text(&output.stdout));
    // What the baseline does not tell is not measured.
    let output = run(10, &["--baseline", before.path(), "--assert", "p99 < baseline"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("the baseline: the server does not tell"), "{}", text(&output.stdout));
    let output = run(10, &["--assert", "p99 < baseline"]);
    assert!(text(&output.stderr).contains("needs --baseline FILE"), "{}", text(&output.stderr));
}

#[test]
fn a_server_that_is_named_twice_is_refused() {
    let server = Server::start(counting);
    let output = rtop(&[&server.address, &server.address, "-n", "2", "--assert", "requests > 300"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(&format!("{} is named twice", server.address)), "{}", text(&output.stderr));
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
