//! The environ: a copy of one prepared dictionary, and what this request changes in it (PEP 3333, "environ Variables").
//!
//! Keys are made once. The last value of each key is kept too, because most requests say most things again: a client's
//! `User-Agent`, the `Host`, the method. A hit costs a comparison instead of a new string. What every HTTP request sets
//! is kept in the dictionary that is copied, so that a hit costs no more than that.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

use super::client_tls;
use super::file_wrapper::FileWrapper;
use super::input::Input;
use super::strings::from_latin1;
use rwsgi_protocol::http::{Head, Version};
use rwsgi_protocol::link::Peer;
use rwsgi_protocol::path::{self, PathNormalize};
use rwsgi_protocol::{target, uwsgi};

/// How many names of headers are remembered, and how long they may be together, bytes; clients choose them, and the
/// case of each letter, so that there must be an end.
const NAMES_KEPT: usize = 512;
const NAME_BYTES_KEPT: usize = 64 * 1024;
/// How long a value may be to be remembered, bytes.
const VALUE_KEPT: usize = 1024;

/// A key of the environ, and the last value it had.
struct Slot {
    key: Py<PyString>,
    bytes: Vec<u8>,
    value: Py<PyString>,
    /// The request that set it last: a header that comes twice is joined.
    request: u64,
}

/// The keys that every HTTP request sets, and two that most do, in the order of [`FIXED`].
#[derive(Clone, Copy)]
enum Fixed {
    Method,
    Uri,
    Path,
    Query,
    Protocol,
    RemoteAddr,
    RemotePort,
    ServerName,
    ServerPort,
    ContentLength,
    Host,
}

const FIXED: [&str; 11] = [
    "REQUEST_METHOD",
    "REQUEST_URI",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SERVER_NAME",
    "SERVER_PORT",
    "CONTENT_LENGTH",
    "HTTP_HOST",
];

/// Makes environs, one after another, for one thread.
pub(super) struct EnvironBuilder {
    base: Py<PyDict>,
    /// The same for HTTP, with what the last request had of the first [`FIXED`], and that as bytes.
    http_base: Py<PyDict>,
    in_base: [Vec<u8>; Fixed::ContentLength as usize],
    input_key: Py<PyString>,
    scheme_key: Py<PyString>,
    https: Py<PyString>,
    slots: Vec<Slot>,
    /// From a header's name as it comes to its slot.
    names: HashMap<Vec<u8>, usize, RandomState>,
    /// From a key of the environ to its slot: all of them. A uwsgi variable's name is one.
    keys: HashMap<Vec<u8>, usize, RandomState>,
    /// Length of all names and keys that clients chose, bytes.
    name_bytes: usize,
    path: Vec<u8>,
    paths: PathNormalize,
    request: u64,
}

impl EnvironBuilder {
    /// For an application that may run in several threads or processes at once. `paths` is as the requests' paths were
    /// checked with.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub(super) fn new(py: Python<'_>, multithread: bool, multiprocess: bool, paths: PathNormalize) -> PyResult<Self> {
        let base = PyDict::new(py);
        // Every key that a request sets stands here already, so that the copy has space for it.
        for name in FIXED.iter().take(Fixed::ContentLength as usize) {
            base.set_item(PyString::intern(py, name), "")?;
        }
        let input_key = PyString::intern(py, "wsgi.input");
        let scheme_key = PyString::intern(py, "wsgi.url_scheme");
        base.set_item("SCRIPT_NAME", "")?;
        base.set_item(&input_key, py.None())?;
        base.set_item(&scheme_key, "http")?;
        base.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
        base.set_item("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
        base.set_item("wsgi.multithread", PyBool::new(py, multithread))?;
        base.set_item("wsgi.multiprocess", PyBool::new(py, multiprocess))?;
        base.set_item("wsgi.run_once", PyBool::new(py, false))?;
        base.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
        // The body ends by itself, however it was framed.
        base.set_item("wsgi.input_terminated", PyBool::new(py, true))?;
        let mut builder = Self {
            http_base: base.copy()?.unbind(),
            base: base.unbind(),
            in_base: Default::default(),
            input_key: input_key.unbind(),
            scheme_key: scheme_key.unbind(),
            https: PyString::intern(py, "https").unbind(),
            slots: Vec::new(),
            names: HashMap::default(),
            keys: HashMap::default(),
            name_bytes: 0,
            path: Vec::new(),
            paths,
            request: 0,
        };
        for name in FIXED {
            builder.add_slot(name.into(), PyString::intern(py, name));
        }
        Ok(builder)
    }

