//! How the number of workers follows the load: the values of `cheaper*`.

use serde::{Deserialize, Serialize};

use super::Config;

/// How the number of workers follows the load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cheaper {
    /// `--cheaper`: the fewest workers; below [`processes`](super::Config::processes). `None` when the number is fixed.
    pub workers: Option<u32>,
    /// `--cheaper-initial`: how many to start with, from `workers` to `processes`; `None` for the fewest.
    pub initial: Option<u32>,
    /// `--cheaper-step`: how many to add at a time.
    pub step: u32,
    /// `--cheaper-algo`.
    pub algorithm: CheaperAlgorithm,
    /// `--cheaper-overload`: seconds between two looks at the load.
    pub overload: u32,
    /// `--cheaper-rss-limit-soft`: resident bytes of all workers from which none is added; 0 for no limit.
    pub rss_limit_soft: u64,
    /// `--cheaper-rss-limit-hard`: resident bytes of all workers from which one is stopped; 0 for no limit.
    pub rss_limit_hard: u64,
    /// `--cheaper-busyness-*`.
    pub busyness: Busyness,
}

impl Default for Cheaper {
    fn default() -> Self {
        Self {
            workers: None,
            initial: None,
            step: 1,
            algorithm: CheaperAlgorithm::Spare,
            overload: 3,
            rss_limit_soft: 0,
            rss_limit_hard: 0,
            busyness: Busyness::default(),
        }
    }
}

/// Brings the values that depend on the number of workers into its bounds.
///
/// # Errors
/// When the fewest workers are not fewer than all.
pub(crate) fn check(config: &mut Config) -> Result<(), String> {
    let (cheaper, processes) = (&mut config.cheaper, config.processes);
    let Some(fewest) = cheaper.workers else { return Ok(()) };
    if fewest >= processes {
        return Err(format!("cheaper must be lower than processes: it is {fewest}, and processes is {processes}"));
    }
    if let Some(initial) = cheaper.initial
        && !(fewest..=processes).contains(&initial)
    {
        let used = initial.clamp(fewest, processes);
        cheaper.initial = Some(used);
        config.warnings.push(format!(
            "cheaper-initial is {initial}, not from cheaper ({fewest}) to processes ({processes}): starting with {used}"
        ));
    }
    Ok(())
}

/// How to decide that workers are too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheaperAlgorithm {
    /// None is idle.
    Spare,
    /// Connections wait.
    Backlog,
    /// Utilization, within [`Busyness`].
    Busyness,
}

/// The bounds of the `busyness` algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busyness {
    /// Percent of utilization above which workers are added.
    pub max: u32,
    /// Percent of utilization below which workers may go.
    pub min: u32,
    /// Looks below `min` before one goes.
    pub multiplier: u32,
    /// Added to the multiplier when one went too early.
    pub penalty: u32,
    /// Waiting connections above which emergency workers start.
    pub backlog_alert: u32,
    /// Looks below `min` before one goes while there are emergency workers.
    pub backlog_multiplier: u32,
    /// Emergency workers started at a time.
    pub backlog_step: u32,
    /// Seconds that connections may wait without a break before emergency workers start.
    pub backlog_nonzero: u32,
    /// Log each decision.
    pub verbose: bool,
}

impl Default for Busyness {
    fn default() -> Self {
        Self {
            max: 50,
            min: 25,
            multiplier: 10,
            penalty: 2,
            backlog_alert: 33,
            backlog_multiplier: 3,
            backlog_step: 1,
            backlog_nonzero: 60,
            verbose: false,
        }
    }
}
