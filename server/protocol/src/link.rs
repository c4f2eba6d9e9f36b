//! The protocol between the http router and a worker, over one unix stream socket per thread of each worker.
//!
//! The worker connects and says [`Hello`]. From then on the router sends requests, and the worker answers them one at a
//! time, in order. A thread that is free gets a request; one that has been answering fast gets up to [`AHEAD_MAX`] at
//! once, so that neither side waits for the other between two requests. A request that was dispatched can be cancelled
//! until the worker begins with it: both sides have its state in shared memory (the server's `stats::ahead`), the
//! worker takes it there and the router cancels it there, and only one of the two succeeds. The worker reads a
//! cancelled request and skips it ([`SKIPPED`]). So no request waits behind a slow one while another thread is free.
//!
//! A request is [`RequestLengths`], then the [`Peer`] as text, the HTTP head as the client sent it (it passed
//! [`super::http::parse`]), and the body, decoded: the router has all of it before it dispatches.
//!
//! The worker takes all of a request off the link before it looks for the next one, also a body that the application
//! did not read; or it closes the link.
//!
//! A response is frames: a length (32 bits, little-endian) and that many bytes, which go to the client as they are. The
//! worker writes the complete HTTP response for the client's version, chunked framing included. A length of
//! [`DONE_KEEP`] or [`DONE_CLOSE`] in place of a frame ends it, and says what becomes of the client's connection;
//! [`FAST`] is added when the router may send the thread further requests ahead. [`ABORTED`] ends a response that did not
//! come to its end: the client's connection is reset, or it would take what it has for the whole.
//!
//! A thread can have a *lane* besides its link, for bodies ([`Purpose::Lane`]): a connection for descriptors, and
//! memory that both map. A piece of a response that lies there is [`in_slot`] in place of a frame; a part of a file,
//! whose descriptor goes over the lane before, is [`FILE`]. A request's body may be there too.
//!
//! Leaving, so that no request is lost when workers are replaced: a worker that leaves sends [`LEAVING`] when no
//! frame is under way, and reads on. The router sends it nothing more after that, cancels what it has not begun with,
//! and closes the link when it is idle. If a request crossed [`LEAVING`] on its way, the worker serves it as any other,
//! and then the router closes. So the worker may exit when it reads end-of-file, and never before.

use std::net::IpAddr;

use thiserror::Error;

/// The most requests that are on a link at once.
pub const AHEAD_MAX: usize = 8;
/// In place of a frame's length: the response is complete, the client's connection stays.
pub const DONE_KEEP: u32 = 0xFFFF_FFF0;
/// In place of a frame's length: the response is complete, the client's connection is to be closed.
pub const DONE_CLOSE: u32 = 0xFFFF_FFF1;
/// Added to both: the request took the thread less than [`FAST_NS`], and no piece of its response is in a large slot of the
/// lane.
pub const FAST: u32 = 2;
/// What is fast: a request that waits behind several of these waits no longer than a turn of the router's loop, ns.
pub const FAST_NS: u64 = 250_000;
/// In place of a frame's length: the worker wants no further request on this link.
pub const LEAVING: u32 = 0xFFFF_FFF4;
/// In place of a frame's length: the next request was cancelled, and is not answered.
pub const SKIPPED: u32 = 0xFFFF_FFF5;
/// In place of a frame's length: the response breaks off.
pub const ABORTED: u32 = 0xFFFF_FFF6;
/// In place of a frame: the part of a file whose descriptor comes next on the lane.
pub const FILE: u32 = 0xFFFF_FFF7;
/// The most bytes in one frame.
pub const MAX_FRAME: u32 = 0xFDFF_FFFF;
/// In place of a frame: above this, the number of a slot and how many bytes of it are the next of the response.
const SLOT: u32 = 0xFE00_0000;
/// Bits of the number of bytes in a slot.
const SLOT_BITS: u32 = 19;
/// The most bytes of a slot that [`in_slot`] can say.
pub const SLOT_LEN_MAX: u32 = (1 << SLOT_BITS) - 1;
/// The highest number of a slot that it can say.
pub const SLOT_NUMBER_MAX: u32 = 0xFF_FFFF >> SLOT_BITS;
/// Set in the length of a request's peer: the body is in the lane's memory.
const ON_LANE: u32 = 1 << 31;

/// The first bytes on a link, with the version of what follows.
const SERVE: [u8; 4] = *b"RWL6";
/// The same for [`Purpose::TakeClient`].
const TAKE_CLIENT: [u8; 4] = *b"RWT6";
/// The same for [`Purpose::Lane`].
const LANE: [u8; 4] = *b"RWB6";

/// What stands in place of a frame for the first `len` bytes of the slot, at most [`SLOT_LEN_MAX`] of [`SLOT_NUMBER_MAX`].
#[must_use]
pub const fn in_slot(slot: u32, len: u32) -> u32 {
    SLOT | slot << SLOT_BITS | len
}

