//! The scenes there are.
//!
//! Where a scene is about finding each other, the daemons' files name the first host's endpoint alone; where it is about
//! the path, they name all that can be named. The times are those the mesh promises: a better path within 10 s, a dead
//! one left within 3 s, a partition healed within 5 s; beginnings have longer, for all daemons start at once.

use super::{Act, Expect, Kind, Scene};
use crate::lab::internet::firewall::FirewallSettings;
use crate::lab::internet::nat::NatSettings;
use crate::lab::link::LinkSettings;
use crate::lab::spec::Discovery;
use crate::lab::topology::{Middlebox, Site, Topology};
use Expect::{Among, By, Everybody, Parted, PathMtu};
use Kind::{Direct, Relayed, Stream};
use std::time::Duration;

/// For everything at the beginning.
const BEGINNING: Duration = Duration::from_secs(20);
/// Until a better path is used.
const UPGRADE: Duration = Duration::from_secs(10);
/// Until a dead one is left.
const LEFT: Duration = Duration::from_secs(3);
/// Until a healed partition is one again.
const HEALED: Duration = Duration::from_secs(5);
/// Until something that is too large for a path is known to be.
const NOTICED: Duration = Duration::from_secs(10);
/// Until a larger path MTU is tried again and found.
const GROWN: Duration = Duration::from_secs(30);
/// Until something has been noticed to be gone.
const GONE: Duration = Duration::from_secs(10);

/// A payload that every path carries whole, and one that none does.
const SMALL: usize = 56;
const LARGE: usize = 10_000;

/// The first act of a scene: what holds from the beginning.
const fn beginning(expect: &'static [Expect]) -> Act {
    Act { what: "the beginning", change: |_, _| Ok(()), expect, within: BEGINNING }
}

/// The scene called `name`.
pub fn find(name: &str) -> Option<&'static Scene> {
    ALL.iter().find(|scene| scene.name == name)
}

