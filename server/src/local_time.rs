//! The local time as C's `strftime` writes it: in the formats that uWSGI's options take.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;

use nix::libc;
use rwsgi_config::Config;

use crate::procfs;

/// As C's `ctime`, without the end of line.
pub(crate) const CTIME: &CStr = c"%a %b %e %H:%M:%S %Y";
/// As Apache writes the time in its log.
pub(crate) const APACHE: &CStr = c"%d/%b/%Y:%H:%M:%S %z";
/// As syslog's packets have it (RFC 3164).
pub(crate) const SYSLOG: &CStr = c"%b %e %H:%M:%S";

/// The variable that names the time zone.
pub(crate) const ZONE: &str = "TZ";

/// The longest text, bytes; a longer one is left out.
const LONGEST: usize = 256;

unsafe extern "C" {
    safe fn tzset();
}

/// From now on local times are those of the zone that `config` sets, if it does. The environment stays as it is, but with
/// musl. Nothing when other threads run: they may read it.
pub(crate) fn follow(config: &Config) {
    let given = config.env.iter().rev().find(|(name, _)| name == ZONE).map(|(_, value)| value);
    let is_removed = config.unenv.iter().any(|name| name == ZONE);
    let is_alone = procfs::further_threads().is_ok_and(|threads| threads.is_empty());
    if !is_alone || given.is_none() && !is_removed {
        return;
    }
    let before = std::env::var_os(ZONE);
    let set = |value: Option<&std::ffi::OsStr>| match value {
        // SAFETY: this process has no other thread, and starts none meanwhile.
        Some(value) => unsafe { std::env::set_var(ZONE, value) },
        // SAFETY: the same.
        None => unsafe { std::env::remove_var(ZONE) },
    };
    set(given.map(AsRef::as_ref));
    tzset();
    // musl reads the variable again for each time: there it stays.
    if !cfg!(target_env = "musl") {
        set(before.as_deref());
    }
}

// The libc crate calls `time_t` deprecated on musl, where it will change its size: code that names the type follows.
#[allow(deprecated)]
type Seconds = libc::time_t;

/// Adds the local time of `second` (unix) to `to`; nothing when it does not fit.
pub(crate) fn write(to: &mut Vec<u8>, format: &CStr, second: u64) {
    let Some(parts) = of(second) else { return };
    let mut text = [0_u8; LONGEST];
    // SAFETY: `text` has the length that is given; the format ends with a NUL.
    let length = unsafe { libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &raw const parts) };
    to.extend_from_slice(&text[..length.min(text.len())]);
}

/// The local time of `second` (unix); `None` beyond what the calendar has.
pub(crate) fn of(second: u64) -> Option<libc::tm> {
    let second = Seconds::try_from(second).ok()?;
    let mut parts = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid for the call.
    let filled = unsafe { libc::localtime_r(&raw const second, parts.as_mut_ptr()) };
    // SAFETY: the call fills `parts` unless it returns null.
    (!filled.is_null()).then(|| unsafe { parts.assume_init() })
}

/// A time that is written once a second at most.
#[derive(Debug, Default)]
pub(crate) struct SecondText {
    second: Option<u64>,
    text: Vec<u8>,
}

impl SecondText {
    /// The text for `second`, which `make` writes when the second is another than the last.
    pub(crate) fn of(&mut self, second: u64, make: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            make(&mut self.text);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_form_of_ctime() {
        let mut text = Vec::new();
        write(&mut text, CTIME, 951_827_696);
        let text = String::from_utf8(text).unwrap();
        // In whatever zone the test runs.
        assert_eq!(text.len(), 24);
        assert!(text.contains("Feb 29 ") && text.ends_with(":56 2000") || text.contains("Mar  1 "), "{text}");
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let mut text = Vec::new();
        let format = std::ffi::CString::new("%A".repeat(200)).unwrap();
        write(&mut text, &format, 0);
        assert_eq!(text, b"");
    }

    #[test]
    fn a_second_is_written_once() {
        let mut time = SecondText::default();
        assert_eq!(time.of(1, |text| text.push(b'a')), b"a");
        assert_eq!(time.of(1, |_| panic!("again")), b"a");
        assert_eq!(time.of(2, |text| text.push(b'b')), b"b");
    }
}
