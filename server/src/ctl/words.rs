//! The words of `rwsgi ctl`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rwsgi_stats::control::{MemoryRequest, ReloadKind, Request};

/// Which server is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// `--control`.
    pub(super) control: Option<PathBuf>,
    /// `--pidfile`.
    pub(super) pidfile: Option<PathBuf>,
}

/// What is asked of whom.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) server: Server,
    pub(super) request: Request,
    /// `--json`.
    pub(super) as_json: bool,
}

impl Call {
    /// Reads what follows `rwsgi ctl`.
    ///
    /// # Errors
    /// What is wrong with it, or the help that it asks for.
    pub(super) fn parse(words: Vec<OsString>) -> clap::error::Result<Self> {
        let argv = std::iter::once(OsString::from("rwsgi ctl")).chain(words);
        let matches = command().try_get_matches_from(argv)?;
        let Some((word, given)) = matches.subcommand() else { unreachable!("clap asks for a word") };
        let path = |name| given.get_one::<PathBuf>(name).cloned();
        Ok(Self {
            server: Server { control: path("control"), pidfile: path("pidfile") },
            request: request(word, given),
            as_json: given.get_flag("json"),
        })
    }
}

fn command() -> Command {
    let path = |name, help| {
        let arg = Arg::new(name).long(name).value_name("PATH").global(true).help(help);
        arg.value_parser(value_parser!(PathBuf))
    };
    let flag = |name, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let worker = || Arg::new("worker").value_name("N").value_parser(value_parser!(u32).range(1..));
    let some_worker = |help| worker().required(true).help(help);
    Command::new("rwsgi ctl")
        .about("Looks at a running server and acts on it, through its control socket.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(path("control", "The server's control socket"))
        .arg(path("pidfile", "The server's pidfile").conflicts_with("control"))
        .arg(flag("json", "Print the answer as JSON").global(true))
        .subcommand(Command::new("stats").about("Prints the stats document"))
        .subcommand(
            Command::new("stacks")
                .about("Prints what each thread executes, and for which request")
                .arg(worker().help("Of this worker alone")),
        )
        .subcommand(
            Command::new("profile")
                .about("Samples the threads in requests for a time, and prints where they were")
                .arg(number("seconds", "S", "10", "For how long").value_parser(value_parser!(f64)))
                .arg(number("rate", "N", "100", "Samples of each thread a second").long("rate")),
        )
        .subcommand(
            Command::new("reload")
                .about("Loads the application again beside the one that serves, and has new workers take over")
                .arg(flag("chain", "One worker after another"))
                .arg(flag("brutal", "Give requests no time to finish").conflicts_with("chain")),
        )
        .subcommand(
            Command::new("recycle")
                .about("Replaces a worker's process by a new one of the same code, without losing a request")
                .arg(some_worker("The worker")),
        )
        .subcommand(
            Command::new("drain")
                .about("Has a worker take no new requests; it finishes those that it has, and stays")
                .arg(some_worker("The worker")),
        )
        .subcommand(Command::new("undrain").about("Has a drained worker take requests again").arg(some_worker("The worker")))
        .subcommand(
            Command::new("workers")
                .about("Sets how many workers run")
                .arg(Arg::new("count").value_name("N").required(true).value_parser(value_parser!(u32).range(1..)))
                .arg_required_else_help(true),
        )
        .subcommand(
            Command::new("log-level")
                .about("Sets what the log tells")
                .arg(Arg::new("level").value_name("LEVEL").required(true).value_parser(["error", "warn", "info", "debug"])),
        )
        .subcommand(
            Command::new("slow-request")
                .about("Sets from when on a request is slow, and its stack and phases are kept")
                .arg(Arg::new("time").value_name("TIME").required(true).value_parser(time).help("As in 500ms, 2s; 0 for never")),
        )
        .subcommand(
            Command::new("memory")
                .about("Looks into a worker's memory")
                .arg(some_worker("The worker"))
                .arg(
                    Arg::new("what")
                        .value_name("WHAT")
                        .default_value("types")
                        .value_parser(["types", "trace-start", "trace", "trace-stop", "savings"])
                        .help("types: objects by type; trace: lines that allocate, between trace-start and trace-stop; savings: what would be saved"),
                ),
        )
        .subcommand(
            Command::new("refork")
                .about("Forks new workers from one that has served for a while")
                .arg(worker().help("Which; the one with most requests without this")),
        )
}

fn number(name: &'static str, takes: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(takes).default_value(default).value_parser(value_parser!(u32).range(1..)).help(help)
}

fn request(word: &str, given: &ArgMatches) -> Request {
    let number = |name| given.get_one::<u32>(name).copied();
    let worker = || number("worker").unwrap_or_default();
    let text = |name| given.get_one::<String>(name).cloned().unwrap_or_default();
    match word {
        "stats" => Request::Stats,
        "stacks" => Request::Stacks { worker: number("worker") },
        "profile" => Request::Profile {
            seconds: given.get_one("seconds").copied().unwrap_or_default(),
            rate: number("rate").unwrap_or_default(),
        },
        "reload" => Request::Reload {
            how: match (given.get_flag("chain"), given.get_flag("brutal")) {
                (true, _) => ReloadKind::Chain,
                (_, true) => ReloadKind::Brutal,
                _ => ReloadKind::Rolling,
            },
        },
        "recycle" => Request::Recycle { worker: worker() },
        "drain" => Request::Drain { worker: worker() },
        "undrain" => Request::Undrain { worker: worker() },
        "workers" => Request::Workers { count: number("count").unwrap_or_default() },
        "log-level" => Request::LogLevel { level: text("level") },
        "slow-request" => Request::SlowRequest { micros: given.get_one("time").copied().unwrap_or_default() },
        "memory" => Request::Memory {
            worker: worker(),
            what: match text("what").as_str() {
                "trace-start" => MemoryRequest::TraceStart,
                "trace" => MemoryRequest::Trace,
                "trace-stop" => MemoryRequest::TraceStop,
                "savings" => MemoryRequest::Savings,
                _ => MemoryRequest::Types,
            },
        },
        "refork" => Request::Refork { worker: number("worker") },
        word => unreachable!("clap knows no word '{word}'"),
    }
}

/// A time with its unit, as µs.
fn time(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic() || unit == 'µ');
    let factor = match &text[number.len()..] {
        "" | "s" => 1e6,
        "ms" => 1e3,
        "us" | "µs" => 1.0,
        "m" => 60e6,
        unit => return Err(format!("'{unit}' is no unit: expected ms, s or m")),
    };
    match number.trim().parse::<f64>() {
        Ok(time) if (0.0..=86_400e6).contains(&(time * factor)) => Ok((time * factor) as u64),
        _ => Err("expected a time as in 500ms or 2s".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> clap::error::Result<Call> {
        Call::parse(words.split_whitespace().map(Into::into).collect())
    }

    #[test]
    fn words_say_what_is_asked_of_whom() {
        command().debug_assert();
        let call = parsed("--control /run/x.ctl reload --chain --json").unwrap();
        assert_eq!(call.server.control, Some("/run/x.ctl".into()));
        assert!(call.as_json);
        for (words, request) in [
            ("stats", Request::Stats),
            ("stacks 2", Request::Stacks { worker: Some(2) }),
            ("profile 2.5 --rate 50", Request::Profile { seconds: 2.5, rate: 50 }),
            ("reload --brutal", Request::Reload { how: ReloadKind::Brutal }),
            ("recycle 3", Request::Recycle { worker: 3 }),
            ("workers 4", Request::Workers { count: 4 }),
            ("log-level debug", Request::LogLevel { level: "debug".into() }),
            ("slow-request 500ms", Request::SlowRequest { micros: 500_000 }),
            ("slow-request 0", Request::SlowRequest { micros: 0 }),
            ("memory 1 savings", Request::Memory { worker: 1, what: MemoryRequest::Savings }),
            ("refork", Request::Refork { worker: None }),
        ] {
            assert_eq!(parsed(words).unwrap().request, request, "{words}");
        }
        for words in
            ["", "recycle", "recycle 0", "reload --chain --brutal", "log-level loud", "slow-request 1h", "wrong"]
        {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
