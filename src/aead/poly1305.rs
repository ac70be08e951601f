//! Poly1305 (RFC 8439 §2.5): a polynomial over the integers modulo 2^130 - 5, whose coefficients are the message's blocks of
//! 16 bytes and whose point is the secret *r*.
//!
//! One block at a time is Horner's rule: `h = (h + block) * r`. [`Poly1305`] does that with words of 64 bits, which is all
//! there is for short messages. Long ones begin with eight blocks at a time ([`Lanes`]): each lane of a vector sums up
//! every eighth block, all lanes are multiplied by *r*^8 in between, and at the end the lane of block *i* by *r*^(8-i), after
//! which the sum of all lanes is *h*.
//!
//! Vectors are never mapped or folded over: what takes a closure is compiled without these instructions, and where it is not
//! inlined (that depends on how the crate is split for compilation) each vector goes through memory.
//!
//! Nothing branches on or is indexed by a secret; lengths are public.

use super::TAG_LEN;
use super::vector::{self, BYTES};
use std::arch::x86_64::*;

/// What [`Lanes`] take at a time: eight blocks, in bytes.
pub(super) const CHUNK: usize = 128;

/// The bytes of a message from which on [`Lanes`] pay: making the powers of *r* takes as long as ten blocks one by one.
pub(super) const LANES_FROM: usize = 256;

/// The state of one message.
#[derive(Clone, Copy)]
pub(super) struct Poly1305 {
    /// The sum so far, least significant word first; the last word is at most 4.
    h: [u64; 3],
    /// The point, with the bits cleared that RFC 8439 §2.5 clears.
    r: [u64; 2],
    /// What the sum is hidden with in the end.
    s: [u64; 2],
}

impl Poly1305 {
    /// A message under the one-time key that begins `block`: *r*, not yet clamped, and *s*.
    #[inline]
    pub(super) fn new(block: &[u8; BYTES]) -> Self {
        let (words, _) = block.as_chunks();
        let [r0, r1, s0, s1] = [words[0], words[1], words[2], words[3]].map(u64::from_le_bytes);
        Self { h: [0; 3], r: [r0 & 0x0fff_fffc_0fff_ffff, r1 & 0x0fff_fffc_0fff_fffc], s: [s0, s1] }
    }

    /// Adds whole blocks and, as the AEAD construction wants it (RFC 8439 §2.8), a last one padded with zeroes.
    #[inline]
    pub(super) fn update_padded(&mut self, message: &[u8]) {
        let (blocks, end) = message.as_chunks::<16>();
        for block in blocks {
            self.block(u128::from_le_bytes(*block));
        }
        if !end.is_empty() {
            let mut block = [0; 16];
            block[..end.len()].copy_from_slice(end);
            self.block(u128::from_le_bytes(block));
        }
    }

    /// One whole block, a little-endian number.
    #[inline]
    pub(super) fn block(&mut self, block: u128) {
        let [r0, r1] = self.r.map(u128::from);
        // 2^130 is 5, so a multiple of 2^128 is 5/4 of one of 1; r1 is a multiple of 4.
        let s1 = r1 + (r1 >> 2);
        let [h0, h1, h2] = self.h;
        let (h0, carry) = h0.overflowing_add(block as u64);
        let (h1, carry1) = h1.overflowing_add((block >> 64) as u64);
        let (h1, carry2) = h1.overflowing_add(u64::from(carry));
        let h2 = h2 + 1 + u64::from(carry1) + u64::from(carry2);
        let [h0, h1] = [h0, h1].map(u128::from);
        let d0 = h0 * r0 + h1 * s1;
        let d1 = h0 * r1 + h1 * r0 + u128::from(h2 * s1 as u64) + (d0 >> 64);
        let h2 = h2 * r0 as u64 + (d1 >> 64) as u64;
        self.h = reduce_top([d0 as u64, d1 as u64, h2]);
    }

    /// The tag: *h* modulo 2^130 - 5, plus *s* modulo 2^128.
    #[inline]
    pub(super) fn tag(self) -> [u8; TAG_LEN] {
        let [h0, h1, h2] = reduce_top(self.h);
        // h is below 2^130 + 5; h + 5 reaches 2^130 exactly if h is not yet below the modulus.
        let h = u128::from(h0) | u128::from(h1) << 64;
        let (reduced, carry) = h.overflowing_add(5);
        let at_least = 0u128.wrapping_sub(u128::from((h2 + u64::from(carry)) >> 2 & 1));
        let h = (reduced & at_least) | (h & !at_least);
        h.wrapping_add(u128::from(self.s[0]) | u128::from(self.s[1]) << 64).to_le_bytes()
    }
}

