//! Whole lines.

use std::mem::MaybeUninit;

use super::format::JSON;
use super::variables::NAMED;
use super::*;
use rwsgi_config::AccessFormat;
use rwsgi_protocol::http::{self, HeaderBuf};
use rwsgi_protocol::link::Peer;

const HEAD: &[u8] = b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a \"b\"\\\xc2\x9b\r\nX-Trace: t1\r\n\
    X-Forwarded-For: 198.51.100.9\r\n\r\n";

fn logged(config: &Config, method: &[u8], notes: Option<&Notes>) -> String {
    let mut headers: HeaderBuf<'_> = [const { MaybeUninit::uninit() }; http::MAX_HEADERS];
    let head = http::parse(HEAD, &mut headers, HEAD.len()).unwrap().unwrap();
    let peer = Peer::parse("10.0.0.1 4711 10.0.0.2 80").unwrap();
    let request = Incoming::Http { head: &head, peer, body_len: Some(7) };
    let mut log = AccessLog::new(config, 2, 1, None);
    log.add(
        &Entry {
            request: &request,
            client: b"10.0.0.1",
            method,
            uri: head.target.as_bytes(),
            protocol: b"HTTP/1.1",
            status: 404,
            bytes: 1234,
            took: 5_678_900,
            sent: Sent { body: 1000, head: 234, headers: 3, by_file: false },
            client_gone: false,
            body_broken: false,
            traced: None,
        },
        notes,
    );
    let line = String::from_utf8(std::mem::take(&mut log.lines)).unwrap();
    assert!(line.lines().count() <= 1 && (line.is_empty() || line.ends_with('\n')), "{line:?}");
    line.trim_end_matches('\n').to_owned()
}

fn with(format: AccessFormat) -> Config {
    let mut config = Config::default();
    config.logs.format = format;
    config
}

fn pattern(text: &str) -> Config {
    with(AccessFormat::Pattern(text.into()))
}

fn noted() -> Notes {
    Notes { variables: vec![(b"user".to_vec(), b"a\"b".to_vec())], ..Notes::default() }
}

#[test]
fn our_line_has_every_field_and_no_client_can_end_it_early() {
    let config = Config { memory_report: true, ..Config::default() };
    let line = logged(&config, b"GET\n\"x", Some(&noted()));
    assert!(
        line.contains("Z worker 2 thread 1 10.0.0.1 \"GET\\n%22x /a%20b?c=d HTTP/1.1\" 404 1234 bytes 5.678 ms rss "),
        "{line}"
    );
    assert!(line.ends_with(" user=\"a%22b\""), "{line}");
    let mut config = Config::default();
    config.logs.micros = true;
    config.logs.x_forwarded_for = true;
    let line = logged(&config, b"GET", None);
    assert!(line.contains(" 198.51.100.9 \"GET ") && line.ends_with(" 5678 micros"), "{line}");
}

#[test]
fn variables_are_those_of_uwsgi() {
    for (format, expected) in [
        ("%(addr) %(user) %(method) %(uri) %(proto)", "10.0.0.1 - GET /a%20b?c=d HTTP/1.1"),
        ("%(host) %(referer) \"%(uagent)\"", "example.org - \"a %22b%22\\\\u{9b}\""),
        ("%(status) %(rsize) %(hsize) %(size) %(cl) %(headers)", "404 1000 234 1234 7 3"),
        ("%(micros) %(msecs) %(secs)", "5678 5 0.005678"),
        ("%(wid) %(core) %(switches) %(modifier1) %(modifier2)", "2 1 1 0 0"),
        ("%(werr) %(rerr) %(ioerr) %(metric.none)", "0 0 0 0"),
        ("%(var.HTTP_X_TRACE) %(var.PATH_INFO) %(var.QUERY_STRING) %(var.NONE)", "t1 /a b c=d -"),
        ("%(var.CONTENT_LENGTH) %(var.REMOTE_PORT) %(user_id) %(mine)", "7 4711 - -"),
        // Nine, and four headers: names and values.
        ("%(vars)", "26"),
    ] {
        assert_eq!(logged(&pattern(format), b"GET", None), expected, "{format}");
    }
    assert_eq!(logged(&pattern("%(user) %(mine)"), b"GET", Some(&noted())), "- -");
    let mine = Notes { variables: vec![(b"mine".to_vec(), b"yes".to_vec())], ..Notes::default() };
    assert_eq!(logged(&pattern("%(mine)"), b"GET", Some(&mine)), "yes");
    let numbers = logged(&pattern("%(time) %(tmsecs) %(tmicros) %(epoch) %(pid) %(rss) %(vsz)"), b"GET", None);
    assert!(numbers.split(' ').all(|number| number.parse::<u64>().is_ok_and(|number| number > 0)), "{numbers}");
}

