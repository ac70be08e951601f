//! Each test works in network namespaces it made itself.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::io::skip;

/// A namespace of the test's own and a socket into it, or a reason printed and `None`.
fn fresh() -> Option<(Netns, Netlink)> {
    let netns = Netns::create().map_err(|error| skip::say(&error.to_string())).ok()?;
    let netlink = netns.run(Netlink::open).unwrap().unwrap();
    Some((netns, netlink))
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

#[test]
fn a_veth_pair_is_made_moved_set_up_and_removed() {
    let Some((_one, mut here)) = fresh() else { return };
    let Some((two, mut there)) = fresh() else { return };
    here.add_veth("left", "right", Some(&two)).unwrap();
    let left = here.link("left").unwrap().unwrap();
    let right = there.link("right").unwrap().unwrap();
    assert_eq!(left.kind.as_deref(), Some("veth"));
    assert!(!left.up && !left.carrier);

    let mac = Mac([2, 0, 0, 0, 0, 7]);
    here.set_mac(left.index, mac).unwrap();
    here.set_mtu(left.index, 1280).unwrap();
    here.set_txqueuelen(left.index, 77).unwrap();
    here.rename(left.index, "renamed").unwrap();
    here.set_up(left.index).unwrap();
    there.set_up(right.index).unwrap();
    let left = here.link_by_index(left.index).unwrap().unwrap();
    assert!(left.up && left.carrier);
    assert_eq!((left.name.as_str(), left.mac, left.mtu), ("renamed", Some(mac), 1280));
    here.set_down(left.index).unwrap();
    assert!(!here.link("renamed").unwrap().unwrap().up);

    here.move_to(left.index, &two, "eth7").unwrap();
    assert_eq!(here.link("renamed").unwrap(), None);
    let moved = there.link("eth7").unwrap().unwrap();
    assert_eq!(moved.mac, Some(mac));
    there.delete(moved.index).unwrap();
    assert_eq!(there.link("right").unwrap(), None);
    assert_eq!(there.links().unwrap().len(), 1);
}

#[test]
fn a_bridge_takes_ports_and_lets_them_go() {
    let Some((_netns, mut netlink)) = fresh() else { return };
    netlink.add_bridge("br0").unwrap();
    netlink.add_veth("a", "b", None).unwrap();
    let bridge = netlink.link("br0").unwrap().unwrap().index;
    let port = netlink.link("a").unwrap().unwrap().index;
    netlink.set_master(port, Some(bridge)).unwrap();
    assert_eq!(netlink.link("a").unwrap().unwrap().master, Some(bridge));
    netlink.set_master(port, None).unwrap();
    assert_eq!(netlink.link("a").unwrap().unwrap().master, None);
}

#[test]
fn a_vxlan_interface_is_made_with_its_remote() {
    let Some((_netns, mut netlink)) = fresh() else { return };
    let (local, remote) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    match netlink.add_vxlan("vxlan0", 100, local, remote, 4789) {
        Err(error) if error.is(libc::EOPNOTSUPP) => return skip::say("this kernel has no vxlan device"),
        outcome => outcome.unwrap(),
    }
    assert_eq!(netlink.link("vxlan0").unwrap().unwrap().kind.as_deref(), Some("vxlan"));
}

#[test]
fn addresses_and_routes_are_found_as_they_were_added() {
    let Some((_netns, mut netlink)) = fresh() else { return };
    netlink.add_veth("a", "b", None).unwrap();
    let index = netlink.link("a").unwrap().unwrap().index;
    let peer = netlink.link("b").unwrap().unwrap().index;
    netlink.set_up(peer).unwrap();
    netlink.set_up(index).unwrap();
    let wanted = [cidr("10.9.0.1/24"), cidr("10.9.1.1/32"), cidr("fd00:9::1/64")];
    for address in wanted {
        netlink.add_address(index, address, true).unwrap();
    }
    let found = netlink.addresses(index).unwrap();
    for address in wanted {
        assert!(found.iter().any(|have| have.cidr == address && !have.tentative), "{address} in {found:?}");
    }
    netlink.add_address(index, cidr("fd00:9::2/64"), false).unwrap();
    let found = netlink.addresses(index).unwrap();
    assert!(found.iter().any(|have| have.cidr == cidr("fd00:9::2/64") && have.tentative), "{found:?}");

    netlink.add_route(None, "10.9.0.254".parse().unwrap(), index).unwrap();
    netlink.add_route(None, "fd00:9::fe".parse().unwrap(), index).unwrap();
    netlink.add_route(Some(cidr("10.77.0.0/16")), "10.9.0.254".parse().unwrap(), index).unwrap();
    let routes = netlink.routes().unwrap();
    let has = |destination: Option<&str>, gateway: Option<&str>| {
        let (destination, gateway) = (destination.map(cidr), gateway.map(|text| text.parse().unwrap()));
        routes.contains(&Route { destination, gateway, index })
    };
    assert!(has(None, Some("10.9.0.254")), "{routes:?}");
    assert!(has(None, Some("fd00:9::fe")), "{routes:?}");
    assert!(has(Some("10.77.0.0/16"), Some("10.9.0.254")), "{routes:?}");
    assert!(has(Some("10.9.0.0/24"), None), "{routes:?}");
}

#[test]
fn a_refusal_names_the_request_and_the_kernels_reason() {
    let Some((netns, mut netlink)) = fresh() else { return };
    netlink.add_veth("a", "b", Some(&netns)).unwrap();
    let taken = netlink.add_bridge("a").unwrap_err();
    assert!(taken.is(libc::EEXIST), "{taken}");
    assert!(taken.to_string().starts_with("cannot make bridge interface a: File exists"), "{taken}");

    let index = netlink.link("a").unwrap().unwrap().index;
    let far = netlink.add_route(None, "192.0.2.1".parse().unwrap(), index).unwrap_err();
    assert!(far.detail.is_some(), "{far:?}");
    assert!(netlink.delete(4711).unwrap_err().is(libc::ENODEV));
    assert_eq!(netlink.link("nobody").unwrap(), None);
    assert_eq!(netlink.link_by_index(4711).unwrap(), None);
}

#[test]
fn a_dump_of_many_interfaces_is_complete() {
    let Some((_netns, mut netlink)) = fresh() else { return };
    for number in 0..60 {
        netlink.add_veth(&format!("a{number}"), &format!("b{number}"), None).unwrap();
    }
    assert_eq!(netlink.links().unwrap().len(), 121);
}

#[test]
fn a_preferred_default_route_wins_and_leaves_the_other_in_place() {
    let Some((_netns, mut netlink)) = fresh() else { return };
    netlink.add_veth("a", "b", None).unwrap();
    let (a, b) = (netlink.link("a").unwrap().unwrap().index, netlink.link("b").unwrap().unwrap().index);
    for (index, network) in [(a, 1), (b, 2)] {
        netlink.set_up(index).unwrap();
        netlink.add_address(index, cidr(&format!("10.9.{network}.1/24")), true).unwrap();
        netlink.add_address(index, cidr(&format!("fd00:{network}::1/64")), true).unwrap();
    }
    netlink.add_route(None, "10.9.1.9".parse().unwrap(), a).unwrap();
    netlink.add_route(None, "fd00:1::9".parse().unwrap(), a).unwrap();
    netlink.add_default_route("10.9.2.9".parse().unwrap(), b).unwrap();
    netlink.add_default_route("fd00:2::9".parse().unwrap(), b).unwrap();
    let defaults = |netlink: &mut Netlink| -> Vec<String> {
        let routes = netlink.routes().unwrap().into_iter().filter(|route| route.destination.is_none());
        routes.filter_map(|route| route.gateway).map(|gateway| gateway.to_string()).collect()
    };
    assert_eq!(defaults(&mut netlink), ["10.9.2.9", "10.9.1.9", "fd00:2::9", "fd00:1::9"]);
    netlink.set_down(b).unwrap();
    assert_eq!(defaults(&mut netlink), ["10.9.1.9", "fd00:1::9"]);
}
