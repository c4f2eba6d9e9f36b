//! Connections by number: a table whose slots are reused, and keys with a generation.
//!
//! The kernel reports events by number, and may still report one for a connection that the event before has closed. A
//! key's generation distinguishes the old holder of a place from the new one. (`slotmap` does the same with keys of 64
//! bits, which leave none to say whether an event is for a client or for a link.)

/// Names one value; a key of a removed value finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

/// Generations are cut to this, so that a key and two bits more fit in an event's 64.
const GENERATION_MASK: u32 = (1 << 30) - 1;

impl Key {
    /// The key in the low 62 bits.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// What [`Key::to_bits`] made; higher bits are ignored.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 & GENERATION_MASK }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Keyed<T> {
    rows: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Keyed<T> {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new(), free: Vec::new() }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key that the next insertion will have.
    pub(super) fn insert(&mut self, value: T) -> Key {
        match self.free.pop() {
            Some(index) => {
                let (generation, place) = &mut self.rows[index as usize];
                *place = Some(value);
                Key { index, generation: *generation }
            }
            None => {
                // As many as there are file descriptors: far below 32 bits.
                let index = self.rows.len() as u32;
                self.rows.push((0, Some(value)));
                Key { index, generation: 0 }
            }
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.rows.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => value.as_mut(),
            _ => None,
        }
    }

    /// All values, with their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.rows).filter_map(|(index, (generation, value))| {
            value.as_ref().map(|value| (Key { index, generation: *generation }, value))
        })
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        match self.rows.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => {
                let value = value.take()?;
                *generation = (*generation + 1) & GENERATION_MASK;
                self.free.push(key.index);
                Some(value)
            }
            _ => None,
        }
    }

    /// Keys of the values that `wanted` picks.
    pub(super) fn keys(&self, wanted: impl Fn(&T) -> bool) -> Vec<Key> {
        self.iter().filter(|(_, value)| wanted(value)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_find_the_next_holder_of_its_place() {
        let mut rows = Keyed::new();
        let first = rows.insert("first");
        let other = rows.insert("other");
        assert_eq!(rows.remove(first), Some("first"));
        assert_eq!((rows.remove(first), rows.len()), (None, 1));
        let second = rows.insert("second");
        assert_eq!(rows.get_mut(first), None);
        assert_eq!(rows.get_mut(second), Some(&mut "second"));
        assert_eq!(rows.keys(|value| value.starts_with('s')), [second]);
        assert_eq!(rows.remove(other), Some("other"));
        assert!(!rows.is_empty());
    }

    #[test]
    fn a_key_survives_its_bits() {
        let key = Key { index: u32::MAX, generation: GENERATION_MASK };
        assert_eq!(Key::from_bits(key.to_bits() | 3 << 62), key);
    }
}
