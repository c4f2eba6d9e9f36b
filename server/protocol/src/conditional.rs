//! Conditional requests for a file, and requests for a part of one (RFC 9110 sections 13 and 14).
//!
//! A malformed header counts as the sections say: a malformed date is ignored, a malformed list of entity tags matches no
//! tag.

use std::time::UNIX_EPOCH;

use super::date::HttpDate;
use super::range::{self, Wanted};

/// The size and times of a file, which its validators are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes.
    pub size: u64,
    /// When it changed last, whole seconds since the epoch; may be negative.
    pub modified: i64,
    /// The nanoseconds of that time.
    pub nanos: u32,
}

/// The headers of a GET or HEAD that decide what it gets; `None` for a missing one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// `If-Match`
    pub if_match: Option<&'a [u8]>,
    /// `If-Unmodified-Since`
    pub if_unmodified_since: Option<&'a [u8]>,
    /// `If-None-Match`
    pub if_none_match: Option<&'a [u8]>,
    /// `If-Modified-Since`
    pub if_modified_since: Option<&'a [u8]>,
    /// `Range`, of a GET
    pub range: Option<&'a [u8]>,
    /// `If-Range`
    pub if_range: Option<&'a [u8]>,
}

/// What the request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// 200
    Whole,
    /// 206: `len` bytes from `first`, all within the file.
    Part {
        /// Counted from 0.
        first: u64,
        /// Bytes, at least one.
        len: u64,
    },
    /// 304
    NotModified,
    /// 412
    PreconditionFailed,
    /// 416
    Unsatisfiable,
}

impl Stored {
    /// The entity tag: strong, because the time is kept to the nanosecond.
    #[must_use]
    pub fn entity_tag(&self) -> String {
        format!("\"{:x}.{:x}-{:x}\"", self.modified, self.nanos, self.size)
    }

    /// `Last-Modified`, whole seconds since the epoch: never later than `now` (section 8.8.2.1).
    #[must_use]
    pub fn last_modified(&self, now: u64) -> u64 {
        u64::try_from(self.modified).unwrap_or(0).min(now)
    }

    /// Which part of the file a request gets at `now` (seconds since the epoch), in the order of section 13.2.2. `tag` is
    /// [`Self::entity_tag`].
    #[must_use]
    pub fn select(&self, tag: &str, conditions: &Conditions<'_>, now: u64) -> Selected {
        let tag = tag.as_bytes();
        let since = |date: Option<&[u8]>| date.and_then(seconds_of);
        if let Some(list) = conditions.if_match {
            if !lists(list, tag, Comparison::Strong) {
                return Selected::PreconditionFailed;
            }
        } else if since(conditions.if_unmodified_since).is_some_and(|since| self.modified > since) {
            return Selected::PreconditionFailed;
        }
        // With `If-None-Match` the date does not count, whatever the tags are (section 13.1.3).
        if let Some(list) = conditions.if_none_match {
            if lists(list, tag, Comparison::Weak) {
                return Selected::NotModified;
            }
        } else if since(conditions.if_modified_since).is_some_and(|since| self.modified <= since) {
            return Selected::NotModified;
        }
        match conditions.range {
            Some(range) if conditions.if_range.is_none_or(|validator| self.is_still(validator, tag, now)) => {
                match range::read(range, self.size) {
                    Wanted::Whole => Selected::Whole,
                    Wanted::Part { first, len } => Selected::Part { first, len },
                    Wanted::Unsatisfiable => Selected::Unsatisfiable,
                }
            }
            _ => Selected::Whole,
        }
    }

    /// Whether the client's part is of this file (`If-Range`, section 13.1.5). A date of whole seconds can prove that only
    /// when its second is over: until then the file may change again in the same second.
    fn is_still(&self, validator: &[u8], tag: &[u8], now: u64) -> bool {
        if validator.contains(&b'"') {
            return validator == tag;
        }
        let modified = self.last_modified(now);
        modified < now && validator == HttpDate::from_unix(modified).as_bytes()
    }
}

/// An HTTP date of any of the three forms, seconds since the epoch.
fn seconds_of(date: &[u8]) -> Option<i64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(date).ok()?).ok()?;
    i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// How to compare entity tags (section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags has `tag`, which is strong; `*` matches any. The list counts up to its first malformed
/// element.
fn lists(list: &[u8], tag: &[u8], comparison: Comparison) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        rest = rest.trim_ascii_start();
        // A list may have empty elements (section 5.6.1.2).
        if let Some(next) = rest.strip_prefix(b",") {
            rest = next;
            continue;
        }
        let (is_weak, opaque) = match rest.strip_prefix(b"W/") {
            Some(opaque) => (true, opaque),
            None => (false, rest),
        };
        let Some(end) = opaque.strip_prefix(b"\"").and_then(|text| text.iter().position(|&byte| byte == b'"')) else {
            return false;
        };
        let (found, next) = opaque.split_at(end + 2);
        if found == tag && !(is_weak && comparison == Comparison::Strong) {
            return true;
        }
        rest = next.trim_ascii_start();
        if !rest.starts_with(b",") {
            return false;
        }
    }
}

#[cfg(test)]
mod tests;