/// The same number modulo 2^130 - 5, with a last word of at most 4, and 4 only if the others are small.
#[inline]
fn reduce_top([h0, h1, h2]: [u64; 3]) -> [u64; 3] {
    let five_times = (h2 >> 2) + (h2 & !3);
    let (h0, carry) = h0.overflowing_add(five_times);
    let (h1, carry) = h1.overflowing_add(u64::from(carry));
    [h0, h1, (h2 & 3) + u64::from(carry)]
}

/// A number per lane, in limbs of 44, 44 and 42 bits.
///
/// A product has limbs of just that size, except that the middle one may be 2^8 larger; with a block added none reaches
/// 2^46. That is what keeps all sums in [`Factor::times`] below 2^64.
type Limbs = [__m512i; 3];

/// The bits of a first or second limb.
const MASK44: u64 = (1 << 44) - 1;

/// The bits of a third limb.
const MASK42: u64 = (1 << 42) - 1;

/// What lanes are multiplied with, lane by lane.
#[derive(Clone, Copy)]
struct Factor {
    limbs: Limbs,
    /// The second and third limb, times 20: what goes over 2^132 comes back as 4 * 5.
    folded: [__m512i; 2],
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(limbs: Limbs) -> Self {
        Self { limbs, folded: [twenty(limbs[1]), twenty(limbs[2])] }
    }

    /// The product, modulo 2^130 - 5.
    #[inline]
    #[target_feature(enable = "avx512ifma")]
    fn times(self, [a0, a1, a2]: Limbs) -> Limbs {
        let ([r0, r1, r2], [s1, s2]) = (self.limbs, self.folded);
        // The second limb is the last that the multiplication before this one knows, so it comes last.
        let columns =
            [[(a2, s1), (a0, r0), (a1, s2)], [(a2, s2), (a0, r1), (a1, r0)], [(a2, r0), (a0, r2), (a1, r1)]];
        // Each product as its low 52 bits and the rest, which weighs 2^52: that is 2^8 or 2^10 next limbs.
        let low = [sum_of_lows(columns[0]), sum_of_lows(columns[1]), sum_of_lows(columns[2])];
        let high = [sum_of_highs(columns[0]), sum_of_highs(columns[1]), sum_of_highs(columns[2])];
        let (mask44, mask42) = (_mm512_set1_epi64(MASK44 as i64), _mm512_set1_epi64(MASK42 as i64));
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low[0]), _mm512_slli_epi64::<8>(high[0]));
        let x1 = _mm512_add_epi64(low[1], carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(x1), _mm512_slli_epi64::<8>(high[1]));
        let x2 = _mm512_add_epi64(low[2], carry);
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<42>(x2), _mm512_slli_epi64::<10>(high[2]));
        let five = _mm512_add_epi64(carry, _mm512_slli_epi64::<2>(carry));
        let x0 = _mm512_add_epi64(_mm512_and_si512(low[0], mask44), five);
        let x1 = _mm512_add_epi64(_mm512_and_si512(x1, mask44), _mm512_srli_epi64::<44>(x0));
        [_mm512_and_si512(x0, mask44), x1, _mm512_and_si512(x2, mask42)]
    }
}

/// The powers of *r* that eight lanes need. Even and odd lanes have blocks that are four apart (see [`limbs_of`]): the
/// exponents are 8 4 7 3 6 2 5 1.
struct Powers {
    /// For each lane its own.
    each: Factor,
    /// The eighth in all lanes.
    eighth: Factor,
}

impl Powers {
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    fn new([r0, r1]: [u64; 2]) -> Self {
        let first = [
            _mm512_set1_epi64((r0 & MASK44) as i64),
            _mm512_set1_epi64(((r0 >> 44 | r1 << 20) & MASK44) as i64),
            _mm512_set1_epi64((r1 >> 24) as i64),
        ];
        let second = Factor::new(Factor::new(first).times(first));
        // Exponents 2 2 1 1 2 2 1 1; times r^2, 4 4 3 3 4 4 3 3.
        let two_one = blend(0b0011_0011, first, second.limbs);
        let four_three = second.times(two_one);
        let four_to_one = blend(0b0000_1111, two_one, four_three);
        let eight_to_five = Factor::new(first_lane(four_three)).times(four_to_one);
        let eighth = first_lane(eight_to_five);
        Self { each: Factor::new(blend(0b0101_0101, four_to_one, eight_to_five)), eighth: Factor::new(eighth) }
    }
}

/// The sum of a message's first blocks, which are a multiple of eight.
pub(super) struct Lanes {
    powers: Powers,
    sums: Limbs,
}

