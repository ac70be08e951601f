//! Packets that wait for a session: bounded in number, bytes and age. The oldest gives way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A burst of neighbour discovery and a first TCP flight.
const PACKETS: usize = 32;
/// What [`PACKETS`] of a default MTU need. A hundred unreachable peers hold 6 MiB.
const BYTES: usize = 64 * 1024;
/// Longer than one lost initiation (5 s), shorter than its sender's patience.
const PATIENCE: Duration = Duration::from_secs(6);

#[derive(Default)]
pub(super) struct Waiting {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a packet; returns how many gave way.
    pub(super) fn push(&mut self, now: Instant, packet: &[u8]) -> u64 {
        let mut dropped = 0;
        while self.packets.len() >= PACKETS || self.bytes + packet.len() > BYTES {
            if self.pop().is_none() {
                break;
            }
            dropped += 1;
        }
        self.bytes += packet.len();
        self.packets.push_back((now, packet.to_vec()));
        dropped
    }

    /// The oldest packet.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// Drops what waited too long; returns how many.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        while self.packets.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= PATIENCE) {
            self.pop();
            expired += 1;
        }
        expired
    }

    /// Drops everything; returns how much that was.
    pub(super) fn clear(&mut self) -> u64 {
        std::mem::take(self).packets.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }
}
