//! The bytes that a client has not read yet, in order, and sending them: copies, other owners' bytes, parts of files.
//!
//! A worker keeps all of them where they are, because its thread waits before it makes more. The http router gets them from
//! workers that should not wait for slow clients. What it cannot send stays in memory up to a megabyte (less when many
//! clients are slow, see [`TempFiles::memory_for_one`]), and then goes to a file of at most [`FILE_MAX`]. Beyond that, and
//! when there is no space for a file, the worker waits until the client has read what is here.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::pace::{MinRates, Pace, Seen, unacknowledged};
use super::temp::{TempError, TempFile, TempFiles, log_response_not_kept};
use super::wait;
use crate::clock::MonotonicNanos;

/// Bytes that somebody else owns, kept until they are sent.
pub(crate) type Kept = Box<dyn AsRef<[u8]> + Send>;

/// The largest file for one client of the router, bytes; its worker waits beyond that, until the client has taken all
/// of the file. nginx has the same limit for the same purpose (`proxy_max_temp_file_size`).
const FILE_MAX: u64 = 1024 * 1024 * 1024;
/// A part at least this long is kept through its owner; a shorter one is copied, bytes.
const WORTH_KEEPING: usize = 16 * 1024;
/// Bytes that one call gives to the socket.
const AT_ONCE: usize = 256 * 1024;
/// Bytes for one client in its turn: one that reads as fast as they are sent would never let others have theirs.
const TURN: usize = 16 * AT_ONCE;
/// Time for one client in its turn, ns.
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
    /// What was too much for memory, and how much of it is gone.
    Spilled(TempFile, u64),
}

/// A client reads its response more slowly than `response-min-rate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it takes the response too slowly (response-min-rate)")]
pub(crate) struct TooSlow;

impl TooSlow {
    /// Whether this is why a write failed.
    pub(crate) fn is_why(failure: &io::Error) -> bool {
        failure.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
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
    /// Bytes sent, in all.
    sent: u64,
    /// How many of them were reported.
    reported: u64,
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
        matches!(self.pieces.front(), Some(Piece::File(..) | Piece::Spilled(..)))
    }

    /// Whether what is added goes to a disk.
    pub(crate) fn spills(&self) -> bool {
        matches!(self.pieces.back(), Some(Piece::Spilled(..)))
    }

