//! One way to a peer: how it became known, whether it works, and which of two ways is the better one.

use super::pulse::Pulse;
use crate::mesh::inner_limit;
use crate::mesh::path::{BASE, Basis, PathMtu};
use crate::wire::vxlan::{IPV4_LEN, UDP_LEN};
use crate::wire::{UNDERLAY_OVERHEAD_V4, WIREGUARD_OVERHEAD, way};
use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How much shorter a round trip must be at least, and in proportion, to be worth a change.
const WORTH: Duration = Duration::from_millis(2);
const WORTH_PARTS: u32 = 5;
/// How much less must be lost to be worth a change, and of how many probes. Two equal ways that lose half of all round
/// trips seem to differ that much once in a thousand times.
const LOSS_WORTH: f32 = 0.33;
const LOSS_SAMPLES: u32 = 48;
/// And how much more may be lost on the way with the shorter round trip.
const LOSS_ALLOWED: f32 = 0.1;
/// A way that fell silent while it was chosen has to work for this long before it is chosen again, the second time …
const FIRST_HOLD: Duration = Duration::from_secs(2);
/// … and at most this long; it doubles each time.
const LAST_HOLD: Duration = Duration::from_secs(60);
/// After that long without another fall it is as good as any.
const FORGIVEN: Duration = Duration::from_secs(120);
/// The largest inner packet over a stream. A stream has no packets, so the larger the fewer to seal; a larger one would
/// keep shorter ones waiting on a slow line.
pub const STREAM_LIMIT: usize = 8192;

/// What kind of way it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// UDP over the underlay.
    Direct,
    /// Inside the tunnels of other members.
    Relayed,
    /// A TCP connection.
    Stream,
}

impl Kind {
    /// What kind of way to the peer with tunnel address `theirs` an address stands for. Port 0 tells what is no underlay
    /// address.
    pub fn of(way: SocketAddr, theirs: Ipv4Addr) -> Self {
        match () {
            () if way.port() == 0 && way.ip() == IpAddr::V4(theirs) => Self::Relayed,
            () if way::stream_of(&way).is_some() => Self::Stream,
            () => Self::Direct,
        }
    }
}

/// How a way became known; of several, the first counts as the reason. The order is that in which ways about which
/// nothing else is known are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A beacon on the local network.
    Lan,
    /// The configuration file.
    File,
    /// A name of the configuration file.
    Dns,
    /// It worked before the last restart.
    Cache,
    /// The peer says that it is one of its addresses.
    Announced,
    /// Others see the peer there.
    Observed,
    /// The peer said so when it asked for simultaneous probes.
    Told,
    /// Something authentic came from there.
    Heard,
    /// Members between us forward.
    Relay,
    /// A TCP connection with the peer.
    Stream,
}

impl Source {
    /// All, in their order.
    pub const ALL: [Self; 10] = [
        Self::Lan,
        Self::File,
        Self::Dns,
        Self::Cache,
        Self::Announced,
        Self::Observed,
        Self::Told,
        Self::Heard,
        Self::Relay,
        Self::Stream,
    ];

    /// As an operator reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::File => "file",
            Self::Dns => "dns",
            Self::Cache => "cache",
            Self::Announced => "announced",
            Self::Observed => "observed",
            Self::Told => "told",
            Self::Heard => "heard",
            Self::Relay => "relay",
            Self::Stream => "stream",
        }
    }

    pub(super) fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The way through other members, as their graph of links has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayRoute {
    /// The way's address: the peer's tunnel address, port 0.
    pub way: SocketAddr,
    /// Its cost in the graph, for display.
    pub cost: u32,
    /// Members between us.
    pub hops: u8,
    /// The largest inner packet of the pair's that crosses, in a datagram inside the tunnel with the first member.
    pub limit: usize,
    /// The first member on it prefers to relay: then it competes with direct ways by what is measured.
    pub preferred: bool,
    /// Our tunnel with the first member is a stream.
    pub over_stream: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Never used twice for one peer: what its probes' tokens name it by.
    pub number: u32,
    pub way: SocketAddr,
    pub kind: Kind,
    /// A bit for each [`Source`].
    pub sources: u16,
    pub pulse: Pulse,
    /// For direct ways; runs while it is chosen.
    pub mtu: PathMtu,
    pub route: Option<RelayRoute>,
    /// Answers in a row by which it was better than the chosen one, and when that has to go on at the latest.
    pub wins: u32,
    pub trial: Duration,
    /// How often it fell silent while it was chosen, and when it last did.
    pub falls: u32,
    pub fell: Duration,
}

impl Candidate {
    pub(super) fn new(number: u32, way: SocketAddr, theirs: Ipv4Addr, configured: Option<u16>) -> Self {
        Self {
            number,
            way,
            kind: Kind::of(way, theirs),
            sources: 0,
            pulse: Pulse::default(),
            mtu: PathMtu::new(configured),
            route: None,
            wins: 0,
            trial: Duration::ZERO,
            falls: 0,
            fell: Duration::ZERO,
        }
    }

