//! Who handles a signal, in uWSGI's notation.

use serde::{Deserialize, Serialize};

/// Who handles a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// The first worker that is free: nothing, `worker` or `worker0`.
    Worker,
    /// `workerN`.
    WorkerNumber(u32),
    /// Every worker: `workers` and `active-workers`, for one without a process could not be reached.
    Workers,
    /// The first mule that is free: `mule` or `mule0`.
    Mule,
    /// `muleN`.
    MuleNumber(u32),
    /// Every mule: `mules`.
    Mules,
    /// The first mule of a farm that is free: `farm_NAME`.
    Farm(String),
    /// The same, by the farm's number from 1: `farmN`.
    FarmNumber(u32),
    /// The first spooler that is free: `spooler`.
    Spooler,
}

impl Target {
    /// Reads what the application wrote; `None` for what is no target.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse::<u32>().ok();
        Some(match text {
            "" | "worker" => Self::Worker,
            "workers" | "active-workers" => Self::Workers,
            "mule" => Self::Mule,
            "mules" => Self::Mules,
            "spooler" => Self::Spooler,
            text => {
                if let Some(name) = text.strip_prefix("farm_") {
                    Self::Farm(name.to_owned())
                } else if let Some(farm) = text.strip_prefix("farm") {
                    Self::FarmNumber(number(farm)?)
                } else if let Some(mule) = text.strip_prefix("mule") {
                    match number(mule)? {
                        0 => Self::Mule,
                        mule => Self::MuleNumber(mule),
                    }
                } else {
                    match number(text.strip_prefix("worker")?)? {
                        0 => Self::Worker,
                        worker => Self::WorkerNumber(worker),
                    }
                }
            }
        })
    }

    /// Whether all that it names are meant, rather than the first that is free.
    #[must_use]
    pub(crate) fn is_all(&self) -> bool {
        matches!(self, Self::Workers | Self::Mules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_uwsgi_reads_them() {
        for (text, target) in [
            ("", Target::Worker),
            ("worker0", Target::Worker),
            ("worker12", Target::WorkerNumber(12)),
            ("active-workers", Target::Workers),
            ("mule2", Target::MuleNumber(2)),
            ("mule0", Target::Mule),
            ("farm_a1", Target::Farm("a1".into())),
            ("farm1", Target::FarmNumber(1)),
        ] {
            assert_eq!(Target::parse(text), Some(target), "{text}");
        }
        for text in ["nobody", "workerx", "mule-1"] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }
}
