//! The program in a real terminal (a pty, read by a terminal emulator), against a stats server that misbehaves.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

mod pool_recording;
mod pty;
mod stats_server;

use portable_pty::PtySize;
use pty::{Terminal, size};
use stats_server::{Answer, Server, nobody};

const DOCUMENT: &str = include_str!("../../shared/tests/fixtures/uwsgi-four-workers-two-threads.json");

fn whole() -> Answer {
    Answer::Text(DOCUMENT.to_owned())
}

#[test]
fn the_table_is_shown_and_q_gives_the_terminal_back() {
    let server = Server::start(|_| whole());
    let mut terminal = Terminal::run(&[&server.address, "--frequency", "0.1"], (120, 30));
    // The foot is written last, so the frame is whole when it is there.
    terminal.wait_for_text("cores  f");
    let contents = terminal.contents();
    for number in ["536", "675", "581", "209", "10.7M", "128.2M", "4866", "/srv/app"] {
        assert!(contents.contains(number), "{number} is not in\n{contents}");
    }
    terminal.press("a");
    terminal.wait_for_text("4:1");
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn a_server_that_goes_hangs_or_is_cut_short_is_said_to_be_so_and_found_again() {
    let server = Server::start(|_| whole());
    let mut terminal = Terminal::run(&[&server.address, "-f", "0.05", "--timeout", "0.2"], (100, 20));
    terminal.wait_for_text("req 2001");
    server.answer(Answer::Hang(String::new()));
    terminal.wait_for_text("no answer within 0.2 s");
    terminal.wait_for_text("req 2001");
    server.answer(Answer::Text(DOCUMENT[..300].to_owned()));
    terminal.wait_for_text("truncated response (300 bytes)");
    server.answer(Answer::Text(String::new()));
    terminal.wait_for_text("closed the connection without an answer");
    server.answer(Answer::Text(DOCUMENT.replace("\"requests\":536", "\"requests\":537")));
    terminal.wait_for("the hints again", |screen| screen.contents().contains("quit"));
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn a_signal_ends_it_with_the_terminal_given_back() {
    let server = Server::start(|_| whole());
    for (name, words) in [("TERM", "Terminated"), ("INT", "Interrupt"), ("HUP", "Hangup")] {
        let terminal = Terminal::run(&[&server.address], (80, 24));
        terminal.wait_for_text("req 2001");
        terminal.signal(name);
        let status = terminal.wait_for_end();
        assert_eq!(status.signal(), Some(words), "{status:?}");
    }
}

#[test]
fn suspending_lends_the_terminal_and_continuing_takes_it_back() {
    let server = Server::start(|_| whole());
    let mut terminal = Terminal::run(&[&server.address], (80, 24));
    terminal.wait_for_text("req 2001");
    terminal.press("\x1a");
    terminal.wait_for("the terminal lent", |screen| !screen.alternate_screen() && !screen.hide_cursor());
    terminal.signal("CONT");
    terminal.wait_for("the screen again", |screen| screen.alternate_screen() && screen.contents().contains("req 2001"));
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn a_resized_terminal_is_filled_again() {
    let server = Server::start(|_| whole());
    let mut terminal = Terminal::run(&[&server.address], (80, 24));
    terminal.wait_for_text("req 2001");
    terminal.wait_for("no room for the spawn time", |screen| !screen.contents().contains("LastSpwn"));
    terminal.screen.lock().unwrap().screen_mut().set_size(size(20), size(140));
    terminal.master.resize(PtySize { rows: 20, cols: 140, ..PtySize::default() }).unwrap();
    terminal.wait_for("the wider table", |screen| {
        let contents = screen.contents();
        contents.contains("LastSpwn") && contents.lines().nth(19).is_some_and(|line| line.contains("quit"))
    });
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn a_size_that_changes_while_rtop_starts_is_the_one_that_is_drawn() {
    let server = Server::start(|_| whole());
    // It starts in a few milliseconds; whichever moment of that the change comes in.
    for moment in (0..8_000).step_by(200) {
        let mut terminal = Terminal::run(&[&server.address], (80, 24));
        thread::sleep(Duration::from_micros(moment));
        terminal.screen.lock().unwrap().screen_mut().set_size(size(20), size(140));
        terminal.master.resize(PtySize { rows: 20, cols: 140, ..PtySize::default() }).unwrap();
        terminal.wait_for(&format!("the wider table, changed to after {moment} µs"), |screen| {
            let contents = screen.contents();
            contents.contains("LastSpwn") && contents.lines().nth(19).is_some_and(|line| line.contains("quit"))
        });
        terminal.press("q");
        assert!(terminal.wait_for_end().success());
    }
}

#[test]
fn of_more_keys_than_are_read_at_once_the_last_is_obeyed() {
    let server = Server::start(|_| whole());
    let mut terminal = Terminal::run(&[&server.address], (80, 24));
    terminal.wait_for_text("req 2001");
    terminal.press(&format!("{}q", "r".repeat(3_500)));
    assert!(terminal.wait_for_end().success());
}

#[test]
fn a_click_on_a_title_sorts_and_another_turns_the_order_round() {
    let server = Server::start(|_| whole());
    let mut terminal = Terminal::run(&[&server.address], (120, 30));
    terminal.wait_for_text("req 2001");
    let lines: Vec<String> = terminal.contents().lines().map(str::to_owned).collect();
    let (row, title) = lines.iter().enumerate().find(|(_, line)| line.contains("WID")).unwrap();
    let column = title.find("WID").unwrap();
    let first = |screen: &vt100::Screen| {
        let contents = screen.contents();
        let row = contents.lines().nth(row + 1).unwrap_or_default().to_owned();
        row.split_whitespace().next().map(str::to_owned)
    };
    // As terminals report clicks: the first column and line are 1.
    let click = format!("\x1b[<0;{};{}M\x1b[<0;{};{}m", column + 2, row + 1, column + 2, row + 1);
    for expected in ["1", "4"] {
        terminal.press(&click);
        terminal.wait_for("the order", |screen| first(screen).as_deref() == Some(expected));
    }
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn help_comes_from_the_keys_in_force_and_themes_take_turns() {
    let server = Server::start(|_| whole());
    let directory = std::env::temp_dir().join(format!("rtop-terminal-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let config = directory.join("config.toml");
    std::fs::write(&config, "theme = \"light\"\n[keys]\nhelp = [\"x\"]\n").unwrap();
    let mut terminal = Terminal::run(&[&server.address, "--config", config.to_str().unwrap()], (120, 60));
    terminal.wait_for_text("x help");
    terminal.press("x");
    terminal.wait_for_text("other colours: the next theme");
    terminal.wait_for("the key that is in force", |screen| {
        screen.contents().lines().any(|line| line.contains(" x ") && line.contains("this help"))
    });
    terminal.press("xt");
    terminal.wait_for_text("theme: colour-blind");
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_recording_is_played_on_the_same_screen_and_gone_back_in() {
    let directory = std::env::temp_dir().join(format!("rtop-replay-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("night.rtop");
    let mut file = std::fs::File::create(&path).unwrap();
    for second in 0..120_u64 {
        let document = DOCUMENT.replace("\"requests\":536", &format!("\"requests\":{}", 600 + second));
        let taken = 1_795_227_000_000_000 + second * 1_000_000;
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let line = serde_json::json!({ "target": "web1:9191", "taken": taken, "document": document });
        let mut packed = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
        writeln!(packed, "{line}").unwrap();
        packed.finish().unwrap();
    }
    let mut terminal = Terminal::run(&["--replay", path.to_str().unwrap()], (120, 30));
    terminal.wait_for_text("recording 1x");
    terminal.wait_for_text("req 20");
    terminal.press("p");
    terminal.wait_for_text("paused");
    terminal.press("p++++++++++");
    terminal.wait_for_text("recording 1024x");
    terminal.wait_for_text("end of the recording");
    terminal.wait_for_text(&format!("req {}", 2_001 - 536 + 719));
    terminal.press("\x1b[D");
    terminal.wait_for_text("paused, 1s ago");
    terminal.wait_for_text(&format!("req {}", 2_001 - 536 + 718));
    terminal.press("[");
    terminal.wait_for_text("paused, 1m01s ago");
    terminal.wait_for_text(&format!("req {}", 2_001 - 536 + 658));
    terminal.press("n");
    terminal.wait_for_text(&format!("req {}", 2_001 - 536 + 719));
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_is_wrong_is_found_by_route_and_slow_request_in_a_few_keys() {
    let path = std::env::temp_dir().join(format!("rtop-inside-{}.rtop", std::process::id()));
    pool_recording::record(&path, pool_recording::Pool::Full, 40);
    let mut terminal = Terminal::run(&["--replay", path.to_str().unwrap()], (100, 30));
    terminal.press("++++++");
    terminal.wait_for_text("end of the recording");
    terminal.wait_for_text("4 of 4 threads busy for 3");
    terminal.press("y");
    terminal.wait_for_text("rule saturated");
    terminal.press("yu");
    terminal.wait_for("the route that takes most on top", |screen| {
        let contents = screen.contents();
        let mut lines = contents.lines().skip_while(|line| !line.contains("ROUTE"));
        lines.nth(1).is_some_and(|line| line.trim_start().starts_with("orders.views.export"))
    });
    terminal.press("\r");
    terminal.wait_for_text("KeyError: 'total'");
    terminal.wait_for_text("running now: 4");
    terminal.press("ul");
    terminal.wait_for_text("LARGEST PHASE");
    terminal.press("\r");
    terminal.wait_for_text("where its time went");
    terminal.wait_for_text("/srv/app/views.py:41 in export");
    terminal.press("qq");
    terminal.wait_for_text("WID");
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn panes_fit_a_small_terminal_without_colours() {
    let path = std::env::temp_dir().join(format!("rtop-small-{}.rtop", std::process::id()));
    pool_recording::record(&path, pool_recording::Pool::Full, 40);
    let mut terminal = Terminal::start(&["--replay", path.to_str().unwrap()], (80, 24), &[("NO_COLOR", "1")]);
    terminal.press("++++++");
    terminal.wait_for_text("end of the recording");
    for (keys, text) in [("u", "TIME%"), ("\r", "running now"), ("ul", "TOOK"), ("\r", "where its time went")] {
        terminal.press(keys);
        terminal.wait_for_text(text);
        let screen = terminal.screen.lock().unwrap();
        let coloured = |row, column| {
            let cell = screen.screen().cell(row, column);
            cell.is_some_and(|cell| (cell.fgcolor(), cell.bgcolor()) != (vt100::Color::Default, vt100::Color::Default))
        };
        assert!((0..24).all(|row| (0..80).all(|column| !coloured(row, column))), "{keys}");
    }
    terminal.press("\x03");
    assert!(terminal.wait_for_end().success());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn of_several_servers_one_that_hangs_holds_up_no_other() {
    let (first, second) = (Server::start(|_| whole()), Server::start(|_| whole()));
    let addresses = [first.address.as_str(), second.address.as_str(), "-f", "0.1", "--timeout", "0.3"];
    let mut terminal = Terminal::run(&addresses, (120, 30));
    // Both added up.
    terminal.wait_for_text("req 4002");
    second.answer(Answer::Hang(DOCUMENT[..500].to_owned()));
    first.answer(Answer::Text(DOCUMENT.replace("\"requests\":536", "\"requests\":546")));
    terminal.wait_for_text("no answer within 0.3 s");
    terminal.wait_for_text(" down ");
    terminal.wait_for_text("req 4012");
    terminal.press("\t");
    terminal.wait_for_text("546");
    terminal.press("q");
    assert!(terminal.wait_for_end().success());
}

#[test]
fn without_a_terminal_there_are_plain_tables() {
    let server = Server::start(|_| whole());
    let command = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_rtop"))
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = command(&[&server.address, "-f", "0.05", "-n", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(text.matches("req 2001  RPS 0").count(), 2, "{text}");
    assert_eq!(text.matches("LastSpwn").count(), 2, "{text}");
    assert!(text.is_ascii() && !text.contains('\u{1b}'), "{text}");

    let output = command(&[&nobody(), "-n", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot connect"));
}
