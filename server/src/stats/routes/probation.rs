//! Routes that have no row and may earn one by coming again and again.

/// Places, each of which one route has at a time.
const PLACES: usize = 256;

/// How often routes without a row have come lately. A route that finds its place taken takes one off the other's count, and
/// has the place when nothing is left: who comes more often than all others of its place together gets ahead, and a flood
/// of routes that come once each takes from them all alike.
#[derive(Debug)]
pub(super) struct Probation {
    places: Box<[Place; PLACES]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Of the route that has it, by a hash that clients cannot foresee.
    hash: u64,
    count: u32,
}

impl Probation {
    pub(super) fn new() -> Self {
        Self { places: Box::new([Place::default(); PLACES]) }
    }

    /// The route of this hash came once more; returns how often it has come lately.
    pub(super) fn came(&mut self, hash: u64) -> u32 {
        let place = self.place(hash);
        if place.hash != hash || place.count == 0 {
            if place.count > 0 {
                place.count -= 1;
                return 0;
            }
            place.hash = hash;
        }
        place.count = place.count.saturating_add(1);
        place.count
    }

    /// The route has a row, or must come as often again to ask for one.
    pub(super) fn begin_again(&mut self, hash: u64) {
        let place = self.place(hash);
        if place.hash == hash {
            place.count = 0;
        }
    }

    fn place(&mut self, hash: u64) -> &mut Place {
        &mut self.places[(hash >> 32) as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern.
    fn scattered(number: u64) -> u64 {
        let mixed = (number ^ (number >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    #[test]
    fn who_comes_again_is_counted_beside_a_flood_of_those_who_do_not() {
        let mut probation = Probation::new();
        let busy = scattered(77);
        // One request in fifty.
        let best = (1..100_000).map(|made_up| {
            assert!(probation.came(scattered(1_000 + made_up)) <= 2);
            if made_up % 50 == 0 { probation.came(busy) } else { 0 }
        });
        assert!(best.max() > Some(100));
    }

    #[test]
    fn who_has_got_a_row_begins_again() {
        let mut probation = Probation::new();
        let counts: Vec<_> = (0..3).map(|_| probation.came(9)).collect();
        assert_eq!(counts, [1, 2, 3]);
        probation.begin_again(9);
        probation.begin_again(8);
        assert_eq!(probation.came(9), 1);
    }
}
