//! A job as it lies in its directory: uWSGI's names and uWSGI's format, so that either server runs what the other left.
//!
//! The file is a packet of variables as the uwsgi protocol has it (modifier1 17), and whatever follows it is the job's
//! body. Its name is `uwsgi_spoolfile_on_HOST_PID_COUNT_RANDOM_SECONDS_MICROSECONDS`. It lies in the directory itself
//! or, when it has a priority, in a numbered one below. Its modification time is the earliest moment at which it may
//! run. Pure: no files here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use thiserror::Error;

use rwsgi_protocol::uwsgi::{self, HEADER_LEN, PacketError, Vars};

/// What the name of every job begins with.
pub(crate) const PREFIX: &str = "uwsgi_spoolfile_on_";
/// The first byte of a job.
const MODIFIER: u8 = 17;

/// Where a job stands in the queue: by priority (the lowest number first, those without one last), then by when it was
/// queued.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    priority: u64,
    /// Unix µs.
    queued: u64,
    /// Its number among the jobs of its writer.
    count: u64,
    /// The numbered directory that it lies in; empty for the spooler's own.
    subdirectory: OsString,
    name: OsString,
}

impl Ticket {
    /// The ticket of the file `name` in the numbered directory `subdirectory`, or (empty) the spooler's own; `None`
    /// when the name is no job's.
    pub(crate) fn of(subdirectory: &OsStr, name: &OsStr) -> Option<Self> {
        let rest = name.as_bytes().strip_prefix(PREFIX.as_bytes())?;
        let mut numbers = rest.rsplit(|byte| *byte == b'_').map(number);
        let mut next = || numbers.next().flatten();
        // A name that somebody else made up is older than all others.
        let (micros, seconds, _random, count) = (next().unwrap_or(0), next().unwrap_or(0), next(), next().unwrap_or(0));
        let queued = seconds.saturating_mul(1_000_000).saturating_add(micros);
        let priority = if subdirectory.is_empty() { u64::MAX } else { number(subdirectory.as_bytes())? };
        Some(Self { priority, queued, count, subdirectory: subdirectory.to_owned(), name: name.to_owned() })
    }

    /// The file, relative to the spooler's directory.
    pub(crate) fn path(&self) -> PathBuf {
        // An empty subdirectory adds nothing.
        [&self.subdirectory, &self.name].iter().filter(|part| !part.is_empty()).collect()
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The numbered directory that it lies in; empty for the spooler's own.
    pub(crate) fn subdirectory(&self) -> &OsStr {
        &self.subdirectory
    }

    /// When it was queued, unix µs; 0 when its name does not say.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }
}

impl std::fmt::Display for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path().display().fmt(f)
    }
}

/// A number in decimal digits, as the names of priorities are.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// The name of a new job.
pub(crate) fn new_name(host: &str, pid: i32, count: u64, random: u32, unix_micros: u64) -> String {
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    format!("{PREFIX}{host}_{pid}_{count}_{random}_{seconds}_{micros}")
}

/// Why a file is no job.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum NotAJob {
    #[error("it is empty")]
    Empty,
    #[error("it does not begin as a job does (its first byte is {0} instead of {MODIFIER})")]
    Modifier(u8),
    #[error("it ends within its variables")]
    Cut,
    #[error("its variables do not add up to their size")]
    Malformed,
    #[error("it is no regular file")]
    NoFile,
    #[error("it has {size} bytes, more than spooler-job-limit ({limit})")]
    TooLarge { size: u64, limit: u64 },
}

/// What is in a job's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    bytes: Vec<u8>,
    /// Where its body begins.
    body: usize,
}

impl Job {
    /// Reads a whole file.
    pub(crate) fn read(bytes: Vec<u8>) -> Result<Self, NotAJob> {
        match bytes.first() {
            None => return Err(NotAJob::Empty),
            Some(&MODIFIER) => {}
            Some(other) => return Err(NotAJob::Modifier(*other)),
        }
        let [_, low, high, _, rest @ ..] = bytes.as_slice() else { return Err(NotAJob::Cut) };
        let size = usize::from(u16::from_le_bytes([*low, *high]));
        let vars = rest.get(..size).ok_or(NotAJob::Cut)?;
        Vars::of(vars).ok_or(NotAJob::Malformed)?;
        Ok(Self { body: HEADER_LEN + size, bytes })
    }

    /// Names and values in order; a name may come twice, and the later value is the one meant.
    pub(crate) fn vars(&self) -> Vars<'_> {
        Vars::of(&self.bytes[HEADER_LEN..self.body]).unwrap_or_default()
    }

    /// What follows the variables.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.body..]
    }
}

