//! uWSGI's XML notation: an element `<uwsgi>`, the root or a child of it, whose children are the options. An empty
//! child is an option that is on; `<app mountpoint="/prefix"><module>…` is a mount. Several `<uwsgi>` tell themselves
//! apart by their attribute `id`.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion, escape};

use super::{OWN_SECTIONS, Pair, SyntaxError, no_section};

pub(super) fn read(text: &str, asked: Option<&str>) -> Result<Vec<Pair>, SyntaxError> {
    let mut reader = Reader::from_str(text);
    let mut lines = Lines { text, position: 0, line: 1 };
    let mut pairs = Vec::new();
    let mut sections = Vec::new();
    let mut found = false;
    // The option being read, once inside the wanted element.
    let mut inside = false;
    let mut option: Option<Pair> = None;
    // `<app mountpoint="/prefix">`, around the option that names the application.
    let mut app: Option<App> = None;
    loop {
        let event = reader.read_event();
        let line = lines.at(reader.buffer_position());
        let wrong = |problem: String| SyntaxError { line, problem };
        match event.map_err(|error| wrong(format!("this is not XML: {error}")))? {
            Event::Start(start) if inside && app.is_none() && option.is_none() && name(&start) == "app" => {
                let mountpoint = attribute(&start, "mountpoint").map_err(wrong)?.unwrap_or_else(|| "/".into());
                app = Some(App { mountpoint, named: false });
            }
            Event::Start(_) | Event::Empty(_) if option.is_some() => {
                let key = option.map(|option| option.key).unwrap_or_default();
                return Err(wrong(format!("<{key}> holds another element where its value is expected")));
            }
            Event::Empty(_) if app.is_some() => return Err(wrong("<app> holds an element without a value".into())),
            Event::Start(start) if inside => {
                option = Some(Pair { key: name(&start), value: String::new(), line });
            }
            Event::Start(start) if OWN_SECTIONS.contains(&&*name(&start)) => {
                let id = attribute(&start, "id").map_err(wrong)?;
                // Only an id that is there can be another one, as with uWSGI.
                inside = asked.is_none_or(|asked| id.as_deref().is_none_or(|id| id == asked));
                found |= inside;
                sections.push(format!("<uwsgi id=\"{}\">", id.unwrap_or_default()));
            }
            Event::Empty(empty) if inside => {
                pairs.push(Pair { key: name(&empty), value: "1".into(), line });
            }
            Event::Empty(empty) if OWN_SECTIONS.contains(&&*name(&empty)) => found = true,
            Event::End(_) => match (option.take(), &mut app) {
                // As with uWSGI, whatever the element is called.
                (Some(Pair { value, line, .. }), Some(app)) => {
                    app.named = true;
                    pairs.push(Pair {
                        key: "mount".into(),
                        value: format!("{}={}", app.mountpoint, value.trim()),
                        line,
                    });
                }
                (Some(option), None) => pairs.push(Pair { value: option.value.trim().to_owned(), ..option }),
                (None, Some(App { named: false, .. })) => return Err(wrong("<app> names no application".into())),
                (None, Some(_)) => app = None,
                (None, None) => inside = false,
            },
            Event::Text(text) => extend(&mut option, &text.xml_content(XmlVersion::Implicit1_0)),
            Event::CData(text) => extend(&mut option, &text.xml_content(XmlVersion::Implicit1_0)),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().ok().flatten().map(String::from);
                let known = character.or_else(|| escape::resolve_predefined_entity(&reference).map(str::to_owned));
                match known {
                    Some(text) => extend(&mut option, &text),
                    None => return Err(wrong(format!("&{}; is no character that XML knows", &*reference))),
                }
            }
            Event::Eof if found && !inside => return Ok(pairs),
            Event::Eof if inside => return Err(wrong("<uwsgi> is not closed".into())),
            Event::Eof => return Err(no_section(asked, &sections)),
            _ => {}
        }
    }
}

fn name(start: &BytesStart<'_>) -> String {
    start.name().0.to_owned()
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let attribute = start.try_get_attribute(name).map_err(|error| format!("this is not XML: {error}"))?;
    let value = attribute.map(|attribute| attribute.normalized_value(XmlVersion::Implicit1_0).map(Into::into));
    value.transpose().map_err(|error| format!("the attribute {name}: {error}"))
}

/// An application in an element of its own.
struct App {
    mountpoint: String,
    /// Its name has been read.
    named: bool,
}

fn extend(option: &mut Option<Pair>, text: &str) {
    if let Some(option) = option {
        option.value.push_str(text);
    }
}

/// Counts lines up to positions that only grow.
struct Lines<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl Lines<'_> {
    fn at(&mut self, position: u64) -> usize {
        let position = usize::try_from(position).unwrap_or(usize::MAX).clamp(self.position, self.text.len());
        let passed = &self.text.as_bytes()[self.position..position];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.position = position;
        self.line
    }
}
