//! What a client has not taken yet, in order, and sending it: copies, other owners' bytes, parts of files.
//!
//! A worker keeps all of it where it is, for its thread waits before it makes more. The http router makes nothing, but
//! is sent it by workers that should not wait: what it cannot send goes to memory up to [`MEMORY_MAX`], to a file
//! beyond, so that a slow client holds no worker; and no more than [`FILE_MAX`], so that it holds no disk either. Where
//! there is no space for a file the worker waits until the client has taken what is here.

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
use super::temp::{TempFile, TempFiles};
use super::wait;

/// Bytes that somebody else owns, kept until they are sent.
pub(crate) type Kept = Box<dyn AsRef<[u8]> + Send>;

/// Bytes that wait in the router's memory for one client. Most responses fit.
pub(crate) const MEMORY_MAX: usize = 1024 * 1024;
/// The largest file for one client of the router, bytes; its worker waits beyond that, until the client has taken all
/// of the file. nginx has the same limit for the same purpose (`proxy_max_temp_file_size`).
const FILE_MAX: u64 = 1024 * 1024 * 1024;
/// A part at least this long is kept through its owner; a shorter one is copied, bytes.
const WORTH_KEEPING: usize = 16 * 1024;
/// The most that one call hands to the kernel from a file, bytes: Linux takes no more at once.
const FILE_AT_ONCE: u64 = 0x7fff_f000;
/// How much of it is asked for at once where others wait for their turn, bytes.
const TURN: u64 = 1024 * 1024;
/// How many of those one client gets before others get their turn.
const TURNS: usize = 4;
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

