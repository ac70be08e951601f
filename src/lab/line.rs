//! One way over a link: what becomes of a packet that is put on it, by chance and by the link's settings.
//!
//! Copies keep their order unless `reorder` says otherwise. A rate is a queue with a clock: each packet begins when
//! the one before has been sent, and what would wait longer than [`MAX_WAIT`] is lost, as in a router's queue.

use super::link::{LinkCounts, LinkSettings, Random};
use std::time::{Duration, Instant};

/// How long a packet chosen for reordering is held back at most: enough for dozens of packets to overtake it.
const MAX_HOLD: Duration = Duration::from_millis(4);
/// How long a packet waits for its turn at most: the queue of an ordinary access router.
const MAX_WAIT: Duration = Duration::from_millis(200);

/// The state of one way.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When the last packet that keeps the order arrives.
    last_arrival: Option<Instant>,
    /// When the last packet has been sent, at the line's rate.
    free_at: Option<Instant>,
}

impl Line {
    /// When the copies of a packet of `size` bytes arrive: two at most, none when it is lost.
    pub(super) fn pass(
        &mut self,
        now: Instant,
        size: usize,
        settings: &LinkSettings,
        random: &mut Random,
        counts: &mut LinkCounts,
    ) -> impl Iterator<Item = Instant> + use<> {
        if random.happens(settings.loss) {
            counts.lost += 1;
            return [None, None].into_iter().flatten();
        }
        let doubled = random.happens(settings.duplicate);
        counts.duplicated += u64::from(doubled);
        let first = self.arrival(now, size, settings, random, counts);
        let second = if doubled { self.arrival(now, size, settings, random, counts) } else { None };
        [first, second].into_iter().flatten()
    }

    fn arrival(
        &mut self,
        now: Instant,
        size: usize,
        settings: &LinkSettings,
        random: &mut Random,
        counts: &mut LinkCounts,
    ) -> Option<Instant> {
        let mut sent = now;
        if let Some(rate) = settings.rate {
            let begins = self.free_at.map_or(now, |free| free.max(now));
            if begins - now > MAX_WAIT {
                counts.overflowed += 1;
                return None;
            }
            sent = begins + Duration::from_secs_f64(size as f64 * 8.0 / rate.max(1) as f64);
            self.free_at = Some(sent);
        }
        let mut arrival = sent + settings.delay + random.up_to(settings.jitter);
        if random.happens(settings.reorder) {
            counts.reordered += 1;
            arrival += random.up_to(MAX_HOLD);
        } else {
            arrival = self.last_arrival.map_or(arrival, |last| last.max(arrival));
            self.last_arrival = Some(arrival);
        }
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spaces_packets_and_a_full_queue_loses_them() {
        let (mut line, mut random, mut counts) = (Line::default(), Random(1), LinkCounts::default());
        // A packet of 1,000 bytes takes a millisecond.
        let settings = LinkSettings { rate: Some(8_000_000), ..Default::default() };
        let start = Instant::now();
        let arrivals: Vec<Duration> = (0..1000)
            .flat_map(|_| line.pass(start, 1000, &settings, &mut random, &mut counts).collect::<Vec<_>>())
            .map(|arrival| arrival - start)
            .collect();
        assert!((200..=202).contains(&arrivals.len()), "{}", arrivals.len());
        assert_eq!(counts.overflowed, 1000 - arrivals.len() as u64);
        assert!(arrivals.windows(2).all(|pair| (pair[1] - pair[0]).as_micros().abs_diff(1000) <= 1));
        // Once the queue is empty nothing is remembered of it.
        let later = start + Duration::from_secs(1);
        let next: Vec<Instant> = line.pass(later, 1000, &settings, &mut random, &mut counts).collect();
        assert_eq!((next[0] - later).as_millis(), 1);
    }
}
