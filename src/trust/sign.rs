//! Signatures with a member's one key: XEdDSA (Signal, *The XEdDSA and VXEdDSA Signature Schemes*, revision 1, §2.3).
//!
//! A member is its X25519 key, which WireGuard agrees on keys with. The same key signs: the Montgomery point is taken for
//! the Edwards point of sign 0, and the signature is an Ed25519 one (RFC 8032) by that point. So who knows a member's
//! public key can check what it said, whoever passed it on, and nothing else has to be pinned, stored or exchanged.
//!
//! The nonce is made from the key and the message, as Ed25519 does, so that no random number can give the key away.

use crate::wire::key::{PublicKey, Secret};
use blake2::Blake2sMac256;
use blake2::digest::Mac;
use curve25519_dalek::MontgomeryPoint;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::Sha512;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// What signs as one member. The secret is wiped when this is dropped.
pub struct Signer {
    key: ExpandedSecretKey,
    point: VerifyingKey,
    public: PublicKey,
}

impl Signer {
    /// Signs as the member with this private key.
    pub fn new(private: &Secret) -> Self {
        let scalar = Scalar::from_bytes_mod_order(*private.expose());
        // The point of sign 0 belongs to one of the key and its negative.
        let is_odd = EdwardsPoint::mul_base(&scalar).compress().0[31] >> 7 == 1;
        let scalar = if is_odd { -scalar } else { scalar };
        let hash_prefix = Blake2sMac256::new(private.expose().into());
        let hash_prefix = hash_prefix.chain_update(b"weft signature nonce v1").finalize().into_bytes().into();
        let key = ExpandedSecretKey { scalar, hash_prefix };
        Self { point: VerifyingKey::from(&key), key, public: private.public_key() }
    }

    /// Whose signatures these are.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Signs `message` for one purpose; a signature for one `context` is none for another.
    pub fn sign(&self, context: &str, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        raw_sign::<Sha512>(&self.key, &within(context, message), &self.point).to_bytes()
    }
}

/// Whether the member `by` signed `message` for this `context`.
pub fn verify(by: &PublicKey, context: &str, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let Some(point) = MontgomeryPoint(by.0).to_edwards(0) else { return false };
    let Ok(point) = VerifyingKey::from_bytes(&point.compress().0) else { return false };
    point.verify_strict(&within(context, message), &Signature::from_bytes(signature)).is_ok()
}

/// A message together with what it is signed for. No context has a zero byte.
fn within(context: &str, message: &[u8]) -> Vec<u8> {
    [context.as_bytes(), &[0], message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_signer_purpose_and_message_only() {
        for n in 0..32 {
            let private = Secret::private([n; 32]);
            let (signer, key) = (Signer::new(&private), private.public_key());
            assert_eq!(signer.public_key(), key);
            let mut signature = signer.sign("facts", b"here I am");
            assert!(verify(&key, "facts", b"here I am", &signature));
            assert!(!verify(&key, "facts", b"there I am", &signature));
            assert!(!verify(&key, "fact", b"s\0here I am", &signature));
            assert!(!verify(&Secret::private([n + 1; 32]).public_key(), "facts", b"here I am", &signature));
            signature[usize::from(n) * 2] ^= 1;
            assert!(!verify(&key, "facts", b"here I am", &signature));
        }
    }

    #[test]
    fn keys_that_are_no_points_sign_nothing() {
        for key in [[0; 32], [0xff; 32], [2; 32]] {
            assert!(!verify(&PublicKey(key), "facts", b"", &[0; SIGNATURE_LEN]));
        }
        // The neutral element signs everything, unless the point is checked.
        let mut forged = [0; SIGNATURE_LEN];
        forged[0] = 1;
        assert!(!verify(&PublicKey([0; 32]), "facts", b"", &forged));
    }
}