    /// The slot of a key, which is new if need be.
    fn slot_of(&mut self, py: Python<'_>, key: Vec<u8>) -> PyResult<usize> {
        if let Some(slot) = self.keys.get(&key) {
            return Ok(*slot);
        }
        self.name_bytes += key.len();
        // It must not be interned: from Python 3.12 on, such a string is never freed.
        let text = from_latin1(py, &key)?;
        Ok(self.add_slot(key, text))
    }

    fn add_slot(&mut self, key: Vec<u8>, text: Bound<'_, PyString>) -> usize {
        let value = PyString::new(text.py(), "").unbind();
        let slot = self.slots.len();
        self.slots.push(Slot { key: text.unbind(), bytes: Vec::new(), value, request: 0 });
        self.keys.insert(key, slot);
        slot
    }

    /// Forgets the names when there are too many. Only between requests, for one that is begun holds slots.
    fn forget(&mut self) {
        if self.slots.len().max(self.names.len()) >= NAMES_KEPT || self.name_bytes >= NAME_BYTES_KEPT {
            self.slots.truncate(FIXED.len());
            self.names.clear();
            self.keys.retain(|_, slot| *slot < FIXED.len());
            self.name_bytes = 0;
        }
    }

    fn set(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, slot: usize, bytes: &[u8]) -> PyResult<()> {
        let slot = &mut self.slots[slot];
        slot.request = self.request;
        if slot.bytes != bytes {
            let value = from_latin1(py, bytes)?;
            if bytes.len() > VALUE_KEPT {
                return environ.set_item(&slot.key, value);
            }
            slot.bytes.clear();
            slot.bytes.extend_from_slice(bytes);
            slot.value = value.unbind();
        }
        environ.set_item(&slot.key, &slot.value)
    }

