//! Guard and rules against models that are slow and obvious, over packets that are made by the book.

#![allow(clippy::unwrap_used)]

use super::guard::Guard;
use super::rules::{Rule, Rules, Sides};
use crate::switch::counters::Drop;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::{Frame, Mac};
use crate::wire::packet::Content;
use crate::wire::ports::Ports;
use proptest::prelude::*;
use std::net::IpAddr;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A packet's fields.
#[derive(Debug, Clone)]
struct Spec {
    v6: bool,
    /// Last octets of the addresses.
    from: u8,
    to: u8,
    kind: Kind,
    fragment: bool,
    tags: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tcp(u16, u16, u8),
    Udp(u16, u16),
    Echo,
    Reply,
    Gre,
}

fn address(v6: bool, last: u8) -> IpAddr {
    if v6 { format!("fd00::{last}").parse().unwrap() } else { IpAddr::from([10, 0, 0, last]) }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A frame of the bytes behind its tags.
fn ethernet(source: Mac, tags: usize, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, 9][..], &source.0].concat();
    (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 0]));
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ip(v6: bool, from: IpAddr, to: IpAddr, protocol: u8, fragment: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let [from, to] = [octets(from), octets(to)];
    let field = fragment.unwrap_or(0);
    if !v6 {
        let mut header =
            vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 1, (field >> 8) as u8, field as u8, 64, protocol, 0, 0];
        header.extend([from, to, payload.to_vec()].concat());
        return header;
    }
    let length = payload.len() + if fragment.is_some() { 8 } else { 0 };
    let mut header = vec![0x60, 0, 0, 0, 0, length as u8, if fragment.is_some() { 44 } else { protocol }, 64];
    header.extend([from, to].concat());
    if fragment.is_some() {
        header.extend([protocol, 0, ((field << 3) >> 8) as u8, (field << 3) as u8, 0, 0, 0, 1]);
    }
    header.extend(payload);
    header
}

impl Spec {
    fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Tcp(..) => 6,
            Kind::Udp(..) => 17,
            Kind::Echo | Kind::Reply => {
                if self.v6 {
                    58
                } else {
                    1
                }
            }
            Kind::Gre => 47,
        }
    }

    fn frame(&self) -> Vec<u8> {
        let transport = match self.kind {
            Kind::Tcp(from, to, flags) => {
                let mut header = [from.to_be_bytes(), to.to_be_bytes()].concat();
                header.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
                header
            }
            Kind::Udp(from, to) => [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat(),
            Kind::Echo => vec![if self.v6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1],
            Kind::Reply => vec![if self.v6 { 129 } else { 0 }, 0, 0, 0, 0, 1, 0, 1],
            Kind::Gre => vec![0; 8],
        };
        let (from, to) = (address(self.v6, self.from), address(self.v6, self.to));
        let packet = ip(self.v6, from, to, self.protocol(), self.fragment.then_some(100), &transport);
        ethernet(OWN, self.tags, if self.v6 { 0x86dd } else { 0x0800 }, &packet)
    }
}

fn spec() -> impl Strategy<Value = Spec> {
    let port = || 1u16..6;
    let kind = prop_oneof![
        (port(), port(), prop_oneof![Just(0x02), Just(0x12), Just(0x10), Just(0x04), Just(0x18)])
            .prop_map(|(a, b, c)| Kind::Tcp(a, b, c)),
        (port(), port()).prop_map(|(a, b)| Kind::Udp(a, b)),
        Just(Kind::Echo),
        Just(Kind::Reply),
        Just(Kind::Gre),
    ];
    let rest = (any::<bool>(), 1u8..12, 1u8..12, kind, prop::bool::weighted(0.1), 0usize..3);
    rest.prop_map(|(v6, from, to, kind, fragment, tags)| Spec { v6, from, to, kind, fragment, tags })
}

/// Whom a rule speaks of: everybody, some last octets of known stations, or a prefix.
#[derive(Debug, Clone)]
enum Who {
    Any,
    Stations(Vec<u8>),
    Prefix(Cidr),
}

