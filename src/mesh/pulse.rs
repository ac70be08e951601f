//! One session with a neighbour: whether it lives, and how good it is. Heartbeats do both.
//!
//! Neighbours send each other a heartbeat every [`BEAT_EVERY`]. It carries the sender's time and echoes the other's, with how long it
//! was kept; so each has a round-trip time without a message of its own, and the sequence numbers tell what was lost. Where a heartbeat
//! is overdue, urgent ones are sent, which are answered at once: fifteen in the time until [`SILENCE`], so that a link that
//! loses a third of all messages is not taken for a dead one (once in 10,000 overdue heartbeats, which are themselves rare).
//!
//! A session is *chosen* by the one that wants it as a link of the graph; one that neither end chose, made for frames, is silent here.

use super::facts::Link;
use super::gossip::Heartbeat;
use crate::wire::key::PublicKey;
use std::time::Duration;

/// How often neighbours hear of each other; each time a tenth more or less, so that they don't fall into step.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);
/// When a heartbeat is overdue.
const OVERDUE: Duration = Duration::from_millis(2300);
/// How often it is asked for then.
const URGENT_EVERY: Duration = Duration::from_millis(180);
/// After so much silence a link is down.
pub const SILENCE: Duration = Duration::from_secs(5);
/// How often a neighbour is asked for that was silent for longer: every second at first, and then ever more seldom, since
/// it may be no weft.
const FORLORN_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Urgent heartbeats are answered, but no more often than this.
const ANSWER_EVERY: Duration = Duration::from_millis(50);
/// A neighbour that chose us and then fell silent is no longer asked for after this.
const FAITHFUL: Duration = Duration::from_secs(10);
/// What a step of the round trip counts from.
const STEP_ZERO_MICROS: f64 = 100.0;
/// Sequence numbers that the loss is reckoned over.
const WINDOW: u32 = 64;

/// See the head of this file.
#[derive(Debug)]
pub struct Pulse {
    began: Duration,
    /// Added to the time in stamps, so that an echo of a stamp of an earlier session is told from one of this.
    offset: u64,
    has_spoken: bool,
    heard: Option<Duration>,
    due: Duration,
    answered: Duration,
    sequence: u32,
    /// The last stamp heard, and when.
    stamp: Option<(u64, Duration)>,
    /// When the latest of our heartbeats that the other end has heard was sent.
    echoed: Option<Duration>,
    round_trip: Option<Duration>,
    /// Their highest sequence number, and which of those before it came.
    newest: u32,
    came: u64,
    counted: u32,
    is_chosen: bool,
    is_chosen_there: bool,
    /// The round trip and the loss that were told last.
    told: Option<(u8, u8)>,
}

impl Pulse {
    /// A session that begins; the first heartbeat is due. `chance` is random.
    pub fn new(now: Duration, chance: u64) -> Self {
        Self {
            began: now,
            offset: chance >> 16,
            has_spoken: false,
            heard: None,
            due: now,
            answered: Duration::ZERO,
            sequence: chance as u32,
            stamp: None,
            echoed: None,
            round_trip: None,
            newest: 0,
            came: 0,
            counted: 0,
            is_chosen: false,
            is_chosen_there: false,
            told: None,
        }
    }

    /// Whether we want this to be a link.
    pub fn is_chosen(&self) -> bool {
        self.is_chosen
    }

    /// When the session began.
    pub fn began(&self) -> Duration {
        self.began
    }

    /// The smoothed round trip, once measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Says whether we want this to be a link; the other end hears of a change at once.
    pub fn choose(&mut self, now: Duration, is_chosen: bool) {
        if self.is_chosen != is_chosen {
            self.is_chosen = is_chosen;
            (self.due, self.has_spoken) = (now, false);
        }
    }

    /// Whether one of the ends wants it to be a link.
    pub fn is_wanted(&self, now: Duration) -> bool {
        let is_faithful = self.heard.is_some_and(|heard| now < heard + FAITHFUL);
        self.is_chosen || self.is_chosen_there && is_faithful
    }

    /// Whether it is a link that lives.
    pub fn is_up(&self, now: Duration) -> bool {
        self.heard.is_some_and(|heard| now < heard + SILENCE) && self.is_wanted(now)
    }

