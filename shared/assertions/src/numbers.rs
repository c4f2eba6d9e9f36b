//! Numbers as people read them: sizes and durations.

/// A number of so many decimals, given without its point, and a unit. A table has hundreds of these in every frame, and
/// `format!` takes several times as long.
pub fn decimal(scaled: u64, decimals: usize, unit: &str) -> String {
    // A u64 has no more than 20 digits; and there is a point.
    let mut digits = [0; 21];
    let (mut rest, mut start) = (scaled, digits.len());
    let mut put = |digit: u8| {
        start -= 1;
        digits[start] = digit;
    };
    for _ in 0..decimals {
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
    }
    if decimals > 0 {
        put(b'.');
    }
    loop {
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut text = String::with_capacity(digits.len() - start + unit.len());
    text.push_str(str::from_utf8(&digits[start..]).unwrap_or_default());
    text.push_str(unit);
    text
}

/// A value that is not negative as [`decimal`] wants it; rounded as `format!` does.
pub fn scaled(value: f64, decimals: i32) -> u64 {
    (value * 10f64.powi(decimals)).round_ties_even() as u64
}

/// Bytes with a binary unit and one decimal, as uwsgitop writes them: `512`, `1.5K`, `11.0M`, `1.2G`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, letter)) => decimal(bytes / unit * 10 + (bytes % unit * 10 + unit / 2) / unit, 1, letter),
        None => decimal(bytes, 0, ""),
    }
}

/// A duration given in µs, with about three significant digits: `53µs`, `1.25ms`, `12.5ms`, `3.20s`, `4m05s`, `2h03m`.
pub fn micros(micros: u64) -> String {
    let short = |value: f64, unit: &str| {
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        decimal(scaled(value, decimals as i32), decimals, unit)
    };
    match micros {
        0..1_000 => decimal(micros, 0, "µs"),
        1_000..999_500 => short(micros as f64 / 1e3, "ms"),
        999_500..60_000_000 => short(micros as f64 / 1e6, "s"),
        _ => seconds(micros / 1_000_000),
    }
}

/// A duration given in seconds, its two largest units: `42s`, `4m05s`, `2h03m`, `3d04h`.
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
