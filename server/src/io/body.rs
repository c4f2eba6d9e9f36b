//! A request's body on its way in, gathered before anybody serves the request, so that a slow client holds no thread:
//! in memory up to `post-buffering`, beyond that in a file without a name.
//!
//! What a client announces costs nothing: memory and files are taken when bytes come.

use std::collections::TryReserveError;
use std::os::fd::AsFd;

use thiserror::Error;
use tracing::error;

use super::receive::{Received, append};
use super::temp::{TempError, TempFile, TempFiles};
use crate::clock::MonotonicNanos;
use crate::log_limit::{self, LineKind};
use rwsgi_protocol::chunked::Decoder;
use rwsgi_protocol::http::{BODY_TOO_LARGE, Refusal};

/// The first memory for a body, bytes: what a socket has at once. A client that has sent as much gets more.
const FIRST_ROOM: usize = 64 * 1024;
/// The answer when there is no space for a body, on every socket.
const NO_PLACE: Refusal = Refusal { status: 503, reason: "the request body cannot be kept" };

/// How large bodies may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyLimits {
    /// `post-buffering`: the largest body that waits in memory, bytes.
    pub(crate) in_memory: u64,
    /// `limit-post`: the largest body of all, bytes.
    pub(crate) most: Option<u64>,
}

impl BodyLimits {
    /// Of the options `post-buffering` and `limit-post`, whose 0 is no limit.
    pub(crate) fn new(post_buffering: u64, limit_post: u64) -> Self {
        Self { in_memory: post_buffering, most: (limit_post != 0).then_some(limit_post) }
    }

    fn check(self, len: u64) -> Result<(), IntakeError> {
        if self.most.is_some_and(|most| len > most) { Err(IntakeError::Refused(BODY_TOO_LARGE)) } else { Ok(()) }
    }
}

/// Why a body is not taken.
#[derive(Debug, Error)]
pub(crate) enum IntakeError {
    /// It is malformed or too large.
    #[error("{0}")]
    Refused(Refusal),
    /// It cannot be put in a temporary file, which is counted and in the log.
    #[error("{0}")]
    File(#[from] TempError),
    /// There is no memory for it.
    #[error("out of memory (limit-as, or the system's): {0}")]
    Memory(#[from] TryReserveError),
}

impl IntakeError {
    /// What the client gets. What is not the client's fault is in the log.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => *refusal,
            Self::File(_) => NO_PLACE,
            Self::Memory(_) => {
                if log_limit::allows(LineKind::BodyNotKept) {
                    error!("a request body cannot be kept, its client gets 503: {self}");
                }
                NO_PLACE
            }
        }
    }
}

/// A whole body.
#[derive(Debug, Default)]
pub(crate) enum StoredBody {
    /// There is none.
    #[default]
    Empty,
    Memory(Vec<u8>),
    /// All that is in the file.
    File(TempFile),
}

impl StoredBody {
    /// Bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.len(),
        }
    }
}

/// A request whose body is not whole yet.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// As the client sent it.
    pub(crate) head: Vec<u8>,
    /// When that was whole.
    pub(crate) since: MonotonicNanos,
    pub(crate) intake: BodyIntake,
}

/// How the end of a body is known.
#[derive(Debug)]
enum BodyEnd {
    /// This many bytes are still to come.
    Length(u64),
    Chunked(Box<Decoder>),
}

/// A body that is being gathered.
#[derive(Debug)]
pub(crate) struct BodyIntake {
    end: BodyEnd,
    /// The body so far; and, at its end, what was received with it that is not the body's.
    memory: Vec<u8>,
    file: Option<TempFile>,
    /// Bytes of the body that have come.
    len: u64,
    limits: BodyLimits,
}

impl BodyIntake {
    /// A body of a length that is known. `memory` is empty; its capacity is used.
    ///
    /// # Errors
    /// When it is too long, or needs a file and there is no space for it now.
    pub(crate) fn of_length(
        len: u64,
        limits: BodyLimits,
        memory: Vec<u8>,
        temp: &TempFiles,
    ) -> Result<Self, IntakeError> {
        limits.check(len)?;
        if len > limits.in_memory {
            refused_by(temp, temp.check(len))?;
        }
        Ok(Self { end: BodyEnd::Length(len), memory, file: None, len: 0, limits })
    }

    /// A body in chunks.
    pub(crate) fn of_chunks(limits: BodyLimits) -> Self {
        Self { end: BodyEnd::Chunked(Box::default()), memory: Vec::new(), file: None, len: 0, limits }
    }