    /// Something came from there.
    pub fn heard(&mut self, now: Duration) {
        self.heard = Some(now);
        if self.due == Duration::MAX {
            self.due = now + BEAT_EVERY / 2;
        }
    }

    /// A heartbeat came. Returns whether it is the first to say that one of ours arrived; those after it repeat that until another has.
    pub fn beat(&mut self, now: Duration, beat: &Heartbeat) -> bool {
        self.heard(now);
        self.is_chosen_there = beat.is_chosen;
        self.stamp = Some((beat.stamp, now));
        self.count(beat.sequence);
        let mut is_answer = false;
        if beat.echo != 0 {
            let sent = Duration::from_micros(beat.echo.wrapping_sub(self.offset));
            let trip = now.saturating_sub(sent).saturating_sub(Duration::from_micros(beat.held.into()));
            if sent <= now && trip < SILENCE {
                is_answer = self.echoed.is_none_or(|before| before < sent);
                self.echoed = self.echoed.max(Some(sent));
                self.round_trip = Some(self.round_trip.map_or(trip, |smooth| (smooth * 7 + trip) / 8));
            }
        }
        if beat.is_urgent {
            self.due = self.due.min(now.max(self.answered + ANSWER_EVERY));
        }
        is_answer
    }

    /// When the next heartbeat is due; never where neither end wants the link and both have been told.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        (self.is_wanted(now) || !self.has_spoken).then(|| self.due.min(self.urgent_due()))
    }

    /// When to ask for a heartbeat that is overdue, again and again.
    fn urgent_due(&self) -> Duration {
        let silent = self.answered.saturating_sub(self.heard.unwrap_or(self.began));
        let pause =
            if silent < SILENCE { URGENT_EVERY } else { (silent / 4).clamp(FORLORN_EVERY[0], FORLORN_EVERY[1]) };
        let overdue = self.heard.map_or(self.began, |heard| heard + OVERDUE);
        overdue.max(self.answered + pause)
    }

    /// When it will be down unless something comes.
    pub fn ends(&self) -> Option<Duration> {
        self.heard.map(|heard| heard + SILENCE)
    }

    /// The next heartbeat, if it is due. `chance` is random.
    pub fn poll(&mut self, now: Duration, chance: u64) -> Option<Heartbeat> {
        if now < self.next_deadline(now)? {
            return None;
        }
        let is_urgent = self.heard.is_none_or(|heard| now >= heard + OVERDUE);
        // Up to a tenth more or less.
        let regular = BEAT_EVERY * (900 + (chance % 200) as u32) / 1000;
        self.due = if is_urgent || !self.is_wanted(now) { Duration::MAX } else { now + regular };
        (self.answered, self.has_spoken) = (now, true);
        self.sequence = self.sequence.wrapping_add(1);
        let (echo, held) = self.stamp.map_or((0, 0), |(stamp, at)| (stamp, micros(now.saturating_sub(at))));
        Some(Heartbeat {
            is_chosen: self.is_chosen,
            is_urgent: is_urgent && self.is_chosen,
            sequence: self.sequence,
            stamp: micros(now).wrapping_add(self.offset),
            echo,
            held: u32::try_from(held).unwrap_or(u32::MAX),
            ..Heartbeat::default()
        })
    }

    /// What to tell of this link. A step once told is left only when the measured value is clearly elsewhere.
    pub fn tell(&mut self, neighbour: PublicKey) -> Link {
        let micros = self.round_trip.map_or(STEP_ZERO_MICROS, |trip| trip.as_secs_f64() * 1e6);
        let trip = (2.0 * (micros / STEP_ZERO_MICROS).max(1.0).log2()).min(60.0);
        let loss =
            f64::from(self.counted.saturating_sub(self.came.count_ones())) / f64::from(self.counted.max(16)) * 20.0;
        let step = |told: Option<u8>, value: f64, play: f64| match told {
            Some(told) if (f64::from(told) - value).abs() <= play => told,
            _ => value.round() as u8,
        };
        let round_trip = step(self.told.map(|told| told.0), trip, 1.5);
        let loss = step(self.told.map(|told| told.1), loss, 2.5);
        self.told = Some((round_trip, loss));
        Link { neighbour, round_trip, loss }
    }

    /// Moves the window of sequence numbers.
    fn count(&mut self, sequence: u32) {
        let ahead = sequence.wrapping_sub(self.newest);
        if self.counted == 0 || ahead < 1 << 31 && ahead > WINDOW {
            (self.newest, self.came, self.counted) = (sequence, 1, 1);
        } else if ahead < 1 << 31 {
            self.came = self.came.checked_shl(ahead).unwrap_or(0) | 1;
            self.counted = (self.counted + ahead).min(WINDOW);
            self.newest = sequence;
        } else if let Some(bit) = 1u64.checked_shl(self.newest.wrapping_sub(sequence)) {
            self.came |= bit;
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Two ends, `delay` apart, that lose every heartbeat for which `is_lost` says so; runs for `time`.
    fn play(delay: Duration, time: Duration, mut is_lost: impl FnMut(Duration) -> bool) -> ([Pulse; 2], usize) {
        let mut ends = [Pulse::new(Duration::ZERO, 1 << 60), Pulse::new(Duration::ZERO, 7)];
        ends[0].choose(Duration::ZERO, true);
        let (mut under_way, mut sent) = (Vec::new(), 0);
        let mut now = Duration::ZERO;
        while now < time {
            for (from, end) in ends.iter_mut().enumerate() {
                if let Some(beat) = end.poll(now, 77) {
                    sent += 1;
                    if !is_lost(now) {
                        under_way.push((now + delay, 1 - from, beat));
                    }
                }
            }
            under_way.retain(|(at, to, beat): &(Duration, usize, Heartbeat)| {
                if *at <= now {
                    ends[*to].beat(now, beat);
                }
                *at > now
            });
            now += MS;
        }
        (ends, sent)
    }

    #[test]
    fn a_quiet_link_is_up_measured_and_cheap() {
        let (mut ends, sent) = play(20 * MS, Duration::from_secs(60), |_| false);
        assert!(ends.iter().all(|end| end.is_up(Duration::from_secs(60))));
        assert!((58..70).contains(&sent), "{sent} heartbeats in a minute");
        for end in &mut ends {
            let trip = end.round_trip().unwrap();
            assert!((40 * MS..43 * MS).contains(&trip), "{trip:?}");
            let link = end.tell(PublicKey([1; 32]));
            assert_eq!((link.round_trip, link.loss), (17, 0));
        }
    }

    #[test]
    fn a_link_that_loses_a_third_stays_up_and_a_dead_one_is_down_in_five_seconds() {
        let mut chance = crate::mesh::ring::Chance(5);
        let mut n = 0;
        let (mut ends, _) = play(5 * MS, Duration::from_secs(600), |_| {
            n += 1;
            chance.below(100) < 30
        });
        assert!(ends.iter().all(|end| end.is_up(Duration::from_secs(600))) && n > 600);
        assert!(ends.iter_mut().any(|end| end.tell(PublicKey([1; 32])).loss >= 3));
        let (ends, _) = play(5 * MS, Duration::from_secs(16), |now| now >= Duration::from_secs(10));
        assert!(ends.iter().all(|end| !end.is_up(Duration::from_secs(15))));
    }

    #[test]
    fn what_arrives_is_told_once() {
        let second = Duration::from_secs(1);
        let (mut us, mut them) = (Pulse::new(Duration::ZERO, 1 << 60), Pulse::new(Duration::ZERO, 7));
        us.choose(Duration::ZERO, true);
        them.choose(Duration::ZERO, true);
        let mut arrives = |at: u32, is_lost: bool| {
            let now = at * 3 * second;
            let ours = us.poll(now, 0).unwrap();
            if !is_lost {
                them.beat(now, &ours);
            }
            us.beat(now + 20 * MS, &them.poll(now + 10 * MS, 0).unwrap())
        };
        assert_eq!(
            [(1, false), (2, false), (3, true), (4, true), (5, false)].map(|(at, is_lost)| arrives(at, is_lost)),
            [true, true, false, false, true]
        );
    }

    #[test]
    fn nobody_speaks_on_a_session_that_nobody_chose() {
        let now = Duration::ZERO;
        let mut end = Pulse::new(now, 0);
        assert!(end.poll(now, 0).is_some_and(|beat| !beat.is_chosen && !beat.is_urgent), "it says so once");
        assert_eq!(end.poll(now + SILENCE, 0), None);
        assert_eq!(end.next_deadline(now + SILENCE), None);
    }
}
