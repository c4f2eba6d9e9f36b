//! Lines on their way.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::*;
use rwsgi_config::{EncoderKind, LogRoute, LogTarget, Logger};

#[derive(Default)]
struct Kept(Vec<u8>);

impl Fallback for Kept {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn tell(&mut self, (_, text): Remark) {
        self.write(format!("{text}\n").as_bytes());
    }
}

fn file(name: Option<&str>, path: &Path) -> Logger {
    let file = rwsgi_config::LogFile { path: path.to_owned(), ..rwsgi_config::LogFile::default() };
    Logger { name: name.map(Into::into), target: LogTarget::File(file) }
}

fn socket(path: &Path) -> Logger {
    let target = LogTarget::Socket { address: path.display().to_string(), prefix: "p:".into() };
    Logger { name: None, target }
}

fn open(logs: &LogsConfig) -> Loggers {
    let mut remarks = Vec::new();
    let loggers = Loggers::open(logs, &FileRules::default(), None, &mut remarks);
    assert!(remarks.is_empty(), "{remarks:?}");
    loggers
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_line_goes_where_its_route_says_and_else_to_all_without_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let [all, more, named] = ["all", "more", "named"].map(|name| directory.path().join(name));
    let mut logs = LogsConfig::default();
    logs.general.loggers = vec![file(None, &all), file(None, &more), file(Some("x"), &named)];
    logs.general.routes = vec![LogRoute { logger: "x".into(), pattern: "ERR[0-9]".into() }];
    logs.drain = vec!["secret".into()];
    logs.general.encoders = vec![LogEncoder { kind: EncoderKind::Prefix("> ".into()), logger: Some("x".into()) }];
    let mut loggers = open(&logs);
    let mut kept = Kept::default();
    loggers.take(LineKind::General, b"one\nERR5 tw", &mut kept);
    loggers.take(LineKind::General, b"o\na secret\nERRx\nrest", &mut kept);
    assert!(loggers.has_rest());
    loggers.flush(&mut kept);
    assert!(!loggers.has_rest());
    assert_eq!(text(&all), "one\nERRx\nrest");
    assert_eq!(text(&all), text(&more));
    assert_eq!(text(&named), "> ERR5 two\n");
    assert_eq!(kept.0, b"");
}

#[test]
fn without_a_logger_lines_are_encoded_and_go_to_the_log() {
    let logs = LogsConfig {
        filter: vec!["keep".into()],
        general: LogStream {
            encoders: vec![LogEncoder { kind: EncoderKind::Suffix("!".into()), logger: None }],
            ..LogStream::default()
        },
        ..LogsConfig::default()
    };
    let mut kept = Kept::default();
    open(&logs).take(LineKind::General, b"keep me\ngo away\n", &mut kept);
    assert_eq!(kept.0, b"keep me\n!");
}

#[test]
fn a_route_of_requests_may_name_a_logger_of_either_kind() {
    let directory = tempfile::tempdir().unwrap();
    let [general, own] = ["general", "own"].map(|name| directory.path().join(name));
    let mut logs = LogsConfig::default();
    logs.general.loggers = vec![file(Some("g"), &general)];
    logs.requests.loggers = vec![file(Some("o"), &own)];
    let route = |logger: &str, pattern: &str| LogRoute { logger: logger.into(), pattern: pattern.into() };
    logs.requests.routes = vec![route("g", " 500$"), route("o", " 404$")];
    let mut loggers = open(&logs);
    let mut kept = Kept::default();
    // `$` is the end of the line, as in PCRE.
    loggers.take(LineKind::Request, b"a 500\nb 404\nc 200\n", &mut kept);
    assert_eq!((text(&general), text(&own)), ("a 500\n".into(), "b 404\n".into()));
    assert_eq!(kept.0, b"c 200\n");
}

#[test]
fn what_a_socket_does_not_take_is_logged_and_it_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let logs = LogsConfig {
        general: LogStream { loggers: vec![socket(&path)], ..LogStream::default() },
        ..LogsConfig::default()
    };
    let mut remarks = Vec::new();
    let mut loggers = Loggers::open(&logs, &FileRules::default(), None, &mut remarks);
    assert_eq!(remarks.len(), 1, "nobody is there yet");
    let mut kept = Kept::default();
    loggers.take(LineKind::General, b"early\n", &mut kept);
    assert!(String::from_utf8_lossy(&kept.0).contains("early\n"));
    let listener = UnixDatagram::bind(&path).unwrap();
    std::thread::sleep(datagram::RETRY);
    kept.0.clear();
    loggers.take(LineKind::General, b"heard\n", &mut kept);
    let mut bytes = [0; 64];
    let length = listener.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"p:heard\n");
    // It is there, and takes nothing: no line is lost, and none waits.
    let begun = std::time::Instant::now();
    for _ in 0..2_000 {
        loggers.take(LineKind::General, b"and more\n", &mut kept);
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    let logged = String::from_utf8_lossy(&kept.0).matches("and more\n").count();
    listener.set_nonblocking(true).unwrap();
    let sent = std::iter::from_fn(|| listener.recv(&mut bytes).ok()).count();
    assert!(logged > 0 && sent > 0);
    assert_eq!(logged + sent, 2_000);
}

#[test]
fn what_is_no_file_on_a_disk_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/dev/stderr", &link).unwrap();
    for path in [&pipe, &link] {
        let about = rwsgi_config::LogFile { path: path.clone(), max_size: 1, backup: None };
        let mut file = LogFile::open("logger", &about, &FileRules::default(), None).unwrap();
        assert!(file.is_descriptor() == (path == &link));
        file.rotate("touch-logrotate");
        file.reopen();
    }
    let mut names: Vec<_> = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["link", "pipe"]);
}
