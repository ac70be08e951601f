//! The hash of the FDB's tables: keyed, because the addresses in it are chosen by strangers.
//!
//! Whoever can predict the hash can send addresses that all fall into one bucket and turn each frame into a walk.
//! SipHash would withstand more than that and costs about 15 ns a frame for it; here each word is mixed by one
//! folded 64×64→128-bit multiplication (the step of wyhash) with secret words on both sides, about 2 ns. That is no
//! cryptographic promise. It need not be one: a stranger sees neither hash values nor bucket order, and the bounds of
//! the FDB cap how many addresses anybody can place.

use std::hash::{BuildHasher, Hasher};

/// Makes [`KeyedHasher`]s of one secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyed {
    start: u64,
    step: u64,
}

impl Keyed {
    /// Spreads one random seed over the two secret words (SplitMix64).
    pub(super) fn new(seed: u64) -> Self {
        let word = |n: u64| {
            let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n));
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self { start: word(1), step: word(2) }
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.start, step: self.step }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct KeyedHasher {
    state: u64,
    step: u64,
}

impl Hasher for KeyedHasher {
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.step ^ word.rotate_left(32));
        self.state = (product as u64) ^ ((product >> 64) as u64);
        self.step = self.step.rotate_left(23) ^ 0xa076_1d64_78bd_642f;
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    /// Seven bytes a word; the eighth holds their number, so that no padding looks like data.
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(7) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            word[7] = chunk.len() as u8;
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    /// One more multiplication, so that the low and the high bits a table uses depend on every bit of the key.
    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.step | 1);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::Mac;
    use std::collections::HashSet;

    #[test]
    fn neighbouring_addresses_spread_over_both_ends_of_the_hash() {
        let keyed = Keyed::new(7);
        let hashes: Vec<u64> = (0..65_536_u32)
            .map(|n| {
                let [_, a, b, c] = n.to_be_bytes();
                keyed.hash_one(Mac([2, 0x42, 0, a, b, c]))
            })
            .collect();
        // 65,536 balls in 65,536 boxes leave about 63 % of the boxes used; in 128 boxes all are used evenly.
        let low: HashSet<u64> = hashes.iter().map(|h| h & 0xffff).collect();
        assert!(low.len() > 40_000, "{}", low.len());
        let mut high = [0_u32; 128];
        hashes.iter().for_each(|h| high[(h >> 57) as usize] += 1);
        assert!(high.iter().all(|n| (300..800).contains(n)), "{high:?}");
    }

    #[test]
    fn another_seed_is_another_order() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert_ne!(Keyed::new(1).hash_one(mac), Keyed::new(2).hash_one(mac));
    }
}
