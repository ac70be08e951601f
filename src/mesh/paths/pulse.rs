//! Whether a way answers, how fast, and how reliably: small probes and what became of them.
//!
//! A way is *silent* when it is next to impossible that it works and all the same answered none of the latest probes.
//! With a share `p` of probes lost, `n` in a row are lost with probability `p^n`; so a way that loses much gets more
//! probes before it is given up, and more at once, so that the verdict takes no longer:
//!
//! | lost | probes | at once |
//! |---|---|---|
//! | up to 4 % | 3 | 1 |
//! | 25 % | 7 | 2 |
//! | 50 % | 14 | 4 |
//! | 60 % and more | 19 | 5 |
//!
//! Only an answer proves that a way works there and back. What is merely heard over it says that it works back.

use std::collections::VecDeque;
use std::time::Duration;

/// A working way may be taken for silent once in so many times that it is doubted.
const DOUBTS_PER_MISTAKE: f32 = 10_000.0;
/// The share of lost probes that is assumed at least …
const LEAST_LOSS: f32 = 0.04;
/// … and at most: a way that loses more is no better than none.
const MOST_LOSS: f32 = 0.6;
const LEAST_PROBES: u32 = 3;
/// In how many rounds of probes the verdict is reached at the latest.
const ROUNDS: u32 = 4;
/// An answer is waited for at least this long before its probe counts as lost …
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
/// … and at most this long, whatever round trip a peer pretends to.
const MOST_PATIENCE: Duration = Duration::from_millis(1500);
/// How long an answer that comes too late still tells the round trip.
const REMEMBERED: Duration = Duration::from_secs(3);
/// Probes that are remembered: those of a verdict, twice.
const MAX_SENT: usize = 40;
/// Outcomes that the share of lost probes is taken from.
const OUTCOMES: u32 = 64;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Unanswered probes, the oldest first.
    sent: VecDeque<(u32, Duration)>,
    sequence: u32,
    /// Probes forgotten without an answer since the last answer.
    missed: u32,
    /// Smoothed round trip and its mean deviation (RFC 6298 §2).
    round_trip: Option<(Duration, Duration)>,
    /// Bit 0 is the latest probe whose fate is known; set when it was answered.
    outcomes: u64,
    known: u32,
    /// When a probe was last sent, one answered, and anything else heard.
    pub(super) asked: Option<Duration>,
    pub(super) answered: Option<Duration>,
    pub(super) heard: Option<Duration>,
    /// Since when it answers, and since when it is silent.
    pub(super) live: Option<Duration>,
    pub(super) silent: Option<Duration>,
}

impl Pulse {
    /// A probe is sent: its sequence number.
    pub(super) fn ask(&mut self, now: Duration) -> u32 {
        if self.sent.len() == MAX_SENT {
            self.forget_oldest();
        }
        self.sequence = self.sequence.wrapping_add(1) & 0x7fff_ffff;
        self.sent.push_back((self.sequence, now));
        self.asked = Some(now);
        self.sequence
    }