    /// Whether something that waits is in a temporary file. There are three pieces at most then.
    fn has_spilled(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Spilled(..)))
    }

    /// Whether the router should take no more from the worker.
    pub(crate) fn is_full(&self, temp: &TempFiles) -> bool {
        match self.pieces.back() {
            None => false,
            Some(Piece::Spilled(file, _)) => file.len() >= FILE_MAX,
            // The file had no space for this: it begins again when the file is gone.
            Some(Piece::Copied(..)) if self.has_spilled() => true,
            // A file could not be got.
            Some(Piece::Copied(bytes, gone)) => bytes.len() - gone >= 2 * temp.memory_for_one(),
            Some(Piece::Owned(..) | Piece::File(..)) => true,
        }
    }

    /// Bytes sent since the last call.
    #[inline]
    pub(crate) fn take_sent(&mut self) -> u64 {
        let sent = self.sent - self.reported;
        self.reported = self.sent;
        sent
    }

    /// Bytes that the client has taken of all that was sent: what is still in the kernel is not counted.
    pub(crate) fn taken(&self, socket: impl AsFd) -> u64 {
        self.sent.saturating_sub(unacknowledged(socket))
    }

    /// Sends what the socket takes now of `parts`, after what waits, but no more than a turn's worth; keeps the rest.
    /// Returns whether nothing is left.
    ///
    /// `own` gives an owner for the bytes of a part, so that a large one need not be copied to be kept.
    ///
    /// # Errors
    /// When the client is gone.
    #[inline]
    pub(crate) fn send(
        &mut self,
        socket: impl AsFd,
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        self.send_with(SendFlags::NOSIGNAL, socket, parts, own)
    }

    /// The same for what is followed at once by the end of the connection: that goes in the same packet, which saves both
    /// ends one, and the client a wake-up.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn send_last(
        &mut self,
        socket: impl AsFd,
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        self.send_with(SendFlags::NOSIGNAL | SendFlags::MORE, socket, parts, own)
    }

    fn send_with(
        &mut self,
        flags: SendFlags,
        socket: impl AsFd,
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        let mut gone = 0;
        if self.advance(&socket)? {
            let is_long = parts.iter().any(|part| part.len() > AT_ONCE);
            gone = if is_long {
                send_parts(&socket, &beginning(parts), flags)?
            } else {
                send_parts(&socket, parts, flags)?
            };
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
    /// When the client is gone.
    #[inline]
    pub(crate) fn send_or_spill(&mut self, socket: impl AsFd, parts: &[&[u8]], temp: &TempFiles) -> io::Result<()> {
        let gone = if self.is_empty() { send_parts(&socket, parts, SendFlags::NOSIGNAL)? } else { 0 };
        self.sent += gone as u64;
        match parts {
            [part] if part.len() == gone => {}
            parts => self.spill_rest(parts, gone, temp),
        }
        Ok(())
    }

    /// Keeps what is not gone.
    fn spill_rest(&mut self, parts: &[&[u8]], mut gone: usize, temp: &TempFiles) {
        for part in parts {
            let skip = gone.min(part.len());
            gone -= skip;
            if skip < part.len() {
                self.spill(&part[skip..], temp);
            }
        }
    }

    fn spill(&mut self, data: &[u8], temp: &TempFiles) {
        let waiting = match self.pieces.back() {
            Some(Piece::Copied(bytes, gone)) => bytes.len() - gone,
            _ => 0,
        };
        if !self.spills() && waiting + data.len() > temp.memory_for_one() && !self.has_spilled() {
            match temp.create() {
                Ok(file) => self.pieces.push_back(Piece::Spilled(file, 0)),
                // It goes to memory, and the worker waits the sooner.
                Err(problem) => log_response_not_kept(&problem),
            }
        }
        let Some(Piece::Spilled(file, _)) = self.pieces.back_mut() else { return self.copy(data) };
        if let Err(problem) = file.append(data) {
            log_response_not_kept(&problem);
            if file.len() == 0 {
                self.pieces.pop_back();
            }
            self.copy(data);
        }
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

    /// Bytes in memory that wait. Of somebody else's all are counted, for all stay there until the last one is sent.
    pub(crate) fn in_memory(&self) -> u64 {
        let bytes = |piece: &Piece| match piece {
            Piece::Copied(bytes, _) => bytes.len() as u64,
            Piece::Owned(owner, _) => owner.as_ref().as_ref().len() as u64,
            Piece::File(..) | Piece::Spilled(..) => 0,
        };
        self.pieces.iter().map(bytes).sum()
    }

    /// Puts what waits in memory in a temporary file, unless a file of the application's comes between.
    ///
    /// # Errors
    /// When there is no space for it: then all is as it was.
    pub(crate) fn move_to_file(&mut self, temp: &TempFiles) -> Result<(), TempError> {
        if self.pieces.iter().any(|piece| matches!(piece, Piece::File(..) | Piece::Spilled(..))) {
            return Ok(());
        }
        let mut file = temp.create()?;
        for piece in &self.pieces {
            match piece {
                Piece::Copied(bytes, gone) => file.append(&bytes[*gone..])?,
                Piece::Owned(owner, gone) => file.append(&owner.as_ref().as_ref()[*gone..])?,
                Piece::File(..) | Piece::Spilled(..) => {}
            }
        }
        self.pieces = VecDeque::from([Piece::Spilled(file, 0)]);
        Ok(())
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
            Piece::Spilled(file, at) => {
                let asked = (file.len() - *at).min(AT_ONCE as u64);
                let count = send_file_from(socket, &*file, at, asked as usize)?;
                (asked, count, *at == file.len())
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

    /// Waits until nothing is left, as long as the socket takes something every so often, and the client enough of it.
    ///
    /// # Errors
    /// As [`Unsent::advance`]; [`io::ErrorKind::TimedOut`] when nothing is taken for that long, and [`TooSlow`] when too
    /// little is.
    pub(crate) fn flush(&mut self, socket: impl AsFd, patience: Duration, rates: MinRates) -> io::Result<()> {
        if self.advance(&socket)? {
            return Ok(());
        }
        let began = Instant::now();
        let mut pace = Pace::of_response(rates, 0);
        let mut patient_until = began + patience;
        loop {
            let next_look = began + Duration::from_secs(pace.until().into());
            let now = Instant::now();
            let wait = patient_until.min(next_look).saturating_duration_since(now);
            match wait::until_ready(&socket, PollFlags::OUT, wait) {
                Ok(()) => {
                    if self.advance(&socket)? {
                        return Ok(());
                    }
                    patient_until = Instant::now() + patience;
                }
                Err(failure) if failure.kind() != io::ErrorKind::TimedOut || patient_until <= next_look => {
                    return Err(failure);
                }
                Err(_) => {}
            }
            let second = u32::try_from(began.elapsed().as_secs()).unwrap_or(u32::MAX);
            if second >= pace.until() {
                match pace.look_at_response(rates, second, self.taken(&socket)) {
                    Seen::Slow => return Err(io::Error::new(io::ErrorKind::TimedOut, TooSlow)),
                    // It takes enough, though the kernel may have had no space for more yet.
                    Seen::Goes => patient_until = Instant::now() + patience,
                    Seen::Early => {}
                }
            }
        }
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
fn send_parts(socket: impl AsFd, parts: &[&[u8]], flags: SendFlags) -> io::Result<usize> {
    // By far most often.
    if let [part] = parts {
        return until_done(|| send(&socket, part, flags));
    }
    let mut total = 0;
    for group in parts.chunks(PARTS) {
        let sent = match group {
            // Most have few, and room for many takes its time to fill.
            few if few.len() <= FEW => send_group::<FEW>(&socket, few, flags)?,
            many => send_group::<PARTS>(&socket, many, flags)?,
        };
        total += sent;
        if total >= TURN || sent < group.iter().map(|part| part.len()).sum() {
            break;
        }
    }
    Ok(total)
}

/// Hands at most `N` parts to the socket with one call.
fn send_group<const N: usize>(socket: impl AsFd, parts: &[&[u8]], flags: SendFlags) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); N];
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    let slices = &slices[..parts.len().min(N)];
    until_done(|| sendmsg(&socket, slices, &mut SendAncillaryBuffer::default(), flags))
}

/// Asked, taken, and whether all is gone.
fn send_from(socket: impl AsFd, bytes: &[u8], gone: &mut usize) -> io::Result<(u64, u64, bool)> {
    let rest = &bytes[*gone..bytes.len().min(*gone + AT_ONCE)];
    let count = until_done(|| send(&socket, rest, SendFlags::NOSIGNAL))?;
    *gone += count;
    Ok((rest.len() as u64, count as u64, *gone == bytes.len()))
}

fn send_file_from(socket: impl AsFd, file: impl AsFd, at: &mut u64, most: usize) -> io::Result<u64> {
    if most == 0 {
        return Ok(0);
    }
    match until_done(|| match sendfile(&socket, &file, Some(at), most) {
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
mod tests;
