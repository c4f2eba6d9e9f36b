//! What an event belongs to.

use super::keyed::Key;

/// What an event belongs to: the upper bits of its number say what kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Client(Key),
    Link(Key),
    Listener(usize),
    LinkListener,
    Signals,
    Liveness,
    Orders,
}

impl Token {
    const LINK: u64 = 1 << 62;
    const OTHER: u64 = 2 << 62;
    /// The first listener; the other fixed ones are before it.
    const LISTENERS: u64 = 4;

    pub(super) fn to_bits(self) -> u64 {
        match self {
            Self::Client(key) => key.to_bits(),
            Self::Link(key) => Self::LINK | key.to_bits(),
            Self::LinkListener => Self::OTHER,
            Self::Signals => Self::OTHER | 1,
            Self::Liveness => Self::OTHER | 2,
            Self::Orders => Self::OTHER | 3,
            Self::Listener(number) => Self::OTHER | (Self::LISTENERS + number as u64),
        }
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        match (bits >> 62, bits & !(3 << 62)) {
            (0, _) => Self::Client(Key::from_bits(bits)),
            (1, _) => Self::Link(Key::from_bits(bits)),
            (_, 0) => Self::LinkListener,
            (_, 1) => Self::Signals,
            (_, 2) => Self::Liveness,
            (_, 3) => Self::Orders,
            (_, number) => Self::Listener((number - Self::LISTENERS) as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_bits() {
        let key = Key::from_bits(7 << 32 | 5);
        for token in [
            Token::Client(key),
            Token::Link(key),
            Token::Listener(0),
            Token::Listener(9),
            Token::LinkListener,
            Token::Signals,
            Token::Liveness,
            Token::Orders,
        ] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }
}
