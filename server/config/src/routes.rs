//! `route-stats`, `metrics-no-routes`: requests by route, in the stats.

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::{Kind, Row, STATS};
use super::value::{is_off, leading_number};

/// The most routes that are told apart.
const MOST_ROUTES: u32 = 200;

/// How requests are counted by route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesConfig {
    /// `--route-stats`: how many routes are told apart; 0 when requests are not counted by route.
    pub most: u32,
    /// `--metrics-no-routes`: they are not in the text for Prometheus.
    pub no_metrics: bool,
}

impl Default for RoutesConfig {
    fn default() -> Self {
        Self { most: MOST_ROUTES, no_metrics: false }
    }
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["route-stats"], kind: Kind::Custom(most), takes: "N", default: "200",
          help: "Count requests by route in the stats, of N routes at most (200 at most), and the others together; 0 or off for no counts by route", ..STATS },
    Row { names: &["metrics-no-routes"], kind: Kind::Flag(|c| &mut c.routes.no_metrics),
          help: "Leave routes out of /metrics", ..STATS },
];

fn most(config: &mut Config, value: &str) -> Result<(), String> {
    config.routes.most = match value {
        "true" | "yes" | "on" => MOST_ROUTES,
        value if is_off(value) => 0,
        value => leading_number(config, value, &(0..=MOST_ROUTES))?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::tests::serve;

    #[test]
    fn routes_are_counted_unless_it_is_said_otherwise() {
        for (line, most) in [
            ("", 200),
            ("--route-stats=true", 200),
            ("--route-stats=off", 0),
            ("--route-stats=false", 0),
            ("--route-stats 0", 0),
            ("--route-stats 1", 1),
            ("--route-stats=20", 20),
            ("--route-stats=100000", 200),
        ] {
            assert_eq!(serve(&format!("rwsgi --http :1 -w m {line}")).routes.most, most, "{line}");
        }
        assert!(serve("rwsgi --http :1 -w m --metrics-no-routes").routes.no_metrics);
    }
}
