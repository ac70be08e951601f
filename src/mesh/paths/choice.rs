//! When the tunnel changes to another way.

use super::candidate::Candidate;
use super::{Act, Kind, Paths};
use std::time::Duration;

/// Answers in a row by which another way must be better.
const WINS: u32 = 3;
/// A way that works is left at most once in this time.
const SETTLE: Duration = Duration::from_secs(5);
/// How long another way that was better once is compared closely.
const TRIAL: Duration = Duration::from_secs(2);
/// Without a way: how old an answer may be for its way to be taken at once.
const RECENT: Duration = Duration::from_secs(15);

impl Paths {
    /// The tunnel goes this way from here on.
    pub(super) fn adopt(&mut self, now: Duration, number: u32) {
        self.stop_mtu();
        self.current = Some(number);
        (self.since, self.beat) = (now, now);
        let (up, used) = (self.up, self.used);
        if let Some(current) = self.current_mut() {
            current.wins = 0;
            if up && current.is_measured() {
                current.mtu.used(used.unwrap_or_default());
                current.mtu.start(now);
            }
        }
    }

    pub(super) fn stop_mtu(&mut self) {
        if let Some(current) = self.current_mut() {
            current.mtu.stop();
        }
    }

    fn choose(&mut self, now: Duration, number: u32) {
        self.adopt(now, number);
        self.doubted = None;
        self.candidates.iter_mut().for_each(|candidate| candidate.wins = 0);
        self.acts.extend(self.way().map(Act::Choose));
    }

    /// A probe over candidate `number` was answered.
    pub(super) fn weigh(&mut self, now: Duration, number: u32) {
        if self.current == Some(number) {
            self.doubted = None;
            return;
        }
        if self.current().is_none_or(|current| current.pulse.silent.is_some()) {
            return self.leave(now);
        }
        let beats = |candidate: &Candidate| self.current().is_some_and(|current| candidate.beats(current));
        let Some(better) = self.candidates.iter().find(|candidate| candidate.number == number).map(beats) else {
            return;
        };
        let settled = self.moved.is_none_or(|moved| now.saturating_sub(moved) >= SETTLE);
        let Some(candidate) = self.numbered_mut(number) else { return };
        if !better {
            candidate.wins = 0;
            return;
        }
        candidate.wins += 1;
        candidate.trial = now + TRIAL;
        if candidate.wins >= WINS && settled && candidate.is_steady(now) {
            self.moved = Some(now);
            self.choose(now, number);
        }
    }

    /// Leaves a way that is silent, or gone, for the best one there is.
    pub(super) fn leave(&mut self, now: Duration) {
        if self.current().is_some_and(|current| current.pulse.silent.is_none()) {
            return;
        }
        let gone = self.current.is_none();
        let since = match self.doubted {
            Some(doubted) if !gone => doubted,
            _ => now.saturating_sub(RECENT),
        };
        let others = || self.candidates.iter().filter(|candidate| Some(candidate.number) != self.current);
        let answering = others().filter(|candidate| candidate.pulse.answered_since(since));
        // What the members' links say of a relay, and a connection that exists, are as good as an answer.
        let untried = others().filter(|candidate| candidate.kind != Kind::Direct && candidate.pulse.silent.is_none());
        let best = answering.min_by(|a, b| a.preference(b)).or_else(|| untried.min_by(|a, b| a.preference(b)));
        if let Some(number) = best.map(|candidate| candidate.number) {
            if let Some(current) = self.current_mut() {
                current.fall(now);
            }
            self.choose(now, number);
        }
    }
}