impl Lanes {
    /// The lanes of a `message` that begins with these eight blocks.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub(super) fn new(message: &Poly1305, first: &[u8; CHUNK]) -> Self {
        Self { powers: Powers::new(message.r), sums: limbs_of(first) }
    }

    /// Adds the next eight blocks.
    #[inline]
    #[target_feature(enable = "avx512ifma")]
    pub(super) fn update(&mut self, chunk: &[u8; CHUNK]) {
        self.sums = add(self.powers.eighth.times(self.sums), limbs_of(chunk));
    }

    /// Gives `message` the sum of all lanes, to go on with the rest of its blocks.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub(super) fn collect(self, message: &mut Poly1305) {
        let [a, b, c] = self.powers.each.times(self.sums);
        let [a, b, c] = [_mm512_reduce_add_epi64(a), _mm512_reduce_add_epi64(b), _mm512_reduce_add_epi64(c)];
        // Each is below 2^48.
        let (low, carry) = (a as u128 + ((b as u128) << 44)).overflowing_add((c as u128) << 88);
        message.h = reduce_top([low as u64, (low >> 64) as u64, (c as u64 >> 40) + u64::from(carry)]);
    }
}

/// Ciphertext that is there but not yet in the sum of its lanes.
pub(super) struct Backlog<'a> {
    /// Where it is summed up.
    pub(super) lanes: &'a mut Lanes,
    /// What is left of it.
    pub(super) chunks: &'a [[u8; CHUNK]],
}

impl Backlog<'_> {
    /// Takes one chunk of it, if any is left.
    #[inline]
    #[target_feature(enable = "avx512ifma")]
    pub(super) fn shorten(&mut self) {
        if let Some((chunk, rest)) = self.chunks.split_first() {
            self.lanes.update(chunk);
            self.chunks = rest;
        }
    }
}

/// Eight whole blocks, each with the bit above its last: block 0 1 2 3 in the even lanes, 4 5 6 7 in the odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn limbs_of(chunk: &[u8; CHUNK]) -> Limbs {
    let mask44 = _mm512_set1_epi64(MASK44 as i64);
    let (halves, _) = chunk.as_chunks::<BYTES>();
    let [a, b] = [vector::load(&halves[0]), vector::load(&halves[1])];
    let [low, high] = [_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)];
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [
        _mm512_and_si512(low, mask44),
        _mm512_and_si512(middle, mask44),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), _mm512_set1_epi64(1 << 40)),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Limbs, b: Limbs) -> Limbs {
    [_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])]
}

/// `b` in the lanes of the mask's ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn blend(ones: __mmask8, a: Limbs, b: Limbs) -> Limbs {
    [
        _mm512_mask_blend_epi64(ones, a[0], b[0]),
        _mm512_mask_blend_epi64(ones, a[1], b[1]),
        _mm512_mask_blend_epi64(ones, a[2], b[2]),
    ]
}

