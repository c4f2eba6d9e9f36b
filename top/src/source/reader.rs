//! Understanding document after document of one server, where most of one is as it was in the one before.
//!
//! A document of 64 workers is 64 kB, and most workers of a large pool did nothing since the last second: what is written
//! of such a worker is the same, byte for byte. So a worker's text is understood once, and compared from then on. What
//! comes out is what [`parse`] makes of the document, and whatever looks unusual is left to it.

use std::ops::Range;
use std::sync::Arc;

use rwsgi_stats::{Snapshot, Worker};

use super::{Document, SourceError, parse};

/// What was understood of a server's last document.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// By place: a worker's text and what it says.
    workers: Vec<(Vec<u8>, Worker)>,
    /// The last document, for its room.
    last: Arc<Vec<u8>>,
}

impl Reader {
    /// Understands a document.
    ///
    /// # Errors
    /// Those of [`parse`].
    pub(crate) fn parse(&mut self, raw: Vec<u8>) -> Result<Document, SourceError> {
        let document = match self.understand(&raw) {
            Some(snapshot) => Document { snapshot: Box::new(snapshot), raw: Arc::new(raw) },
            None => parse(raw)?,
        };
        self.last = Arc::clone(&document.raw);
        Ok(document)
    }

    /// The room of the last document, with whatever is in it; empty when somebody still has it. A pool's document is
    /// large enough for its memory to be worth keeping.
    pub(crate) fn room(&mut self) -> Vec<u8> {
        Arc::into_inner(std::mem::take(&mut self.last)).unwrap_or_default()
    }

    fn understand(&mut self, raw: &[u8]) -> Option<Snapshot> {
        // Looked through once as a whole, which is quick: serde_json would do it string by string.
        let text = str::from_utf8(raw).ok()?;
        let start = start_of_workers(raw)?;
        let (mut at, mut place) = (start, 0);
        loop {
            at = skip_blanks(raw, at);
            let length = match self.workers.get(place) {
                // A whole object cannot be the beginning of another one.
                Some((text, _)) if raw[at..].starts_with(text) => text.len(),
                _ => self.learn(text.get(at..)?, place)?,
            };
            at = skip_blanks(raw, at + length);
            place += 1;
            match raw.get(at)? {
                b',' => at += 1,
                b']' => break,
                _ => return None,
            }
        }
        self.workers.truncate(place);
        let rest = [text.get(..start)?, text.get(at..)?].concat();
        let mut snapshot: Snapshot = serde_json::from_str(&rest).ok()?;
        snapshot.workers = self.workers.iter().map(|(_, worker)| worker.clone()).collect();
        Some(snapshot)
    }

    /// Understands the worker that the text begins with; returns the length of what is the worker's.
    fn learn(&mut self, text: &str, place: usize) -> Option<usize> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter();
        let worker = values.next()?.ok()?;
        let text = &text.as_bytes()[..values.byte_offset()];
        match self.workers.get_mut(place) {
            Some(known) => {
                known.0.clear();
                known.0.extend_from_slice(text);
                known.1 = worker;
            }
            None => self.workers.push((text.to_vec(), worker)),
        }
        Some(text.len())
    }
}

fn skip_blanks(raw: &[u8], at: usize) -> usize {
    raw[at..].iter().position(|byte| !byte.is_ascii_whitespace()).map_or(raw.len(), |blanks| at + blanks)
}

/// Where the string that opens at `at` has ended.
fn end_of_string(raw: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match raw.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 1,
            _ => {}
        }
    }
}

/// Where the elements of the document's own list of workers begin.
fn start_of_workers(raw: &[u8]) -> Option<usize> {
    let mut found = None;
    let Range { start: mut at, end } = skip_blanks(raw, 0)..raw.len();
    let mut depth = 0;
    while at < end {
        match raw[at] {
            b'"' => {
                let closed = end_of_string(raw, at)?;
                let key = &raw[at..closed];
                at = skip_blanks(raw, closed);
                if depth == 1 && key == b"\"workers\"" && raw.get(at) == Some(&b':') {
                    let open = skip_blanks(raw, at + 1);
                    if raw.get(open) == Some(&b'[') {
                        found = Some(open + 1);
                    }
                    break;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &[u8] = include_bytes!("../../../shared/tests/fixtures/uwsgi-busy-cheap.json");

    fn both(reader: &mut Reader, raw: &[u8]) {
        match (reader.parse(raw.to_vec()), parse(raw.to_vec())) {
            (Ok(ours), Ok(plain)) => assert_eq!(ours.snapshot, plain.snapshot),
            (Err(ours), Err(plain)) => assert_eq!(ours.to_string(), plain.to_string()),
            (ours, plain) => panic!("{ours:?} instead of {plain:?}"),
        }
    }

    #[test]
    fn a_document_is_understood_the_same_after_any_other() {
        let mut reader = Reader::default();
        let four = include_bytes!("../../../shared/tests/fixtures/uwsgi-four-workers-two-threads.json");
        let emperor = include_bytes!("../../../shared/tests/fixtures/uwsgi-emperor.json");
        let spoolers = include_bytes!("../../../shared/tests/fixtures/uwsgi-spoolers.json");
        let nested =
            br#"{"version":"\"workers\":[{","x":{"workers":[{"id":9}]},"workers" : [ {"id":1} , {"id":2}],"pid":5}"#;
        for raw in [WHOLE, four, WHOLE, WHOLE, emperor, spoolers, nested, nested, WHOLE, b"{}", b"", b"[]", b"]", four]
        {
            both(&mut reader, raw);
        }
    }

    #[test]
    fn a_cut_document_is_called_what_it_is() {
        let mut reader = Reader::default();
        both(&mut reader, WHOLE);
        for cut in (0..WHOLE.len()).step_by(7) {
            both(&mut reader, &WHOLE[..cut]);
        }
    }

    #[test]
    fn a_worker_whose_number_goes_on_is_another() {
        let mut reader = Reader::default();
        for workers in
            ["[{\"id\":1}]", "[{\"id\":12},{\"id\":1}]", "[]", "[{\"id\":1},]", "[{\"id\":1}{\"id\":2}]", "[3]"]
        {
            both(&mut reader, format!("{{\"version\":\"1\",\"workers\":{workers}}}").as_bytes());
        }
    }

    proptest! {
        // Every case understands the document dozens of times.
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_change_of_a_byte_is_noticed(changes in prop::collection::vec((0..WHOLE.len(), any::<u8>()), 1..20)) {
            let mut reader = Reader::default();
            both(&mut reader, WHOLE);
            let mut raw = WHOLE.to_vec();
            for (place, byte) in changes {
                raw[place] = byte;
                both(&mut reader, &raw);
            }
        }
    }
}
