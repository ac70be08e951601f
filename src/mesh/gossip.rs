//! The messages of the membership: types 16 to 23 of those between members.
//!
//! ```text
//!  'W', 1, type, 0, then                                            all numbers big-endian
//!  16 heartbeat  flags (1), sequence (4), stamp (8), echo (8), held (4), digest (8), ledger version (8), entries
//!  17 documents  flags (1), parts: kind (1), length (2), bytes.  1 head, 2 page of the owner last named, 3 owner
//!  18 heard      flags (1), owner (32), version (8); repeated
//!  19 want       owner (32), version (8), mask of pages (16); repeated
//!  20 summary    64 digests (8)
//!  21 offer      flags (1), buckets: number (1), count (2), entries
//!  22 ledger     version (8), hash (16), pieces (1), number (1), bytes
//!  23 ledger heard   version (8), hash (16), mask of pieces (4)
//!  an entry is owner (32), version (8)
//! ```
//!
//! What stands behind the last field that is known is skipped where a message has a fixed length. Sizes are bounded by what
//! a tunnel delivers, 9 KiB; nothing read here is larger than the message it came in.

use super::document::Hash;
use super::store::BUCKETS;
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::key::PublicKey;

/// Message types of the membership.
pub const TYPES: std::ops::RangeInclusive<u8> = 16..=31;
/// Payloads are filled up to here, so that they cross every path in one piece: the inner packet of a path MTU of 1280
/// over IPv6 less IPv4 and UDP.
pub const FULL: usize = 1172;
/// Bytes of a piece of the ledger.
pub const LEDGER_PIECE: usize = 1024;

const HEARTBEAT: u8 = 16;
const DOCUMENTS: u8 = 17;
const HEARD: u8 = 18;
const WANT: u8 = 19;
const SUMMARY: u8 = 20;
const OFFER: u8 = 21;
const LEDGER: u8 = 22;
const LEDGER_HEARD: u8 = 23;

/// An owner, and the version of its document.
pub type Entry = (PublicKey, u64);

/// What neighbours tell each other all the time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// The sender wants to be neighbours.
    pub is_chosen: bool,
    /// The sender wants to hear a heartbeat at once.
    pub is_urgent: bool,
    /// One higher with each heartbeat.
    pub sequence: u32,
    /// The sender's time, in µs.
    pub stamp: u64,
    /// The last stamp that the sender heard; 0 for none.
    pub echo: u64,
    /// How long it kept that, in µs.
    pub held: u32,
    /// The digest of its documents.
    pub digest: u64,
    /// The version of its ledger.
    pub ledger: u64,
    /// Documents that it has learned of and did not push.
    pub news: Vec<Entry>,
}

/// A part of a message of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A head; pages of its owner may follow.
    Head(&'a [u8]),
    /// A page of the owner last named.
    Page(&'a [u8]),
    /// Names an owner without its head.
    Owner(PublicKey),
}

/// What of a document somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Whose.
    pub owner: PublicKey,
    /// With a mask, the version whose pages are wanted; without one, what the sender has already.
    pub version: u64,
    /// A bit for each page; 0 means the head and all that changed since that version.
    pub mask: u128,
}

/// That a head was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Whose.
    pub owner: PublicKey,
    /// Which.
    pub version: u64,
    /// It had come from another already.
    pub is_duplicate: bool,
}

/// A piece of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The ledger's version.
    pub version: u64,
    /// The hash of all of it.
    pub hash: Hash,
    /// How many pieces it has, 1 to 32.
    pub count: u8,
    /// Which this is, from 0.
    pub number: u8,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// See [`Heartbeat`].
    Heartbeat(Heartbeat),
    /// Documents, or parts of them; `is_pushed` where the sender wants to know that they came.
    Documents {
        /// Whether [`Message::Heard`] is wanted.
        is_pushed: bool,
        /// Heads and pages.
        parts: Vec<Part<'a>>,
    },
    /// Heads that came.
    Heard(Vec<Heard>),
    /// What is wanted.
    Want(Vec<Want>),
    /// The digest in its parts, of one who sees that it differs.
    Summary(Box<[u64; BUCKETS]>),
    /// All that is held in some parts of the digest; an answer is wanted unless this is one.
    Offer {
        /// Whether this answers an offer.
        is_answer: bool,
        /// Number of the part, what is held in it.
        buckets: Vec<(u8, Vec<Entry>)>,
    },
    /// A piece of the ledger.
    Ledger(Piece<'a>),
    /// The pieces of a ledger that came.
    LedgerHeard {
        /// Its version.
        version: u64,
        /// Its hash.
        hash: Hash,
        /// A bit for each.
        mask: u32,
    },
    /// A type from the future.
    Unknown,
}

