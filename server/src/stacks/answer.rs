//! What a thread has answered, as the master reads it: copied first, for a process may change it at any time, and
//! bounded, for an application may have written it.

use std::ops::{BitOr, BitOrAssign};

use rwsgi_stats::control::Frame;

use super::area::{ANSWER_HEAD, AREA, PEER_KEPT, StackMemory};
use super::walk::{FRAME_HEAD, MOST_FRAMES};
use crate::ids::SlotId;

/// What a handler has found out about its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts(u32);

impl Facts {
    /// It has the global lock.
    pub(crate) const HAS_GIL: Self = Self(1);
    /// Python does not know it.
    pub(crate) const NO_PYTHON: Self = Self(2);
    /// Its outermost frames are left out.
    pub(crate) const CUT: Self = Self(4);
    /// What was found outside the frames that were written is none.
    pub(crate) const BROKEN: Self = Self(8);
    /// It waits in a system call, for the global lock.
    pub(crate) const WAITS_FOR_GIL: Self = Self(16);
    /// For another lock.
    pub(crate) const WAITS_FOR_LOCK: Self = Self(32);
    /// For something else.
    pub(crate) const WAITS: Self = Self(64);

    /// All that was found out, as it is stored.
    #[must_use]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// Whether that is among it.
    #[must_use]
    pub(crate) const fn has(self, fact: Self) -> bool {
        self.0 & fact.0 != 0
    }
}

impl BitOr for Facts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Facts {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The system's number of the thread.
    pub thread: u32,
    /// What was found out.
    pub facts: Facts,
    /// The address at the other end of what the thread waits for, as the system has it; empty when there is none.
    pub peer: Vec<u8>,
    /// The frames, as they were written.
    pub frames: Vec<u8>,
}

/// The answer to a question or a later one in an area of a slot; `None` as long as there is none.
#[must_use]
pub(crate) fn read(memory: &StackMemory, slot: SlotId, area: u32, question: u64) -> Option<Answer> {
    let at = memory.places().area(area);
    // Most looks find nothing yet.
    let mut head = [0; ANSWER_HEAD];
    memory.read(slot, at, &mut head).ok()?;
    let answered = number(&head, 0);
    if answered < question {
        return None;
    }
    let mut frames = vec![0; (word(&head, 24) as usize).min(AREA - ANSWER_HEAD)];
    memory.read(slot, at + ANSWER_HEAD, &mut frames).ok()?;
    let mut again = [0; 8];
    memory.read(slot, at, &mut again).ok()?;
    if u64::from_ne_bytes(again) != answered {
        return None;
    }
    let peer_len = (word(&head, 20) as usize).min(PEER_KEPT);
    let peer = head[32..32 + peer_len].to_vec();
    Some(Answer { thread: word(&head, 8), facts: Facts(word(&head, 12)), peer, frames })
}

/// The frames that were written, each as its bytes. Ends where they make no sense.
pub(crate) fn split_frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = FRAME_HEAD + usize::from(*bytes.first()?) + usize::from(*bytes.get(1)?);
        let (frame, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        Some(frame)
    })
    .take(MOST_FRAMES)
}

/// One frame; `None` for bytes that are none.
#[must_use]
pub(crate) fn parse_frame(bytes: &[u8]) -> Option<Frame> {
    let ([name, _, line @ ..], texts) = bytes.split_first_chunk::<FRAME_HEAD>()?;
    let (name, file) = texts.split_at_checked(usize::from(*name))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(Frame { function: text(name), file: text(file), line: u32::from_le_bytes(*line) })
}

/// All frames; `None` when there is something else among them.
#[must_use]
pub(crate) fn parse_frames(bytes: &[u8]) -> Option<Vec<Frame>> {
    let read: usize = split_frames(bytes).map(<[u8]>::len).sum();
    (read == bytes.len()).then(|| split_frames(bytes).filter_map(parse_frame).collect())
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::area::{AnswerHead, OwnPart};
    use crate::stats::scoreboard::Layout;
    use std::mem::offset_of;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn what_is_read_is_where_it_is_written() {
        let places = [
            offset_of!(AnswerHead, question),
            offset_of!(AnswerHead, thread),
            offset_of!(AnswerHead, facts),
            offset_of!(AnswerHead, peer_len),
            offset_of!(AnswerHead, frames_len),
            offset_of!(AnswerHead, peer),
        ];
        assert_eq!(places, [0, 8, 12, 20, 24, 32]);
    }

    #[test]
    fn an_answer_is_read_when_it_is_whole_and_of_any_bytes_something_bounded() {
        let layout = Layout::new(1, 2);
        let memory = StackMemory::create(layout).unwrap();
        let slot = SlotId::new(1);
        let file = || memory.memory().try_clone_to_owned().unwrap();
        let part = OwnPart::map(file(), layout, slot).unwrap();
        let head = part.answer(1);
        head.question.store(7, Relaxed);
        assert!(read(&memory, slot, 1, 8).is_none(), "an older one");
        assert!(read(&memory, slot, 0, 7).is_none(), "another thread's");
        assert!(read(&memory, SlotId::new(0), 1, 7).is_none(), "another slot's");
        head.frames_len.store(u32::MAX, Relaxed);
        head.peer_len.store(u32::MAX, Relaxed);
        let answer = read(&memory, slot, 1, 7).unwrap();
        assert_eq!((answer.frames.len(), answer.peer.len()), (AREA - ANSWER_HEAD, PEER_KEPT));
        memory.forget_answers(slot).unwrap();
        assert!(read(&memory, slot, 1, 7).is_none());
        part.owner(0).thread.store(9, Relaxed);
        memory.clear(slot).unwrap();
        assert_eq!(part.owner(0).thread.load(Relaxed), 0);
    }

    #[test]
    fn frames_are_taken_apart() {
        let bytes = b"\x01\x02\x07\0\0\0fa/\x01\x01\x08\0\0\0gb";
        let frame = |function: &str, file: &str, line| Frame { function: function.into(), file: file.into(), line };
        assert_eq!(parse_frames(bytes).unwrap(), [frame("f", "a/", 7), frame("g", "b", 8)]);
        assert!(parse_frames(&bytes[..10]).is_none());
        assert_eq!(split_frames(&bytes[..12]).count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken_apart(bytes: Vec<u8>) {
            let _ = parse_frames(&bytes);
        }
    }
}
