//! Numbers as people read them: sizes, durations, rates, times of day. One spelling for the screen and for reports.
//! Nothing here knows about columns or colours.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use rwsgi_assertions::numbers::{decimal, scaled};
pub(crate) use rwsgi_assertions::numbers::{micros, seconds, size};

/// Events per second: whole numbers as uwsgitop has them, but one decimal below ten, where it says something.
pub(crate) fn rate(rate: f64) -> String {
    if rate == 0.0 || rate >= 9.95 { decimal(scaled(rate, 0), 0, "") } else { tenths(rate) }
}

/// A number with one decimal.
pub(crate) fn tenths(value: f64) -> String {
    decimal(scaled(value, 1), 1, "")
}

/// A fraction (0 to 1) as a percentage without its sign.
pub(crate) fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if percent >= 99.95 { decimal(scaled(percent, 0), 0, "") } else { tenths(percent) }
}

/// A total that keeps every digit up to seven of them: `1234567`, `12.3M`, `4.57G`.
pub(crate) fn count(count: u64) -> String {
    match count {
        0..10_000_000 => decimal(count, 0, ""),
        10_000_000..1_000_000_000 => decimal(scaled(count as f64 / 1e6, 1), 1, "M"),
        _ => decimal(scaled(count as f64 / 1e9, 2), 2, "G"),
    }
}

/// Local time of day of a unix time in seconds; its date when it is more than a day before `now`; dashes for 0.
pub(crate) fn time_of_day(unix_seconds: u64, now: u64, zone: &TimeZone) -> String {
    if unix_seconds == 0 {
        return "--:--:--".to_owned();
    }
    let Some(timestamp) = timestamp(unix_seconds).filter(|_| now.saturating_sub(unix_seconds) < 86_400) else {
        return local(unix_seconds, "%d %b", zone);
    };
    let into_day = (timestamp.as_second() + i64::from(zone.to_offset(timestamp).seconds())).rem_euclid(86_400) as u64;
    // Every worker of a large pool has one.
    let two = |part: u64| [b'0' + (part / 10) as u8, b'0' + (part % 10) as u8].map(char::from);
    let [[h, i], [m, n], [s, t]] = [into_day / 3_600, into_day / 60 % 60, into_day % 60].map(two);
    String::from_iter([h, i, ':', m, n, ':', s, t])
}

/// Local date and time of a unix time in seconds, in `strftime`'s notation.
pub(crate) fn local(unix_seconds: u64, pattern: &str, zone: &TimeZone) -> String {
    match timestamp(unix_seconds) {
        Some(timestamp) => timestamp.to_zoned(zone.clone()).strftime(pattern).to_string(),
        None => "?".to_owned(),
    }
}

/// Only a server that sends nonsense names a year after 9999, which has none.
fn timestamp(unix_seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(unix_seconds).ok()?).ok()
}

/// The most characters of a server's text that are shown or written: more than any screen has room for.
const LONGEST: usize = 1_000;
/// The most characters without a width of their own that are kept after one that has; a flag of a region has six.
const JOINED: usize = 8;

/// Text from a server made safe for one line of a terminal or a file: control characters become spaces, characters that
/// hide, or turn what stands beside them, become U+FFFD, heaps of accents and long texts are cut.
pub(crate) fn one_line(text: &str) -> String {
    if is_plain_line(text) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len().min(LONGEST));
    let mut joined = 0;
    for (place, character) in text.chars().enumerate() {
        if place == LONGEST {
            line.push('…');
            break;
        }
        joined = if character.width() == Some(0) { joined + 1 } else { 0 };
        if joined <= JOINED {
            line.push(shown_as(character));
        }
    }
    line
}

/// Whether [`one_line`] leaves a text as it is, as far as that is seen at a glance.
pub(crate) fn is_plain_line(text: &str) -> bool {
    text.len() <= LONGEST && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// What is shown of a character.
pub(crate) fn shown_as(character: char) -> char {
    match character {
        _ if character.is_control() => ' ',
        // Ends of lines and paragraphs.
        '\u{2028}' | '\u{2029}' => ' ',
        // Marks of direction, invisible spaces and operators, interlinear notes, tags. What joins emoji and letters stays.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => {
            '\u{fffd}'
        }
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => '\u{fffd}',
        _ => character,
    }
}

/// Columns that a text takes on a terminal. Nearly all are ASCII, and a table has thousands of them in each frame.
pub(crate) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// A text and as many blanks as it is narrower than `width` columns, before it where it stands to the right.
pub(crate) fn padded(text: &str, width: usize, right: bool) -> String {
    let blanks = " ".repeat(width.saturating_sub(self::width(text)));
    if right { blanks + text } else { text.to_owned() + &blanks }
}

/// The beginning of a text that is wider than `width` columns, with a mark that something is cut.
pub(crate) fn start_of(text: &str, width: usize) -> Cow<'_, str> {
    if self::width(text) <= width || width == 0 {
        return Cow::Borrowed(text);
    }
    let mut start: String = fitting(text.chars(), width - 1).collect();
    start.push('…');
    Cow::Owned(start)
}

