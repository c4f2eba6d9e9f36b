//! The command line.

use std::time::Duration;

use clap::Parser;

use crate::source::Target;

/// Shows pools of rwsgi or uWSGI workers, live.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  rtop 127.0.0.1:9191              a stats server on TCP
  rtop /run/app/stats.sock         on a unix socket; @name on an abstract one
  rtop http://web1:9191/           over HTTP
  rtop :9191 --frequency 0.5       twice a second
  rtop :9191 --batch -n 5          five plain tables, for a file or a mail
In the terminal: q leaves, a shows cores, f reads ten times a second, ? explains the rest."
)]
pub(crate) struct Args {
    /// Stats servers: host:port, :port, [ipv6]:port, /path.sock, @abstract, http://host:port/path
    #[arg(value_name = "ADDRESS")]
    pub(crate) targets: Vec<Target>,

    /// A stats server, for those who are used to naming it
    #[arg(short = 'a', long = "address", value_name = "ADDRESS")]
    pub(crate) address: Vec<Target>,

    /// Seconds between two readings; fractions are fine
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) frequency: Duration,

    /// Seconds that a server has to answer
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Print plain tables; this is what happens when standard output is not a terminal
    #[arg(short, long)]
    pub(crate) batch: bool,

    /// Stop after this many tables
    #[arg(short = 'n', long = "count", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Leave the mouse to the terminal
    #[arg(long)]
    pub(crate) no_mouse: bool,
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
    fn uwsgitop_s_command_line_is_taken() {
        let args = Args::try_parse_from(["rtop", "127.0.0.1:9191", "--frequency", "0.25"]).unwrap();
        assert_eq!((args.targets.len(), args.frequency), (1, Duration::from_millis(250)));
        assert!(Args::try_parse_from(["rtop", ":9191", "--frequency", "0"]).is_err());
        let error = Args::try_parse_from(["rtop", "9191"]).unwrap_err().to_string();
        assert!(error.contains("a port alone needs a colon"), "{error}");
    }
}
