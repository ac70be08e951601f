//! Against slow models in which every address is looked at one by one.

#![allow(clippy::unwrap_used)]
use super::leases::{GRACE, Held};
use super::*;
use crate::wire::cidr::Cidr;
use crate::wire::range::{Range, address, number};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn ip(low: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, low).into()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// Prefixes, ranges and addresses of 10.0.0.0/24.
fn any_cidr() -> impl Strategy<Value = Cidr> {
    (any::<u8>(), 24u8..=32).prop_map(|(low, prefix)| Cidr { address: ip(low), prefix })
}

fn any_range() -> impl Strategy<Value = Range> {
    (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Range { first: ip(a.min(b)), last: ip(a.max(b)) })
}

fn any_space() -> impl Strategy<Value = Space> {
    let few = |most| proptest::collection::vec(any_range(), 0..most);
    let cidrs = |most| proptest::collection::vec(any_cidr(), 1..most);
    (cidrs(3), few(3), few(3), cidrs(4), proptest::option::of(any::<u8>())).prop_map(
        |(subnets, reserved, ranges, slices, service)| Space {
            subnets,
            reserved,
            ranges,
            slices,
            service: service.map(ip).into_iter().collect(),
        },
    )
}

/// Whether a member may choose an address, by the words of [`Space::pool`].
fn may_choose(space: &Space, at: IpAddr) -> bool {
    let is_edge = |subnet: &Cidr| {
        let range = Range::from(*subnet);
        subnet.prefix <= 30 && (at == range.first || at == range.last)
    };
    space.subnets.iter().any(|subnet| subnet.contains(at))
        && space.slices.iter().any(|slice| slice.contains(at))
        && (space.ranges.is_empty() || space.ranges.iter().any(|range| range.contains(at)))
        && !space.reserved.iter().any(|range| range.contains(at))
        && !space.service.contains(&at)
        && !space.subnets.iter().chain(&space.slices).any(is_edge)
}

proptest! {
    #[test]
    fn a_pool_has_what_the_words_say_and_nothing_else(space in any_space()) {
        let pool = space.pool(true);
        let model: Vec<IpAddr> = (0..=255).map(ip).filter(|at| may_choose(&space, *at)).collect();
        prop_assert_eq!(pool.len(), model.len() as u128);
        for at in (0..=255).map(ip) {
            prop_assert_eq!(pool.contains(number(at)), model.contains(&at), "{}", at);
        }
        prop_assert_eq!(pool.lowest(|_| false).map(|n| address(true, n)), model.first().copied());
        prop_assert!(space.pool(false).is_empty());
    }

    #[test]
    fn slices_are_given_lowest_first_until_the_subnet_is_full_and_never_meet(
        prefix in 18u8..=28, taken in proptest::collection::vec((any::<u16>(), 18u8..=32), 0..6),
    ) {
        let subnet = Cidr { address: Ipv4Addr::new(10, 7, 0, 0).into(), prefix };
        let foreign: Vec<Cidr> = taken.iter().map(|&(low, prefix)| {
            let [a, b] = low.to_be_bytes();
            Cidr { address: Ipv4Addr::new(10, 7, a, b).into(), prefix }
        }).collect();
        let mut given = foreign.clone();
        let mut last = None;
        while let Some(slice) = slices::lowest_free(&subnet, given.iter().copied()) {
            prop_assert_eq!(slice.prefix, slices::prefix_of_slice(&subnet));
            prop_assert!(subnet.contains(slice.address) && Range::from(slice).first == slice.address);
            prop_assert!(given.iter().all(|other| !other.overlaps(&slice)), "{:?} {:?}", slice, given);
            prop_assert!(last.is_none_or(|last| last < slice.address));
            last = Some(slice.address);
            given.push(slice);
            prop_assert!(given.len() < 1000);
        }
        // Nothing was left out: each slice of the subnet meets something.
        let hosts = 32 - u32::from(slices::prefix_of_slice(&subnet));
        for n in 0..1u32 << (32 - u32::from(prefix) - hosts) {
            let first = u32::from(Ipv4Addr::new(10, 7, 0, 0)) + (n << hosts);
            let slice = Cidr { address: Ipv4Addr::from(first).into(), prefix: slices::prefix_of_slice(&subnet) };
            prop_assert!(given.iter().any(|other| other.overlaps(&slice)));
        }
    }

    #[test]
    fn overlaps_are_found_as_by_comparing_all_with_all(
        all in proptest::collection::vec((1u32..3, any_cidr(), 0u8..4), 0..12),
    ) {
        let found = slices::overlaps(all.clone(), usize::MAX);
        let mut pairs = 0;
        for (n, a) in all.iter().enumerate() {
            pairs += all[..n].iter().filter(|b| a.0 == b.0 && a.2 != b.2 && a.1.overlaps(&b.1)).count();
        }
        prop_assert_eq!(found.len(), pairs);
        prop_assert!(found.iter().all(|[a, b]| a.0 == b.0 && a.2 != b.2 && a.1.overlaps(&b.1)));
        prop_assert_eq!(slices::overlaps(all, 1).len(), pairs.min(1));
    }

    #[test]
    fn leases_do_what_a_list_of_all_addresses_does(steps in proptest::collection::vec(any_step(), 0..60)) {
        let (mut real, mut model) = (Leases::default(), Model::default());
        let mut now = Duration::ZERO;
        for step in steps {
            now += Duration::from_secs(7);
            for (vni, address) in real.expired(now) {
                real.free(vni, address);
            }
            model.expire(now);
            match step {
                Step::Choose { holder, taken } => {
                    let taken = taken.into_iter().map(ip).collect();
                    let chosen = real.choose(VNI, &name(holder), true, &pool(), &taken);
                    prop_assert_eq!(chosen, model.choose(&name(holder), &taken));
                    if let Some(at) = chosen {
                        real.take(now, lease(at, holder, By::Port, true));
                        real.used(VNI, at);
                        model.set(at, &name(holder), true, None);
                    }
                }
                Step::Ask { holder, low } => {
                    let refused = real.in_the_way(VNI, ip(low), &name(holder), By::Port).is_some();
                    prop_assert_eq!(refused, model.is_anothers(ip(low), &name(holder)));
                    if !refused {
                        real.take(now, lease(ip(low), holder, By::Port, false));
                        real.used(VNI, ip(low));
                        model.set(ip(low), &name(holder), false, None);
                    }
                }
                Step::Die { low } => {
                    real.unused(now, VNI, ip(low));
                    model.die(ip(low), now + GRACE);
                }
                Step::Free { low } => {
                    real.free(VNI, ip(low));
                    model.all.remove(&ip(low));
                }
            }
            let held: BTreeMap<_, _> = real.iter().map(|held| (held.lease.address, held.lease.holder.clone())).collect();
            let modelled: BTreeMap<_, _> = model.all.iter().map(|(at, entry)| (*at, entry.0.clone())).collect();
            prop_assert_eq!(held, modelled);
        }
    }
}

