//! Stats that are sent to others without being asked for, and what is left out of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::STATS;
use super::row::{Kind, Row};
use super::value::leading_number;
use Kind::{Custom, Flag, Number, Path};

/// `--stats-push`, `--metrics-dir`, `--stats-no-*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsPushConfig {
    /// `--stats-push`: who gets them.
    pub to: Vec<Push>,
    /// `--stats-pusher-default-freq`: seconds between two times, for those that say nothing else.
    pub frequency: u32,
    /// `--metrics-dir`: a directory with a file for each number.
    pub directory: Option<PathBuf>,
    /// `--stats-no-cores`: nothing of single threads in the document.
    pub no_cores: bool,
    /// `--stats-no-metrics`: the application's numbers are not in the document.
    pub no_metrics: bool,
    /// `--metrics-no-cores`: no numbers of single threads.
    pub metrics_no_cores: bool,
}

impl Default for StatsPushConfig {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            frequency: 3,
            directory: None,
            no_cores: false,
            no_metrics: false,
            metrics_no_cores: false,
        }
    }
}

/// `--stats-push`: somebody who gets the stats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Who.
    pub to: PushTo,
    /// Seconds between two times; `None` for [`StatsPushConfig::frequency`].
    pub frequency: Option<u32>,
}

/// Who gets the stats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushTo {
    /// `file`: the document is added to a file, and this after it.
    File(PathBuf, String),
    /// `statsd`: each number is a datagram of statsd's to this address, its name begins with the prefix.
    Statsd(String, String),
    /// `dogstatsd`: the same for Datadog's agent, the numbers in a name are tags.
    Dogstatsd(String, String),
    /// `socket`: each number is a datagram, name, kind and value.
    Datagrams(String, String),
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["stats-push"], kind: Custom(push), takes: "WHERE", repeats: true,
          help: "Send the stats every few seconds: file:path=FILE[,freq=SECONDS] adds the document to a file; statsd:HOST:PORT[,PREFIX], dogstatsd: and socket: send numbers by UDP, or to a unix socket: statsd:/PATH; carbon:HOST:PORT is carbon",
          ..STATS },
    Row { names: &["stats-pusher-default-freq", "stats-pushers-default-freq"],
          kind: Number(|c| &mut c.stats_push.frequency, 1..=86_400), takes: "SECONDS", default: "3",
          help: "How often stats-push sends", ..STATS },
    Row { names: &["metrics-dir", "metric-dir"], kind: Path(|c| &mut c.stats_push.directory), takes: "DIR",
          help: "Keep a file for each number of the server and the application in this directory", ..STATS },
    Row { names: &["metrics-no-cores"], kind: Flag(|c| &mut c.stats_push.metrics_no_cores),
          help: "Leave the numbers of single threads out of metrics-dir and stats-push", ..STATS },
    Row { names: &["stats-no-cores"], kind: Flag(|c| &mut c.stats_push.no_cores),
          help: "Leave single threads out of the stats", ..STATS },
    Row { names: &["stats-no-metrics"], kind: Flag(|c| &mut c.stats_push.no_metrics),
          help: "Leave the application's numbers out of the stats", ..STATS },
];

fn push(config: &mut Config, value: &str) -> Result<(), String> {
    let (kind, argument) = value.split_once(':').unwrap_or((value, ""));
    let datagrams = || {
        let (address, prefix) = argument.split_once(',').unwrap_or((argument, "uwsgi"));
        let address = address.strip_prefix("unix:").map_or(address, |path| path.strip_prefix("//").unwrap_or(path));
        match address.contains(':') || address.starts_with('/') {
            true => Ok((address.to_owned(), prefix.to_owned())),
            false => Err(format!("a host and a port after {kind}, as in {kind}:127.0.0.1:8125")),
        }
    };
    let mut frequency = None;
    let to = match kind {
        "file" => {
            let (mut path, mut separator) = ("uwsgi.stats", "\n\n");
            for (key, value) in argument.split(',').filter_map(|pair| pair.split_once('=')) {
                match key {
                    "path" => path = value,
                    "separator" => separator = value,
                    "freq" => frequency = Some(leading_number(config, value, &(1..=86_400))?),
                    _ => return Err(format!("the keys path, separator and freq after file, not '{key}'")),
                }
            }
            PushTo::File(path.into(), separator.into())
        }
        "statsd" => datagrams().map(|(address, prefix)| PushTo::Statsd(address, prefix))?,
        "dogstatsd" => datagrams().map(|(address, prefix)| PushTo::Dogstatsd(address, prefix))?,
        "socket" => datagrams().map(|(address, prefix)| PushTo::Datagrams(address, prefix))?,
        "carbon" => {
            return super::carbon::server(config, argument).map_err(|expected| format!("{expected}, after carbon:"));
        }
        _ => {
            config.lose(format!("nothing is sent to '{kind}': use file, statsd, dogstatsd, carbon or socket"));
            return Ok(());
        }
    };
    config.stats_push.to.push(Push { to, frequency });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_the_stats_is_written_as_for_uwsgi() {
        let mut config = Config::default();
        for value in [
            "file:path=/tmp/a,freq=10",
            "file",
            "statsd:127.0.0.1:8125,site",
            "socket:h:1",
            "dogstatsd:unix:///run/dd.sock",
            "mongodb:a,b",
        ] {
            push(&mut config, value).unwrap();
        }
        let expected = [
            (PushTo::File("/tmp/a".into(), "\n\n".into()), Some(10)),
            (PushTo::File("uwsgi.stats".into(), "\n\n".into()), None),
            (PushTo::Statsd("127.0.0.1:8125".into(), "site".into()), None),
            (PushTo::Datagrams("h:1".into(), "uwsgi".into()), None),
            (PushTo::Dogstatsd("/run/dd.sock".into(), "uwsgi".into()), None),
        ];
        let expected = expected.map(|(to, frequency)| Push { to, frequency });
        assert_eq!(config.stats_push.to, expected);
        assert_eq!(config.warnings.len(), 1);
        assert!(push(&mut config, "statsd:localhost").is_err());
    }
}
