//! The lab without daemons: what hosts see of each other over the bridge and over the impaired wire.

#![allow(clippy::unwrap_used)]
use super::link::LinkSettings;
use super::ping::{PingError, Pinger};
use super::topology::{Site, Topology};
use super::*;
use crate::io::skip;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicUsize;

const SOON: Duration = Duration::from_secs(5);
const BRIEF: Duration = Duration::from_millis(250);

/// Hosts without daemons, or a reason printed and `None`.
fn laid(change: impl FnOnce(&mut LabSpec)) -> Option<Lab> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    if let Err(error) = Netns::create() {
        skip::say(&error.to_string());
        return None;
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut spec = LabSpec::new(format!("unit-{}-{number}", std::process::id()), 2, 1);
    change(&mut spec);
    Some(Lab::lay(spec).unwrap())
}

fn ping(lab: &Lab, to: IpAddr, size: usize, patience: Duration) -> Result<Duration, PingError> {
    Pinger::open(&lab.host(1).netns, to, None)?.until(size, patience)
}

#[test]
fn hosts_on_the_bridge_reach_each_other_unless_the_cable_is_pulled() {
    let Some(mut lab) = laid(|_| {}) else { return };
    let (v4, v6) = (IpAddr::V4(lab.host(2).v4), IpAddr::V6(lab.host(2).v6));
    ping(&lab, v4, 5000, SOON).unwrap();
    ping(&lab, v6, 5000, SOON).unwrap();
    lab.set_cable(2, false).unwrap();
    ping(&lab, v4, 56, BRIEF).unwrap_err();
    lab.set_cable(2, true).unwrap();
    ping(&lab, v4, 56, SOON).unwrap();

    lab.readdress(2, Ipv4Addr::new(192, 0, 2, 77), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 77)).unwrap();
    ping(&lab, v4, 56, BRIEF).unwrap_err();
    ping(&lab, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)), 56, SOON).unwrap();
}

#[test]
fn traffic_crosses_the_bridge_and_a_capture_there_finds_it() {
    let Some(lab) = laid(|spec| spec.underlay_mtu = 9000) else { return };
    let (from, to) = (&lab.host(1).netns, &lab.host(2).netns);
    let address = (lab.host(2).v4, 0).into();
    let (brief, stop) = (Duration::from_millis(200), Stop::default());
    let capture = capture::Capture::start(lab.underlay_netns().unwrap(), &[51820], b"weft's marker").unwrap();
    let bulk = generator::bulk_tcp(from, to, address, 2, brief, &stop).unwrap();
    assert!(bulk.gbps() > 0.1, "{bulk:?}");
    let sizes = [0, 1, 1472, 1473, 30_000].into_iter();
    assert_eq!(datagrams::every_size(from, to, address, sizes, &stop).unwrap(), 5);
    let seen = capture.finish().unwrap();
    assert!(seen.findings > 10 && seen.wireguard() == 0, "{seen}");
    assert!(seen.described[0].starts_with("TCP 192.0.2.1 → 192.0.2.2"), "{seen}");
    assert!(seen.described.len() <= 10);
}

#[test]
fn the_impaired_wire_loses_delays_cuts_and_swallows_large_packets() {
    let settings = LinkSettings { delay: Duration::from_millis(20), ..Default::default() };
    let Some(lab) = laid(|spec| spec.underlay = spec::Underlay::Impaired(settings, 1)) else { return };
    let (v4, v6) = (IpAddr::V4(lab.host(2).v4), IpAddr::V6(lab.host(2).v6));
    let delay = ping(&lab, v4, 1400, SOON).unwrap();
    assert!(delay >= Duration::from_millis(40), "{delay:?}");
    ping(&lab, v6, 1400, SOON).unwrap();

    lab.change_link(|link| link.max_packet = Some(1300)).unwrap();
    ping(&lab, v4, 1272, SOON).unwrap();
    ping(&lab, v4, 1273, BRIEF).unwrap_err();

    lab.change_link(|link| *link = LinkSettings { loss: 100.0, ..Default::default() }).unwrap();
    ping(&lab, v4, 56, BRIEF).unwrap_err();
    lab.change_link(|link| link.loss = 20.0).unwrap();
    ping(&lab, v4, 56, SOON).unwrap();

    lab.set_cable(2, false).unwrap();
    ping(&lab, v4, 56, BRIEF).unwrap_err();
    lab.set_cable(2, true).unwrap();
    ping(&lab, v4, 56, SOON).unwrap();
}

