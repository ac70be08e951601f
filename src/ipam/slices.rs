//! Slices: how a network's range is cut, and what follows where they meet.
//!
//! A slice belongs to one member. Who gives it (the file of the member, or the one holder of the authority's key that gives
//! slices) writes it down before anybody hears of it, and gives what overlaps it to nobody else.

use super::Spans;
use crate::wire::cidr::Cidr;
use crate::wire::range::{Range, address, number};
use std::net::IpAddr;

/// The longest prefix of an IPv4 slice: 64 addresses, a small host's containers.
const LEAST_V4: u8 = 26;
/// The shortest: 256 addresses. Who needs more is given more slices ([`super::super::trust`] does that ahead of time), and a
/// range has room for more members.
const MOST_V4: u8 = 24;
/// What an IPv6 slice has more than its subnet: 65,536 members.
const MORE_V6: u8 = 16;
/// The longest prefix of an IPv6 slice, as many addresses as the smallest of IPv4.
const LEAST_V6: u8 = 122;

/// The prefix length of a slice of this subnet: of IPv4 eight bits more than the subnet's, but between /24 and /26; of IPv6 sixteen
/// more, but at most /122. A subnet that is smaller is one slice.
pub fn prefix_of_slice(subnet: &Cidr) -> u8 {
    let cut = match subnet.address {
        IpAddr::V4(_) => subnet.prefix.saturating_add(8).clamp(MOST_V4, LEAST_V4),
        IpAddr::V6(_) => subnet.prefix.saturating_add(MORE_V6).min(LEAST_V6),
    };
    cut.max(subnet.prefix)
}

/// The lowest slice of this subnet that overlaps nothing that is `taken`.
pub fn lowest_free(subnet: &Cidr, taken: impl IntoIterator<Item = Cidr>) -> Option<Cidr> {
    let v4 = subnet.address.is_ipv4();
    let prefix = prefix_of_slice(subnet);
    let hosts = if v4 { 32 } else { 128 } - u32::from(prefix);
    // Of slices: each is a number of its own, and what is taken covers spans of them.
    let slices = |range: Range| {
        let of = |ip: IpAddr| number(ip).checked_shr(hosts).unwrap_or(0);
        (of(range.first), of(range.last))
    };
    let taken = taken.into_iter().filter(|cidr| cidr.address.is_ipv4() == v4);
    let taken = Spans::new(taken.map(|cidr| slices(cidr.into())));
    let free = Spans::new([slices((*subnet).into())]).without(&taken);
    let slice = free.lowest(|_| false)?;
    Some(Cidr { address: address(v4, slice.checked_shl(hosts).unwrap_or(0)), prefix })
}

/// Whether an address of ours gives way to another member's that has it too: it lies in a slice of that one and in none of ours. So
/// of two that have it, at most one gives way, and whoever knows both slices knows which.
pub fn yields(address: IpAddr, ours: &[Cidr], theirs: &[Cidr]) -> bool {
    let holds = |slices: &[Cidr]| slices.iter().any(|slice| slice.contains(address));
    holds(theirs) && !holds(ours)
}

/// Slices of two members that overlap in one network: each time the two that meet, at most `most` pairs.
pub fn overlaps<W: Copy + Ord>(mut slices: Vec<(u32, Cidr, W)>, most: usize) -> Vec<[(u32, Cidr, W); 2]> {
    let begins = |slice: &(u32, Cidr, W)| (slice.0, slice.1.address.is_ipv6(), Range::from(slice.1).first);
    slices.sort_by_key(|slice| (begins(slice), slice.1.prefix, slice.2));
    let (mut found, mut open): (Vec<_>, Vec<(u32, Cidr, W)>) = (Vec::new(), Vec::new());
    for slice in slices {
        // Prefixes are nested or apart: whoever is open and does not hold this one holds none that follows.
        open.retain(|(vni, cidr, _)| *vni == slice.0 && cidr.overlaps(&slice.1));
        let others = open.iter().filter(|other| other.2 != slice.2).map(|other| [*other, slice]);
        found.extend(others);
        found.truncate(most);
        if found.len() == most {
            return found;
        }
        open.push(slice);
    }
    found
}
