//! The ledger: what an authority has taken back, and who is the authority. One signed paper that every member holds.
//!
//! ```text
//!  the envelope of the leading authority ([`super::authority`]), then fields: type (1), length (2), value
//!  1 version (8)
//!  2 succession: old authority (32), next authority (32), end of the old (8, seconds since 1970), signature of the old (64)
//!  3 revocation: key (32), the last serial it covers (8), when the last certificate it covers ends (8)
//!  4 reclaim: as 3, of a member that stays one and has lost the slices of those certificates
//!  2, 3 and 4 repeat; unknown types are carried
//! ```
//!
//! Of two ledgers the one with the higher version holds, and of two with one version the one with the greater bytes, so
//! that all members come to hold the same whatever the order in which they meet them. A ledger is believed if the
//! authority that signed it is one the member believes, or its lawful successor: each *succession* is signed by the
//! authority that steps down. Once a member knows of a succession, nothing but its certificates is heeded of the old
//! authority, and those only until its end: a key that was lost before a rotation cannot undo the rotation.

use super::authority::{
    Authority, ENVELOPE_LEN, Envelope, Fields, SIGNATURE_LEN, Unbelieved, exactly, field, once, verify,
};
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::key::{AuthorityKey, PublicKey};
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest ledger: with a certificate and introducers beside it, it fits into one reassembled packet of 9,216 bytes.
pub const MAX_LEDGER: usize = 6 * 1024;
/// The most revocations and reclaims at one time. One goes when the certificates it covers have ended, after 90 days at most; a mesh
/// that revokes more than one member a day is better served by a rotation, after which none is needed.
pub const MAX_REVOKED: usize = 90;
/// The most successions: a file that names an authority from before the first of them is to be brought up to date.
pub const MAX_SUCCESSIONS: usize = 8;
/// What its signature is for.
pub const PURPOSE: &str = "weft ledger";
const SUCCESSION_PURPOSE: &str = "weft succession";

const VERSION: u8 = 1;
const SUCCESSION: u8 = 2;
const REVOCATION: u8 = 3;
const RECLAIM: u8 = 4;

/// One authority hands over to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succession {
    /// Who steps down.
    pub old: AuthorityKey,
    /// Who follows.
    pub next: AuthorityKey,
    /// When the certificates of the old one end, since 1970.
    pub until: Duration,
    /// The old one's signature.
    signature: [u8; SIGNATURE_LEN],
}

impl Succession {
    /// The authority `old` hands over to `next`; its own certificates hold until `until`.
    pub fn new(old: &Authority, next: AuthorityKey, until: Duration) -> Self {
        let signature = old.sign(SUCCESSION_PURPOSE, &Self::signed(&next, until));
        Self { old: old.key(), next, until, signature }
    }

    fn signed(next: &AuthorityKey, until: Duration) -> Vec<u8> {
        [&next.0[..], &until.as_secs().to_be_bytes()].concat()
    }

    fn is_genuine(&self) -> bool {
        verify(&self.old, SUCCESSION_PURPOSE, &Self::signed(&self.next, self.until), &self.signature)
    }
}

/// The certificates of a key that no longer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub key: PublicKey,
    /// Those up to this serial: the authority may give the key a later one.
    pub serial: u64,
    /// When the last of them ends, since 1970.
    pub until: Duration,
}

impl Revocation {
    fn parse(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let (key, serial) = (PublicKey(reader.array()?), reader.u64()?);
        Ok(Self { key, serial, until: Duration::from_secs(u64::from_be_bytes(exactly(reader.0)?)) })
    }

    fn covers(&self, key: &PublicKey, serial: u64) -> bool {
        self.key == *key && serial <= self.serial
    }
}

/// A ledger, its signatures checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Who signed it: the authority that leads.
    pub by: AuthorityKey,
    /// Which edition it is.
    pub version: u64,
    /// How that authority came to lead, the earliest first.
    pub successions: Vec<Succession>,
    /// What no longer counts.
    pub revoked: Vec<Revocation>,
    /// The certificates whose slices no longer count.
    pub reclaimed: Vec<Revocation>,
    unknown: Vec<u8>,
    bytes: Vec<u8>,
}

