//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::exporter::{Listen, UwsgiExporter};
use crate::model::flame::By;
use crate::source::{Place, Target};
use crate::view::{PALETTES, palette};
use rwsgi_assertions::Assertion;
use rwsgi_stats::control::MemoryRequest;

/// Options for watching: --stacks, --memory and --profile ask once.
const NOT_INSIDE: [&str; 10] =
    ["replay", "record", "csv", "count", "duration", "until_exit", "assertions", "assert_file", "html", "command"];

/// What a program that only answers Prometheus does not do.
const NOT_EXPORTING: [&str; 13] = [
    "inside",
    "profile",
    "batch",
    "json",
    "csv",
    "record",
    "replay",
    "count",
    "duration",
    "until_exit",
    "assertions",
    "html",
    "command",
];
/// What is watched for a time, and not listed once.
const NOT_LISTED: [&str; 9] =
    ["replay", "record", "csv", "duration", "until_exit", "assertions", "assert_file", "html", "command"];

/// Shows pools of rwsgi or uWSGI workers, live.
#[derive(Debug, Parser)]
#[command(
    name = "rtop",
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  rtop 127.0.0.1:9191              a stats server on TCP
  rtop /run/app/stats.sock         on a unix socket; @name on an abstract one
  rtop http://web1:9191/           over HTTP
  rtop ssh://web1/run/app.sock     on another machine, through ssh
  rtop @targets.txt                a fleet: the servers that a file lists; also dns:web:9191 and
                                   'prometheus://mon:9090/?job=app'
  rtop :9191 --frequency 0.5       twice a second
  rtop :9191 --batch -n 5          five plain tables, for a file or a mail
  rtop :9191 --stacks              what each thread executes now
  rtop :9191 --memory types        what the largest worker's memory is used for
  rtop :9191 --profile 10s -o flame.svg
                                   where the time of requests goes, as a flame graph
  rtop :9191 --exporter 9117       answers Prometheus, for a uWSGI that cannot
  rtop :9191 --assert 'p99 < 50ms' --assert 'error_rate < 0.1%' -- ab -n 10000 http://localhost:8000/
                                   exits 0 when all hold, 1 when one fails, 2 when it could not measure
In the terminal: q leaves, a shows cores, f reads ten times a second, ? explains the rest."
)]
pub(crate) struct Args {
    /// Stats servers: host:port, :port, [ipv6]:port, /path.sock, @abstract, http://host:port/path, ssh://host/path.sock; or
    /// what names many: @file, dns:name:port, prometheus://host:9090/?job=app
    #[arg(value_name = "ADDRESS")]
    pub(crate) places: Vec<Place>,

    /// What the places stand for, where they are servers that are named one by one; made of them at the start
    #[arg(skip)]
    pub(crate) targets: Vec<Target>,

    /// A stats server, for those who are used to naming it
    #[arg(short = 'a', long = "address", value_name = "ADDRESS")]
    pub(crate) address: Vec<Place>,

