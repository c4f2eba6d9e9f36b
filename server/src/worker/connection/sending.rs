//! What a connection sends: the parts of a response, as frames on a link, after what was gathered of a stream; and how a
//! response ends.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};

use super::{Connection, ConnectionPhase, LinkEnd, ResponseEnd};
use crate::io::close::{Then, reset_on_close, shut_sending};
use crate::io::segment::{LARGE_SLOT_LEN, SLOTS, SMALL_SLOT_LEN};
use crate::io::unsent::TooSlow;
use crate::worker::harakiri;
use crate::worker::kind::Kind;
use crate::worker::lane::WORTH_PASSING;
use crate::worker::streams::Taken;
use crate::wsgi::transport::{Kept, Transport};
use rwsgi_protocol::link::{
    ABORTED, DONE_CLOSE, DONE_KEEP, FAST, FILE, LEAVING, MAX_FRAME, Peer, SKIPPED, SLOT_LEN_MAX, SLOT_NUMBER_MAX,
    in_slot,
};

/// A response up to this long goes over a link in one piece with what ends it: a copy costs less than a second call,
/// bytes.
const WORTH_HOLDING: usize = 16 * 1024;
/// A piece of a response that is worth a slot of the lane, bytes.
const WORTH_A_SLOT: usize = 4 * 1024;
const _: () = assert!(SLOTS <= SLOT_NUMBER_MAX as usize && LARGE_SLOT_LEN <= SLOT_LEN_MAX as usize);