/// All scenes.
pub const ALL: &[Scene] = &[
    Scene {
        name: "nat",
        about: "two hosts behind home routers meet through a public one and punch their way to each other",
        picture: "
  h2 ── NAT ──┐                 ┌── NAT ── h3
   (port-restricted cone)     (the same)
              └──── internet ───┘
                       h1",
        topology: || {
            let home = |h| Site::behind(NatSettings::default(), [h]);
            Topology::new([Site::public([1]), home(2), home(3)])
        },
        discovery: Discovery::Seed,
        pulse: Some((2, 3)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 2, Direct), By(2, 3, Direct)]),
            Act {
                what: "h2's router restarts and forgets",
                change: |lab, _| {
                    let forgetful = NatSettings { udp_timeout: Duration::from_secs(60), ..Default::default() };
                    lab.set_box(2, Middlebox { nat: Some(forgetful), ..Middlebox::default() })
                },
                expect: &[Everybody(SMALL), By(2, 3, Direct)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "symmetric",
        about: "two hosts behind symmetric NATs speak through a third until one NAT is lifted",
        picture: "
  h2 ── symmetric NAT ──┐      ┌── symmetric NAT ── h3
                        └─ h1 ─┘",
        topology: || {
            let office = |h| Site::behind(NatSettings::symmetric(), [h]);
            Topology::new([Site::public([1]), office(2), office(3)])
        },
        discovery: Discovery::Seed,
        pulse: Some((2, 3)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 2, Direct), By(1, 3, Direct), By(2, 3, Relayed)]),
            Act {
                what: "the NAT of h3 is lifted",
                change: |lab, _| lab.set_box(3, Middlebox::default()),
                expect: &[Everybody(SMALL), By(2, 3, Direct)],
                within: UPGRADE,
            },
            Act {
                what: "the NAT of h3 is back",
                change: |lab, _| {
                    let nat = Some(NatSettings::symmetric());
                    lab.set_box(3, Middlebox { nat, ..Middlebox::default() })
                },
                expect: &[Everybody(SMALL), By(2, 3, Relayed)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "chain",
        about: "two hosts without a path between them speak through a third, and through a fourth when that one dies",
        picture: "
       ┌── h2 ──┐
  h1 ──┤        ├── h3        no way between h1 and h3
       └── h4 ──┘",
        topology: || Topology { cut_pairs: [(1, 3)].into(), ..Topology::flat(4) },
        discovery: Discovery::Full,
        pulse: Some((1, 3)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 3, Relayed)]),
            Act {
                what: "h2 crashes",
                change: |lab, _| lab.crash(2),
                expect: &[Among(&[1, 3, 4]), By(1, 3, Relayed)],
                within: LEFT,
            },
            Act {
                what: "h2 reboots and h4 crashes",
                change: |lab, stop| {
                    lab.reboot(2, stop)?;
                    lab.crash(4)
                },
                expect: &[Among(&[1, 2, 3]), By(1, 3, Relayed)],
                within: BEGINNING,
            },
            Act {
                what: "h1 and h3 reach each other",
                change: |lab, _| lab.change_topology(|topology| topology.cut_pairs.clear()),
                expect: &[Among(&[1, 2, 3]), By(1, 3, Direct)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "lossy",
        about: "every line loses and overtakes, and one of them gets much worse",
        picture: "
  h1 ── 2 % ──┬── 2 % ── h2
              └── 2 % ── h3",
        topology: || {
            let line =
                LinkSettings { loss: 2.0, reorder: 1.0, delay: Duration::from_millis(10), ..Default::default() };
            Topology::new((1..=3).map(|h| Site { line: line.clone(), ..Site::public([h]) }))
        },
        discovery: Discovery::Full,
        pulse: Some((1, 2)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 2, Direct)]),
            Act {
                what: "h3's line loses 30 %",
                change: |lab, _| lab.change_site(3, |site| site.line.loss = 30.0),
                expect: &[Everybody(SMALL)],
                within: UPGRADE,
            },
            Act {
                what: "the lines are mended",
                change: |lab, _| (1..=3).try_for_each(|site| lab.set_line(site, LinkSettings::default())),
                expect: &[Everybody(LARGE), By(1, 3, Direct)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "slow",
        about: "one host has a line of a megabit, 50 ms away",
        picture: "
  h1 ──────────┬── 1 Mbit/s, 50 ms ── h3
  h2 ──────────┘",
        topology: || {
            let delay = Duration::from_millis(50);
            let line = LinkSettings { rate: Some(1_000_000), delay, ..Default::default() };
            Topology::new([Site::public([1]), Site::public([2]), Site { line, ..Site::public([3]) }])
        },
        discovery: Discovery::Full,
        pulse: Some((1, 3)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 3, Direct)]),
            Act {
                what: "the line of h3 is replaced",
                change: |lab, _| lab.set_line(3, LinkSettings::default()),
                expect: &[Everybody(LARGE)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "firewall",
        about: "two hosts whose firewalls let nothing in but answers speak directly, and by TCP when UDP is blocked",
        picture: "
  h2 ── firewall ──┐      ┌── firewall ── h3
                   └─ h1 ─┘",
        topology: || {
            let guarded = |h| Site::guarded(FirewallSettings::closed(), [h]);
            Topology::new([Site::public([1]), guarded(2), guarded(3)])
        },
        discovery: Discovery::Full,
        pulse: Some((1, 3)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 2, Direct), By(2, 3, Direct)]),
            Act {
                what: "h3's firewall blocks UDP",
                change: |lab, _| lab.change_site(3, |site| site.middlebox.firewall = FirewallSettings::without_udp()),
                expect: &[Everybody(SMALL), By(1, 3, Stream)],
                within: UPGRADE,
            },
            Act {
                what: "h3's firewall allows UDP again",
                change: |lab, _| lab.change_site(3, |site| site.middlebox.firewall = FirewallSettings::closed()),
                expect: &[Everybody(SMALL), By(1, 3, Direct), By(2, 3, Direct)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "tcp-only",
        about: "a host behind a firewall that lets out nothing but TCP, until it lets out UDP",
        picture: "
  h2 ── firewall, TCP only ──┬── h1
                             └── h3",
        topology: || {
            Topology::new([Site::public([1]), Site::guarded(FirewallSettings::without_udp(), [2]), Site::public([3])])
        },
        discovery: Discovery::Seed,
        pulse: Some((1, 2)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 2, Stream), By(1, 3, Direct)]),
            Act {
                what: "the firewall allows UDP",
                change: |lab, _| lab.set_box(2, Middlebox::default()),
                expect: &[Everybody(SMALL), By(1, 2, Direct), By(2, 3, Direct)],
                within: UPGRADE,
            },
            Act {
                what: "the firewall blocks UDP again",
                change: |lab, _| lab.change_site(2, |site| site.middlebox.firewall = FirewallSettings::without_udp()),
                expect: &[Everybody(SMALL), By(1, 2, Stream)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "ipv6",
        about: "hosts with only IPv6 and hosts with only IPv4 speak through one that has both",
        picture: "
  h2  IPv6 ──┐        ┌── IPv4  h4
  h3  IPv6 ──┴── h1 ──┘",
        topology: || {
            let v6 = |h| Site { v4: false, ..Site::public([h]) };
            Topology::new([Site::public([1]), v6(2), v6(3), Site { v6: false, ..Site::public([4]) }])
        },
        discovery: Discovery::Seed,
        pulse: Some((2, 4)),
        acts: &[beginning(&[
            Everybody(SMALL),
            By(1, 2, Direct),
            By(1, 4, Direct),
            By(2, 3, Direct),
            By(2, 4, Relayed),
        ])],
    },
    Scene {
        name: "roam",
        about: "a laptop is carried from home to the office and into the street while it speaks",
        picture: "
  home    NAT ── (h2) ──┐
  office  NAT ── h3 ────┼── h1
  street ───────────────┘",
        topology: || {
            let home = Site::behind(NatSettings::default(), [2]);
            let office = Site::behind(NatSettings::symmetric(), [3]);
            Topology::new([Site::public([1]), home, office, Site::public([])])
        },
        discovery: Discovery::Full,
        pulse: Some((1, 2)),
        acts: &[
            beginning(&[Among(&[1, 2]), Among(&[1, 3]), By(1, 2, Direct)]),
            Act {
                what: "h2 is carried to the office",
                change: |lab, _| lab.relocate(2, 3),
                expect: &[Among(&[1, 2]), By(1, 2, Direct)],
                within: UPGRADE,
            },
            Act {
                what: "h2 is carried into the street",
                change: |lab, _| lab.relocate(2, 4),
                expect: &[Among(&[1, 2]), By(1, 2, Direct)],
                within: UPGRADE,
            },
        ],
    },
    Scene {
        name: "partition",
        about: "four hosts are parted into two pairs, and joined again",
        picture: "
  h1 ─ h2   ╳   h3 ─ h4",
        topology: || Topology::flat(4),
        discovery: Discovery::Full,
        pulse: Some((1, 2)),
        acts: &[
            beginning(&[Everybody(SMALL), By(1, 3, Direct)]),
            Act {
                what: "the net parts",
                change: |lab, _| lab.partition(&[&[1, 2], &[3, 4]]),
                expect: &[Among(&[1, 2]), Among(&[3, 4]), Parted(1, 3), Parted(2, 4)],
                within: GONE,
            },
            Act { what: "the net heals", change: |lab, _| lab.heal(), expect: &[Everybody(SMALL)], within: HEALED },
        ],
    },
    Scene {
        name: "crash",
        about: "a daemon is killed, then its host reboots",
        picture: "
  h1 ──┬── h2
       └── h3",
        topology: || Topology::flat(3),
        discovery: Discovery::Full,
        pulse: Some((1, 3)),
        acts: &[
            beginning(&[Everybody(SMALL)]),
            Act {
                what: "h2 crashes",
                change: |lab, _| lab.crash(2),
                expect: &[Among(&[1, 3]), Parted(1, 2), Parted(2, 3)],
                within: GONE,
            },
            Act {
                what: "h2 reboots",
                change: |lab, stop| lab.reboot(2, stop),
                expect: &[Everybody(SMALL)],
                within: HEALED,
            },
        ],
    },
    Scene {
        name: "jumbo",
        about: "an underlay with an MTU of 9000 is used whole, until one line falls back to 1500 and says nothing",
        picture: "
  h1 ── 9000 ──┬── 9000 ── h2
               └── 9000 ── h3",
        topology: || Topology::new((1..=3).map(|h| Site { mtu: 9000, icmp: false, ..Site::public([h]) })),
        discovery: Discovery::Full,
        pulse: Some((1, 2)),
        acts: &[
            beginning(&[Everybody(LARGE), PathMtu(1, 2, 9000), PathMtu(2, 3, 9000)]),
            Act {
                what: "h3's line carries 1500",
                change: |lab, _| lab.change_site(3, |site| site.line.max_packet = Some(1500)),
                expect: &[Everybody(LARGE), PathMtu(1, 3, 1500), PathMtu(1, 2, 9000)],
                within: NOTICED,
            },
        ],
    },
    Scene {
        name: "blackhole",
        about: "a line swallows packets above 1280 bytes and tells nobody",
        picture: "
  h1 ── 1500 ──┬── 1280, no ICMP ── h2
               └── 1500 ── h3",
        topology: || {
            let line = LinkSettings { max_packet: Some(1280), ..Default::default() };
            let hole = Site { line, icmp: false, ..Site::public([2]) };
            Topology::new([Site::public([1]), hole, Site { icmp: false, ..Site::public([3]) }])
        },
        discovery: Discovery::Full,
        pulse: Some((1, 2)),
        acts: &[
            beginning(&[Everybody(LARGE), PathMtu(1, 2, 1280), PathMtu(1, 3, 1500)]),
            Act {
                what: "the black hole is mended",
                change: |lab, _| lab.set_line(2, LinkSettings::default()),
                expect: &[Everybody(LARGE), PathMtu(1, 2, 1500)],
                within: GROWN,
            },
            Act {
                what: "another opens before h3",
                change: |lab, _| lab.change_site(3, |site| site.line.max_packet = Some(1280)),
                expect: &[Everybody(LARGE), PathMtu(1, 3, 1280), PathMtu(1, 2, 1500)],
                within: NOTICED,
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scene_can_be_built_and_speaks_of_hosts_it_has() {
        let names: BTreeSet<_> = ALL.iter().map(|scene| scene.name).collect();
        assert_eq!(names.len(), ALL.len());
        for scene in ALL {
            assert_eq!(find(scene.name).unwrap().name, scene.name);
            let spec = scene.spec("test");
            spec.check().unwrap();
            let named = scene.acts.iter().flat_map(|act| act.expect).flat_map(|expect| match *expect {
                Everybody(_) => vec![],
                Among(hosts) => hosts.to_vec(),
                Parted(a, b) | By(a, b, _) | PathMtu(a, b, _) => vec![a, b],
            });
            let pulse = scene.pulse.into_iter().flat_map(|(a, b)| [a, b]);
            assert!(named.chain(pulse).all(|h| (1..=spec.hosts).contains(&h)), "{}", scene.name);
            assert!(scene.acts.iter().all(|act| !act.expect.is_empty()) && !scene.acts.is_empty(), "{}", scene.name);
        }
    }
}