/// Something that does not speak this protocol, or not this version of it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// The first bytes are not ours.
    #[error("the peer does not speak the link protocol")]
    Magic,
    /// A length word that means nothing.
    #[error("a frame of {0} bytes on the link, more than any frame has")]
    Length(u32),
    /// The text of a [`Peer`] is not the words that it should be.
    #[error("the peer's addresses on the link are malformed")]
    Peer,
}

/// What a thread of a worker connects for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be sent requests: the connection is its link.
    Serve,
    /// For its client's connection, which it is to speak another protocol on: the router answers with one byte and the
    /// descriptor, or closes.
    TakeClient,
    /// For a lane beside its link: the router answers with one byte and the descriptor of the memory, or closes. After
    /// that the connection is for files.
    Lane,
}

/// Who connects: a thread of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What for.
    pub purpose: Purpose,
    /// The worker's id, from 1.
    pub worker: u32,
    /// The thread's number in its worker, from 0.
    pub thread: u32,
    /// The worker's slot on the scoreboard.
    pub slot: u32,
    /// What the master gave to the router and to the workers, so that nobody else takes requests.
    pub token: [u8; 16],
}

impl Hello {
    /// Bytes of a hello.
    pub const LEN: usize = 32;

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let magic = match self.purpose {
            Purpose::Serve => SERVE,
            Purpose::TakeClient => TAKE_CLIENT,
            Purpose::Lane => LANE,
        };
        bytes[..4].copy_from_slice(&magic);
        bytes[4..8].copy_from_slice(&self.worker.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.thread.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.slot.to_le_bytes());
        bytes[16..].copy_from_slice(&self.token);
        bytes
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`LinkError::Magic`] for something else.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, LinkError> {
        let (magic, rest) = split(bytes);
        let (worker, rest) = split(rest);
        let (thread, rest) = split(rest);
        let (slot, rest) = split(rest);
        let (token, _) = split(rest);
        let purpose = match magic {
            SERVE => Purpose::Serve,
            TAKE_CLIENT => Purpose::TakeClient,
            LANE => Purpose::Lane,
            _ => return Err(LinkError::Magic),
        };
        let [worker, thread, slot] = [worker, thread, slot].map(u32::from_le_bytes);
        Ok(Self { purpose, worker, thread, slot, token })
    }
}

/// The lengths of what makes a request, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLengths {
    /// Bytes of the HTTP head.
    pub head: u32,
    /// Bytes of the peer's text.
    pub peer: u32,
    /// Bytes of the body, decoded.
    pub body: u64,
    /// When the router had all of it, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// How long its body took to come, µs.
    pub gathered: u32,
    /// The body does not follow: it is in the lane's memory.
    pub on_lane: bool,
}

impl RequestLengths {
    /// Bytes before the peer's text.
    pub const LEN: usize = 28;

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.head.to_le_bytes());
        let on_lane = if self.on_lane { ON_LANE } else { 0 };
        bytes[4..8].copy_from_slice(&(self.peer | on_lane).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.body.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.since.to_le_bytes());
        bytes[24..].copy_from_slice(&self.gathered.to_le_bytes());
        bytes
    }

    /// Reads what [`RequestLengths::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let (head, rest) = split(bytes);
        let (peer, rest) = split(rest);
        let (body, rest) = split(rest);
        let (since, rest) = split(rest);
        let (gathered, _) = split(rest);
        let peer = u32::from_le_bytes(peer);
        Self {
            head: u32::from_le_bytes(head),
            peer: peer & !ON_LANE,
            on_lane: peer & ON_LANE != 0,
            body: u64::from_le_bytes(body),
            since: u64::from_le_bytes(since),
            gathered: u32::from_le_bytes(gathered),
        }
    }
}

/// The first `N` bytes, zeros where there are fewer (there never are: the callers' arrays are long enough).
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk().map_or(([0; N], bytes), |(first, rest)| (*first, rest))
}

/// What the application learns of a client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTls<'a> {
    /// The client's certificate, in base64; empty without one.
    pub certificate: &'a str,
    /// The application gets that as PEM, too.
    pub is_exported: bool,
}

impl PeerTls<'_> {
    /// What is added to a [`Peer`]'s text.
    #[must_use]
    pub fn text(&self) -> String {
        let word = if self.is_exported { TLS_EXPORTED } else { TLS };
        format!(" {word} {}", self.certificate)
    }
}

/// The fifth word of a [`Peer`]'s text.
const TLS: &str = "tls";
const TLS_EXPORTED: &str = "tls-exported";

/// Space for an IPv4 address, a port, and spaces.
const ADDRESS_AND_PORT: usize = "255.255.255.255 65535 ".len();

/// Both ends of the client's connection. Ports are decimal; all is empty for a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer<'a> {
    /// The client's IP address.
    pub remote_addr: &'a str,
    /// The client's port.
    pub remote_port: &'a str,
    /// The IP address that the client connected to.
    pub server_addr: &'a str,
    /// The port that the client connected to.
    pub server_port: &'a str,
    /// `None` without TLS.
    pub tls: Option<PeerTls<'a>>,
}