    /// A probe was answered; returns whether one was out with this number.
    pub(super) fn answer(&mut self, now: Duration, sequence: u32) -> bool {
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == sequence) else { return false };
        let Some((_, sent)) = self.sent.remove(at) else { return false };
        self.measured(now, now.saturating_sub(sent));
        self.note(true);
        true
    }

    /// A probe of another kind was answered over this way.
    pub(super) fn measured(&mut self, now: Duration, sample: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((smooth, deviation)) => ((smooth * 7 + sample) / 8, (deviation * 3 + smooth.abs_diff(sample)) / 4),
        });
        if !self.is_live() {
            self.live = Some(now);
            // What an outage swallowed says nothing of how much is lost otherwise.
            self.known = 0;
        }
        self.answered = Some(now);
        self.missed = 0;
        self.silent = None;
    }

    /// Counts what was not answered in time.
    pub(super) fn expire(&mut self, now: Duration) {
        while self.sent.front().is_some_and(|(_, at)| now.saturating_sub(*at) >= REMEMBERED) {
            self.forget_oldest();
        }
        if self.missing(now) >= self.needed() {
            self.silent.get_or_insert(now);
        }
    }

    /// Forgets what was measured while it was another path; whether it is a good one is to be seen.
    pub(super) fn restart(&mut self) {
        *self = Self { sequence: self.sequence, ..Self::default() };
    }

    fn forget_oldest(&mut self) {
        if self.sent.pop_front().is_some() {
            self.missed = self.missed.saturating_add(1);
            self.note(false);
        }
    }

    fn note(&mut self, answered: bool) {
        self.outcomes = self.outcomes << 1 | u64::from(answered);
        self.known = (self.known + 1).min(OUTCOMES);
    }

    /// Probes sent since the last answer that should have been answered.
    pub(super) fn missing(&self, now: Duration) -> u32 {
        let patience = self.patience();
        let since = self.answered.unwrap_or_default();
        let overdue = self.sent.iter().filter(|(_, at)| *at >= since && now.saturating_sub(*at) >= patience);
        self.missed.saturating_add(overdue.count() as u32)
    }

    /// How long an answer is waited for.
    fn patience(&self) -> Duration {
        let (smooth, deviation) = self.round_trip.unwrap_or_default();
        (smooth + deviation * 4).clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }

    /// Lost probes in a row that make it silent.
    pub(super) fn needed(&self) -> u32 {
        let answered = (self.outcomes & mask(self.known)).count_ones();
        // As if two more had been answered: a way about which little is known is taken to be an ordinary one.
        let lost = (self.known - answered) as f32 / (self.known + 2) as f32;
        let lost = lost.clamp(LEAST_LOSS, MOST_LOSS);
        ((DOUBTS_PER_MISTAKE.ln() / -lost.ln()).ceil() as u32).max(LEAST_PROBES)
    }

    /// How many probes go out at once while it is doubted.
    pub(super) fn at_once(&self) -> u32 {
        self.needed().div_ceil(ROUNDS)
    }

    /// The smoothed round-trip time.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(smooth, _)| smooth)
    }

    /// How much it varies.
    pub(super) fn deviation(&self) -> Duration {
        self.round_trip.map_or(Duration::ZERO, |(_, deviation)| deviation)
    }

    /// The share of the latest probes that were not answered, once there were so many.
    pub(super) fn loss(&self, of: u32) -> Option<f32> {
        let answered = (self.outcomes & mask(self.known)).count_ones();
        (self.known >= of).then(|| 1.0 - answered as f32 / self.known as f32)
    }

    /// Whether it answered and did not fall silent since.
    pub(super) fn is_live(&self) -> bool {
        self.answered.is_some() && self.silent.is_none()
    }

    /// Whether it answered a probe at `since` or after.
    pub(super) fn answered_since(&self, since: Duration) -> bool {
        self.is_live() && self.answered.is_some_and(|at| at >= since)
    }
}

fn mask(bits: u32) -> u64 {
    u64::MAX.checked_shr(OUTCOMES - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_good_way_is_silent_after_three_lost_probes_and_live_again_after_one_answer() {
        let mut pulse = Pulse::default();
        let mut now = MS * 1000;
        for _ in 0..40 {
            let sequence = pulse.ask(now);
            assert!(pulse.answer(now + MS * 20, sequence) && !pulse.answer(now + MS * 20, sequence));
            now += MS * 250;
        }
        assert_eq!((pulse.round_trip(), pulse.loss(1), pulse.needed()), (Some(MS * 20), Some(0.0), 3));
        for n in 0..3 {
            pulse.expire(now);
            assert!(pulse.is_live(), "{n}");
            pulse.ask(now);
            now += MS * 250;
        }
        let late = pulse.ask(now);
        pulse.expire(now);
        assert!(!pulse.is_live() && pulse.silent == Some(now));
        assert!(pulse.answer(now + MS * 900, late));
        assert!(pulse.is_live());
    }

    #[test]
    fn a_lossy_way_gets_more_patience_but_no_more_rounds() {
        let mut pulse = Pulse::default();
        let mut now = MS * 1000;
        for n in 0..64 {
            let sequence = pulse.ask(now);
            if n % 2 == 0 {
                pulse.answer(now + MS * 20, sequence);
            }
            now += MS * 3000;
            pulse.expire(now);
        }
        assert!((0.45..=0.55).contains(&pulse.loss(1).unwrap_or_default()), "{:?}", pulse.loss(1));
        assert!((13..=14).contains(&pulse.needed()) && pulse.at_once() == 4, "{}", pulse.needed());
    }

    #[test]
    fn the_shares_of_lost_probes_are_those_of_the_latest() {
        assert_eq!((mask(0), mask(1), mask(64)), (0, 1, u64::MAX));
        let mut pulse = Pulse::default();
        (0..100).for_each(|_| pulse.note(false));
        (0..64).for_each(|_| pulse.note(true));
        assert_eq!(pulse.loss(1), Some(0.0));
    }
}
