//! The words of `rwsgi ctl`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rwsgi_assertions::Assertion;
use rwsgi_stats::control::{MemoryRequest, ReloadKind, Request};

/// Which server is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// `--control`.
    pub(super) control: Option<PathBuf>,
    /// `--pidfile`.
    pub(super) pidfile: Option<PathBuf>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// To know which servers run.
    Servers,
    /// That a server does this.
    Request(Request),
    /// A canary: a reload of a few workers first.
    Trial(Trial),
}

/// `reload --canary`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trial {
    /// On how many workers.
    pub(super) workers: u32,
    /// For how long.
    pub(super) time: Duration,
    /// What must hold.
    pub(super) assertions: Vec<Assertion>,
    /// Too few requests to tell do not undo it.
    pub(super) keep_if_idle: bool,
}

/// A command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) server: Server,
    pub(super) wanted: Wanted,
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
        let path = |name| matches.get_one::<PathBuf>(name).cloned();
        let server = Server { control: path("control"), pidfile: path("pidfile") };
        let wanted = match matches.subcommand() {
            Some((word, given)) => match trial(word, given) {
                Some(trial) => Wanted::Trial(trial),
                None => Wanted::Request(request(word, given)),
            },
            None if server == Server::default() => Wanted::Servers,
            None => Wanted::Request(Request::Stats),
        };
        Ok(Self { server, wanted, as_json: matches.get_flag("json") })
    }
}

const AFTER_HELP: &str = "\
Without a WORD it lists the running servers, one on a line. Without --control and --pidfile it asks the only server of this
user.

EXAMPLES
  rwsgi ctl                          which servers run, and how busy they are
  rwsgi ctl reload                   deploy: exits when the new code serves, or says that it cannot be loaded
  rwsgi ctl reload --canary 1 --assert 'error_rate <= previous_generation'
                                     deploy to one worker, compare for 30 s, keep or undo
  rwsgi ctl recycle 3                a new process for worker 3, without losing a request
  rwsgi ctl drain 3                  keep new requests from worker 3, to look at it
  rwsgi ctl --pidfile /run/my.pid workers 2
  rwsgi ctl stats | jq .listen_queue

EXIT STATUS
  0  it was done
  1  the server did not do it, and says why
  2  the command line is wrong
  3  there is no server to ask, or several and neither --control nor --pidfile says which
  4  reload --canary: undone, because there was too little to tell by