    /// The first of its sources.
    pub(super) fn source(&self) -> Source {
        Source::ALL.into_iter().find(|source| self.sources & source.bit() != 0).unwrap_or(Source::Heard)
    }

    /// Whether its MTU is found by probing.
    pub(super) fn is_measured(&self) -> bool {
        self.kind == Kind::Direct
    }

    /// The largest inner packet that crosses, and what that will be if the search for it finds what it nearly always
    /// finds.
    pub(super) fn limits(&self) -> (usize, usize) {
        let v6 = self.way.is_ipv6();
        match self.kind {
            Kind::Direct => (inner_limit(self.mtu.mtu(), v6), inner_limit(self.mtu.expected(), v6)),
            Kind::Stream => (STREAM_LIMIT, STREAM_LIMIT),
            Kind::Relayed => {
                // The relayed datagram is an inner packet of the tunnel with the next hop.
                let least = inner_limit(BASE, true) - IPV4_LEN - UDP_LEN - WIREGUARD_OVERHEAD;
                let limit = self.route.map_or(least, |route| route.limit);
                (limit, limit)
            }
        }
    }

    /// The MTU of the underlay; of what has none, that of an underlay that would carry as much.
    pub(super) fn path_mtu(&self) -> u16 {
        match self.kind {
            Kind::Direct => self.mtu.mtu(),
            _ => u16::try_from(self.limits().0 + WIREGUARD_OVERHEAD + UNDERLAY_OVERHEAD_V4).unwrap_or(u16::MAX),
        }
    }

    pub(super) fn basis(&self) -> Basis {
        if self.is_measured() { self.mtu.basis() } else { Basis::Given }
    }

    /// Ways of a lower rank are better whatever they measure.
    pub(super) fn rank(&self) -> u8 {
        match (self.kind, self.route) {
            (Kind::Direct, _) => 0,
            (Kind::Relayed, Some(RelayRoute { over_stream: true, .. })) => 3,
            (Kind::Relayed, Some(RelayRoute { preferred: true, .. })) => 0,
            (Kind::Relayed, _) => 1,
            (Kind::Stream, _) => 2,
        }
    }

    /// Whether it is so much better than `chosen` that a change is worth it.
    pub(super) fn beats(&self, chosen: &Self) -> bool {
        if self.rank() != chosen.rank() {
            return self.rank() < chosen.rank();
        }
        let (Some(round_trip), Some(chosen_trip)) = (self.pulse.round_trip(), chosen.pulse.round_trip()) else {
            return false;
        };
        let more_lost = match (self.pulse.loss(LOSS_SAMPLES), chosen.pulse.loss(LOSS_SAMPLES)) {
            (Some(loss), Some(chosen_loss)) => loss - chosen_loss,
            _ => 0.0,
        };
        let noise = self.pulse.deviation().max(chosen.pulse.deviation());
        let margin = WORTH.max(chosen_trip / WORTH_PARTS).max(noise);
        let quicker = round_trip + margin < chosen_trip && more_lost <= LOSS_ALLOWED;
        quicker || more_lost <= -LOSS_WORTH && round_trip <= chosen_trip * 2 + margin
    }

    /// Which of two working ways to take when there is none yet.
    pub(super) fn preference(&self, other: &Self) -> Ordering {
        let trip = |candidate: &Self| candidate.pulse.round_trip().unwrap_or(Duration::MAX);
        let by_rank = self.rank().cmp(&other.rank());
        by_rank.then(trip(self).cmp(&trip(other))).then(self.source().cmp(&other.source()))
    }

    /// Which of two ways to try first.
    pub(super) fn urgency(&self, other: &Self) -> Ordering {
        let silent = |candidate: &Self| candidate.pulse.silent.is_some();
        let by_answer = other.pulse.answered.cmp(&self.pulse.answered);
        silent(self).cmp(&silent(other)).then(by_answer).then(self.source().cmp(&other.source()))
    }

    /// It fell silent while it was chosen.
    pub(super) fn fall(&mut self, now: Duration) {
        if now.saturating_sub(self.fell) > FORGIVEN {
            self.falls = 0;
        }
        self.falls = self.falls.saturating_add(1);
        self.fell = now;
        self.wins = 0;
    }

    /// Whether it worked for long enough since its falls.
    pub(super) fn is_steady(&self, now: Duration) -> bool {
        let hold = match self.falls {
            0 | 1 => Duration::ZERO,
            falls => (FIRST_HOLD * (1 << (falls - 2).min(6))).min(LAST_HOLD),
        };
        now.saturating_sub(self.fell) > FORGIVEN
            || self.pulse.live.is_some_and(|live| now.saturating_sub(live) >= hold)
    }
}
