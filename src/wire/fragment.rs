//! Fragmentation inside a tunnel and its undoing: plain IPv4 fragmentation (RFC 791 §3.2) of packets that are larger
//! than the path to a peer carries.
//!
//! [`pieces`] cuts a packet by arithmetic; like a segment's, a piece's header may be stamped over the end of the
//! piece before it, once that one is sealed.
//!
//! A [`Reassembler`] serves one peer, so nobody but that peer, authenticated, can put anything into it. It holds at
//! most [`SLOTS`] packets of [`MAX_PACKET`] bytes (under 350 KiB with its accounts); the oldest gives way, and what is not complete
//! after [`TIMEOUT`] is abandoned. Fragments that contradict each other abandon their packet (RFC 5722 §4, there for
//! IPv6). Identifications are only 16 bits wide and a fast sender comes round in well under a second, when a fragment
//! of the old packet and one of the new could be joined into a third (RFC 4963): therefore a packet is also
//! abandoned when [`OVERTAKEN`] later fragments arrived.

use super::vxlan::{IPV4_LEN, Ipv4Header};
use super::{INNER_OVERHEAD, MAX_FRAME, checksum};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Packets in progress per peer. Fragments of one packet leave back to back, so several are in progress only where
/// paths reorder; 32 is half a batch of receiving.
pub const SLOTS: usize = 32;
/// The largest packet that is put together again: a frame of the largest port MTU with its headers, rounded up.
pub const MAX_PACKET: usize = (INNER_OVERHEAD + MAX_FRAME).next_multiple_of(256);
/// Fragments of one packet: the largest packet over a path of 576 bytes has 17.
pub const MAX_FRAGMENTS: usize = 32;
/// How long a packet may take to arrive. All fragments leave in one batch: what is later than this was lost.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// How many fragments may arrive between a packet's first and its last: those of at most 4096 packets, a sixteenth of
/// the identifications.
pub const OVERTAKEN: u64 = 8192;
/// How long an unused buffer is kept.
pub const IDLE: Duration = Duration::from_secs(10);

/// Fragments begin at multiples of this many bytes (RFC 791 §3.1).
const UNIT: usize = 8;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// One piece of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where its payload is in the whole packet, in bytes; never within the packet's header.
    pub payload: Range<usize>,
    /// Whether another follows.
    pub more: bool,
}

/// Cuts a packet of `packet_len` bytes, its header of 20 included, into pieces that are no longer than `limit` with
/// a header of their own. A packet that fits is one piece. Limits below 28 count as 28.
pub fn pieces(packet_len: usize, limit: usize) -> impl Iterator<Item = Piece> {
    let size = limit.saturating_sub(IPV4_LEN).max(UNIT) / UNIT * UNIT;
    let fits = packet_len <= limit;
    (IPV4_LEN..packet_len).step_by(if fits { usize::MAX } else { size }).map(move |start| {
        let end = if fits { packet_len } else { packet_len.min(start + size) };
        Piece { payload: start..end, more: end < packet_len }
    })
}

impl Piece {
    /// Writes the piece's 20-byte header: that of the packet with length, offset and checksum of its own. The packet may be a
    /// piece itself.
    ///
    /// # Panics
    /// When `header` is not 20 bytes long.
    pub fn stamp(&self, original: &[u8; IPV4_LEN], header: &mut [u8]) {
        header.copy_from_slice(original);
        let before = u16::from_be_bytes([original[6], original[7]]);
        let more = if self.more { MORE_FRAGMENTS } else { before & MORE_FRAGMENTS };
        let offset = usize::from(before & OFFSET) + (self.payload.start - IPV4_LEN) / UNIT;
        finish_header(header, self.payload.len(), more | offset as u16);
    }
}

