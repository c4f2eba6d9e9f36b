//! Colours and characters: one place that knows what the terminal can show.
//!
//! Colours are the terminal's own sixteen, so they suit light and dark alike, and never the only sign of anything:
//! states are words too. Without colour (`NO_COLOR`) there is bold, dim and reverse; without UTF-8 there is ASCII.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use crate::model::Status;

/// What a colour is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// A worker in a request.
    Busy,
    /// A worker without a process.
    Cheap,
    /// A worker that takes no requests.
    Pause,
    /// A worker that handles a signal.
    Signal,
    /// What needs a look.
    Warning,
    /// What is broken.
    Alarm,
    /// The first line of a chart.
    First,
    /// The second line of a chart.
    Second,
    /// The third line of a chart.
    Third,
}

impl Role {
    const ALL: [Self; 9] = [
        Self::Busy,
        Self::Cheap,
        Self::Pause,
        Self::Signal,
        Self::Warning,
        Self::Alarm,
        Self::First,
        Self::Second,
        Self::Third,
    ];

    /// Its name in the configuration file.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// The colours in force, one for each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Colors([Color; 9]);

impl Default for Colors {
    fn default() -> Self {
        // The first four are uwsgitop's. The three of charts are told apart by the common kinds of colour blindness.
        Self([
            Color::Green,
            Color::Magenta,
            Color::Blue,
            Color::Yellow,
            Color::Yellow,
            Color::Red,
            Color::Cyan,
            Color::Yellow,
            Color::Magenta,
        ])
    }
}

impl Colors {
    /// Gives a role another colour.
    pub(crate) fn set(&mut self, role: Role, color: Color) {
        self.0[role as usize] = color;
    }

    /// Every role with its colour.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Role, Color)> {
        Role::ALL.into_iter().map(move |role| (role, self.0[role as usize]))
    }
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    /// Colours may be used.
    pub(crate) color: bool,
    /// Characters beyond ASCII may be used.
    pub(crate) unicode: bool,
    /// Which colours.
    pub(crate) colors: Colors,
}

impl Theme {
    /// What the environment asks for: `NO_COLOR`, `TERM`, and the locale's character set.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_uppercase();
        Self {
            color: set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"),
            unicode: locale.contains("UTF-8") || locale.contains("UTF8"),
            colors: Colors::default(),
        }
    }

    fn colored(self, role: Role, without: Modifier) -> Style {
        if self.color { Style::new().fg(self.colors.0[role as usize]) } else { Style::new().add_modifier(without) }
    }

    /// uwsgitop's colours of a worker's status.
    pub(crate) fn status(self, status: Status) -> Style {
        match status {
            Status::Busy => self.colored(Role::Busy, Modifier::BOLD),
            Status::Cheap => self.colored(Role::Cheap, Modifier::DIM),
            Status::Pause => self.colored(Role::Pause, Modifier::DIM),
            Status::Signal => self.colored(Role::Signal, Modifier::BOLD),
            Status::Idle | Status::Other => Style::new(),
        }
    }

    /// Labels, hints, what is not the news.
    pub(crate) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The numbers that are looked for first.
    pub(crate) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Title rows.
    pub(crate) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The selected row.
    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }

    /// What needs a look.
    pub(crate) fn warning(self) -> Style {
        self.colored(Role::Warning, Modifier::BOLD)
    }

    /// What is broken.
    pub(crate) fn alarm(self) -> Style {
        self.colored(Role::Alarm, Modifier::BOLD).add_modifier(Modifier::BOLD)
    }

    /// Lines and bars of charts, the first to the third of several.
    pub(crate) fn series(self, index: usize) -> Style {
        self.colored([Role::First, Role::Second, Role::Third][index % 3], Modifier::empty())
    }

    /// A cell of the heat map, by how much is in it, 0 to 1.
    pub(crate) fn heat(self, level: f64) -> Style {
        // The shade tells it too, so one change of colour is enough.
        self.series(usize::from(level > 0.66))
    }

    /// Replaces what the terminal cannot show, after everything is drawn.
    pub(crate) fn finish(self, buffer: &mut Buffer) {
        if self.unicode {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                let plain = cell.symbol().chars().next().map_or(' ', ascii);
                cell.set_char(plain);
            }
        }
    }
}

/// The nearest ASCII character for those that the screens use.
pub(crate) fn ascii(character: char) -> char {
    match character {
        'µ' => 'u',
        '…' => '~',
        '▁' => '_',
        '▂' => '.',
        '▃' => ':',
        '▄' => '-',
        '▅' => '=',
        '▆' => '+',
        '▇' => '*',
        '█' => '#',
        '░' => '.',
        '▒' => 'o',
        '▓' => 'O',
        '▲' | '↑' => '^',
        '▼' | '↓' => 'v',
        '←' => '<',
        '→' | '▶' => '>',
        '·' => '.',
        '●' | '•' => '*',
        '─' | '━' => '-',
        '│' | '┃' => '|',
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' | '╭' | '╮' | '╰' | '╯' => '+',
        // Braille, which charts draw with.
        '\u{2800}' => ' ',
        '\u{2801}'..='\u{28ff}' => '*',
        _ if character.is_ascii() => character,
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme(variables: &[(&str, &str)]) -> Theme {
        Theme::from_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_decides() {
        assert!(theme(&[("LANG", "de_DE.UTF-8")]).unicode);
        assert!(theme(&[("LANG", "C.utf8")]).unicode);
        assert!(!theme(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]).unicode);
        assert!(!theme(&[]).unicode);
        assert!(theme(&[("NO_COLOR", "")]).color);
        assert!(!theme(&[("NO_COLOR", "1")]).color);
        assert!(!theme(&[("TERM", "dumb")]).color);
    }

    #[test]
    fn without_colour_the_states_are_still_told_apart() {
        let plain = theme(&[("NO_COLOR", "1")]);
        assert_ne!(plain.status(Status::Busy), plain.status(Status::Idle));
        assert_eq!(plain.alarm().fg, None);
    }
}