/// The variables of a job as its file begins.
///
/// # Errors
/// When they do not fit the format's 16 bits.
pub(crate) fn head(vars: &[(&[u8], &[u8])]) -> Result<Vec<u8>, PacketError> {
    let mut bytes = Vec::new();
    uwsgi::encode(vars, &mut bytes)?;
    bytes[0] = MODIFIER;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket(subdirectory: &str, name: &str) -> Ticket {
        Ticket::of(OsStr::new(subdirectory), OsStr::new(name)).unwrap()
    }

    #[test]
    fn a_name_of_uwsgi_is_understood() {
        let read = ticket("", "uwsgi_spoolfile_on_my_host_24143_11_1936843622_1795242189_778836");
        assert_eq!((read.queued(), read.count), (1_795_242_189_778_836, 11));
        assert_eq!(read.path(), PathBuf::from(read.name()));
        assert_eq!(ticket("5", "uwsgi_spoolfile_on_x").path(), PathBuf::from("5/uwsgi_spoolfile_on_x"));
        assert_eq!(Ticket::of(OsStr::new(""), OsStr::new(".uwsgi_spoolfile_on_x")), None);
        assert_eq!(Ticket::of(OsStr::new("abc"), OsStr::new("uwsgi_spoolfile_on_x")), None);
    }

    #[test]
    fn priorities_go_first_and_then_the_oldest() {
        let mut queue = [
            ticket("", "uwsgi_spoolfile_on_h_9_1_7_100_5"),
            ticket("10", "uwsgi_spoolfile_on_h_9_5_7_100_1"),
            ticket("9", "uwsgi_spoolfile_on_h_9_6_7_300_1"),
            ticket("", "uwsgi_spoolfile_on_h_9_3_7_100_5"),
            ticket("", "uwsgi_spoolfile_on_h_10_2_7_99_999999"),
        ];
        queue.sort();
        let order: Vec<_> = queue.iter().map(|ticket| ticket.count).collect();
        assert_eq!(order, [6, 5, 2, 1, 3]);
    }

    #[test]
    fn a_file_of_uwsgi_is_read() {
        let job = Job::read(b"\x11\x06\0\0\x01\0a\x01\0bBODY".to_vec()).unwrap();
        assert_eq!(job.vars().collect::<Vec<_>>(), [(&b"a"[..], &b"b"[..])]);
        assert_eq!(job.body(), b"BODY");
        assert_eq!(Job::read(b"\x11\0\0\0".to_vec()).unwrap().vars().count(), 0);
    }

    #[test]
    fn what_is_no_job_is_told_apart() {
        for (bytes, problem) in [
            (&b""[..], NotAJob::Empty),
            (b"hello", NotAJob::Modifier(b'h')),
            (b"\x11\x06", NotAJob::Cut),
            (b"\x11\x06\0\0\x01\0a\x01", NotAJob::Cut),
            (b"\x11\x05\0\0\x01\0a\x01\0", NotAJob::Malformed),
        ] {
            assert_eq!(Job::read(bytes.to_vec()), Err(problem), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            vars in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..30), prop::collection::vec(any::<u8>(), 0..300)), 0..20),
            body in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let vars: Vec<_> = vars.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            let mut bytes = head(&vars).unwrap();
            bytes.extend_from_slice(&body);
            let job = Job::read(bytes).unwrap();
            prop_assert_eq!(job.vars().collect::<Vec<_>>(), vars);
            prop_assert_eq!(job.body(), body.as_slice());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..100), modifier in any::<bool>()) {
            let bytes = if modifier { [&[MODIFIER][..], &bytes].concat() } else { bytes };
            if let Ok(job) = Job::read(bytes.clone()) {
                prop_assert!(job.body().len() + HEADER_LEN <= bytes.len());
            }
        }

        #[test]
        fn a_job_that_is_taken_is_its_file(
            vars in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(any::<u8>(), 0..6)), 0..5),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3, any::<[u8; 2]>()), 0..4),
        ) {
            let vars: Vec<_> = vars.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            let mut bytes = [&head(&vars).unwrap()[..], b"body"].concat();
            for (at, gone, new) in changes {
                let at = at.index(bytes.len() + 1);
                let end = bytes.len().min(at + gone);
                bytes.splice(at..end, new);
            }
            let Ok(job) = Job::read(bytes.clone()) else { return Ok(()) };
            let mut again = head(&job.vars().collect::<Vec<_>>()).unwrap();
            again[3] = bytes[3];
            again.extend_from_slice(job.body());
            prop_assert_eq!(again, bytes);
        }

        #[test]
        fn any_name_is_a_ticket_or_none(
            subdirectory in prop_oneof![Just(Vec::new()), prop::collection::vec(b'0'..=b'9', 1..25), prop::collection::vec(any::<u8>(), 0..5)],
            name in prop::collection::vec(prop_oneof![any::<u8>(), b'0'..=b'9', Just(b'_')], 0..60),
        ) {
            let (subdirectory, name) = (OsStr::from_bytes(&subdirectory), [PREFIX.as_bytes(), &name].concat());
            if let Some(ticket) = Ticket::of(subdirectory, OsStr::from_bytes(&name)) {
                prop_assert_eq!(ticket.name().as_bytes(), name);
                prop_assert!(ticket.to_string().contains("uwsgi_spoolfile_on_"));
            } else {
                prop_assert!(number(subdirectory.as_bytes()).is_none());
            }
        }

        #[test]
        fn a_new_name_tells_when_it_was_queued(host in "[a-z._-]{0,20}", count in any::<u64>(), micros in 0..u64::MAX / 2) {
            let name = new_name(&host, 7, count, 3, micros);
            let read = Ticket::of(OsStr::new(""), OsStr::new(&name)).unwrap();
            prop_assert_eq!((read.queued(), read.count), (micros, count));
        }
    }
}
