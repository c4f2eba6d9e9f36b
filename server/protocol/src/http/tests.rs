use super::*;
use proptest::prelude::*;

const MAX: usize = 4096;

/// What a test wants to know of a head; it owns its parts.
#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    version: Version,
    headers: Vec<(String, Vec<u8>)>,
    body: BodyLength,
    keep_alive: bool,
    expect_continue: bool,
    len: usize,
}

fn read(bytes: &[u8]) -> Result<Option<Seen>, Refusal> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    Ok(parse(bytes, &mut headers, MAX)?.map(|head| Seen {
        method: head.method.into(),
        target: head.target.into(),
        version: head.version,
        headers: head.headers.iter().map(|header| (header.name.into(), header.value.into())).collect(),
        body: head.body,
        keep_alive: head.keep_alive,
        expect_continue: head.expect_continue,
        len: head.len,
    }))
}

fn complete(bytes: &[u8]) -> Seen {
    match read(bytes) {
        Ok(Some(seen)) => seen,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// A request whose header lines, `Host` before them, are given.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn status(bytes: &[u8]) -> u16 {
    match read(bytes) {
        Err(refusal) => refusal.status,
        other => panic!("{} was not refused: {other:?}", bytes.escape_ascii()),
    }
}

#[test]
fn a_head_is_taken_apart() {
    let bytes = b"\r\nPOST /a?b HTTP/1.1\r\nHost: example.com:80\r\nX-A: \t caf\xe9, b \t\r\nEmpty:\r\ncontent-length: 12\r\n\r\nbody";
    assert_eq!(
        complete(bytes),
        Seen {
            method: "POST".into(),
            target: "/a?b".into(),
            version: Version::Http11,
            headers: vec![
                ("Host".into(), b"example.com:80".to_vec()),
                ("X-A".into(), b"caf\xe9, b".to_vec()),
                ("Empty".into(), b"".to_vec()),
                ("content-length".into(), b"12".to_vec()),
            ],
            body: BodyLength::Length(12),
            keep_alive: true,
            expect_continue: false,
            len: bytes.len() - 4,
        }
    );
}

#[test]
fn an_incomplete_head_asks_for_more() {
    let bytes = b"\r\n\r\nGET / HTTP/1.0\r\nA: b\r\n\r\n";
    for end in 0..bytes.len() {
        assert_eq!(read(&bytes[..end]), Ok(None), "{end}");
        assert!(!may_be_complete(&bytes[4..end.max(4)], 0), "{end}");
    }
    for seen in 0..bytes.len() {
        assert!(may_be_complete(bytes, seen), "{seen}");
    }
}

#[test]
fn a_body_is_framed_by_one_header_alone() {
    for (lines, body) in [
        ("", BodyLength::None),
        ("Content-Length: 0\r\n", BodyLength::Length(0)),
        ("Content-Length: 0042\r\n", BodyLength::Length(42)),
        ("Content-Length: 18446744073709551615\r\n", BodyLength::Length(u64::MAX)),
        ("transfer-encoding: Chunked\r\n", BodyLength::Chunked),
        ("Content_Length: 5\r\n", BodyLength::None),
    ] {
        assert_eq!(complete(&with(lines)).body, body, "{lines:?}");
    }
    for (lines, expected) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: 5 5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: -5\r\n", 400),
        ("Content-Length: 0x5\r\n", 400),
        ("Content-Length: 5_0\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length: 99999999999999999999999999\r\n", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        ("Transfer-Encoding: chunked;a=b\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: \x0bchunked\r\n", 400),
        ("Transfer-Encoding:\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 501),
    ] {
        assert_eq!(status(&with(lines)), expected, "{lines:?}");
    }
    assert_eq!(status(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn lines_that_two_readers_could_split_differently_are_refused() {
    for bytes in [
        // White space before the colon; folding; a line that begins with white space.
        &b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\tc\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        // Bare CR.
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\rb\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        // Bare LF, in each place that httparse lets it pass.
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \t \nY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.0\n\r\n",
        b"GET / HTTP/1.0\r\n\n",
        b"GET / HTTP/1.0\n\n",
        // NUL and other controls.
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x0bc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
        // Names.
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n",
        // The request line.
        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        assert_eq!(status(bytes), 400, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_host_is_wanted_once() {
    assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET http://a/ HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
    assert_eq!(complete(b"GET / HTTP/1.0\r\n\r\n").headers, []);
    assert_eq!(complete(b"GET / HTTP/1.1\r\nHost:\r\n\r\n").len, 25);
}

#[test]
fn other_versions_are_told_which_are_spoken() {
    for (version, expected) in [
        ("HTTP/2.0", 505),
        ("HTTP/0.9", 505),
        ("HTTP/1.2", 505),
        ("HTTP/1.99", 505),
        ("HTTP/3.0", 505),
        ("http/1.1", 400),
        ("HTTP/1.", 400),
        ("HTTP/11", 400),
        ("HTTP/1.10", 400),
        ("HTCPCP/1.0", 400),
    ] {
        assert_eq!(status(format!("GET / {version}\r\nHost: a\r\n\r\n").as_bytes()), expected, "{version}");
    }
    assert_eq!(status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(status(b"PRI * HTTP/2"), 505);
    // Whether or not the line has ended.
    assert_eq!(status(b"GET / HTTP/1.9"), 505);
}

#[test]
fn targets_are_checked_with_the_head() {
    assert_eq!(status(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
    assert_eq!(status(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(complete(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    assert_eq!(complete("GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes()).target, "/caf\u{e9}");
}

#[test]
fn the_connections_fate_follows_version_and_wish() {
    for (version, lines, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Upgrade , Close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(complete(bytes.as_bytes()).keep_alive, keep_alive, "{bytes:?}");
    }
}

#[test]
fn an_expectation_needs_a_body_and_http_1_1() {
    assert!(complete(&with("Expect: 100-Continue\r\nContent-Length: 1\r\n")).expect_continue);
    assert!(complete(&with("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n")).expect_continue);
    assert!(!complete(&with("Expect: 100-continue\r\nContent-Length: 0\r\n")).expect_continue);
    assert!(!complete(&with("Expect: 100-continue\r\n")).expect_continue);
    assert!(!complete(b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").expect_continue);
    assert_eq!(status(&with("Expect: gold\r\n")), 417);
}

#[test]
fn what_comes_behind_the_longest_head_has_no_say_in_the_answer() {
    for (end, status) in [("x".repeat(1000) + "\r\nbad name: b", 431), ("\r\nbad name: b".into(), 400)] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {end}\r\n\r\n");
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        assert_eq!(parse(head.as_bytes(), &mut headers, 500).map_err(|refusal| refusal.status).unwrap_err(), status);
    }
}

#[test]
fn what_is_too_long_is_refused_as_soon_as_that_is_known() {
    let long = "x".repeat(MAX);
    assert_eq!(status(format!("GET /{long}").as_bytes()), 414);
    assert_eq!(status(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), 414);
    assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}").as_bytes()), 431);
    assert_eq!(status(&with(&format!("X: {long}\r\n"))), 431);
    let fits = with(&format!("X: {}\r\n", "x".repeat(MAX - with("X: \r\n").len())));
    assert_eq!(complete(&fits).len, MAX);
    assert_eq!(complete(&with(&"A: b\r\n".repeat(MAX_HEADERS - 1))).headers.len(), MAX_HEADERS);
    assert_eq!(status(&with(&"A: b\r\n".repeat(MAX_HEADERS))), 431);
}

proptest! {
    #[test]
    fn what_is_written_by_the_rules_is_read(
        method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,10}",
        path in "/[!-\"$&-~\u{e9}]{0,40}",
        headers in prop::collection::vec(("x[!#$%&'*+.^_`|~0-9A-Za-z-]{0,20}", "([!-~]([ -~]{0,30}[!-~])?)?"), 0..20),
        after in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        prop_assume!(method != "CONNECT");
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for (name, value) in &headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        let len = bytes.len();
        for end in 0..len {
            prop_assert_eq!(read(&bytes[..end]), Ok(None));
        }
        bytes.extend_from_slice(&after);
        let seen = complete(&bytes);
        prop_assert_eq!((seen.method, seen.target, seen.len), (method, path, len));
        let expected: Vec<_> = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        prop_assert_eq!(&seen.headers[1..], expected);
    }

    #[test]
    fn a_refusal_stays_one_whatever_follows_and_a_head_ends_where_it_ended(
        bytes in "(GET|POST|[A-Z @]{0,4}) ?[/*a#%0]{0,4} ?(HTTP/1.1|HTTP/1.0|[A-Z/.0-9]{0,8})(\r\n|\n|\r)\
                  ((Host|Content-Length|Transfer-Encoding|X)( ?: ?)(a|5|chunked|\t|\0)(\r\n|\n|\r|\r\n )){0,4}(\r\n|\n)?",
        after in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let bytes = bytes.as_bytes();
        let longer = [bytes, &after].concat();
        match read(bytes) {
            Ok(Some(seen)) => {
                prop_assert!(bytes[..seen.len].ends_with(b"\r\n\r\n") && may_be_complete(bytes, 0));
                prop_assert!(!bytes[..seen.len].windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r'));
                prop_assert_eq!(read(&longer), Ok(Some(seen)));
            }
            Err(refusal) => prop_assert_eq!(read(&longer).map_err(|refusal| refusal.status), Err(refusal.status)),
            Ok(None) => {}
        }
    }
}
