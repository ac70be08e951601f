//! The Internet checksum (RFC 1071): one's-complement sums of 16-bit big-endian words.
//!
//! Two facts make it fast. One's-complement addition is associative, so words may be added in any width as long as
//! carries come back in at the low end; and it does not care about byte order, so words are added as the machine
//! loads them and the folded result is swapped once (RFC 1071 §2). Sums travel as `u64` and are folded at the end:
//! partial sums of different regions simply add up, as long as every region but the last has an even length.

use super::Malformed;
use super::vnet::UDP_CHECKSUM;

/// Adds `bytes` to a sum; an odd last byte is padded with zero on its right (RFC 1071 §4.1).
pub fn sum(initial: u64, bytes: &[u8]) -> u64 {
    // 32-bit lanes in 64-bit accumulators: no carry is lost before 16 GiB, and the loop vectorises.
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut lanes = [0u64; 8];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut native: u64 = lanes.iter().sum();
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        native += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    native += u64::from(u32::from_ne_bytes(last));
    add(initial, u64::from(u16::from_be(fold(native))))
}

/// One's-complement addition of two sums.
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    // After a carry the sum is at most 2^64 - 2, so this cannot carry again.
    sum + u64::from(carry)
}

/// Folds a sum to 16 bits, not inverted. Only a sum of nothing but zeroes folds to zero.
pub fn fold(sum: u64) -> u16 {
    let mut sum = (sum >> 32) + (sum & 0xffff_ffff);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Whether the bytes, their checksum field among them, sum up as they must on top of `initial`.
pub fn verifies(initial: u64, bytes: &[u8]) -> bool {
    fold(sum(initial, bytes)) == 0xffff
}

/// Writes the checksum of an IPv4 header (RFC 791 §3.1) into it. `header` is the whole header, options included.
pub(super) fn finish_ipv4(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !fold(sum(0, header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Completes a partial checksum: the field at `start + offset` holds the folded sum of the pseudo-header and is
/// replaced by the checksum over everything from `start` to the end of the frame, as the kernel does it. A UDP
/// checksum (`offset` 6) that comes out as zero is sent as all ones (RFC 768).
///
/// # Errors
/// [`Malformed`] when the field is not within the frame.
pub fn finish(frame: &mut [u8], start: usize, offset: usize) -> Result<(), Malformed> {
    let region = frame.get_mut(start..).ok_or(Malformed)?;
    let mut checksum = !fold(sum(0, region));
    if checksum == 0 && offset == usize::from(UDP_CHECKSUM) {
        checksum = 0xffff;
    }
    let field = region.get_mut(offset..).and_then(|tail| tail.first_chunk_mut::<2>()).ok_or(Malformed)?;
    *field = checksum.to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::testing::naive_sum;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        // RFC 1071 §3.
        assert_eq!(fold(sum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn a_partial_udp_checksum_of_zero_is_sent_as_ones() {
        // Field and data add up to 0xffff, so the inverse is zero.
        let mut frame = [0xaa, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        finish(&mut frame, 1, 6).unwrap();
        assert_eq!(frame[7..], [0xff, 0xff]);
        let mut segment = [0; 18];
        segment[16..].fill(0xff);
        finish(&mut segment, 0, 16).unwrap();
        assert_eq!(segment[16..], [0, 0]);
    }

    #[test]
    fn a_field_outside_the_frame_is_refused() {
        let mut frame = [0; 40];
        for (start, offset) in [(41, 0), (40, 0), (34, 6), (33, 6), (usize::MAX, 6), (0, usize::MAX)] {
            assert_eq!(finish(&mut frame, start, offset), Err(Malformed), "{start} {offset}");
        }
        assert_eq!(finish(&mut frame, 32, 6), Ok(()));
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_naive_sum(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000), skip in 0usize..8, initial: u64,
        ) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            prop_assert_eq!(fold(sum(u64::from(initial as u32), bytes)), naive_sum(u64::from(initial as u32), bytes));
            // The initial value may be anything at all.
            prop_assert_eq!(u128::from(fold(sum(initial, bytes))) % 0xffff,
                (u128::from(initial) + u128::from(naive_sum(0, bytes))) % 0xffff);
        }

        #[test]
        fn all_ones_lose_no_carry(len in 0usize..70_000) {
            let bytes = vec![0xff; len];
            prop_assert_eq!(fold(sum(0, &bytes)), naive_sum(0, &bytes));
        }

        #[test]
        fn even_regions_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!(fold(sum(sum(0, head), tail)), fold(sum(0, &bytes)));
        }

        #[test]
        fn a_finished_checksum_verifies(
            mut frame in proptest::collection::vec(any::<u8>(), 40..300), start in 0usize..20, tcp: bool, pseudo: u16,
        ) {
            let offset = if tcp { 16 } else { 6 };
            frame[start + offset..start + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
            finish(&mut frame, start, offset).unwrap();
            prop_assert!(verifies(u64::from(pseudo), &frame[start..]));
        }
    }
}
