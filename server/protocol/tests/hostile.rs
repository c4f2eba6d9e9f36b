//! Every reader of this crate on bytes that nobody meant: any, and good ones with changes. None panics, none takes more
//! than it was given, and none reads a cut or divided input as something else than the whole.
//!
//! By hand, for hours: `PROPTEST_CASES=1000000 cargo test -p rwsgi-protocol --test hostile --release`.

use std::mem::MaybeUninit;

use proptest::prelude::*;
use rwsgi_protocol::conditional::{Conditions, Selected, Stored};
use rwsgi_protocol::date::HttpDate;
use rwsgi_protocol::http::{self, BodyLength, MAX_HEADERS, Refusal, Version};
use rwsgi_protocol::link::{Frame, Frames, Hello, Peer, Purpose, RequestLengths};
use rwsgi_protocol::path::{self, PathNormalize};
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
            let ours = Hello { purpose: Purpose::Serve, worker: 1, thread: 0, slot: 0, token: [0; 16] }.encode();
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
    fn any_text_is_a_peer_or_an_error(text in prop::collection::vec(prop_oneof![any::<char>(), Just(' ')], 0..40)) {
        let text = String::from_iter(text);
        if let Ok(peer) = Peer::parse(&text) {
            let Peer { remote_addr, remote_port, server_addr, server_port, tls } = peer;
            let mut again = [remote_addr, remote_port, server_addr, server_port].join(" ");
            again.extend(tls.map(|tls| tls.text()));
            prop_assert_eq!(again, text);
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

/// The headers of a conditional request, or of one for a part, each with good values for a file whose tag is `tag` and
/// whose time is `date`.
const FIELDS: [&[&[u8]]; 6] = [
    &[b"TAG", b"*", b"W/TAG", b"\"a\", , TAG"],
    &[b"DATE", b"Sunday, 06-Nov-94 08:49:37 GMT"],
    &[b"TAG", b"*", b"W/TAG, \"a,\\\"", b",TAG,"],
    &[b"DATE", b"Sun Nov  6 08:49:37 1994"],
    &[
        b"bytes=0-",
        b"bytes=-5",
        b"bytes=2-7",
        b"bytes=2-7, 9-",
        b"bytes=00000000000000000000000007-18446744073709551616",
    ],
    &[b"TAG", b"DATE", b"W/TAG"],
];

fn fields() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let field = |good: &'static [&[u8]]| {
        let good = (prop::sample::select(good), changes());
        prop::option::of(prop_oneof![
            1 => prop::collection::vec(any::<u8>(), 0..40),
            4 => good.prop_map(|(good, changes)| changed(good, &changes)),
        ])
    };
    FIELDS.map(field).to_vec()
}

/// With `TAG` and `DATE` as they are of a file.
fn filled(field: &[u8], tag: &str, date: &HttpDate) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = field;
    while let Some(first) = rest.first() {
        let [word, value] = match rest {
            [b'T', b'A', b'G', ..] => [&b"TAG"[..], tag.as_bytes()],
            [b'D', b'A', b'T', b'E', ..] => [&b"DATE"[..], date.as_bytes()],
            _ => [std::slice::from_ref(first); 2],
        };
        filled.extend_from_slice(value);
        rest = &rest[word.len()..];
    }
    filled
}

