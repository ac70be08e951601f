//! Datagrams over TCP, for where UDP does not get through.
//!
//! ```text
//!  who connects sends first      nonce (16) | mac (16)
//!  then both sides, repeatedly   length (2) | a WireGuard datagram of that length
//! ```
//!
//! The mac is BLAKE2s of the nonce, keyed with a hash of the receiver's public key, as WireGuard's *mac1* is: it proves
//! that the sender knows whom it speaks to. Whoever does not, a scanner, is hung up on without an answer. It proves no
//! more: what comes behind it is as foreign as any datagram, and a copy of it is as good as the original; so a
//! connection on which no session answers soon does not last.
//!
//! Nothing is encrypted or authenticated here: the datagrams are.

use super::Malformed;
use super::key::PublicKey;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};

/// Bytes that who connects sends first.
pub const PREAMBLE_LEN: usize = 2 * NONCE_LEN;
/// Bytes of the nonce in front of the preamble.
pub const NONCE_LEN: usize = 16;
/// The largest datagram: more than any underlay's packets, and as little as a connection must remember of a part.
pub const MAX_DATAGRAM: usize = 16_384;
/// Bytes of the length in front of a datagram.
const LENGTH: usize = 2;

/// What makes and checks preambles for one receiver.
#[derive(Clone)]
pub struct PreambleKey([u8; 32]);

impl PreambleKey {
    /// For the member with this public key.
    pub fn of(receiver: &PublicKey) -> Self {
        let hash = Blake2s256::new().chain_update(b"weft stream v1").chain_update(receiver.0);
        Self(hash.finalize().into())
    }

    /// The preamble with this nonce, which nobody should be able to guess.
    pub fn preamble(&self, nonce: [u8; NONCE_LEN]) -> [u8; PREAMBLE_LEN] {
        let mut preamble = [0; PREAMBLE_LEN];
        let (head, mac) = preamble.split_at_mut(NONCE_LEN);
        head.copy_from_slice(&nonce);
        if let Some(keyed) = self.keyed(&nonce) {
            mac.copy_from_slice(&keyed.finalize_fixed());
        }
        preamble
    }

    /// Whether this preamble was made for the receiver, in a time that does not depend on where it is wrong.
    fn made(&self, preamble: &[u8; PREAMBLE_LEN]) -> bool {
        let (nonce, mac) = preamble.split_at(NONCE_LEN);
        self.keyed(nonce).is_some_and(|keyed| keyed.verify_slice(mac).is_ok())
    }

    /// `None` never: only keys longer than 32 bytes are refused.
    fn keyed(&self, nonce: &[u8]) -> Option<Blake2sMac<U16>> {
        let mut keyed = <Blake2sMac<U16> as KeyInit>::new_from_slice(&self.0).ok()?;
        Update::update(&mut keyed, nonce);
        Some(keyed)
    }
}

/// A datagram with its length in front: `fill` writes at most `room` bytes and says how many, or `None` if there is none.
pub fn framed(room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; LENGTH + room];
    let length = fill(&mut bytes[LENGTH..]).filter(|&length| length > 0)?;
    bytes.truncate(LENGTH + length);
    bytes[..LENGTH].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    Some(bytes)
}

/// Takes the bytes of a connection apart as they come, in whatever pieces. What is incomplete is kept: at most one datagram.
pub struct Decoder {
    /// What the preamble must be made with, until it has come.
    preamble: Option<PreambleKey>,
    partial: Vec<u8>,
}

impl Decoder {
    /// For a connection that somebody else began: a preamble by this key comes first.
    pub fn of_caller(key: PreambleKey) -> Self {
        Self { preamble: Some(key), partial: Vec::new() }
    }

    /// For a connection that we began.
    pub fn of_called() -> Self {
        Self { preamble: None, partial: Vec::new() }
    }

    /// Whether the preamble has come, where one must.
    pub fn is_open(&self) -> bool {
        self.preamble.is_none()
    }

    /// Hands each datagram that `bytes` complete to `take`, in order.
    ///
    /// # Errors
    /// The preamble is not for us, or a length is none: the connection must be closed. What came before was handed over.
    pub fn input(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            if self.partial.is_empty() && self.preamble.is_none() {
                // Most datagrams lie whole in what was read, and are not moved.
                while let Some((datagram, rest)) = whole(bytes)? {
                    take(datagram);
                    bytes = rest;
                }
            }
            let missing = self.missing()?;
            let (more, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(more);
            bytes = rest;
            self.complete(&mut take)?;
        }
        Ok(())
    }

    /// How many bytes to add until something is complete: the preamble, a length, or what it is the length of.
    fn missing(&self) -> Result<usize, Malformed> {
        let wanted = match (&self.preamble, self.partial.first_chunk()) {
            (Some(_), _) => PREAMBLE_LEN,
            (None, None) => LENGTH,
            (None, Some(&length)) => LENGTH + datagram_length(length)?,
        };
        Ok(wanted.saturating_sub(self.partial.len()))
    }

