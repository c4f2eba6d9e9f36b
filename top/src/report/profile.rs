//! A profile without a screen: a table, a line of JSON, or a file for a browser or for other programs.

mod collapsed;
mod speedscope;
mod svg;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rwsgi_stats::control::{Answer, Profile, Request};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

pub(crate) use self::table::{is_patchy, samples_in_short};
use super::output::{Keep, Output};
use crate::format;
use crate::model::flame::By;
use crate::source::{Control, ControlError, Target};

/// What is to be sampled, and what comes of it.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    /// For how long.
    pub(crate) duration: Duration,
    /// Samples of each thread a second.
    pub(crate) rate: u32,
    /// How the samples are grouped.
    pub(crate) by: By,
}

impl Sampling {
    /// What it takes beyond the time that a server has to answer: a server that is busy needs some for the answer, too.
    pub(crate) fn longer(&self) -> Duration {
        self.duration + Duration::from_secs(5)
    }

    /// The request for it.
    pub(crate) fn request(&self) -> Request {
        Request::Profile { seconds: self.duration.as_secs_f64(), rate: self.rate }
    }
}

/// What is known beside a profile.
#[derive(Clone, Copy, Debug)]
struct About<'a> {
    /// The server's address.
    label: &'a str,
    by: By,
}

/// What is written. Of a file its ending decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Svg,
    Speedscope,
    Collapsed,
}

const FORMS: [(&str, Form); 4] =
    [(".svg", Form::Svg), (".json", Form::Speedscope), (".collapsed", Form::Collapsed), (".txt", Form::Collapsed)];

/// The endings of files that a profile is written to, and what each is.
fn form_of(path: &Path) -> Result<Form, String> {
    let name = path.to_string_lossy().to_lowercase();
    let form = FORMS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, form)| *form);
    form.ok_or_else(|| {
        format!("{}: the ending says what is written: .svg, .speedscope.json, or .collapsed", path.display())
    })
}

/// Checks a file's name, for the command line.
///
/// # Errors
/// When its ending says nothing.
pub(crate) fn profile_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    form_of(&path).map(|_| path)
}

fn written(form: Form, profile: &Profile, about: About<'_>) -> String {
    match form {
        Form::Svg => svg::svg(profile, about),
        Form::Speedscope => speedscope::speedscope(profile, about),
        Form::Collapsed => collapsed::collapsed(profile, about.by),
    }
}

/// Where a profile goes that is not looked at on a screen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination<'a> {
    /// A file; standard output without one.
    pub(crate) file: Option<&'a Path>,
    /// On standard output: a line of JSON in place of a table.
    pub(crate) json: bool,
}

/// Samples a server and writes what comes of it.
///
/// # Errors
/// When there is no profile, when no request ran, or when what comes of it cannot be written.
pub(crate) fn profile(
    target: &Target,
    control: Option<&Path>,
    timeout: Duration,
    sampling: &Sampling,
    to: Destination<'_>,
) -> anyhow::Result<()> {
    let file = match to.file {
        Some(path) => {
            let form = form_of(path).map_err(anyhow::Error::msg)?;
            Some((form, path, Output::open("--output", path, Keep::Nothing)?))
        }
        None => None,
    };
    let label = target.to_string();
    let request = sampling.request();
    let control = Control::find(control, target, &request, timeout).with_context(|| label.clone())?;
    let mut progress = Progress::begin(&label, sampling)?;
    let answer = control.ask(&request, sampling.longer(), &mut |said| progress.tell(said));
    progress.end();
    let Answer::Profile(profile) = answer? else { return Err(ControlError::Another.into()) };
    if profile.samples == 0 {
        anyhow::bail!("no request ran in these {}: there is nothing to show", seconds(sampling.duration));
    }
    let about = About { label: &label, by: sampling.by };
    match file {
        Some((form, path, output)) => {
            output.write(&written(form, &profile, about))?;
            let _ = writeln!(io::stderr(), "rtop: {}; written to {}", table::samples(&profile), path.display());
            if to.json {
                print(&table::json(&profile, about))?;
            }
        }
        None if to.json => print(&table::json(&profile, about))?,
        None => print(&table::table(&profile, about))?,
    }
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A duration in words.
fn seconds(duration: Duration) -> String {
    format!("{} s", format::tenths(duration.as_secs_f64()).trim_end_matches(".0"))
}

/// What is told on standard error while a server samples; and what is told when the user ends it.
struct Progress {
    began: Instant,
    duration: Duration,
    /// Standard error is a terminal: its line is written again and again.
    terminal: bool,
    /// The server tells its progress itself.
    said: bool,
    /// The profile is there: a signal no longer costs it.
    done: Arc<AtomicBool>,
}

impl Progress {
    fn begin(label: &str, sampling: &Sampling) -> anyhow::Result<Self> {
        let duration = seconds(sampling.duration);
        let mut stderr = io::stderr();
        let _ = writeln!(
            stderr,
            "rtop: {label} samples its threads in requests for {duration}, {} times a second; \
             ctrl-c ends it, and then nothing is written",
            sampling.rate
        );
        let done = Arc::new(AtomicBool::new(false));
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let finished = Arc::clone(&done);
        thread::Builder::new().name("signals".into()).spawn(move || {
            for number in &mut signals {
                if !finished.load(Ordering::SeqCst) {
                    let why = "rtop: interrupted before the server had its profile: nothing was written";
                    let _ = writeln!(io::stderr(), "\r{why}");
                }
                // Whoever waits for us sees that the signal ended us.
                let _ = low_level::emulate_default_handler(number);
            }
        })?;
        Ok(Self {
            began: Instant::now(),
            duration: sampling.duration,
            terminal: stderr.is_terminal(),
            said: false,
            done,
        })
    }

    /// What the server says, or nothing new.
    fn tell(&mut self, said: Option<&str>) -> bool {
        let mut stderr = io::stderr();
        let _ = match (self.terminal, said) {
            (true, Some(said)) => {
                self.said = true;
                let said = format::start_of(said, 70).into_owned();
                write!(stderr, "\r{said:<70}").and_then(|()| stderr.flush())
            }
            (true, None) if !self.said => {
                let gone = self.began.elapsed().min(self.duration).as_secs();
                write!(stderr, "\r{gone} s of {}", seconds(self.duration)).and_then(|()| stderr.flush())
            }
            (false, Some(said)) => writeln!(stderr, "rtop: {said}"),
            (_, None) => Ok(()),
        };
        true
    }

    fn end(&self) {
        self.done.store(true, Ordering::SeqCst);
        if self.terminal {
            let _ = write!(io::stderr(), "\r{:70}\r", "");
        }
    }
}