impl Who {
    fn has(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Stations(octets) => {
                octets.iter().any(|&last| [false, true].iter().any(|&v6| self::address(v6, last) == address))
            }
            Self::Prefix(prefix) => prefix.contains(address),
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        Just(Who::Any),
        prop::collection::vec(1u8..8, 0..4).prop_map(Who::Stations),
        (0u8..16, 28u8..=32).prop_map(|(last, prefix)| Who::Prefix(Cidr { address: address(false, last), prefix })),
        (0u8..16, 120u8..=128).prop_map(|(last, prefix)| Who::Prefix(Cidr { address: address(true, last), prefix })),
    ]
}

type RuleSpec = (Who, Who, Vec<Ports>);

fn rule() -> impl Strategy<Value = RuleSpec> {
    let ports = prop_oneof![
        Just(Ports::Any),
        Just(Ports::Icmp),
        (1u16..6, 0u16..2).prop_map(|(from, more)| Ports::Tcp(from, from + more)),
        (1u16..6, 0u16..2).prop_map(|(from, more)| Ports::Udp(from, from + more)),
    ];
    (who(), who(), prop::collection::vec(ports, 0..3))
}

/// The rules as they are compiled; stations 1 to 7 are known in both families.
fn compiled(specs: &[RuleSpec]) -> Rules {
    let rule = |(_, _, ports): &RuleSpec| Rule { ports: ports.clone().into(), hits: Default::default() };
    let mut rules = Rules::new(specs.iter().map(rule).collect(), Vec::new(), Vec::new());
    let sides = |number: usize, is_from: bool| {
        let mut sides = Sides::default();
        if is_from {
            sides.from.insert(number);
        } else {
            sides.to.insert(number);
        }
        sides
    };
    let parties =
        || specs.iter().enumerate().flat_map(|(n, (from, to, _))| [(from, sides(n, true)), (to, sides(n, false))]);
    for (who, sides) in parties() {
        match who {
            Who::Any => rules.add_anybody(sides),
            Who::Prefix(prefix) => rules.add_prefix(*prefix, sides),
            Who::Stations(_) => {}
        }
    }
    for (v6, last) in [false, true].into_iter().flat_map(|v6| (1..8).map(move |last| (v6, last))) {
        let own = parties().filter(|(who, _)| matches!(who, Who::Stations(octets) if octets.contains(&last)));
        let own = own.fold(Sides::default(), |all, (_, sides)| all | sides);
        rules.add_station(address(v6, last), OWN, own);
    }
    rules
}

/// The sentence of the documentation, rule by rule.
fn model(specs: &[RuleSpec], packet: &Spec) -> bool {
    let (from, to) = (address(packet.v6, packet.from), address(packet.v6, packet.to));
    specs.iter().any(|(a, b, ports)| {
        let (there, back) = (a.has(from) && b.has(to), a.has(to) && b.has(from));
        ports.iter().any(|ports| {
            if packet.fragment {
                let same = match ports {
                    Ports::Any => true,
                    Ports::Tcp(..) => packet.protocol() == 6,
                    Ports::Udp(..) => packet.protocol() == 17,
                    Ports::Icmp => [1, 58].contains(&packet.protocol()),
                };
                return same && (there || back);
            }
            match (ports, packet.kind) {
                (Ports::Any, Kind::Tcp(_, _, flags)) => there || back && flags & 0x14 != 0,
                (Ports::Any | Ports::Icmp, Kind::Echo) => there,
                (Ports::Any | Ports::Icmp, Kind::Reply) => there || back,
                (Ports::Any, _) => there || back,
                (Ports::Tcp(low, high), Kind::Tcp(source, destination, flags)) => {
                    there && (low..=high).contains(&&destination)
                        || back && (low..=high).contains(&&source) && flags & 0x14 != 0
                }
                (Ports::Udp(low, high), Kind::Udp(source, destination)) => {
                    there && (low..=high).contains(&&destination) || back && (low..=high).contains(&&source)
                }
                _ => false,
            }
        })
    })
}

