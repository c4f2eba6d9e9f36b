//! What a connection has still to send, and sending it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send, sendmsg};

use crate::wsgi::transport::Kept;

/// A piece that waits.
enum Piece {
    /// A copy, and how much of it is gone.
    Copied(Vec<u8>, usize),
    /// Somebody else's bytes, and how much of them is gone.
    Owned(Kept, usize),
    /// A part of a file: offset and length of what is left.
    File(File, u64, u64),
}

/// A part at least this long is kept through its owner; a shorter one is copied, bytes.
const WORTH_KEEPING: usize = 16 * 1024;
/// The most that one call hands to the kernel from a file, bytes: Linux takes no more at once.
const FILE_AT_ONCE: u64 = 0x7fff_f000;

/// Pieces that wait for the socket to take them, in order.
#[derive(Default)]
pub(super) struct Output {
    waiting: VecDeque<Piece>,
    /// Bytes sent since it was last asked.
    sent: u64,
}

impl Output {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether what goes next is read from a disk.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.waiting.front(), Some(Piece::File(..)))
    }

    /// Bytes sent since the last call.
    pub(super) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// Sends what the socket takes now of `parts`, after what waits; keeps the rest.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        let mut gone = 0;
        if self.advance(socket)? {
            gone = send_parts(socket, parts)?;
            self.sent += gone as u64;
        }
        for (index, part) in parts.iter().enumerate() {
            if gone >= part.len() {
                gone -= part.len();
                continue;
            }
            let kept = if part.len() - gone >= WORTH_KEEPING { own(index) } else { None };
            match (kept, self.waiting.back_mut()) {
                (Some(owner), _) => self.waiting.push_back(Piece::Owned(owner, gone)),
                // Many small parts are one large piece.
                (None, Some(Piece::Copied(bytes, _))) => bytes.extend_from_slice(&part[gone..]),
                (None, _) => self.waiting.push_back(Piece::Copied(part[gone..].to_vec(), 0)),
            }
            gone = 0;
        }
        Ok(self.is_empty())
    }

    /// Sends a part of a file after what waits.
    pub(super) fn send_file(&mut self, socket: BorrowedFd<'_>, file: File, offset: u64, len: u64) -> io::Result<bool> {
        self.waiting.push_back(Piece::File(file, offset, len));
        self.advance(socket)
    }

    /// Sends what the socket takes now; returns whether nothing is left.
    pub(super) fn advance(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while let Some(piece) = self.waiting.front_mut() {
            let (gone, is_done) = match piece {
                Piece::Copied(bytes, at) => send_from(socket, bytes, at)?,
                Piece::Owned(owner, at) => send_from(socket, owner.as_ref().as_ref(), at)?,
                Piece::File(file, offset, left) => send_file_from(socket, file, offset, left)?,
            };
            self.sent += gone as u64;
            if is_done {
                self.waiting.pop_front();
            } else if gone == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until nothing is left, as long as the socket takes something every `timeout` ms.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>, timeout: u32) -> io::Result<()> {
        while !self.advance(socket)? {
            wait_for(socket, PollFlags::POLLOUT, timeout)?;
        }
        Ok(())
    }
}

/// Waits until the socket is ready, at most `timeout` ms.
pub(super) fn wait_for(socket: BorrowedFd<'_>, what: PollFlags, timeout: u32) -> io::Result<()> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(socket, what)], timeout) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Hands parts to the socket; returns how many bytes it took.
fn send_parts(socket: BorrowedFd<'_>, parts: &[&[u8]]) -> io::Result<usize> {
    const AT_ONCE: usize = 64;
    let mut total = 0;
    for group in parts.chunks(AT_ONCE) {
        let len: usize = group.iter().map(|part| part.len()).sum();
        let sent = loop {
            let sent = match group {
                [part] => send(socket.as_raw_fd(), part, MsgFlags::MSG_NOSIGNAL),
                _ => {
                    let slices: [IoSlice<'_>; AT_ONCE] =
                        std::array::from_fn(|index| IoSlice::new(group.get(index).copied().unwrap_or_default()));
                    sendmsg::<()>(socket.as_raw_fd(), &slices[..group.len()], &[], MsgFlags::MSG_NOSIGNAL, None)
                }
            };
            match sent {
                Ok(sent) => break sent,
                Err(Errno::EAGAIN) => break 0,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        total += sent;
        if sent < len {
            break;
        }
    }
    Ok(total)
}

fn send_from(socket: BorrowedFd<'_>, bytes: &[u8], at: &mut usize) -> io::Result<(usize, bool)> {
    let sent = send_parts(socket, &[&bytes[*at..]])?;
    *at += sent;
    Ok((sent, *at == bytes.len()))
}

fn send_file_from(socket: BorrowedFd<'_>, file: &File, offset: &mut u64, left: &mut u64) -> io::Result<(usize, bool)> {
    if *left == 0 {
        return Ok((0, true));
    }
    let mut at = i64::try_from(*offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let sent = loop {
        match sendfile64(socket, file.as_fd(), Some(&mut at), (*left).min(FILE_AT_ONCE) as usize) {
            // The file became shorter after its length was told: the client must not take this for a whole answer.
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut short")),
            Ok(sent) => break sent,
            Err(Errno::EAGAIN) => break 0,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    *offset += sent as u64;
    *left -= sent as u64;
    Ok((sent, *left == 0))
}