proptest! {
    #[test]
    fn whatever_the_conditions_say_a_part_is_there_and_each_answer_has_its_reason(
        fields in fields(), size in prop_oneof![0u64..20, any::<u64>()], nanos in 0u32..3, now in 784_111_776u64..784_111_780,
    ) {
        // As the dates among the good values.
        let stored = Stored { size, modified: 784_111_777, nanos };
        let (tag, date) = (stored.entity_tag(), HttpDate::from_unix(784_111_777));
        let fields: Vec<_> = fields.iter().map(|field| field.as_ref().map(|field| filled(field, &tag, &date))).collect();
        let [if_match, if_unmodified_since, if_none_match, if_modified_since, range, if_range] =
            [0, 1, 2, 3, 4, 5].map(|at: usize| fields[at].as_deref());
        let all = Conditions { if_match, if_unmodified_since, if_none_match, if_modified_since, range, if_range };
        let selected = stored.select(&tag, &all, now);
        // Decided by these alone.
        let alone = |conditions: Conditions<'_>| stored.select(&tag, &conditions, now);
        let precondition = alone(Conditions { range: None, if_none_match: None, if_modified_since: None, ..all });
        let cached = alone(Conditions { range: None, if_match: None, if_unmodified_since: None, ..all });
        let part = alone(Conditions { range, if_range, ..Conditions::default() });
        let expected = match (precondition, cached) {
            (Selected::Whole, Selected::Whole) => part,
            (Selected::Whole, cached) => cached,
            (precondition, _) => precondition,
        };
        prop_assert_eq!(selected, expected);
        match selected {
            Selected::Whole => {}
            Selected::Part { first, len } => {
                prop_assert!(len > 0 && first.checked_add(len).is_some_and(|end| end <= size));
                // Never because of a validator that is another's, or a weak one.
                if let Some(validator) = if_range {
                    prop_assert!(validator == tag.as_bytes() || validator == date.as_bytes());
                }
            }
            Selected::Unsatisfiable => prop_assert!(range.is_some()),
            Selected::NotModified => prop_assert!(if_none_match.or(if_modified_since).is_some()),
            Selected::PreconditionFailed => prop_assert!(if_match.or(if_unmodified_since).is_some()),
        }
        // An entity tag in the list has its say wherever it stands (sections 13.1.1 and 13.1.2).
        let listed = |list: &[u8]| list == tag.as_bytes() || list == b"*";
        if let Some(list) = if_match && listed(list) {
            prop_assert_ne!(precondition, Selected::PreconditionFailed);
        }
        if let Some(list) = if_none_match && listed(list) {
            prop_assert_eq!(cached, Selected::NotModified);
        }
    }

    #[test]
    fn a_range_that_is_taken_names_the_same_bytes_however_it_is_written(
        changes in changes(), good in prop::sample::select(FIELDS[4]), size in 0u64..20,
    ) {
        let stored = Stored { size, modified: 0, nanos: 0 };
        let bytes = changed(good, &changes);
        let select = |range: &[u8]| stored.select("\"a\"", &Conditions { range: Some(range), ..Conditions::default() }, 1);
        let Selected::Part { first, len } = select(&bytes) else { return Ok(()) };
        prop_assert!(len > 0 && first + len <= size);
        for again in [format!("bytes={first}-{}", first + len - 1), format!("bytes=0{first}-0{}", first + len - 1)] {
            prop_assert_eq!(select(again.as_bytes()), Selected::Part { first, len });
        }
        // What is taken is a unit, digits and a hyphen.
        let set = bytes[b"bytes=".len()..].trim_ascii();
        prop_assert!(set.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-'), "{}", bytes.escape_ascii());
    }

    #[test]
    fn a_path_that_is_served_has_no_step_that_was_to_go_and_stays_as_it_is(
        good in prop::sample::select(vec![
            &b"/"[..], b"*", b"/a/b.c", b"/a/./b/../c//d/", b"/x/%2e%2e/..%2fadmin", b"/a%00b%5c..%5cc", b"/caf%C3%A9/%",
        ]),
        changes in changes(), any_bytes in prop::collection::vec(any::<u8>(), 0..40), is_any in any::<bool>(),
    ) {
        let path = if is_any { any_bytes } else { changed(good, &changes) };
        let steps = |path: &[u8]| path.split(|&byte| byte == b'/').any(|segment| matches!(segment, b"." | b".."));
        let empty = |path: &[u8]| path.windows(2).any(|two| two == b"//");
        let mut bufs: [Vec<u8>; 4] = Default::default();
        let [kept, decoded, normalised, again] = &mut bufs;
        let kept = path::of_target(PathNormalize::Keep, &path, kept).expect("nothing is refused");
        prop_assert!(kept.len() <= path.len());
        prop_assert_eq!(kept, path::decode(&path, decoded));
        for how in [PathNormalize::Nginx, PathNormalize::Reject] {
            if let Ok(text) = std::str::from_utf8(&path) {
                // A target that is a path alone.
                let is_path = text.starts_with('/') && !text.contains(['?', '#']);
                let served = path::of_target(how, &path, normalised);
                prop_assert!(!is_path || path::check(how, text).is_ok() == served.is_ok(), "{}", text);
            }
            for of_packet in [false, true] {
                let read = if of_packet { path::of_packet } else { path::of_target };
                let Ok(served) = read(how, &path, normalised) else { continue };
                prop_assert!(!steps(served) && !empty(served) && !served.contains(&0), "{}", served.escape_ascii());
                prop_assert!(served.len() <= path.len());
                prop_assert!(how == PathNormalize::Nginx || !served.contains(&b'\\'), "{}", served.escape_ascii());
                prop_assert_eq!(path::of_packet(how, served, again), Ok(served));
            }
        }
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
