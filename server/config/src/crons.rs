//! Crons (commands at times of the calendar), and the options that raise signals of the application: `timer`,
//! `touch-signal` and the like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::keyval::items;
use super::row::OTHER;
use super::row::{Group, Kind, Row};
use super::value::{leading_number, understood};

type Outcome = Result<(), String>;

/// Commands at times of the calendar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronsConfig {
    /// In the order in which they were given.
    pub commands: Vec<CronConfig>,
    /// `--cron-harakiri`: seconds after which a command is killed, unless it says something else.
    pub harakiri: Option<u32>,
}

/// A command at times of the calendar, local time. A negative number stands for every so many: -1 for each, -5 for those
/// that 5 divides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronConfig {
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 1 to 31.
    pub day: i32,
    /// 1 to 12.
    pub month: i32,
    /// 0 to 7: 0 and 7 are Sunday.
    pub week: i32,
    /// For `/bin/sh -c`.
    pub command: String,
    /// It is not started while it runs.
    pub unique: bool,
    /// `harakiri=N`: seconds after which it is killed, in the place of `--cron-harakiri`; 0 for never.
    pub harakiri: Option<u32>,
}

/// What raises signals of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalsConfig {
    /// `--timer` and `--rbtimer`: the signal, the interval in seconds, and whether it is a `--rbtimer`.
    pub timers: Vec<(u8, u32, bool)>,
    /// `--touch-signal`: a file that is looked at every second, and the signal.
    pub touched: Vec<(PathBuf, u8)>,
    /// `--fs-signal`: a file or directory that the kernel watches, and the signal.
    pub watched: Vec<(String, u8)>,
}

const CRONS: Row = Row { group: Group::Crons, repeats: true, ..OTHER };
const COMMANDS: Row = Row { is_for_shell: true, ..CRONS };

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["cron"], kind: Kind::Custom(cron), takes: "MINUTE HOUR DAY MONTH WEEKDAY COMMAND",
          help: "Run this command at these times; -1 stands for every one, -5 for every fifth", ..COMMANDS },
    Row { names: &["cron2"], kind: Kind::Custom(cron2), takes: "KEY=VALUE[,…] COMMAND",
          help: "The same with minute, hour, day, month, week, unique and harakiri, as in minute=-5,unique=1", ..COMMANDS },
    Row { names: &["unique-cron"], kind: Kind::Custom(unique_cron), takes: "MINUTE HOUR DAY MONTH WEEKDAY COMMAND",
          help: "As cron, and the command is not started while it still runs", ..COMMANDS },
    Row { names: &["cron-harakiri"], kind: Kind::Limit(|c| &mut c.crons.harakiri), takes: "SECONDS", repeats: false,
          help: "Kill a command of cron that takes longer", ..CRONS },
    Row { names: &["timer", "signal-timer"], kind: Kind::Custom(timer), takes: "SIGNAL SECONDS",
          help: "Raise this signal of the application every so many seconds", ..CRONS },
    Row { names: &["rbtimer", "signal-rbtimer"], kind: Kind::Custom(rbtimer), takes: "SIGNAL SECONDS",
          help: "The same as timer", ..CRONS },
    Row { names: &["touch-signal"], kind: Kind::Custom(touch_signal), takes: "FILE SIGNAL",
          help: "Raise this signal of the application when the file changes", ..CRONS },
    Row { names: &["fs-signal"], kind: Kind::Custom(fs_signal), takes: "FILE SIGNAL",
          help: "Raise this signal of the application when the file or directory changes", ..CRONS },
];

fn cron(config: &mut Config, value: &str) -> Outcome {
    let cron = plain(value)?;
    add(config, cron)
}

fn unique_cron(config: &mut Config, value: &str) -> Outcome {
    let cron = CronConfig { unique: true, ..plain(value)? };
    add(config, cron)
}

fn plain(value: &str) -> Result<CronConfig, String> {
    let expected = || "five numbers and a command, as in 30 4 -1 -1 -1 COMMAND, where -1 stands for *".to_owned();
    let mut rest = value;
    let mut next = || {
        let text = rest.trim_start();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let number = text[..end].parse::<i32>().map_err(|_| expected())?;
        rest = &text[end..];
        Ok::<i32, String>(number)
    };
    let [minute, hour, day, month, week] = [next()?, next()?, next()?, next()?, next()?];
    let command = rest.trim_start().to_owned();
    if command.is_empty() {
        return Err(expected());
    }
    Ok(CronConfig { minute, hour, day, month, week, command, unique: false, harakiri: None })
}

fn cron2(config: &mut Config, value: &str) -> Outcome {
    let (keys, command) = match value.split_once(' ') {
        Some((keys, command)) if keys.contains('=') => (keys, command),
        None if value.contains('=') => return Err("KEY=VALUE[,…], a space and a command".into()),
        _ => ("", value),
    };
    if command.trim().is_empty() {
        return Err("a command".into());
    }
    let mut cron = CronConfig {
        minute: -1,
        hour: -1,
        day: -1,
        month: -1,
        week: -1,
        command: command.to_owned(),
        unique: false,
        harakiri: None,
    };
    for (key, value) in items(keys) {
        let value = value.unwrap_or_default();
        match key.as_str() {
            "minute" => cron.minute = whole(config, &value),
            "hour" => cron.hour = whole(config, &value),
            "day" => cron.day = whole(config, &value),
            "month" => cron.month = whole(config, &value),
            "week" => cron.week = whole(config, &value),
            "unique" => cron.unique = whole(config, &value) != 0,
            "harakiri" => cron.harakiri = Some(leading_number(config, &value, &(0..=u32::MAX))?),
            "legion" => {
                return Err("no 'legion', without which every node would run the command: leave it out on the node \
                     that is to run it, and the whole cron2 on the others"
                    .into());
            }
            _ => config.warnings.push(format!("there is no key '{key}': it has no effect")),
        }
    }
    add(config, cron)
}

