//! The part of a response that its client has not taken yet: in memory up to [`MEMORY_MAX`], in an unlinked file beyond,
//! so that a slow client holds no worker; and no more than [`FILE_MAX`], so that it holds no disk either.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send, sendmsg};
use tracing::error;

use super::spool::unlinked_file;

/// Bytes that wait in memory for one client. Most responses fit.
pub(super) const MEMORY_MAX: usize = 1024 * 1024;
/// The largest file for one client, bytes; its worker waits beyond that, until the client has taken all of the file.
/// nginx has the same limit for the same purpose (`proxy_max_temp_file_size`).
const FILE_MAX: u64 = 1024 * 1024 * 1024;

/// How many megabytes one client gets before others get their turn.
const TURNS: usize = 4;

/// The client's connection is broken, or its response can be kept no longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// What [`Output::flush`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flushed {
    /// The socket took something.
    pub(super) progress: bool,
    /// It might take more at once.
    pub(super) more: bool,
}

/// What did not fit in memory.
#[derive(Debug)]
struct Spill {
    file: File,
    written: u64,
    sent: u64,
}

/// The bytes that wait, in order: those in memory, then those in the file.
#[derive(Debug, Default)]
pub(super) struct Output {
    memory: Vec<u8>,
    /// How many bytes of `memory` are sent.
    sent: usize,
    spill: Option<Box<Spill>>,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.spill.is_none()
    }

    /// Whether the worker is to wait before it adds more.
    pub(super) fn is_full(&self) -> bool {
        match &self.spill {
            Some(spill) => spill.written >= FILE_MAX,
            // A file could not be had.
            None => self.memory.len() - self.sent >= 2 * MEMORY_MAX,
        }
    }

    /// Sends, in order, whatever the socket takes; keeps the rest.
    pub(super) fn send(&mut self, socket: &OwnedFd, slices: &[IoSlice<'_>]) -> Result<(), Gone> {
        let mut taken = if self.is_empty() { send_now(socket, slices)? } else { 0 };
        for slice in slices {
            let skip = taken.min(slice.len());
            taken -= skip;
            self.keep(&slice[skip..])?;
        }
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Gone> {
        if self.spill.is_none() && self.memory.len() - self.sent + data.len() > MEMORY_MAX && !data.is_empty() {
            match unlinked_file() {
                Ok(file) => self.spill = Some(Box::new(Spill { file, written: 0, sent: 0 })),
                // It goes to memory, and the worker waits the sooner.
                Err(problem) => error!("cannot keep a response in a file for a slow client: {problem}"),
            }
        }
        let Some(spill) = &mut self.spill else {
            self.memory.extend_from_slice(data);
            return Ok(());
        };
        spill.file.write_all_at(data, spill.written).map_err(|problem| {
            error!("cannot keep a response in a file for a slow client, whose connection is closed: {problem}");
            Gone
        })?;
        spill.written += data.len() as u64;
        Ok(())
    }

    /// Sends more of what is kept, but no more than a turn's worth.
    pub(super) fn flush(&mut self, socket: &OwnedFd) -> Result<Flushed, Gone> {
        let mut flushed = Flushed { progress: false, more: false };
        for _ in 0..TURNS {
            let (asked, taken) =
                if self.memory.is_empty() { self.flush_file(socket)? } else { self.flush_memory(socket)? };
            flushed.progress |= taken > 0;
            // Taking less than there is, the socket is full and will say when it is not.
            flushed.more = taken == asked && !self.is_empty();
            if !flushed.more {
                break;
            }
        }
        Ok(flushed)
    }

    /// Bytes that were dispatched, and that were taken.
    fn flush_memory(&mut self, socket: &OwnedFd) -> Result<(usize, usize), Gone> {
        let asked = self.memory.len() - self.sent;
        let taken = send_now(socket, &[IoSlice::new(&self.memory[self.sent..])])?;
        self.sent += taken;
        if self.sent == self.memory.len() {
            // Given back: most clients never need it again.
            self.memory = Vec::new();
            self.sent = 0;
        } else if self.sent > self.memory.len() / 2 {
            self.memory.drain(..self.sent);
            self.sent = 0;
        }
        Ok((asked, taken))
    }

    fn flush_file(&mut self, socket: &OwnedFd) -> Result<(usize, usize), Gone> {
        let Some(spill) = &mut self.spill else { return Ok((0, 0)) };
        let asked = usize::try_from(spill.written - spill.sent).map_or(MEMORY_MAX, |left| left.min(MEMORY_MAX));
        // Bounded far below what the kernel's signed number holds.
        let mut position = spill.sent as i64;
        let taken = match sendfile64(socket.as_fd(), &spill.file, Some(&mut position), asked) {
            Ok(0) | Err(Errno::EIO) => {
                error!("a response that was kept in a file cannot be read back; its connection is closed");
                return Err(Gone);
            }
            Ok(taken) => taken,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(_) => return Err(Gone),
        };
        spill.sent += taken as u64;
        if spill.sent == spill.written {
            self.spill = None;
        }
        Ok((asked, taken))
    }
}

fn send_now(socket: &OwnedFd, slices: &[IoSlice<'_>]) -> Result<usize, Gone> {
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = match slices {
        [] => return Ok(0),
        [one] => send(fd, one, flags),
        many => sendmsg::<()>(fd, many, &[], flags, None),
    };
    match sent {
        Ok(count) => Ok(count),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(_) => Err(Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_stay_in_order_between_memory_and_file() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let socket = OwnedFd::from(ours);
        let mut output = Output::default();
        let (mut expected, mut received) = (Vec::new(), Vec::new());
        let mut spilled = false;
        let mut buf = vec![0; 100_000];
        for round in 0..200usize {
            // Faster than it is read at first, slower later: through memory to the file, and back.
            let piece: Vec<u8> = (0..if round < 100 { 50_000 } else { 100 }).map(|at| (at * 7 + round) as u8).collect();
            let (one, two) = piece.split_at(piece.len() / 3);
            output.send(&socket, &[IoSlice::new(one), IoSlice::new(two)]).unwrap();
            expected.extend_from_slice(&piece);
            spilled |= output.spill.is_some();
            if let Ok(count) = theirs.read(&mut buf[..if round < 100 { 20_000 } else { 100_000 }]) {
                received.extend_from_slice(&buf[..count]);
            }
            output.flush(&socket).unwrap();
        }
        assert!(spilled);
        while received.len() < expected.len() {
            let flushed = output.flush(&socket).unwrap();
            assert!(!flushed.more, "the socket is smaller than a turn");
            let count = theirs.read(&mut buf).unwrap();
            received.extend_from_slice(&buf[..count]);
        }
        assert!(received == expected);
        assert!(output.is_empty() && output.spill.is_none() && output.memory.capacity() == 0);
    }

    #[test]
    fn a_client_that_is_gone_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let socket = OwnedFd::from(ours);
        let mut output = Output::default();
        assert!(output.send(&socket, &[IoSlice::new(b"x")]).is_err());
    }
}
