//! What keys and clicks change of a fleet's screen.

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};

use super::drill::Drill;
use super::{FleetScreen, Over, ids};
use crate::model::SERVER_FIELDS;
use crate::source::fleet::Figure;
use crate::view::actions::Outcome;
use crate::view::keys::{Action, Key};
use crate::view::targets::Target;

/// The keys that a fleet's screen knows: what the binding is called, a word for the foot (empty for none), and what it does here.
pub(crate) const FLEET_KEYS: [(Action, &str, &str); 19] = [
    (Action::Quit, "quit", "leave, or close what is open; of a server, back to the fleet; ctrl-c always leaves"),
    (Action::Back, "", "close what is open, clear the filter; of a server, back to the fleet"),
    (Action::Detail, "open", "the ordinary screen of the selected server, where its stats can be read"),
    (Action::Help, "help", "this help"),
    (Action::Filter, "filter", "show only servers that contain a text or match an expression, such as dead"),
    (Action::SortNext, "sort", "sort by the next column; a click on a title does as well"),
    (Action::SortBefore, "", "sort by the column before"),
    (Action::Reverse, "", "turn the order round"),
    (
        Action::Chart(3),
        "heat map",
        "heat map, a line for each server: by p99, by saturation, by errors, by rate, and back",
    ),
    (Action::Why, "why", "what stands out, by which rule, with its numbers"),
    (Action::Fast, "fast", "ten samples a second, or as --frequency says"),
    (Action::Theme, "", "other colours: the next theme"),
    (Action::Up, "", "select the server above"),
    (Action::Down, "", "select the server below"),
    (Action::PageUp, "", "a page up"),
    (Action::PageDown, "", "a page down"),
    (Action::First, "", "the first server"),
    (Action::Last, "", "the last server"),
    (Action::Redraw, "", "draw the screen again"),
];

/// What the heat map is of, in the order in which its key goes through them.
const HEATS: [Figure; 4] = [Figure::P99, Figure::Saturation, Figure::Errors, Figure::Rps];

impl FleetScreen {
    /// A key: to the server that is looked at, into the filter while that is typed, else what it is bound to.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Outcome {
        if Key::from(key) == Key::INTERRUPT {
            return Outcome::Quit;
        }
        if let Some(drilled) = &mut self.drilled {
            let action = self.setup.keys.action_of(key);
            if action == Some(Action::Back) && drilled.screen.is_at_rest() {
                self.close_drilled();
                return Outcome::Draw;
            }
            let outcome = drilled.screen.press(key);
            return self.outcome_of_drilled(outcome);
        }
        self.said = None;
        if !self.sheet.filter.editing {
            return self.setup.keys.action_of(key).map_or(Outcome::Draw, |action| self.act(action));
        }
        if self.sheet.filter.press(key) { Outcome::Draw } else { Outcome::Nothing }
    }

    /// A click or a turn of the wheel.
    pub(crate) fn mouse(&mut self, event: MouseEvent) -> Outcome {
        if let Some(drilled) = &mut self.drilled {
            let outcome = drilled.screen.mouse(event);
            return self.outcome_of_drilled(outcome);
        }
        match event.kind {
            MouseEventKind::ScrollUp => self.act(Action::Up),
            MouseEventKind::ScrollDown => self.act(Action::Down),
            MouseEventKind::Down(MouseButton::Left) => {
                let Some(Target::Pane(place)) = self.targets.at(event.column, event.row) else {
                    return Outcome::Nothing;
                };
                let ids = ids(&self.ordered());
                self.sheet.click(place, &ids);
                Outcome::Draw
            }
            _ => Outcome::Nothing,
        }
    }

    /// What the screen of one server asks for: leaving it is going back.
    fn outcome_of_drilled(&mut self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Quit => {
                self.close_drilled();
                Outcome::Draw
            }
            Outcome::Pace(pace) => {
                self.tell(Drill::Pace(pace));
                Outcome::Draw
            }
            outcome => outcome,
        }
    }

    /// Does what a key asks for.
    pub(crate) fn act(&mut self, action: Action) -> Outcome {
        if let Some(over) = self.over {
            self.over = over_after(over, action);
            return match action {
                Action::Suspend => Outcome::Suspend,
                Action::Redraw => Outcome::Redraw,
                _ => Outcome::Draw,
            };
        }
        match action {
            Action::Quit => return Outcome::Quit,
            Action::Suspend => return Outcome::Suspend,
            Action::Redraw => return Outcome::Redraw,
            Action::Fast => {
                self.playback.fast = !self.playback.fast;
                return Outcome::Pace(self.playback.pace());
            }
            Action::Theme => self.setup.theme = self.setup.theme.next(),
            Action::Help => self.over = Some(Over::Help(0)),
            Action::Why => self.over = Some(Over::Outliers(0)),
            Action::Chart(3) => self.heat = next_heat(self.heat),
            Action::Detail => {
                let rows = self.ordered();
                let selected = self.sheet.selected.clone();
                let row = rows.iter().find(|row| selected.as_ref().is_none_or(|id| *id == row.id.to_string()));
                if let Some(row) = row {
                    self.sheet.selected = Some(row.id.to_string());
                    self.drill(row);
                }
            }
            Action::Back if self.sheet.filter.is_empty() && self.sheet.selected.is_some() => self.sheet.selected = None,
            Action::Back if self.sheet.filter.is_empty() => self.heat = None,
            action => {
                let ids = ids(&self.ordered());
                if !self.sheet.act(action, SERVER_FIELDS, &ids) {
                    return Outcome::Nothing;
                }
            }
        }
        Outcome::Draw
    }
}

fn next_heat(heat: Option<Figure>) -> Option<Figure> {
    let place = heat.and_then(|heat| HEATS.iter().position(|known| *known == heat));
    HEATS.get(place.map_or(0, |place| place + 1)).copied()
}

/// What lies over the table after a key.
fn over_after(over: Over, action: Action) -> Option<Over> {
    let step = match action {
        Action::Up => -1,
        Action::Down => 1,
        Action::PageUp => -10,
        Action::PageDown => 10,
        Action::First => isize::MIN,
        Action::Last => 1_000_000,
        _ => 0,
    };
    match (over, action) {
        (_, Action::Quit | Action::Back) | (Over::Help(_), Action::Help) | (Over::Outliers(_), Action::Why) => None,
        (Over::Help(first), _) => Some(Over::Help(first.saturating_add_signed(step))),
        (Over::Outliers(first), _) => Some(Over::Outliers(first.saturating_add_signed(step))),
    }
}
