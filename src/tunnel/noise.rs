//! The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s in WireGuard's two messages (paper §5.4.2, §5.4.3).
//!
//! ```text
//!  initiation  1 0 0 0 | sender (4) | ephemeral (32) | static (32+16) | timestamp (12+16) | mac1 (16) | mac2 (16)
//!  response    2 0 0 0 | sender (4) | receiver (4)   | ephemeral (32) | nothing (0+16)    | mac1 (16) | mac2 (16)
//! ```
//!
//! The initiator knows whom it calls; the responder learns from the first message who calls, looks that peer up, and only
//! then goes on. So its half is in three steps: [`Called::read`], [`Called::authenticate`], [`Called::respond`]. What the
//! two static keys have in common never changes and is computed once for each peer, in [`Parties`].
//!
//! The MACs at the end are `macs`'s. Secrets are wiped when they are dropped.

use super::session::Keys;
use super::{INITIATION, INITIATION_LEN, RESPONSE, RESPONSE_LEN};
use crate::wire::key::{PublicKey, Secret};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hmac::{Mac, SimpleHmac};
use x25519_dalek::{PublicKey as Point, StaticSecret};
use zeroize::Zeroizing;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const TAG: usize = 16;

/// 32 bytes that are wiped.
type Hidden = Zeroizing<[u8; 32]>;
/// Seconds and nanoseconds of TAI64N, big-endian, so that they compare as times do.
pub(super) type Timestamp = [u8; 12];

/// Two members that may have a session.
pub(super) struct Parties {
    ours: StaticSecret,
    our_public: Point,
    theirs: Point,
    preshared: Hidden,
    /// The Diffie-Hellman result of both static keys; `None` if the peer's key is not one.
    in_common: Option<Hidden>,
}

impl Parties {
    pub(super) fn new(ours: &StaticSecret, theirs: PublicKey, preshared: Option<&Secret>) -> Self {
        let theirs = Point::from(theirs.0);
        Self {
            ours: ours.clone(),
            our_public: Point::from(ours),
            theirs,
            preshared: Zeroizing::new(preshared.map_or([0; 32], |key| *key.expose())),
            in_common: agree(ours, &theirs),
        }
    }
}

/// What a Diffie-Hellman exchange gives, unless the other side sent a point that gives zero to everybody.
fn agree(secret: &StaticSecret, point: &Point) -> Option<Hidden> {
    let shared = secret.diffie_hellman(point);
    shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
}

/// The chaining key and the hash of what was said: all state between two steps.
struct Transcript {
    chain: Hidden,
    hash: [u8; 32],
}

impl Transcript {
    /// The start, which commits to the responder's key.
    fn new(responder: &Point) -> Self {
        let chain: [u8; 32] = Blake2s256::digest(CONSTRUCTION).into();
        let hash = Blake2s256::new().chain_update(chain).chain_update(IDENTIFIER).finalize().into();
        let mut transcript = Self { chain: Zeroizing::new(chain), hash };
        transcript.hear(responder.as_bytes());
        transcript
    }

    /// Takes in what both sides see.
    fn hear(&mut self, bytes: &[u8]) {
        self.hash = Blake2s256::new().chain_update(self.hash).chain_update(bytes).finalize().into();
    }

    /// Takes in what both sides know: Noise's HKDF with N outputs, the first of which is the next chaining key.
    fn mix<const N: usize>(&mut self, secret: &[u8]) -> [Hidden; N] {
        let root = hmac(&self.chain[..], &[secret]);
        let mut outputs = [(); N].map(|()| Zeroizing::new([0; 32]));
        for n in 0..N {
            let before: &[u8] = if n == 0 { &[] } else { &outputs[n - 1][..] };
            outputs[n] = hmac(&root[..], &[before, &[n as u8 + 1]]);
        }
        self.chain = outputs[0].clone();
        outputs
    }

    /// The key for the next field, after taking in `secret`.
    fn key(&mut self, secret: &[u8]) -> Hidden {
        let [_, key] = self.mix(secret);
        key
    }

