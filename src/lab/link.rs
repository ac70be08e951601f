//! What an impaired link does to frames: loss, duplication, reordering, delay, a silent size limit, cut cables.
//!
//! [`Impairment`] is a value, and a [`Medium`]. Frames and `now` go in, deliveries and the next deadline come out;
//! chance comes from a seed, so a run can be repeated. It behaves like a switch with one host per socket: a frame for
//! a known station goes there, all others go everywhere but back, and each copy meets its own fate. The thread around
//! it, which has the clock and the TAPs, is [`super::wire`].
//!
//! Without `reorder` every way from one host to another keeps its order, also under jitter: jitter that overtakes
//! would make the two settings one.

use super::line::Line;
use super::wire::Medium;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that may be under way at once, all ways together: a second of 1 Gbit/s. What comes beyond is lost, as it
/// would be in a router's queue.
const MAX_QUEUED_BYTES: usize = 128 << 20;
/// Length of an Ethernet header, which a path MTU does not count.
const ETHERNET: usize = 14;

/// What the link does. Shares are in per cent of the frames.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkSettings {
    /// Frames that vanish.
    pub loss: f64,
    /// Frames that arrive twice.
    pub duplicate: f64,
    /// Frames that later ones overtake.
    pub reorder: f64,
    /// How long every frame is under way.
    pub delay: Duration,
    /// At most this much is added to the delay, evenly distributed.
    pub jitter: Duration,
    /// Bits a second that pass each way; what comes faster waits, and is lost when it would wait too long.
    pub rate: Option<u64>,
    /// The largest IP packet that passes, in bytes. Larger ones vanish and nobody is told: the path MTU black hole
    /// of a firewall that drops ICMP.
    pub max_packet: Option<usize>,
    /// Hosts, counted from 0, whose cable is pulled.
    pub cut_hosts: BTreeSet<usize>,
    /// Pairs of hosts, the lower first, that do not reach each other.
    pub cut_pairs: BTreeSet<(usize, usize)>,
}

impl std::fmt::Display for LinkSettings {
    /// What is other than on an ideal link.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shares = [("lost", self.loss), ("doubled", self.duplicate), ("overtaken", self.reorder)];
        let shares = shares.iter().filter(|(_, share)| *share > 0.0).map(|(what, share)| format!("{share} % {what}"));
        let times = [("under way", self.delay), ("more by chance", self.jitter)];
        let times = times.iter().filter(|(_, time)| !time.is_zero());
        let times = times.map(|(what, time)| format!("{} ms {what}", time.as_secs_f64() * 1e3));
        let rate = self.rate.map(|rate| format!("{} kbit/s", rate / 1000));
        let size = self.max_packet.map(|most| format!("packets up to {most} bytes"));
        let all: Vec<String> = shares.chain(times).chain(rate).chain(size).collect();
        f.write_str(if all.is_empty() { "nothing lost or late" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

/// What became of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Frames that came in.
    pub received: u64,
    /// Copies that went out.
    pub delivered: u64,
    /// Copies lost by chance.
    pub lost: u64,
    /// Copies made in addition.
    pub duplicated: u64,
    /// Copies that were held back to be overtaken.
    pub reordered: u64,
    /// Frames larger than the path MTU.
    pub too_large: u64,
    /// Copies that met a cut cable.
    pub cut: u64,
    /// Copies that found the queue full.
    pub overflowed: u64,
}

/// A frame on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The host it goes to.
    pub to: usize,
    /// The frame.
    pub frame: Arc<[u8]>,
}

/// The frames under way and what decides about them.
#[derive(Debug)]
pub struct Impairment {
    settings: LinkSettings,
    random: Random,
    /// The station last heard of at each host. A host has one address on this link.
    stations: Vec<Option<[u8; 6]>>,
    /// By time of arrival, then by order of entry.
    queue: BTreeMap<(Instant, u64), Delivery>,
    queued_bytes: usize,
    entered: u64,
    /// Each way (from, to).
    lines: BTreeMap<(usize, usize), Line>,
    counts: LinkCounts,
}

impl Impairment {
    /// A link between `hosts` hosts.
    pub fn new(hosts: usize, settings: LinkSettings, seed: u64) -> Self {
        Self {
            settings,
            random: Random(seed),
            stations: vec![None; hosts],
            queue: BTreeMap::new(),
            queued_bytes: 0,
            entered: 0,
            lines: BTreeMap::new(),
            counts: LinkCounts::default(),
        }
    }

    /// What it does to frames that come in from now on. Frames under way keep their time of arrival.
    pub fn settings_mut(&mut self) -> &mut LinkSettings {
        &mut self.settings
    }

