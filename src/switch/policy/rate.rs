//! How much a port may send and get: a token bucket of bits for each direction.
//!
//! The bucket is kept as the one moment at which it will be full again (the virtual scheduling of ITU-T I.371): a frame
//! passes while that is less than a burst away, and moves it by the time that its bits take. So there is one number, changed
//! by one atomic operation, whichever worker comes; the time is an argument, read once for many frames.
//!
//! A frame passes whole when there is anything left, and what it takes beyond is owed: a super-frame of 64 KiB needs no burst of its
//! size, and the rate is right all the same. What does not pass is dropped, not queued: TCP finds its rate by that.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// One direction's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bits a second, at least 1.
    pub rate: u64,
    /// Bits that may come at once.
    pub burst: u64,
}

/// A port's limits, and what of them is used.
#[derive(Debug)]
pub struct Rates {
    /// What the container may send.
    out: Option<Bucket>,
    /// What it may get.
    into: Option<Bucket>,
    origin: Instant,
}

#[derive(Debug)]
struct Bucket {
    limit: Limit,
    /// How long a burst takes.
    depth: u64,
    /// When it is full again, in nanoseconds.
    full_at: AtomicU64,
}

impl Rates {
    /// Full buckets.
    pub fn new(out: Option<Limit>, into: Option<Limit>, now: Instant) -> Self {
        let bucket = |limit: Limit| Bucket {
            limit,
            depth: time_of(limit.burst, limit.rate).max(1),
            full_at: AtomicU64::new(0),
        };
        Self { out: out.map(bucket), into: into.map(bucket), origin: now }
    }

    /// Its limits: what may be sent, and what got.
    pub fn limits(&self) -> [Option<Limit>; 2] {
        [&self.out, &self.into].map(|bucket| bucket.as_ref().map(|bucket| bucket.limit))
    }

    /// Whether the container may send so many bytes now.
    pub fn may_send(&self, now: Instant, bytes: usize) -> bool {
        self.out.as_ref().is_none_or(|bucket| bucket.take(self.nanos(now), bytes))
    }

    /// Whether it may get so many bytes now.
    pub fn may_get(&self, now: Instant, bytes: usize) -> bool {
        self.into.as_ref().is_none_or(|bucket| bucket.take(self.nanos(now), bytes))
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Bucket {
    fn take(&self, now: u64, bytes: usize) -> bool {
        let cost = time_of((bytes as u64).saturating_mul(8), self.limit.rate);
        let later = |full_at: u64| {
            let from = full_at.max(now);
            (from - now < self.depth).then(|| from.saturating_add(cost))
        };
        self.full_at.fetch_update(Relaxed, Relaxed, later).is_ok()
    }
}

/// How long so many bits take, in nanoseconds.
fn time_of(bits: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bits) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Bytes that pass in a second of frames of one size, sent as fast as can be.
    fn passed(rate: u64, burst: u64, frame: usize, seconds: u64) -> u64 {
        let start = Instant::now();
        let rates = Rates::new(Some(Limit { rate, burst }), None, start);
        let steps = 10_000 * seconds;
        let sent = |step: u64| rates.may_send(start + Duration::from_micros(100 * step), frame);
        (0..steps).flat_map(|step| (0..4).map(move |_| step)).filter(|&step| sent(step)).count() as u64 * frame as u64
    }

    #[test]
    fn the_rate_is_kept_whatever_the_size_of_frames() {
        for frame in [64, 1514, 65_549] {
            let bytes = passed(8_000_000, 80_000, frame, 10);
            let expected = 10_000_000 + 10_000;
            assert!(bytes.abs_diff(expected) <= frame as u64 + 1000, "{frame}: {bytes} of {expected}");
        }
    }

    #[test]
    fn a_burst_passes_after_silence_and_not_more() {
        let start = Instant::now();
        let rates = Rates::new(None, Some(Limit { rate: 1_000_000, burst: 80_000 }), start);
        let burst = |at| (0..100).filter(|_| rates.may_get(start + Duration::from_secs(at), 1000)).count();
        assert_eq!([burst(0), burst(0), burst(5), burst(5)], [10, 0, 10, 0]);
        assert!(rates.may_send(start, 1 << 20), "the other direction is free");
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let start = Instant::now();
        for rate in [1, u64::MAX] {
            let rates = Rates::new(Some(Limit { rate, burst: u64::MAX }), Some(Limit { rate, burst: 0 }), start);
            let now = start + Duration::from_secs(1 << 31);
            assert!(rates.may_send(now, usize::MAX) && rates.may_get(now, usize::MAX));
        }
    }
}