impl Connection {
    /// Sends what is ours to say, and not the application's.
    ///
    /// # Errors
    /// When the other end is gone.
    pub(in crate::worker) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send_on(&[bytes], &mut |_| None).map(drop)
    }

    /// Sends `parts` after what was gathered. See [`Unsent::send`].
    ///
    /// # Errors
    /// When the other end is gone.
    #[inline]
    fn send_on(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        match self.stream.take() {
            None => self.unsent.send(self.socket.as_fd(), parts, own),
            Some(taken) => self.send_gathered(taken, parts, own),
        }
    }

    /// Sends `parts`, as one frame on a link. See [`Unsent::send`].
    ///
    /// # Errors
    /// When the other end is gone.
    #[inline]
    fn send_framed(
        &mut self,
        parts: &[&[u8]],
        len: usize,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        if !self.is_link() && self.last && self.closes {
            return self.send_last(parts, own);
        }
        if !self.is_link() || len == 0 {
            return self.send_on(parts, own);
        }
        if len > MAX_FRAME as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a response of 4 GB in one piece"));
        }
        if parts.iter().any(|part| part.len() >= WORTH_A_SLOT) && self.has_slots() {
            return self.send_in_slots(parts, own);
        }
        let frame = (len as u32).to_le_bytes();
        if self.last && len <= WORTH_HOLDING {
            self.link.held.extend_from_slice(&frame);
            parts.iter().for_each(|part| self.link.held.extend_from_slice(part));
            return Ok(self.unsent.is_empty());
        }
        self.send_behind(&frame, parts, own)
    }

    /// Sends `parts` to a client whose connection ends with them: see `announce_last`.
    fn send_last(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        if let Some(taken) = self.stream.take() {
            return self.send_gathered(taken, parts, own);
        }
        let all_sent = self.unsent.send_last(self.socket.as_fd(), parts, own)?;
        if all_sent {
            // Here, for the kernel holds the last packet until then: what the application leaves behind may run its code
            // first. And not by closing: that may come later, when a child has a copy of the socket, and with unread
            // bytes it drops what is not sent.
            shut_sending(&*self.socket);
        }
        Ok(all_sent)
    }

    fn send_gathered(
        &mut self,
        mut taken: Taken,
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        self.unsent.sent_elsewhere(taken.sent);
        if let Some(failure) = taken.failure.take() {
            return Err(failure);
        }
        let sent = match (taken.rest(), parts) {
            // To send nothing is a call, too, and fails when the client has left with all that it wanted.
            ([], []) => Ok(self.unsent.is_empty()),
            ([], parts) => self.unsent.send(self.socket.as_fd(), parts, own),
            (rest, parts) => {
                let all: Vec<&[u8]> = std::iter::once(rest).chain(parts.iter().copied()).collect();
                self.unsent.send(self.socket.as_fd(), &all, &mut |part| own(part.checked_sub(1)?))
            }
        };
        self.stream.give_back(taken);
        sent
    }

    /// Waits until the client has been given all.
    ///
    /// # Errors
    /// When it is gone, or takes too little.
    pub(in crate::worker) fn wait_until_sent(&mut self) -> io::Result<()> {
        self.send_on(&[], &mut |_| None)?;
        let flushed = self.unsent.flush(self.socket.as_fd(), self.patience, self.rates);
        self.too_slow |= flushed.as_ref().is_err_and(TooSlow::is_why);
        flushed
    }

    /// Ends a response. On a link a word does, elsewhere its own framing or the end of the connection.
    ///
    /// # Errors
    /// When the other end is gone.
    pub(in crate::worker) fn end_response(&mut self, end: ResponseEnd, fast: bool) -> io::Result<()> {
        self.last = false;
        if self.is_link() {
            self.phase = ConnectionPhase::Flushing(Then::NextRequest);
            // A request that is sent ahead would find the slots full, and its response would be copied through the socket.
            let fast = !std::mem::take(&mut self.link.fills_large_slots) && fast;
            let word = match end {
                ResponseEnd::Keep => DONE_KEEP + if fast { FAST } else { 0 },
                ResponseEnd::Close => DONE_CLOSE + if fast { FAST } else { 0 },
                ResponseEnd::Aborted => ABORTED,
            };
            let mut held = std::mem::take(&mut self.link.held);
            held.extend_from_slice(&word.to_le_bytes());
            let sent = self.send_on(&[&held], &mut |_| None);
            held.clear();
            self.link.held = held;
            self.stream.end();
            return sent.map(drop);
        }
        // One that breaks off may have pieces there.
        let sent = match self.stream.take() {
            None => Ok(()),
            Some(taken) => self.send_gathered(taken, &[], &mut |_| None).map(drop),
        };
        self.stream.end();
        self.phase = ConnectionPhase::Flushing(if end == ResponseEnd::Keep { Then::NextRequest } else { Then::Close });
        if end == ResponseEnd::Aborted {
            reset_on_close(&*self.socket);
            self.give_up();
        }
        sent
    }

    /// Reports to the router that a cancelled request was skipped.
    ///
    /// # Errors
    /// When the router is gone.
    pub(in crate::worker) fn tell_skipped(&mut self) -> io::Result<()> {
        self.phase = ConnectionPhase::Flushing(Then::NextRequest);
        self.say(&SKIPPED.to_le_bytes())
    }

    /// Asks the router not to send any more requests on this link.
    ///
    /// # Errors
    /// When the router is gone.
    pub(in crate::worker) fn tell_leaving(&mut self) -> io::Result<()> {
        self.link.leave_sent = true;
        self.say(&LEAVING.to_le_bytes())
    }

    /// Sends parts behind what comes before them on the link.
    fn send_behind(
        &mut self,
        before: &[u8],
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        let framed: Vec<&[u8]> = std::iter::once(before).chain(parts.iter().copied()).collect();
        self.send_on(&framed, &mut |part| own(part.checked_sub(1)?))
    }

    /// Whether the lane's memory is there. Asks for it otherwise.
    fn has_slots(&mut self) -> bool {
        self.link.lane.as_mut().is_some_and(|lane| lane.segment().is_some())
    }

    /// Sends parts of which some are long over a link: through the lane's memory as far as that has space.
    fn send_in_slots(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        let LinkEnd { lane, fills_large_slots, held, .. } = &mut self.link;
        let segment = lane.as_mut().and_then(|lane| lane.segment());
        let mut words = std::mem::take(held);
        // How many parts are on their way, and how much of the next.
        let (mut whole, mut gone) = (0, 0);
        // Where the length of the frame is that short parts are added to.
        let mut frame = None;
        for part in parts {
            if part.len() < WORTH_A_SLOT {
                let at = *frame.get_or_insert(words.len());
                if at == words.len() {
                    words.extend_from_slice(&[0; 4]);
                }
                words.extend_from_slice(part);
                let len = words.len() - at - 4;
                words[at..at + 4].copy_from_slice(&(len as u32).to_le_bytes());
            } else {
                frame = None;
                let fill = |rest| segment.and_then(|segment| segment.fill(rest));
                while gone < part.len()
                    && let Some((slot, len)) = fill(&part[gone..])
                {
                    words.extend_from_slice(&in_slot(slot as u32, len as u32).to_le_bytes());
                    gone += len;
                    *fills_large_slots |= len > SMALL_SLOT_LEN;
                }
                if gone < part.len() {
                    break;
                }
            }
            (whole, gone) = (whole + 1, 0);
        }
        let rest: Vec<&[u8]> = match parts[whole..].split_first() {
            None => Vec::new(),
            Some((first, others)) => std::iter::once(&first[gone..]).chain(others.iter().copied()).collect(),
        };
        let len: usize = rest.iter().map(|part| part.len()).sum();
        if len > 0 {
            words.extend_from_slice(&(len as u32).to_le_bytes());
        }
        if self.last && words.len() + len <= WORTH_HOLDING {
            rest.iter().for_each(|part| words.extend_from_slice(part));
            self.link.held = words;
            return Ok(self.unsent.is_empty());
        }
        let sent = self.send_behind(&words, &rest, &mut |part| {
            let kept = own(whole + part)?;
            Some(if part == 0 && gone > 0 { Box::new(Tail { kept, from: gone }) } else { kept })
        });
        words.clear();
        words.shrink_to(WORTH_HOLDING);
        self.link.held = words;
        sent
    }

    /// Bytes that went to the client since the last call. The router's clients are sent what a link is given.
    pub(in crate::worker) fn take_sent(&mut self) -> u64 {
        let sent = self.unsent.take_sent();
        match self.kind {
            Kind::Link(_) => std::mem::take(&mut self.queued),
            _ => sent,
        }
    }

    /// Claims the present request's answer, which `harakiri` may have given before.
    ///
    /// # Errors
    /// When it has.
    pub(in crate::worker) fn claim(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.watched) { harakiri::release() } else { Ok(()) }
    }
}

