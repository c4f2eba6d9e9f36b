//! The generation that serves beside the one before it.

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use rwsgi_assertions::Difference;
use rwsgi_stats::{Generation, Snapshot};

use super::overlay::boxed;
use super::theme::Theme;
use crate::format;
use crate::model::Generations;

/// Draws the comparison, from line `first` on; `snapshot` is the server's last, of the present.
pub(crate) fn draw(
    snapshot: Option<&Snapshot>,
    first: usize,
    theme: &Theme,
    zone: &TimeZone,
    area: Rect,
    buf: &mut Buffer,
) -> usize {
    let told = snapshot.and_then(|snapshot| Some((snapshot, Generations::of(snapshot)?)));
    let lines = match &told {
        Some((snapshot, told)) => lines(snapshot, told, theme, zone),
        None => vec![Line::raw(" no generations: of rwsgi alone, and of one server: open its tab ")],
    };
    boxed("generations: did it get worse?", &lines, first, 94, theme, area, buf)
}

fn lines<'a>(snapshot: &Snapshot, told: &Generations<'a>, theme: &Theme, zone: &TimeZone) -> Vec<Line<'a>> {
    let mut lines = vec![head(told.new, theme, zone)];
    match told.old {
        Some(old) => lines.push(head(old, theme, zone)),
        None => lines.push(Line::raw(" It is the first: there is nothing to compare it with.")),
    }
    if let Some(canary) = &snapshot.canary {
        let until = match canary.until {
            0 => "starts".to_owned(),
            until => format!("is undone at {} unless it is kept", time(until, zone)),
        };
        let s = if canary.workers == 1 { "" } else { "s" };
        let text = format!(" generation {} is tried on {} worker{s}, and {until}", canary.generation, canary.workers);
        lines.push(Line::styled(text, theme.warning()));
    }
    lines.push(Line::default());
    let column =
        |generation: Option<&Generation>| generation.map_or_else(String::new, |it| format!("gen {}", it.generation));
    let titles = format!(" {:<28} {:>12} {:>12}  ", "", column(Some(told.new)), column(told.old));
    lines.push(Line::styled(titles, theme.title()));
    for row in &told.rows {
        let name = format::start_of(&row.name, 28);
        let says = row.difference.map_or("", Difference::words);
        lines.push(Line::from(vec![
            Span::raw(format!(" {} {:>12} {:>12}  ", format::padded(&name, 28, false), row.new, row.old)),
            Span::styled(says, style_of(row.difference, theme)),
        ]));
    }
    lines.push(Line::default());
    lines.push(Line::styled(
        " Each since it was loaded. 95 of 100 differences that are noise are called so.",
        theme.dim(),
    ));
    lines
}

fn head<'a>(generation: &Generation, theme: &Theme, zone: &TimeZone) -> Line<'a> {
    Line::from(vec![
        Span::styled(format!(" generation {} ", generation.generation), theme.strong()),
        Span::raw(format!("({}), loaded {}", generation.state, time(generation.started_at, zone))),
    ])
}

fn time(micros: u64, zone: &TimeZone) -> String {
    format::local(micros / 1_000_000, "%d %b %H:%M:%S", zone)
}

fn style_of(difference: Option<Difference>, theme: &Theme) -> Style {
    match difference {
        Some(Difference::Worse) => theme.alarm(),
        Some(Difference::Better) => theme.strong(),
        Some(Difference::WithinNoise | Difference::TooFew) | None => theme.dim(),
    }
}