fn content(frame: &[u8]) -> Content {
    Content::of(&Frame::parse(frame).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn compiled_rules_say_what_the_rules_say(
        specs in prop::collection::vec(rule(), 0..6), before in 0usize..200, packets in prop::collection::vec(spec(), 20),
    ) {
        // Rules that match nothing in front: the numbers of the others lie in other words.
        let mut all: Vec<RuleSpec> = vec![(Who::Stations(vec![]), Who::Any, vec![Ports::Any]); before];
        all.extend(specs.clone());
        let rules = compiled(&all);
        for packet in &packets {
            let expected = if model(&specs, packet) { Ok(()) } else { Err(Drop::NotAllowed) };
            prop_assert_eq!(rules.check(&content(&packet.frame()), [OWN, OTHER], false), expected, "{:?}", packet);
        }
    }

    #[test]
    fn a_guarded_port_says_nothing_but_its_own(packet in spec(), own in prop::collection::vec((any::<bool>(), 1u8..12), 1..4)) {
        let addresses: Vec<IpAddr> = own.iter().map(|&(v6, last)| address(v6, last)).collect();
        let guard = Guard { mac: Some(OWN), full: true, addresses: addresses.clone().into(), ..Guard::default() };
        let frame = packet.frame();
        let source = address(packet.v6, packet.from);
        let known = addresses.iter().any(|own| own.is_ipv4() == source.is_ipv4());
        let right = !known || addresses.contains(&source);
        let verdict = guard.check(&Frame::parse(&frame).unwrap(), &content(&frame), |_| None);
        prop_assert_eq!(verdict, if right { Ok(()) } else { Err(Drop::SpoofedAddress) });
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..90), ethertype in 0usize..4, tags in 0usize..4) {
        let ethertype = [0x0800, 0x86dd, 0x0806, 0x88b5][ethertype];
        let frame = ethernet(OWN, tags, ethertype, &bytes);
        let content = content(&frame);
        let _ = compiled(&[]).check(&content, [OTHER, OWN], true);
        prop_assert!(tags < 3 || content == Content::Unreadable);
    }

    #[test]
    fn headers_cut_anywhere_never_pass_for_whole_ones(packet in spec(), cut in 0usize..60) {
        let frame = packet.frame();
        let kept = &frame[..cut.clamp(14 + 4 * packet.tags, frame.len())];
        let cut = content(kept);
        prop_assert!(cut == Content::Unreadable || cut == content(&frame));
    }
}

fn check(guard: &Guard, frame: &[u8]) -> Result<(), Drop> {
    // These two are known to be another's.
    let owner = |known| [false, true].iter().any(|&v6| known == address(v6, 9)).then_some(OTHER);
    guard.check(&Frame::parse(frame).unwrap(), &content(frame), owner)
}

fn arp(source: Mac, sender: Mac, address: [u8; 4]) -> Vec<u8> {
    let fields = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &sender.0, &address, &[0; 6], &[10, 0, 0, 3]].concat();
    ethernet(source, 0, 0x0806, &fields)
}

fn icmpv6(source: IpAddr, message: &[u8], extensions: &[u8], tags: usize) -> Vec<u8> {
    let next = if extensions.is_empty() { 58 } else { 60 };
    let packet = ip(true, source, "ff02::1".parse().unwrap(), next, None, &[extensions, message].concat());
    ethernet(OWN, tags, 0x86dd, &packet)
}

fn udp(from: IpAddr, to: IpAddr, ports: [u16; 2]) -> Vec<u8> {
    let header = [ports[0].to_be_bytes(), ports[1].to_be_bytes(), [0, 8], [0, 0]].concat();
    let v6 = from.is_ipv6();
    ethernet(OWN, 0, if v6 { 0x86dd } else { 0x0800 }, &ip(v6, from, to, 17, None, &header))
}

fn full() -> Guard {
    let addresses = vec![address(false, 1), address(true, 1)].into();
    Guard { mac: Some(OWN), full: true, addresses, ..Guard::default() }
}

/// A container that asks DHCP, or a bridge.
fn unknown() -> Guard {
    Guard { full: true, ..Guard::default() }
}

