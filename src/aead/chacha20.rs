//! ChaCha20 (RFC 8439 §2.3) by vectors of 512 bits: many blocks of key stream at a time.
//!
//! A block is sixteen words that go through ten double rounds, each of four quarter rounds on the columns and four on the
//! diagonals of a 4 by 4 square. Blocks differ in their number only and do not depend on each other, so there are two
//! ways to fill vectors with them:
//!
//! * [`Cipher::sixteen`]: vector *n* holds word *n* of sixteen blocks. The rounds are nothing but arithmetic; afterwards
//!   the words are transposed into blocks. The cheapest per byte, but it always makes 1 KiB.
//! * [`Cipher::fours`]: a vector holds one row of the square of four blocks, four vectors all of them. Between columns
//!   and diagonals the rows are rotated, which is a fourth more work; a second and a third group of four blocks fill the
//!   time in which the first waits for its own results, and cost little.

use super::poly1305::Backlog;
use std::arch::x86_64::*;

/// "expand 32-byte k", the first row.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The most blocks that are made at a time.
pub(super) const MOST: usize = 16;

/// What all blocks of a message have in common.
#[derive(Clone, Copy)]
pub(super) struct Cipher {
    /// The second and third row.
    key: [u32; 8],
    /// The last half of the fourth row, which is: the block's number, zero, and this (WireGuard paper §5.4.6).
    counter: u64,
}

impl Cipher {
    /// The key stream of message number `counter`.
    #[inline]
    pub(super) fn new(secret: &[u8; 32], counter: u64) -> Self {
        let mut key = [0; 8];
        for (word, bytes) in key.iter_mut().zip(secret.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { key, counter }
    }

    /// Makes the first of `blocks`, from number `first` on: at least `wanted`, or all if more are wanted. Every double round
    /// shortens the `backlog`, which does not wait for the cipher and fills its gaps.
    #[target_feature(enable = "avx512dq,avx512ifma")]
    pub(super) fn blocks(
        &self,
        first: u32,
        wanted: usize,
        blocks: &mut [__m512i; MOST],
        backlog: Option<&mut Backlog<'_>>,
    ) {
        match wanted {
            0..=4 => blocks[..4].copy_from_slice(self.fours::<1>(first, backlog).as_flattened()),
            5..=8 => blocks[..8].copy_from_slice(self.fours::<2>(first, backlog).as_flattened()),
            9..=12 => blocks[..12].copy_from_slice(self.fours::<3>(first, backlog).as_flattened()),
            _ => *blocks = self.sixteen(first, backlog),
        }
    }

    /// Sixteen blocks from number `first` on.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    fn sixteen(&self, first: u32, mut backlog: Option<&mut Backlog<'_>>) -> [__m512i; 16] {
        let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut start = [_mm512_setzero_si512(); 16];
        for n in 0..4 {
            start[n] = _mm512_set1_epi32(CONSTANTS[n] as i32);
        }
        for n in 0..8 {
            start[4 + n] = _mm512_set1_epi32(self.key[n] as i32);
        }
        start[12] = _mm512_add_epi32(_mm512_set1_epi32(first as i32), numbers);
        start[14] = _mm512_set1_epi32(self.counter as i32);
        start[15] = _mm512_set1_epi32((self.counter >> 32) as i32);
        let mut x = start;
        for _ in 0..10 {
            if let Some(backlog) = &mut backlog {
                backlog.shorten();
            }
            for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
                [x[a], x[b], x[c], x[d]] = quarter_round([x[a], x[b], x[c], x[d]]);
            }
            for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
                [x[a], x[b], x[c], x[d]] = quarter_round([x[a], x[b], x[c], x[d]]);
            }
        }
        for (word, start) in x.iter_mut().zip(start) {
            *word = _mm512_add_epi32(*word, start);
        }
        transpose(x)
    }

    /// Four blocks for each of `GROUPS`, from number `first` on.
    #[inline]
    #[target_feature(enable = "avx512dq,avx512ifma")]
    fn fours<const GROUPS: usize>(
        &self,
        first: u32,
        mut backlog: Option<&mut Backlog<'_>>,
    ) -> [[__m512i; 4]; GROUPS] {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.key;
        let [a, b, c] = [row_of_each(CONSTANTS), row_of_each([k0, k1, k2, k3]), row_of_each([k4, k5, k6, k7])];
        let d = row_of_each([first, 0, self.counter as u32, (self.counter >> 32) as u32]);
        let mut start = [[a, b, c, d]; GROUPS];
        for (group, rows) in start.iter_mut().enumerate() {
            let group = 4 * group as i32;
            let numbers =
                _mm512_setr_epi32(group, 0, 0, 0, group + 1, 0, 0, 0, group + 2, 0, 0, 0, group + 3, 0, 0, 0);
            rows[3] = _mm512_add_epi32(rows[3], numbers);
        }
        let mut x = start;
        for _ in 0..10 {
            if let Some(backlog) = &mut backlog {
                backlog.shorten();
            }
            for rows in &mut x {
                let [a, b, c, d] = quarter_round(*rows);
                *rows = [
                    a,
                    _mm512_shuffle_epi32::<0b00_11_10_01>(b),
                    _mm512_shuffle_epi32::<0b01_00_11_10>(c),
                    _mm512_shuffle_epi32::<0b10_01_00_11>(d),
                ];
            }
            for rows in &mut x {
                let [a, b, c, d] = quarter_round(*rows);
                *rows = [
                    a,
                    _mm512_shuffle_epi32::<0b10_01_00_11>(b),
                    _mm512_shuffle_epi32::<0b01_00_11_10>(c),
                    _mm512_shuffle_epi32::<0b00_11_10_01>(d),
                ];
            }
        }
        for (rows, start) in x.iter_mut().zip(start) {
            for (row, start) in rows.iter_mut().zip(start) {
                *row = _mm512_add_epi32(*row, start);
            }
            *rows = transpose_quarters(*rows);
        }
        x
    }
}