impl<'a> Message<'a> {
    /// Reads a message's payload.
    ///
    /// # Errors
    /// It is none, or is cut short.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut body = Reader(payload);
        let [magic, version, kind, _] = body.array()?;
        if magic != b'W' {
            return Err(Malformed);
        }
        if version != 1 {
            return Ok(Self::Unknown);
        }
        Ok(match kind {
            HEARTBEAT => {
                let flags = body.u8()?;
                Self::Heartbeat(Heartbeat {
                    is_chosen: flags & 1 != 0,
                    is_urgent: flags & 2 != 0,
                    sequence: body.u32()?,
                    stamp: body.u64()?,
                    echo: body.u64()?,
                    held: body.u32()?,
                    digest: body.u64()?,
                    ledger: body.u64()?,
                    news: all(&mut body, entry)?,
                })
            }
            DOCUMENTS => {
                let is_pushed = body.u8()? & 1 != 0;
                let mut parts = Vec::new();
                while !body.is_empty() {
                    let (kind, bytes) = (body.u8()?, body.prefixed()?);
                    match kind {
                        1 => parts.push(Part::Head(bytes)),
                        2 => parts.push(Part::Page(bytes)),
                        3 => parts.push(Part::Owner(PublicKey(bytes.try_into().map_err(|_| Malformed)?))),
                        _ => {}
                    }
                }
                Self::Documents { is_pushed, parts }
            }
            HEARD => Self::Heard(all(&mut body, |body| {
                let is_duplicate = body.u8()? & 1 != 0;
                let (owner, version) = entry(body)?;
                Ok(Heard { owner, version, is_duplicate })
            })?),
            WANT => Self::Want(all(&mut body, |body| {
                let (owner, version) = entry(body)?;
                Ok(Want { owner, version, mask: u128::from_be_bytes(body.array()?) })
            })?),
            SUMMARY => {
                let mut digests = Box::new([0; BUCKETS]);
                for digest in digests.iter_mut() {
                    *digest = body.u64()?;
                }
                Self::Summary(digests)
            }
            OFFER => {
                let is_answer = body.u8()? & 1 != 0;
                let buckets = all(&mut body, |body| {
                    let (bucket, count) = (body.u8()?, body.u16()?);
                    let entries = (0..count).map(|_| entry(body)).collect::<Result<_, _>>()?;
                    if usize::from(bucket) < BUCKETS { Ok((bucket, entries)) } else { Err(Malformed) }
                })?;
                Self::Offer { is_answer, buckets }
            }
            LEDGER => {
                let (version, hash, count, number) = (body.u64()?, body.array()?, body.u8()?, body.u8()?);
                if !(1..=32).contains(&count) || number >= count || body.0.len() > LEDGER_PIECE {
                    return Err(Malformed);
                }
                Self::Ledger(Piece { version, hash, count, number, bytes: body.0 })
            }
            LEDGER_HEARD => Self::LedgerHeard { version: body.u64()?, hash: body.array()?, mask: body.u32()? },
            _ => Self::Unknown,
        })
    }

    /// The payload that says this.
    pub fn write(&self) -> Vec<u8> {
        let kind = match self {
            Self::Heartbeat(_) => HEARTBEAT,
            Self::Documents { .. } => DOCUMENTS,
            Self::Heard(_) => HEARD,
            Self::Want(_) => WANT,
            Self::Summary(_) => SUMMARY,
            Self::Offer { .. } => OFFER,
            Self::Ledger(_) => LEDGER,
            Self::LedgerHeard { .. } => LEDGER_HEARD,
            Self::Unknown => 0,
        };
        let mut to = Writer::default();
        to.bytes(&[b'W', 1, kind, 0]);
        match self {
            Self::Heartbeat(beat) => {
                to.u8(u8::from(beat.is_chosen) | u8::from(beat.is_urgent) << 1).u32(beat.sequence);
                to.u64(beat.stamp).u64(beat.echo).u32(beat.held).u64(beat.digest).u64(beat.ledger);
                beat.news.iter().for_each(|entry| write_entry(&mut to, entry));
            }
            Self::Documents { is_pushed, parts } => {
                to.u8((*is_pushed).into());
                for part in parts {
                    match part {
                        Part::Head(bytes) => to.u8(1).prefixed(bytes),
                        Part::Page(bytes) => to.u8(2).prefixed(bytes),
                        Part::Owner(owner) => to.u8(3).prefixed(&owner.0),
                    };
                }
            }
            Self::Heard(heard) => {
                for Heard { owner, version, is_duplicate } in heard {
                    to.u8((*is_duplicate).into());
                    write_entry(&mut to, &(*owner, *version));
                }
            }
            Self::Want(wants) => {
                for Want { owner, version, mask } in wants {
                    write_entry(&mut to, &(*owner, *version));
                    to.bytes(&mask.to_be_bytes());
                }
            }
            Self::Summary(digests) => digests.iter().for_each(|digest| {
                to.u64(*digest);
            }),
            Self::Offer { is_answer, buckets } => {
                to.u8((*is_answer).into());
                for (bucket, entries) in buckets {
                    to.u8(*bucket).u16(u16::try_from(entries.len()).unwrap_or(u16::MAX));
                    entries.iter().take(u16::MAX.into()).for_each(|entry| write_entry(&mut to, entry));
                }
            }
            Self::Ledger(piece) => {
                to.u64(piece.version).bytes(&piece.hash).u8(piece.count).u8(piece.number).bytes(piece.bytes);
            }
            Self::LedgerHeard { version, hash, mask } => {
                to.u64(*version).bytes(hash).u32(*mask);
            }
            Self::Unknown => {}
        }
        to.0
    }
}

