//! The hash of the FDB's index: keyed, because the addresses in it are chosen by strangers.
//!
//! Whoever can predict the hash can send addresses that all fall into one place and turn each frame into a walk.
//! SipHash would withstand more than that and costs about 15 ns a frame for it; here network and address are mixed by
//! two folded 64×64→128-bit multiplications (the step of wyhash) with secret words on both sides, about 2 ns. That is no
//! cryptographic promise. It need not be one: a stranger sees neither hash values nor the order of cells, and the bounds of
//! the FDB cap how many addresses anybody can place.

use crate::wire::ethernet::Mac;

/// The hash of one secret.
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

    /// The hash of a station of a network.
    pub(super) fn station(&self, vni: u32, mac: Mac) -> u32 {
        let [a, b, c, d, e, f] = mac.0;
        let mac = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        // The first factor tells addresses apart, the second the networks of one address.
        let mixed = folded(self.start ^ mac, self.step ^ mac.rotate_left(32) ^ u64::from(vni));
        // Once more, so that the low bits, which choose a cell, depend on every bit of both.
        (folded(mixed, self.step | 1) >> 32) as u32
    }
}

fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbouring_addresses_spread_over_both_ends_of_the_hash() {
        let keyed = Keyed::new(7);
        let station = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            keyed.station(7, Mac([2, 0x42, 0, a, b, c]))
        };
        let hashes: Vec<u32> = (0..65_536_u32).map(station).collect();
        // 65,536 balls in 65,536 boxes leave about 63 % of the boxes used; in 128 boxes all are used evenly.
        let low: HashSet<u32> = hashes.iter().map(|h| h & 0xffff).collect();
        assert!(low.len() > 40_000, "{}", low.len());
        let mut high = [0_u32; 128];
        hashes.iter().for_each(|h| high[(h >> 25) as usize] += 1);
        assert!(high.iter().all(|n| (300..800).contains(n)), "{high:?}");
    }

    #[test]
    fn one_address_in_many_networks_spreads_as_well() {
        let keyed = Keyed::new(7);
        let low: HashSet<u32> = (0..65_536).map(|vni| keyed.station(vni, Mac([2; 6])) & 0xffff).collect();
        assert!(low.len() > 40_000, "{}", low.len());
    }

    #[test]
    fn another_seed_is_another_order() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        assert_ne!(Keyed::new(1).station(1, mac), Keyed::new(2).station(1, mac));
    }
}
