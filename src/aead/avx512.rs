//! ChaCha20-Poly1305 (RFC 8439 §2.8) by vectors of 512 bits.
//!
//! Block 0 of the key stream holds the one-time key of Poly1305, block 1 goes over the first 64 bytes of the message, and so
//! on. Block 0 and the first fifteen of the others come from one computation, which is all a short packet needs. The
//! tag is that of the ciphertext: a message that is sealed is encrypted first, one that is opened is decrypted last, and
//! only if its tag is right.

use super::TAG_LEN;
use super::chacha20::{Cipher, MOST};
use super::poly1305::Poly1305;
use super::vector::{BYTES, load, load_part, store, store_part};
use std::arch::x86_64::*;

/// Whether this processor has all that the functions here are made of.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("bmi2")
}

/// Encrypts `plaintext` into `ciphertext`, which is as long.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,bmi2")]
pub(super) fn seal(key: &[u8; 32], counter: u64, plaintext: &[u8], ciphertext: &mut [u8], tag: &mut [u8; TAG_LEN]) {
    let cipher = Cipher::new(key, counter);
    let mut stream = [_mm512_setzero_si512(); MOST];
    let mac = begin(&cipher, plaintext.len(), &mut stream);
    crypt(&cipher, &mut stream, plaintext, ciphertext);
    *tag = mac.finish(ciphertext);
}

/// Decrypts `ciphertext` into `plaintext`, which is as long, if the tag is right; whether it is.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,bmi2")]
pub(super) fn open(
    key: &[u8; 32],
    counter: u64,
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    plaintext: &mut [u8],
) -> bool {
    let cipher = Cipher::new(key, counter);
    let mut stream = [_mm512_setzero_si512(); MOST];
    let mac = begin(&cipher, ciphertext.len(), &mut stream);
    // One comparison of whole words: how much of a forged tag was right does not show in the time this takes.
    let authentic = u128::from_ne_bytes(mac.finish(ciphertext)) == u128::from_ne_bytes(*tag);
    if authentic {
        crypt(&cipher, &mut stream, ciphertext, plaintext);
    }
    authentic
}

/// Makes the first blocks of the stream for a message of so many bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,bmi2")]
fn begin(cipher: &Cipher, length: usize, stream: &mut [__m512i; MOST]) -> Poly1305 {
    cipher.blocks(0, 1 + length.div_ceil(BYTES), stream);
    let mut key = [0; BYTES];
    store(&mut key, stream[0]);
    Poly1305::new(&key)
}

/// Combines `from` with the key stream into `to`, which is as long. `stream` has the first blocks.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,bmi2")]
fn crypt(cipher: &Cipher, stream: &mut [__m512i; MOST], mut from: &[u8], mut to: &mut [u8]) {
    let mut first = 1;
    for next in (MOST as u32..).step_by(MOST) {
        let blocks = &stream[first..];
        let (from_here, from_next) = from.split_at(from.len().min(blocks.len() * BYTES));
        let (to_here, to_next) = to.split_at_mut(from_here.len());
        combine(blocks, from_here, to_here);
        if from_next.is_empty() {
            return;
        }
        (from, to) = (from_next, to_next);
        cipher.blocks(next, from.len().div_ceil(BYTES), stream);
        first = 0;
    }
}

/// Combines `from`, not longer than the key stream in `blocks`, into `to`, which is as long as `from`.
#[inline]
#[target_feature(enable = "avx512bw,bmi2")]
fn combine(blocks: &[__m512i], from: &[u8], to: &mut [u8]) {
    let (from, from_end) = from.as_chunks();
    let (to, to_end) = to.as_chunks_mut();
    for ((block, from), to) in blocks.iter().zip(from).zip(to) {
        store(to, _mm512_xor_si512(*block, load(from)));
    }
    if let Some(block) = blocks.get(from.len()) {
        store_part(to_end, _mm512_xor_si512(*block, load_part(from_end)));
    }
}
