//! Alarms: what is done when a line of the log matches, a backlog is full or a process crashes (`alarm*`).

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::row::Kind::{Always, Custom, Number, Texts};
use super::row::LOGGING;
use super::row::{Group, Row};
use super::{Config, value};

/// How an alarm is raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlarmKind {
    /// `cmd`: a command by the shell, which reads the message.
    Command(String),
    /// `log`: a line of the log, which begins with this.
    Log(String),
    /// `signal`: a signal of the application.
    Signal(u8),
    /// `mule`: a message to this mule; 0 for any.
    Mule(u32),
}

/// `alarm`: a name for what is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its name.
    pub name: String,
    /// What is done.
    pub kind: AlarmKind,
}

/// `alarm-log`: lines that raise alarms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmLog {
    /// Names of alarms.
    pub alarms: Vec<String>,
    /// A regular expression.
    pub pattern: String,
    /// `not-alarm-log`: a line that matches raises none of the alarms after this.
    pub is_exception: bool,
}

/// `alarm-fd`: a descriptor that raises an alarm when it can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmFd {
    /// The alarm's name.
    pub alarm: String,
    /// The descriptor, which this process inherited.
    pub fd: i32,
    /// How many bytes are read each time.
    pub bytes: usize,
    /// The message.
    pub message: String,
}

/// All alarms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmsConfig {
    /// By name, in their order.
    pub alarms: Vec<Alarm>,
    /// Lines that raise some, in their order.
    pub log: Vec<AlarmLog>,
    /// `alarm-listen-queue`: those that a full backlog raises.
    pub listen_queue: Vec<String>,
    /// `alarm-segfault`: those that a process raises that is killed by a segmentation fault.
    pub segfault: Vec<String>,
    /// `alarm-fd`.
    pub fds: Vec<AlarmFd>,
    /// `alarm-freq`: seconds in which the same message raises an alarm once.
    pub frequency: u32,
    /// `alarm-msg-size`: the longest message, bytes.
    pub message_size: u32,
}

impl Default for AlarmsConfig {
    fn default() -> Self {
        Self {
            alarms: Vec::new(),
            log: Vec::new(),
            listen_queue: Vec::new(),
            segfault: Vec::new(),
            fds: Vec::new(),
            frequency: 3,
            message_size: 8192,
        }
    }
}

impl AlarmLog {
    /// Its pattern, over the bytes of a line.
    ///
    /// # Errors
    /// When it is no regular expression of the crate `regex`, as one with a look-around or a back-reference.
    pub fn compiled(&self) -> Result<Regex, regex::Error> {
        // A line may hold anything, and patterns are about ASCII.
        RegexBuilder::new(&self.pattern).unicode(false).build()
    }
}

fn alarm(config: &mut Config, text: &str) -> Result<(), String> {
    let expected = || "a name, a blank and PLUGIN:ARGUMENT, as in 'mail cmd:mail -s alarm root'".to_owned();
    let (name, how) = text.split_once(' ').ok_or_else(expected)?;
    let (plugin, argument) = how.split_once(':').ok_or_else(expected)?;
    let argument = argument.to_owned();
    let kind = match plugin.trim() {
        "cmd" => AlarmKind::Command(argument),
        "log" => AlarmKind::Log(argument),
        "signal" => AlarmKind::Signal(value::leading_number(config, &argument, &(0..=255))?),
        "mule" => AlarmKind::Mule(value::leading_number(config, &argument, &(0..=u32::MAX))?),
        other => {
            config.lose(format!(
                "there is no alarm plugin '{other}' here: alarm '{name}' is a line of the log; use cmd:, as in \
                 '{name} cmd:PROGRAM', which reads the message"
            ));
            AlarmKind::Log(name.to_owned())
        }
    };
    config.alarms.alarms.push(Alarm { name: name.into(), kind });
    Ok(())
}

fn alarm_log(config: &mut Config, value: &str, is_exception: bool) -> Result<(), String> {
    let (alarms, pattern) = value.split_once(' ').ok_or("names of alarms, a blank and a regular expression")?;
    let alarms = alarms.split(',').filter(|name| !name.is_empty()).map(Into::into).collect();
    let log = AlarmLog { alarms, pattern: pattern.into(), is_exception };
    log.compiled()
        .map_err(|error| format!("a regular expression without look-around and back-references ({error})"))?;
    config.alarms.log.push(log);
    Ok(())
}

fn alarm_fd(config: &mut Config, text: &str) -> Result<(), String> {
    let expected = || "an alarm's name, a descriptor (3 or more) and a message, as in 'mail 5:8 disk full'".to_owned();
    let mut parts = text.splitn(3, ' ');
    let (Some(alarm), Some(fd), Some(message)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(expected());
    };
    let (fd, bytes) = fd.split_once(':').unwrap_or((fd, "1"));
    let fd = value::number(fd, &(3..=1 << 20)).map_err(|_| expected())?;
    let bytes = value::number(bytes, &(0..=65_536_usize)).map_err(|_| expected())?.max(1);
    config.alarms.fds.push(AlarmFd { alarm: alarm.into(), fd, bytes, message: message.into() });
    Ok(())
}

