//! An authority: an Ed25519 key (RFC 8032) that says who is a member of a network.
//!
//! What it signs has one envelope, whatever is inside:
//!
//! ```text
//! | version 1 | the authority's key (32) | signature (64) | fields until the end ...
//! ```
//!
//! The signature covers the purpose, the version, the key and the fields, so a certificate cannot be shown as a ledger.
//! Who reads one names the authorities it would believe *before* any signature is checked: a stranger's paper costs nothing.

use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::key::{AuthorityKey, Secret};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;
/// Bytes in front of the fields.
pub const ENVELOPE_LEN: usize = 1 + 32 + SIGNATURE_LEN;
const VERSION: u8 = 1;

/// Why something signed is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unbelieved {
    /// It is not of the form.
    #[error("it is damaged")]
    Malformed,
    /// A later weft made it.
    #[error("it was made by a later weft: upgrade this member")]
    Later,
    /// Signed by somebody who has no say here.
    #[error("it is signed by another authority, {0}")]
    Other(AuthorityKey),
    /// The signature is not the authority's.
    #[error("its signature is false")]
    Forged,
}

impl From<Malformed> for Unbelieved {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The secret half of an authority. Wiped from memory when this is dropped.
pub struct Authority {
    key: SigningKey,
}

impl Authority {
    /// The authority with this seed.
    pub fn new(seed: &Secret) -> Self {
        Self { key: SigningKey::from_bytes(seed.expose()) }
    }

    /// What members know it by.
    pub fn key(&self) -> AuthorityKey {
        AuthorityKey(self.key.verifying_key().to_bytes())
    }

    /// Signs `fields`, whatever they are, for one purpose.
    pub fn seal(&self, purpose: &str, fields: &[u8]) -> Vec<u8> {
        let mut sealed = Writer::default();
        let signature = self.sign(purpose, fields);
        sealed.u8(VERSION).bytes(&self.key().0).bytes(&signature).bytes(fields);
        sealed.0
    }

    /// The bare signature.
    pub(super) fn sign(&self, purpose: &str, fields: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&signed(purpose, &self.key(), fields)).to_bytes()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.key())
    }
}

/// Whether `by` signed `fields` for this purpose.
pub(super) fn verify(by: &AuthorityKey, purpose: &str, fields: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&by.0) else { return false };
    key.verify_strict(&signed(purpose, by, fields), &Signature::from_bytes(signature)).is_ok()
}

fn signed(purpose: &str, by: &AuthorityKey, fields: &[u8]) -> Vec<u8> {
    [purpose.as_bytes(), &[0, VERSION], &by.0, fields].concat()
}

/// Something signed, of which nothing is believed yet.
pub(super) struct Envelope<'a> {
    pub(super) by: AuthorityKey,
    pub(super) fields: &'a [u8],
    signature: [u8; SIGNATURE_LEN],
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Unbelieved> {
        let mut reader = Reader(bytes);
        if reader.u8()? != VERSION {
            return Err(Unbelieved::Later);
        }
        let (by, signature) = (AuthorityKey(reader.array()?), reader.array()?);
        Ok(Self { by, signature, fields: reader.0 })
    }

    pub(super) fn verify(&self, purpose: &str) -> Result<(), Unbelieved> {
        if verify(&self.by, purpose, self.fields, &self.signature) { Ok(()) } else { Err(Unbelieved::Forged) }
    }
}

/// Fields one after the other: a type byte, a length of 16 bits, a value.
pub(super) struct Fields<'a>(pub(super) Reader<'a>);

impl<'a> Fields<'a> {
    /// The next field and its value.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.0.u8()?, self.0.prefixed()?)))
    }
}

/// Writes one field.
pub(super) fn field(to: &mut Writer, kind: u8, value: &[u8]) {
    to.u8(kind).prefixed(value);
}

/// A value that is exactly this long.
pub(super) fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed)
}

/// Sets what may be said once.
pub(super) fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if place.replace(value).is_some() { Err(Malformed) } else { Ok(()) }
}

/// A text that names a member.
pub(super) fn name(value: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed)?;
    if crate::wire::name::is_name(text) { Ok(text.to_owned()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_for_one_purpose_is_nothing_for_another() {
        let authority = Authority::new(&Secret::shared([1; 32]));
        let sealed = authority.seal("a", b"fields");
        let envelope = Envelope::parse(&sealed);
        let Ok(envelope) = envelope else { panic!("an envelope") };
        assert_eq!((envelope.by, envelope.fields), (authority.key(), &b"fields"[..]));
        assert_eq!(envelope.verify("a"), Ok(()));
        assert_eq!(envelope.verify("b"), Err(Unbelieved::Forged));
        assert!(!verify(&AuthorityKey([0; 32]), "a", b"", &[0; SIGNATURE_LEN]), "a key of small order signs nothing");
    }
}