    /// Seconds between two samples; fractions are fine
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) frequency: Duration,

    /// Seconds that a server has to answer
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Serve the servers' numbers to Prometheus, read anew for each scrape: PORT (of 127.0.0.1), HOST:PORT, :PORT (of every
    /// address). /metrics is of the one server; of several, /probe?target=ADDRESS
    #[arg(long, value_name = "[HOST:]PORT", conflicts_with_all = NOT_EXPORTING)]
    pub(crate) exporter: Option<Listen>,

    /// With --exporter: the names of another exporter too: uwsgi_exporter, or uwsgi_exporter,cores with single threads
    #[arg(long, value_name = "NAME", requires = "exporter")]
    pub(crate) metrics_compat: Option<UwsgiExporter>,

    /// Show the servers as a fleet, a row for each, however few they are
    #[arg(long)]
    pub(crate) fleet: bool,

    /// Print which servers the addresses stand for and whether they answer, and exit: 0 when all do, 1 when one does not
    #[arg(long, conflicts_with_all = NOT_LISTED)]
    pub(crate) servers: bool,

    /// With ssh://: ssh's configuration file, in place of its usual ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_config: Option<PathBuf>,

    /// The server's control socket, for --stacks, --memory, --profile and keys that act; without this the stats name it
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// Print what each thread of the workers executes, and exit
    #[arg(long, conflicts_with_all = NOT_INSIDE, group = "inside")]
    pub(crate) stacks: bool,

    /// Print what a worker's memory is used for, and exit: types (that grew; without WHAT), trace-start, trace (lines that
    /// allocate), trace-stop, savings
    #[arg(long, value_name = "WHAT", conflicts_with_all = NOT_INSIDE, conflicts_with = "profile", group = "inside",
        num_args = 0..=1, default_missing_value = "types", value_parser = crate::report::memory_question)]
    pub(crate) memory: Option<MemoryRequest>,

    /// With --stacks or --memory: of this worker; without this --memory is of the worker with the most memory
    #[arg(long, value_name = "NUMBER", requires = "inside")]
    pub(crate) worker: Option<u32>,

    /// Sample the threads in requests for this long, such as 10s, and show where their time went
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = NOT_INSIDE, conflicts_with = "stacks")]
    pub(crate) profile: Option<Duration>,

    /// With --profile: samples of each thread a second
    #[arg(long, value_name = "NUMBER", default_value = "100", requires = "profile",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rate: u32,

    /// With --profile: write this file: a flame graph (.svg), one for speedscope (.speedscope.json), or stacks (.collapsed)
    #[arg(short, long, value_name = "FILE", requires = "profile", value_parser = crate::report::profile_file)]
    pub(crate) output: Option<PathBuf>,

    /// With --profile: group the time by route, or by state (what the threads were doing)
    #[arg(long, value_name = "WHAT", requires = "profile")]
    pub(crate) profile_by: Option<By>,

    /// Print plain tables; this is what happens when standard output is not a terminal
    #[arg(short, long)]
    pub(crate) batch: bool,

    /// Print a line of JSON for each sample
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,

    /// Print rows of CSV, one for each worker and sample
    #[arg(long)]
    pub(crate) csv: bool,

    /// Stop after this many samples of each server
    #[arg(short = 'n', long = "count", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Keep every document that is read in FILE (gzip; it is appended to)
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,

    /// Read a recording instead of servers
    #[arg(long, value_name = "FILE", conflicts_with_all = ["places", "address", "record"])]
    pub(crate) replay: Option<PathBuf>,

    /// Watch for this long: 30s, 5m, 1h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with_all = ["count", "replay"])]
    pub(crate) duration: Option<Duration>,

    /// Watch until this process is gone
    #[arg(long, value_name = "PID", conflicts_with_all = ["count", "duration", "replay"])]
    pub(crate) until_exit: Option<u32>,

    /// With --until-exit or a command: the servers are meant to be gone at the end
    #[arg(long, conflicts_with_all = ["count", "duration", "replay"])]
    pub(crate) expect_exit: bool,

    /// Do not judge what happens in this time after all servers have answered: 10s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) warmup: Option<Duration>,

    /// Judge every window of this length by itself, and tell the worst: 10s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) window: Option<Duration>,

    /// A recording that assertions compare with: --assert 'p99 < 1.10 * baseline'
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,

    /// What must hold while watching, such as 'p99 < 50ms', 'error_rate < 0.1%', 'rps > 500', 'rss.max < 200MiB'; of each of
    /// several servers 'server.p99.max < 80ms', 'server.up.count == 12'
    #[arg(long = "assert", value_name = "ASSERTION")]
    pub(crate) assertions: Vec<Assertion>,

    /// A TOML file with more of them: assert = ["p99 < 50ms", "harakiri == 0"]
    #[arg(long, value_name = "FILE")]
    pub(crate) assert_file: Option<PathBuf>,

    /// Write the verdict as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,

    /// Append the verdict as Markdown, for a CI summary
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Write a page about the run: verdict, charts, tables; it stands alone
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Read this configuration file instead of $XDG_CONFIG_HOME/rtop/config.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Colours
    #[arg(long, value_name = "NAME", value_parser = theme())]
    pub(crate) theme: Option<usize>,

    /// Print the default configuration file, explained
    #[arg(long)]
    pub(crate) print_config: bool,

    /// Print the JSON Schema of the lines of --json
    #[arg(long)]
    pub(crate) json_schema: bool,

    /// Print completions for a shell
    #[arg(long, value_name = "SHELL")]
    pub(crate) completions: Option<clap_complete::Shell>,

    /// Print the manual page
    #[arg(long)]
    pub(crate) man: bool,

    /// List the metrics that can be asserted
    #[arg(long)]
    pub(crate) list_metrics: bool,

    /// Watch as long as this command runs: a load generator, for example
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["count", "duration", "until_exit", "replay"])]
    pub(crate) command: Vec<String>,

    /// Only look: no key acts on a server
    #[arg(long)]
    pub(crate) read_only: bool,

    /// Leave the mouse to the terminal
    #[arg(long)]
    pub(crate) no_mouse: bool,
}

/// The place of a theme in [`PALETTES`]; shells complete its name.
fn theme() -> impl TypedValueParser<Value = usize> {
    let names = PALETTES.iter().map(|palette| PossibleValue::new(palette.name).help(palette.help));
    // Only these names get here.
    PossibleValuesParser::new(names).map(|name| palette(&name).unwrap_or(0))
}

fn duration(text: &str) -> Result<Duration, String> {
    // A number alone is seconds.
    let text = if text.parse::<f64>().is_ok() { format!("{text}s") } else { text.to_owned() };
    let duration: jiff::SignedDuration =
        text.parse().map_err(|_| "expected a duration, such as 30s, 5m or 1h30m".to_owned())?;
    let duration = Duration::try_from(duration).map_err(|_| "expected a duration that is not negative".to_owned())?;
    if !(Duration::from_millis(10)..=Duration::from_secs(604_800)).contains(&duration) {
        return Err("expected 10ms to 168h".to_owned());
    }
    Ok(duration)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds, such as 1 or 0.5".to_owned())?;
    if !(0.01..=86_400.0).contains(&seconds) {
        return Err("expected 0.01 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_are_read_in_the_usual_units() {
        for (text, milliseconds) in [("30s", 30_000), ("0.2s", 200), ("250ms", 250), ("1h30m", 5_400_000), ("7", 7_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-5s", "5 parsecs", "1ms", "200h", "nan"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uwsgitop_s_command_line_is_taken() {
        let args = Args::try_parse_from(["rtop", "127.0.0.1:9191", "--frequency", "0.25"]).unwrap();
        assert_eq!((args.places.len(), args.frequency), (1, Duration::from_millis(250)));
        assert!(Args::try_parse_from(["rtop", ":9191", "--frequency", "0"]).is_err());
        let error = Args::try_parse_from(["rtop", "9191"]).unwrap_err().to_string();
        assert!(error.contains("a port alone needs a colon"), "{error}");
    }
}
