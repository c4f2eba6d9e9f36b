//! Lines of the log that raise alarms (`alarm-log`), and which alarms were raised last.

use std::collections::HashMap;
use std::time::Instant;

use regex::bytes::Regex;
use rwsgi_config::Config;

use super::events::{Event, Events};

/// What a line of an alarm itself has in it: such lines raise none.
pub(super) const MARK: &str = "ALARM: ";
/// The longest line that is looked at, bytes: what is longer is looked at in pieces.
const LONGEST_LINE: usize = 64 * 1024;

/// The last message of each alarm, and when it was raised.
#[derive(Debug, Default)]
pub(super) struct Alarms(pub(super) HashMap<String, (String, Instant)>);

/// Watches lines of the log for those that raise alarms.
#[derive(Debug)]
pub(super) struct LineWatch {
    /// The patterns in order: what they raise, or `None` for an exception.
    patterns: Vec<(Regex, Option<Vec<String>>)>,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    events: Events,
}

impl LineWatch {
    /// `None` when no line raises an alarm.
    pub(super) fn new(config: &Config, events: &Events) -> Option<Self> {
        if config.alarms.log.is_empty() {
            return None;
        }
        let patterns = config.alarms.log.iter().filter_map(|log| {
            // They were compiled when the configuration was read.
            let pattern = log.compiled().ok()?;
            Some((pattern, (!log.is_exception).then(|| log.alarms.clone())))
        });
        Some(Self { patterns: patterns.collect(), rest: Vec::new(), events: events.clone() })
    }

    /// Looks at what was logged. Does not wait: when the loop has too much to do, alarms are lost.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            self.look_at_line(&self.rest[begin..begin + length]);
            begin += length + 1;
        }
        self.rest.drain(..begin);
        if self.rest.len() > LONGEST_LINE {
            self.look_at_line(&self.rest);
            self.rest.clear();
        }
    }

    /// Looks at one line, without its end.
    pub(super) fn look_at_line(&self, line: &[u8]) {
        if line.windows(MARK.len()).any(|window| window == MARK.as_bytes()) {
            return;
        }
        for (pattern, alarms) in &self.patterns {
            if !pattern.is_match(line) {
                continue;
            }
            let Some(alarms) = alarms else { return };
            for alarm in alarms {
                let text = String::from_utf8_lossy(line).into_owned();
                let _ = self.events.try_send(Event::Alarm(alarm.clone(), text));
            }
        }
    }
}
