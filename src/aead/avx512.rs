//! ChaCha20-Poly1305 (RFC 8439 §2.8) by vectors of 512 bits.
//!
//! Block 0 of the key stream holds the one-time key of Poly1305, block 1 goes over the first 64 bytes of the message, and so
//! on. Block 0 and the first fifteen of the others come from one computation, which is all a short packet needs. In
//! longer ones the ciphertext that is there is summed up for the tag while the next blocks are made: each of the two waits
//! for its own results half the time.

use super::TAG_LEN;
use super::chacha20::{Cipher, MOST};
use super::poly1305::{Backlog, CHUNK, LANES_FROM, Lanes, Poly1305};
use super::vector::{BYTES, load, load_part, store, store_part};
use std::arch::x86_64::*;

/// Whether this processor has all that the functions here are made of.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("bmi2")
}

/// Encrypts `plaintext` into `ciphertext`, which is as long.
#[target_feature(enable = "avx512bw,avx512dq,avx512ifma,bmi2")]
pub(super) fn seal(key: &[u8; 32], counter: u64, plaintext: &[u8], ciphertext: &mut [u8], tag: &mut [u8; TAG_LEN]) {
    *tag = crypt::<true>(&Cipher::new(key, counter), plaintext, ciphertext);
}

/// Decrypts `ciphertext` into `plaintext`, which is as long; whether the tag is right. If not, `plaintext` is zeroes.
#[target_feature(enable = "avx512bw,avx512dq,avx512ifma,bmi2")]
pub(super) fn open(
    key: &[u8; 32],
    counter: u64,
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    plaintext: &mut [u8],
) -> bool {
    let made = crypt::<false>(&Cipher::new(key, counter), ciphertext, plaintext);
    // One comparison of whole words: how much of a forged tag was right does not show in the time this takes.
    let authentic = u128::from_ne_bytes(made) == u128::from_ne_bytes(*tag);
    if !authentic {
        plaintext.fill(0);
    }
    authentic
}

/// Combines `from` with the key stream into `to`, which is as long. Returns the tag of the ciphertext, whichever that is.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512ifma,bmi2")]
fn crypt<const SEALING: bool>(cipher: &Cipher, from: &[u8], to: &mut [u8]) -> [u8; TAG_LEN] {
    let mut stream = [_mm512_setzero_si512(); MOST];
    cipher.blocks(0, 1 + from.len().div_ceil(BYTES), &mut stream, None);
    let mut key = [0; BYTES];
    store(&mut key, stream[0]);
    let mut mac = Poly1305::new(&key);
    let mut done = from.len().min((MOST - 1) * BYTES);
    combine(&stream[1..], &from[..done], &mut to[..done]);

    // How much of the ciphertext the tag has seen.
    let mut summed = 0;
    if from.len() >= LANES_FROM
        && let Some(chunk) = ciphertext::<SEALING>(from, to).first_chunk()
    {
        let mut lanes = Lanes::new(&mac, chunk);
        summed += CHUNK;
        for first in (MOST as u32..).step_by(MOST) {
            if done == from.len() {
                break;
            }
            // When opening all the ciphertext is there from the beginning.
            let there = if SEALING { &to[..done] } else { from };
            let (chunks, _) = there[summed..].as_chunks();
            let mut backlog = Backlog { lanes: &mut lanes, chunks };
            cipher.blocks(first, (from.len() - done).div_ceil(BYTES), &mut stream, Some(&mut backlog));
            summed += (chunks.len() - backlog.chunks.len()) * CHUNK;
            let end = from.len().min(done + MOST * BYTES);
            combine(&stream, &from[done..end], &mut to[done..end]);
            done = end;
        }
        let (chunks, _) = ciphertext::<SEALING>(from, to)[summed..].as_chunks();
        for chunk in chunks {
            lanes.update(chunk);
        }
        summed += chunks.len() * CHUNK;
        lanes.collect(&mut mac);
    }
    mac.update_padded(&ciphertext::<SEALING>(from, to)[summed..]);
    // The lengths of what is authenticated besides, and of the ciphertext (RFC 8439 §2.8).
    mac.block((from.len() as u128) << 64);
    mac.tag()
}

/// Which of the two is the ciphertext.
#[inline]
fn ciphertext<'a, const SEALING: bool>(from: &'a [u8], to: &'a [u8]) -> &'a [u8] {
    if SEALING { to } else { from }
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
