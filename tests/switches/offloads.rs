//! Offloads: whole super-frames where they are on, and right checksums where they are off.

use super::{edit, lab_with, ports, status};
use crate::common::{SOON, cli, place};
use crate::frames::{Sniffer, check_frame};
use std::net::SocketAddr;
use std::time::Duration;
use weft::lab::spec::CONTAINER_IFNAME;
use weft::lab::{Container, Lab, Stop, datagrams, generator};
use weft::tunnel::Engine;

const ALL: [&str; 7] = ["tap_checksum", "tap_tso", "tap_uso", "merge", "udp_segment", "udp_gro", "avx512"];
const MEASURE: Duration = Duration::from_millis(250);

/// TCP, UDP of many sizes and pings between two containers, both families, both ways, every byte compared.
fn exchange(one: &Container, two: &Container) {
    let stop = Stop::default();
    for (from, to) in [(one, two), (two, one)] {
        for address in [to.v4.into(), to.v6.into()] {
            for size in [56, 1452, 10_000] {
                from.ping(address, size, SOON).unwrap();
            }
            let address = SocketAddr::new(address, 0);
            let moved = generator::bulk_tcp(&from.netns, &to.netns, address, 2, MEASURE, &stop).unwrap();
            assert!(moved.bytes > 1 << 20, "{moved:?}");
            let sizes = (0..20).chain(1380..1480).chain((1500..datagrams::MAX_DATAGRAM).step_by(9001));
            datagrams::every_size(&from.netns, &to.netns, address, sizes, &stop).unwrap();
        }
    }
}

/// Everything that arrives meanwhile has its checksums filled in, and they are right.
fn with_checked_receivers(containers: &[&Container], traffic: impl FnOnce()) {
    let mut ears: Vec<_> =
        containers.iter().map(|container| Sniffer::open(&container.netns, CONTAINER_IFNAME)).collect();
    traffic();
    for (ear, container) in ears.iter_mut().zip(containers) {
        let mut checked = 0;
        for seen in ear.seen().iter().filter(|seen| !seen.outgoing) {
            assert!(seen.complete, "at {}: {seen:?}", container.name);
            assert!(seen.bytes.len() <= 1514, "at {}: {seen:?}", container.name);
            match check_frame(&seen.bytes) {
                Ok(was_checked) => checked += usize::from(was_checked),
                Err(wrong) => panic!("at {}: {wrong}: {seen:?}", container.name),
            }
        }
        assert!(checked > 1000, "only {checked} frames at {}", container.name);
    }
}

/// What `weft status` says of the offloads.
fn assert_shown(lab: &Lab, off: &[&str]) {
    let shown = cli::weft(&lab.host(1).files.socket(), "status").done();
    let offloads = status(lab.host(1)).offloads;
    assert_eq!(offloads.len(), ALL.len(), "{offloads:?}");
    for name in ALL {
        let state = if off.contains(&name) {
            "off (switched off in the configuration)"
        } else if name != "tap_checksum"
            && off.contains(&"tap_checksum")
            && name.starts_with("tap") | (name == "merge")
        {
            "off (needs tap_checksum)"
        } else if name == "avx512" && Engine::fastest() != Engine::Avx512 {
            "off (this processor lacks it)"
        } else {
            "on"
        };
        assert_eq!(offloads[name], state, "{name} without {off:?}");
        assert!(shown.contains(&format!("{name:<14}{state}")), "{shown}");
    }
}

#[test]
fn super_frames_pass_from_port_to_port_whole_and_through_the_tunnel_merged() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::spec(2, 2));
    let here = lab.container(1, 1);
    assert_shown(&lab, &[]);
    for to in [lab.container(1, 2), lab.container(2, 1)] {
        let mut ear = Sniffer::open(&to.netns, CONTAINER_IFNAME);
        let moved = generator::bulk_tcp(&here.netns, &to.netns, (to.v4, 0).into(), 1, MEASURE, &Stop::default());
        let moved = moved.unwrap();
        let arrived = ear.seen().iter().filter(|seen| !seen.outgoing).map(|seen| seen.bytes.len());
        let (frames, bytes) = arrived.fold((0, 0), |(frames, bytes), length| (frames + 1, bytes + length));
        assert!(bytes / frames > 4000, "{} bytes a frame at {}, {moved:?}", bytes / frames, to.name);
    }
    // On one host they are counted as what they are.
    let port = ports(lab.host(1)).into_iter().find(|port| port.name == "c2").unwrap();
    assert!(port.tx_bytes / port.tx_frames > 4000, "{port:?}");
}

#[test]
fn without_any_one_offload_everything_passes() {
    if !place::usable() {
        return;
    }
    for name in ALL.into_iter().filter(|name| *name != "tap_checksum") {
        let mut spec = place::spec(2, 2);
        spec.offload_off = vec![name.to_owned()];
        let lab = place::lab(spec);
        assert_shown(&lab, &[name]);
        exchange(lab.container(1, 1), lab.container(2, 1));
        exchange(lab.container(1, 1), lab.container(1, 2));
    }
}

#[test]
fn without_checksum_offload_every_checksum_is_complete_and_right() {
    if !place::usable() {
        return;
    }
    for off in [&ALL[..1], &ALL] {
        let mut spec = place::spec(2, 2);
        spec.offload_off = off.iter().map(|&name| name.to_owned()).collect();
        let lab = place::lab(spec);
        assert_shown(&lab, off);
        let (here, next, far) = (lab.container(1, 1), lab.container(1, 2), lab.container(2, 1));
        with_checked_receivers(&[here, next, far], || {
            exchange(here, far);
            exchange(here, next);
        });
    }
}

#[test]
fn a_host_without_offloads_gets_complete_checksums_from_one_with_them() {
    if !place::usable() {
        return;
    }
    let lab = lab_with(place::spec(2, 1), |host, text| match host.name.as_str() {
        "h2" => text + "\n[offload]\n" + &ALL.map(|name| format!("{name} = false\n")).concat(),
        _ => text,
    });
    let (with, without) = (lab.container(1, 1), lab.container(2, 1));
    with_checked_receivers(&[without], || exchange(with, without));
}

#[test]
fn two_workers_forward_as_one_does() {
    if !place::usable() {
        return;
    }
    let mut spec = place::spec(2, 2);
    spec.extra_node = "workers = 2".to_owned();
    let lab = place::lab(spec);
    assert_eq!(status(lab.host(1)).workers, 2);
    exchange(lab.container(1, 1), lab.container(2, 1));
    exchange(lab.container(1, 1), lab.container(1, 2));
    let (near, far, stop) = (&lab.container(1, 1).netns, &lab.container(2, 2).netns, Stop::default());
    let address = (lab.container(2, 2).v4, 0).into();
    generator::bulk_tcp(near, far, address, 8, 4 * MEASURE, &stop).unwrap();
    let flood = datagrams::flood(near, far, address, 64, 2 * MEASURE, &stop).unwrap();
    assert!(flood.delivered > 1000, "{flood:?}");
    // Reordering between workers must not look like replays.
    assert_eq!(lab.hosts().iter().map(|host| super::dropped(host, "replay")).sum::<u64>(), 0);
    // Who asks for more than there can be is told so before anything starts.
    edit(lab.host(2), |text| text.replace("workers = 2", "workers = 257"));
    let refused = cli::weft(&lab.host(2).files.socket(), "reload").refused();
    assert!(refused.contains("workers"), "{refused}");
}
