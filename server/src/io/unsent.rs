//! What a client has not taken yet, in order, and sending it: copies, other owners' bytes, parts of files.
//!
//! A worker keeps all of it where it is, for its thread waits before it makes more. The http router makes nothing, but
//! is sent it by workers that should not wait: what it cannot send goes to memory up to [`MEMORY_MAX`], to a file
//! beyond, so that a slow client holds no worker; and no more than [`FILE_MAX`], so that it holds no disk either.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tracing::error;

use super::{file, wait};
use crate::clock::MonotonicNanos;

/// Bytes that somebody else owns, kept until they are sent.
pub(crate) type Kept = Box<dyn AsRef<[u8]> + Send>;

/// Bytes that wait in the router's memory for one client. Most responses fit.
pub(crate) const MEMORY_MAX: usize = 1024 * 1024;
/// The largest file for one client of the router, bytes; its worker waits beyond that, until the client has taken all
/// of the file. nginx has the same limit for the same purpose (`proxy_max_temp_file_size`).
const FILE_MAX: u64 = 1024 * 1024 * 1024;
/// A part at least this long is kept through its owner; a shorter one is copied, bytes.
const WORTH_KEEPING: usize = 16 * 1024;
/// How much the socket is given at once of what waits, bytes.
const AT_ONCE: usize = 256 * 1024;
/// How much it is given before others get their turn, bytes: a client that reads as fast would have it go on and on.
const TURN: usize = 16 * AT_ONCE;
/// How long it is given more, ns.
const TURN_NANOS: u64 = 1_000_000;
/// Parts that one call takes.
const PARTS: usize = 64;
const FEW: usize = 8;

/// A piece that waits.
enum Piece {
    /// A copy, and how much of it is gone.
    Copied(Vec<u8>, usize),
    /// Somebody else's bytes, and how much of them is gone.
    Owned(Kept, usize),
    /// A part of a file: offset and length of what is left.
    File(File, u64, u64),
}

/// What [`Unsent::send_some`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Bytes that the socket took.
    pub(crate) count: u64,
    /// It might take more at once.
    pub(crate) more: bool,
}

/// Pieces that wait for the socket to take them, in order.
#[derive(Default)]
pub(crate) struct Unsent {
    pieces: VecDeque<Piece>,
    /// Bytes sent since it was last asked.
    sent: u64,
}

impl std::fmt::Debug for Unsent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unsent({} pieces)", self.pieces.len())
    }
}

