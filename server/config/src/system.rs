//! Limits and preferences that the system keeps for processes.

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::PROCESS;
use super::row::{Kind, Row};
use super::value::understood;
use Kind::{Custom, Flag, Limit};

/// What is asked of the system for the server's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemConfig {
    /// `--cpu-affinity`: to how many processors each worker is bound.
    pub cpu_affinity: Option<u32>,
    /// `--prio`: the nice value of every process, from -20 to 19.
    pub prio: Option<i32>,
    /// `--max-fd`: `RLIMIT_NOFILE` of every process.
    pub max_fd: Option<u32>,
    /// `--limit-nproc`: `RLIMIT_NPROC` of the processes that run the application.
    pub limit_nproc: Option<u32>,
    /// `--never-swap`: the memory of every process is locked.
    pub never_swap: bool,
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["cpu-affinity"], kind: Limit(|c| &mut c.system.cpu_affinity), takes: "N",
          help: "Bind each worker to so many processors, the next ones for each worker", ..PROCESS },
    Row { names: &["prio"], kind: Custom(prio), takes: "NICE",
          help: "Run every process with this nice value, -20 to 19; only root can go below the present one", ..PROCESS },
    Row { names: &["max-fd"], kind: Limit(|c| &mut c.system.max_fd), takes: "N",
          help: "Let no process have more descriptors (RLIMIT_NOFILE), and not what the hard limit allows; only root can raise that", ..PROCESS },
    Row { names: &["limit-nproc"], kind: Limit(|c| &mut c.system.limit_nproc), takes: "N",
          help: "Let workers and mules start no process or thread when their user has so many (RLIMIT_NPROC)", ..PROCESS },
    Row { names: &["never-swap"], kind: Flag(|c| &mut c.system.never_swap),
          help: "Keep the memory of every process out of the swap space (mlockall)", ..PROCESS },
];

/// As C's `atoi` reads it; what is out of range becomes the nearest value, as the kernel has it.
fn prio(config: &mut Config, value: &str) -> Result<(), String> {
    let text = value.trim_start();
    let sign = usize::from(text.starts_with(['-', '+']));
    let end = sign + text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let nice = text[..end].parse::<i32>().unwrap_or(0).clamp(-20, 19);
    if value.trim() != nice.to_string() {
        understood(config, value, &nice.to_string());
    }
    config.system.prio = Some(nice).filter(|nice| *nice != 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nice_value_may_be_below_0_and_have_a_comment() {
        for (value, expected, warnings) in
            [("5", Some(5), 0), ("-10", Some(-10), 0), ("0", None, 0), ("-5 ; nice", Some(-5), 1), ("100", Some(19), 1)]
        {
            let mut config = Config::default();
            prio(&mut config, value).unwrap();
            assert_eq!((config.system.prio, config.warnings.len()), (expected, warnings), "{value}");
        }
    }
}
