//! A flame graph as a picture that stands alone: a little script of its own, nothing from outside, and readable without the
//! script. The root is at the top, as on the terminal.

use std::fmt::Write as _;

use rwsgi_stats::control::Profile;

use super::About;
use super::table::samples;
use crate::format;
use crate::model::flame::Tree;
use crate::model::hot::{hottest, states};

const STYLE: &str = include_str!("flame.css");
const SCRIPT: &str = include_str!("flame.js");

const WIDTH: f64 = 1_200.0;
const ROW: usize = 18;
/// Lines above the graph, px.
const TOP: usize = 96;
/// px of a character of a label.
const CHARACTER: f64 = 6.8;
/// What is narrower cannot be seen, px.
const NARROWEST: f64 = 0.4;

/// A text of XML. It is a plain line already; what XML has no place for was never a character.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

pub(super) fn svg(profile: &Profile, about: About<'_>) -> String {
    let tree = Tree::of(profile, about.by);
    let mut boxes = String::new();
    let mut deepest = 0;
    // The callers first, each with where it begins.
    let mut open = vec![(0, 0u64)];
    while let Some((place, from)) = open.pop() {
        let samples = tree.samples(place);
        if tree.share(place) * WIDTH < NARROWEST {
            continue;
        }
        draw(&tree, place, from, &mut boxes);
        deepest = deepest.max(tree.node(place).depth);
        let mut at = from;
        for child in &tree.node(place).children {
            open.push((*child, at));
            at = at.saturating_add(tree.samples(*child));
        }
        debug_assert!(at <= from.saturating_add(samples));
    }
    let height = TOP + (deepest + 1) * ROW + 40;
    let mut text = String::new();
    let title = escaped(&format!("{}: {}", about.label, samples(profile)));
    let _ = write!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} \
         {height}\" width=\"100%\" data-samples=\"{}\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n<text class=\"head\" x=\"4\" y=\"20\">{title}</text>\n",
        tree.samples(0),
    );
    if let Some(hottest) = hottest(profile) {
        let _ = writeln!(text, "<text class=\"told\" x=\"4\" y=\"42\">{}</text>", escaped(&hottest.sentence));
    }
    let mut x = 4.0;
    let shares: Vec<_> = states(profile).shares().collect();
    for (name, share) in shares {
        let label = format!("{} {} %", name.does, format::percent(share));
        let _ = writeln!(
            text,
            "<rect class=\"{}\" x=\"{x}\" y=\"54\" width=\"12\" height=\"12\"/><text x=\"{}\" y=\"64\">{label}</text>",
            name.word,
            x + 16.0,
        );
        x += 28.0 + label.len() as f64 * CHARACTER;
    }
    let _ = writeln!(
        text,
        "<text id=\"how\" x=\"4\" y=\"86\">the numbers of a box stand in its title</text>\n<g id=\"graph\">\n{boxes}</g>\n\
         <text id=\"about\" x=\"4\" y=\"{}\"> </text>\n<script><![CDATA[\n{SCRIPT}]]></script>\n</svg>",
        height - 12,
    );
    text
}

fn draw(tree: &Tree, place: usize, from: u64, boxes: &mut String) {
    let node = tree.node(place);
    let all = tree.samples(0).max(1) as f64;
    let (x, width) = (from as f64 / all * WIDTH, tree.share(place) * WIDTH);
    let y = TOP + node.depth * ROW;
    let share = |count: u64| format::percent(count as f64 / all);
    let states = node.total.shares().map(|(name, share)| format!("{} % {}", format::percent(share), name.does));
    let where_ = match (node.file.is_empty(), node.line) {
        (true, _) => String::new(),
        (false, 0) => format!("\n{}", node.file),
        (false, line) => format!("\n{}:{line}", node.file),
    };
    let title = format!(
        "{}\n{} % of all, {} samples; {} % in itself{where_}\n{}",
        node.label(),
        share(node.total.sum()),
        node.total.sum(),
        share(node.own),
        states.collect::<Vec<_>>().join(", "),
    );
    // Control characters were taken out of every text, so that these ends of lines are ours.
    let title = title.split('\n').map(escaped).collect::<Vec<_>>().join("\n");
    let room = ((width - 6.0) / CHARACTER) as usize;
    let label = if room >= 3 { format::start_of(&node.label(), room).into_owned() } else { String::new() };
    let class = if node.depth == 0 { "root" } else { node.total.most().word };
    let _ = writeln!(
        boxes,
        "<g class=\"f\" data-x=\"{from}\" data-w=\"{}\" data-d=\"{}\"><title>{title}</title><rect class=\"{class}\" \
         x=\"{x:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{}\"/><text x=\"{:.2}\" y=\"{}\">{}</text></g>",
        node.total.sum(),
        node.depth,
        (width - 0.5).max(0.1),
        ROW - 1,
        x + 3.0,
        y + 13,
        escaped(&label),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_markup() {
        assert_eq!(escaped("<lambda> & \"x\" 'y'\u{ffff}"), "&lt;lambda&gt; &amp; &quot;x&quot; &#39;y&#39;\u{fffd}");
    }
}