#[test]
fn a_format_that_looks_like_json_stays_json() {
    let line = logged(&pattern("{\"agent\": \"%(uagent)\", \"n\": %(status)}"), b"GET", None);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["agent"], "a \"b\"\\\u{9b}");
}

#[test]
fn the_json_line_has_its_documented_keys_in_order() {
    let line = logged(&with(AccessFormat::Json), b"GET", Some(&noted()));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = JSON.iter().map(|(key, _)| *key).chain(["vars"]).collect();
    let order: Vec<usize> = expected.iter().map(|key| line.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(order.is_sorted(), "{line}");
    expected.sort_unstable();
    let mut found = keys;
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(value["status"], 404);
    assert_eq!(value["referer"], serde_json::Value::Null);
    assert_eq!(value["vars"]["user"], "a\"b");
    assert_eq!(value["duration_us"], 5678);
    assert!(!logged(&with(AccessFormat::Json), b"GET", None).contains("vars"));
}

#[test]
fn the_other_formats_are_what_parsers_of_them_expect() {
    let combined = logged(&with(AccessFormat::Combined), b"GET", None);
    assert!(combined.starts_with("10.0.0.1 - - ["), "{combined}");
    assert!(combined.ends_with("] \"GET /a%20b?c=d HTTP/1.1\" 404 1000 \"-\" \"a %22b%22\\\\u{9b}\""), "{combined}");
    let logfmt = logged(&with(AccessFormat::Logfmt), b"GET", Some(&noted()));
    assert!(logfmt.contains(" client=10.0.0.1 user=- method=GET uri=\"/a%20b?c=d\" "), "{logfmt}");
    assert!(logfmt.ends_with(" duration_us=5678 user=\"a\\\"b\""), "{logfmt}");
    let uwsgi = logged(&with(AccessFormat::Uwsgi), b"GET", None);
    assert!(uwsgi.contains("] 10.0.0.1 () {26 vars in "), "{uwsgi}");
    let end = "] GET /a%20b?c=d => generated 1000 bytes in 5 msecs (HTTP/1.1 404) 3 headers in 234 bytes (1 switches on core 1)";
    assert!(uwsgi.ends_with(end), "{uwsgi}");
}

#[test]
fn with_logging_disabled_only_what_was_asked_for_is_logged() {
    let mut config = Config { disable_logging: true, ..pattern("line") };
    for (set, is_logged) in [
        (LogOnly { client_errors: true, ..LogOnly::default() }, true),
        (LogOnly { server_errors: true, ..LogOnly::default() }, false),
        (LogOnly { slow: Some(5), ..LogOnly::default() }, true),
        (LogOnly { slow: Some(6), ..LogOnly::default() }, false),
        (LogOnly { big: 1000, ..LogOnly::default() }, true),
        (LogOnly { big: 1001, ..LogOnly::default() }, false),
        (LogOnly { zero: true, sendfile: true, io_errors: true, ..LogOnly::default() }, false),
    ] {
        config.logs.only = set;
        assert_eq!(logged(&config, b"GET", None) == "line", is_logged, "{set:?}");
    }
    let notes = |line| Notes { line, ..Notes::default() };
    assert_eq!(logged(&config, b"GET", Some(&notes(LineChoice::Logged))), "line");
    assert_eq!(logged(&pattern("line"), b"GET", Some(&notes(LineChoice::NotLogged))), "");
}

#[test]
fn times_are_utc() {
    let mut text = Vec::new();
    write_utc(&mut text, 951_827_696);
    assert_eq!(text, b"2000-02-29T12:34:56");
}

#[test]
fn the_table_of_variables_in_the_documentation_is_current() {
    use std::fmt::Write as _;
    let mut table = String::from("| variable | value |\n| --- | --- |\n");
    for (name, _, meaning) in NAMED {
        let _ = writeln!(table, "| `%({name})` | {meaning} |");
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/logging.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("RWSGI_WRITE_DOCS").is_some() && !page.contains(&table) {
        let (before, rest) = page.split_once("| variable | value |").unwrap();
        let after = rest.split_once("\n\n").unwrap().1;
        std::fs::write(&path, format!("{before}{table}\n{after}")).unwrap();
    } else {
        assert!(page.contains(&table), "docs/logging.md has another table than this:\n{table}");
    }
}
