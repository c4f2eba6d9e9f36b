//! A request's body as the application reads it, wherever it waits: in memory, in a file, or at the router, which has all of
//! it.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;

use crate::io::body::StoredBody;
use crate::io::receive::{Received, receive};
use crate::io::segment::Segment;
use crate::io::temp::TempFile;
use crate::io::wait::until_ready;

/// Where the bytes are.
pub(super) enum RequestBody {
    /// There is none.
    Empty,
    /// All of it, and how much was read.
    Memory(Vec<u8>, usize),
    /// In a temporary file.
    File(BufReader<io::Take<TempFile>>),
    /// In memory that the router has too: how long it is, and how much was read.
    Lane(Arc<Segment>, usize, usize),
    /// What came with the head, then what the socket still has.
    Link(BufReader<io::Take<LinkReader>>),
}

/// Reads a link's socket, waiting where it must.
pub(super) struct LinkReader {
    /// What came together with the head.
    pub(super) first: Vec<u8>,
    pub(super) at: usize,
    pub(super) socket: Arc<OwnedFd>,
    /// The longest wait.
    pub(super) patience: Duration,
}

impl Read for LinkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = &self.first[self.at..];
        if !ready.is_empty() {
            let len = ready.len().min(buffer.len());
            buffer[..len].copy_from_slice(&ready[..len]);
            self.at += len;
            return Ok(len);
        }
        loop {
            match receive(&*self.socket, buffer) {
                Received::Bytes(len) => return Ok(len),
                Received::Nothing => until_ready(&*self.socket, PollFlags::IN, self.patience)?,
                Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

/// How much of a file is read ahead for lines, bytes.
const READ_AHEAD: usize = 64 * 1024;

impl RequestBody {
    /// A body that was gathered.
    pub(super) fn new(stored: StoredBody) -> Self {
        match stored {
            StoredBody::Empty => Self::Empty,
            StoredBody::Memory(bytes) => Self::Memory(bytes, 0),
            StoredBody::File(file) => {
                let len = file.len();
                Self::File(BufReader::with_capacity(READ_AHEAD, file.take(len)))
            }
        }
    }

    /// A body of which `reader` gives `len` bytes.
    pub(super) fn at_link(reader: LinkReader, len: u64) -> Self {
        Self::Link(BufReader::with_capacity(READ_AHEAD, reader.take(len)))
    }

    /// What was read ahead, or is in memory anyway.
    pub(super) fn at_hand(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Memory(bytes, at) => &bytes[*at..],
            Self::Lane(segment, len, at) => segment.request(*len, *at),
            Self::File(file) => file.buffer(),
            Self::Link(link) => link.buffer(),
        }
    }

    /// Bytes that were not read.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes, at) => (bytes.len() - at) as u64,
            Self::Lane(_, len, at) => (len - at) as u64,
            Self::File(file) => file.get_ref().limit() + file.buffer().len() as u64,
            Self::Link(link) => link.get_ref().limit() + link.buffer().len() as u64,
        }
    }
}

impl Read for RequestBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Empty => Ok(0),
            Self::Memory(bytes, at) => {
                let len = (&bytes[*at..]).read(buffer)?;
                *at += len;
                Ok(len)
            }
            Self::Lane(segment, len, at) => {
                let read = segment.request(*len, *at).read(buffer)?;
                *at += read;
                Ok(read)
            }
            Self::File(file) => file.read(buffer),
            Self::Link(link) => link.read(buffer),
        }
    }
}

impl BufRead for RequestBody {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Empty => Ok(&[]),
            Self::Memory(bytes, at) => Ok(&bytes[*at..]),
            Self::Lane(segment, len, at) => Ok(segment.request(*len, *at)),
            Self::File(file) => file.fill_buf(),
            Self::Link(link) => link.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Empty => {}
            Self::Memory(_, at) | Self::Lane(_, _, at) => *at += amount,
            Self::File(file) => file.consume(amount),
            Self::Link(link) => link.consume(amount),
        }
    }
}
