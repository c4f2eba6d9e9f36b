//! A request's body, wherever it waits: in memory, in a file, or at the router, which has all of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::output::wait_for;
use nix::poll::PollFlags;

/// Where the bytes are.
pub(super) enum Body {
    /// There is none.
    Empty,
    /// All of it, and how much was read.
    Memory(Vec<u8>, usize),
    /// In an unlinked file.
    File(BufReader<io::Take<File>>),
    /// What came with the head, then what the socket still has.
    Link(BufReader<io::Take<LinkReader>>),
}

/// Reads a link's socket, waiting where it must.
pub(super) struct LinkReader {
    /// What came together with the head.
    pub(super) first: Vec<u8>,
    pub(super) at: usize,
    pub(super) socket: Arc<OwnedFd>,
    /// The longest wait, ms.
    pub(super) timeout: u32,
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
            match nix::unistd::read(&self.socket, buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => return Ok(len),
                Err(nix::errno::Errno::EAGAIN) => wait_for(self.socket.as_fd(), PollFlags::POLLIN, self.timeout)?,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// How much of a file is read ahead for lines, bytes.
const READ_AHEAD: usize = 64 * 1024;

impl Body {
    /// A body that was written to `file`, which is `len` bytes long.
    pub(super) fn in_file(mut file: File, len: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        Ok(Self::File(BufReader::with_capacity(READ_AHEAD, file.take(len))))
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
            Self::File(file) => file.buffer(),
            Self::Link(link) => link.buffer(),
        }
    }

    /// Bytes that were not read.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes, at) => (bytes.len() - at) as u64,
            Self::File(file) => file.get_ref().limit() + file.buffer().len() as u64,
            Self::Link(link) => link.get_ref().limit() + link.buffer().len() as u64,
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Empty => Ok(0),
            Self::Memory(bytes, at) => {
                let len = (&bytes[*at..]).read(buffer)?;
                *at += len;
                Ok(len)
            }
            Self::File(file) => file.read(buffer),
            Self::Link(link) => link.read(buffer),
        }
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Empty => Ok(&[]),
            Self::Memory(bytes, at) => Ok(&bytes[*at..]),
            Self::File(file) => file.fill_buf(),
            Self::Link(link) => link.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Empty => {}
            Self::Memory(_, at) => *at += amount,
            Self::File(file) => file.consume(amount),
            Self::Link(link) => link.consume(amount),
        }
    }
}