impl Unsent {
    /// Whether nothing waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether what goes next is read from a disk.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.pieces.front(), Some(Piece::File(..)))
    }

    /// Whether what is added goes to a disk.
    pub(crate) fn spills(&self) -> bool {
        matches!(self.pieces.back(), Some(Piece::File(..)))
    }

    /// Whether the router should take no more from the worker.
    pub(crate) fn is_full(&self) -> bool {
        match self.pieces.back() {
            None => false,
            Some(Piece::File(_, at, left)) => at + left >= FILE_MAX,
            // A file could not be got.
            Some(Piece::Copied(bytes, gone)) => bytes.len() - gone >= 2 * MEMORY_MAX,
            Some(Piece::Owned(..)) => true,
        }
    }

    /// Bytes sent since the last call.
    #[inline]
    pub(crate) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// Sends what the socket takes now of `parts`, after what waits, but no more than a turn's worth; keeps the rest.
    /// Returns whether nothing is left.
    ///
    /// `own` gives an owner for the bytes of a part, so that a large one need not be copied to be kept.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn send(
        &mut self,
        socket: impl AsFd,
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        let mut gone = 0;
        if self.advance(&socket)? {
            let is_long = parts.iter().any(|part| part.len() > AT_ONCE);
            gone = if is_long { send_parts(&socket, &beginning(parts))? } else { send_parts(&socket, parts)? };
            self.sent += gone as u64;
        }
        for (index, part) in parts.iter().enumerate() {
            if gone >= part.len() {
                gone -= part.len();
                continue;
            }
            let kept = if part.len() - gone >= WORTH_KEEPING { own(index) } else { None };
            match kept {
                Some(owner) => self.pieces.push_back(Piece::Owned(owner, gone)),
                None => self.copy(&part[gone..]),
            }
            gone = 0;
        }
        Ok(self.is_empty())
    }

    /// The same for the router: what is left goes to memory, or to a file.
    ///
    /// # Errors
    /// When the client is gone, or what is for it can be kept no longer, which is logged.
    #[inline]
    pub(crate) fn send_or_spill(&mut self, socket: impl AsFd, parts: &[&[u8]]) -> io::Result<()> {
        let gone = if self.is_empty() { send_parts(&socket, parts)? } else { 0 };
        match parts {
            [part] if part.len() == gone => Ok(()),
            parts => self.spill_rest(parts, gone),
        }
    }

    /// Keeps what is not gone.
    fn spill_rest(&mut self, parts: &[&[u8]], mut gone: usize) -> io::Result<()> {
        for part in parts {
            let skip = gone.min(part.len());
            gone -= skip;
            if skip < part.len() {
                self.spill(&part[skip..])?;
            }
        }
        Ok(())
    }

    fn spill(&mut self, data: &[u8]) -> io::Result<()> {
        let waiting = match self.pieces.back() {
            Some(Piece::Copied(bytes, gone)) => bytes.len() - gone,
            _ => 0,
        };
        if !self.spills() && waiting + data.len() > MEMORY_MAX {
            match file::unnamed() {
                Ok(file) => self.pieces.push_back(Piece::File(file, 0, 0)),
                // It goes to memory, and the worker waits the sooner.
                Err(problem) => error!("cannot keep a response in a file for a slow client: {problem}"),
            }
        }
        let Some(Piece::File(file, at, left)) = self.pieces.back_mut() else {
            self.copy(data);
            return Ok(());
        };
        file.write_all_at(data, *at + *left).inspect_err(|problem| {
            error!("cannot keep a response in a file for a slow client, whose connection is closed: {problem}");
        })?;
        *left += data.len() as u64;
        Ok(())
    }

    /// Many small parts are one large piece.
    fn copy(&mut self, data: &[u8]) {
        let Some(Piece::Copied(bytes, gone)) = self.pieces.back_mut() else {
            return self.pieces.push_back(Piece::Copied(data.to_vec(), 0));
        };
        if *gone > bytes.len() / 2 {
            bytes.drain(..std::mem::take(gone));
        }
        bytes.extend_from_slice(data);
    }

    /// Sends a part of a file after what waits. Returns whether nothing is left.
    ///
    /// # Errors
    /// When the client is gone, or the file is shorter than that.
    pub(crate) fn send_file(&mut self, socket: impl AsFd, file: File, offset: u64, len: u64) -> io::Result<bool> {
        self.pieces.push_back(Piece::File(file, offset, len));
        self.advance(socket)
    }

    /// Sends what the socket takes now, but no more than a turn's worth; returns whether nothing is left.
    ///
    /// # Errors
    /// As [`Unsent::send_some`].
    #[inline]
    pub(crate) fn advance(&mut self, socket: impl AsFd) -> io::Result<bool> {
        if !self.is_empty() {
            self.send_some(socket)?;
        }
        Ok(self.is_empty())
    }

    /// Sends what the socket takes now, but no more than a turn's worth.
    ///
    /// # Errors
    /// When the client is gone, or a file was cut short, which is an [`io::ErrorKind::UnexpectedEof`].
    pub(crate) fn send_some(&mut self, socket: impl AsFd) -> io::Result<Sent> {
        let began = MonotonicNanos::now();
        let mut sent = Sent { count: 0, more: true };
        while !self.is_empty() && sent.more {
            if sent.count >= TURN as u64 || MonotonicNanos::now().nanos_since(began) >= TURN_NANOS {
                return Ok(sent);
            }
            let Sent { count, more } = self.send_first(&socket)?;
            sent = Sent { count: sent.count + count, more };
        }
        Ok(Sent { more: false, ..sent })
    }

    /// Sends of the first piece, of which there is one, and lets it go when it is gone. Taking less than it was given,
    /// the socket is full.
    fn send_first(&mut self, socket: impl AsFd) -> io::Result<Sent> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(Sent { count: 0, more: false }) };
        let (asked, count, is_gone) = match piece {
            Piece::Copied(bytes, gone) => send_from(socket, bytes, gone)?,
            Piece::Owned(owner, gone) => send_from(socket, owner.as_ref().as_ref(), gone)?,
            Piece::File(file, at, left) => {
                let asked = (*left).min(AT_ONCE as u64);
                let count = send_file_from(socket, file, at, asked as usize)?;
                *left -= count;
                (asked, count, *left == 0)
            }
        };
        self.sent += count;
        if is_gone {
            self.pieces.pop_front();
            // Given back: most clients never need it again.
            if self.pieces.is_empty() {
                self.pieces = VecDeque::new();
            }
        }
        Ok(Sent { count, more: count == asked })
    }

    /// Waits until nothing is left, as long as the socket takes something every so often.
    ///
    /// # Errors
    /// As [`Unsent::advance`], and [`io::ErrorKind::TimedOut`].
    pub(crate) fn flush(&mut self, socket: impl AsFd, patience: Duration) -> io::Result<()> {
        while !self.advance(&socket)? {
            wait::until_ready(&socket, PollFlags::OUT, patience)?;
        }
        Ok(())
    }
}