fn entry(body: &mut Reader<'_>) -> Result<Entry, Malformed> {
    Ok((PublicKey(body.array()?), body.u64()?))
}

fn write_entry(to: &mut Writer, (owner, version): &Entry) {
    to.bytes(&owner.0).u64(*version);
}

/// Reads until the end.
fn all<'a, T>(
    body: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut items = Vec::new();
    while !body.is_empty() {
        items.push(read(body)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_is_read_as_it_was_written_and_not_when_cut() {
        let key = PublicKey([7; 32]);
        let beat = Heartbeat { is_urgent: true, sequence: 9, echo: 4, news: vec![(key, 5)], ..Heartbeat::default() };
        let parts = vec![Part::Head(b"head"), Part::Page(b"page"), Part::Owner(key), Part::Page(b"")];
        let piece = Piece { version: 1, hash: [3; 16], count: 2, number: 1, bytes: b"ledger" };
        for message in [
            Message::Heartbeat(beat),
            Message::Documents { is_pushed: true, parts },
            Message::Heard(vec![Heard { owner: key, version: 3, is_duplicate: true }]),
            Message::Want(vec![Want { owner: key, version: 3, mask: 5 }]),
            Message::Summary(Box::new([8; BUCKETS])),
            Message::Offer { is_answer: true, buckets: vec![(3, vec![(key, 1)]), (9, vec![])] },
            Message::Ledger(piece),
            Message::LedgerHeard { version: 1, hash: [3; 16], mask: 3 },
        ] {
            let bytes = message.write();
            assert_eq!(Message::parse(&bytes), Ok(message.clone()));
            let cut = Message::parse(&bytes[..bytes.len() - 1]);
            assert!(cut.is_err() || matches!(message, Message::Ledger(_)), "{message:?}");
        }
        assert_eq!(Message::parse(&[b'W', 1, 31, 0, 9]), Ok(Message::Unknown));
        assert_eq!(Message::parse(&[b'W', 2, 16, 0]), Ok(Message::Unknown));
        assert_eq!(Message::parse(b"V\x01\x10\0"), Err(Malformed));
        let bytes = Message::Want(vec![Want { owner: key, version: 3, mask: 5 }]).write();
        assert_eq!(bytes[..6], [b'W', 1, 19, 0, 7, 7]);
        assert_eq!(bytes[36..], [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 15u8..25, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[b'W', 1, kind, 0][..], &body].concat();
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert!(message.write().len() <= bytes.len().max(4));
            }
        }
    }
}