/// Bytes that are kept, without the first of them.
struct Tail {
    kept: Kept,
    from: usize,
}

impl AsRef<[u8]> for Tail {
    fn as_ref(&self) -> &[u8] {
        &self.kept.as_ref().as_ref()[self.from..]
    }
}

impl Transport for Connection {
    fn send(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        self.claim()?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.queued += len as u64;
        if std::mem::take(&mut self.stream.more) {
            if self.unsent.is_empty() && self.stream.gather(&self.socket, self.is_link(), parts, len)? {
                return Ok(true);
            }
            let sent = self.send_framed(parts, len, own);
            self.stream.sent_at_once();
            return sent;
        }
        self.send_framed(parts, len, own)
    }

    fn announce_more(&mut self) {
        self.stream.more = true;
    }

    fn gather_no_more(&mut self) {
        self.stream.alone = true;
    }

    fn announce_last(&mut self) {
        self.last = true;
    }

    fn send_file(&mut self, head: &[u8], file: File, offset: u64, len: u64) -> io::Result<bool> {
        let all_sent = self.send(&[head], &mut |_| None)?;
        if len == 0 {
            return Ok(all_sent);
        }
        self.queued += len;
        if !self.is_link() {
            return self.unsent.send_file(self.socket.as_fd(), file, offset, len);
        }
        // What goes to a client of TLS is encrypted by the router, which must have it.
        if len >= WORTH_PASSING
            && !Peer::parse(&self.peer).is_ok_and(|peer| peer.tls.is_some())
            && self.link.lane.as_mut().is_some_and(|lane| lane.pass(&file, offset, len))
        {
            self.say(&FILE.to_le_bytes())?;
            return Ok(self.unsent.is_empty());
        }
        let (mut offset, mut left) = (offset, len);
        while left > 0 {
            let frame = left.min(u64::from(MAX_FRAME)) as u32;
            self.say(&frame.to_le_bytes())?;
            self.unsent.send_file(self.socket.as_fd(), file.try_clone()?, offset, frame.into())?;
            offset += u64::from(frame);
            left -= u64::from(frame);
        }
        Ok(self.unsent.is_empty())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_until_sent()
    }

    fn take_client(&mut self) -> io::Result<OwnedFd> {
        self.claim()?;
        match (&self.link.upgrade, self.kind) {
            (Some(path), _) => path.take_client(),
            (None, Kind::Link(_)) => Err(io::Error::other("http-websockets is not set")),
            (None, Kind::Client(_)) if self.input.is_empty() => self.socket.try_clone(),
            (None, Kind::Client(_)) => Err(io::Error::other("the client sent more than its request")),
        }
    }

    fn body(&mut self) -> &mut (dyn BufRead + Send) {
        &mut self.body
    }

    fn body_at_hand(&self) -> &[u8] {
        self.body.at_hand()
    }

    fn body_left(&self) -> u64 {
        self.body.left()
    }
}
