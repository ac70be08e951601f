//! ring's ChaCha20-Poly1305, which works in place: the message is copied first.
//!
//! ring's own key type is not wiped when dropped, so one is made for each message; it is the bytes of the key, and
//! making it costs nothing that can be measured.

use super::TAG_LEN;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Encrypts `plaintext` into `ciphertext`, which is as long.
pub(super) fn seal(key: &[u8; 32], counter: u64, plaintext: &[u8], ciphertext: &mut [u8], tag: &mut [u8; TAG_LEN]) {
    ciphertext.copy_from_slice(plaintext);
    let made = cipher(key)
        .and_then(|cipher| cipher.seal_in_place_separate_tag(nonce(counter), Aad::empty(), ciphertext).ok());
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
pub(super) fn open(
    key: &[u8; 32],
    counter: u64,
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    plaintext: &mut [u8],
) -> bool {
    plaintext.copy_from_slice(ciphertext);
    cipher(key).is_some_and(|cipher| {
        cipher.open_in_place_separate_tag(nonce(counter), Aad::empty(), (*tag).into(), plaintext, 0..).is_ok()
    })
}

/// Always there: the only error is a key of another length.
fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new)
}

/// Four zero bytes and the counter (WireGuard paper §5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
