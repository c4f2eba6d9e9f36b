//! Which blocks of a cache are taken, where an item may have several in a row.

use std::ops::Range;

/// A mark for each block: 0 for a free one.
pub(super) struct Blocks<'a> {
    marks: &'a mut [u8],
}

const FREE: u8 = 0;
const TAKEN: u8 = 1;

impl<'a> Blocks<'a> {
    /// On marks, all zero at first.
    pub(super) fn new(marks: &'a mut [u8]) -> Self {
        Self { marks }
    }

    /// Takes the first `count` free blocks in a row; `None` when there are none.
    pub(super) fn take(&mut self, count: usize) -> Option<Range<usize>> {
        let mut free = 0;
        let last = self.marks.iter().position(|mark| {
            free = if *mark == FREE { free + 1 } else { 0 };
            free == count
        })?;
        let taken = last + 1 - count..last + 1;
        self.marks[taken.clone()].fill(TAKEN);
        Some(taken)
    }

    /// Takes these blocks, which are free.
    pub(super) fn take_again(&mut self, blocks: Range<usize>) {
        debug_assert!(self.marks[blocks.clone()].iter().all(|mark| *mark == FREE), "{blocks:?} are taken");
        self.marks[blocks].fill(TAKEN);
    }

    /// Gives blocks back.
    pub(super) fn release(&mut self, blocks: Range<usize>) {
        debug_assert!(self.marks[blocks.clone()].iter().all(|mark| *mark == TAKEN), "{blocks:?} are free");
        self.marks[blocks].fill(FREE);
    }

    /// Gives all back.
    pub(super) fn clear(&mut self) {
        self.marks.fill(FREE);
    }
}
