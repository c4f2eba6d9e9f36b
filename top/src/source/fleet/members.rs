//! The servers that the engine asks, each with what it is at.

use std::collections::HashMap;
use std::time::Instant;

use socket2::SockAddr;

use super::ServerId;
use super::exchange::Exchange;
use super::read::RowReader;
use crate::source::Target;

/// An answer that holds more is counted.
const MUCH: usize = 1 << 20;

/// A server that is asked.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: ServerId,
    /// Its address as it was typed: the same for all who name it.
    pub(super) key: String,
    pub(super) target: Target,
    /// Who names it, by number; nobody any more when this is empty.
    pub(super) origins: Vec<usize>,
    /// What it is called, and said of it.
    described: (String, Vec<(String, String)>),
    pub(super) request: Vec<u8>,
    pub(super) reader: RowReader,
    pub(super) is_control: bool,
    pub(super) exchange: Option<Exchange>,
    /// When the exchange is looked at though nothing comes.
    pub(super) look: Instant,
    /// When it is asked next, while there is no exchange.
    pub(super) due: Instant,
    /// It is being asked: for an answer, or for what has to be there before.
    pub(super) is_asked: bool,
    /// Since when.
    pub(super) asked: Instant,
    /// That it has not answered in time was told.
    pub(super) is_late: bool,
    /// It has answered, failed, or was late, at least once.
    pub(super) is_settled: bool,
    /// In a row.
    pub(super) failures: u32,
    /// The address that answered last, by its place.
    good: usize,
}

impl Member {
    pub(super) fn new(
        id: ServerId,
        key: String,
        target: Target,
        origin: usize,
        described: (String, Vec<(String, String)>),
        now: Instant,
    ) -> Self {
        Self {
            id,
            key,
            request: target.request().unwrap_or_default().into_bytes(),
            target,
            origins: vec![origin],
            described,
            reader: RowReader::default(),
            is_control: false,
            exchange: None,
            look: now,
            due: now,
            is_asked: false,
            asked: now,
            is_late: false,
            is_settled: false,
            failures: 0,
            good: 0,
        }
    }

    /// Whether it is called so, and this is said of it.
    pub(super) fn is(&self, name: &str, labels: &[(String, String)]) -> bool {
        self.described.0 == name && self.described.1 == labels
    }

    /// The address that answered last first.
    pub(super) fn in_order(&self, mut addresses: Vec<SockAddr>) -> Vec<SockAddr> {
        let count = addresses.len().max(1);
        addresses.rotate_left(self.good % count);
        addresses
    }

    pub(super) fn succeed(&mut self) {
        self.good += self.exchange.as_ref().map_or(0, Exchange::place);
        (self.failures, self.is_asked, self.is_settled) = (0, false, true);
    }

    pub(super) fn fail(&mut self) {
        (self.is_asked, self.is_settled) = (false, true);
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn holds_much(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.size() > MUCH)
    }
}

/// All of them, by slot. A slot is given again when its server has left.
#[derive(Debug, Default)]
pub(super) struct Members {
    slots: Vec<Option<Member>>,
    free: Vec<usize>,
    by_key: HashMap<String, usize>,
}

impl Members {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// One more than the last slot.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Member> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Member> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn by_key(&mut self, key: &str) -> Option<&mut Member> {
        self.get_mut(*self.by_key.get(key)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Member)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, member)| Some((slot, member.as_mut()?)))
    }

    /// The slots of those that a source names.
    pub(super) fn of_origin(&self, origin: usize) -> Vec<usize> {
        let named = |(slot, member): (usize, &Option<Member>)| {
            member.as_ref().is_some_and(|member| member.origins.contains(&origin)).then_some(slot)
        };
        self.slots.iter().enumerate().filter_map(named).collect()
    }

    /// Returns its slot.
    pub(super) fn add(&mut self, member: Member) -> usize {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        self.by_key.insert(member.key.clone(), slot);
        if slot == self.slots.len() {
            self.slots.push(Some(member));
        } else {
            self.slots[slot] = Some(member);
        }
        slot
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Member> {
        let member = self.slots.get_mut(slot)?.take()?;
        self.by_key.remove(&member.key);
        self.free.push(slot);
        Some(member)
    }
}