/// The number of the first lane in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn first_lane([a, b, c]: Limbs) -> Limbs {
    [
        _mm512_broadcastq_epi64(_mm512_castsi512_si128(a)),
        _mm512_broadcastq_epi64(_mm512_castsi512_si128(b)),
        _mm512_broadcastq_epi64(_mm512_castsi512_si128(c)),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn twenty(times: __m512i) -> __m512i {
    _mm512_add_epi64(_mm512_slli_epi64::<4>(times), _mm512_slli_epi64::<2>(times))
}

/// The sum of the low 52 bits of three products. Of each factor only as many count.
#[inline]
#[target_feature(enable = "avx512ifma")]
fn sum_of_lows([a, b, c]: [(__m512i, __m512i); 3]) -> __m512i {
    let sum = _mm512_madd52lo_epu64(_mm512_setzero_si512(), a.0, a.1);
    let sum = _mm512_madd52lo_epu64(sum, b.0, b.1);
    _mm512_madd52lo_epu64(sum, c.0, c.1)
}

/// The sum of the bits above those.
#[inline]
#[target_feature(enable = "avx512ifma")]
fn sum_of_highs([a, b, c]: [(__m512i, __m512i); 3]) -> __m512i {
    let sum = _mm512_madd52hi_epu64(_mm512_setzero_si512(), a.0, a.1);
    let sum = _mm512_madd52hi_epu64(sum, b.0, b.1);
    _mm512_madd52hi_epu64(sum, c.0, c.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::Engine;
    use proptest::prelude::*;

    /// Numbers whose sums and products carry where it hurts: at the ends of words and limbs, around 2^128 and 2^130 - 5.
    fn awkward() -> impl Strategy<Value = u128> {
        prop_oneof![
            Just(0),
            Just(1),
            Just(u128::MAX),
            (0..8u128).prop_map(|n| u128::MAX - n),
            (0..128u32).prop_map(|bit| 1 << bit),
            (0..128u32).prop_map(|bit| (1 << bit) - 1),
            (0..128u32).prop_map(|bit| u128::MAX << bit),
            any::<u128>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_message_has_the_tag_of_long_arithmetic(
            r in awkward(),
            s in awkward(),
            some in prop::collection::vec(awkward(), 1..4),
            length in prop_oneof![0..300usize, 0..3000usize],
        ) {
            let message: Vec<u8> = some.iter().cycle().flat_map(|n| n.to_le_bytes()).take(length).collect();
            assert_tag(r, s, &message);
        }
    }

    #[test]
    fn sums_around_the_modulus_are_reduced_once() {
        // With r = 1 the sum is that of the blocks and of the length, each with its 2^128. Of 4n + 3 of them those are 3 * 2^128
        // and n times the modulus and 5; the first block brings that to one modulus more, and a few less or more.
        for blocks in [2, 6, 10, 18, 22, 50, 126usize] {
            let there = ((16 * blocks as u128) << 64) + 5 * ((blocks as u128 + 1) / 4);
            for off in -8..8i128 {
                let mut message = vec![0; 16 * blocks];
                let missing = (u128::MAX - 4 - there).wrapping_add_signed(off);
                message[..16].copy_from_slice(&missing.to_le_bytes());
                assert_tag(1, 0, &message);
                assert_tag(1, u128::MAX, &message);
            }
        }
    }

    #[test]
    fn the_longest_sums_do_not_overflow() {
        assert_tag(u128::MAX, u128::MAX, &[0xff; 65_535]);
        assert_tag(u128::MAX, 0, &[0; 65_535]);
    }

    #[track_caller]
    #[allow(clippy::print_stdout)]
    fn assert_tag(r: u128, s: u128, message: &[u8]) {
        if !Engine::Avx512.available() {
            println!("skipped: this processor cannot run {}", Engine::Avx512.name());
            return;
        }
        let mut key = [0; BYTES];
        key[..16].copy_from_slice(&r.to_le_bytes());
        key[16..32].copy_from_slice(&s.to_le_bytes());
        let expected = obvious(r, s, message);
        let what = format!("r {r:#x}, s {s:#x}, {} bytes", message.len());
        assert_eq!(block_by_block(&key, message), expected, "{what}");
        // SAFETY: `available` has seen that this processor has what it is made of.
        assert_eq!(unsafe { by_lanes(&key, message) }, expected, "{what}, by lanes");
    }

    fn block_by_block(key: &[u8; BYTES], message: &[u8]) -> u128 {
        let mut sum = Poly1305::new(key);
        sum.update_padded(message);
        sum.block((message.len() as u128) << 64);
        u128::from_le_bytes(sum.tag())
    }

    #[target_feature(enable = "avx512dq,avx512ifma")]
    fn by_lanes(key: &[u8; BYTES], message: &[u8]) -> u128 {
        let mut sum = Poly1305::new(key);
        let (chunks, end) = message.as_chunks();
        if let Some((first, chunks)) = chunks.split_first() {
            let mut lanes = Lanes::new(&sum, first);
            for chunk in chunks {
                lanes.update(chunk);
            }
            lanes.collect(&mut sum);
        }
        sum.update_padded(end);
        sum.block((message.len() as u128) << 64);
        u128::from_le_bytes(sum.tag())
    }

    /// The tag by adding and doubling modulo 2^130 - 5.
    fn obvious(r: u128, s: u128, message: &[u8]) -> u128 {
        let r = r & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let length = ((message.len() as u128) << 64).to_le_bytes();
        let mut h = Number { low: 0, high: 0 };
        for block in message.chunks(16).chain([&length[..]]) {
            let mut padded = [0; 16];
            padded[..block.len()].copy_from_slice(block);
            let sum = h.plus(Number { low: u128::from_le_bytes(padded), high: 1 });
            h = Number { low: 0, high: 0 };
            for bit in (0..128).rev() {
                h = h.plus(h);
                if r >> bit & 1 == 1 {
                    h = h.plus(sum);
                }
            }
        }
        h.low.wrapping_add(s)
    }

    /// `high` * 2^128 + `low`, below 2^130 - 5.
    #[derive(Clone, Copy)]
    struct Number {
        low: u128,
        high: u8,
    }

    impl Number {
        fn plus(self, other: Self) -> Self {
            let (low, carry) = self.low.overflowing_add(other.low);
            let high = self.high + other.high + u8::from(carry);
            // At most one modulus too many, since both were below it.
            if high > 3 || high == 3 && low >= u128::MAX - 4 {
                let (low, carry) = low.overflowing_add(5);
                Self { low, high: high + u8::from(carry) - 4 }
            } else {
                Self { low, high }
            }
        }
    }
}
