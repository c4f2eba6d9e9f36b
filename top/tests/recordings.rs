//! The program without a terminal: recordings, and what is compared with them.
#![allow(clippy::unwrap_used)]

mod program;
mod stats_server;

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use program::{Scratch, counting, document, rtop, text};
use serde_json::Value;
use stats_server::Server;

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
