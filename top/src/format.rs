//! Numbers as people read them: sizes, durations, rates, times of day. One spelling for the screen and for reports.
//! Nothing here knows about columns or colours.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes with a binary unit and one decimal, as uwsgitop writes them: `512`, `1.5K`, `11.0M`, `1.2G`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, char); 4] = [(1 << 40, 'T'), (1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, letter)) => {
            // As a float would be rounded, which costs several times as much; a table has hundreds of these.
            let tenths = bytes / unit * 10 + (bytes % unit * 10 + unit / 2) / unit;
            format!("{}.{}{letter}", tenths / 10, tenths % 10)
        }
        None => bytes.to_string(),
    }
}

/// A duration given in µs, with about three significant digits: `53µs`, `1.25ms`, `12.5ms`, `3.20s`, `4m05s`, `2h03m`.
pub(crate) fn micros(micros: u64) -> String {
    let scaled = |value: f64, unit: &str| {
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        format!("{value:.decimals$}{unit}")
    };
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..999_500 => scaled(micros as f64 / 1e3, "ms"),
        999_500..60_000_000 => scaled(micros as f64 / 1e6, "s"),
        _ => seconds(micros / 1_000_000),
    }
}

/// A duration given in seconds, its two largest units: `42s`, `4m05s`, `2h03m`, `3d04h`.
pub(crate) fn seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Events per second: whole numbers as uwsgitop has them, but one decimal below ten, where it says something.
pub(crate) fn rate(rate: f64) -> String {
    if rate == 0.0 || rate >= 9.95 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// A fraction (0 to 1) as a percentage without its sign.
pub(crate) fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if percent >= 99.95 { format!("{percent:.0}") } else { format!("{percent:.1}") }
}

/// A total that keeps every digit up to seven of them: `1234567`, `12.3M`, `4.57G`.
pub(crate) fn count(count: u64) -> String {
    match count {
        0..10_000_000 => count.to_string(),
        10_000_000..1_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.2}G", count as f64 / 1e9),
    }
}

/// Local time of day of a unix time in seconds; its date when it is more than a day before `now`; dashes for 0.
pub(crate) fn time_of_day(unix_seconds: u64, now: u64, zone: &TimeZone) -> String {
    if unix_seconds == 0 {
        return "--:--:--".to_owned();
    }
    let pattern = if now.saturating_sub(unix_seconds) < 86_400 { "%H:%M:%S" } else { "%d %b" };
    local(unix_seconds, pattern, zone)
}

/// Local date and time of a unix time in seconds, in `strftime`'s notation.
pub(crate) fn local(unix_seconds: u64, pattern: &str, zone: &TimeZone) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    match Timestamp::from_second(seconds) {
        Ok(timestamp) => timestamp.to_zoned(zone.clone()).strftime(pattern).to_string(),
        // Only a server that sends nonsense names a year after 9999.
        Err(_) => "?".to_owned(),
    }
}

/// Text from a server made safe for one line of a terminal or a file: control characters become spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The end of a text that is longer than `width` characters, with a mark that something is cut.
pub(crate) fn end_of(text: &str, width: usize) -> String {
    let cut = (text.chars().count() + 1).saturating_sub(width);
    if cut <= 1 || width == 0 {
        text.to_owned()
    } else {
        text.chars().skip(cut).fold("…".to_owned(), |end, c| end + c.encode_utf8(&mut [0; 4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_uwsgitop_s() {
        for (bytes, expected) in [(0, "0"), (1023, "1023"), (1536, "1.5K"), (11_255_808, "10.7M"), (3 << 30, "3.0G")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn of_a_long_path_the_end_stays() {
        for (width, expected) in
            [(20, "/srv/app.py:7 in f"), (18, "/srv/app.py:7 in f"), (17, "…rv/app.py:7 in f"), (2, "…f")]
        {
            assert_eq!(end_of("/srv/app.py:7 in f", width), expected, "{width}");
        }
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