const VNI: u32 = 7;

/// 10.0.0.1 to 10.0.0.6.
fn pool() -> Spans {
    Spans::new([(number(ip(1)), number(ip(6)))])
}

fn name(holder: u8) -> String {
    format!("c{holder}:eth1")
}

fn lease(address: IpAddr, holder: u8, by: By, chosen: bool) -> Lease {
    Lease { vni: VNI, address, holder: name(holder), by, chosen, since: 0 }
}

#[derive(Debug, Clone)]
enum Step {
    Choose { holder: u8, taken: Vec<u8> },
    Ask { holder: u8, low: u8 },
    Die { low: u8 },
    Free { low: u8 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let low = || 0u8..9;
    prop_oneof![
        (0u8..5, proptest::collection::vec(low(), 0..2)).prop_map(|(holder, taken)| Step::Choose { holder, taken }),
        (0u8..5, low()).prop_map(|(holder, low)| Step::Ask { holder, low }),
        low().prop_map(|low| Step::Die { low }),
        low().prop_map(|low| Step::Free { low }),
    ]
}

/// Address → holder, whether it was chosen, until when it is kept.
#[derive(Default)]
struct Model {
    all: BTreeMap<IpAddr, (String, bool, Option<Duration>)>,
}

impl Model {
    fn set(&mut self, at: IpAddr, holder: &str, chosen: bool, kept: Option<Duration>) {
        self.all.insert(at, (holder.to_owned(), chosen, kept));
    }

    fn die(&mut self, at: IpAddr, until: Duration) {
        if let Some(entry) = self.all.get_mut(&at) {
            entry.2 = Some(until);
        }
    }

    fn expire(&mut self, now: Duration) {
        self.all.retain(|_, (.., kept)| kept.is_none_or(|until| until > now));
    }

    fn is_anothers(&self, at: IpAddr, holder: &str) -> bool {
        self.all.get(&at).is_some_and(|(owner, _, kept)| owner != holder && kept.is_none())
    }

