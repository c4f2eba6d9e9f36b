//! Attempts to connect that sockets with `TCP_DEFER_ACCEPT` turned away.
//!
//! The kernel counts among such a socket's drops what each client says before its first byte: one for nearly every connection.
//! What sockets turned away because their queues were full it also counts for all of the network namespace together, and there
//! nothing else. So the smaller of both is what these sockets can have turned away since the last look: exact where nobody else
//! in the namespace turns clients away at the same time, and nothing where nobody does.
//!
//! The kernel writes a text of several hundred numbers for that one. It is read at most once a second.

use std::path::Path;
use std::time::Duration;

use crate::clock::MonotonicNanos;

/// Looks are at least this far apart.
const PAUSE: Duration = Duration::from_secs(1);

/// What was seen at the last look, and the sum of what was turned away. The sum never falls.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// `None` before the first look.
    looked_at: Option<MonotonicNanos>,
    sockets: u64,
    namespace: u64,
    turned_away: u64,
}

impl Drops {
    /// From now on.
    pub(super) fn new() -> Self {
        Self { namespace: listen_drops().unwrap_or(0), ..Self::default() }
    }

    /// What was turned away until `now`, or until up to a second before it. `sockets` is the sum of what the kernel counts for
    /// each of them; `None` without such a socket.
    pub(super) fn turned_away(&mut self, sockets: Option<u64>, now: MonotonicNanos) -> u64 {
        // Also when the sum is the same: what others turned away meanwhile must not be taken for ours at the next look.
        if let Some(sockets) = sockets
            && self.is_due(now)
            && let Some(namespace) = listen_drops()
        {
            self.add(sockets, namespace);
        }
        self.turned_away
    }

    /// Whether to look again at `now`, which is noted as the last look then.
    fn is_due(&mut self, now: MonotonicNanos) -> bool {
        let is_due = self.looked_at.is_none_or(|before| now.since(before) >= PAUSE);
        if is_due {
            self.looked_at = Some(now);
        }
        is_due
    }

    fn add(&mut self, sockets: u64, namespace: u64) {
        // The counts of sockets have 32 bits, and begin again.
        let both = sockets.saturating_sub(self.sockets).min(namespace.saturating_sub(self.namespace));
        *self = Self { sockets, namespace, turned_away: self.turned_away + both, ..*self };
    }
}

/// What sockets of this network namespace turned away because their queues were full.
fn listen_drops() -> Option<u64> {
    parse(&std::fs::read_to_string(Path::new("/proc/self/net/netstat")).ok()?)
}

/// Names and numbers are in lines of their own.
fn parse(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|name| name == "ListenDrops")?;
    numbers.split_ascii_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespaces_count_is_found() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 33\nIpExt: ListenDrops\nIpExt: 9\n";
        assert_eq!(parse(text), Some(33));
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
        assert!(listen_drops().is_some());
    }

    #[test]
    fn a_second_look_comes_a_second_later() {
        let (mut drops, first) = (Drops::default(), MonotonicNanos::from_nanos(5_000_000_000));
        assert!(drops.is_due(first));
        assert!(!drops.is_due(first) && !drops.is_due(first + Duration::from_millis(999)));
        assert!(drops.is_due(first + PAUSE) && !drops.is_due(first + PAUSE * 3 / 2));
    }

    #[test]
    fn clients_that_were_kept_until_their_first_byte_are_none_that_were_turned_away() {
        let mut drops = Drops { namespace: 7, ..Drops::default() };
        drops.add(1_000, 7);
        assert_eq!(drops.turned_away, 0);
        drops.add(1_500, 10);
        assert_eq!(drops.turned_away, 3);
        // Another's.
        drops.add(1_501, 50);
        assert_eq!(drops.turned_away, 4);
        // Another's, while these sockets counted nothing.
        drops.add(1_501, 55);
        drops.add(1_600, 55);
        assert_eq!(drops.turned_away, 4);
        // A socket's count began again.
        drops.add(3, 60);
        drops.add(5, 61);
        assert_eq!(drops.turned_away, 5);
    }
}
