//! The ssh program of one machine: started with all sockets that are wanted there, and started again when it ends.

use std::fs::DirBuilder;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rwsgi_stats::Address;

use super::Far;
use crate::format;

/// So long nothing more is asked for before ssh is started with all that is.
const QUIET: Duration = Duration::from_millis(50);
/// ssh is started again after 1, 2, 4 … s, but no later than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Whoever ran for so long has worked.
const WORKED: Duration = Duration::from_secs(60);
/// What ssh said of a socket explains what was seen of it so long afterwards.
const RECENT: Duration = Duration::from_secs(5);

/// Ends ssh, and removes its sockets, when standard input ends: when rtop closes it, or is gone in whatever way. It gives
/// standard error away, so that only ssh has that.
const KEEPER: &str = r#"
dir=$1; shift
"$@" </dev/null &
ssh=$!
exec 2>/dev/null
read -r _
kill "$ssh"
wait "$ssh"
rm -f "$dir"/*.sock
rmdir "$dir" "${dir%/*}"
"#;

/// What ssh is not to do, whatever its configuration says.
#[rustfmt::skip]
const OPTIONS: &[&str] = &[
    // No shell there, no terminal, no questions, nothing that others could use.
    "-N", "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "PermitLocalCommand=no",
    // A connection of our own, which is noticed to be dead, as one that is never there is.
    "-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
    "-o", "StreamLocalBindMask=0177", "-o", "StreamLocalBindUnlink=yes", "-o", "LogLevel=INFO",
];

/// A socket here for one there.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub(super) near: PathBuf,
    pub(super) to: Address,
}

impl Forward {
    /// As ssh's `-L` takes it.
    fn argument(&self) -> String {
        let near = self.near.display();
        match &self.to {
            Address::Unix(path) => format!("{near}:{}", path.display()),
            address => format!("{near}:{address}"),
        }
    }
}

/// What ssh says.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    last: Option<(Instant, String)>,
    ended: Option<String>,
}

impl Health {
    /// Why ssh has ended; `None` while it runs.
    pub(super) fn ended(&self) -> Option<String> {
        self.with(|said| said.ended.clone())
    }

    /// What it said just now.
    pub(super) fn said(&self) -> Option<String> {
        self.with(|said| {
            let recent = said.last.as_ref().filter(|(at, _)| at.elapsed() < RECENT);
            recent.map(|(_, line)| line.clone())
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Said) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Word {
    Forward(Forward),
    /// The program with this number said a line.
    Said(u64, String),
    /// The program with this number has ended.
    Ended(u64),
    Stop,
}

/// A machine that sockets are wanted of.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) directory: PathBuf,
    pub(super) health: Arc<Health>,
    words: Sender<Word>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    pub(super) fn start(far: &Far, directory: PathBuf, config: Option<PathBuf>) -> io::Result<Self> {
        let (words, said) = mpsc::channel();
        let health = Arc::new(Health::default());
        let mut keeper = Keeper {
            destination: Destination { user: far.user.clone(), host: far.host.clone(), port: far.port },
            directory: directory.clone(),
            config,
            health: Arc::clone(&health),
            words: words.clone(),
            forwards: Vec::new(),
            number: 0,
        };
        let thread = thread::Builder::new().name("ssh".into()).spawn(move || keeper.keep(&said))?;
        Ok(Self { directory, health, words, thread: Some(thread) })
    }

    pub(super) fn add(&self, forward: Forward) {
        let _ = self.words.send(Word::Forward(forward));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.words.send(Word::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Destination {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

struct Keeper {
    destination: Destination,
    directory: PathBuf,
    config: Option<PathBuf>,
    health: Arc<Health>,
    words: Sender<Word>,
    forwards: Vec<Forward>,
    number: u64,
}

impl Keeper {
    fn keep(&mut self, said: &Receiver<Word>) {
        let mut running: Option<(Child, Instant)> = None;
        let mut start_at: Option<Instant> = None;
        let mut failures = 0;
        loop {
            let left = start_at.map_or(Duration::from_secs(3_600), |at| at.saturating_duration_since(Instant::now()));
            match said.recv_timeout(left) {
                Ok(Word::Forward(forward)) => {
                    self.forwards.push(forward);
                    start_at = Some(Instant::now() + QUIET);
                }
                Ok(Word::Said(number, line)) if number == self.number => {
                    self.health.with(|said| said.last = Some((Instant::now(), line)));
                }
                Ok(Word::Ended(number)) if number == self.number => {
                    let worked = running.take().is_some_and(|(child, since)| {
                        end(child);
                        since.elapsed() >= WORKED
                    });
                    failures = if worked { 0 } else { failures + 1 };
                    self.health.with(|said| {
                        let last = said.last.as_ref().map(|(_, line)| line.clone());
                        said.ended = Some(last.unwrap_or_else(|| "it has ended, and did not say why".to_owned()));
                    });
                    start_at = Some(Instant::now() + pause(failures));
                }
                Ok(Word::Said(..) | Word::Ended(_)) => {}
                Err(RecvTimeoutError::Timeout) if start_at.take().is_some() => {
                    if let Some((child, _)) = running.take() {
                        end(child);
                    }
                    match self.start() {
                        Ok(child) => running = Some((child, Instant::now())),
                        Err(error) => {
                            self.health.with(|said| said.ended = Some(format!("it cannot be started: {error}")));
                            failures += 1;
                            start_at = Some(Instant::now() + pause(failures));
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    if let Some((child, _)) = running.take() {
                        end(child);
                    }
                    return;
                }
            }
        }
    }

    fn start(&mut self) -> io::Result<Child> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        self.number += 1;
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "ssh"]).arg(&self.directory).arg("ssh").args(OPTIONS);
        if let Some(config) = &self.config {
            command.arg("-F").arg(config);
        }
        for forward in &self.forwards {
            command.arg("-L").arg(forward.argument());
        }
        let Destination { user, host, port } = &self.destination;
        if let Some(user) = user {
            command.args(["-l", user]);
        }
        if let Some(port) = port {
            command.args(["-p", &port.to_string()]);
        }
        command.args(["--", host]);
        // A group of its own: keys of the terminal are rtop's.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        self.health.with(|said| *said = Said::default());
        let mut child = command.spawn()?;
        let (words, number) = (self.words.clone(), self.number);
        if let Some(errors) = child.stderr.take() {
            thread::Builder::new().name("ssh says".into()).spawn(move || listen(errors, number, &words))?;
        }
        Ok(child)
    }
}

/// Passes on what ssh says until it has ended.
fn listen(errors: impl io::Read, number: u64, words: &Sender<Word>) {
    for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
        let line = format::one_line(String::from_utf8_lossy(&line).trim());
        let line = line.strip_prefix("ssh: ").unwrap_or(&line).to_owned();
        if !line.is_empty() && words.send(Word::Said(number, line)).is_err() {
            return;
        }
    }
    let _ = words.send(Word::Ended(number));
}

/// Ends ssh by closing the keeper's standard input, and waits until its sockets are gone.
fn end(mut child: Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

fn pause(failures: u32) -> Duration {
    LONGEST_PAUSE.min(Duration::from_secs(1 << failures.saturating_sub(1).min(5)))
}
