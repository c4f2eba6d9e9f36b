//! Bytes in shared memory.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Bytes that one thread writes and another process may read meanwhile: stored by words, so that a reader may see a
/// mixture of two texts, but never undefined behaviour.
#[repr(C)]
pub struct SharedText<const WORDS: usize> {
    len: AtomicU32,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> SharedText<WORDS> {
    #[cfg(test)]
    pub(super) const fn empty() -> Self {
        Self { len: AtomicU32::new(0), words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// Keeps as much of `bytes` as there is space for.
    #[inline]
    pub fn store(&self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(WORDS * 8)];
        let (words, rest) = bytes.as_chunks::<8>();
        for (word, place) in words.iter().zip(&self.words) {
            place.store(u64::from_le_bytes(*word), Relaxed);
        }
        if let (false, Some(place)) = (rest.is_empty(), self.words.get(words.len())) {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            place.store(u64::from_le_bytes(word), Relaxed);
        }
        self.len.store(bytes.len() as u32, Relaxed);
    }

    /// Keeps nothing.
    #[inline]
    pub fn clear(&self) {
        self.len.store(0, Relaxed);
    }

    /// Whether nothing is kept.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Copies what is kept to the beginning of `bytes`, as much as there is space for; returns how much that is.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let len = (self.len.load(Relaxed) as usize).min(WORDS * 8).min(bytes.len());
        for (word, place) in self.words.iter().zip(bytes[..len].chunks_mut(8)) {
            place.copy_from_slice(&word.load(Relaxed).to_le_bytes()[..place.len()]);
        }
        len
    }

    /// A copy of what is kept; never longer than the space.
    pub fn load(&self) -> Vec<u8> {
        let len = (self.len.load(Relaxed) as usize).min(WORDS * 8);
        let mut bytes: Vec<u8> =
            self.words[..len.div_ceil(8)].iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    /// What is kept, with signs in the place of bytes that are no UTF-8.
    pub fn load_text(&self) -> String {
        String::from_utf8_lossy(&self.load()).into_owned()
    }
}
