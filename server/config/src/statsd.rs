//! What statsd and Datadog's agent get of `--stats-push`, by the options of uWSGI's plugins for them.

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::STATS;
use super::row::{Kind, Row};
use Kind::{Custom, Flag, Texts};

/// `--statsd-*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsdConfig {
    /// `--statsd-no-workers`: nothing of single workers.
    pub no_workers: bool,
    /// `--statsd-all-gauges`: counters are sent as gauges too.
    pub all_gauges: bool,
}

/// `--dogstatsd-*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DogstatsdConfig {
    /// `--dogstatsd-no-workers`: nothing of single workers.
    pub no_workers: bool,
    /// `--dogstatsd-all-gauges`: counters are sent as gauges too.
    pub all_gauges: bool,
    /// `--dogstatsd-extra-tags`: tags of every number, by commas.
    pub extra_tags: Option<String>,
    /// `--dogstatsd-whitelist-metric`: only these, unless there is none.
    pub only: Vec<String>,
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["statsd-no-workers"], kind: Flag(|c| &mut c.statsd.no_workers),
          help: "Send statsd nothing of single workers", ..STATS },
    Row { names: &["statsd-all-gauges"], kind: Flag(|c| &mut c.statsd.all_gauges),
          help: "Send statsd every number as a gauge, so that it does not add up totals", ..STATS },
    Row { names: &["dogstatsd-no-workers"], kind: Flag(|c| &mut c.dogstatsd.no_workers),
          help: "Send Datadog's agent nothing of single workers", ..STATS },
    Row { names: &["dogstatsd-all-gauges"], kind: Flag(|c| &mut c.dogstatsd.all_gauges),
          help: "Send Datadog's agent every number as a gauge, so that it does not add up totals", ..STATS },
    Row { names: &["dogstatsd-extra-tags"], kind: Custom(extra_tags), takes: "TAGS",
          help: "Add these tags, separated by commas, to every number for Datadog's agent: app:shop,env:prod", ..STATS },
    Row { names: &["dogstatsd-whitelist-metric"], kind: Texts(|c| &mut c.dogstatsd.only), takes: "NAME",
          help: "Send Datadog's agent only these numbers, by their names without the prefix and the tags: worker.requests", ..STATS },
];

fn extra_tags(config: &mut Config, value: &str) -> Result<(), String> {
    if value.contains(|c: char| c.is_whitespace() || c.is_control() || "|#".contains(c)) {
        return Err("tags by commas, without blanks, | and #, as in app:shop,env:prod".to_owned());
    }
    config.dogstatsd.extra_tags = Some(value.to_owned()).filter(|tags| !tags.is_empty());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::tests::{error, serve};

    #[test]
    fn the_plugins_options_are_taken() {
        let config = serve(
            "rwsgi --http :1 -w m --statsd-all-gauges --statsd-no-workers --dogstatsd-extra-tags app:shop,x \
             --dogstatsd-whitelist-metric core.busy_workers --dogstatsd-whitelist-metric worker.requests",
        );
        assert!(config.statsd.all_gauges && config.statsd.no_workers && !config.dogstatsd.all_gauges);
        assert_eq!(config.dogstatsd.extra_tags.as_deref(), Some("app:shop,x"));
        assert_eq!(config.dogstatsd.only, ["core.busy_workers", "worker.requests"]);
        assert!(error("rwsgi --http :1 -w m --dogstatsd-extra-tags a|b").contains("tags by commas"));
    }
}