    /// What became of frames so far.
    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    fn send(&mut self, now: Instant, from: usize, to: usize, frame: &Arc<[u8]>) {
        let settings = &self.settings;
        let pair = (from.min(to), from.max(to));
        if settings.cut_hosts.contains(&from)
            || settings.cut_hosts.contains(&to)
            || settings.cut_pairs.contains(&pair)
        {
            self.counts.cut += 1;
            return;
        }
        let line = self.lines.entry((from, to)).or_default();
        let arrivals = line.pass(now, frame.len(), &self.settings, &mut self.random, &mut self.counts);
        for arrival in arrivals {
            if self.queued_bytes + frame.len() > MAX_QUEUED_BYTES {
                self.counts.overflowed += 1;
                continue;
            }
            self.entered += 1;
            self.queued_bytes += frame.len();
            self.queue.insert((arrival, self.entered), Delivery { to, frame: frame.clone() });
        }
    }
}

impl Medium for Impairment {
    fn input(&mut self, now: Instant, from: usize, frame: &[u8]) {
        let (Some(destination), Some(source)) = (frame.first_chunk::<6>(), address(frame, 6)) else { return };
        if from >= self.stations.len() {
            return;
        }
        self.counts.received += 1;
        self.stations[from] = Some(source);
        if self.settings.max_packet.is_some_and(|most| frame.len() > most + ETHERNET) {
            self.counts.too_large += 1;
            return;
        }
        let shared: Arc<[u8]> = frame.into();
        match self.stations.iter().position(|station| station.as_ref() == Some(destination)) {
            Some(to) if to == from => {}
            Some(to) => self.send(now, from, to, &shared),
            None => {
                for to in (0..self.stations.len()).filter(|&to| to != from) {
                    self.send(now, from, to, &shared);
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    fn output(&mut self, now: Instant) -> Option<Delivery> {
        let entry = self.queue.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let delivery = entry.remove();
        self.queued_bytes -= delivery.frame.len();
        self.counts.delivered += 1;
        Some(delivery)
    }
}

fn address(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..at + 6)?.try_into().ok()
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough chance for a link, and the same on every run.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly distributed in [0, 1).
    fn share(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn happens(&mut self, per_cent: f64) -> bool {
        per_cent > 0.0 && self.share() * 100.0 < per_cent
    }

    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        if most.is_zero() { most } else { most.mul_f64(self.share()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EVERYONE: u8 = 0xff;

    /// A frame from the station of one host to that of another, of `size` bytes behind the Ethernet header.
    fn frame(from: u8, to: u8, size: usize) -> Vec<u8> {
        let mut frame = if to == EVERYONE { vec![0xff; 6] } else { vec![2, 0, 0, 0, 0, to] };
        frame.extend([2, 0, 0, 0, 0, from, 8, 0]);
        frame.resize(ETHERNET + size, 0);
        frame
    }

    /// A link of three hosts that knows the station of each.
    fn link(settings: LinkSettings) -> (Impairment, Instant) {
        let (mut link, now) = (Impairment::new(3, LinkSettings::default(), 7), Instant::now());
        for host in 0..3 {
            link.input(now, host, &frame(host as u8, EVERYONE, 0));
        }
        while link.output(now).is_some() {}
        link.counts = LinkCounts::default();
        link.settings = settings;
        (link, now)
    }

    /// Sends `n` numbered frames from host 0 to host 1, a microsecond apart, and returns the numbers that arrive.
    fn run(settings: LinkSettings, n: u32) -> (Vec<u32>, LinkCounts) {
        let (mut link, start) = link(settings);
        let mut arrived = Vec::new();
        let mut collect = |link: &mut Impairment, now| {
            while let Some(delivery) = link.output(now) {
                assert_eq!(delivery.to, 1);
                arrived.push(u32::from_be_bytes(delivery.frame[ETHERNET..ETHERNET + 4].try_into().unwrap()));
            }
        };
        for i in 0..n {
            let now = start + Duration::from_micros(i.into());
            let mut bytes = frame(0, 1, 100);
            bytes[ETHERNET..ETHERNET + 4].copy_from_slice(&i.to_be_bytes());
            link.input(now, 0, &bytes);
            collect(&mut link, now);
        }
        while let Some(due) = link.next_deadline() {
            collect(&mut link, due);
        }
        assert_eq!(link.queued_bytes, 0);
        (arrived, link.counts())
    }

    #[test]
    fn what_a_link_does_can_be_read() {
        let link = LinkSettings { loss: 0.5, reorder: 1.0, delay: Duration::from_millis(10), ..Default::default() };
        assert_eq!(link.to_string(), "0.5 % lost, 1 % overtaken, 10 ms under way");
        assert_eq!(LinkSettings::default().to_string(), "nothing lost or late");
    }

    #[test]
    fn an_unimpaired_link_delivers_everything_once_and_in_order() {
        let (arrived, counts) = run(LinkSettings::default(), 1000);
        assert_eq!(arrived, (0..1000).collect::<Vec<_>>());
        assert_eq!((counts.received, counts.delivered), (1000, 1000));
    }

    #[test]
    fn an_unknown_station_is_reached_by_flooding_and_a_known_one_directly() {
        let mut link = Impairment::new(3, LinkSettings::default(), 1);
        let now = Instant::now();
        let receivers = |link: &mut Impairment| -> Vec<usize> {
            std::iter::from_fn(|| link.output(now)).map(|delivery| delivery.to).collect()
        };
        link.input(now, 0, &frame(0, 1, 10));
        assert_eq!(receivers(&mut link), [1, 2]);
        link.input(now, 1, &frame(1, 0, 10));
        assert_eq!(receivers(&mut link), [0]);
        link.input(now, 0, &frame(0, 0, 10));
        assert!(receivers(&mut link).is_empty());
    }

    #[test]
    fn loss_duplication_and_reordering_hit_their_share_of_the_frames() {
        let (arrived, counts) = run(LinkSettings { loss: 5.0, ..Default::default() }, 20_000);
        assert!((800..1200).contains(&counts.lost), "{counts:?}");
        assert_eq!(arrived.len() as u64 + counts.lost, 20_000);
        assert!(arrived.is_sorted());

        let (arrived, counts) = run(LinkSettings { duplicate: 2.0, ..Default::default() }, 20_000);
        assert!((300..500).contains(&counts.duplicated), "{counts:?}");
        assert_eq!(arrived.len() as u64, 20_000 + counts.duplicated);

        let (mut arrived, counts) = run(LinkSettings { reorder: 3.0, ..Default::default() }, 20_000);
        assert!((450..750).contains(&counts.reordered), "{counts:?}");
        assert!(!arrived.is_sorted());
        arrived.sort_unstable();
        assert_eq!(arrived, (0..20_000).collect::<Vec<_>>());
    }

    #[test]
    fn delay_holds_frames_and_jitter_keeps_their_order() {
        let delay = Duration::from_millis(10);
        let (mut link, now) = link(LinkSettings { delay, ..Default::default() });
        link.input(now, 0, &frame(0, 1, 10));
        assert_eq!(link.next_deadline(), Some(now + delay));
        assert_eq!(link.output(now + delay - Duration::from_nanos(1)), None);
        assert!(link.output(now + delay).is_some());

        let (arrived, _) = run(LinkSettings { delay, jitter: delay, ..Default::default() }, 5000);
        assert_eq!(arrived, (0..5000).collect::<Vec<_>>());
    }

    #[test]
    fn a_packet_above_the_path_mtu_vanishes() {
        let (mut link, now) = link(LinkSettings { max_packet: Some(1280), ..Default::default() });
        link.input(now, 0, &frame(0, 1, 1280));
        link.input(now, 0, &frame(0, 1, 1281));
        assert_eq!(link.output(now).unwrap().frame.len(), 1294);
        assert_eq!(link.output(now), None);
        assert_eq!(link.counts().too_large, 1);
    }

    #[test]
    fn a_cut_cable_carries_nothing_and_a_cut_pair_only_not_each_other() {
        let (mut link, now) = link(LinkSettings { cut_hosts: [2].into(), ..Default::default() });
        link.input(now, 0, &frame(0, 2, 10));
        link.input(now, 2, &frame(2, 0, 10));
        assert_eq!((link.output(now), link.counts().cut), (None, 2));
        link.settings_mut().cut_hosts.clear();
        link.settings_mut().cut_pairs.insert((0, 1));
        link.input(now, 1, &frame(1, 0, 10));
        assert_eq!(link.output(now), None);
        link.input(now, 1, &frame(1, 2, 10));
        assert_eq!(link.output(now).unwrap().to, 2);
    }

    #[test]
    fn the_same_seed_gives_the_same_fate() {
        let settings = LinkSettings { loss: 10.0, duplicate: 10.0, reorder: 10.0, ..Default::default() };
        assert_eq!(run(settings.clone(), 3000), run(settings, 3000));
    }

    #[test]
    fn a_full_queue_loses_what_comes_beyond() {
        let (mut link, now) = link(LinkSettings { delay: Duration::from_secs(1), ..Default::default() });
        let big = frame(0, 1, 60_000);
        for _ in 0..=MAX_QUEUED_BYTES / big.len() {
            link.input(now, 0, &big);
        }
        assert_eq!(link.counts().overflowed, 1);
    }

    #[test]
    fn what_is_no_frame_is_ignored() {
        let (mut link, now) = link(LinkSettings::default());
        link.input(now, 0, &[0; 11]);
        link.input(now, 9, &frame(0, 1, 10));
        assert_eq!(link.output(now), None);
    }
}