    fn begin<'py>(&mut self, py: Python<'py>, input: &Py<Input>, is_http: bool) -> PyResult<Bound<'py, PyDict>> {
        self.request += 1;
        self.forget();
        let base = if is_http { &self.http_base } else { &self.base };
        let environ = base.bind(py).copy()?;
        environ.set_item(&self.input_key, input)?;
        Ok(environ)
    }

    /// Makes the dictionary that is copied for HTTP have this value.
    fn set_base(&mut self, py: Python<'_>, fixed: Fixed, bytes: &[u8]) -> PyResult<()> {
        let before = &mut self.in_base[fixed as usize];
        if before == bytes {
            return Ok(());
        }
        self.http_base.bind(py).set_item(&self.slots[fixed as usize].key, from_latin1(py, bytes)?)?;
        before.clear();
        before.extend_from_slice(bytes);
        Ok(())
    }

    /// The environ of a request in HTTP. `body_len` is the length of its body, if it has one.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub(super) fn http<'py>(
        &mut self,
        py: Python<'py>,
        head: &Head<'_, '_>,
        peer: &Peer<'_>,
        body_len: Option<u64>,
        input: &Py<Input>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let target = target::split(head.target);
        let mut path = std::mem::take(&mut self.path);
        // One that leads above the root was refused before it came here.
        let seen = path::of_target(self.paths, target.path.as_bytes(), &mut path).unwrap_or(b"/");
        let set = self.set_base(py, Fixed::Path, seen);
        self.path = path;
        set?;
        let protocol = match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        };
        for (key, value) in [
            (Fixed::Method, head.method),
            (Fixed::Uri, head.target),
            (Fixed::Query, target.query),
            (Fixed::Protocol, protocol),
            (Fixed::RemoteAddr, peer.remote_addr),
            (Fixed::RemotePort, peer.remote_port),
            (Fixed::ServerName, peer.server_addr),
            (Fixed::ServerPort, peer.server_port),
        ] {
            self.set_base(py, key, value.as_bytes())?;
        }
        let environ = self.begin(py, input, true)?;
        if let Some(len) = body_len {
            let mut digits = itoa::Buffer::new();
            self.set(py, &environ, Fixed::ContentLength as usize, digits.format(len).as_bytes())?;
        }
        for header in head.headers {
            let slot = match self.names.get(header.name.as_bytes()) {
                Some(slot) => *slot,
                None => match self.learn(py, header.name)? {
                    Some(slot) => slot,
                    None => continue,
                },
            };
            // The body's own length was set above; what the client said of it was checked against that.
            if slot == Fixed::ContentLength as usize {
                continue;
            }
            if self.slots[slot].request == self.request {
                self.join(py, &environ, slot, header.name, header.value)?;
            } else {
                self.set(py, &environ, slot, header.value)?;
            }
        }
        if let Some(authority) = target.authority {
            self.set(py, &environ, Fixed::Host as usize, authority.as_bytes())?;
        }
        if let Some(tls) = &peer.tls {
            environ.set_item(&self.scheme_key, &self.https)?;
            client_tls::add(py, &environ, tls)?;
        }
        Ok(environ)
    }

    /// The slot of a header that is new; `None` for one that the application must not see: a name with an underscore
    /// would be taken for its twin with a hyphen, and `Transfer-Encoding` is undone.
    fn learn(&mut self, py: Python<'_>, name: &str) -> PyResult<Option<usize>> {
        if name.contains('_') || name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(None);
        }
        let is_content = name.eq_ignore_ascii_case("content-type") || name.eq_ignore_ascii_case("content-length");
        let prefix: &[u8] = if is_content { b"" } else { b"HTTP_" };
        let upper = name.bytes().map(|byte| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
        let key = prefix.iter().copied().chain(upper).collect();
        let slot = self.slot_of(py, key)?;
        self.name_bytes += name.len();
        self.names.insert(name.as_bytes().to_vec(), slot);
        Ok(Some(slot))
    }

    /// A header that came before: RFC 9110 section 5.3 joins with a comma, RFC 6265 has cookies joined otherwise.
    fn join(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        slot: usize,
        name: &str,
        value: &[u8],
    ) -> PyResult<()> {
        let key = self.slots[slot].key.clone_ref(py);
        let before = environ.get_item(&key)?;
        let separator = if name.eq_ignore_ascii_case("cookie") { "; " } else { "," };
        let mut text = before.map(|before| before.to_string()).unwrap_or_default();
        text.push_str(separator);
        text.extend(value.iter().copied().map(char::from));
        environ.set_item(key, text)
    }

    /// The environ of a uwsgi packet: its variables as they are, without those that only the server sets. If one comes
    /// twice, the later value counts. Also, whether the client asks for another protocol on this connection.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub(super) fn uwsgi<'py>(
        &mut self,
        py: Python<'py>,
        packet: &uwsgi::Packet<'_>,
        input: &Py<Input>,
    ) -> PyResult<(Bound<'py, PyDict>, bool)> {
        let environ = self.begin(py, input, false)?;
        let (mut scheme, mut is_https, mut asks_upgrade) = (&b""[..], false, false);
        for (name, value) in packet.vars() {
            let slot = match self.keys.get(name) {
                Some(slot) => *slot,
                None if name.starts_with(b"wsgi.") => continue,
                None if self.keys.len() >= NAMES_KEPT => {
                    environ.set_item(from_latin1(py, name)?, from_latin1(py, value)?)?;
                    continue;
                }
                None => self.slot_of(py, name.to_vec())?,
            };
            match name {
                b"UWSGI_SCHEME" => scheme = value,
                b"HTTPS" => is_https = is_on(value),
                b"HTTP_UPGRADE" => asks_upgrade = true,
                b"PATH_INFO" if self.paths != PathNormalize::Keep => {
                    let mut path = std::mem::take(&mut self.path);
                    let seen = path::of_packet(self.paths, value, &mut path).unwrap_or(b"/");
                    let set = self.set(py, &environ, slot, seen);
                    self.path = path;
                    set?;
                    continue;
                }
                _ => {}
            }
            self.set(py, &environ, slot, value)?;
        }
        if scheme == b"https" || (scheme.is_empty() && is_https) {
            environ.set_item(&self.scheme_key, &self.https)?;
        }
        Ok((environ, asks_upgrade))
    }
}

