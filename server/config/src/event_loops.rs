//! `gevent`, `asyncio`, `async` and the like: how many requests a worker of uWSGI's holds at once in an event loop or in
//! green threads. Here it gets as many threads: idle and slow connections hold none, so that threads are only needed for
//! requests that the application waits in.

use nix::sys::resource::{Resource, getrlimit};

use super::Config;
use super::row::WORKERS;
use super::row::{Kind, Row};
use super::value::leading_number;

/// The most threads that a worker gets for an event loop's sake; docs/performance.md has what they cost.
pub const MOST_THREADS: u32 = 512;

/// What configurations ask for by these options.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EventLoops {
    /// The option that asked for the most requests at once, and how many.
    asked: Option<(String, u32)>,
    /// Some option asks gevent to replace parts of the standard library.
    patches: bool,
}

const EVENT_LOOPS: Row = Row { takes: "N", ..WORKERS };

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["gevent"], kind: Kind::Custom(|c, value| ask(c, "gevent", value)),
          help: "Let each worker hold N requests at once: by threads here, at most 512, and fewer where descriptors are short", ..EVENT_LOOPS },
    Row { names: &["asyncio"], kind: Kind::Custom(|c, value| ask(c, "asyncio", value)),
          help: "The same as gevent", ..EVENT_LOOPS },
    Row { names: &["async"], kind: Kind::Custom(|c, value| ask(c, "async", value)),
          help: "The same as gevent", ..EVENT_LOOPS },
    Row { names: &["tornado"], kind: Kind::Custom(|c, value| ask(c, "tornado", value)),
          help: "The same as gevent", ..EVENT_LOOPS },
    Row { names: &["ugreen", "greenlet", "stackless", "fiber"], kind: Kind::Always,
          help: "Nothing to do: async says how many requests a worker holds", takes: "", ..EVENT_LOOPS },
    Row { names: &["ugreen-stacksize"], kind: Kind::Always,
          help: "Nothing to do: threads have the system's stacks", takes: "PAGES", ..EVENT_LOOPS },
    Row { names: &["gevent-monkey-patch", "gevent-early-monkey-patch"], kind: Kind::Custom(patch),
          help: "Nothing to do: requests are served by threads, for which nothing needs replacing", takes: "", ..EVENT_LOOPS },
    Row { names: &["gevent-wait-for-hub"], kind: Kind::Always,
          help: "Nothing to do: there is no hub", takes: "", ..EVENT_LOOPS },
    Row { names: &["loop"], kind: Kind::Custom(choose), takes: "NAME",
          help: "Nothing to do: requests are served by threads, whatever the name; gevent or async says how many", ..EVENT_LOOPS },
];

fn ask(config: &mut Config, option: &str, value: &str) -> Result<(), String> {
    let requests = leading_number(config, value, &(0..=u32::MAX))?;
    let most = config.event_loops.asked.as_ref().map_or(0, |(_, most)| *most);
    if requests > most {
        config.event_loops.asked = Some((option.to_owned(), requests));
    }
    Ok(())
}

fn patch(config: &mut Config, value: &str) -> Result<(), String> {
    config.event_loops.patches = !super::value::is_off(value);
    Ok(())
}

fn choose(config: &mut Config, value: &str) -> Result<(), String> {
    let is_known = ["simple", "async", "gevent", "asyncio", "tornado", "greenlet", "ugreen"].contains(&value);
    if !is_known {
        config.warnings.push(format!("there is no loop '{value}' here: the workers' threads serve instead"));
    }
    Ok(())
}

/// Gives workers the threads that serve for an event loop, and says so.
pub(super) fn finish(config: &mut Config) {
    let patched = if config.event_loops.patches {
        "; nothing of the standard library is replaced (gevent-monkey-patch): threads need none of that, and an \
         application that calls gevent.monkey.patch_all() itself should leave it out"
    } else {
        ""
    };
    let Some((option, requests)) = config.event_loops.asked.clone() else {
        if config.event_loops.patches {
            let warning = "gevent-monkey-patch has no effect: requests are served by threads, which need none of it";
            config.warnings.push(warning.into());
        }
        return;
    };
    let most = most_threads(config, descriptors());
    let threads = requests.min(most).max(config.threads);
    let given = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let bound = match requests > threads {
        true if most < MOST_THREADS => " (as many as the limit of open files allows: raise ulimit -n for more)",
        true => " (the most that there are)",
        false => "",
    };
    config.warnings.push(format!(
        "{option} = {requests}: each worker gets {given} instead of an event loop{bound}, one for each request that the \
         application waits in; idle and slow connections hold none{patched}"
    ));
    config.threads = threads;
    // The application looks there for what is in force, as psycogreen's users do.
    config.given.retain(|(name, _)| !ROWS.iter().any(|row| row.names.contains(&name.as_str())) && name != "threads");
    config.given.push(("threads".into(), threads.to_string()));
}

/// The http router keeps a connection to each thread of each worker. Half of its descriptors stay for clients.
fn most_threads(config: &Config, descriptors: u64) -> u32 {
    let processes = if config.http.is_empty() { 1 } else { config.processes };
    let most = u32::try_from(descriptors / 2).unwrap_or(u32::MAX) / processes.max(1);
    most.clamp(1, MOST_THREADS)
}

/// How many files a process may open: the master raises the limit as far as it goes.
fn descriptors() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::serve;

    #[test]
    fn threads_leave_the_router_descriptors_for_clients() {
        let config = |processes, line: &str| Config { processes, ..serve(&format!("rwsgi {line} :1 -w m")) };
        for (processes, socket, descriptors, most) in [
            (4, "--http", 1024, 128),
            (4, "--http-socket", 1024, 512),
            (1, "--http", 1 << 20, 512),
            (100, "--http", 64, 1),
            (1, "--http-socket", u64::MAX, 512),
        ] {
            assert_eq!(
                most_threads(&config(processes, socket), descriptors),
                most,
                "{processes} {socket} {descriptors}"
            );
        }
    }

    #[test]
    fn requests_of_an_event_loop_become_threads_within_bounds_and_one_line_says_so() {
        for (line, threads, said) in [
            ("--gevent 100", 100, "gevent = 100: each worker gets 100 threads instead of an event loop"),
            ("--gevent 2000", MOST_THREADS, "(the most that there are)"),
            ("--async 10 --ugreen", 10, "async = 10: each worker gets 10 threads"),
            ("--gevent 4 --threads 8", 8, "gevent = 4: each worker gets 8 threads"),
            ("--asyncio 20 --async 5 --greenlet", 20, "asyncio = 20: "),
            ("--gevent 9 --gevent-monkey-patch", 9, "leave it out"),
        ] {
            let config = serve(&format!("rwsgi --http :1 -w m {line}"));
            assert_eq!((config.threads, config.warnings.len()), (threads, 1), "{line}: {:?}", config.warnings);
            assert!(config.warnings[0].contains(said), "{line}: {:?}", config.warnings);
            let options: Vec<_> = config.given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let wanted = threads.to_string();
            assert_eq!(options, [("http", ":1"), ("module", "m"), ("threads", wanted.as_str())], "{line}");
        }
        let config = serve("rwsgi --http :1 -w m --gevent 0 --loop simple");
        assert_eq!((config.threads, config.warnings), (1, Vec::new()));
    }
}