/// Fills in total length, flags with fragment offset, and checksum.
fn finish_header(header: &mut [u8], payload_len: usize, flags_and_offset: u16) {
    header[2..4].copy_from_slice(&((IPV4_LEN + payload_len) as u16).to_be_bytes());
    header[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    checksum::finish_ipv4(header);
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It was the last one missing: the packet, valid until the next insertion.
    Whole(&'a [u8]),
    /// It was taken (or was there already), others are missing.
    Waiting,
    /// It is not valid, too large, or contradicts what is there; what is there of its packet is dropped with it.
    Bad,
}

/// What makes fragments one packet's (RFC 791 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    identification: u16,
}

/// Puts the fragments of one peer together.
#[derive(Debug, Default)]
pub struct Reassembler {
    slots: Vec<Slot>,
    /// Fragments inserted so far.
    inserted: u64,
    abandoned: u64,
}

#[derive(Debug)]
struct Slot {
    /// The packet in progress, `None` in a free slot.
    key: Option<Key>,
    /// When the slot was taken; in a free slot, when it was left.
    since: Instant,
    /// `Reassembler::inserted` when the slot was taken.
    taken_at: u64,
    /// The packet, at its final offsets: [`MAX_PACKET`] bytes, or none before first use.
    buffer: Vec<u8>,
    /// Start and end of each fragment's payload that is there; no two overlap. The first `fragments` count.
    extents: [(usize, usize); MAX_FRAGMENTS],
    fragments: usize,
    /// Length of the payload, once the last fragment is there.
    total: Option<usize>,
}

impl Reassembler {
    /// Takes a fragment, a whole IPv4 packet. `now` never goes back.
    pub fn insert(&mut self, now: Instant, packet: &[u8]) -> Outcome<'_> {
        let Some(fragment) = Fragment::parse(packet) else { return Outcome::Bad };
        self.inserted += 1;
        let at = self.slot_for(fragment.key, now);
        let slot = &mut self.slots[at];
        let inserted = slot.insert(&fragment);
        if inserted != Inserted::Waiting {
            slot.key = None;
            slot.since = now;
        }
        match inserted {
            Inserted::Whole(len) => Outcome::Whole(&slot.buffer[..len]),
            Inserted::Waiting => Outcome::Waiting,
            Inserted::Bad => Outcome::Bad,
        }
    }

    /// The slot of this packet: the one it is in, else a free one, one that is not in use yet, the oldest.
    fn slot_for(&mut self, key: Key, now: Instant) -> usize {
        let inserted = self.inserted;
        let mine = self.slots.iter().position(|slot| slot.key == Some(key));
        if let Some(at) = mine.filter(|&at| !self.slots[at].is_stale(now, inserted)) {
            return at;
        }
        let free = || self.slots.iter().position(|slot| slot.key.is_none());
        let at = match mine.or_else(free) {
            Some(at) => at,
            None if self.slots.len() < SLOTS => {
                self.slots.push(Slot::new(now));
                self.slots.len() - 1
            }
            None => (0..SLOTS).min_by_key(|&at| self.slots[at].taken_at).unwrap_or_default(),
        };
        if self.slots[at].key.is_some() {
            self.abandoned += 1;
        }
        self.slots[at].take(key, now, inserted);
        at
    }

    /// Abandons what is overdue, and gives memory back that was not used for a while. To be called now and then.
    pub fn expire(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.key.is_some() && slot.is_stale(now, self.inserted) {
                self.abandoned += 1;
                slot.key = None;
                slot.since = now;
            }
        }
        self.slots.retain(|slot| slot.key.is_some() || now.saturating_duration_since(slot.since) < IDLE);
        if self.slots.is_empty() {
            self.slots = Vec::new();
        }
    }

    /// How many packets were abandoned incomplete since this was last asked.
    /// Those that ended with [`Outcome::Bad`] are not among them.
    pub fn take_abandoned(&mut self) -> u64 {
        std::mem::take(&mut self.abandoned)
    }
}

/// A fragment that is right in itself.
struct Fragment<'a> {
    key: Key,
    header: &'a [u8; IPV4_LEN],
    payload: &'a [u8],
    /// Where the payload is in the packet's.
    start: usize,
    end: usize,
    last: bool,
}

impl<'a> Fragment<'a> {
    /// Nobody sends IP options in a tunnel, and only the first fragment would have all of them: `None` for those.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let ip = Ipv4Header::parse(packet).ok()?;
        let payload = packet.get(ip.payload.clone())?;
        let end = ip.fragment_offset + payload.len();
        let right = ip.payload.start == IPV4_LEN
            && !payload.is_empty()
            && end <= MAX_PACKET - IPV4_LEN
            && (!ip.more_fragments || payload.len().is_multiple_of(UNIT));
        let key = Key {
            source: ip.source,
            destination: ip.destination,
            protocol: ip.protocol,
            identification: ip.identification,
        };
        let (start, last) = (ip.fragment_offset, !ip.more_fragments);
        right.then_some(Self { key, header: packet.first_chunk()?, payload, start, end, last })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inserted {
    /// The length of the whole packet.
    Whole(usize),
    Waiting,
    Bad,
}

impl Slot {
    fn new(now: Instant) -> Self {
        Self {
            key: None,
            since: now,
            taken_at: 0,
            buffer: vec![0; MAX_PACKET],
            extents: [(0, 0); MAX_FRAGMENTS],
            fragments: 0,
            total: None,
        }
    }

    fn take(&mut self, key: Key, now: Instant, inserted: u64) {
        self.key = Some(key);
        self.since = now;
        self.taken_at = inserted;
        self.fragments = 0;
        self.total = None;
    }

    fn is_stale(&self, now: Instant, inserted: u64) -> bool {
        now.saturating_duration_since(self.since) >= TIMEOUT || inserted - self.taken_at > OVERTAKEN
    }

    fn insert(&mut self, fragment: &Fragment<'_>) -> Inserted {
        let Fragment { header, payload, start, end, last, .. } = *fragment;
        let there = self.extents.get(..self.fragments).unwrap_or_default();
        let contradicts = match (self.total, last) {
            (Some(total), true) => end != total,
            (Some(total), false) => end >= total,
            // Whatever is there has something behind it, which must be this.
            (None, true) => there.iter().any(|&(_, other)| other >= end),
            (None, false) => false,
        };
        if contradicts {
            return Inserted::Bad;
        }
        let place = IPV4_LEN + start..IPV4_LEN + end;
        if there.contains(&(start, end)) {
            return if self.buffer[place] == *payload { Inserted::Waiting } else { Inserted::Bad };
        }
        if there.len() == MAX_FRAGMENTS || there.iter().any(|other| start < other.1 && other.0 < end) {
            return Inserted::Bad;
        }
        self.buffer[place].copy_from_slice(payload);
        self.extents[self.fragments] = (start, end);
        self.fragments += 1;
        if start == 0 {
            self.buffer[..IPV4_LEN].copy_from_slice(header);
        }
        if last {
            self.total = Some(end);
        }
        let received: usize = self.extents[..self.fragments].iter().map(|(start, end)| end - start).sum();
        match self.total {
            Some(total) if received == total => {
                finish_header(&mut self.buffer[..IPV4_LEN], total, 0);
                Inserted::Whole(IPV4_LEN + total)
            }
            _ => Inserted::Waiting,
        }
    }
}

#[cfg(test)]
mod tests;
