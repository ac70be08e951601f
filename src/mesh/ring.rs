//! Whom a member keeps a session with: few others, chosen so that everybody is few steps from everybody.
//!
//! In a small mesh that is everyone. In a larger one it is the next two on either side on a ring in the order of keys, which makes
//! the graph connected, and [`CHORDS`] others of its own choice across the ring, which make it shallow: with 1,000 members
//! about ten links each and five steps to the farthest. A chord's ends are those with the smallest hash of both keys, so one that comes
//! or goes moves a handful of chords in the whole mesh, where fingers at distances of 2^n along the ring would all shift. The far end need not agree in
//! choice: it hears that it was chosen, and keeps the session for that.

use crate::wire::key::PublicKey;
use std::collections::BTreeSet;

/// Up to so many others, everyone is a neighbour.
const EVERYONE: usize = 7;
/// Neighbours on either side of the ring. With two, one that dies leaves no gap.
const BESIDE: usize = 2;
/// Neighbours across it; about as many more choose us.
const CHORDS: usize = 3;

/// The neighbours that `us` chooses among `others`, ascending by key.
pub fn neighbours(us: &PublicKey, others: &[PublicKey]) -> BTreeSet<PublicKey> {
    if others.len() <= EVERYONE {
        return others.iter().copied().collect();
    }
    let place = others.partition_point(|other| other < us);
    let at = |offset: usize| others[offset % others.len()];
    let mut chosen: BTreeSet<PublicKey> =
        (0..BESIDE).flat_map(|n| [at(place + n), at(place + others.len() - 1 - n)]).collect();
    let mut chords: Vec<(u64, PublicKey)> = others.iter().map(|other| (affinity(us, other), *other)).collect();
    chords.select_nth_unstable(CHORDS + 2 * BESIDE);
    chords.truncate(CHORDS + 2 * BESIDE);
    chords.sort_unstable();
    let chords = chords.iter().map(|(_, other)| *other).filter(|other| !chosen.contains(other)).take(CHORDS);
    let chords: Vec<PublicKey> = chords.collect();
    chosen.extend(chords);
    chosen
}

/// A number that belongs to a pair.
fn affinity(a: &PublicKey, b: &PublicKey) -> u64 {
    let part = |key: &PublicKey| Chance(key.first()).next();
    Chance(part(a).wrapping_add(part(b))).next()
}

/// Numbers without a pattern (SplitMix64) from a seed that is random: for jitter and for choices that nobody gains by guessing.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn keys(count: usize) -> Vec<PublicKey> {
        let mut chance = Chance(count as u64);
        let mut keys: Vec<_> = (0..count).map(|_| PublicKey([0; 32].map(|_: u8| chance.next() as u8))).collect();
        keys.sort();
        keys
    }

    fn links(keys: &[PublicKey]) -> BTreeMap<PublicKey, BTreeSet<PublicKey>> {
        let mut links: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for key in keys {
            let others: Vec<PublicKey> = keys.iter().filter(|other| *other != key).copied().collect();
            for neighbour in neighbours(key, &others) {
                links.entry(*key).or_default().insert(neighbour);
                links.entry(neighbour).or_default().insert(*key);
            }
        }
        links
    }

    #[test]
    fn few_links_and_few_steps() {
        for (count, most_links, most_steps) in [(2, 1, 1), (8, 7, 1), (9, 8, 2), (100, 18, 5), (400, 20, 6)] {
            let keys = keys(count);
            let links = links(&keys);
            let degrees: Vec<usize> = links.values().map(BTreeSet::len).collect();
            let most = degrees.iter().max().copied().unwrap_or(0);
            assert!(most <= most_links, "{count} members: one with {most} links");
            let (mut reached, mut steps) = (BTreeSet::from([keys[0]]), 0);
            while reached.len() < count {
                let next: Vec<PublicKey> = reached.iter().flat_map(|key| &links[key]).copied().collect();
                reached.extend(next);
                steps += 1;
                assert!(steps <= most_steps, "{count} members: more than {most_steps} steps");
            }
        }
    }

    #[test]
    fn one_that_goes_moves_few() {
        let all = keys(300);
        let (before, after) = (links(&all), links(&all[1..]));
        let moved: usize = all[1..].iter().map(|key| after[key].difference(&before[key]).count()).sum();
        assert!(moved < 40, "{moved} ends of links moved");
    }
}