#[test]
fn arp_tells_only_what_is_ones_own() {
    let strict = full();
    assert_eq!(check(&strict, &arp(OWN, OWN, [10, 0, 0, 1])), Ok(()));
    assert_eq!(check(&strict, &arp(OWN, OWN, [0; 4])), Ok(()), "a probe");
    assert_eq!(check(&strict, &arp(OWN, OWN, [169, 254, 7, 7])), Ok(()));
    assert_eq!(check(&strict, &arp(OWN, OWN, [10, 0, 0, 2])), Err(Drop::SpoofedAddress));
    assert_eq!(check(&strict, &arp(OWN, OTHER, [10, 0, 0, 1])), Err(Drop::SpoofedAddress));
    assert_eq!(check(&strict, &arp(OTHER, OTHER, [10, 0, 0, 1])), Err(Drop::ForeignMac));
    for loose in [unknown(), Guard { any_source: true, ..full() }] {
        assert_eq!(check(&loose, &arp(OWN, OWN, [10, 0, 0, 2])), Ok(()));
        assert_eq!(check(&loose, &arp(OWN, OWN, [10, 0, 0, 9])), Err(Drop::SpoofedAddress), "known to be another's");
    }
    assert_eq!(check(&unknown(), &arp(OTHER, OTHER, [10, 0, 0, 9])), Ok(()), "behind a bridge, itself");
}

#[test]
fn routers_and_dhcp_servers_need_permission_however_they_are_wrapped() {
    let link_local: IpAddr = "fe80::1".parse().unwrap();
    let advertisement = [&[134, 0, 0, 0][..], &[0; 12]].concat();
    let destination_options = [58, 0, 1, 4, 0, 0, 0, 0];
    for guard in [full(), unknown()] {
        for (extensions, tags) in [(&[][..], 0), (&destination_options, 0), (&[], 1), (&[], 2)] {
            let frame = icmpv6(link_local, &advertisement, extensions, tags);
            assert_eq!(check(&guard, &frame), Err(Drop::RogueRouter));
            assert_eq!(check(&Guard { router: true, any_source: true, ..guard.clone() }, &frame), Ok(()));
        }
        assert_eq!(check(&guard, &icmpv6(link_local, &advertisement, &[], 3)), Err(Drop::Unreadable));
        let fragment = ip(true, link_local, "ff02::1".parse().unwrap(), 58, Some(0), &advertisement);
        assert_eq!(check(&guard, &ethernet(OWN, 0, 0x86dd, &fragment)), Err(Drop::Unreadable), "RFC 6980");
        for (from, to, ports) in [
            (address(false, 1), IpAddr::from([255; 4]), [67, 68]),
            (address(true, 1), "fe80::2".parse().unwrap(), [547, 546]),
        ] {
            assert_eq!(check(&guard, &udp(from, to, ports)), Err(Drop::RogueDhcp));
            assert_eq!(check(&Guard { dhcp_server: true, ..guard.clone() }, &udp(from, to, ports)), Ok(()));
        }
    }
    assert_eq!(check(&full(), &udp([0; 4].into(), [255; 4].into(), [68, 67])), Ok(()), "a client asks");
    for (kind, verdict) in [(5, Err(Drop::RogueRouter)), (9, Err(Drop::RogueRouter)), (10, Ok(())), (8, Ok(()))] {
        let frame = ethernet(OWN, 0, 0x0800, &ip(false, address(false, 1), address(false, 2), 1, None, &[kind; 8]));
        assert_eq!(check(&full(), &frame), verdict, "ICMP type {kind}");
        assert_eq!(check(&Guard { router: true, any_source: true, ..full() }, &frame), Ok(()));
    }
}