    /// Takes in the pre-shared key; returns the key for the last field.
    fn preshared(&mut self, preshared: &Hidden) -> Hidden {
        let [_, public, key] = self.mix(&preshared[..]);
        self.hear(&public[..]);
        key
    }

    /// Seals `plain` into `field`, which is a tag longer.
    fn seal(&mut self, key: &Hidden, plain: &[u8], field: &mut [u8]) {
        let (bytes, tag) = field.split_at_mut(plain.len());
        bytes.copy_from_slice(plain);
        // Fails for fields of more than 256 GiB only.
        if let Ok(made) = cipher(key).encrypt_in_place_detached(&[0; 12].into(), &self.hash, bytes) {
            tag.copy_from_slice(&made);
        }
        self.hear(field);
    }

    /// Opens `field`; `None` if it is not authentic.
    fn open<const N: usize>(&mut self, key: &Hidden, field: &[u8]) -> Option<[u8; N]> {
        let (bytes, tag) = field.split_at_checked(N)?;
        let (mut plain, tag): ([u8; N], [u8; TAG]) = (bytes.try_into().ok()?, tag.try_into().ok()?);
        cipher(key).decrypt_in_place_detached(&[0; 12].into(), &self.hash, &mut plain, &tag.into()).ok()?;
        self.hear(field);
        Some(plain)
    }

    /// The keys of the session, first the one of the initiator's messages.
    fn finish(mut self) -> [Hidden; 2] {
        self.mix(&[])
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Hidden {
    // Any length will do for a key of HMAC; no key of ours is longer than a block.
    let Ok(mut hmac) = <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key) else { return Zeroizing::new([0; 32]) };
    parts.iter().for_each(|part| hmac.update(part));
    Zeroizing::new(hmac.finalize().into_bytes().into())
}

fn cipher(key: &Hidden) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new((&**key).into())
}

/// An initiator waiting for the response.
pub(super) struct Calling {
    transcript: Transcript,
    ephemeral: StaticSecret,
}

impl Calling {
    /// Writes an initiation without its MACs. `index` is ours for the session, `random` makes the ephemeral key. `None`
    /// when the peer's key is not one.
    pub(super) fn initiate(
        parties: &Parties,
        index: u32,
        timestamp: &Timestamp,
        random: [u8; 32],
        message: &mut [u8; INITIATION_LEN],
    ) -> Option<Self> {
        let mut transcript = Transcript::new(&parties.theirs);
        let ephemeral = StaticSecret::from(random);
        let public = Point::from(&ephemeral);
        message[..4].copy_from_slice(&[INITIATION, 0, 0, 0]);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[8..40].copy_from_slice(public.as_bytes());
        transcript.hear(public.as_bytes());
        let [_] = transcript.mix(public.as_bytes());
        let key = transcript.key(&agree(&ephemeral, &parties.theirs)?[..]);
        transcript.seal(&key, parties.our_public.as_bytes(), &mut message[40..88]);
        let key = transcript.key(&parties.in_common.as_ref()?[..]);
        transcript.seal(&key, timestamp, &mut message[88..116]);
        Some(Self { transcript, ephemeral })
    }

    /// Reads the response. Returns the peer's index and the keys; `None` if it is not an answer of this peer to this
    /// initiation, which may then still be answered.
    pub(super) fn finish(&self, parties: &Parties, message: &[u8; RESPONSE_LEN]) -> Option<(u32, Keys)> {
        let mut transcript = Transcript { chain: self.transcript.chain.clone(), hash: self.transcript.hash };
        let public = point(&message[12..44])?;
        transcript.hear(public.as_bytes());
        let [_] = transcript.mix(public.as_bytes());
        let [_] = transcript.mix(&agree(&self.ephemeral, &public)?[..]);
        let [_] = transcript.mix(&agree(&parties.ours, &public)?[..]);
        let key = transcript.preshared(&parties.preshared);
        let _: [u8; 0] = transcript.open(&key, &message[44..60])?;
        let [send, receive] = transcript.finish();
        Some((index(message), Keys { send, receive }))
    }
}

/// A responder that knows who says that it calls.
pub struct Called {
    transcript: Transcript,
    ephemeral: Point,
    /// The initiator's index for the session.
    index: u32,
    caller: PublicKey,
    timestamp: [u8; 28],
}

