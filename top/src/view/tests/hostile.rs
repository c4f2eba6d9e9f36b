//! Whatever a server sends, the terminal gets plain symbols and our own sequences.

use serde_json::Value;

use super::findings::full;
use super::panes::told;
use super::{answered, failed, fixture, setup};
use crate::model::Pool;
use crate::source::{Poll, SourceError};
use crate::view::Screen;
use crate::view::escape::Writer;
use crate::view::frame::Frames;
use crate::view::keys::Action;
use crate::view::panes::{Pane, Panes};

/// Sequences that terminals obey, characters that turn or hide their neighbours, and texts of any length.
fn texts() -> [String; 14] {
    [
        "\u{1b}[2J\u{1b}]0;title\u{7}".to_owned(),
        "\u{9b}31m\u{9d}0;title\u{9c}".to_owned(),
        "a\u{1b}".to_owned(),
        "\0\r\n\t\u{8}\u{7f}".to_owned(),
        "GET /\u{202e}fdp.exe\u{2066}\u{2069}\u{200f}".to_owned(),
        "\u{200b}\u{feff}\u{2060}\u{ad}\u{2028}\u{2029}".to_owned(),
        format!("a{}", "\u{301}".repeat(5_000)),
        format!("👨{}", "\u{200d}👩".repeat(500)),
        "\u{e0041}\u{e007f}".repeat(500),
        "x".repeat(5_000),
        "⚡".repeat(5_000),
        "x".repeat(70_000),
        "日".repeat(40_000),
        String::new(),
    ]
}

/// Every text of a document replaced, but for histograms, which are no texts.
fn replaced(document: &[u8], text: &str) -> Vec<u8> {
    fn replace(value: &mut Value, text: &str) {
        match value {
            Value::String(found) => text.clone_into(found),
            Value::Array(values) => values.iter_mut().for_each(|value| replace(value, text)),
            Value::Object(members) => {
                let histograms = ["latency", "waiting", "run_time"];
                let members = members.iter_mut().filter(|(name, _)| !histograms.contains(&name.as_str()));
                members.for_each(|(_, value)| replace(value, text));
            }
            _ => {}
        }
    }
    let mut value: Value = serde_json::from_slice(document).unwrap();
    replace(&mut value, text);
    serde_json::to_vec(&value).unwrap()
}

/// A screen on which everything that is a server's is this text.
fn screen(text: &str) -> Screen {
    let pools = (0..5).map(|_| Pool::new(text.to_owned(), Some(text.to_owned()))).collect();
    let mut screen = Screen::new(pools, setup());
    let documents = [
        serde_json::to_vec(&told(2)).unwrap(),
        fixture("uwsgi-busy-cheap"),
        fixture("uwsgi-emperor"),
        fixture("uwsgi-spoolers"),
    ];
    for (target, document) in documents.into_iter().enumerate() {
        screen.ingest(Poll { target, ..answered(2, replaced(&document, text)) });
    }
    // Long enough for something to be found.
    for second in (3..=20).step_by(4) {
        screen.ingest(answered(second, replaced(&serde_json::to_vec(&full(second)).unwrap(), text)));
    }
    screen.ingest(Poll { target: 4, ..failed(2, SourceError::Recorded(text.to_owned())) });
    screen
}

/// What is written, without the sequences that are ours: cursor positions and renditions.
fn written(screen: &mut Screen, (width, height): (u16, u16)) -> String {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    Frames::new(width, height).advance(|buf| screen.draw(buf), |x, y, cell| writer.put(x, y, cell));
    writer.finish();
    // A position for each cell and a rendition of each are the most that there can be.
    let most = 64 * usize::from(width) * usize::from(height);
    assert!(bytes.len() < most, "{} bytes for {width}x{height}", bytes.len());
    let text = String::from_utf8(bytes).unwrap();
    let mut parts = text.split("\u{1b}[");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let numbers = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        assert!(numbers.starts_with(['H', 'm']), "a sequence that is not ours: {part:?}");
        rest += &numbers[1..];
    }
    rest
}

#[test]
fn what_a_server_sends_never_reaches_the_terminal_raw() {
    let looks: [&[Action]; 12] = [
        &[],
        &[Action::Last],
        &[Action::Cores],
        &[Action::Down, Action::Detail],
        &[Action::Down, Action::Detail, Action::Last],
        &[Action::Alerts],
        &[Action::Chart(4)],
        &[Action::Why],
        &[Action::Pane(Pane::Routes)],
        &[Action::Pane(Pane::Routes), Action::Detail],
        &[Action::Pane(Pane::Slow)],
        &[Action::Pane(Pane::Slow), Action::Detail],
    ];
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    for text in texts() {
        let mut screen = screen(&text);
        for tab in 0..6 {
            // The panes of the first server, and of all, have all that there is.
            for look in looks.iter().take(if tab > 1 { 7 } else { looks.len() }) {
                screen.selection = crate::view::selection::Selection { tab, ..Default::default() };
                screen.table.selected = None;
                screen.panes = Panes::default();
                for action in *look {
                    screen.act(*action);
                }
                // Small ones cut more, large ones show more.
                for size in if look.is_empty() { [(40, 12), (120, 40)] } else { [(120, 40), (120, 8)] } {
                    let shown = written(&mut screen, size);
                    let found = shown.chars().find(|c| hidden(*c));
                    let start: String = text.chars().take(10).collect();
                    assert_eq!(found, None, "tab {tab}, {look:?}, {size:?}, {start:?}");
                }
            }
        }
    }
}
