//! The table of a cache: keys and their values, and what goes when it is full. The owner of its bytes holds the lock.
//! All zero is an empty table.
//!
//! The [`ItemIndex`] knows the items, [`Blocks`] which blocks are taken; the values lie in the blocks.

use std::ops::Range;

use super::blocks::Blocks;
use super::index::{About, Item, ItemIndex, Size};
use rwsgi_config::Cache as Shape;

/// How an item is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Only if there is none.
    New,
    /// In any case.
    Update,
    /// By counting the number that it holds.
    Math(Operation),
}

/// What is done to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Why an item could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotStored {
    /// There is one, it is too large, or it is empty.
    Unfit,
    /// There is no space left.
    Full,
}

/// How many bytes a table takes; `None` when they cannot be counted.
#[must_use]
pub(super) fn size(shape: &Shape) -> Option<usize> {
    let blocks = (shape.blocks as usize).checked_mul(usize::try_from(shape.blocksize).ok()?)?;
    marks_at(shape)?.checked_add(marks(shape))?.checked_add(blocks)
}

/// Where the marks of the blocks are, behind the index.
fn marks_at(shape: &Shape) -> Option<usize> {
    index_size(shape).bytes()
}

fn marks(shape: &Shape) -> usize {
    if shape.bitmap { shape.blocks as usize } else { 0 }
}

fn index_size(shape: &Shape) -> Size {
    Size { items: shape.items as usize, chains: shape.hashsize as usize, key: shape.keysize as usize }
}

/// A table, while the cache's lock is held.
pub(super) struct CacheTable<'a> {
    shape: &'a Shape,
    index: ItemIndex<'a>,
    /// Which blocks are taken, if an item may have several. Otherwise the block of an item has the item's number.
    blocks: Option<Blocks<'a>>,
    values: &'a mut [u8],
}

impl<'a> CacheTable<'a> {
    /// On bytes that are as many as [`size`] says, aligned for numbers of 64 bits.
    #[must_use]
    pub(super) fn new(shape: &'a Shape, bytes: &'a mut [u8]) -> Self {
        let (index, bytes) = bytes.split_at_mut(marks_at(shape).unwrap_or(0));
        let (marks, values) = bytes.split_at_mut(marks(shape));
        let blocks = shape.bitmap.then(|| Blocks::new(marks));
        Self { shape, index: ItemIndex::new(index_size(shape), index), blocks, values }
    }

    /// How many blocks a value takes; at least one.
    fn blocks_of(&self, length: u64) -> usize {
        length.div_ceil(self.shape.blocksize).max(1) as usize
    }

    fn place(&self, about: &About) -> Range<usize> {
        let first = about.block as usize;
        first..first + self.blocks_of(about.length)
    }

    /// The item of a key. One that has expired goes.
    fn find(&mut self, key: &[u8], now: u64) -> Option<Item> {
        let item = self.index.find(key)?;
        if (1..=now).contains(&self.index.about(item).expires) {
            self.remove(item);
            return None;
        }
        Some(item)
    }

    fn value(&mut self, item: Item) -> &mut [u8] {
        let About { block, length, .. } = *self.index.about(item);
        let start = block as usize * self.shape.blocksize as usize;
        &mut self.values[start..start + length as usize]
    }

    /// A key's value. The item was used.
    pub(super) fn get(&mut self, key: &[u8], now: u64) -> Option<Vec<u8>> {
        let item = self.find(key, now)?;
        self.index.touch(item);
        Some(self.value(item).to_vec())
    }

    /// Whether a key has a value.
    pub(super) fn exists(&mut self, key: &[u8], now: u64) -> bool {
        self.find(key, now).is_some()
    }

    /// Every key, in no order.
    pub(super) fn keys(&self, now: u64) -> Vec<Vec<u8>> {
        let living = self.index.items().filter(|(_, about)| !(1..=now).contains(&about.expires));
        living.map(|(item, _)| self.index.key(item).to_vec()).collect()
    }

    /// How many items there are, expired ones included that nobody has asked for since.
    #[must_use]
    pub(super) fn len(&self) -> u64 {
        self.index.len().into()
    }

    /// Takes a key's value away; whether there was one.
    pub(super) fn del(&mut self, key: &[u8], now: u64) -> bool {
        let found = self.find(key, now);
        if let Some(item) = found {
            self.remove(item);
        }
        found.is_some()
    }

    /// Takes everything away.
    pub(super) fn clear(&mut self) {
        self.index.clear();
        if let Some(blocks) = &mut self.blocks {
            blocks.clear();
        }
    }