impl<'a> Peer<'a> {
    /// The text that [`Peer::parse`] reads. `client` is `None` on a unix socket. `server` is what the client connected to:
    /// address and port, with a space between them.
    ///
    /// An IPv4 client of a socket that takes both is given by its IPv4 address, as uWSGI does: `::ffff:192.0.2.1` would
    /// be another client to programs that compare addresses.
    #[must_use]
    pub fn text(client: Option<(IpAddr, u16)>, server: &str) -> String {
        let mut text = String::with_capacity(ADDRESS_AND_PORT + server.len());
        match client.map(|(ip, port)| (ip.to_canonical(), port)) {
            // Not with `write!`, which takes ten times as long, for each connection.
            Some((IpAddr::V4(ip), port)) => {
                let mut digits = itoa::Buffer::new();
                for (octet, end) in ip.octets().into_iter().zip(['.', '.', '.', ' ']) {
                    text.push_str(digits.format(octet));
                    text.push(end);
                }
                text.push_str(digits.format(port));
            }
            Some((ip, port)) => text.push_str(&format!("{ip} {port}")),
            None => text.push(' '),
        }
        text.push(' ');
        text.push_str(server);
        text
    }

    /// Reads the text: the four, with a space between them, and two more with TLS.
    ///
    /// # Errors
    /// [`LinkError::Peer`] for anything else.
    pub fn parse(text: &'a str) -> Result<Self, LinkError> {
        let mut rest = Some(text);
        // Not `str::split`: its search takes four times as long for words as short as these, at each request.
        let mut next = || {
            let text = rest?;
            let space = text.bytes().position(|byte| byte == b' ');
            rest = space.map(|at| &text[at + 1..]);
            Some(&text[..space.unwrap_or(text.len())])
        };
        let mut word = || next().ok_or(LinkError::Peer);
        let (remote_addr, remote_port, server_addr, server_port) = (word()?, word()?, word()?, word()?);
        let tls = match (next(), next()) {
            (None, None) => None,
            (Some(TLS), Some(certificate)) => Some(PeerTls { certificate, is_exported: false }),
            (Some(TLS_EXPORTED), Some(certificate)) => Some(PeerTls { certificate, is_exported: true }),
            _ => return Err(LinkError::Peer),
        };
        match next() {
            None => Ok(Self { remote_addr, remote_port, server_addr, server_port, tls }),
            Some(_) => Err(LinkError::Peer),
        }
    }
}

/// What [`Frames::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'b> {
    /// Bytes for the client.
    Data(&'b [u8]),
    /// So many bytes for the client are in this slot of the lane's memory.
    InSlot {
        /// From 0.
        slot: usize,
        /// Bytes.
        len: usize,
    },
    /// A part of a file is for the client.
    File,
    /// All input was consumed.
    More,
    /// The response is complete.
    Done {
        /// Whether the client's connection stays.
        keep: bool,
        /// Whether the thread was soon done with it.
        fast: bool,
    },
    /// A request that was taken back was passed over.
    Skipped,
    /// The worker wants no further request.
    Leaving,
    /// The response breaks off.
    Aborted,
}

/// Reads a worker's side of a link, in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// Bytes of the frame under way that are still to come.
    left: u32,
    /// What has come of a length word.
    word: [u8; 4],
    have: u8,
}

impl Frames {
    /// Takes the next bytes; returns how many it consumed and what they held. Nothing is copied.
    ///
    /// # Errors
    /// [`LinkError::Length`]; the link cannot be used any more.
    pub fn decode<'b>(&mut self, input: &'b [u8]) -> Result<(usize, Frame<'b>), LinkError> {
        let mut at = 0;
        loop {
            if self.left > 0 {
                let rest = &input[at..];
                if rest.is_empty() {
                    return Ok((at, Frame::More));
                }
                let taken = rest.len().min(self.left as usize);
                // Not more than `left`.
                self.left -= taken as u32;
                return Ok((at + taken, Frame::Data(&rest[..taken])));
            }
            while usize::from(self.have) < self.word.len() {
                let Some(&byte) = input.get(at) else { return Ok((at, Frame::More)) };
                self.word[usize::from(self.have)] = byte;
                self.have += 1;
                at += 1;
            }
            self.have = 0;
            match u32::from_le_bytes(self.word) {
                word @ DONE_KEEP..LEAVING => {
                    let fast = word & FAST != 0;
                    return Ok((at, Frame::Done { keep: word & !FAST == DONE_KEEP, fast }));
                }
                LEAVING => return Ok((at, Frame::Leaving)),
                SKIPPED => return Ok((at, Frame::Skipped)),
                ABORTED => return Ok((at, Frame::Aborted)),
                FILE => return Ok((at, Frame::File)),
                word if word >> 24 == SLOT >> 24 => {
                    let (slot, len) = ((word & !SLOT) >> SLOT_BITS, word & SLOT_LEN_MAX);
                    return Ok((at, Frame::InSlot { slot: slot as usize, len: len as usize }));
                }
                length if length > MAX_FRAME => return Err(LinkError::Length(length)),
                length => self.left = length,
            }
        }
    }
}

#[cfg(test)]
mod tests;
