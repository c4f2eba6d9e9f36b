//! Reads values as uWSGI does: a number as C's `atoi` does, so that `harakiri = 60 ; seconds` is 60, and a flag as true
//! unless it is a word for no. When that may not be what was meant, a warning says what was understood.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rwsgi_stats::Address;

use super::Config;

/// Whether it is one of uWSGI's words for no.
#[must_use]
pub fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0")
}

/// Whether it is a plain word for yes.
pub(super) fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "" | "true" | "yes" | "on" | "1")
}

/// A flag: true unless it is one of uWSGI's words for no.
pub(super) fn flag(config: &mut Config, value: &str) -> bool {
    if is_off(value) {
        return false;
    }
    if !is_on(value) {
        understood(config, value, "true: only false, off, no and 0 stand for no");
    }
    true
}

/// A word for yes or no and nothing else: a part of a value that uWSGI does not read as a flag.
pub(super) fn truth(value: &str) -> Result<bool, String> {
    match (is_on(value), is_off(value)) {
        (false, false) => Err("true or false".into()),
        (on, _) => Ok(on),
    }
}

/// A whole number of the range, and nothing else.
pub(super) fn number<N: FromStr + PartialOrd + Display>(value: &str, range: &RangeInclusive<N>) -> Result<N, String> {
    value.trim().parse().ok().filter(|number| range.contains(number)).ok_or_else(|| expected(value, range))
}

/// A whole number as uWSGI reads it: the digits that the value begins with, or 0 without any. A number outside the range
/// becomes the nearest one inside.
pub(super) fn leading_number<N>(config: &mut Config, value: &str, range: &RangeInclusive<N>) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display + Copy,
{
    if let Ok(number) = number(value, range) {
        return Ok(number);
    }
    let text = value.trim_start();
    let digits = &text[..text.bytes().take_while(u8::is_ascii_digit).count()];
    let number = match digits {
        // Nothing says which number was meant, so there is no nearest one; and uWSGI refuses numbers below 0.
        "" if text.starts_with('-') || value.starts_with('$') => return Err(expected(value, range)),
        "" => N::from_str("0").ok().filter(|zero| range.contains(zero)).ok_or_else(|| expected(value, range))?,
        digits => match digits.parse() {
            Ok(number) if range.contains(&number) => number,
            Ok(number) if number < *range.start() => return Ok(nearest(config, value, *range.start())),
            _ => return Ok(nearest(config, value, *range.end())),
        },
    };
    understood(config, value, &number.to_string());
    Ok(number)
}

/// Warns that `value` is outside the range, and says which end is taken.
fn nearest<N: Display>(config: &mut Config, value: &str, end: N) -> N {
    config.warnings.push(format!("'{}' is out of range: {end} is used", shortened(value)));
    end
}

fn expected<N: Display>(value: &str, range: &RangeInclusive<N>) -> String {
    let unset = if value.starts_with('$') { " (no such environment variable is set)" } else { "" };
    format!("a whole number from {} to {}{unset}", range.start(), range.end())
}

/// Megabytes, which may have a fraction, as bytes; `None` for 0. The largest is the size of an address space.
pub(super) fn megabytes(config: &mut Config, value: &str) -> Result<Option<u64>, String> {
    let largest = f64::from(1 << 30);
    let megabytes = match value.trim().parse::<f64>() {
        Ok(megabytes) if (0.0..=largest).contains(&megabytes) => megabytes,
        _ => f64::from(
            leading_number(config, value, &(0..=1_u32 << 30)).map_err(|_| "megabytes, as in 512 or 0.5".to_owned())?,
        ),
    };
    // In range as checked, so the cast only drops the fraction of a byte.
    let bytes = (megabytes * f64::from(1 << 20)) as u64;
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

/// The mode of a socket file. uWSGI takes nothing after the digits here.
pub(super) fn mode(value: &str) -> Result<u32, String> {
    let digits = value.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(value);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if digits.len() == 3 => Ok(mode),
        _ => Err("three octal digits, as in 660".into()),
    }
}

/// A umask, which may be followed by a comment.
pub(super) fn umask(config: &mut Config, value: &str) -> Result<u32, String> {
    mode(value).or_else(|expected| {
        let digits = value.split([' ', '\t', ';', '#']).next().unwrap_or_default();
        let mode = mode(digits).map_err(|_| expected)?;
        understood(config, value, digits);
        Ok(mode)
    })
}

pub(super) fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("a path".into()) } else { Ok(PathBuf::from(value)) }
}

/// An address as uWSGI reads it: a port ends where its digits do, and digits alone are the name of a unix socket.
pub(super) fn address(config: &mut Config, value: &str) -> Result<Address, String> {
    let error = match value.parse() {
        Ok(address) => return Ok(address),
        Err(error) => error,
    };
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let path = format!("a unix socket, the file '{value}'; for a port on every interface write ':{value}'");
        understood(config, value, &path);
        // As a path, and not as digits, wherever it is written and read again.
        return Ok(Address::Unix(Path::new(".").join(value)));
    }
    let digits = value.rfind(':').map(|colon| {
        let port = &value[colon + 1..];
        colon + 1 + port.bytes().take_while(u8::is_ascii_digit).count()
    });
    match digits.map(|end| (&value[..end], &value[end..])) {
        Some((shorter, rest)) if rest.starts_with([' ', '\t', ';', '#']) && !shorter.ends_with(':') => {
            let address = shorter.parse().map_err(|error: rwsgi_stats::AddressError| error.to_string())?;
            understood(config, value, shorter);
            Ok(address)
        }
        _ => Err(error.to_string()),
    }
}

/// Warns of a value that says something else or more than what it is read as.
pub(super) fn understood(config: &mut Config, value: &str, meaning: &str) {
    config.warnings.push(format!("'{}' is read as {meaning}, as uWSGI does", shortened(value)));
}

fn shortened(value: &str) -> String {
    let shown: String = value.chars().take(30).collect();
    if shown.len() < value.len() { shown + "…" } else { shown }
}