/// The end of a text that is wider than `width` columns, with a mark that something is cut.
pub(crate) fn end_of(text: &str, width: usize) -> Cow<'_, str> {
    if self::width(text) <= width || width == 0 {
        return Cow::Borrowed(text);
    }
    let kept = fitting(text.chars().rev(), width - 1).map(char::len_utf8).sum::<usize>();
    Cow::Owned(format!("…{}", &text[text.len() - kept..]))
}

/// As many of the characters as have room in `width` columns.
fn fitting(characters: impl Iterator<Item = char>, width: usize) -> impl Iterator<Item = char> {
    let mut left = width;
    characters.map_while(move |character| {
        left = left.checked_sub(character.width().unwrap_or(0))?;
        Some(character)
    })
}

/// A text in lines of at most `width` columns, broken between words; a word that is longer stands alone.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let used = self::width(line);
        if used == 0 {
            line.push_str(word);
        } else if used + 1 + self::width(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
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
        '│' | '┃' | '▏' => '|',
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
    use proptest::prelude::*;

    #[test]
    fn sizes_read_as_uwsgitop_s() {
        for (bytes, expected) in [(0, "0"), (1023, "1023"), (1536, "1.5K"), (11_255_808, "10.7M"), (3 << 30, "3.0G")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn a_line_has_no_character_that_a_terminal_obeys_or_hides() {
        for (sent, shown) in [
            ("plain", "plain"),
            ("caf\u{e9} 日本 ⚡ e\u{301}", "caf\u{e9} 日本 ⚡ e\u{301}"),
            ("\u{1b}[2J\u{9b}1m\r\n\0", " [2J 1m   "),
            ("/\u{202e}fdp.exe\u{200b}", "/\u{fffd}fdp.exe\u{fffd}"),
            ("a\u{2028}b", "a b"),
            ("👨\u{200d}👩\u{200d}👧 ❤\u{fe0f}", "👨\u{200d}👩\u{200d}👧 ❤\u{fe0f}"),
        ] {
            assert_eq!(one_line(sent), shown);
        }
        assert_eq!(one_line(&"x".repeat(5_000)), "x".repeat(LONGEST) + "…");
        assert_eq!(one_line(&format!("a{}b", "\u{301}".repeat(500))), format!("a{}b", "\u{301}".repeat(JOINED)));
    }

    #[test]
    fn of_a_long_path_the_end_stays() {
        for (width, expected) in
            [(20, "/srv/app.py:7 in f"), (18, "/srv/app.py:7 in f"), (17, "…rv/app.py:7 in f"), (2, "…f")]
        {
            assert_eq!(end_of("/srv/app.py:7 in f", width), expected, "{width}");
        }
        assert_eq!([7, 6, 5, 4].map(|width| end_of("日本語x", width)), ["日本語x", "…本語x", "…語x", "…語x"]);
    }

    #[test]
    fn durations_keep_three_digits_and_change_units_without_a_gap() {
        for (value, expected) in [
            (0, "0µs"),
            (999, "999µs"),
            (1_000, "1.00ms"),
            (9_994, "9.99ms"),
            (9_996, "10.0ms"),
            (99_960, "100ms"),
            (999_400, "999ms"),
            (999_600, "1.00s"),
            (59_999_999, "60.0s"),
            (60_000_000, "1m00s"),
            (7_380_000_000, "2h03m"),
        ] {
            assert_eq!(micros(value), expected, "{value}");
        }
        assert_eq!(seconds(3 * 86_400 + 4 * 3_600), "3d04h");
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_format_writes_them(number in any::<u64>(), bits in 0..64u32, decimals in 0..4usize) {
            let number = number >> bits;
            prop_assert_eq!(decimal(number, 0, ""), number.to_string());
            // Floats of so many digits are exact to the last of them.
            let value = (number >> 20) as f64 / 8.0;
            prop_assert_eq!(decimal(scaled(value, decimals as i32), decimals, "ms"), format!("{value:.decimals$}ms"));
        }

        #[test]
        fn a_time_of_day_is_the_zone_s(second in 1_600_000_000..1_900_000_000u64, east in -12..14i8) {
            let zone = jiff::tz::offset(east).to_time_zone();
            prop_assert_eq!(time_of_day(second, second, &zone), local(second, "%H:%M:%S", &zone));
        }
    }

    #[test]
    fn small_rates_keep_a_decimal() {
        assert_eq!([0.0, 0.04, 0.5, 9.94, 9.96, 1234.5].map(rate), ["0", "0.0", "0.5", "9.9", "10", "1234"]);
    }

    #[test]
    fn a_worker_that_never_ran_has_no_time() {
        assert_eq!(time_of_day(0, 100, &TimeZone::UTC), "--:--:--");
        assert_eq!(time_of_day(3_661, 3_662, &TimeZone::UTC), "01:01:01");
        assert_eq!(time_of_day(3_661, 200_000, &TimeZone::UTC), "01 Jan");
        assert_eq!(time_of_day(u64::MAX, 0, &TimeZone::UTC), "?");
    }
}
