//! Moving bytes between slices and vectors of 512 bits: what `std::arch` has only for pointers.

use std::arch::x86_64::*;

/// The bytes of one vector, and of one block of ChaCha20's key stream.
pub(super) const BYTES: usize = 64;

/// The vector that these bytes are.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; BYTES]) -> __m512i {
    // SAFETY: reads 64 bytes from a reference to 64 bytes; any alignment will do.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Makes these bytes those of `vector`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(bytes: &mut [u8; BYTES], vector: __m512i) {
    // SAFETY: writes 64 bytes to a reference to 64 bytes; any alignment will do.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// The first bytes of a vector whose others are zero; all of it from a slice that is longer.
#[inline]
#[target_feature(enable = "avx512bw,bmi2")]
pub(super) fn load_part(bytes: &[u8]) -> __m512i {
    // SAFETY: reads only as many bytes as the mask has ones, which the slice has; any alignment will do.
    unsafe { _mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast()) }
}

/// Makes these bytes the first ones of `vector`; the slice's first 64 if it is longer.
#[inline]
#[target_feature(enable = "avx512bw,bmi2")]
pub(super) fn store_part(bytes: &mut [u8], vector: __m512i) {
    // SAFETY: writes only as many bytes as the mask has ones, which the slice has; any alignment will do.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), first(bytes.len()), vector) }
}

/// A one for each of the first `count` bytes of a vector.
#[inline]
#[target_feature(enable = "bmi2")]
fn first(count: usize) -> __mmask64 {
    _bzhi_u64(!0, count.min(BYTES) as u32)
}
