//! Probes for load balancers and orchestrators, and a delay before a stop in which they can send requests elsewhere.

use rwsgi_stats::Address;
use serde::{Deserialize, Serialize};

use super::Config;
use super::row::{Kind, RELOAD, Row, STATS};
use Kind::{Addresses, Custom, Number};

/// `--probe`, `--ready-saturation`, `--drain-delay`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbesConfig {
    /// `--probe`: where `/-/live` and `/-/ready` are answered and nothing else.
    pub addresses: Vec<Address>,
    /// `--ready-saturation`: from here on the server is not ready; thousandths, above 0.
    pub saturation: Option<u32>,
    /// `--drain-delay`: seconds for which a server that is told to stop accepts requests.
    pub drain_delay: u32,
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["probe"], kind: Addresses(|c| &mut c.probes.addresses), takes: "ADDRESS",
          help: "Answer GET /-/live and /-/ready here, over HTTP, and nothing else, from before the application is loaded until the end; stats-http answers them too", ..STATS },
    Row { names: &["ready-saturation"], kind: Custom(saturation), takes: "N",
          help: "Let /-/ready say no while threads in requests and waiting requests together have been N times the threads or more for 5 s, until they have been fewer for 5 s; 0 for never", ..STATS },
    Row { names: &["drain-delay"], kind: Number(|c| &mut c.probes.drain_delay, 0..=3600), takes: "SECONDS", default: "0",
          help: "When told to stop, go on accepting for this long while /-/ready says no and responses carry Connection: close, so that balancers send requests elsewhere; a second order to stop ends the delay", ..RELOAD },
];

fn saturation(config: &mut Config, value: &str) -> Result<(), String> {
    let number = value.trim().parse::<f64>().ok().filter(|number| (0.0..=1000.0).contains(number));
    let number = number.ok_or("a number from 0 to 1000, as in 2 or 1.5")?;
    // In range, as checked.
    config.probes.saturation = Some((number * 1e3).round() as u32).filter(|thousandths| *thousandths > 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saturation_is_a_number_and_0_is_none() {
        let mut config = Config::default();
        saturation(&mut config, "1.5").unwrap();
        assert_eq!(config.probes.saturation, Some(1500));
        saturation(&mut config, "0").unwrap();
        assert_eq!(config.probes.saturation, None);
        for value in ["", "-1", "many", "NaN", "inf", "1001", "80%"] {
            assert!(saturation(&mut config, value).is_err(), "{value}");
        }
    }
}
