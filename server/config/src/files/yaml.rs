//! The YAML notation: a mapping with a key `uwsgi`, whose value is a mapping of options; a list gives an option several
//! times. Events rather than a loaded document, because repeated keys and lines count here.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{Pair, SyntaxError, no_section, wanted};

/// uWSGI's own reader knows no YAML beyond `key: value` and takes values that begin with these; YAML reserves them, so
/// they are read in disguise. The disguises are private characters that no file means anything by.
const DISGUISES: [(char, char); 2] = [('%', '\u{f8f0}'), ('@', '\u{f8f1}')];

pub(super) fn read(text: &str, asked: Option<&str>) -> Result<Vec<Pair>, SyntaxError> {
    let text = disguise(text);
    let mut reader = Events { parser: Parser::new_from_str(&text) };
    let mut sections = Vec::new();
    let mut pairs = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return pairs.ok_or_else(|| no_section(asked, &sections)),
            (Event::MappingStart(..), _) => reader.document(asked, &mut sections, &mut pairs)?,
            (Event::SequenceStart(..) | Event::Scalar(..) | Event::Alias(_), span) => {
                return Err(wrong(span, "expected a mapping with a key 'uwsgi'".into()));
            }
            _ => {}
        }
    }
}

struct Events<'a, T: saphyr_parser::Input> {
    parser: Parser<'a, T>,
}

impl<'a, T: saphyr_parser::Input> Events<'a, T> {
    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let problem = format!("this is not YAML: {}", error.info());
                Err(SyntaxError { line: error.marker().line(), problem })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The outer mapping, from after its start to its end.
    fn document(
        &mut self,
        asked: Option<&str>,
        sections: &mut Vec<String>,
        pairs: &mut Option<Vec<Pair>>,
    ) -> Result<(), SyntaxError> {
        loop {
            match self.next()? {
                (Event::MappingEnd | Event::StreamEnd, _) => return Ok(()),
                (Event::Scalar(name, ..), _) => {
                    let name = undisguise(&name);
                    let is_wanted = wanted(&name, asked);
                    sections.push(name);
                    match self.next()? {
                        (Event::MappingStart(..), _) if is_wanted => self.options(pairs.get_or_insert_default())?,
                        // An empty section is one without options.
                        (Event::Scalar(value, ..), _) if is_wanted && value.is_empty() => {
                            pairs.get_or_insert_default();
                        }
                        (_, span) if is_wanted => return Err(wrong(span, "expected a mapping of options".into())),
                        (event, _) => self.skip(&event)?,
                    }
                }
                (_, span) => return Err(wrong(span, "expected the name of a section".into())),
            }
        }
    }

    /// The mapping of options, from after its start to its end.
    fn options(&mut self, pairs: &mut Vec<Pair>) -> Result<(), SyntaxError> {
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd | Event::StreamEnd, _) => return Ok(()),
                (Event::Scalar(key, ..), span) => (undisguise(&key), span.start.line()),
                (_, span) => return Err(wrong(span, "expected the name of an option".into())),
            };
            match self.next()? {
                (Event::Scalar(value, style, ..), _) => {
                    pairs.push(Pair { key, value: scalar(&value, style), line });
                }
                (Event::SequenceStart(..), _) => loop {
                    match self.next()? {
                        (Event::SequenceEnd | Event::StreamEnd, _) => break,
                        (Event::Scalar(value, style, ..), span) => {
                            let line = span.start.line();
                            pairs.push(Pair { key: key.clone(), value: scalar(&value, style), line });
                        }
                        (_, span) => return Err(wrong(span, format!("expected values in the list of '{key}'"))),
                    }
                },
                (_, span) => return Err(wrong(span, format!("expected a value or a list of values for '{key}'"))),
            }
        }
    }

    /// Passes over a value, whose first event this is.
    fn skip(&mut self, first: &Event<'_>) -> Result<(), SyntaxError> {
        let mut depth = 0_usize;
        let step = |event: &Event<'_>, depth: usize| match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => depth + 1,
            Event::MappingEnd | Event::SequenceEnd => depth.saturating_sub(1),
            Event::StreamEnd => 0,
            _ => depth,
        };
        depth = step(first, depth);
        while depth > 0 {
            depth = step(&self.next()?.0, depth);
        }
        Ok(())
    }
}

/// A plain `~` or `null` is nothing, which an option takes for "on" as it does a bare key in an ini file.
fn scalar(value: &str, style: ScalarStyle) -> String {
    if style == ScalarStyle::Plain && matches!(value, "~" | "null") { String::new() } else { undisguise(value) }
}

fn wrong(span: Span, problem: String) -> SyntaxError {
    SyntaxError { line: span.start.line(), problem }
}

/// A line that begins with a percent sign is a directive of YAML's and stays one.
fn disguise(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.starts_with('%') {
            result.push_str(line);
        } else {
            result.extend(line.chars().map(|c| DISGUISES.iter().find(|pair| pair.0 == c).map_or(c, |pair| pair.1)));
        }
    }
    result
}

fn undisguise(text: &str) -> String {
    text.chars().map(|c| DISGUISES.iter().find(|pair| pair.1 == c).map_or(c, |pair| pair.0)).collect()
}