#[test]
fn neighbour_discovery_tells_only_what_is_ones_own() {
    let advertisement = |target: u8, mac: Mac| {
        let target = octets(address(true, target));
        [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target, &[2, 1], &mac.0].concat()
    };
    let own = address(true, 1);
    assert_eq!(check(&full(), &icmpv6(own, &advertisement(1, OWN), &[], 0)), Ok(()));
    assert_eq!(check(&full(), &icmpv6(own, &advertisement(2, OWN), &[], 0)), Err(Drop::SpoofedAddress));
    assert_eq!(check(&full(), &icmpv6(own, &advertisement(1, OTHER), &[], 0)), Err(Drop::SpoofedAddress));
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &octets(address(true, 5))].concat();
    assert_eq!(check(&full(), &icmpv6("::".parse().unwrap(), &solicitation, &[], 0)), Ok(()), "duplicate detection");
    let twice = [advertisement(1, OWN), vec![2, 1, 2, 0, 0, 0, 0, 7]].concat();
    assert_eq!(check(&full(), &icmpv6(own, &twice, &[], 0)), Err(Drop::Unreadable), "two addresses");
}

#[test]
fn a_mac_guard_asks_for_no_ip_addresses() {
    let guard = Guard { mac: Some(OWN), full: false, addresses: vec![address(false, 1)].into(), ..Guard::default() };
    assert_eq!(check(&guard, &udp(address(false, 7), address(false, 8), [1, 2])), Ok(()));
    assert_eq!(check(&guard, &arp(OWN, OWN, [10, 0, 0, 9])), Ok(()));
    assert_eq!(check(&guard, &arp(OWN, OTHER, [10, 0, 0, 1])), Err(Drop::SpoofedAddress));
    assert_eq!(check(&guard, &arp(OTHER, OTHER, [10, 0, 0, 1])), Err(Drop::ForeignMac));
    let cut = arp(OWN, OTHER, [10, 0, 0, 1]);
    assert_eq!(check(&guard, &cut[..cut.len() - 1]), Err(Drop::Unreadable));
}

#[test]
fn what_a_network_needs_passes_any_rules_and_nobody_uses_anothers_address_to_pass() {
    let rules = compiled(&[(Who::Stations(vec![2]), Who::Stations(vec![3]), vec![Ports::Any])]);
    let verdict = |frame: &[u8], sender: Option<Mac>| {
        rules.check(&content(frame), [sender.unwrap_or(OWN), OTHER], sender.is_some())
    };
    assert_eq!(verdict(&arp(OWN, OWN, [10, 0, 0, 1]), Some(OWN)), Ok(()));
    let unreachable =
        ethernet(OWN, 0, 0x0800, &ip(false, address(false, 9), address(false, 8), 1, None, &[3, 4, 0, 0]));
    assert_eq!(verdict(&unreachable, None), Ok(()));
    let frame = udp(address(false, 2), address(false, 3), [5, 5]);
    assert_eq!(verdict(&frame, Some(OWN)), Ok(()));
    assert_eq!(verdict(&frame, Some(OTHER)), Err(Drop::SpoofedAddress));
    assert_eq!(verdict(&ethernet(OWN, 0, 0x88b5, &[0; 46]), None), Err(Drop::NotAllowed), "not IP");
    let overwriting = ip(false, address(false, 2), address(false, 3), 6, Some(1), &[0; 20]);
    assert_eq!(verdict(&ethernet(OWN, 0, 0x0800, &overwriting), None), Err(Drop::Unreadable), "RFC 1858");
}