    fn choose(&self, holder: &str, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let pool = || (1..=6).map(ip);
        let is_mine = |at: &IpAddr| {
            let is_taken = |kept: &Option<Duration>| kept.is_some() && taken.contains(at);
            self.all.get(at).is_some_and(|(owner, chosen, kept)| owner == holder && *chosen && !is_taken(kept))
        };
        let is_free = |at: &IpAddr| !self.all.contains_key(at) && !taken.contains(at);
        let kept = || {
            let all = pool().filter(|at| !taken.contains(at)).filter_map(|at| Some((self.all.get(&at)?.2?, at)));
            all.min().map(|(_, at)| at)
        };
        pool().find(is_mine).or_else(|| pool().find(is_free)).or_else(kept)
    }
}

#[test]
fn large_ranges_cost_no_more_than_small_ones() {
    let space = Space { subnets: vec![cidr("fd00::/64")], slices: vec![cidr("::/0")], ..Space::default() };
    let pool = space.pool(false);
    assert_eq!(pool.len(), (1 << 64) - 1, "without the address that means any router");
    let mut leases = Leases::default();
    for n in 1..=300u128 {
        let at = leases.choose(VNI, &format!("c{n}"), false, &pool, &BTreeSet::new()).unwrap();
        assert_eq!(number(at) & 0xffff_ffff, n);
        let lease = Lease { vni: VNI, address: at, holder: format!("c{n}"), by: By::Port, chosen: true, since: 0 };
        leases.take(Duration::ZERO, lease);
    }
    let everything = Space { subnets: vec![cidr("::/0")], slices: vec![cidr("::/0")], ..Space::default() };
    assert_eq!(everything.pool(false).len(), u128::MAX);
}

#[test]
fn the_size_of_a_slice_follows_from_the_subnet() {
    for (subnet, slice) in [
        ("10.0.0.0/8", "10.0.0.0/24"),
        ("10.32.0.0/12", "10.32.0.0/24"),
        ("10.32.0.0/16", "10.32.0.0/24"),
        ("10.32.16.0/20", "10.32.16.0/26"),
        ("10.32.5.0/24", "10.32.5.0/26"),
        ("10.32.5.64/28", "10.32.5.64/28"),
        ("fd00:32::/64", "fd00:32::/80"),
        ("fd00:32::/48", "fd00:32::/64"),
        ("fd00:32::/120", "fd00:32::/122"),
        ("fd00:32::/126", "fd00:32::/126"),
    ] {
        assert_eq!(slices::lowest_free(&cidr(subnet), []), Some(cidr(slice)));
    }
    let next = slices::lowest_free(&cidr("fd00:32::/64"), [cidr("fd00:32::/80"), cidr("10.0.0.0/8")]);
    assert_eq!(next, Some(cidr("fd00:32::1:0:0:0/80")));
    assert_eq!(slices::lowest_free(&cidr("10.32.0.0/16"), [cidr("0.0.0.0/0")]), None);
}

#[test]
fn of_two_that_have_an_address_the_one_outside_its_slices_gives_way() {
    let (ours, theirs) = ([cidr("10.0.0.0/26")], [cidr("10.0.0.64/26")]);
    assert!(slices::yields(ip(70), &ours, &theirs) && !slices::yields(ip(70), &theirs, &ours));
    assert!(!slices::yields(ip(200), &ours, &theirs) && !slices::yields(ip(200), &theirs, &ours));
    // A claim on one slice by both is for people to decide.
    assert!(!slices::yields(ip(1), &ours, &ours));
}

#[test]
fn what_somebody_asked_for_stays_until_it_is_released_and_a_port_that_uses_it_changes_nothing() {
    let at = |seconds| Duration::from_secs(seconds);
    let mut leases = Leases::restore(at(0), [lease(ip(1), 1, By::Request, true), lease(ip(2), 2, By::Port, true)]);
    let state = |leases: &Leases, low| leases.get(VNI, ip(low)).map(|held: &Held| held.state);
    assert_eq!((state(&leases, 1), state(&leases, 2)), (Some(State::Reserved), Some(State::Kept(GRACE))));
    leases.used(VNI, ip(1));
    leases.unused(at(5), VNI, ip(1));
    assert_eq!(leases.expired(at(1000)), [(VNI, ip(2))]);
    assert_eq!(state(&leases, 1), Some(State::Reserved));
    // An engine that does not say for whom it asks may ask for what it has again; others may not have it.
    let engine = Lease { holder: "docker:1".into(), ..lease(ip(3), 0, By::Request, true) };
    leases.take(at(0), engine);
    assert!(leases.in_the_way(VNI, ip(3), "docker:2", By::Request).is_none());
    assert!(leases.in_the_way(VNI, ip(3), "web:eth1", By::Port).is_some());
    assert!(leases.in_the_way(VNI, ip(3), "docker:eth1", By::Port).is_some(), "a container of that name");
    leases.used(VNI, ip(3));
    assert!(leases.in_the_way(VNI, ip(3), "docker:2", By::Request).is_some());
}