    /// Bytes of the body that have come.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the body that are still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.end {
            BodyEnd::Length(left) => Some(left),
            BodyEnd::Chunked(_) => None,
        }
    }

    /// Whether what comes next is received to where it stays ([`BodyIntake::receive`]), without a copy between.
    pub(crate) fn is_in_place(&self) -> bool {
        self.left().is_some_and(|left| self.len + left <= self.limits.in_memory)
    }

    /// Whether what comes next goes to a file.
    pub(crate) fn is_in_file(&self) -> bool {
        match self.left() {
            Some(left) => self.len + left > self.limits.in_memory,
            None => self.file.is_some(),
        }
    }

    /// Receives once to where the body stays. Only where it [is in place](BodyIntake::is_in_place).
    ///
    /// # Errors
    /// When there is no memory for more.
    pub(crate) fn receive(&mut self, socket: impl AsFd) -> Result<Received, IntakeError> {
        let BodyEnd::Length(left) = self.end else { return Ok(Received::Nothing) };
        if self.is_full() {
            self.reserve(left, 1)?;
        }
        let received = append(socket, &mut self.memory);
        if let Received::Bytes(count) = received {
            let ours = left.min(count as u64);
            self.end = BodyEnd::Length(left - ours);
            self.len += ours;
        }
        Ok(received)
    }

    /// Whether all the space was used, so that the socket may have more.
    pub(crate) fn is_full(&self) -> bool {
        self.memory.len() == self.memory.capacity()
    }

    /// Whether all of a body is there whose length is known.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.end, BodyEnd::Length(0))
    }

    /// Space for `least` bytes at least: little at first, four times as much each time that it is used up, and no more
    /// than is to come. So no client has more than four times what it has sent.
    fn reserve(&mut self, left: u64, least: usize) -> Result<(), TryReserveError> {
        let more = (self.memory.len().saturating_mul(3)).max(FIRST_ROOM);
        let more = usize::try_from(left).map_or(more, |left| more.min(left));
        self.memory.try_reserve_exact(more.max(least))
    }

    /// Takes what has come; returns how much of it belongs to the body, and whether the body is whole. What it holds is
    /// kept with one call, in however many chunks it came: these are decoded in place.
    ///
    /// # Errors
    /// When it cannot be taken, for whatever reason.
    pub(crate) fn take(&mut self, input: &mut [u8], temp: &TempFiles) -> Result<(usize, bool), IntakeError> {
        let left = match &mut self.end {
            BodyEnd::Chunked(decoder) => {
                let decoded = decoder.decode(input).map_err(IntakeError::Refused)?;
                let data = &input[decoded.data];
                self.limits.check(self.len + data.len() as u64)?;
                self.keep(data, None, temp)?;
                return Ok((decoded.consumed, decoded.is_whole));
            }
            BodyEnd::Length(left) => left,
        };
        let len = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
        let before = *left;
        *left -= len as u64;
        let is_whole = *left == 0;
        self.keep(&input[..len], Some(before), temp)?;
        Ok((len, is_whole))
    }

    /// Adds bytes of the body, of which `left` were still to come, to the rest.
    fn keep(&mut self, data: &[u8], left: Option<u64>, temp: &TempFiles) -> Result<(), IntakeError> {
        if data.is_empty() {
            return Ok(());
        }
        let known = self.len + left.unwrap_or(data.len() as u64);
        self.len += data.len() as u64;
        if known > self.limits.in_memory {
            return refused_by(temp, self.write(data, temp));
        }
        if self.memory.capacity() - self.memory.len() < data.len() {
            match left {
                Some(left) => self.reserve(left, data.len())?,
                None => self.memory.try_reserve(data.len())?,
            }
        }
        self.memory.extend_from_slice(data);
        Ok(())
    }

    /// Adds bytes to the file, to which what was in memory goes first.
    fn write(&mut self, data: &[u8], temp: &TempFiles) -> Result<(), TempError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = none.insert(temp.create()?);
                file.append(&std::mem::take(&mut self.memory))?;
                file
            }
        };
        file.append(data)
    }

    /// The body, when it is whole; and what was received behind it.
    pub(crate) fn finish(mut self) -> (StoredBody, Vec<u8>) {
        match self.file {
            Some(file) => (StoredBody::File(file), Vec::new()),
            None => {
                // No more than memory holds.
                let len = self.len as usize;
                let behind = if self.memory.len() > len { self.memory.split_off(len) } else { Vec::new() };
                (if len == 0 { StoredBody::Empty } else { StoredBody::Memory(self.memory) }, behind)
            }
        }
    }
}