/// The beginning of parts that are long: a turn's worth.
#[cold]
fn beginning<'a>(parts: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let mut left = TURN;
    let cut = parts.iter().map(|part| {
        let part = &part[..part.len().min(left)];
        left -= part.len();
        part
    });
    cut.take_while(|part| !part.is_empty()).collect()
}

/// Hands parts to the socket; returns how many bytes it took.
///
/// # Errors
/// When the client is gone.
#[inline]
fn send_parts(socket: impl AsFd, parts: &[&[u8]]) -> io::Result<usize> {
    // By far most often.
    if let [part] = parts {
        return until_done(|| send(&socket, part, SendFlags::NOSIGNAL));
    }
    let mut total = 0;
    for group in parts.chunks(PARTS) {
        let sent = match group {
            // Most have few, and room for many takes its time to fill.
            few if few.len() <= FEW => send_group::<FEW>(&socket, few)?,
            many => send_group::<PARTS>(&socket, many)?,
        };
        total += sent;
        if total >= TURN || sent < group.iter().map(|part| part.len()).sum() {
            break;
        }
    }
    Ok(total)
}

/// Hands at most `N` parts to the socket with one call.
fn send_group<const N: usize>(socket: impl AsFd, parts: &[&[u8]]) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); N];
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    let slices = &slices[..parts.len().min(N)];
    until_done(|| sendmsg(&socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL))
}

/// Asked, taken, and whether all is gone.
fn send_from(socket: impl AsFd, bytes: &[u8], gone: &mut usize) -> io::Result<(u64, u64, bool)> {
    let rest = &bytes[*gone..bytes.len().min(*gone + AT_ONCE)];
    let count = until_done(|| send(&socket, rest, SendFlags::NOSIGNAL))?;
    *gone += count;
    Ok((rest.len() as u64, count as u64, *gone == bytes.len()))
}

fn send_file_from(socket: impl AsFd, file: &File, at: &mut u64, most: usize) -> io::Result<u64> {
    if most == 0 {
        return Ok(0);
    }
    match until_done(|| match sendfile(&socket, file, Some(at), most) {
        // The file became shorter after its length was sent: the client must not take this for a whole answer.
        Ok(0) => Err(Errno::NODATA),
        sent => sent,
    }) {
        Err(error) if error.raw_os_error() == Some(Errno::NODATA.raw_os_error()) => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut short"))
        }
        sent => sent.map(|count| count as u64),
    }
}

