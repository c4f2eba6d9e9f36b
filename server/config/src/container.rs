//! What depends on the container that the server runs in: `processes = auto`, and limits of memory in percent.
//!
//! This module only reads the values. The server computes the numbers when it starts, since it alone knows the limits.

use serde::{Deserialize, Serialize};

use super::Config;
use super::value::{leading_number, megabytes};

/// What is taken from the container's limits at the start and at each reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// `--processes auto`: a worker for each processor; [`Config::processes`] is a guess until then.
    pub auto_processes: bool,
    /// `--reload-on-rss` in percent.
    pub reload_on_rss: Option<Percent>,
    /// `--evil-reload-on-rss` in percent.
    pub evil_reload_on_rss: Option<Percent>,
    /// `--cheaper-rss-limit-soft` in percent.
    pub cheaper_soft: Option<Percent>,
    /// `--cheaper-rss-limit-hard` in percent.
    pub cheaper_hard: Option<Percent>,
}

/// A part of the container's memory, in thousandths of a percent: above 0 and up to 100%.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percent(u32);

impl Percent {
    /// `80%`; `None` for what does not end so.
    fn parse(value: &str) -> Option<Result<Self, String>> {
        let number = value.trim().strip_suffix('%')?;
        // A cast makes 0 of what is no number.
        let thousandths = number.trim_end().parse::<f64>().map_or(0, |percent| (percent * 1e3).round() as u32);
        let is_part = (1..=100_000).contains(&thousandths);
        Some(
            is_part
                .then_some(Self(thousandths))
                .ok_or_else(|| "a part of the container's memory of 100% at most, as in 80%".to_owned()),
        )
    }

    /// This part of so many bytes.
    #[must_use]
    pub fn of(self, bytes: u64) -> u64 {
        // No more than `bytes`.
        (u128::from(bytes) * u128::from(self.0) / 100_000) as u64
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 1e3)
    }
}

pub(crate) fn processes(config: &mut Config, value: &str) -> Result<(), String> {
    config.container.auto_processes = value.trim().eq_ignore_ascii_case("auto");
    config.processes = if config.container.auto_processes {
        std::thread::available_parallelism().map_or(1, |count| count.get().min(10_000) as u32)
    } else {
        leading_number(config, value, &(1..=10_000)).map_err(|expected| format!("{expected}, or auto"))?
    };
    Ok(())
}

/// Megabytes, or percent.
fn memory(config: &mut Config, value: &str) -> Result<(Option<u64>, Option<Percent>), String> {
    match Percent::parse(value) {
        Some(percent) => Ok((None, Some(percent?))),
        None => Ok((megabytes(config, value)?, None)),
    }
}

pub(crate) fn reload_on_rss(config: &mut Config, value: &str) -> Result<(), String> {
    (config.reload_on_rss, config.container.reload_on_rss) = memory(config, value)?;
    Ok(())
}

pub(crate) fn evil_reload_on_rss(config: &mut Config, value: &str) -> Result<(), String> {
    (config.evil_reload_on_rss, config.container.evil_reload_on_rss) = memory(config, value)?;
    Ok(())
}

/// Bytes, or percent.
fn bytes(config: &mut Config, value: &str) -> Result<(u64, Option<Percent>), String> {
    match Percent::parse(value) {
        Some(percent) => Ok((0, Some(percent?))),
        None => Ok((leading_number(config, value, &(0..=u64::MAX))?, None)),
    }
}

pub(crate) fn cheaper_soft(config: &mut Config, value: &str) -> Result<(), String> {
    (config.cheaper.rss_limit_soft, config.container.cheaper_soft) = bytes(config, value)?;
    Ok(())
}

pub(crate) fn cheaper_hard(config: &mut Config, value: &str) -> Result<(), String> {
    (config.cheaper.rss_limit_hard, config.container.cheaper_hard) = bytes(config, value)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_memory_is_a_number_or_a_part_and_the_last_one_holds() {
        let mut config = Config::default();
        reload_on_rss(&mut config, "80%").unwrap();
        assert_eq!((config.reload_on_rss, config.container.reload_on_rss), (None, Some(Percent(80_000))));
        reload_on_rss(&mut config, "100").unwrap();
        assert_eq!((config.reload_on_rss, config.container.reload_on_rss), (Some(100 << 20), None));
        cheaper_soft(&mut config, "12.5 %").unwrap();
        assert_eq!(config.container.cheaper_soft.map(|part| part.of(800)), Some(100));
        cheaper_soft(&mut config, "1000").unwrap();
        assert_eq!((config.cheaper.rss_limit_soft, config.container.cheaper_soft), (1000, None));
        for value in ["0%", "101%", "-1%", "%", "x%", "NaN%", "inf%"] {
            assert!(reload_on_rss(&mut config, value).is_err(), "{value}");
            assert!(cheaper_hard(&mut config, value).is_err(), "{value}");
        }
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert_eq!(Percent(80_000).to_string(), "80%");
    }

    #[test]
    fn processes_are_a_number_or_auto_and_the_last_one_holds() {
        let mut config = Config::default();
        processes(&mut config, "auto").unwrap();
        assert!(config.container.auto_processes && config.processes >= 1);
        processes(&mut config, "4").unwrap();
        assert_eq!((config.container.auto_processes, config.processes), (false, 4));
        assert!(processes(&mut config, "automatic").is_err());
    }
}