/// Counts and logs a body that is refused.
fn refused_by(temp: &TempFiles, outcome: Result<(), TempError>) -> Result<(), IntakeError> {
    Ok(outcome.inspect_err(|problem| temp.refuse_body(problem))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const LIMITS: BodyLimits = BodyLimits { in_memory: 20, most: None };

    fn temp() -> TempFiles {
        TempFiles::of_test(None)
    }

    fn content(body: StoredBody) -> Vec<u8> {
        match body {
            StoredBody::Empty => Vec::new(),
            StoredBody::Memory(bytes) => bytes,
            StoredBody::File(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len() as u64, file.len());
                bytes
            }
        }
    }

    proptest! {
        #[test]
        fn a_body_keeps_its_bytes_wherever_it_waits_and_however_it_is_cut(
            body in prop::collection::vec(any::<u8>(), 1..60),
            cut in 1usize..60,
            is_chunked in any::<bool>(),
            behind in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let mut input = Vec::new();
            if is_chunked {
                for chunk in body.chunks(7) {
                    input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    input.extend_from_slice(chunk);
                    input.extend_from_slice(b"\r\n");
                }
                input.extend_from_slice(b"0\r\n\r\n");
            } else {
                input.extend_from_slice(&body);
            }
            let end = input.len();
            input.extend_from_slice(&behind);
            let temp = temp();
            let mut intake = if is_chunked {
                BodyIntake::of_chunks(LIMITS)
            } else {
                BodyIntake::of_length(body.len() as u64, LIMITS, Vec::new(), &temp).unwrap()
            };
            let mut at = 0;
            loop {
                let to = input.len().min(at + cut);
                let (used, is_whole) = intake.take(&mut input[at..to], &temp).unwrap();
                at += used;
                if is_whole {
                    break;
                }
                prop_assert_eq!(at, to);
            }
            prop_assert_eq!(at, end);
            let (stored, none) = intake.finish();
            prop_assert!(none.is_empty());
            prop_assert_eq!(matches!(stored, StoredBody::File(..)), body.len() > 20);
            prop_assert_eq!(content(stored), body);
        }
    }

    #[test]
    fn what_is_announced_takes_no_memory_and_no_file_before_it_comes() {
        let limits = BodyLimits { in_memory: u64::MAX, most: None };
        let mut intake = BodyIntake::of_length(1 << 40, limits, Vec::new(), &temp()).unwrap();
        assert_eq!(intake.memory.capacity(), 0);
        intake.take(&mut b"a little".to_owned(), &temp()).unwrap();
        assert!(intake.memory.capacity() <= FIRST_ROOM);
        let intake = BodyIntake::of_length(1 << 40, LIMITS, Vec::new(), &temp()).unwrap();
        assert!(intake.file.is_none() && intake.is_in_file());
    }

    #[test]
    fn a_body_that_memory_cannot_hold_is_refused_and_ends_nothing() {
        let limits = BodyLimits { in_memory: u64::MAX, most: None };
        let mut intake = BodyIntake::of_length(u64::MAX, limits, Vec::new(), &temp()).unwrap();
        let failure = IntakeError::from(intake.reserve(u64::MAX, usize::MAX / 2 + 1).unwrap_err());
        assert_eq!(failure.refusal().status, 503);
    }

    #[test]
    fn a_body_is_received_in_place_and_what_follows_it_is_not_lost() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut intake = BodyIntake::of_length(5, LIMITS, Vec::with_capacity(16), &temp()).unwrap();
        intake.take(&mut b"ab".to_owned(), &temp()).unwrap();
        assert!(intake.is_in_place() && !intake.is_whole());
        assert_eq!(intake.receive(&ours).unwrap(), Received::Nothing);
        theirs.write_all(b"cdeGET").unwrap();
        assert_eq!(intake.receive(&ours).unwrap(), Received::Bytes(6));
        assert!(intake.is_whole() && !intake.is_full());
        let (stored, behind) = intake.finish();
        assert_eq!((content(stored), behind), (b"abcde".to_vec(), b"GET".to_vec()));
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused_when_that_is_known() {
        let limits = BodyLimits::new(20, 4);
        assert!(matches!(
            BodyIntake::of_length(5, limits, Vec::new(), &temp()),
            Err(IntakeError::Refused(BODY_TOO_LARGE))
        ));
        let mut chunks = BodyIntake::of_chunks(limits);
        assert!(matches!(
            chunks.take(&mut b"4\r\nabcd\r\n1\r\ne".to_owned(), &temp()),
            Err(IntakeError::Refused(BODY_TOO_LARGE))
        ));
        assert_eq!(BodyLimits::new(20, 0).most, None);
    }

    #[test]
    fn a_body_that_files_have_no_space_for_is_refused_before_it_comes_or_when_it_has_come_so_far() {
        let temp = TempFiles::of_test(Some(1 << 20));
        assert!(matches!(
            BodyIntake::of_length((1 << 20) + 1, LIMITS, Vec::new(), &temp),
            Err(IntakeError::File(TempError::Limit { .. }))
        ));
        let mut chunks = BodyIntake::of_chunks(LIMITS);
        let chunk = || [b"80000\r\n".as_slice(), &[0; 0x80000], b"\r\n"].concat();
        chunks.take(&mut chunk(), &temp).unwrap();
        let failure = chunks.take(&mut chunk(), &temp).and_then(|_| chunks.take(&mut chunk(), &temp)).unwrap_err();
        assert_eq!(failure.refusal().status, 503);
        // What waits in memory needs none.
        BodyIntake::of_length(20, LIMITS, Vec::new(), &temp).unwrap().take(&mut [0; 20], &temp).unwrap();
        drop(chunks);
        assert_eq!(temp.taken(), 0);
    }
}
