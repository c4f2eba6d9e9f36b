//! Raises alarms and runs their actions.
//!
//! The same message raises an alarm once in `alarm-freq` seconds, so that an alarm whose own output is in the log does not
//! raise itself again and again.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rwsgi_config::Config;
use rwsgi_config::alarms::{AlarmFd, AlarmKind};
use tracing::{error, warn};

use super::alarm_lines::MARK;
use super::events::{Event, Events};
use super::process::End;
use super::readable::watch_descriptor;
use super::state::Master;
use super::timers::Timer;

/// How often backlogs are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Raises alarms when inherited descriptors can be read.
pub(super) fn watch_descriptors(config: &Config, events: &Events) -> anyhow::Result<()> {
    for AlarmFd { alarm, fd, bytes, message } in config.alarms.fds.clone() {
        let make = move || Event::Alarm(alarm.clone(), message.clone());
        watch_descriptor("alarm-fd", fd, bytes, make, events)?;
    }
    Ok(())
}

impl Master {
    /// Begins to look at backlogs, when a full one raises an alarm.
    pub(super) fn watch_backlogs(&mut self, now: Instant) {
        if !self.config.alarms.listen_queue.is_empty() {
            self.timers.set_earlier(Timer::Backlogs, now + INTERVAL);
        }
    }

    /// Raises alarms for backlogs that are full.
    pub(super) fn look_at_backlogs(&mut self, now: Instant) {
        let full: Vec<String> = self
            .sockets
            .public()
            .filter_map(|listener| {
                let backlog = self.snapshot_state.backlog(&listener.address, listener.fd());
                let is_full = backlog.depth > 0 && backlog.depth >= backlog.capacity;
                let (address, depth, capacity) = (&listener.address, backlog.depth, backlog.capacity);
                is_full.then(|| format!("listen queue of socket \"{address}\" full !!! ({depth}/{capacity})"))
            })
            .collect();
        for text in full {
            warn!("{text}");
            for name in self.config.alarms.listen_queue.clone() {
                self.raise_alarm(&name, &text);
            }
        }
        self.watch_backlogs(now);
    }

    /// Raises alarms for a process that crashed.
    pub(super) fn alarm_of_end(&mut self, who: &str, end: End) {
        if end != End::Killed(Signal::SIGSEGV as i32) || self.config.alarms.segfault.is_empty() {
            return;
        }
        for name in self.config.alarms.segfault.clone() {
            self.raise_alarm(&name, &format!("{who}: segmentation fault"));
        }
    }

    /// Raises an alarm. One that is not there raises nothing, as with uWSGI.
    pub(super) fn raise_alarm(&mut self, name: &str, text: &str) {
        let settings = &self.config.alarms;
        let Some(alarm) = settings.alarms.iter().find(|alarm| alarm.name == name) else { return };
        let most = settings.message_size as usize;
        let fits = text.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= most);
        let text = &text[..fits.last().map_or(0, |(at, letter)| at + letter.len_utf8())];
        let now = Instant::now();
        let pause = Duration::from_secs(settings.frequency.into());
        if self.alarms.0.get(name).is_some_and(|(last, at)| last == text && now.duration_since(*at) < pause) {
            return;
        }
        let kind = alarm.kind.clone();
        self.alarms.0.insert(name.to_owned(), (text.to_owned(), now));
        match kind {
            AlarmKind::Log(prefix) if prefix.is_empty() => error!("{MARK}{text}"),
            AlarmKind::Log(prefix) => error!("{MARK}{prefix} {text}"),
            AlarmKind::Command(command) => self.run_alarm_command(name, &command, text),
            AlarmKind::Signal(number) => {
                if let Some(generation) = self.generations.current() {
                    self.raise(generation, number);
                }
            }
            AlarmKind::Mule(number) => {
                if let Err(failure) = self.share.send_to_mule(number, text.as_bytes()) {
                    error!("{MARK}'{name}' cannot be sent to a mule: {failure}: {text}");
                }
            }
        }
    }

    /// The command reads the message. It is reaped with all others.
    fn run_alarm_command(&self, name: &str, command: &str, text: &str) {
        let started = self.spawn_command(command, Stdio::piped());
        let written = started.and_then(|(_, input)| {
            let Some(mut input) = input else { return Ok(()) };
            // A pipe has space for the longest message, so this waits for nobody.
            Ok(input.write_all(text.as_bytes())?)
        });
        if let Err(failure) = written {
            error!("{MARK}'{name}': {failure:#}: {text}");
        }
    }
}
