//! How much of what others cause is logged: enough to see what happens, never so much that somebody fills a disk with it.
//!
//! A member that flaps, a stranger that comes again and again, or one who means harm makes the same events for ever.
//! Counters and `weft status` have them all; the log has the first of them, and then one now and then.

use std::time::{Duration, Instant};

/// Lines that may come at once: a mesh that starts, a host that moves.
const BURST: u32 = 20;
/// What one more line takes.
const PACE: Duration = Duration::from_secs(30);

/// An allowance of lines about one thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chatter {
    left: u32,
    since: Instant,
}

impl Chatter {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Whether one more line may be logged, which is one less then.
    pub(super) fn may_speak(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.saturating_duration_since(self.since) >= PACE {
            self.left += 1;
            self.since += PACE;
        }
        if self.left == BURST {
            self.since = now;
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_for_ever_is_logged_now_and_then() {
        let start = Instant::now();
        let mut chatter = Chatter::new(start);
        let seconds = |n| start + Duration::from_secs(n);
        let lines = |chatter: &mut Chatter, from: u64, to: u64| {
            (from..to).filter(|&second| chatter.may_speak(seconds(second))).count()
        };
        assert_eq!(lines(&mut chatter, 0, 20), 20);
        assert_eq!(lines(&mut chatter, 20, 3620), 120);
        // After some peace as much as at first.
        assert_eq!(lines(&mut chatter, 100_000, 100_020), 20);
    }
}