/// A client takes its response more slowly than it may.
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

    /// Whether the router should take no more from the worker.
    pub(crate) fn is_full(&self) -> bool {
        match self.pieces.back() {
            None => false,
            Some(Piece::Spilled(file, _)) => file.len() >= FILE_MAX,
            // The file had no space for this: it begins again when the file is gone.
            Some(Piece::Copied(..)) if self.is_file() => true,
            // A file could not be got.
            Some(Piece::Copied(bytes, gone)) => bytes.len() - gone >= 2 * MEMORY_MAX,
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

    /// Sends what the socket takes now of `parts`, after what waits; keeps the rest. Returns whether nothing is left.
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
            gone = send_parts(&socket, parts)?;
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
        let gone = if self.is_empty() { send_parts(&socket, parts)? } else { 0 };
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
        if !self.spills() && waiting + data.len() > MEMORY_MAX && !self.is_file() {
            match temp.create() {
                Ok(file) => self.pieces.push_back(Piece::Spilled(file, 0)),
                // It goes to memory, and the worker waits the sooner.
                Err(problem) => temp.hold_response(&problem),
            }
        }
        let Some(Piece::Spilled(file, _)) = self.pieces.back_mut() else { return self.copy(data) };
        if let Err(problem) = file.append(data) {
            temp.hold_response(&problem);
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

    /// Sends a part of a file after what waits. Returns whether nothing is left.
    ///
    /// # Errors
    /// When the client is gone, or the file is shorter than that.
    pub(crate) fn send_file(&mut self, socket: impl AsFd, file: File, offset: u64, len: u64) -> io::Result<bool> {
        self.pieces.push_back(Piece::File(file, offset, len));
        self.advance(socket)
    }

    /// Sends what the socket takes now; returns whether nothing is left.
    ///
    /// # Errors
    /// When the client is gone, or a file was cut short, which is an [`io::ErrorKind::UnexpectedEof`].
    #[inline]
    pub(crate) fn advance(&mut self, socket: impl AsFd) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            if !self.send_first(&socket, FILE_AT_ONCE)?.more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends what the socket takes now, but no more than a turn's worth.
    ///
    /// # Errors
    /// As [`Unsent::advance`].
    pub(crate) fn send_some(&mut self, socket: impl AsFd) -> io::Result<Sent> {
        let mut sent = Sent { count: 0, more: false };
        for _ in 0..TURNS {
            if self.pieces.is_empty() {
                return Ok(Sent { more: false, ..sent });
            }
            let Sent { count, more } = self.send_first(&socket, TURN)?;
            sent = Sent { count: sent.count + count, more };
            if !more {
                return Ok(sent);
            }
        }
        Ok(Sent { more: sent.more && !self.is_empty(), ..sent })
    }

    /// Sends of the first piece, of which there is one, and lets it go when it is gone. Taking less than it was given,
    /// the socket is full.
    fn send_first(&mut self, socket: impl AsFd, most: u64) -> io::Result<Sent> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(Sent { count: 0, more: false }) };
        let (asked, count, is_gone) = match piece {
            Piece::Copied(bytes, gone) => send_from(socket, bytes, gone)?,
            Piece::Owned(owner, gone) => send_from(socket, owner.as_ref().as_ref(), gone)?,
            Piece::File(file, at, left) => {
                let asked = (*left).min(most);
                let count = send_file_from(socket, file, at, asked)?;
                *left -= count;
                (asked, count, *left == 0)
            }
            Piece::Spilled(file, at) => {
                let asked = (file.len() - *at).min(most);
                let count = send_file_from(socket, &*file, at, asked)?;
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
        if sent < group.iter().map(|part| part.len()).sum() {
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
    let rest = &bytes[*gone..];
    let count = until_done(|| send(&socket, rest, SendFlags::NOSIGNAL))?;
    *gone += count;
    Ok((rest.len() as u64, count as u64, *gone == bytes.len()))
}

fn send_file_from(socket: impl AsFd, file: impl AsFd, at: &mut u64, most: u64) -> io::Result<u64> {
    if most == 0 {
        return Ok(0);
    }
    let most = most.min(FILE_AT_ONCE) as usize;
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
        let temp = TempFiles::of_test(None);
        let mut unsent = Unsent::default();
        let (mut expected, mut received) = (Vec::new(), Vec::new());
        let mut spilled = false;
        let mut buf = vec![0; 100_000];
        for round in 0..200usize {
            // Faster than it is read at first, slower later: through memory to the file, and back.
            let piece: Vec<u8> = (0..if round < 100 { 50_000 } else { 100 }).map(|at| (at * 7 + round) as u8).collect();
            let (one, two) = piece.split_at(piece.len() / 3);
            unsent.send_or_spill(&ours, &[one, two], &temp).unwrap();
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
        assert_eq!(temp.taken(), 0);
    }

    #[test]
    fn a_large_part_is_kept_through_its_owner_and_a_file_follows_it() {
        let (ours, mut theirs) = pair();
        let mut unsent = Unsent::default();
        let part: Vec<u8> = (0..1_000_000).map(|at| at as u8).collect();
        let mut owned = 0;
        let mut file = tempfile::tempfile().unwrap();
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
    fn a_worker_waits_for_a_client_whose_file_is_full_or_could_not_be_had() {
        let mut unsent = Unsent::default();
        unsent.copy(&vec![0; 2 * MEMORY_MAX - 1]);
        assert!(!unsent.is_full());
        unsent.copy(&[0]);
        assert!(unsent.is_full());
    }

    #[test]
    fn a_worker_waits_where_files_have_no_space_and_no_byte_is_lost() {
        let (ours, mut theirs) = pair();
        let temp = TempFiles::of_test(Some(3 << 20));
        let mut unsent = Unsent::default();
        let piece: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
        let (mut expected, mut received) = (Vec::new(), Vec::new());
        let mut buf = vec![0; 200_000];
        let mut times_full = 0;
        while times_full < 3 {
            while !unsent.is_full() {
                unsent.send_or_spill(&ours, &[&piece], &temp).unwrap();
                expected.extend_from_slice(&piece);
                assert!(temp.taken() <= 3 << 20);
            }
            // Memory, a file, and what came when that had no more space.
            assert!(expected.len() - received.len() > 3 << 20 && expected.len() - received.len() < 6 << 20);
            times_full += 1;
            while unsent.is_full() {
                let count = theirs.read(&mut buf).unwrap();
                received.extend_from_slice(&buf[..count]);
                unsent.send_some(&ours).unwrap();
            }
        }
        while received.len() < expected.len() {
            unsent.send_some(&ours).unwrap();
            let count = theirs.read(&mut buf).unwrap();
            received.extend_from_slice(&buf[..count]);
        }
        assert!(received == expected);
        assert_eq!(temp.taken(), 0);
    }

    #[test]
    fn a_client_that_takes_too_little_is_too_slow_and_others_are_waited_for() {
        let configured = rwsgi_config::MinRates {
            response: rwsgi_config::MinRate::Everywhere(std::num::NonZeroU32::new(1 << 20).unwrap()),
            grace: 1,
            ..Default::default()
        };
        let rates = MinRates::new(&configured, false);
        for (rates, is_slow) in [(rates, true), (MinRates::NONE, false)] {
            let (ours, mut theirs) = pair();
            let mut unsent = Unsent::default();
            unsent.copy(&vec![0; 4 << 20]);
            let reader = std::thread::spawn(move || {
                let mut buf = vec![0; 100_000];
                // Slow at first, and so long that it is noticed.
                for _ in 0..60 {
                    let _ = theirs.read(&mut buf[..2_000]);
                    std::thread::sleep(Duration::from_millis(100));
                }
                theirs.set_nonblocking(false).unwrap();
                while theirs.read(&mut buf).is_ok_and(|count| count > 0) {}
            });
            let flushed = unsent.flush(&ours, Duration::from_secs(60), rates);
            drop(ours);
            reader.join().unwrap();
            assert_eq!(flushed.is_err_and(|failure| TooSlow::is_why(&failure)), is_slow);
        }
    }

    #[test]
    fn a_client_that_is_gone_is_noticed() {
        let (ours, theirs) = pair();
        drop(theirs);
        let mut unsent = Unsent::default();
        assert!(unsent.send_or_spill(&ours, &[b"x"], &TempFiles::of_test(None)).is_err());
        assert!(unsent.send(&ours, &[b"x"], &mut |_| None).is_err());
    }
}
