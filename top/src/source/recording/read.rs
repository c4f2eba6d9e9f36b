//! Reading a recording, past whatever is damaged in it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::bufread::GzDecoder;

use super::{Damage, EndedBy, Ending, Entry, FORMAT, Line, RecordingError, Run};
use crate::format;
use crate::source::{LocalMicros, Monotonic, Poll, SourceError, parse};

/// How a gzip member begins, with the only compression that there is.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// No line is longer; one that seems to be is no line of a recording.
const LONGEST: u64 = 600 << 20;
/// A run that was appended follows the one before by no less than this.
const BETWEEN_RUNS: Duration = Duration::from_secs(1);

/// A file that knows how far it was read.
#[derive(Debug)]
struct Counted {
    file: BufReader<File>,
    offset: u64,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.offset += count as u64;
        self.file.consume(count);
    }
}

/// Where reading is.
#[derive(Debug)]
enum State {
    /// Before a gzip member, or at the end.
    Between(Counted),
    /// In the member that begins at this byte.
    Inside(Box<BufReader<GzDecoder<Counted>>>, u64),
    /// Nothing more can be read.
    Over,
}

/// A recording that is being read, oldest entry first.
#[derive(Debug)]
pub(crate) struct Recording {
    /// What was recorded, in the order of first appearance; a sample's `target` is a place in it.
    pub(crate) targets: Vec<String>,
    path: PathBuf,
    state: State,
    lines: u64,
    /// Whether a run was begun: the first form has none.
    begun: bool,
    /// A line that comes next, and where its member begins.
    held: Option<(String, u64)>,
    /// The member whose damage was told: what else is wrong in it follows from that.
    damaged: Option<u64>,
    /// What is added to the times of the run that is read, µs: each run counts from its own start.
    shift: u64,
    /// The latest sample.
    last: Option<(Monotonic, LocalMicros)>,
}

impl Recording {
    /// Opens a recording, and looks through it for the servers that it tells of.
    ///
    /// # Errors
    /// When the file cannot be read, holds no whole sample, or is of a later format.
    pub(crate) fn open(path: &Path) -> Result<Self, RecordingError> {
        let mut survey = Self::begin(path, Vec::new())?;
        let mut samples = false;
        while let Some(line) = survey.line() {
            let Ok(line) = line else { continue };
            let Ok(line) = serde_json::from_str::<Line<'_>>(&line) else { continue };
            if let Some(format) = line.format.filter(|format| *format > FORMAT) {
                return Err(RecordingError::Later(path.to_owned(), format));
            }
            samples |= line.target.is_some();
            for target in line.targets.into_iter().flatten().chain(line.target) {
                survey.place_of(target);
            }
        }
        if !samples {
            return Err(RecordingError::Empty(path.to_owned()));
        }
        Self::begin(path, survey.targets)
    }

