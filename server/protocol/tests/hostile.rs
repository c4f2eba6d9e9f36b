//! Every reader of this crate on bytes that nobody meant: any, and good ones with changes. None panics, none takes more
//! than it was given, and none reads a cut or divided input as something else than the whole.
//!
//! By hand, for hours: `PROPTEST_CASES=1000000 cargo test -p rwsgi-protocol --test hostile --release`.

use std::mem::MaybeUninit;

use proptest::prelude::*;
use rwsgi_protocol::date::HttpDate;
use rwsgi_protocol::http::{self, BodyLength, MAX_HEADERS, Refusal, Version};
use rwsgi_protocol::link::{Frame, Frames, Hello, Peer, RequestLengths};
use rwsgi_protocol::response::{Exchange, HeadWriter};
use rwsgi_protocol::{SocketProtocol, target, uwsgi};

const MAX_HEAD: usize = 1000;

const HEADS: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET /a/./b/%2e%2e/c?d=%00 HTTP/1.0\r\nConnection: keep-alive, close\r\nX-Latin: caf\xe9\r\n\r\n",
    b"POST http://example.com:80/x HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    b"PUT /caf\xc3\xa9 HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost:\r\nX: \t a \t b \t\r\nY:\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\nContent_Length: 5\r\n\r\n",
];

/// Bytes that readers disagree about.
const TOKENS: [&[u8]; 16] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\x80",
    b"%00",
    b"99999999999999999999",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b" HTTP/1.1\r\n",
];

/// What is done to good bytes: where, how many go, and what comes in their place.
#[derive(Clone, Debug)]
struct Change {
    at: prop::sample::Index,
    gone: usize,
    new: Vec<u8>,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let new = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(TOKENS.to_vec()).prop_map(<[u8]>::to_vec)
    ];
    let change = (any::<prop::sample::Index>(), prop_oneof![Just(0), Just(1), 0usize..20], new);
    prop::collection::vec(change.prop_map(|(at, gone, new)| Change { at, gone, new }), 0..5)
}

fn changed(good: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for Change { at, gone, new } in changes {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + gone);
        bytes.splice(at..end, new.iter().copied());
    }
    bytes
}

