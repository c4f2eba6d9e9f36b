//! The items of a cache: found by their keys, and kept in the order in which they were used.
//!
//! An item is in exactly one of three states: in use (in one chain, and in the order of use), free (in the list of free
//! items), or never used so far (its number is not below `touched`). All zero is an index without items.

use bytemuck::{Pod, Zeroable};

/// An item's number, or none. Zero is none, so that all zero is an empty list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
struct ItemLink(u32);

const NONE: ItemLink = ItemLink(0);

impl ItemLink {
    fn to(item: Item) -> Self {
        Self(item.0 + 1)
    }

    fn item(self) -> Option<Item> {
        self.0.checked_sub(1).map(Item)
    }
}

/// An item, by its number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item(u32);

impl Item {
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }
}

/// What is kept of an item beside its key.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Record {
    hash: u32,
    /// The next item of the chain, or of the free ones.
    next: ItemLink,
    /// The items that were used before and after this one.
    older: ItemLink,
    newer: ItemLink,
    about: About,
    key_length: u32,
    /// None, so that there is no gap in the record.
    unused: u32,
}

/// What the table says of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct About {
    /// The first of its blocks.
    pub(super) block: u64,
    /// Length of its value, bytes.
    pub(super) length: u64,
    /// Unix seconds; 0 for never.
    pub(super) expires: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Head {
    /// Items in use.
    used: u32,
    /// Items that were ever used.
    touched: u32,
    free: ItemLink,
    oldest: ItemLink,
    newest: ItemLink,
    unused: u32,
    /// No item expires before this, unix seconds; 0 for never.
    earliest: u64,
}

/// How large an index is.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// How many items it may hold.
    pub(super) items: usize,
    /// Into how many chains they are spread by the hashes of their keys; at least 1.
    pub(super) chains: usize,
    /// Length of the longest key, bytes.
    pub(super) key: usize,
}

impl Size {
    /// Bytes of an index. They cannot overflow: each factor is a number of 32 bits.
    pub(super) fn bytes(self) -> Option<usize> {
        let items = self.items.checked_mul(size_of::<Record>() + self.key)?;
        (size_of::<Head>() + self.chains_bytes()).checked_add(items)
    }

    /// Padded, for the records that follow.
    fn chains_bytes(self) -> usize {
        (self.chains * size_of::<ItemLink>()).next_multiple_of(8)
    }
}

/// The items, while the cache's lock is held.
pub(super) struct ItemIndex<'a> {
    head: &'a mut Head,
    chains: &'a mut [ItemLink],
    records: &'a mut [Record],
    keys: &'a mut [u8],
    key_size: usize,
}

fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

impl<'a> ItemIndex<'a> {
    /// On as many bytes as `size` says, aligned for numbers of 64 bits.
    pub(super) fn new(size: Size, bytes: &'a mut [u8]) -> Self {
        let (head, bytes) = bytes.split_at_mut(size_of::<Head>());
        let (chains, bytes) = bytes.split_at_mut(size.chains_bytes());
        let (records, keys) = bytes.split_at_mut(size.items * size_of::<Record>());
        Self {
            head: bytemuck::from_bytes_mut(head),
            chains: &mut bytemuck::cast_slice_mut(chains)[..size.chains],
            records: bytemuck::cast_slice_mut(records),
            keys,
            key_size: size.key,
        }
    }

    fn record(&mut self, item: Item) -> &mut Record {
        &mut self.records[item.number()]
    }

    fn chain(&mut self, hash: u32) -> &mut ItemLink {
        let chains = self.chains.len();
        &mut self.chains[hash as usize % chains]
    }

    /// A chain of items. It ends after as many as there are: memory that somebody else has written to may hold a circle.
    fn follow(&self, first: Option<Item>, next: fn(&Record) -> ItemLink) -> impl Iterator<Item = Item> {
        std::iter::successors(first, move |item| next(&self.records[item.number()]).item()).take(self.records.len())
    }

    /// How many items there are.
    pub(super) fn len(&self) -> u32 {
        self.head.used
    }

    /// What is said of an item.
    pub(super) fn about(&mut self, item: Item) -> &mut About {
        &mut self.record(item).about
    }

    /// An item's key.
    pub(super) fn key(&self, item: Item) -> &[u8] {
        let start = item.number() * self.key_size;
        &self.keys[start..start + self.records[item.number()].key_length as usize]
    }