    /// Uses up what has become complete.
    fn complete(&mut self, take: &mut impl FnMut(&[u8])) -> Result<(), Malformed> {
        if let Some(key) = &self.preamble {
            let Some(preamble) = self.partial.first_chunk() else { return Ok(()) };
            if !key.made(preamble) {
                return Err(Malformed);
            }
            self.preamble = None;
            self.partial.clear();
        } else if let Some((datagram, _)) = whole(&self.partial)? {
            take(datagram);
            self.partial.clear();
        }
        Ok(())
    }
}

/// A datagram and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The first datagram of `bytes` if all of it is there, and what follows.
fn whole(bytes: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    let Some((&length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    Ok(rest.split_at_checked(datagram_length(length)?))
}

fn datagram_length(length: [u8; LENGTH]) -> Result<usize, Malformed> {
    let length = usize::from(u16::from_be_bytes(length));
    if (1..=MAX_DATAGRAM).contains(&length) { Ok(length) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn frame(datagram: &[u8]) -> Vec<u8> {
        framed(datagram.len() + 5, |room| {
            room[..datagram.len()].copy_from_slice(datagram);
            Some(datagram.len())
        })
        .unwrap()
    }

    /// What comes out of a decoder that is given these pieces, and whether the connection lives on.
    fn decoded<'a>(decoder: &mut Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
        let mut datagrams = Vec::new();
        let lives = pieces
            .into_iter()
            .all(|piece| decoder.input(piece, |datagram| datagrams.push(datagram.to_vec())).is_ok());
        (datagrams, lives)
    }

    #[test]
    fn the_bytes_of_a_preamble_are_these() {
        let preamble = PreambleKey::of(&KEY).preamble([1; 16]);
        let hex: String = preamble.iter().map(|byte| format!("{byte:02x}")).collect();
        // Python: k = blake2s(b"weft stream v1" + bytes([7] * 32)).digest()
        //         blake2s(bytes([1] * 16), key=k, digest_size=16).hexdigest()
        assert_eq!(hex, format!("{}b2bdec0f791f4e70bff01f51cfa3c94c", "01".repeat(16)));
    }

    #[test]
    fn who_does_not_know_the_key_is_not_let_in() {
        let key = PreambleKey::of(&KEY);
        let good = key.preamble([3; 16]);
        let behind = frame(b"hello");
        assert_eq!(
            decoded(&mut Decoder::of_caller(key.clone()), [&good[..], &behind]),
            (vec![b"hello".to_vec()], true)
        );
        for at in 0..PREAMBLE_LEN {
            let mut wrong = good;
            wrong[at] ^= 1;
            let mut decoder = Decoder::of_caller(key.clone());
            assert_eq!(decoded(&mut decoder, [&wrong[..31]]), (vec![], true), "it is not told before the end");
            assert_eq!(decoded(&mut decoder, [&wrong[31..], &behind]), (vec![], false));
            assert!(!decoder.is_open());
        }
        let other = PreambleKey::of(&PublicKey([8; 32])).preamble([3; 16]);
        assert!(!decoded(&mut Decoder::of_caller(key), [&other[..]]).1);
    }

    #[test]
    fn a_length_that_is_none_ends_the_connection() {
        for length in [0, MAX_DATAGRAM as u16 + 1, u16::MAX] {
            let bytes = [&frame(b"good")[..], &length.to_be_bytes()].concat();
            let mut decoder = Decoder::of_called();
            assert_eq!(decoded(&mut decoder, [&bytes[..]]), (vec![b"good".to_vec()], false), "{length}");
            let mut decoder = Decoder::of_called();
            assert!(!decoded(&mut decoder, bytes.chunks(1)).1, "{length}");
        }
        let largest = frame(&vec![9; MAX_DATAGRAM]);
        assert_eq!(decoded(&mut Decoder::of_called(), [&largest[..]]).0, [vec![9; MAX_DATAGRAM]]);
        assert_eq!(framed(10, |_| None), None);
        assert_eq!(framed(10, |_| Some(0)), None);
    }

    proptest! {
        #[test]
        fn datagrams_come_out_as_they_went_in_however_the_bytes_are_cut(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
            called: bool, cuts in proptest::collection::vec(1usize..200, 1..40),
        ) {
            let key = PreambleKey::of(&KEY);
            let preamble = if called { vec![] } else { key.preamble([5; 16]).to_vec() };
            let bytes: Vec<u8> = preamble.into_iter().chain(datagrams.iter().flat_map(|datagram| frame(datagram))).collect();
            let (mut rest, mut pieces) = (&bytes[..], Vec::new());
            for &cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            let mut decoder = if called { Decoder::of_called() } else { Decoder::of_caller(key) };
            prop_assert_eq!(decoded(&mut decoder, pieces), (datagrams, true));
            prop_assert!(decoder.is_open() && decoder.partial.is_empty());
        }

        #[test]
        fn no_more_than_one_datagram_is_kept_of_arbitrary_bytes(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..20),
        ) {
            let mut decoder = Decoder::of_called();
            for piece in pieces {
                if decoder.input(&piece, |datagram| assert!(!datagram.is_empty())).is_err() {
                    break;
                }
                prop_assert!(decoder.partial.len() < LENGTH + MAX_DATAGRAM);
            }
        }
    }
}