#[test]
fn tcp_arrives_whole_over_a_wire_that_loses_doubles_and_reorders() {
    let settings = LinkSettings { loss: 1.0, duplicate: 2.0, reorder: 2.0, ..Default::default() };
    let Some(lab) = laid(|spec| spec.underlay = spec::Underlay::Impaired(settings, 2)) else { return };
    let (from, to) = (&lab.host(1).netns, &lab.host(2).netns);
    let address = (lab.host(2).v4, 0).into();
    let bulk = generator::bulk_tcp(from, to, address, 1, Duration::from_millis(300), &Stop::default()).unwrap();
    assert!(bulk.bytes > 100_000, "{bulk:?}");
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let Some(lab) = laid(|_| {}) else { return };
    lab.publish().unwrap();
    let (dir, base, name) = (lab.dir().to_owned(), lab.spec().base.clone(), lab.spec().name.clone());
    let state = registry::find(&base, &name).unwrap();
    assert_eq!(state.find("h2/c1").unwrap(), (lab.container(2, 1).netns.as_fd().as_raw_fd(), None));
    assert_eq!(state.find("h3"), None);
    let config = std::fs::read_to_string(lab.host(1).files.config()).unwrap();
    assert!(config.contains(&lab.host(2).public_key.to_string()), "{config}");
    drop(lab);
    assert!(!dir.exists());
    assert!(registry::find(&base, &name).is_err());
}

#[test]
fn a_daemon_that_cannot_start_is_reported_and_the_lab_is_gone() {
    let Some(mut lab) = laid(|spec| spec.weft = "/bin/false".into()) else { return };
    let error = lab.start_daemons(&Stop::default()).unwrap_err().to_string();
    assert!(error.contains("the daemon of h1 ended at its start (exit status: 1)"), "{error}");
}

#[test]
fn the_daemons_files_are_valid_whatever_the_lab_is_like() {
    let offloads = ["tap_tso", "udp_gro"].map(str::to_owned).to_vec();
    for ipv6_underlay in [false, true] {
        let change = |spec: &mut LabSpec| {
            spec.ipv6_underlay = ipv6_underlay;
            spec.offload_off = offloads.clone();
            spec.extra_node = "workers = 2\n".to_owned();
            spec.extra_peer = "path_mtu = 1400\n".to_owned();
            spec.networks.push(spec::NetworkSpec { name: "other".to_owned(), vni: 7, mtu: 9000, containers: 1 });
        };
        let Some(lab) = laid(change) else { return };
        let path = lab.host(2).files.config();
        let config = crate::io::configfile::load(&path).map_err(|errors| errors.to_string()).unwrap();
        assert_eq!((config.node.name.as_str(), config.node.workers), ("h2", Some(2)));
        assert_eq!((config.networks.len(), config.peers.len()), (2, 1));
        assert_eq!(config.peers[0].public_key, lab.host(1).public_key);
        assert!(!config.offload.tap_tso && !config.offload.udp_gro && config.offload.udp_segment);
    }
}

fn udp(netns: &Netns, address: &str) -> std::net::UdpSocket {
    let socket = netns.run(|| std::net::UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

#[test]
fn the_kernels_of_hosts_meet_through_nats_and_firewalls_as_far_as_these_let_them() {
    use internet::firewall::FirewallSettings;
    use internet::nat::NatSettings;
    let topology = Topology::new([
        Site::public([1]),
        Site::behind(NatSettings::default(), [2, 3]),
        Site::guarded(FirewallSettings::closed(), [4]),
        Site { v4: false, ..Site::public([5]) },
    ]);
    let Some(lab) = laid(|spec| {
        (spec.hosts, spec.underlay) = (5, spec::Underlay::Routed(topology));
    }) else {
        return;
    };
    let ping = |from: usize, to: IpAddr, patience| {
        Pinger::open(&lab.host(from).netns, to, None).and_then(|mut pinger| pinger.until(1400, patience))
    };
    let (public, closed, sixth) = (lab.host(1), lab.host(4), lab.host(5));
    ping(2, public.v4.into(), SOON).unwrap();
    ping(3, public.v4.into(), SOON).unwrap();
    ping(2, lab.host(3).v4.into(), SOON).unwrap();
    ping(4, public.v6.into(), SOON).unwrap();
    ping(1, closed.v4.into(), BRIEF).unwrap_err();
    ping(1, closed.v6.into(), BRIEF).unwrap_err();
    ping(5, public.v6.into(), SOON).unwrap();
    ping(5, public.v4.into(), BRIEF).unwrap_err();
    assert_eq!((sixth.v4, lab.host(2).v6), (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED));

    // The kernel learns from a router that talks, and TCP goes through the NAT whole.
    lab.change_site(1, |site| site.line.max_packet = Some(1300)).unwrap();
    let (from, to) = (&lab.host(2).netns, &public.netns);
    let address = (public.v4, 0).into();
    let bulk = generator::bulk_tcp(from, to, address, 1, Duration::from_millis(300), &Stop::default()).unwrap();
    assert!(bulk.bytes > 100_000, "{bulk:?}");
    lab.change_site(9, |_| {}).unwrap_err();

    // An answer finds its way in while nobody else's does.
    let (inside, outside) = (udp(from, "0.0.0.0:500"), udp(to, "0.0.0.0:600"));
    inside.send_to(b"hello", (public.v4, 600)).unwrap();
    let mut buffer = [0; 64];
    let (length, seen) = outside.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], seen), (&b"hello"[..], "198.51.100.2:500".parse().unwrap()));
    outside.send_to(b"yourself", seen).unwrap();
    assert_eq!(inside.recv_from(&mut buffer).unwrap().1, (public.v4, 600).into());
}
