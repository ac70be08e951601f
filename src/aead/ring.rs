//! ring's ChaCha20-Poly1305, which works in place: the message is copied first.

use super::TAG_LEN;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::mem::{ManuallyDrop, needs_drop};

/// ring's key, made once: making it for each message shows in the time of a small packet. ring does not wipe it; this does.
pub(super) struct Cipher {
    /// Always there: the only error in making it is a key of another length.
    key: ManuallyDrop<Option<LessSafeKey>>,
}

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: ManuallyDrop::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new)) }
    }

    /// Encrypts `plaintext` into `ciphertext`, which is as long.
    pub(super) fn seal(&self, counter: u64, plaintext: &[u8], ciphertext: &mut [u8], tag: &mut [u8; TAG_LEN]) {
        ciphertext.copy_from_slice(plaintext);
        let made = self
            .key
            .as_ref()
            .and_then(|key| key.seal_in_place_separate_tag(nonce(counter), Aad::empty(), ciphertext).ok());
        match made {
            Some(made) => tag.copy_from_slice(made.as_ref()),
            // ring refuses messages of more than 256 GiB, and nothing else. No plaintext leaves here.
            None => {
                ciphertext.fill(0);
                tag.fill(0);
            }
        }
    }

    /// Decrypts `ciphertext` into `plaintext`, which is as long; whether the tag is right.
    pub(super) fn open(&self, counter: u64, ciphertext: &[u8], tag: &[u8; TAG_LEN], plaintext: &mut [u8]) -> bool {
        plaintext.copy_from_slice(ciphertext);
        self.key.as_ref().is_some_and(|key| {
            key.open_in_place_separate_tag(nonce(counter), Aad::empty(), (*tag).into(), plaintext, 0..).is_ok()
        })
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        // Wiping instead of dropping forgets nothing only as long as there is nothing to drop.
        const { assert!(!needs_drop::<LessSafeKey>()) };
        // SAFETY: the pointer is to our own field, which nothing reads afterwards and nobody drops.
        unsafe { zeroize::zeroize_flat_type(&raw mut self.key) };
    }
}

/// Four zero bytes and the counter (WireGuard paper §5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
