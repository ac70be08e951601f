//! The two MACs at the end of a handshake message, and cookies (WireGuard paper §5.4.4, §5.4.7).
//!
//! *mac1* shows that the sender knows the receiver's public key: what a scanner does not. *mac2* shows that the sender
//! receives at the address it sends from: its key is a *cookie*, which the receiver makes from the address and a secret,
//! and sends there, encrypted, when it is busy.
//!
//! ```text
//!  cookie reply  3 0 0 0 | receiver (4) | nonce (24) | cookie (16+16)
//! ```

use super::{COOKIE_REPLY, COOKIE_REPLY_LEN};
use crate::wire::key::PublicKey;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use hmac::Mac as _;

/// A cookie, or one of the two MACs.
pub(super) type Mac = [u8; 16];

/// Bytes of both MACs at the end of a message.
const MACS: usize = 32;

/// What follows from the public key of whom handshake messages are for.
pub(super) struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    pub(super) fn of(receiver: &PublicKey) -> Self {
        let hash = |label: &[u8]| Blake2s256::new().chain_update(label).chain_update(receiver.0).finalize().into();
        Self { mac1: hash(b"mac1----"), cookie: hash(b"cookie--") }
    }

    /// Writes both MACs at the end of `message`; without a cookie mac2 is zero. Returns mac1.
    pub(super) fn stamp(&self, message: &mut [u8], cookie: Option<&Mac>) -> Mac {
        let (body, macs) = message.split_at_mut(message.len() - MACS);
        let mac1 = mac(&self.mac1, &[body]);
        macs[..16].copy_from_slice(&mac1);
        let mac2 = cookie.map_or([0; 16], |cookie| mac(cookie, &[body, &mac1]));
        macs[16..].copy_from_slice(&mac2);
        mac1
    }

    /// Whether a message's mac1 is right.
    pub(super) fn is_ours(&self, message: &[u8]) -> bool {
        let (body, macs) = message.split_at(message.len() - MACS);
        verify(&self.mac1, body, &macs[..16])
    }

    /// Writes the answer to `message` that carries a cookie to its sender.
    pub(super) fn reply(&self, message: &[u8], cookie: &Mac, nonce: [u8; 24], reply: &mut [u8; COOKIE_REPLY_LEN]) {
        let mac1 = &message[message.len() - MACS..][..16];
        reply[..4].copy_from_slice(&[COOKIE_REPLY, 0, 0, 0]);
        reply[4..8].copy_from_slice(&message[4..8]);
        reply[8..32].copy_from_slice(&nonce);
        reply[32..48].copy_from_slice(cookie);
        let made = self.cipher().encrypt_in_place_detached(XNonce::from_slice(&nonce), mac1, &mut reply[32..48]);
        // Fails for more than 256 GiB only.
        if let Ok(tag) = made {
            reply[48..].copy_from_slice(&tag);
        }
    }

    /// The cookie in an answer to the message of ours that had this mac1.
    pub(super) fn cookie(&self, reply: &[u8; COOKIE_REPLY_LEN], mac1: &Mac) -> Option<Mac> {
        let mut cookie: Mac = reply[32..48].try_into().ok()?;
        let (nonce, tag) = (XNonce::from_slice(&reply[8..32]), Tag::from_slice(&reply[48..]));
        self.cipher().decrypt_in_place_detached(nonce, mac1, &mut cookie, tag).ok()?;
        Some(cookie)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&self.cookie).into())
    }
}

/// Whether a message's mac2 was made with this cookie.
pub(super) fn has_cookie(message: &[u8], cookie: &Mac) -> bool {
    let (body, mac2) = message.split_at(message.len() - 16);
    verify(cookie, body, mac2)
}

/// BLAKE2s with a key of up to 32 bytes and 16 bytes of output.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> Mac {
    // Refuses keys longer than 32 bytes only.
    let Ok(mut mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(key) else { return [0; 16] };
    parts.iter().for_each(|part| Update::update(&mut mac, part));
    mac.finalize_fixed().into()
}

/// In a time that does not depend on where they differ.
fn verify(key: &[u8], body: &[u8], expected: &[u8]) -> bool {
    let Ok(mut mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(key) else { return false };
    Update::update(&mut mac, body);
    mac.verify_slice(expected).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_mac_is_keyed_blake2s() {
        // Python: hashlib.blake2s(b"some message", key=bytes(range(32)), digest_size=16)
        let key: Vec<u8> = (0..32).collect();
        let hex: String = mac(&key, &[b"some ", b"message"]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "dee321f2c758db1c9e30b1ee2cd40a05");
    }

    #[test]
    fn a_cookie_comes_back_to_who_asked_and_to_nobody_else() {
        let keys = MacKeys::of(&PublicKey([7; 32]));
        let (mut asked, mut other) = ([1; 148], [2; 148]);
        let (mac1, wrong) = (keys.stamp(&mut asked, None), keys.stamp(&mut other, None));
        assert!(keys.is_ours(&asked) && !MacKeys::of(&PublicKey([8; 32])).is_ours(&asked));
        assert_eq!(asked[132..], [0; 16]);
        let mut reply = [0; COOKIE_REPLY_LEN];
        keys.reply(&asked, &[9; 16], [3; 24], &mut reply);
        assert_eq!(reply[..8], [3, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(keys.cookie(&reply, &mac1), Some([9; 16]));
        assert_eq!(keys.cookie(&reply, &wrong), None);
        reply[40] ^= 1;
        assert_eq!(keys.cookie(&reply, &mac1), None);
        keys.stamp(&mut asked, Some(&[9; 16]));
        assert!(has_cookie(&asked, &[9; 16]) && !has_cookie(&asked, &[8; 16]));
    }
}
