//! Which ways are known, who knows them, and which give way when there are too many.

use super::candidate::Candidate;
use super::{Kind, MAX_DIRECT, MAX_OF_SOURCE, Paths, RelayRoute, Source};
use crate::wire::way;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Direct ways that are only known since something was heard from there: a NAT that maps by destination makes many.
const MAX_HEARD: usize = 4;
/// Streams with one peer: each side may have made one, and another while that one breaks.
const MAX_STREAMS: usize = 4;

impl Paths {
    /// `source` knows these ways, and no others.
    pub(in crate::mesh) fn set_candidates(&mut self, now: Duration, source: Source, ways: &[SocketAddr]) {
        if matches!(source, Source::Heard | Source::Relay | Source::Stream) {
            return;
        }
        let bit = source.bit();
        self.candidates.iter_mut().for_each(|candidate| candidate.sources &= !bit);
        for &way in ways.iter().take(MAX_OF_SOURCE) {
            if self.is_usable(way) {
                self.add(now, way, source);
            }
        }
        self.drop_unknown(now);
    }

    /// The way through other members.
    pub(in crate::mesh) fn set_relay(&mut self, now: Duration, route: Option<RelayRoute>) {
        // Without a route of ours it is none, though the peer may have one.
        let relayed = self.candidates.iter_mut().filter(|candidate| candidate.kind == Kind::Relayed);
        relayed.for_each(|candidate| candidate.sources = 0);
        if let Some(route) = route.filter(|route| Kind::of(route.way, self.theirs) == Kind::Relayed)
            && let Some(number) = self.add(now, route.way, Source::Relay)
            && let Some(candidate) = self.numbered_mut(number)
        {
            candidate.route = Some(route);
        }
        self.drop_unknown(now);
    }

    /// A TCP connection with the peer's host was made.
    pub(in crate::mesh) fn stream_up(&mut self, now: Duration, way: SocketAddr) {
        if way::stream_of(&way).is_some() {
            self.add(now, way, Source::Stream);
        }
    }

    /// It ended.
    pub(in crate::mesh) fn stream_down(&mut self, now: Duration, way: SocketAddr) {
        let number = self.find(way).map(|candidate| candidate.number);
        if let Some(number) = number {
            self.remove(now, number);
        }
    }

    /// Something authentic was heard over `way`; `frames` tells whether frames were among it.
    pub(in crate::mesh) fn heard(&mut self, now: Duration, way: SocketAddr, frames: bool) {
        if frames {
            self.used = Some(now);
        }
        if self.held && self.find(way).is_none() && self.is_welcome(way) {
            // A connection that the peer has made is one like those we make.
            let is_stream = Kind::of(way, self.theirs) == Kind::Stream;
            self.add(now, way, if is_stream { Source::Stream } else { Source::Heard });
            // What can be heard can perhaps be answered, and its NAT is open at this moment.
            self.triggered(now, way);
        }
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.way == way) {
            candidate.pulse.heard = Some(now);
        }
    }

    /// Whether a way over which something came is worth a probe. Another port of a host that answers is but one more
    /// mapping of its NAT, and each probe to one can make yet another.
    fn is_welcome(&self, way: SocketAddr) -> bool {
        let kind = Kind::of(way, self.theirs);
        let known = |other: &Candidate| other.pulse.is_live() && other.way.ip() == way.ip();
        let mapping = self.doubted.is_none() && self.candidates.iter().any(known);
        kind == Kind::Stream || kind == Kind::Direct && self.is_usable(way) && !mapping
    }

    /// Whether a probe may go to an address at all; others than underlay addresses are not for anyone to tell.
    fn is_usable(&self, way: SocketAddr) -> bool {
        let ip = way.ip();
        let odd = match ip {
            IpAddr::V4(ip) => ip.is_broadcast(),
            IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some(),
        };
        way.port() != 0 && !odd && !ip.is_unspecified() && !ip.is_multicast() && way::stream_of(&way).is_none()
    }

    /// The number of the candidate that `way` is, which another may have had to give way to.
    pub(super) fn add(&mut self, now: Duration, way: SocketAddr, source: Source) -> Option<u32> {
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.way == way) {
            candidate.sources |= source.bit();
            return Some(candidate.number);
        }
        let candidate = Candidate::new(self.next_number, way, self.theirs, self.configured);
        let heard = Source::Heard.bit();
        let alike = |other: &Candidate| other.kind == candidate.kind;
        let (most, only_heard) = match (candidate.kind, source) {
            (Kind::Direct, Source::Heard) => (MAX_HEARD, true),
            (Kind::Direct, _) => (MAX_DIRECT, false),
            (Kind::Stream, _) => (MAX_STREAMS, false),
            (Kind::Relayed, _) => (1, false),
        };
        let rivals = |other: &&Candidate| alike(other) && (!only_heard || other.sources == heard);
        if self.candidates.iter().filter(rivals).count() >= most {
            let current = self.current;
            let spare = |other: &&Candidate| rivals(other) && Some(other.number) != current && !other.pulse.is_live();
            let silent = |candidate: &Candidate| candidate.pulse.silent.is_some();
            let worst = self.candidates.iter().filter(spare).max_by(|a, b| {
                let heard = |candidate: &Candidate| candidate.pulse.heard;
                silent(a).cmp(&silent(b)).then(a.source().cmp(&b.source())).then(heard(b).cmp(&heard(a)))
            });
            let worst = worst.filter(|worst| only_heard || silent(worst) || worst.source() >= source)?.number;
            self.remove(now, worst);
        }
        let number = candidate.number;
        self.next_number = self.next_number.wrapping_add(1);
        self.candidates.push(Candidate { sources: source.bit(), ..candidate });
        Some(number)
    }

    /// Forgets what no source knows any more, unless it works and there are not too many of that kind.
    fn drop_unknown(&mut self, now: Duration) {
        let heard = Source::Heard.bit();
        let mut room = MAX_HEARD.saturating_sub(self.candidates.iter().filter(|c| c.sources == heard).count());
        let mut forgotten = Vec::new();
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.sources == 0) {
            let current = Some(candidate.number) == self.current && candidate.kind == Kind::Direct;
            let spared = candidate.kind == Kind::Direct && candidate.pulse.is_live() && room > 0;
            if current || spared {
                candidate.sources = heard;
                room = room.saturating_sub(1);
            } else {
                forgotten.push(candidate.number);
            }
        }
        forgotten.into_iter().for_each(|number| self.remove(now, number));
    }

    pub(super) fn remove(&mut self, now: Duration, number: u32) {
        self.candidates.retain(|candidate| candidate.number != number);
        if self.current == Some(number) {
            self.current = None;
            if self.held && self.up {
                self.doubted.get_or_insert(now);
                self.leave(now);
            }
        }
    }

    /// Adds a way that something is known to work over, though there are as many as may be.
    pub(super) fn squeeze(&mut self, now: Duration, way: SocketAddr) -> Option<u32> {
        let oldest = self.candidates.iter().filter(|other| other.sources == Source::Heard.bit());
        let oldest = oldest.min_by_key(|other| other.pulse.answered).map(|other| other.number)?;
        self.remove(now, oldest);
        self.add(now, way, Source::Heard)
    }
}
