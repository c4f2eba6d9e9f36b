//! Numbers for Graphite's carbon (`--carbon`), by uWSGI's options.

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::STATS;
use super::row::{Kind, Row};
use Kind::{Always, Custom, Flag, Number, Text};

/// `--carbon` and its kin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarbonConfig {
    /// `--carbon`: hosts and ports.
    pub servers: Vec<String>,
    /// `--carbon-freq`: the interval, seconds.
    pub frequency: u32,
    /// `--carbon-timeout`: seconds for connecting, and again for sending.
    pub timeout: u32,
    /// `--carbon-max-retry`: how often sending is tried again before the next interval.
    pub max_retry: u32,
    /// `--carbon-retry-delay`: seconds before it is.
    pub retry_delay: u32,
    /// `--carbon-root`: what names begin with.
    pub root: String,
    /// `--carbon-id`: what names have after the host's; `None` for the first socket's address.
    pub id: Option<String>,
    /// `--carbon-hostname-dots`: what stands for the dots of the host's name.
    pub hostname_dots: Option<char>,
    /// `--carbon-no-workers`: nothing of single workers.
    pub no_workers: bool,
    /// `--carbon-idle-avg`.
    pub idle_average: IdleAverage,
    /// `--carbon-use-metrics`: the numbers that other receivers get, by their names.
    pub use_metrics: bool,
}

/// `--carbon-idle-avg`: what is sent of the average response time when there was no request since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdleAverage {
    /// The last one.
    #[default]
    Last,
    /// 0.
    Zero,
    /// Nothing.
    Nothing,
}

impl Default for CarbonConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            frequency: 60,
            timeout: 3,
            max_retry: 1,
            retry_delay: 7,
            root: "uwsgi".to_owned(),
            id: None,
            hostname_dots: None,
            no_workers: false,
            idle_average: IdleAverage::Last,
            use_metrics: false,
        }
    }
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["carbon"], kind: Custom(server), takes: "HOST:PORT", repeats: true,
          help: "Send numbers to this carbon (Graphite) in its line protocol, by TCP", ..STATS },
    Row { names: &["carbon-freq"], kind: Number(|c| &mut c.carbon.frequency, 1..=86_400), takes: "SECONDS", default: "60",
          help: "Send carbon the numbers this often", ..STATS },
    Row { names: &["carbon-timeout"], kind: Number(|c| &mut c.carbon.timeout, 1..=3_600), takes: "SECONDS", default: "3",
          help: "Let connecting to carbon, and then sending, take no longer than this", ..STATS },
    Row { names: &["carbon-max-retry"], kind: Number(|c| &mut c.carbon.max_retry, 0..=1_000), takes: "N", default: "1",
          help: "Try again this many times when carbon does not take the numbers, before the next interval", ..STATS },
    Row { names: &["carbon-retry-delay"], kind: Number(|c| &mut c.carbon.retry_delay, 1..=86_400), takes: "SECONDS", default: "7",
          help: "Wait this long before each of these tries", ..STATS },
    Row { names: &["carbon-root"], kind: Custom(root), takes: "NAME", default: "uwsgi",
          help: "Begin the names of numbers in carbon with this; empty for nothing", ..STATS },
    Row { names: &["carbon-id"], kind: Text(|c| &mut c.carbon.id), takes: "NAME",
          help: "Put this after the host's name in the names of numbers in carbon; without it the first socket's address, with _ for its dots", ..STATS },
    Row { names: &["carbon-hostname-dots"], kind: Custom(dots), takes: "CHAR",
          help: "Put this character in place of the dots of the host's name, which carbon takes for levels", ..STATS },
    Row { names: &["carbon-no-workers"], kind: Flag(|c| &mut c.carbon.no_workers),
          help: "Send carbon nothing of single workers", ..STATS },
    Row { names: &["carbon-idle-avg"], kind: Custom(idle_average), takes: "WHAT", default: "last",
          help: "Send carbon this as the average response time while there are no requests: last (the last one), zero, or none (no line)", ..STATS },
    Row { names: &["carbon-use-metrics"], kind: Flag(|c| &mut c.carbon.use_metrics),
          help: "Send carbon the numbers that stats-push sends, by the same names, in place of carbon's own", ..STATS },
    Row { names: &["carbon-name-resolve", "carbon-resolve-names"], kind: Always,
          help: "Nothing to do: the host of carbon may always be a name", ..STATS },
];

/// Adds a carbon server; also `--stats-push carbon:HOST:PORT`.
pub(crate) fn server(config: &mut Config, value: &str) -> Result<(), String> {
    let is_complete =
        value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !is_complete {
        return Err("a host and a port, as in 127.0.0.1:2003".to_owned());
    }
    config.carbon.servers.push(value.to_owned());
    Ok(())
}

fn root(config: &mut Config, value: &str) -> Result<(), String> {
    value.clone_into(&mut config.carbon.root);
    Ok(())
}

fn dots(config: &mut Config, value: &str) -> Result<(), String> {
    // uWSGI takes the first character too, and nothing for an empty value.
    config.carbon.hostname_dots = value.chars().next();
    Ok(())
}

fn idle_average(config: &mut Config, value: &str) -> Result<(), String> {
    config.carbon.idle_average = match value {
        "last" => IdleAverage::Last,
        "zero" => IdleAverage::Zero,
        "none" => IdleAverage::Nothing,
        _ => return Err("last, zero or none".to_owned()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{error, serve};

    #[test]
    fn uwsgi_s_options_are_taken() {
        let line = "rwsgi --http :1 -w m --carbon 127.0.0.1:2003 --stats-push carbon:graphite:2003 --carbon-freq 10 \
                    --carbon-root prod --carbon-hostname-dots _x --carbon-idle-avg none --carbon-resolve-names";
        let carbon = serve(line).carbon;
        assert_eq!(carbon.servers, ["127.0.0.1:2003", "graphite:2003"]);
        let expected = CarbonConfig {
            servers: carbon.servers.clone(),
            frequency: 10,
            root: "prod".into(),
            hostname_dots: Some('_'),
            idle_average: IdleAverage::Nothing,
            ..CarbonConfig::default()
        };
        assert_eq!(carbon, expected);
        for wrong in
            ["--carbon graphite", "--carbon :2003", "--carbon h:x", "--carbon-idle-avg never", "--stats-push carbon"]
        {
            assert!(error(&format!("rwsgi --http :1 -w m {wrong}")).contains("expected"), "{wrong}");
        }
    }
}
