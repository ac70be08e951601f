//! What a network's policy refused: how often for which reason, and what it was lately.
//!
//! Whoever is refused chooses what is remembered: [`LATEST`] frames that differ, of which the oldest gives way, and one that
//! finds the list busy is only counted.

use crate::switch::counters::Drop;
use crate::wire::ethernet::Mac;
use crate::wire::packet::{Content, Packet, Transport};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Frames that are remembered: what a person reads.
pub const LATEST: usize = 16;

/// A frame that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Drop,
    /// Its source.
    pub source: Mac,
    /// Its destination.
    pub destination: Mac,
    /// What was in it.
    pub content: Content,
}

impl Refusal {
    /// A frame was refused.
    pub fn new(reason: Drop, source: Mac, destination: Mac, mut content: Content) -> Self {
        // Ports that one side makes up for each connection make no other refusal.
        if let Content::Ip(Packet { transport, .. }) = &mut content {
            match transport {
                Transport::Tcp { source, flags, .. } => (*source, *flags) = (0, 0),
                Transport::Udp { source, .. } => *source = 0,
                _ => {}
            }
        }
        Self { reason, source, destination, content }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Ip(packet) => {
                let (source, destination) = (packet.source, packet.destination);
                match packet.transport {
                    Transport::Tcp { destination: port, .. } => write!(f, "{source} -> {destination} tcp/{port}"),
                    Transport::Udp { destination: port, .. } => write!(f, "{source} -> {destination} udp/{port}"),
                    Transport::Icmp { kind } => write!(f, "{source} -> {destination} icmp type {kind}"),
                    Transport::Neighbour { kind, .. } => {
                        write!(f, "{source} -> {destination} neighbour discovery type {kind}")
                    }
                    Transport::Other => write!(f, "{source} -> {destination} protocol {}", packet.protocol),
                    Transport::Fragment => {
                        write!(f, "{source} -> {destination} fragment of protocol {}", packet.protocol)
                    }
                }
            }
            Content::Arp(claim) => write!(f, "ARP of {} for {}", self.source, claim.address),
            Content::Other | Content::Unreadable => write!(f, "{} -> {}", self.source, self.destination),
        }
    }
}

/// A refusal that is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Noted {
    /// The frame.
    pub refusal: Refusal,
    /// How many like it.
    pub count: u64,
    /// The second of the last, on the switch's clock.
    pub second: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; REASONS.len()],
    latest: Mutex<VecDeque<Noted>>,
}

/// The reasons of policies.
const REASONS: [Drop; 7] = [
    Drop::ForeignMac,
    Drop::SpoofedAddress,
    Drop::RogueDhcp,
    Drop::RogueRouter,
    Drop::Unreadable,
    Drop::Isolated,
    Drop::NotAllowed,
];

impl Refusals {
    pub(super) fn note(&self, refusal: Refusal, second: u32) {
        if let Some(at) = REASONS.iter().position(|&reason| reason == refusal.reason) {
            self.counts[at].fetch_add(1, Relaxed);
        }
        let Ok(mut latest) = self.latest.try_lock() else { return };
        let known = latest.iter().position(|noted| noted.refusal == refusal);
        let count = known.and_then(|at| latest.remove(at)).map_or(1, |noted| noted.count + 1);
        if latest.len() >= LATEST {
            latest.pop_front();
        }
        latest.push_back(Noted { refusal, count, second });
    }

    /// How many frames were refused, by why.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = REASONS.iter().zip(&self.counts).map(|(reason, count)| (reason.name(), count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// What was refused lately, the latest first.
    pub fn latest(&self) -> Vec<Noted> {
        self.latest.lock().map_or_else(|_| Vec::new(), |latest| latest.iter().rev().copied().collect())
    }
}
