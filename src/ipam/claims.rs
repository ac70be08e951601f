//! Claims: what other members have in our slices.
//!
//! An address of ours that somebody asked for by hand on another member is given to nobody else. That member says so for as long as it is
//! there; but a daemon that starts hears of it only after its own containers have asked for theirs. So it is kept across restarts, and
//! holds until the member that had it says otherwise.

use crate::wire::key::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most that is kept of one member: as many as it can announce containers.
pub const MAX_OF_MEMBER: usize = 1024;
/// The most that is kept in all: as many as there can be leases.
pub const MAX_CLAIMS: usize = 8192;

/// An address of our slices that another member has, as the disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The member.
    pub member: PublicKey,
    /// The network.
    pub vni: u32,
    /// The address.
    pub address: IpAddr,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Claims {
    kept: BTreeSet<Claim>,
}

impl Claims {
    /// As they were before a restart.
    pub fn restore(claims: impl IntoIterator<Item = Claim>) -> Self {
        Self { kept: claims.into_iter().collect() }
    }

    /// All of them, by member.
    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.kept.iter()
    }

    /// The members that have some.
    pub fn members(&self) -> BTreeSet<PublicKey> {
        self.kept.iter().map(|claim| claim.member).collect()
    }

    /// What is to be kept from now on, and what no longer, when a member says that it has `said` and nothing else; and how much of
    /// it is too much. It is so when the disk has it: [`Claims::apply`].
    pub fn change(&self, member: PublicKey, said: &BTreeSet<Claim>) -> Change {
        let first = Claim { member, vni: 0, address: Ipv4Addr::UNSPECIFIED.into() };
        let last = Claim { member, vni: u32::MAX, address: Ipv6Addr::from(u128::MAX).into() };
        let known: BTreeSet<Claim> = self.kept.range(first..=last).copied().collect();
        let forget: Vec<Claim> = known.difference(said).copied().collect();
        let left = known.len() - forget.len();
        let room = (MAX_OF_MEMBER - left.min(MAX_OF_MEMBER)).min(MAX_CLAIMS - (self.kept.len() - forget.len()));
        let fresh: Vec<Claim> = said.difference(&known).copied().collect();
        let keep = fresh.iter().take(room).copied().collect();
        Change { keep, forget, excess: fresh.len().saturating_sub(room) }
    }

    /// The disk has a change.
    pub fn apply(&mut self, change: &Change) {
        for claim in &change.forget {
            self.kept.remove(claim);
        }
        self.kept.extend(&change.keep);
    }
}

/// See [`Claims::change`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// To be kept from now on.
    pub keep: Vec<Claim>,
    /// No longer.
    pub forget: Vec<Claim>,
    /// How many are not kept because there is no room: they count only while their member is there.
    pub excess: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(member: u8, addresses: std::ops::Range<u32>) -> BTreeSet<Claim> {
        let member = PublicKey([member; 32]);
        addresses.map(|n| Claim { member, vni: 7, address: IpAddr::from(n.to_be_bytes()) }).collect()
    }

    /// A member says what it has; what was forgotten, kept and too much.
    fn says(claims: &mut Claims, member: u8, said: std::ops::Range<u32>) -> (usize, usize, usize) {
        let change = claims.change(PublicKey([member; 32]), &of(member, said));
        claims.apply(&change);
        (change.forget.len(), change.keep.len(), change.excess)
    }

    #[test]
    fn what_a_member_says_takes_the_place_of_what_it_said_and_of_nothing_else() {
        let mut claims = Claims::restore(of(1, 0..3));
        assert_eq!(says(&mut claims, 2, 0..2), (0, 2, 0));
        assert_eq!(says(&mut claims, 1, 2..5), (2, 2, 0));
        assert_eq!(says(&mut claims, 1, 2..5), (0, 0, 0), "the disk is left alone");
        let all: Vec<Claim> = of(1, 2..5).into_iter().chain(of(2, 0..2)).collect();
        assert!(claims.iter().eq(&all));
        assert_eq!(says(&mut claims, 1, 0..0), (3, 0, 0));
        assert_eq!(claims.members().len(), 1);
    }

    #[test]
    fn a_member_that_claims_everything_leaves_room_for_others() {
        let mut claims = Claims::default();
        assert_eq!(says(&mut claims, 1, 0..2000), (0, MAX_OF_MEMBER, 2000 - MAX_OF_MEMBER));
        assert_eq!(says(&mut claims, 1, 10..2000), (10, 10, 2000 - 10 - MAX_OF_MEMBER));
        let last = MAX_CLAIMS / MAX_OF_MEMBER;
        for member in 2..=last {
            assert_eq!(says(&mut claims, member as u8, 0..2000).1, MAX_OF_MEMBER);
        }
        assert_eq!(says(&mut claims, 100, 0..1), (0, 0, 1));
        says(&mut claims, 1, 0..0);
        assert_eq!(says(&mut claims, 100, 0..1), (0, 1, 0));
        assert_eq!(claims.iter().count(), MAX_CLAIMS - MAX_OF_MEMBER + 1);
    }
}