/// The same row in each of four blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn row_of_each([a, b, c, d]: [u32; 4]) -> __m512i {
    _mm512_broadcast_i32x4(_mm_setr_epi32(a as i32, b as i32, c as i32, d as i32))
}

/// RFC 8439 §2.1, in each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_round([mut a, mut b, mut c, mut d]: [__m512i; 4]) -> [__m512i; 4] {
    a = _mm512_add_epi32(a, b);
    d = _mm512_rol_epi32::<16>(_mm512_xor_si512(d, a));
    c = _mm512_add_epi32(c, d);
    b = _mm512_rol_epi32::<12>(_mm512_xor_si512(b, c));
    a = _mm512_add_epi32(a, b);
    d = _mm512_rol_epi32::<8>(_mm512_xor_si512(d, a));
    c = _mm512_add_epi32(c, d);
    b = _mm512_rol_epi32::<7>(_mm512_xor_si512(b, c));
    [a, b, c, d]
}

/// Vector *n* of words *n* becomes vector *n* of block *n*.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(x: [__m512i; 16]) -> [__m512i; 16] {
    let mut blocks = [_mm512_setzero_si512(); 16];
    // Within quarters of vectors: words 4n..4n+4 of blocks i, 4+i, 8+i and 12+i come into one vector each.
    let mut quarters = [[_mm512_setzero_si512(); 4]; 4];
    for (n, quarter) in quarters.iter_mut().enumerate() {
        let [a, b, c, d] = [x[4 * n], x[4 * n + 1], x[4 * n + 2], x[4 * n + 3]];
        let [ab, cd] = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
        let [ef, gh] = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
        *quarter = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ef, gh),
            _mm512_unpackhi_epi64(ef, gh),
        ];
    }
    for i in 0..4 {
        let rows = transpose_quarters([quarters[0][i], quarters[1][i], quarters[2][i], quarters[3][i]]);
        [blocks[i], blocks[4 + i], blocks[8 + i], blocks[12 + i]] = rows;
    }
    blocks
}

/// Quarter *m* of vector *n* becomes quarter *n* of vector *m*.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let [ab, cd] = [_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d)];
    let [ef, gh] = [_mm512_shuffle_i32x4::<0b11_10_11_10>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d)];
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ef, gh),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ef, gh),
    ]
}
