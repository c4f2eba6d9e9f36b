//! Stacks and profiles: the program and the screen, against a control socket that a test has made.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

mod control_server;
mod program;
mod pty;
mod stats_server;

use control_server::{Control, busy};
use program::{Scratch, counting, rtop, text};
use pty::Terminal;
use stats_server::{Answer, Server};

/// A stats server that names the control socket.
fn pool(control: &Control) -> Server {
    let document = control.document();
    Server::start(move |_| Answer::Text(document.clone()))
}

#[test]
fn stacks_are_printed_whether_the_stats_name_the_socket_or_the_command_line_does_or_it_is_the_address() {
    let control = Control::start(busy);
    let server = pool(&control);
    let silent = Server::start(counting);
    for arguments in [
        vec![server.address.as_str(), "--stacks"],
        vec![control.path(), "--stacks"],
        vec![silent.address.as_str(), "--stacks", "--control", control.path()],
    ] {
        let output = rtop(&arguments);
        let told = text(&output.stdout);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        assert!(told.contains("worker 1 (pid 8) thread 0 (tid 8, \"\"): waiting for a database"), "{told}");
        assert!(told.contains("GET /orders/7 (route /orders/{}) for 2.345 s"), "{told}");
        let execute = told.find("psycopg/cursor.py:97").unwrap();
        assert!(execute < told.find("/srv/shop/views.py:41").unwrap(), "the innermost frame comes first: {told}");
        assert!(!told.contains('\u{1b}'), "plain in a pipe");
    }
}