impl Called {
    /// Reads an initiation as far as one key of ours can: whose it is. It may be a copy, and the caller's key may not be
    /// its sender's.
    pub(super) fn read(ours: &StaticSecret, message: &[u8; INITIATION_LEN]) -> Option<Self> {
        let mut transcript = Transcript::new(&Point::from(ours));
        let ephemeral = point(&message[8..40])?;
        transcript.hear(ephemeral.as_bytes());
        let [_] = transcript.mix(ephemeral.as_bytes());
        let key = transcript.key(&agree(ours, &ephemeral)?[..]);
        let caller = PublicKey(transcript.open(&key, &message[40..88])?);
        let timestamp = message[88..116].try_into().ok()?;
        Some(Self { transcript, ephemeral, index: index(message), caller, timestamp })
    }

    /// Whose key the initiation names.
    pub fn caller(&self) -> PublicKey {
        self.caller
    }

    /// Proves that the caller has the key that it named, and returns when it says that it called.
    pub(super) fn authenticate(&mut self, parties: &Parties) -> Option<Timestamp> {
        let key = self.transcript.key(&parties.in_common.as_ref()?[..]);
        self.transcript.open(&key, &self.timestamp)
    }

    /// Writes a response without its MACs, after [`Self::authenticate`]. Returns the peer's index and the keys.
    pub(super) fn respond(
        mut self,
        parties: &Parties,
        index: u32,
        random: [u8; 32],
        message: &mut [u8; RESPONSE_LEN],
    ) -> Option<(u32, Keys)> {
        let ephemeral = StaticSecret::from(random);
        let public = Point::from(&ephemeral);
        message[..4].copy_from_slice(&[RESPONSE, 0, 0, 0]);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[8..12].copy_from_slice(&self.index.to_le_bytes());
        message[12..44].copy_from_slice(public.as_bytes());
        self.transcript.hear(public.as_bytes());
        let [_] = self.transcript.mix(public.as_bytes());
        let [_] = self.transcript.mix(&agree(&ephemeral, &self.ephemeral)?[..]);
        let [_] = self.transcript.mix(&agree(&ephemeral, &parties.theirs)?[..]);
        let key = self.transcript.preshared(&parties.preshared);
        self.transcript.seal(&key, &[], &mut message[44..60]);
        let [receive, send] = self.transcript.finish();
        Some((self.index, Keys { send, receive }))
    }
}

fn point(bytes: &[u8]) -> Option<Point> {
    Some(Point::from(<[u8; 32]>::try_from(bytes).ok()?))
}