/// A head with all that it says, its parts owned.
#[derive(Clone, Debug, PartialEq)]
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
    Ok(http::parse(bytes, &mut headers, MAX_HEAD)?.map(|head| Seen {
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

/// The head that these parts are, written by the rules.
fn written(seen: &Seen) -> Vec<u8> {
    let mut bytes = format!("{} {} {}\r\n", seen.method, seen.target, seen.version.as_str()).into_bytes();
    for (name, value) in &seen.headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let good = prop::sample::select(HEADS.to_vec());
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        4 => (good, changes()).prop_map(|(good, changes)| changed(good, &changes)),
    ]
}

proptest! {
    #[test]
    fn a_head_that_is_taken_says_the_same_when_it_is_written_by_the_rules(bytes in heads()) {
        let Ok(Some(seen)) = read(&bytes) else { return Ok(()) };
        prop_assert!(seen.len <= bytes.len().min(MAX_HEAD));
        let again = written(&seen);
        prop_assert_eq!(read(&again), Ok(Some(Seen { len: again.len(), ..seen.clone() })));
        // Nothing of a name or a value can be taken for a line of its own.
        let lines = again.windows(2).filter(|two| two == b"\r\n").count();
        prop_assert_eq!(lines, seen.headers.len() + 2);
        prop_assert!(!again.contains(&0));
    }

    #[test]
    fn a_head_that_is_taken_is_taken_however_much_of_it_came_before(bytes in heads()) {
        let whole = read(&bytes);
        for end in 0..bytes.len() {
            match (read(&bytes[..end]), &whole) {
                (Ok(None), _) => {}
                (Ok(Some(seen)), _) => prop_assert_eq!(&Ok(Some(seen)), &whole),
                (Err(_), Ok(_)) => prop_assert!(false, "refused at {} and taken later", end),
                (Err(early), Err(late)) => prop_assert_eq!(early.status, late.status, "at {}", end),
            }
        }
    }

    #[test]
    fn a_target_that_is_taken_is_its_parts(bytes in heads()) {
        let Ok(Some(seen)) = read(&bytes) else { return Ok(()) };
        let parts = target::split(&seen.target);
        prop_assert!(parts.path == "*" || parts.path.starts_with('/'), "{}", parts.path);
        prop_assert!(!parts.path.contains(['?', '#', ' ']), "{}", parts.path);
        prop_assert!(seen.target.ends_with(parts.query));
        // One to the root may be left out behind a host.
        prop_assert!(seen.target.contains(parts.path) || (parts.path == "/" && parts.authority.is_some()));
        let authority = parts.authority.unwrap_or_default();
        prop_assert!(authority.len() + parts.path.len() + parts.query.len() <= seen.target.len() + 1);
    }

    #[test]
    fn a_packet_that_is_taken_is_the_same_when_it_is_written_again(
        vars in prop::collection::vec(
            (prop_oneof![Just(b"CONTENT_LENGTH".to_vec()), prop::collection::vec(any::<u8>(), 0..9)],
             prop::collection::vec(prop_oneof![any::<u8>(), b'0'..=b'9'], 0..9)), 0..6),
        changes in changes(),
    ) {
        let vars: Vec<_> = vars.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        let mut good = Vec::new();
        uwsgi::encode(&vars, &mut good).unwrap();
        let bytes = changed(&good, &changes);
        let whole = uwsgi::parse(&bytes, 4096);
        for end in 0..bytes.len() {
            match uwsgi::parse(&bytes[..end], 4096) {
                Ok(None) => {}
                early => prop_assert_eq!(early, whole, "at {}", end),
            }
        }
        let Ok(Some(packet)) = whole else { return Ok(()) };
        let read: Vec<_> = packet.vars().collect();
        let mut again = Vec::new();
        uwsgi::encode(&read, &mut again).unwrap();
        again[3] = bytes[3];
        prop_assert_eq!(&again[..], &bytes[..packet.len()]);
        if let Ok(length) = packet.content_length() {
            let said = read.iter().rfind(|(name, _)| name == b"CONTENT_LENGTH").map(|(_, value)| *value);
            let digits = std::str::from_utf8(said.unwrap_or_default()).unwrap().trim_start_matches('0');
            prop_assert_eq!(if length == 0 { String::new() } else { length.to_string() }, digits);
        }
    }

    #[test]
    fn any_bytes_on_a_link_are_read_the_same_however_they_are_divided(
        words in prop::collection::vec(
            prop_oneof![0u32..40, 0xffff_ff00u32..=0xffff_ffff, any::<u32>()].prop_map(u32::to_le_bytes), 1..6),
        data in prop::collection::vec(any::<u8>(), 0..60),
        changes in changes(),
        cuts in prop::collection::vec(1usize..30, 1..6),
    ) {
        let mut input = Vec::new();
        for (word, data) in words.iter().zip(data.chunks(7).chain(std::iter::repeat(&[][..]))) {
            input.extend_from_slice(word);
            input.extend_from_slice(data);
        }
        let input = changed(&input, &changes);
        prop_assert_eq!(frames(&input, &cuts), frames(&input, &[input.len().max(1)]));
    }

    #[test]
    fn any_beginning_of_a_link_is_a_hello_or_an_error(bytes in any::<[u8; Hello::LEN]>(), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic {
            let ours = Hello { worker: 1, thread: 0, slot: 0, token: [0; 16] }.encode();
            bytes[..4].copy_from_slice(&ours[..4]);
        }
        match Hello::decode(&bytes) {
            Ok(hello) => prop_assert_eq!(hello.encode(), bytes),
            Err(_) => prop_assert!(!magic),
        }
    }

    #[test]
    fn any_lengths_of_a_request_read_back(bytes in any::<[u8; RequestLengths::LEN]>()) {
        prop_assert_eq!(RequestLengths::decode(&bytes).encode(), bytes);
    }

    #[test]
    fn any_text_is_a_peer_or_an_error(text in prop::collection::vec(prop_oneof![any::<u8>(), Just(b' ')], 0..40)) {
        if let Ok(peer) = Peer::parse(&text) {
            let Peer { remote_addr, remote_port, server_addr, server_port } = peer;
            let again = [remote_addr, remote_port, server_addr, server_port].join(" ");
            prop_assert_eq!(again.as_bytes(), &text[..]);
        }
    }

    #[test]
    fn whatever_an_application_says_a_response_head_is_whole_and_has_its_lines_alone(
        status in prop_oneof![
            "[1-9][0-9]{2}( [ -~]{0,10})?".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..12)],
        headers in prop::collection::vec(
            (prop_oneof![
                "[A-Za-z-]{1,12}".prop_map(String::into_bytes),
                prop::sample::select(vec!["Content-Length", "connection", "Transfer-Encoding", "date"])
                    .prop_map(|name| name.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..6)],
             prop_oneof!["[0-9]{1,3}|close|[ -~]{0,12}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..8)]),
            0..8),
        is_1_1 in any::<bool>(), head_only in any::<bool>(), keep_alive in any::<bool>(), body in prop::option::of(0u64..9),
    ) {
        let Ok(mut head) = HeadWriter::new(&status, Vec::new()) else { return Ok(()) };
        let taken = headers.iter().filter(|(name, value)| head.header(name, value).is_ok()).count();
        let version = if is_1_1 { Version::Http11 } else { Version::Http10 };
        let exchange = Exchange { protocol: SocketProtocol::Http, version, head_only, keep_alive };
        let (_, out) = head.finish(exchange, body, &HttpDate::from_unix(0));
        prop_assert!(out.ends_with(b"\r\n\r\n"), "{}", out.escape_ascii());
        let lines: Vec<_> = out[..out.len() - 4].split(|&byte| byte == b'\n').collect();
        let all_but_last = &lines[..lines.len() - 1];
        prop_assert!(all_but_last.iter().all(|line| line.ends_with(b"\r")), "{}", out.escape_ascii());
        prop_assert_eq!(out.iter().filter(|&&byte| byte == b'\r').count(), lines.len() + 1);
        // The application's, and at most Date, Content-Length, Transfer-Encoding and Connection.
        prop_assert!(lines.len() <= 1 + taken + 4, "{}", out.escape_ascii());
        let named = |wanted: &[u8]| lines.iter().filter(|line| {
            line.split(|&byte| byte == b':').next().is_some_and(|name| name.eq_ignore_ascii_case(wanted))
        }).count();
        prop_assert!(named(b"content-length") + named(b"transfer-encoding") <= 1, "{}", out.escape_ascii());
        prop_assert!(named(b"connection") <= 1, "{}", out.escape_ascii());
    }
}

/// What a link brings, until it cannot be read any more: words in their order, with the data before each.
fn frames(input: &[u8], cuts: &[usize]) -> Vec<(Vec<u8>, String)> {
    let (mut found, mut data, mut decoder, mut at) = (Vec::new(), Vec::new(), Frames::default(), 0);
    let mut cuts = cuts.iter().cycle();
    while at < input.len() {
        let end = input.len().min(at + cuts.next().expect("cuts"));
        while at < end {
            match decoder.decode(&input[at..end]) {
                Ok((consumed, frame)) => {
                    assert!(consumed <= end - at);
                    at += consumed;
                    match frame {
                        Frame::Data(bytes) => data.extend_from_slice(bytes),
                        Frame::More => assert_eq!(at, end),
                        word => found.push((std::mem::take(&mut data), format!("{word:?}"))),
                    }
                }
                Err(error) => {
                    found.push((data, error.to_string()));
                    return found;
                }
            }
        }
    }
    found.push((data, "the end".into()));
    found
}