    /// Takes an item out. Returns what was said of it: its value is where it was until something else is set.
    fn remove(&mut self, item: Item) -> About {
        let about = *self.index.about(item);
        let place = self.place(&about);
        if let Some(blocks) = &mut self.blocks {
            blocks.release(place);
        }
        self.index.remove(item);
        about
    }

    /// Removes items when there is no space: what has expired, or else, one after another, what was used least
    /// recently (`lru`), or else everything (`clear_on_full`). Whether there is less in the table than before.
    fn make_space(&mut self, now: u64) -> bool {
        let expired = self.index.expired(now);
        if !expired.is_empty() {
            for item in expired {
                self.remove(item);
            }
            return true;
        }
        let Some(oldest) = self.index.oldest() else { return false };
        if self.shape.lru {
            self.remove(oldest);
        } else if self.shape.clear_on_full {
            self.clear();
        }
        self.shape.lru || self.shape.clear_on_full
    }

    /// Adds an item whose key has none; its value is not written yet. `None` when there is no space, and none can be
    /// made.
    fn add(&mut self, key: &[u8], length: u64, expires: u64, now: u64) -> Option<Item> {
        let count = self.blocks_of(length);
        // Each time something goes, or all of it.
        for _ in 0..=self.shape.items {
            // Nothing is held here when space is made.
            if let Some(free) = self.index.next_free() {
                let block = match &mut self.blocks {
                    None => Some(free.number()),
                    Some(blocks) => blocks.take(count).map(|taken| taken.start),
                };
                if let Some(block) = block {
                    return self.index.add(key, About { block: block as u64, length, expires });
                }
            }
            if !self.make_space(now) {
                return None;
            }
        }
        None
    }

    /// Has an item take as much space as a value of this length. It may become another item, and when there is no space
    /// it stays as it was.
    fn resize(&mut self, item: Item, key: &[u8], length: u64, now: u64) -> Option<Item> {
        let about = *self.index.about(item);
        if self.blocks.is_none() || self.blocks_of(length) == self.blocks_of(about.length) {
            self.index.about(item).length = length;
            self.index.touch(item);
            return Some(item);
        }
        let about = self.remove(item);
        let added = self.add(key, length, about.expires, now);
        if added.is_none() {
            // Nothing has taken its place.
            let place = self.place(&about);
            if let Some(blocks) = &mut self.blocks {
                blocks.take_again(place);
            }
            self.index.add(key, about);
        }
        added
    }

    /// Sets a key's value. `expires` is unix seconds, 0 for never. With [`How::Math`] the value is eight bytes, a
    /// number of this machine's, and an item that exists keeps its time.
    ///
    /// # Errors
    /// See [`NotStored`].
    pub(super) fn set(&mut self, key: &[u8], value: &[u8], expires: u64, how: How, now: u64) -> Result<(), NotStored> {
        let most = self.shape.blocksize * if self.shape.bitmap { self.shape.blocks.into() } else { 1 };
        if key.is_empty() || value.is_empty() || key.len() > self.shape.keysize as usize || value.len() as u64 > most {
            return Err(NotStored::Unfit);
        }
        let found = self.find(key, now);
        if found.is_some() && how == How::New {
            return Err(NotStored::Unfit);
        }
        let counted;
        let value = match how {
            How::Math(operation) => {
                let old = found.map(|item| <[u8; 8]>::try_from(&*self.value(item)).map(i64::from_ne_bytes));
                // What is no number counts from the beginning.
                let old = old.and_then(Result::ok).unwrap_or(self.shape.math_initial);
                let by = value.try_into().map(i64::from_ne_bytes).map_err(|_| NotStored::Unfit)?;
                counted = operation.apply(old, by).to_ne_bytes();
                &counted[..]
            }
            How::New | How::Update => value,
        };
        let expires = if self.shape.no_expire { 0 } else { expires };
        let length = value.len() as u64;
        let item = match found {
            None => self.add(key, length, expires, now),
            Some(item) => self.resize(item, key, length, now),
        };
        let item = item.ok_or(NotStored::Full)?;
        if found.is_some() && how == How::Update {
            self.index.about(item).expires = expires;
            self.index.expires(expires);
        }
        self.value(item).copy_from_slice(value);
        Ok(())
    }
}

impl Operation {
    fn apply(self, old: i64, by: i64) -> i64 {
        match self {
            Self::Add => old.wrapping_add(by),
            Self::Subtract => old.wrapping_sub(by),
            Self::Multiply => old.wrapping_mul(by),
            // As uWSGI has it.
            Self::Divide if by == 0 => 0,
            Self::Divide => old.wrapping_div(by),
        }
    }
}