impl Ledger {
    /// Makes a ledger; `None` when it would break a bound. `unknown` are fields to be carried on from the one before.
    pub fn sign(
        authority: &Authority,
        version: u64,
        successions: Vec<Succession>,
        mut revoked: Vec<Revocation>,
        mut reclaimed: Vec<Revocation>,
        unknown: Vec<u8>,
    ) -> Option<Self> {
        // In one order, so that two who say the same say it in the same bytes.
        for list in [&mut revoked, &mut reclaimed] {
            list.sort_unstable_by_key(|revocation| (revocation.key, revocation.serial));
        }
        let mut fields = Writer::default();
        field(&mut fields, VERSION, &version.to_be_bytes());
        for Succession { old, next, until, signature } in &successions {
            let value = [&old.0[..], &next.0, &until.as_secs().to_be_bytes(), signature].concat();
            field(&mut fields, SUCCESSION, &value);
        }
        let revocations = revoked.iter().map(|revocation| (REVOCATION, revocation));
        let reclaims = reclaimed.iter().map(|reclaim| (RECLAIM, reclaim));
        for (kind, Revocation { key, serial, until }) in revocations.chain(reclaims) {
            let value = [&key.0[..], &serial.to_be_bytes(), &until.as_secs().to_be_bytes()].concat();
            field(&mut fields, kind, &value);
        }
        fields.bytes(&unknown);
        let fits = successions.len() <= MAX_SUCCESSIONS
            && revoked.len() + reclaimed.len() <= MAX_REVOKED
            && ENVELOPE_LEN + fields.0.len() <= MAX_LEDGER;
        let bytes = fits.then(|| authority.seal(PURPOSE, &fields.0))?;
        Some(Self { by: authority.key(), version, successions, revoked, reclaimed, unknown, bytes })
    }

    /// Reads a ledger by one of these authorities or a lawful successor of one, and checks its signatures.
    ///
    /// # Errors
    /// [`Unbelieved`].
    pub fn open(bytes: &[u8], believed: &BTreeSet<AuthorityKey>) -> Result<Self, Unbelieved> {
        if bytes.len() > MAX_LEDGER {
            return Err(Unbelieved::Malformed);
        }
        let envelope = Envelope::parse(bytes)?;
        let ledger = Self::parse(bytes, &envelope)?;
        let mut lawful = believed.clone();
        for succession in &ledger.successions {
            if lawful.contains(&succession.old) && succession.is_genuine() {
                lawful.insert(succession.next);
            }
        }
        if !lawful.contains(&ledger.by) {
            return Err(Unbelieved::Other(ledger.by));
        }
        envelope.verify(PURPOSE)?;
        Ok(ledger)
    }

    fn parse(bytes: &[u8], envelope: &Envelope<'_>) -> Result<Self, Malformed> {
        let (mut version, mut unknown) = (None, Writer::default());
        let (mut successions, mut revoked, mut reclaimed) = (Vec::new(), Vec::new(), Vec::new());
        let mut fields = Fields(Reader(envelope.fields));
        while let Some((kind, value)) = fields.next()? {
            let mut reader = Reader(value);
            match kind {
                VERSION => once(&mut version, u64::from_be_bytes(exactly(value)?))?,
                SUCCESSION => successions.push(Succession {
                    old: AuthorityKey(reader.array()?),
                    next: AuthorityKey(reader.array()?),
                    until: Duration::from_secs(reader.u64()?),
                    signature: exactly(reader.0)?,
                }),
                REVOCATION => revoked.push(Revocation::parse(reader)?),
                RECLAIM => reclaimed.push(Revocation::parse(reader)?),
                _ => field(&mut unknown, kind, value),
            }
            if successions.len() > MAX_SUCCESSIONS || revoked.len() + reclaimed.len() > MAX_REVOKED {
                return Err(Malformed);
            }
        }
        let (by, version) = (envelope.by, version.ok_or(Malformed)?);
        Ok(Self { by, version, successions, revoked, reclaimed, unknown: unknown.0, bytes: bytes.to_vec() })
    }

    /// The bytes that travel.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fields of types we do not know.
    pub fn unknown(&self) -> &[u8] {
        &self.unknown
    }