#[test]
fn hosts_are_their_addresses_and_what_is_beyond_the_subnets() {
    let sides = |is_from: bool| {
        let mut sides = Sides::default();
        if is_from {
            sides.from.insert(0);
        } else {
            sides.to.insert(0);
        }
        sides
    };
    let rule = Rule { ports: vec![Ports::Any].into(), hits: Default::default() };
    let service = vec![address(false, 254)];
    let mut rules = Rules::new(vec![rule], vec!["10.0.0.0/24".parse().unwrap()], service);
    rules.add_anybody(sides(true));
    rules.add_beyond(sides(false));
    rules.add_station(address(false, 1), OWN, Sides::default());
    rules.add_station(address(false, 2), OWN, sides(false));
    let host = Mac([2, 0, 0, 0, 0, 7]);
    rules.add_host(host);
    let passes = |stations: [Mac; 2], from: &str, to: &str| {
        rules.check(&content(&udp(from.parse().unwrap(), to.parse().unwrap(), [9, 9])), stations, false).is_ok()
    };
    let (out, back, among) = ([OWN, host], [host, OWN], [OWN, OTHER]);
    assert!(passes(out, "10.0.0.1", "192.0.2.1") && passes(back, "192.0.2.1", "10.0.0.1"));
    assert!(passes(among, "10.0.0.1", "10.0.0.2"), "a host's own address");
    assert!(!passes(out, "10.0.0.3", "10.0.0.1") && !passes(out, "10.0.0.1", "224.0.0.251"));
    assert!(passes(among, "10.0.0.3", "10.0.0.254"), "the service address");
    // A container that gives itself an address from there is not there.
    assert!(!passes(among, "10.0.0.1", "192.0.2.1") && !passes(among, "192.0.2.1", "10.0.0.1"));
    assert!(!passes(among, "fd00::1", "fe80::2") && !passes(out, "fd00::1", "fe80::2"), "nobody passes these on");
    assert!(!passes(out, "10.0.0.1", "255.255.255.255") && !passes(out, "10.0.0.1", "169.254.0.1"));
}

#[test]
fn whoever_asks_tells_no_address_of_anothers() {
    let no_v6 = Guard { addresses: [address(false, 1)].into(), ..full() };
    for (kind, fixed) in [(135, 24), (133, 8)] {
        let ask = |from: u8, mac: Mac| {
            let message = [&[kind][..], &vec![0; fixed - 1], &[1, 1], &mac.0].concat();
            icmpv6(address(true, from), &message, &[], 0)
        };
        for guard in [no_v6.clone(), Guard { any_source: true, ..full() }, unknown()] {
            assert_eq!(check(&guard, &ask(9, OWN)), Err(Drop::SpoofedAddress), "known to be another's: {guard:?}");
            assert_eq!(check(&guard, &ask(7, OWN)), Ok(()), "{guard:?}");
        }
        assert_eq!(check(&full(), &ask(7, OWN)), Err(Drop::SpoofedAddress));
        assert_eq!(check(&full(), &ask(1, OWN)), Ok(()));
        let by_mac = Guard { mac: Some(OWN), ..Guard::default() };
        assert_eq!(check(&by_mac, &ask(9, OTHER)), Err(Drop::SpoofedAddress));
        assert_eq!(check(&by_mac, &ask(9, OWN)), Ok(()), "which IP address is not asked");
    }
}

#[test]
fn fragments_and_padding_are_not_taken_for_the_header_that_they_are_not() {
    for v6 in [false, true] {
        let (from, to, ethertype) = (address(v6, 1), address(v6, 2), if v6 { 0x86dd } else { 0x0800 });
        // Eight bytes of TCP, and behind the packet's end what would be the rest with ACK set.
        let first = ip(v6, from, to, 6, Some(if v6 { 0 } else { 0x2000 }), &[0, 80, 0, 81, 0, 0, 0, 1]);
        let padded = [&first[..], &[0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(content(&ethernet(OWN, 0, ethertype, &padded)), Content::Unreadable);
        let second = ip(v6, from, to, 6, Some(1), &[0; 20]);
        assert_eq!(content(&ethernet(OWN, 0, ethertype, &second)), Content::Unreadable);
        let third = ip(v6, from, to, 6, Some(2), &[0; 20]);
        assert!(matches!(content(&ethernet(OWN, 0, ethertype, &third)), Content::Ip(_)));
        // A super-frame longer than its length field can say has 0 there.
        let mut long = ip(v6, from, to, 6, None, &[0; 20]);
        long[if v6 { 4..6 } else { 2..4 }].fill(0);
        assert!(matches!(content(&ethernet(OWN, 0, ethertype, &long)), Content::Ip(_)));
    }
    // What a later fragment calls its protocol is looked at by nobody.
    let second = ip(true, address(true, 1), address(true, 2), 17, Some(1), &[0; 20]);
    assert_eq!(content(&ethernet(OWN, 0, 0x86dd, &second)), Content::Unreadable);
}
