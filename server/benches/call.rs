//! What one request costs between a head that is read and a response that is written: the environ, the call of an
//! application, its response; without sockets. `cargo bench -p rwsgi --bench call`.

#![allow(clippy::unwrap_used, reason = "a measurement may fail")]

use std::fs::File;
use std::io::{self, BufRead};
use std::mem::MaybeUninit;

use divan::{Bencher, black_box};
use pyo3::prelude::*;
use rwsgi::wsgi::gateway::{Gateway, Incoming};
use rwsgi::wsgi::interpreter;
use rwsgi::wsgi::transport::{Kept, Transport};
use rwsgi_protocol::SocketProtocol;
use rwsgi_protocol::http::{self, MAX_HEADERS, Version};
use rwsgi_protocol::link::Peer;
use rwsgi_protocol::path::PathNormalize;
use rwsgi_protocol::response::Exchange;

fn main() {
    interpreter::start(None).unwrap();
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
    Cookie: sessionid=qy1n2m3b4v5c6x7z8l9k0jhgfdsapoiu; csrftoken=wertyuiopasdfghjklzxcvbnm1234567\r\n\r\n";

const APPLICATIONS: &std::ffi::CStr = c"
def nothing(environ, start_response):
    start_response('200 OK', [])
    return []

def hello(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '12')])
    return [b'Hello World\\n']

def chunks(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return (b'y' * 100 for _ in range(1000))
";

/// A client that takes everything at once and keeps nothing, and whose requests have no body.
struct Anything(io::Empty);

impl Transport for Anything {
    fn send(&mut self, parts: &[&[u8]], _own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        black_box(parts);
        Ok(true)
    }

    fn announce_last(&mut self) {}

    fn send_file(&mut self, head: &[u8], _file: File, _offset: u64, _len: u64) -> io::Result<bool> {
        black_box(head);
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn take_client(&mut self) -> io::Result<std::os::fd::OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn body(&mut self) -> &mut (dyn BufRead + Send) {
        &mut self.0
    }

    fn body_at_hand(&self) -> &[u8] {
        &[]
    }

    fn body_left(&self) -> u64 {
        0
    }
}

fn serve(bencher: Bencher<'_, '_>, application: &str, request: &'static [u8]) {
    Python::attach(|py| {
        let module = PyModule::from_code(py, APPLICATIONS, c"applications.py", c"applications").unwrap();
        let application = module.getattr(application).unwrap().unbind();
        let mut gateway = Gateway::new(py, application, false, false, PathNormalize::Keep).unwrap();
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let head = http::parse(request, &mut headers, 65536).unwrap().unwrap();
        let peer =
            Peer { remote_addr: "127.0.0.1", remote_port: "50000", server_addr: "127.0.0.1", server_port: "8080" };
        let exchange =
            Exchange { protocol: SocketProtocol::Http, version: Version::Http11, head_only: false, keep_alive: true };
        let request = Incoming::Http { head: &head, peer, body_len: None };
        // One box goes round, as a connection does.
        let mut client = Some(Box::new(Anything(io::empty())));
        bencher.bench_local(|| {
            let served = gateway.serve(py, black_box(&request), exchange, client.take().unwrap()).unwrap();
            assert_eq!(served.status, 200);
            client = Some(served.client);
        });
    });
}

/// An application that does nothing: what is ours.
#[divan::bench]
fn nothing_wrk(bencher: Bencher<'_, '_>) {
    serve(bencher, "nothing", SMALL);
}

#[divan::bench]
fn nothing_browser(bencher: Bencher<'_, '_>) {
    serve(bencher, "nothing", BROWSER);
}

#[divan::bench]
fn hello_wrk(bencher: Bencher<'_, '_>) {
    serve(bencher, "hello", SMALL);
}

#[divan::bench]
fn stream_of_1000_chunks(bencher: Bencher<'_, '_>) {
    serve(bencher, "chunks", SMALL);
}