    /// Whether this takes the place of `other`.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.version, &self.bytes) > (other.version, &other.bytes)
    }

    /// Whether the certificates of `key` up to `serial` are revoked.
    pub fn revokes(&self, key: &PublicKey, serial: u64) -> bool {
        self.revoked.iter().any(|revocation| revocation.covers(key, serial))
    }

    /// Whether the slices in the certificates of `key` up to `serial` are taken from it.
    pub fn reclaims(&self, key: &PublicKey, serial: u64) -> bool {
        self.reclaimed.iter().any(|reclaim| reclaim.covers(key, serial))
    }

    /// When the certificates of an authority that stepped down end.
    pub fn end_of(&self, authority: &AuthorityKey) -> Option<Duration> {
        let stepped_down = |succession: &&Succession| succession.old == *authority && *authority != self.by;
        self.successions.iter().find(stepped_down).map(|succession| succession.until)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::key::Secret;
    use proptest::prelude::*;

    fn authority(n: u8) -> Authority {
        Authority::new(&Secret::shared([n; 32]))
    }

    fn revocation(n: u8) -> Revocation {
        Revocation { key: PublicKey([n; 32]), serial: 5, until: Duration::from_secs(9000) }
    }

    fn believed(authorities: &[&Authority]) -> BTreeSet<AuthorityKey> {
        authorities.iter().map(|authority| authority.key()).collect()
    }

    #[test]
    fn a_ledger_is_read_as_it_was_signed_and_revokes_up_to_a_serial() {
        let (a, b) = (authority(1), authority(2));
        let succession = Succession::new(&a, b.key(), Duration::from_secs(500));
        let unknown = vec![99, 0, 1, 7];
        let made =
            Ledger::sign(&b, 7, vec![succession], vec![revocation(4), revocation(3)], vec![revocation(5)], unknown)
                .unwrap();
        assert_eq!(Ledger::open(made.bytes(), &believed(&[&a])), Ok(made.clone()));
        assert_eq!(Ledger::open(made.bytes(), &believed(&[&authority(3)])), Err(Unbelieved::Other(b.key())));
        assert!(made.revokes(&PublicKey([3; 32]), 5) && !made.revokes(&PublicKey([3; 32]), 6));
        assert!(made.reclaims(&PublicKey([5; 32]), 5) && !made.reclaims(&PublicKey([5; 32]), 6));
        assert!(!made.reclaims(&PublicKey([3; 32]), 5) && !made.revokes(&PublicKey([5; 32]), 5));
        assert_eq!((made.end_of(&a.key()), made.end_of(&b.key())), (Some(Duration::from_secs(500)), None));
    }

    #[test]
    fn a_succession_counts_only_with_the_signature_of_the_one_that_steps_down() {
        let (a, evil) = (authority(1), authority(66));
        let mut forged = Succession::new(&evil, evil.key(), Duration::from_secs(500));
        forged.old = a.key();
        let ledger = Ledger::sign(&evil, 9, vec![forged], Vec::new(), Vec::new(), Vec::new()).unwrap();
        assert_eq!(Ledger::open(ledger.bytes(), &believed(&[&a])), Err(Unbelieved::Other(evil.key())));
    }

    #[test]
    fn no_single_altered_bit_passes() {
        let (a, b) = (authority(1), authority(2));
        let succession = Succession::new(&a, b.key(), Duration::from_secs(500));
        let made =
            Ledger::sign(&b, 7, vec![succession], vec![revocation(3)], vec![revocation(4)], Vec::new()).unwrap();
        for bit in 0..made.bytes().len() * 8 {
            let mut altered = made.bytes().to_vec();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Ledger::open(&altered, &believed(&[&a, &b])).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_largest_ledger_fits() {
        let (a, b) = (authority(1), authority(2));
        let successions = vec![Succession::new(&a, b.key(), Duration::from_secs(500)); MAX_SUCCESSIONS];
        let revoked: Vec<_> = (0..MAX_REVOKED as u8).map(revocation).collect();
        let (some, others) = (revoked[..50].to_vec(), revoked[50..].to_vec());
        let full = Ledger::sign(&a, 1, successions, some, others, Vec::new()).unwrap();
        assert_eq!(Ledger::open(full.bytes(), &believed(&[&a])), Ok(full));
        let more = [revoked, vec![revocation(200)]].concat();
        assert!(Ledger::sign(&a, 1, Vec::new(), more, Vec::new(), Vec::new()).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_fields_never_panic(fields in proptest::collection::vec(0u8..6, 0..300)) {
            let bytes = authority(1).seal(PURPOSE, &fields);
            let _ = Ledger::open(&bytes, &believed(&[&authority(1)]));
        }
    }
}