Only root and the user that the server runs as may ask. The server logs who has asked for what.
docs/control.md has the protocol, for other programs.";

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
        .subcommand_value_name("WORD")
        .after_help(AFTER_HELP)
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
                .about("Samples the threads in requests for a time, and prints where their time went, as JSON")
                .after_help("  rwsgi ctl profile 30 --rate 50\nrtop --profile makes a flame graph of it.")
                .arg(number("seconds", "S", "10", "For how long").value_parser(value_parser!(f64)))
                .arg(number("rate", "N", "100", "Samples of each thread a second").long("rate")),
        )
        .subcommand(
            Command::new("reload")
                .about("Loads the application again beside the one that serves, and replaces the workers")
                .after_help("When the new application cannot be loaded, the old one goes on and the exit status is 1.")
                .arg(flag("chain", "One worker after another"))
                .arg(flag("brutal", "Give requests no time to finish").conflicts_with("chain"))
                .arg(
                    worker()
                        .id("canary")
                        .long("canary")
                        .conflicts_with_all(["chain", "brutal"])
                        .requires("assert")
                        .help("Reload N workers first, compare them with the others, and keep or undo it by the assertions"),
                )
                .arg(
                    Arg::new("watch")
                        .long("watch")
                        .value_name("TIME")
                        .default_value("30s")
                        .value_parser(time)
                        .help("With --canary: for how long both are compared"),
                )
                .arg(
                    Arg::new("assert")
                        .long("assert")
                        .value_name("ASSERTION")
                        .action(ArgAction::Append)
                        .value_parser(value_parser!(Assertion))
                        .requires("canary")
                        .help("What must hold of the new code, such as 'p99 < 1.1 * previous_generation'; may be repeated"),
                )
                .arg(flag("keep-if-idle", "Keep it when there were too few requests to tell").requires("canary")),
        )
        .subcommand(Command::new("canary-keep").about("Keeps a canary: all workers serve its generation"))
        .subcommand(
            Command::new("canary-undo").about("Undoes a canary: its workers serve the generation before again"),
        )
        .subcommand(
            Command::new("recycle")
                .about("Replaces a worker's process by a new one of the same code, without losing a request")
                .arg(some_worker("The worker")),
        )
        .subcommand(
            Command::new("drain")
                .about("Lets a worker finish its requests and take no new ones; its process stays")
                .after_help("The http router gives requests to other workers at once. On sockets where workers accept themselves (http-socket, socket) it\naccepts no more connections and closes idle ones. A new process of the worker is not drained.")
                .arg(some_worker("The worker")),
        )
        .subcommand(Command::new("undrain").about("Lets a drained worker take requests again").arg(some_worker("The worker")))
        .subcommand(
            Command::new("workers")
                .about("Sets how many workers run")
                .after_help("From 1 to the number that the server was started with (processes). With cheaper at most so many run from now on.\nA reload keeps the number, a restart does not.")
                .arg(Arg::new("count").value_name("N").required(true).value_parser(value_parser!(u32).range(1..)))
                .arg_required_else_help(true),
        )
        .subcommand(
            Command::new("log-level")
                .about("Sets the log level of every process of the server, until the server ends")
                .arg(Arg::new("level").value_name("LEVEL").required(true).value_parser(["error", "warn", "info", "debug"])),
        )
        .subcommand(
            Command::new("slow-request")
                .about("Sets the time after which a request is slow and recorded, with its stack and phases")
                .arg(Arg::new("time").value_name("TIME").required(true).value_parser(time).help("Such as 500ms or 2s; 0 for never")),
        )
        .subcommand(
            Command::new("memory")
                .about("Prints what a worker's memory is used for, as JSON")
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
                .about("Forks all workers again, from one that has served: they share what it has cached")
                .arg(worker().help("The worker to fork from; without it the one with the most requests")),
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
        "canary-keep" => Request::CanaryKeep,
        "canary-undo" => Request::CanaryUndo,
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

/// The canary that `reload --canary` asks for; `None` for anything else.
fn trial(word: &str, given: &ArgMatches) -> Option<Trial> {
    let workers = (word == "reload").then(|| given.get_one::<u32>("canary").copied()).flatten()?;
    Some(Trial {
        workers,
        time: Duration::from_micros(given.get_one("watch").copied().unwrap_or_default()),
        assertions: given.get_many("assert").unwrap_or_default().cloned().collect(),
        keep_if_idle: given.get_flag("keep-if-idle"),
    })
}

/// A time with its unit, as µs.
fn time(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic() || unit == 'µ');
    let factor = match &text[number.len()..] {
        "" | "s" => 1e6,
        "ms" => 1e3,
        "us" | "µs" => 1.0,
        "m" => 60e6,
        unit => return Err(format!("'{unit}' is no unit: expected us, ms, s or m")),
    };
    match number.trim().parse::<f64>() {
        Ok(time) if (0.0..=86_400e6).contains(&(time * factor)) => Ok((time * factor) as u64),
        _ => Err("expected a time of a day at most, such as 500ms or 2s".into()),
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
            assert_eq!(parsed(words).unwrap().wanted, Wanted::Request(request), "{words}");
        }
        let trial = |words: &[&str]| Call::parse(words.iter().map(Into::into).collect()).map(|call| call.wanted);
        let asserted = ["--assert", "p99 < 1.1 * previous_generation", "--assert", "exceptions == 0"];
        let Wanted::Trial(tried) =
            trial(&[&["reload", "--canary", "1", "--watch", "2s"][..], &asserted].concat()).unwrap()
        else {
            panic!("a reload that is tried")
        };
        assert_eq!((tried.workers, tried.time, tried.assertions.len()), (1, Duration::from_secs(2), 2));
        assert!(!tried.keep_if_idle);
        for words in [
            &["reload", "--canary", "1"][..],
            &["reload", "--assert", "p99 < 1s"],
            &["reload", "--canary", "1", "--chain", "--assert", "p99 < 1s"],
            &["reload", "--canary", "1", "--assert", "p98 < 1s"],
        ] {
            assert!(trial(words).is_err(), "{words:?}");
        }
        for words in ["recycle", "recycle 0", "reload --chain --brutal", "log-level loud", "slow-request 1h", "wrong"] {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