fn add(config: &mut Config, cron: CronConfig) -> Outcome {
    let ranges = [
        ("minute", cron.minute, 0..=59),
        ("hour", cron.hour, 0..=23),
        ("day", cron.day, 1..=31),
        ("month", cron.month, 1..=12),
        ("weekday", cron.week, 0..=7),
    ];
    // With both, either will do.
    let has_both_days = cron.day >= 0 && cron.week >= 0;
    for (name, number, range) in ranges {
        if number >= 0 && !range.contains(&number) && !(has_both_days && matches!(name, "day" | "weekday")) {
            config.warnings.push(format!("'{}' is never run: there is no {name} {number}", cron.command));
        }
    }
    config.crons.commands.push(cron);
    Ok(())
}

/// A whole number as C's `atoi` reads it.
fn whole(config: &mut Config, value: &str) -> i32 {
    if let Ok(number) = value.parse() {
        return number;
    }
    let text = value.trim_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = text.len() - digits.len() + digits.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..end].parse().unwrap_or(0);
    understood(config, value, &number.to_string());
    number
}

fn timer(config: &mut Config, value: &str) -> Outcome {
    let (signal, seconds) = signal_and_seconds(config, value)?;
    config.signals.timers.push((signal, seconds, false));
    Ok(())
}

fn rbtimer(config: &mut Config, value: &str) -> Outcome {
    let (signal, seconds) = signal_and_seconds(config, value)?;
    config.signals.timers.push((signal, seconds, true));
    Ok(())
}

fn signal_and_seconds(config: &mut Config, value: &str) -> Result<(u8, u32), String> {
    let (signal, seconds) = value.split_once(' ').ok_or("a signal's number, a space and seconds, as in 17 60")?;
    let seconds = leading_number(config, seconds, &(1..=u32::MAX))?;
    Ok((leading_number(config, signal, &(0..=255))?, seconds))
}

fn touch_signal(config: &mut Config, value: &str) -> Outcome {
    let (file, signal) = file_and_signal(config, value)?;
    config.signals.touched.push((file.into(), signal));
    Ok(())
}

fn fs_signal(config: &mut Config, value: &str) -> Outcome {
    let watched = file_and_signal(config, value)?;
    config.signals.watched.push(watched);
    Ok(())
}

fn file_and_signal(config: &mut Config, value: &str) -> Result<(String, u8), String> {
    let (file, signal) = value.split_once(' ').ok_or("a file, a space and a signal's number, as in /run/x 17")?;
    Ok((file.to_owned(), leading_number(config, signal, &(0..=255))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(read: fn(&mut Config, &str) -> Outcome, value: &str) -> (CronConfig, Vec<String>) {
        let mut config = Config::default();
        read(&mut config, value).unwrap();
        (config.crons.commands.remove(0), config.warnings)
    }

    fn times(cron: &CronConfig) -> [i32; 5] {
        [cron.minute, cron.hour, cron.day, cron.month, cron.week]
    }

    #[test]
    fn each_option_is_read_as_in_uwsgi() {
        let (plain, _) = read(cron, " 15  1 -1 -1 -1  python x.py  a");
        assert_eq!((times(&plain), plain.command.as_str()), ([15, 1, -1, -1, -1], "python x.py  a"));
        assert!(read(unique_cron, "-1 -1 -1 -1 -1 x").0.unique);
        let (keyed, warnings) = read(cron2, "minute=-5,hour=2x,unique=1,harakiri=0 curl -L a=b,c");
        assert_eq!((times(&keyed), keyed.command.as_str()), ([-5, 2, -1, -1, -1], "curl -L a=b,c"));
        assert_eq!((keyed.unique, keyed.harakiri, warnings.len()), (true, Some(0), 1));
        assert_eq!(read(cron2, "true").0.command, "true");
        assert_eq!(read(cron2, "echo a=b").0.command, "echo a=b");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_what_never_comes_a_warning() {
        for wrong in ["* * * * * x", "1 2 3 4 x", "1 2 3 4 5", ""] {
            assert!(cron(&mut Config::default(), wrong).is_err(), "{wrong}");
        }
        for wrong in ["minute=1", "minute=1 ", "legion=a x"] {
            assert!(cron2(&mut Config::default(), wrong).is_err(), "{wrong}");
        }
        let (_, warnings) = read(cron, "120 -1 -1 -1 -1 x");
        assert!(warnings[0].contains("no minute 120"), "{warnings:?}");
    }

    #[test]
    fn signals_are_raised_by_timers_and_files() {
        let mut config = Config::default();
        timer(&mut config, "17 60").unwrap();
        rbtimer(&mut config, "18 5").unwrap();
        touch_signal(&mut config, "/run/a 19").unwrap();
        fs_signal(&mut config, "/run/b 20").unwrap();
        assert_eq!(config.signals.timers, [(17, 60, false), (18, 5, true)]);
        assert_eq!(config.signals.touched, [("/run/a".into(), 19)]);
        assert_eq!(config.signals.watched, [("/run/b".to_owned(), 20)]);
        assert!(timer(&mut config, "17").is_err() && fs_signal(&mut config, "/run/b").is_err());
    }
}
