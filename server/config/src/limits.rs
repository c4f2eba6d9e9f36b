//! What clients may cost: temporary files, and the least that they must send and take. The values, and how they are
//! written.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::value::number;

/// `--temp-*`: files for bodies and responses that do not fit in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temp {
    /// `--temp-dir`: where they are; `None` for `TMPDIR` or what takes its place.
    pub dir: Option<PathBuf>,
    /// `--temp-size`: how much they may hold.
    pub size: TempSize,
}

/// How much the temporary files of all processes may hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TempSize {
    /// This part of what is free in their directory when the server starts, percent, 1 to 100.
    OfFree(u8),
    /// So many bytes.
    Bytes(u64),
    /// As much as the disk holds.
    Unlimited,
}

impl Default for TempSize {
    fn default() -> Self {
        Self::OfFree(50)
    }
}

/// `--*-min-rate`: how slow a client may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinRates {
    /// `--body-min-rate`: for what it sends.
    pub body: MinRate,
    /// `--response-min-rate`: for what it takes.
    pub response: MinRate,
    /// `--min-rate-grace`: the time over which it is measured, seconds, from 1.
    pub grace: u32,
}

impl Default for MinRates {
    fn default() -> Self {
        Self { body: MinRate::WhereClientsConnect, response: MinRate::WhereClientsConnect, grace: 30 }
    }
}

/// The least that a client must send, or take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinRate {
    /// [`MinRate::DEFAULT`] on the TCP addresses of `--http` and `--http-socket` that are not loopback, and nothing on
    /// sockets that only a proxy reaches.
    WhereClientsConnect,
    /// So many bytes a second on every socket.
    Everywhere(NonZeroU32),
    /// There is none.
    Nowhere,
}

impl MinRate {
    /// What is asked of clients by default, bytes a second: the same as mod_reqtimeout's.
    pub const DEFAULT: NonZeroU32 = NonZeroU32::new(500).unwrap();

    /// The rate on a socket, bytes a second; `is_direct` says that clients connect to it themselves.
    #[must_use]
    pub fn on(self, is_direct: bool) -> Option<NonZeroU32> {
        match self {
            Self::WhereClientsConnect => is_direct.then_some(Self::DEFAULT),
            Self::Everywhere(rate) => Some(rate),
            Self::Nowhere => None,
        }
    }
}

/// The smallest `temp-size`, bytes: one body that does not fit in memory.
const SMALLEST: u64 = 1024 * 1024;

pub(super) fn temp_size(config: &mut Config, value: &str) -> Result<(), String> {
    config.temp.size = match value.trim() {
        "unlimited" => TempSize::Unlimited,
        value => match value.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|part| (1..=100).contains(part)).map(TempSize::OfFree),
            None => bytes(value).filter(|bytes| *bytes >= SMALLEST).map(TempSize::Bytes),
        }
        .ok_or("a size of at least 1m as in 512m or 10g, 1% to 100% of what is free, or 'unlimited'")?,
    };
    Ok(())
}

/// Bytes, or as many k, m, g or t of them, as nginx writes sizes.
fn bytes(value: &str) -> Option<u64> {
    let (digits, shift) = match value.char_indices().last()? {
        (at, 'k' | 'K') => (&value[..at], 10),
        (at, 'm' | 'M') => (&value[..at], 20),
        (at, 'g' | 'G') => (&value[..at], 30),
        (at, 't' | 'T') => (&value[..at], 40),
        _ => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

pub(super) fn body_min_rate(config: &mut Config, value: &str) -> Result<(), String> {
    min_rate(value).map(|rate| config.min_rates.body = rate)
}

pub(super) fn response_min_rate(config: &mut Config, value: &str) -> Result<(), String> {
    min_rate(value).map(|rate| config.min_rates.response = rate)
}

fn min_rate(value: &str) -> Result<MinRate, String> {
    if value.trim() == "auto" {
        return Ok(MinRate::WhereClientsConnect);
    }
    let rate = number(value, &(0..=1 << 30)).map_err(|expected| format!("{expected}, or 'auto'"))?;
    Ok(NonZeroU32::new(rate).map_or(MinRate::Nowhere, MinRate::Everywhere))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_nginx_writes_them() {
        let size = |value| {
            let mut config = Config::default();
            temp_size(&mut config, value).map(|()| config.temp.size)
        };
        assert_eq!(size("512m"), Ok(TempSize::Bytes(512 << 20)));
        assert_eq!(size("10G"), Ok(TempSize::Bytes(10 << 30)));
        assert_eq!(size("1048576"), Ok(TempSize::Bytes(1 << 20)));
        assert_eq!(size("unlimited"), Ok(TempSize::Unlimited));
        assert_eq!(size("50%"), Ok(TempSize::default()));
        for wrong in ["0", "0%", "101%", "1k", "", "m", "-1m", "1.5g", "99999999999t", "é"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_asked_of_clients_and_not_of_proxies_unless_it_is_given() {
        assert_eq!(MinRates::default().body.on(true), Some(MinRate::DEFAULT));
        assert_eq!(MinRates::default().body.on(false), None);
        let given = min_rate("100").unwrap();
        assert_eq!((given.on(true), given.on(false)), (NonZeroU32::new(100), NonZeroU32::new(100)));
        assert_eq!(min_rate("0").unwrap().on(true), None);
        assert!(min_rate("fast").is_err());
    }
}