/// The sender's index.
fn index(message: &[u8]) -> u32 {
    message[4..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TIME: Timestamp = [0x40, 0, 0, 0, 0x65, 0, 0, 0, 0x12, 0, 0, 0];

    fn parties(preshared: Option<[u8; 32]>) -> [Parties; 2] {
        let [one, two] = [3, 4].map(|n| Secret::private([n; 32]));
        let preshared = preshared.map(Secret::shared);
        [(&one, &two), (&two, &one)].map(|(ours, theirs)| {
            Parties::new(&StaticSecret::from(*ours.expose()), theirs.public_key(), preshared.as_ref())
        })
    }

    /// Both messages, and both sides' keys.
    fn handshake(ours: &Parties, theirs: &Parties) -> Option<([u8; 148], [u8; 92], Keys, Keys)> {
        let (mut initiation, mut response) = ([0; 148], [0; 92]);
        let calling = Calling::initiate(ours, 0x0011_2233, &TIME, [5; 32], &mut initiation)?;
        let mut called = Called::read(&theirs.ours, &initiation)?;
        assert_eq!(called.caller().0, *ours.our_public.as_bytes());
        assert_eq!(called.authenticate(theirs)?, TIME);
        let (index, theirs) = called.respond(theirs, 0x4455_6677, [6; 32], &mut response)?;
        assert_eq!(index, 0x0011_2233);
        let (index, ours) = calling.finish(ours, &response)?;
        assert_eq!(index, 0x4455_6677);
        Some((initiation, response, ours, theirs))
    }

    #[test]
    fn both_sides_get_the_same_keys_the_other_way_round() {
        for preshared in [None, Some([9; 32])] {
            let [one, two] = parties(preshared);
            let (.., ours, theirs) = handshake(&one, &two).unwrap();
            assert_eq!((*ours.send, *ours.receive), (*theirs.receive, *theirs.send));
            assert_ne!(*ours.send, *ours.receive);
        }
    }

    #[test]
    fn the_bytes_are_the_ones_that_the_paper_s_formulas_give() {
        // Computed from the paper's formulas in Python, with X25519 and ChaCha20-Poly1305 written from their RFCs.
        let [one, two] = parties(Some([9; 32]));
        let (initiation, response, keys, _) = handshake(&one, &two).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let digest = |bytes: &[u8]| hex(&Blake2s256::digest(bytes));
        let expected = "5b86759e066c01f968813b571dec2df920b9a2fa11fa22538d9b42c869792d43";
        assert_eq!(digest(&initiation[..116]), expected);
        assert_eq!(digest(&response[..60]), "810f597785ec002cde8359741805fba4b55220659e4e6a0ac591d3ab656aa5ec");
        assert_eq!(hex(&keys.send[..]), "7fa87c8068ca4fcf31579de1f55f32e490624891156deab4cc6aee5afdbf885e");
        assert_eq!(hex(&keys.receive[..]), "4ec92823c39378b09fe52f38097cb45021e6ffddd142590a1eebab042d12458b");
    }

    #[test]
    fn the_hmac_is_the_one_of_rfc_2104() {
        // Python: hmac.new(b"key", b"The quick brown fox jumps over the lazy dog", hashlib.blake2s)
        let expected = "f93215bb90d4af4c3061cd932fb169fb8bb8a91d0b4022baea1271e1323cd9a0";
        let found = hmac(b"key", &[b"The quick brown fox ", b"jumps over the lazy dog"]);
        assert_eq!(found.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }

    #[test]
    fn a_different_preshared_key_is_found_out_by_the_response() {
        let ([one, _], [_, two]) = (parties(Some([1; 32])), parties(Some([2; 32])));
        assert!(handshake(&one, &two).is_none());
    }

    #[test]
    fn no_byte_may_be_changed_on_the_way() {
        let [one, two] = parties(None);
        let (mut initiation, mut response) = ([0; 148], [0; 92]);
        let calling = Calling::initiate(&one, 1, &TIME, [5; 32], &mut initiation).unwrap();
        let called = |message: &[u8; 148]| {
            let mut called = Called::read(&two.ours, message)?;
            called.authenticate(&two).map(|_| called)
        };
        for at in 8..116 {
            let mut changed = initiation;
            changed[at] ^= 1;
            assert!(called(&changed).is_none(), "initiation, byte {at}");
        }
        called(&initiation).unwrap().respond(&two, 2, [6; 32], &mut response).unwrap();
        for at in 12..60 {
            let mut changed = response;
            changed[at] ^= 1;
            assert!(calling.finish(&one, &changed).is_none(), "response, byte {at}");
        }
        assert!(calling.finish(&one, &response).is_some(), "rubbish before it does no harm");
    }

    #[test]
    fn points_that_agree_on_nothing_with_everybody_are_refused() {
        let [one, two] = parties(None);
        let (mut initiation, mut response) = ([0; 148], [0; 92]);
        let calling = Calling::initiate(&one, 1, &TIME, [5; 32], &mut initiation).unwrap();
        let mut zero = initiation;
        zero[8..40].fill(0);
        assert!(Called::read(&two.ours, &zero).is_none());
        let mut called = Called::read(&two.ours, &initiation).unwrap();
        called.authenticate(&two).unwrap();
        called.respond(&two, 2, [6; 32], &mut response).unwrap();
        response[12..44].fill(0);
        assert!(calling.finish(&one, &response).is_none());
        let nobody = Parties::new(&one.ours, PublicKey([0; 32]), None);
        assert!(Calling::initiate(&nobody, 1, &TIME, [5; 32], &mut initiation).is_none());
    }
}