/// Whether a proxy's `HTTPS` means TLS. uWSGI takes what begins with `on` or `1`.
fn is_on(value: &[u8]) -> bool {
    value.starts_with(b"1") || value.get(..2).is_some_and(|on| on.eq_ignore_ascii_case(b"on")) || value == b"true"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wsgi::active::RequestPlace;
    use crate::wsgi::transport::{Kept, Transport};
    use rwsgi_protocol::http::{MAX_HEADERS, parse};
    use std::fs::File;
    use std::io::{self, BufRead};
    use std::mem::MaybeUninit;

    /// Whose request is only looked at.
    enum Nobody {}

    impl Transport for Nobody {
        fn send(&mut self, _: &[&[u8]], _: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
            match *self {}
        }

        fn announce_last(&mut self) {
            match *self {}
        }

        fn send_file(&mut self, _: &[u8], _: File, _: u64, _: u64) -> io::Result<bool> {
            match *self {}
        }

        fn flush(&mut self) -> io::Result<()> {
            match *self {}
        }

        fn take_client(&mut self) -> io::Result<std::os::fd::OwnedFd> {
            match *self {}
        }

        fn body(&mut self) -> &mut (dyn BufRead + Send) {
            match *self {}
        }

        fn body_at_hand(&self) -> &[u8] {
            match *self {}
        }

        fn body_left(&self) -> u64 {
            match *self {}
        }
    }

    fn environ_of<'py>(py: Python<'py>, builder: &mut EnvironBuilder, head: &str) -> Bound<'py, PyDict> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let head = parse(head.as_bytes(), &mut headers, head.len()).unwrap().unwrap();
        let peer = Peer { remote_addr: "", remote_port: "", server_addr: "", server_port: "", tls: None };
        let input = Py::new(py, Input::new(RequestPlace::<Nobody>::new().current())).unwrap();
        builder.http(py, &head, &peer, None, &input).unwrap()
    }

    fn get(environ: &Bound<'_, PyDict>, key: &str) -> String {
        environ.get_item(key).unwrap().unwrap().to_string()
    }

    /// A head with 100 headers of names that no head had before, by number or by the case of their letters.
    fn invented(turn: u32, by_case: bool) -> String {
        let names = (0..100).map(|n| {
            let number = turn * 100 + n;
            if by_case {
                (0..16).map(|bit| if number >> bit & 1 == 1 { 'X' } else { 'x' }).collect()
            } else {
                format!("X-{number}")
            }
        });
        let headers: String = names.map(|name| format!("{name}: v\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
    }

    #[test]
    fn names_that_clients_invent_do_not_fill_the_memory() {
        crate::wsgi::interpreter::start(None).unwrap();
        Python::attach(|py| {
            let mut builder = EnvironBuilder::new(py, false, false, PathNormalize::Keep).unwrap();
            for turn in 0..100 {
                environ_of(py, &mut builder, &invented(turn, turn % 2 == 0));
                assert!(builder.names.len() <= NAMES_KEPT + MAX_HEADERS, "{}", builder.names.len());
                assert!(builder.slots.len() <= NAMES_KEPT + MAX_HEADERS, "{}", builder.slots.len());
                assert_eq!(
                    builder.keys.len(),
                    builder.slots.len(),
                    "each key has one slot, and is found without a search"
                );
            }
        });
    }

    #[test]
    fn an_environ_is_of_its_own_request_alone() {
        crate::wsgi::interpreter::start(None).unwrap();
        Python::attach(|py| {
            let mut builder = EnvironBuilder::new(py, false, false, PathNormalize::Keep).unwrap();
            let first = environ_of(py, &mut builder, "GET /a?q HTTP/1.0\r\nHost: a\r\n\r\n");
            first.set_item("PATH_INFO", "changed by the application").unwrap();
            let second = environ_of(py, &mut builder, "PUT /a HTTP/1.1\r\nHost: a\r\n\r\n");
            let third = environ_of(py, &mut builder, "GET /a?q HTTP/1.0\r\nHost: a\r\n\r\n");
            let keys = ["REQUEST_METHOD", "REQUEST_URI", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL"];
            assert_eq!(keys.map(|key| get(&second, key)), ["PUT", "/a", "/a", "", "HTTP/1.1"]);
            assert_eq!(keys.map(|key| get(&third, key)), ["GET", "/a?q", "/a", "q", "HTTP/1.0"]);
            assert_eq!(get(&first, "PATH_INFO"), "changed by the application");
        });
    }

    #[test]
    fn a_header_that_comes_twice_is_joined_also_when_names_are_forgotten() {
        crate::wsgi::interpreter::start(None).unwrap();
        Python::attach(|py| {
            let mut builder = EnvironBuilder::new(py, false, false, PathNormalize::Keep).unwrap();
            for turn in 0..30 {
                let head = invented(turn, false).replace("Host: a\r\n", "Host: a\r\nTwice: 1\r\n");
                let head = format!(
                    "{}Twice: 2\r\nCookie: a\r\nCookie: b\r\n\r\n",
                    head.trim_end_matches("\r\n").to_owned() + "\r\n"
                );
                let environ = environ_of(py, &mut builder, &head);
                assert_eq!(get(&environ, "HTTP_TWICE"), "1,2");
                assert_eq!(get(&environ, "HTTP_COOKIE"), "a; b");
                assert_eq!(get(&environ, &format!("HTTP_X_{}", turn * 100 + 7)), "v");
            }
        });
    }
}