/// Checks that every alarm that is raised is there. uWSGI ends as well, or raises nothing.
pub(crate) fn finish(alarms: &AlarmsConfig) -> Result<(), String> {
    let logs = alarms.log.iter().flat_map(|log| &log.alarms).map(|name| ("alarm-log", name));
    let queues = alarms.listen_queue.iter().map(|name| ("alarm-listen-queue", name));
    let faults = alarms.segfault.iter().map(|name| ("alarm-segfault", name));
    let fds = alarms.fds.iter().map(|fd| ("alarm-fd", &fd.alarm));
    for (option, name) in logs.chain(queues).chain(faults).chain(fds) {
        if !alarms.alarms.iter().any(|alarm| alarm.name == *name) {
            return Err(format!("{option}: there is no alarm '{name}': add 'alarm = {name} cmd:PROGRAM' or another"));
        }
    }
    Ok(())
}

const ALARMS: Row = Row { group: Group::Alarms, ..LOGGING };

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["alarm"], kind: Custom(alarm), takes: "NAME PLUGIN:ARGUMENT", repeats: true, is_for_shell: true,
          help: "Give a name to what is done for an alarm: cmd:COMMAND (which reads the message), log:TEXT, signal:N or mule:N", ..ALARMS },
    Row { names: &["alarm-log", "log-alarm"], kind: Custom(|c, value| alarm_log(c, value, false)), takes: "NAME[,NAME] REGEX",
          repeats: true, help: "Raise these alarms for each line of the log that matches", ..ALARMS },
    Row { names: &["not-alarm-log", "not-log-alarm"], kind: Custom(|c, value| alarm_log(c, value, true)),
          takes: "NAME[,NAME] REGEX", repeats: true,
          help: "Raise none of the alarms of later alarm-log for a line that matches", ..ALARMS },
    Row { names: &["alarm-listen-queue", "alarm-lq", "alarm-backlog", "listen-queue-alarm", "lq-alarm", "backlog-alarm"],
          kind: Texts(|c| &mut c.alarms.listen_queue), takes: "NAME",
          help: "Raise this alarm while a socket's backlog is full", ..ALARMS },
    Row { names: &["alarm-segfault", "segfault-alarm"], kind: Texts(|c| &mut c.alarms.segfault), takes: "NAME",
          help: "Raise this alarm when a process is killed by a segmentation fault", ..ALARMS },
    Row { names: &["alarm-fd"], kind: Custom(alarm_fd), takes: "NAME FD[:BYTES] MESSAGE", repeats: true,
          help: "Raise this alarm when this inherited descriptor can be read", ..ALARMS },
    Row { names: &["alarm-freq"], kind: Number(|c| &mut c.alarms.frequency, 0..=86_400), takes: "SECONDS", default: "3",
          help: "Raise an alarm once in this time for the same message", ..ALARMS },
    Row { names: &["alarm-msg-size"], kind: Number(|c| &mut c.alarms.message_size, 1..=65_536), takes: "BYTES", default: "8192",
          help: "The longest message of an alarm; the rest is cut off", ..ALARMS },
    Row { names: &["alarm-cheap"], kind: Always, takes: "[ON]",
          help: "Nothing to do: alarms are raised by the master", ..ALARMS },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_read() {
        let mut config = Config::default();
        alarm(&mut config, "mail cmd:mail -s 'a: b' root").unwrap();
        alarm(&mut config, "sentry sentry:dsn=x").unwrap();
        alarm_log(&mut config, "mail,sentry ^.*(ERROR|HARAKIRI)", false).unwrap();
        alarm_fd(&mut config, "mail 7:8 the disk is full").unwrap();
        let alarms = &config.alarms;
        assert_eq!(alarms.alarms[0].kind, AlarmKind::Command("mail -s 'a: b' root".into()));
        assert_eq!(alarms.alarms[1].kind, AlarmKind::Log("sentry".into()));
        assert!(config.warnings[0].contains("alarm plugin 'sentry'"), "{:?}", config.warnings);
        assert!(alarms.log[0].compiled().unwrap().is_match(b"12:00 \xff ERROR of it"));
        assert_eq!((alarms.fds[0].fd, alarms.fds[0].bytes, &*alarms.fds[0].message), (7, 8, "the disk is full"));
        finish(alarms).unwrap();
    }

    #[test]
    fn what_is_wrong_with_alarms_is_said() {
        let mut config = Config::default();
        for wrong in ["mail", "mail cmd", ""] {
            alarm(&mut config, wrong).unwrap_err();
        }
        assert!(alarm_log(&mut config, "mail (?=x)", false).unwrap_err().contains("look-around"));
        alarm_fd(&mut config, "mail 1 x").unwrap_err();
        config.alarms.segfault.push("nobody".into());
        assert!(finish(&config.alarms).unwrap_err().contains("'nobody'"));
    }
}
