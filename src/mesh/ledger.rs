//! Spreading the authority's ledger: bytes that this file does not understand, of which the highest version is wanted by all.
//!
//! A member that has a higher version than its neighbour's heartbeat says sends it, in pieces, until each was heard. What came is
//! handed up; only when the caller has verified it and calls [`super::membership::Membership::set_ledger`] does it count and travel on. So a neighbour that
//! makes up ledgers keeps nobody from hearing of the real one, which comes from the others: each neighbour has a place of its own
//! for what it sends, of [`MAX_LEDGER`] bytes.

use super::document::{Hash, hash};
use super::gossip::{Heartbeat, LEDGER_PIECE, Message, Piece};
use std::time::Duration;

/// Bytes of a ledger.
pub const MAX_LEDGER: usize = 8 << 10;
/// When pieces that were not heard are sent again, beyond the round trip.
const AGAIN_AFTER: Duration = Duration::from_millis(80);
/// How often, before the neighbour is left alone for [`REST`]: it hears but does not believe, or does not hear.
const MOST_TRIES: u32 = 30;
const REST: Duration = Duration::from_secs(30);

/// A ledger in force here.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Its version; 0 where there is none.
    pub version: u64,
    hash: Hash,
    bytes: Vec<u8>,
}

/// What one neighbour has of ours, and we of its.
#[derive(Debug, Default)]
pub struct Exchange {
    due: Option<Duration>,
    tries: u32,
    /// Version and pieces that it heard.
    heard: (u64, u32),
    came: Option<Coming>,
    /// What was handed up last.
    judged: Option<(u64, Hash)>,
}

#[derive(Debug)]
struct Coming {
    version: u64,
    hash: Hash,
    pieces: Vec<Option<Vec<u8>>>,
}

impl Ledger {
    /// A ledger; `None` if it is larger than one may be.
    pub fn new(version: u64, bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_LEDGER).then(|| Self { version, hash: hash(bytes), bytes: bytes.to_vec() })
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let none = self.bytes.is_empty().then_some(&[][..]);
        self.bytes.chunks(LEDGER_PIECE).chain(none)
    }

    fn all(&self) -> u32 {
        (1 << self.pieces().count()) - 1
    }
}

impl Exchange {
    /// Begins to tell the neighbour of a ledger that it may not have.
    pub fn tell(&mut self, now: Duration) {
        self.tries = 0;
        self.due = Some(now);
    }

    /// A heartbeat says which ledger the neighbour has.
    pub fn beat(&mut self, now: Duration, ledger: &Ledger, beat: &Heartbeat) {
        if beat.ledger >= ledger.version {
            self.due = None;
        } else if self.due.is_none() && self.heard != (ledger.version, ledger.all()) {
            self.tell(now);
        }
    }

    /// When pieces are due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due
    }

    /// The payloads that are due.
    pub fn poll(&mut self, now: Duration, round_trip: Option<Duration>, ledger: &Ledger) -> Vec<Vec<u8>> {
        if self.due.is_none_or(|due| now < due) || ledger.version == 0 {
            return Vec::new();
        }
        if self.heard.0 != ledger.version {
            self.heard = (ledger.version, 0);
        }
        if self.tries >= MOST_TRIES {
            self.tries = 0;
            self.due = Some(now + REST);
            return Vec::new();
        }
        self.tries += 1;
        self.due = Some(now + round_trip.unwrap_or_default() + AGAIN_AFTER);
        let count = ledger.pieces().count() as u8;
        let missing = (0..).zip(ledger.pieces()).filter(|(number, _)| self.heard.1 >> number & 1 == 0);
        let (version, hash) = (ledger.version, ledger.hash);
        let pieces =
            missing.map(|(number, bytes)| Message::Ledger(Piece { version, hash, count, number, bytes }).write());
        pieces.collect()
    }

    /// The neighbour heard pieces.
    pub fn heard(&mut self, ledger: &Ledger, version: u64, hash: Hash, mask: u32) {
        if (version, hash) == (ledger.version, ledger.hash) {
            self.heard = (version, if self.heard.0 == version { self.heard.1 | mask } else { mask });
            if self.heard.1 & ledger.all() == ledger.all() {
                self.due = None;
            }
        }
    }

    /// A piece came. Returns the answer and, once, the whole ledger.
    pub fn piece(&mut self, ledger: &Ledger, piece: &Piece<'_>) -> (Message<'static>, Option<Vec<u8>>) {
        let Piece { version, hash: wanted, count, .. } = *piece;
        let everything = u32::MAX >> (32 - u32::from(count));
        let answer = |mask| Message::LedgerHeard { version, hash: wanted, mask };
        // What is no higher is not wanted; what was handed up is with the caller.
        if version <= ledger.version || self.judged == Some((version, wanted)) {
            return (answer(everything), None);
        }
        if usize::from(count) * LEDGER_PIECE > MAX_LEDGER.next_multiple_of(LEDGER_PIECE) {
            return (answer(0), None);
        }
        let is_other =
            |coming: &Coming| (coming.version, coming.hash, coming.pieces.len()) != (version, wanted, count.into());
        if self.came.as_ref().is_none_or(is_other) {
            self.came = Some(Coming { version, hash: wanted, pieces: vec![None; count.into()] });
        }
        let Some(coming) = &mut self.came else { return (answer(0), None) };
        if let Some(place) = coming.pieces.get_mut(usize::from(piece.number)) {
            *place = Some(piece.bytes.to_vec());
        }
        let came = coming.pieces.iter().enumerate().filter(|(_, piece)| piece.is_some());
        let mask = came.fold(0, |mask, (number, _)| mask | 1 << number);
        if mask != everything {
            return (answer(mask), None);
        }
        let bytes: Vec<u8> =
            self.came.take().into_iter().flat_map(|coming| coming.pieces).flatten().flatten().collect();
        if hash(&bytes) != wanted {
            return (answer(0), None);
        }
        self.judged = Some((version, wanted));
        (answer(everything), Some(bytes))
    }
}