    /// The item of a key.
    pub(super) fn find(&self, key: &[u8]) -> Option<Item> {
        let hash = fnv1a(key);
        let first = self.chains[hash as usize % self.chains.len()].item();
        let mut chain = self.follow(first, |record| record.next);
        chain.find(|item| self.records[item.number()].hash == hash && self.key(*item) == key)
    }

    /// All items, the one that was used least recently first.
    pub(super) fn items(&self) -> impl Iterator<Item = (Item, &About)> {
        let items = self.follow(self.oldest(), |record| record.newer);
        items.map(|item| (item, &self.records[item.number()].about))
    }

    /// The item that was used least recently.
    pub(super) fn oldest(&self) -> Option<Item> {
        self.head.oldest.item()
    }

    /// The item that the next [`Self::add`] will make; `None` when the index is full.
    pub(super) fn next_free(&self) -> Option<Item> {
        let untouched = (self.head.touched as usize) < self.records.len();
        self.head.free.item().or_else(|| untouched.then_some(Item(self.head.touched)))
    }

    /// Adds an item, whose key is in no other and fits; `None` when the index is full.
    pub(super) fn add(&mut self, key: &[u8], about: About) -> Option<Item> {
        let item = self.next_free()?;
        if self.head.free == NONE {
            self.head.touched += 1;
        } else {
            self.head.free = self.record(item).next;
        }
        let hash = fnv1a(key);
        let next = std::mem::replace(self.chain(hash), ItemLink::to(item));
        let key_length = key.len() as u32;
        *self.record(item) = Record { hash, next, older: NONE, newer: NONE, about, key_length, unused: 0 };
        let start = item.number() * self.key_size;
        self.keys[start..start + key.len()].copy_from_slice(key);
        self.append(item);
        self.head.used += 1;
        self.expires(about.expires);
        Some(item)
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, item: Item) {
        self.unchain(item);
        self.detach(item);
        self.record(item).next = self.head.free;
        self.head.free = ItemLink::to(item);
        self.head.used -= 1;
    }

    /// An item is used: it is the newest now.
    pub(super) fn touch(&mut self, item: Item) {
        self.detach(item);
        self.append(item);
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        *self.head = Head::zeroed();
        self.chains.fill(NONE);
    }

    /// An item expires then (unix seconds; 0 for never).
    pub(super) fn expires(&mut self, at: u64) {
        if at != 0 && (self.head.earliest == 0 || at < self.head.earliest) {
            self.head.earliest = at;
        }
    }

    /// The items that have expired by `now`. They are looked for only when there may be one.
    pub(super) fn expired(&mut self, now: u64) -> Vec<Item> {
        let is_past = |at: u64| (1..=now).contains(&at);
        if !is_past(self.head.earliest) {
            return Vec::new();
        }
        let later = self.items().map(|(_, about)| about.expires).filter(|at| *at > now);
        let earliest = later.min().unwrap_or(0);
        let expired = self.items().filter(|(_, about)| is_past(about.expires)).map(|(item, _)| item).collect();
        self.head.earliest = earliest;
        expired
    }

    fn unchain(&mut self, item: Item) {
        let Record { hash, next, .. } = *self.record(item);
        let first = self.chain(hash).item();
        let is_before = |before: &Item| self.records[before.number()].next == ItemLink::to(item);
        let before = self.follow(first, |record| record.next).find(is_before);
        let link = match before {
            Some(before) => &mut self.record(before).next,
            None => self.chain(hash),
        };
        *link = next;
    }

    fn detach(&mut self, item: Item) {
        let Record { older, newer, .. } = *self.record(item);
        *self.newer_of(older) = newer;
        *self.older_of(newer) = older;
    }

    fn append(&mut self, item: Item) {
        let older = self.head.newest;
        *self.newer_of(older) = ItemLink::to(item);
        self.head.newest = ItemLink::to(item);
        let record = self.record(item);
        (record.older, record.newer) = (older, NONE);
    }

    /// What says which item was used after this one; of none, which was the first.
    fn newer_of(&mut self, link: ItemLink) -> &mut ItemLink {
        match link.item() {
            Some(item) => &mut self.record(item).newer,
            None => &mut self.head.oldest,
        }
    }

    /// What says which item was used before this one; of none, which was the last.
    fn older_of(&mut self, link: ItemLink) -> &mut ItemLink {
        match link.item() {
            Some(item) => &mut self.record(item).older,
            None => &mut self.head.newest,
        }
    }
}