    fn begin(path: &Path, targets: Vec<String>) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(|error| RecordingError::Io { path: path.to_owned(), error })?;
        let state = State::Between(Counted { file: BufReader::new(file), offset: 0 });
        let path = path.to_owned();
        Ok(Self { targets, path, state, lines: 0, begun: false, held: None, damaged: None, shift: 0, last: None })
    }

    fn place_of(&mut self, target: String) -> usize {
        self.targets.iter().position(|known| *known == target).unwrap_or_else(|| {
            self.targets.push(target);
            self.targets.len() - 1
        })
    }

    /// The next line, or what is wrong where it should be.
    fn line(&mut self) -> Option<Result<String, Damage>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return None,
                State::Between(mut file) => match file.fill_buf() {
                    Ok([]) => return None,
                    Ok(_) => {
                        let start = file.offset;
                        self.state = State::Inside(Box::new(BufReader::new(GzDecoder::new(file))), start);
                    }
                    Err(error) => return Some(Err(self.damage(file.offset, &error))),
                },
                State::Inside(mut member, start) => {
                    let mut line = Vec::new();
                    let read = member.by_ref().take(LONGEST).read_until(b'\n', &mut line);
                    // A line counts when the check sum has been compared, which is behind a member's last.
                    match read.and_then(|count| member.fill_buf().map(|_| count)) {
                        Ok(0) => self.state = State::Between(member.into_inner().into_inner()),
                        Ok(_) => {
                            self.state = State::Inside(member, start);
                            let text = String::from_utf8(line).ok().filter(|line| line.ends_with('\n'));
                            let Some(text) = text else { return Some(Err(self.damage(start, &"not a line of text"))) };
                            self.lines += 1;
                            return Some(Ok(text));
                        }
                        Err(error) => {
                            let damage = self.damage(start, &error);
                            self.state = self.after_damage(start);
                            return Some(Err(damage));
                        }
                    }
                }
            }
        }
    }

    fn damage(&self, offset: u64, what: &dyn fmt::Display) -> Damage {
        Damage { offset, lines: self.lines, what: format::one_line(&what.to_string()) }
    }

    /// Goes on where the next whole member begins that follows the damaged one at `start`.
    fn after_damage(&self, start: u64) -> State {
        let mut from = start + 1;
        loop {
            let Ok(Some(found)) = self.find_member(from) else { return State::Over };
            let Ok(member) = self.seek(found) else { return State::Over };
            // The beginning of a member is only three bytes, which may be anywhere.
            if io::copy(&mut GzDecoder::new(member).take(LONGEST), &mut io::sink()).is_ok() {
                return self.seek(found).map_or(State::Over, State::Between);
            }
            from = found + 1;
        }
    }

    fn seek(&self, offset: u64) -> io::Result<Counted> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Counted { file: BufReader::new(file), offset })
    }

    /// Where the next bytes are that a member may begin with.
    fn find_member(&self, from: u64) -> io::Result<Option<u64>> {
        let mut seen = [0; MAGIC.len()];
        for (place, byte) in (from..).zip(self.seek(from)?.file.bytes()) {
            seen.rotate_left(1);
            seen[MAGIC.len() - 1] = byte?;
            if seen == MAGIC {
                return Ok(Some(place + 1 - MAGIC.len() as u64));
            }
        }
        Ok(None)
    }

    /// What a line says.
    fn entry(&mut self, text: &str) -> Result<Entry, String> {
        let line: Line<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if line.format.is_some() {
            self.begin_run(line.started);
            let interval = line.interval.map(Duration::from_micros);
            return Ok(Entry::Run(Run { interval, targets: line.targets.unwrap_or_default() }));
        }
        if let Some(end) = line.end {
            let at = Monotonic::from_micros(end.saturating_add(self.shift));
            let why = line.why.map(|why| format::one_line(&why));
            return Ok(Entry::End(Ending { at, by: line.by.unwrap_or(EndedBy::Time), why }));
        }
        let (Some(target), Some(taken)) = (line.target, line.taken) else {
            return Err("neither a run nor a sample nor an end".to_owned());
        };
        let taken = LocalMicros(taken);
        let at = match (line.at, self.last) {
            (Some(at), _) => Monotonic::from_micros(at.saturating_add(self.shift)),
            // The first form tells the time of day alone, which may have been set back.
            (None, Some((at, before))) => at.after(Duration::from_micros(taken.0.saturating_sub(before.0))),
            (None, None) => Monotonic::default(),
        };
        self.last = Some((at, taken));
        let outcome = match (line.document, line.error) {
            (Some(document), _) => parse(document.get().as_bytes().to_vec()),
            (None, error) => Err(SourceError::recorded(&error.unwrap_or_default())),
        };
        Ok(Entry::Poll(Poll { target: self.place_of(target), at, taken, outcome }))
    }

    fn begin_run(&mut self, started: Option<u64>) {
        self.begun = true;
        if let Some((at, taken)) = self.last {
            let apart = Duration::from_micros(started.unwrap_or(0).saturating_sub(taken.0)).max(BETWEEN_RUNS);
            self.shift = at.after(apart).as_micros();
        }
    }
}

impl Iterator for Recording {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            match self.read()? {
                Entry::Damage(damage) if self.damaged.replace(damage.offset) == Some(damage.offset) => {}
                entry => return Some(entry),
            }
        }
    }
}

impl Recording {
    fn read(&mut self) -> Option<Entry> {
        let (text, start) = match self.held.take() {
            Some(held) => held,
            None => match self.line()? {
                Ok(text) => (text, if let State::Inside(_, start) = &self.state { *start } else { 0 }),
                Err(damage) => return Some(Entry::Damage(damage)),
            },
        };
        match self.entry(&text) {
            Ok(Entry::Poll(_)) if !self.begun => {
                // The first form: its samples come without a run.
                self.begun = true;
                self.last = None;
                self.held = Some((text, start));
                Some(Entry::Run(Run { interval: None, targets: Vec::new() }))
            }
            Ok(entry) => Some(entry),
            Err(what) => {
                Some(Entry::Damage(Damage { offset: start, lines: self.lines - 1, what: format::one_line(&what) }))
            }
        }
    }
}
