//! What reading a request and writing a response head cost, without sockets and Python:
//! `cargo bench -p rwsgi --bench protocol`.

#![allow(clippy::unwrap_used, reason = "a measurement may fail")]

use std::mem::MaybeUninit;

use divan::{Bencher, black_box, counter::BytesCount};
use rwsgi_protocol::SocketProtocol;
use rwsgi_protocol::chunked::{ChunkHead, Decoder, LAST_CHUNK};
use rwsgi_protocol::date::HttpDate;
use rwsgi_protocol::http::{self, MAX_HEADERS, Version};
use rwsgi_protocol::link::{DONE_KEEP, Frames};
use rwsgi_protocol::path::{self, PathNormalize};
use rwsgi_protocol::response::{Exchange, HeadWriter};
use rwsgi_protocol::uwsgi;

fn main() {
    divan::main();
}

/// What wrk sends.
const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// What a browser sends.
const BROWSER: &[u8] = b"GET /account/orders?page=2&sort=date HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/account\r\n\
    Connection: keep-alive\r\n\
    Cookie: sessionid=qy1n2m3b4v5c6x7z8l9k0jhgfdsapoiu; csrftoken=wertyuiopasdfghjklzxcvbnm1234567\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Priority: u=0, i\r\n\r\n";

#[divan::bench(args = ["wrk", "browser"])]
fn http_head(bencher: Bencher<'_, '_>, client: &str) {
    let bytes = if client == "wrk" { SMALL } else { BROWSER };
    bencher.counter(BytesCount::of_slice(bytes)).bench(|| {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        black_box(http::parse(black_box(bytes), &mut headers, 65_536).unwrap().unwrap().len)
    });
}

#[divan::bench(args = ["/static/app.js", "/caf%C3%A9/../menu%20card"])]
fn path(bencher: Bencher<'_, '_>, path: &str) {
    let mut buf = Vec::new();
    bencher.bench_local(|| path::of_target(PathNormalize::Keep, black_box(path.as_bytes()), &mut buf).unwrap().len());
}

#[divan::bench]
fn uwsgi_packet(bencher: Bencher<'_, '_>) {
    let vars: [(&[u8], &[u8]); 16] = [
        (b"QUERY_STRING", b"page=2&sort=date"),
        (b"REQUEST_METHOD", b"GET"),
        (b"CONTENT_TYPE", b""),
        (b"CONTENT_LENGTH", b""),
        (b"REQUEST_URI", b"/account/orders?page=2&sort=date"),
        (b"PATH_INFO", b"/account/orders"),
        (b"DOCUMENT_ROOT", b"/usr/share/nginx/html"),
        (b"SERVER_PROTOCOL", b"HTTP/1.1"),
        (b"REQUEST_SCHEME", b"https"),
        (b"REMOTE_ADDR", b"192.0.2.7"),
        (b"REMOTE_PORT", b"51234"),
        (b"SERVER_PORT", b"443"),
        (b"SERVER_NAME", b"shop.example.com"),
        (b"HTTP_HOST", b"shop.example.com"),
        (b"HTTP_ACCEPT", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (b"HTTP_COOKIE", b"sessionid=qy1n2m3b4v5c6x7z8l9k0jhgfdsapoiu"),
    ];
    let mut bytes = Vec::new();
    uwsgi::encode(&vars, &mut bytes).unwrap();
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let packet = uwsgi::parse(black_box(&bytes), 65_535).unwrap().unwrap();
        packet.vars().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    });
}

#[divan::bench]
fn response_head(bencher: Bencher<'_, '_>) {
    let exchange =
        Exchange { protocol: SocketProtocol::Http, version: Version::Http11, head_only: false, keep_alive: true };
    let date = HttpDate::from_unix(1_800_000_000);
    let mut buf = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        buf.clear();
        let mut head = HeadWriter::new(black_box(b"200 OK"), std::mem::take(&mut buf)).unwrap();
        head.header(black_box(b"Content-Type"), b"text/html; charset=utf-8").unwrap();
        head.header(black_box(b"Vary"), b"Cookie").unwrap();
        head.header(black_box(b"X-Frame-Options"), b"DENY").unwrap();
        (_, buf) = head.finish(exchange, Some(13), &date);
    });
}

#[divan::bench(args = [1, 16, 65_536])]
fn chunked_body(bencher: Bencher<'_, '_>, chunk: usize) {
    let mut bytes = Vec::new();
    while bytes.len() < 1 << 20 {
        bytes.extend_from_slice(ChunkHead::new(chunk).as_bytes());
        bytes.resize(bytes.len() + chunk, b'x');
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(LAST_CHUNK);
    // It is decoded in place.
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .with_inputs(|| bytes.clone())
        .bench_refs(|bytes| Decoder::new().decode(black_box(bytes)).unwrap());
}

#[divan::bench]
fn link_response(bencher: Bencher<'_, '_>) {
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, world!";
    let mut bytes = (response.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(response);
    bytes.extend_from_slice(&DONE_KEEP.to_le_bytes());
    let mut frames = Frames::default();
    bencher.bench_local(|| {
        let mut rest = black_box(bytes.as_slice());
        while !rest.is_empty() {
            let (consumed, step) = frames.decode(rest).unwrap();
            black_box(step);
            rest = &rest[consumed..];
        }
    });
}
