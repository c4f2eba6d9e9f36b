//! Slow requests: from when on a request is slow, and what becomes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::STATS;
use super::row::{Kind, Row};
use super::value::is_off;
use Kind::{Custom, Flag};

/// What `--slow-request` is without it.
const DEFAULT: Duration = Duration::from_secs(1);
/// The most that it can be.
const MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// `--slow-request`, `--slow-request-log`, `--gc-stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowRequestsConfig {
    /// `--slow-request`: a request that takes longer is slow; `None` for never.
    pub threshold: Option<Duration>,
    /// `--slow-request-log`: how the log says it.
    pub log: SlowRequestLog,
    /// `--gc-stats`: Python's garbage collections are counted.
    pub gc_stats: bool,
}

impl Default for SlowRequestsConfig {
    fn default() -> Self {
        Self { threshold: Some(DEFAULT), log: SlowRequestLog::Unset, gc_stats: false }
    }
}

/// How the log says that a request was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowRequestLog {
    /// Nothing was chosen, and `slow-request` neither: no line.
    Unset,
    /// No line.
    Off,
    /// A line for people.
    Text,
    /// A line with a JSON object.
    Json,
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["slow-request"], kind: Custom(threshold), takes: "TIME",
          help: "Record a request that takes longer than this (500ms, 1s, 1.5; 0 for never): the stats have the last 200, with the stack and the phases of each, and the log has a line for each; without this option it is 1s, and the log has no line", ..STATS },
    Row { names: &["slow-request-log"], kind: Custom(log), takes: "FORM",
          help: "What the log has for a slow request: text, json, or off; text when only slow-request is set", ..STATS },
    Row { names: &["gc-stats"], kind: Flag(|c| &mut c.slow_requests.gc_stats),
          help: "Count and time the garbage collections of Python in each worker, for the stats", ..STATS },
];

fn threshold(config: &mut Config, value: &str) -> Result<(), String> {
    let threshold = duration(value).ok_or("a time of at most a day, as in 500ms, 1s or 1.5")?;
    config.slow_requests.threshold = Some(threshold).filter(|threshold| !threshold.is_zero());
    if config.slow_requests.log == SlowRequestLog::Unset {
        config.slow_requests.log = SlowRequestLog::Text;
    }
    Ok(())
}

fn log(config: &mut Config, value: &str) -> Result<(), String> {
    config.slow_requests.log = match value {
        "text" => SlowRequestLog::Text,
        "json" => SlowRequestLog::Json,
        value if is_off(value) => SlowRequestLog::Off,
        _ => return Err("text, json or off".into()),
    };
    Ok(())
}

/// A time, in seconds where no unit is given.
fn duration(value: &str) -> Option<Duration> {
    let value = value.trim();
    let digits = value.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let unit = match unit.trim() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let time = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
    (time <= MOST).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        for (value, millis) in
            [("500ms", 500), ("1s", 1_000), ("1.5", 1_500), ("2 m", 120_000), ("0", 0), ("24h", 86_400_000)]
        {
            assert_eq!(duration(value), Some(Duration::from_millis(millis)), "{value}");
        }
        assert_eq!(duration("250us"), Some(Duration::from_micros(250)));
        for value in ["", "s", "-1", "1.5.2", "1 year", "25h", "1e3", "inf"] {
            assert_eq!(duration(value), None, "{value}");
        }
    }

    #[test]
    fn the_log_has_a_line_only_where_one_of_the_options_is_set() {
        type Setting<'a> = (fn(&mut Config, &str) -> Result<(), String>, &'a str);
        let log = |settings: &[Setting<'_>]| {
            let mut config = Config::default();
            settings.iter().for_each(|(set, value)| set(&mut config, value).unwrap());
            config.slow_requests
        };
        assert_eq!(log(&[]), SlowRequestsConfig::default());
        assert_eq!(log(&[]).threshold, Some(DEFAULT));
        assert_eq!(log(&[(threshold, "2s")]).log, SlowRequestLog::Text);
        assert_eq!(log(&[(super::log, "json"), (threshold, "2s")]).log, SlowRequestLog::Json);
        assert_eq!(log(&[(threshold, "2s"), (super::log, "off")]).log, SlowRequestLog::Off);
        assert_eq!(log(&[(threshold, "0")]).threshold, None);
    }
}