#[test]
fn stacks_of_one_worker_as_json() {
    let control = Control::start(busy);
    let output = rtop(&[&pool(&control).address, "--stacks", "--worker", "3", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["threads"][0]["frames"][1]["line"], 41);
    assert_eq!(control.asked.lock().unwrap()[0], serde_json::json!({"do": "stacks", "worker": 3}));
}

#[test]
fn who_cannot_be_asked_is_said_with_what_to_do_and_the_status_is_two() {
    let uwsgi = Server::start(counting);
    let alone = Server::start(|_| Answer::Text(r#"{"version":"1","server":"rwsgi","pid":7,"workers":[]}"#.into()));
    let gone = {
        let control = Control::start(busy);
        let document = control.document();
        Server::start(move |_| Answer::Text(document.clone()))
    };
    for (server, told) in [
        (&uwsgi, "uWSGI does not tell stacks"),
        (&alone, "no control socket: start it with --control PATH"),
        (&gone, "is the server running?"),
    ] {
        let output = rtop(&[&server.address, "--stacks"]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(told) && output.stdout.is_empty(), "{error}");
    }
    let output = rtop(&[&uwsgi.address, "--profile", "1s"]);
    assert!(text(&output.stderr).contains("uWSGI does not tell profiles"));
    let refusing = Control::start(|_| vec![r#"{"failed":"a profile is under way already"}"#.to_owned()]);
    let output = rtop(&[refusing.path(), "--profile", "1s", "--control", refusing.path()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("a profile is under way already"));
}

#[test]
fn a_profile_in_a_pipe_is_a_table() {
    let control = Control::start(busy);
    let output = rtop(&[&pool(&control).address, "--profile", "0.2", "--rate", "50", "--profile-by", "route"]);
    let told = text(&output.stdout);
    for line in ["gil 20.0 %, database 80.0 %", "100 % of busy threads are in psycopg", "80.0  /orders/{}", "SELF%"] {
        assert!(told.contains(line), "{line} is not in\n{told}{}", text(&output.stderr));
    }
    let error = text(&output.stderr);
    assert!(error.contains("for 0.2 s, 50 times a second; ctrl-c ends it"), "{error}");
    assert!(error.contains("sampling 1 worker"), "{error}");
    assert_eq!(control.asked.lock().unwrap()[0], serde_json::json!({"do": "profile", "seconds": 0.2, "rate": 50}));
}

#[test]
fn a_profile_is_written_as_the_file_s_ending_says() {
    let control = Control::start(busy);
    let server = pool(&control);
    for (name, begins) in [
        ("flame.svg", "<?xml version=\"1.0\""),
        ("flame.speedscope.json", "{\"$schema\":\"https://www.speedscope.app"),
        ("flame.collapsed", "export (/srv/shop/views.py:41);execute"),
    ] {
        let file = Scratch::new(name);
        let output = rtop(&[&server.address, "--profile", "0.2", "-o", file.path()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(file.read().starts_with(begins), "{name}: {}", file.read());
        assert!(text(&output.stderr).contains("100 samples of threads in requests"));
    }
    let output = rtop(&[&server.address, "--profile", "0.2", "-o", "/nonexistent/flame.svg"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--output: cannot write /nonexistent/flame.svg"));
    let output = rtop(&[&server.address, "--profile", "0.2", "-o", "flame.png"]);
    assert!(text(&output.stderr).contains("the ending says what is written"));
}

#[test]
fn a_profile_without_a_request_is_not_measured() {
    let idle = Control::start(|_| vec![r#"{"done":{"profile":{"micros":200000,"rate":100}}}"#.to_owned()]);
    let file = Scratch::new("idle.svg");
    let output = rtop(&[&pool(&idle).address, "--profile", "0.2", "-o", file.path()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no request ran in these 0.2 s"));
    assert!(!file.0.exists(), "nothing is written");
}

#[test]
fn an_interrupted_profile_says_that_nothing_was_written() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::os::unix::process::ExitStatusExt as _;
    let slow = Control::start(|_| vec![r#"{"progress":"begun"}"#.to_owned()]);
    let file = Scratch::new("interrupted.svg");
    let mut child = Command::new(env!("CARGO_BIN_EXE_rtop"))
        .args([&pool(&slow).address, "--profile", "60s", "-o", file.path()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut error = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert!(error.read_line(&mut line).unwrap() > 0, "rtop left");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    error.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("interrupted before the server had its profile: nothing was written"), "{rest}");
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert!(!file.0.exists());
}

#[test]
fn a_key_shows_the_stacks_of_a_worker_live() {
    let control = Control::start(busy);
    let server = pool(&control);
    let mut terminal = Terminal::run(&[&server.address, "-f", "0.1"], (80, 24));
    terminal.wait_for_text("cores  f");
    terminal.press("jb");
    terminal.wait_for_text("stacks of worker 1");
    terminal.wait_for_text("waiting for a database");
    terminal.wait_for_text("GET /orders/7 (route /orders/{}) for 2.35s");
    // The pane asks again by itself.
    let asked = || control.asked.lock().unwrap().len();
    let before = asked();
    terminal.wait_for("another request", |_| asked() > before);
    terminal.press("\u{1b}");
    terminal.wait_for("the table again", |screen| !screen.contents().contains("stacks of"));
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn a_key_profiles_and_the_graph_is_looked_into() {
    let control = Control::start(busy);
    let server = pool(&control);
    let mut terminal = Terminal::run(&[&server.address, "-f", "0.1"], (80, 24));
    terminal.wait_for_text("cores  f");
    terminal.press("P");
    terminal.wait_for_text("for how many seconds? 10");
    terminal.press("\u{7f}\r");
    terminal.wait_for_text("100 samples in 1.00s");
    terminal.wait_for_text("export (views.py:41)");
    terminal.press("/psycopg\r");
    terminal.wait_for_text("80.0 % in 1 functions");
    terminal.press("\r");
    terminal.wait_for_text("zoomed into 80.0 %");
    terminal.press("\u{7f}g");
    terminal.wait_for_text("/orders/{}");
    terminal.press("q");
    terminal.wait_for_text("100 % of busy threads are in psycopg");
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn the_command_line_opens_the_graph_on_a_terminal() {
    let control = Control::start(busy);
    let mut terminal =
        Terminal::run(&[&pool(&control).address, "--profile", "0.5", "--profile-by", "state"], (100, 30));
    terminal.wait_for_text("by state; 100 samples");
    terminal.press("\u{3}");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn a_control_socket_is_watched_like_a_stats_server() {
    let control = Control::start(busy);
    let output = rtop(&[control.path(), "--json", "-n", "2", "-f", "0.1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert!(text(&output.stdout).contains("4711"));
}