/// Tries again what a signal interrupted; 0 when the socket is full.
#[inline]
fn until_done(mut call: impl FnMut() -> Result<usize, Errno>) -> io::Result<usize> {
    loop {
        match call() {
            Ok(count) => return Ok(count),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn bytes_stay_in_order_between_memory_and_file() {
        let (ours, mut theirs) = pair();
        let mut unsent = Unsent::default();
        let (mut expected, mut received) = (Vec::new(), Vec::new());
        let mut spilled = false;
        let mut buf = vec![0; 100_000];
        for round in 0..200usize {
            // Faster than it is read at first, slower later: through memory to the file, and back.
            let piece: Vec<u8> = (0..if round < 100 { 50_000 } else { 100 }).map(|at| (at * 7 + round) as u8).collect();
            let (one, two) = piece.split_at(piece.len() / 3);
            unsent.send_or_spill(&ours, &[one, two]).unwrap();
            expected.extend_from_slice(&piece);
            spilled |= unsent.spills();
            if let Ok(count) = theirs.read(&mut buf[..if round < 100 { 20_000 } else { 100_000 }]) {
                received.extend_from_slice(&buf[..count]);
            }
            unsent.send_some(&ours).unwrap();
        }
        assert!(spilled);
        while received.len() < expected.len() {
            let sent = unsent.send_some(&ours).unwrap();
            assert!(!sent.more, "the socket is smaller than a turn");
            let count = theirs.read(&mut buf).unwrap();
            received.extend_from_slice(&buf[..count]);
        }
        assert!(received == expected);
        assert!(unsent.is_empty() && !unsent.is_full() && unsent.pieces.capacity() == 0);
    }

    #[test]
    fn a_large_part_is_kept_through_its_owner_and_a_file_follows_it() {
        let (ours, mut theirs) = pair();
        let mut unsent = Unsent::default();
        let part: Vec<u8> = (0..1_000_000).map(|at| at as u8).collect();
        let mut owned = 0;
        let mut file = file::unnamed().unwrap();
        io::Write::write_all(&mut file, b"a file's end").unwrap();
        let all_sent = unsent.send(&ours, &[b"head", &part], &mut |index| {
            owned = index;
            Some(Box::new(part.clone()))
        });
        assert!(!all_sent.unwrap() && owned == 1);
        assert!(!unsent.send_file(&ours, file.try_clone().unwrap(), 2, 10).unwrap());
        let (mut received, mut buf) = (Vec::new(), vec![0; 100_000]);
        while received.len() < 4 + part.len() + 10 {
            unsent.advance(&ours).unwrap();
            let count = theirs.read(&mut buf).unwrap();
            received.extend_from_slice(&buf[..count]);
        }
        assert!(received == [b"head", part.as_slice(), b"file's end"].concat());
        assert_eq!(unsent.take_sent(), received.len() as u64);
        // Shorter than was said.
        assert!(!unsent.send_file(&ours, file, 2, 11).unwrap());
        assert_eq!(unsent.advance(&ours).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_client_that_reads_as_fast_as_it_is_sent_to_gets_a_turn_and_no_more() {
        const LEN: usize = 64 * 1024 * 1024;
        let file = file::unnamed().unwrap();
        file.set_len(LEN as u64).unwrap();
        let part = vec![0; LEN];
        let (ours, mut theirs) = pair();
        theirs.set_nonblocking(false).unwrap();
        let reader = std::thread::spawn(move || io::copy(&mut theirs, &mut io::sink()).unwrap());
        let mut unsent = Unsent::default();
        unsent.send(&ours, &[b"head", &part], &mut |_| Some(Box::new(part.clone()))).unwrap();
        let mut taken = unsent.take_sent();
        assert!(taken <= TURN as u64, "{taken} of a part");
        unsent.send_file(&ours, file, 0, LEN as u64).unwrap();
        while !unsent.is_empty() {
            unsent.advance(&ours).unwrap();
            let sent = unsent.take_sent();
            assert!(sent < (TURN + AT_ONCE) as u64, "{sent} at once");
            taken += sent;
        }
        drop(ours);
        assert_eq!(taken, 4 + 2 * LEN as u64);
        assert_eq!(reader.join().unwrap(), taken);
    }

    #[test]
    fn a_worker_waits_for_a_client_whose_file_is_full_or_could_not_be_had() {
        let mut unsent = Unsent::default();
        unsent.copy(&vec![0; 2 * MEMORY_MAX - 1]);
        assert!(!unsent.is_full());
        unsent.copy(&[0]);
        assert!(unsent.is_full());
        unsent.pieces.push_back(Piece::File(file::unnamed().unwrap(), 0, 1));
        assert!(!unsent.is_full());
        unsent.pieces.push_back(Piece::File(file::unnamed().unwrap(), 1, FILE_MAX - 1));
        assert!(unsent.is_full());
    }

    #[test]
    fn a_client_that_is_gone_is_noticed() {
        let (ours, theirs) = pair();
        drop(theirs);
        let mut unsent = Unsent::default();
        assert!(unsent.send_or_spill(&ours, &[b"x"]).is_err());
        assert!(unsent.send(&ours, &[b"x"], &mut |_| None).is_err());
    }
}
