//! Colours and characters: one place that knows what the terminal can show.
//!
//! Unless a theme is named, colours are the terminal's own sixteen, so they suit light and dark alike; and they are never
//! the only sign of anything: states are words too. Without colour (`NO_COLOR`) there is bold, dim and reverse; without UTF-8 there is ASCII.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};
use rwsgi_stats::control::ThreadState;

use crate::format;
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

/// A row of the table of themes.
#[derive(Debug)]
pub(crate) struct Palette {
    /// Its name in the configuration file and on the command line.
    pub(crate) name: &'static str,
    /// A line for help and docs.
    pub(crate) help: &'static str,
    /// A colour for each [`Role`], in their order; `None` for none at all.
    colors: Option<[Color; 9]>,
}

macro_rules! palettes {
    ($($name:literal $help:literal $colors:expr;)*) => {
        &[$(Palette { name: $name, help: $help, colors: $colors }),*]
    };
}

/// Every theme; the first is the usual one. The three colours of charts are told apart with the common kinds of colour
/// blindness in each of them.
pub(crate) const PALETTES: &[Palette] = palettes! {
    // The first four are uwsgitop's.
    "terminal" "the terminal's own sixteen colours, which suit its background" Some([
        Color::Green, Color::Magenta, Color::Blue, Color::Yellow, Color::Yellow, Color::Red,
        Color::Cyan, Color::Yellow, Color::Magenta,
    ]);
    "dark" "soft colours on a dark background" Some([
        Color::Indexed(114), Color::Indexed(139), Color::Indexed(110), Color::Indexed(179), Color::Indexed(215),
        Color::Indexed(203), Color::Indexed(80), Color::Indexed(222), Color::Indexed(176),
    ]);
    "light" "deep colours on a light background" Some([
        Color::Indexed(22), Color::Indexed(90), Color::Indexed(25), Color::Indexed(94), Color::Indexed(130),
        Color::Indexed(124), Color::Indexed(24), Color::Indexed(130), Color::Indexed(90),
    ]);
    // Okabe and Ito's, which keep their distance for every kind of sight.
    "colour-blind" "colours that everybody tells apart, on dark and light" Some([
        Color::Rgb(0, 158, 115), Color::Rgb(204, 121, 167), Color::Rgb(86, 180, 233), Color::Rgb(230, 159, 0),
        Color::Rgb(230, 159, 0), Color::Rgb(213, 94, 0), Color::Rgb(86, 180, 233), Color::Rgb(230, 159, 0),
        Color::Rgb(204, 121, 167),
    ]);
    "mono" "no colours: bold, dim and reversed" None;
};

/// The place of a theme in [`PALETTES`].
pub(crate) fn palette(name: &str) -> Option<usize> {
    PALETTES.iter().position(|palette| palette.name == name)
}

/// The colours of the first theme, for the default configuration file.
pub(crate) fn usual_colors() -> impl Iterator<Item = (Role, Color)> {
    PALETTES.iter().filter_map(|palette| palette.colors).take(1).flat_map(|colors| Role::ALL.into_iter().zip(colors))
}

/// Colours that the user chose beside a theme, by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Colors([Option<Color>; 9]);

impl Colors {
    /// Gives a role a colour of its own.
    pub(crate) fn set(&mut self, role: Role, color: Color) {
        self.0[role as usize] = Some(color);
    }
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Theme {
    /// Colours may be used.
    pub(crate) color: bool,
    /// Characters beyond ASCII may be used.
    pub(crate) unicode: bool,
    /// Which colours: the place in [`PALETTES`].
    pub(crate) palette: usize,
    /// What is used instead of the palette's.
    pub(crate) own: Colors,
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
            ..Self::default()
        }
    }

    fn colored(self, role: Role, without: Modifier) -> Style {
        let place = role as usize;
        let color = self.own.0[place].or_else(|| Some(PALETTES.get(self.palette)?.colors?[place]));
        color.filter(|_| self.color).map_or(Style::new().add_modifier(without), |color| Style::new().fg(color))
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

    /// What a thread was doing.
    pub(crate) fn thread(self, state: ThreadState) -> Style {
        match state {
            ThreadState::Running => self.colored(Role::Busy, Modifier::empty()),
            ThreadState::Gil => self.colored(Role::Warning, Modifier::empty()),
            ThreadState::Lock => self.colored(Role::Alarm, Modifier::empty()),
            ThreadState::Database => self.colored(Role::Pause, Modifier::empty()),
            ThreadState::Native => self.colored(Role::Cheap, Modifier::empty()),
            ThreadState::Waiting => Style::new(),
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

    /// The same with the next palette.
    pub(crate) fn next(self) -> Self {
        Self { palette: (self.palette + 1) % PALETTES.len(), ..self }
    }

    /// Replaces what the terminal cannot show, after everything is drawn.
    pub(crate) fn finish(self, buffer: &mut Buffer) {
        if self.unicode {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                let plain = cell.symbol().chars().next().map_or(' ', format::ascii);
                cell.set_char(plain);
            }
        }
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
    fn every_theme_tells_the_states_and_the_lines_apart() {
        for (place, known) in PALETTES.iter().enumerate() {
            let theme = Theme { color: true, palette: place, ..Theme::default() };
            assert_eq!(palette(known.name), Some(place));
            assert_ne!(theme.status(Status::Busy), theme.status(Status::Idle));
            assert_ne!(theme.status(Status::Busy), theme.status(Status::Cheap));
            if known.colors.is_some() {
                assert!(theme.series(0) != theme.series(1) && theme.series(1) != theme.series(2));
            }
        }
        assert_eq!(palette("neon"), None);
    }

    #[test]
    fn a_colour_of_one_s_own_stays_with_every_theme() {
        let mut theme = Theme { color: true, ..Theme::default() };
        theme.own.set(Role::Busy, Color::White);
        for _ in PALETTES {
            assert_eq!(theme.status(Status::Busy).fg, Some(Color::White));
            theme = theme.next();
        }
        assert_eq!(theme.palette, 0);
    }

    #[test]
    fn without_colour_the_states_are_still_told_apart() {
        let plain = theme(&[("NO_COLOR", "1")]);
        assert_ne!(plain.status(Status::Busy), plain.status(Status::Idle));
        assert_eq!(plain.alarm().fg, None);
    }
}
