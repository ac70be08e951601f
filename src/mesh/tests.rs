//! Two members, a lossy pipe between them, and virtual time.

#![allow(clippy::unwrap_used)]

use super::path::{BASE, CANDIDATES, DETECTION};
use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What stands in front of a message.
const HEADERS: usize = IPV4_LEN + UDP_LEN;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 2)];

/// Where member `n` is on the underlay.
fn underlay(n: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n as u8], 51820))
}

fn link(from: usize) -> Link {
    Link { ours: ADDRESSES[from], theirs: ADDRESSES[1 - from], path_mtu: None, endpoint: Some(underlay(1 - from)) }
}

/// A packet on its way: arrival, a number for the order, receiver, bytes.
type Flight = (Duration, u64, usize, Vec<u8>);

/// Members 0 and 1; each names the other by its number.
struct World {
    now: Duration,
    members: [Mesh<usize>; 2],
    /// Packets on their way, the earliest first.
    pipe: BinaryHeap<Reverse<Flight>>,
    mtu: u16,
    loss_percent: u64,
    /// What member 1 says is lost.
    mute: bool,
    random: u64,
    sent: Vec<Duration>,
    to_mute: u32,
    changes: [u32; 2],
}

impl World {
    fn new(mtu: u16, loss_percent: u64, seed: u64) -> Self {
        let members = [0, 1].map(|n| {
            let mut mesh = Mesh::new(1000 + n as u64, n as u32);
            mesh.add_peer(1 - n, link(n));
            mesh.set_keep(Duration::ZERO, 1 - n, true);
            mesh
        });
        let mut world = Self {
            now: SECOND * 10,
            members,
            pipe: BinaryHeap::new(),
            mtu,
            loss_percent,
            mute: false,
            random: seed,
            sent: Vec::new(),
            to_mute: 0,
            changes: [0; 2],
        };
        for n in [0, 1] {
            world.members[n].session_up(world.now, 1 - n);
        }
        world
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    /// Runs everything that happens until `end`.
    fn run_until(&mut self, end: Duration) {
        loop {
            for n in [0, 1] {
                self.members[n].tick(self.now);
                self.collect(n);
            }
            let arrival = self.pipe.peek().map(|packet| packet.0.0);
            let deadlines = self.members.iter().filter_map(Mesh::next_deadline);
            let next = deadlines.chain(arrival).min().unwrap_or(Duration::MAX);
            assert!(next >= self.now, "a deadline in the past that tick did not serve");
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if arrival == Some(next) {
                let Reverse((_, _, to, packet)) = self.pipe.pop().unwrap();
                self.members[to].input(next, 1 - to, underlay(1 - to), &packet[HEADERS..]);
                self.collect(to);
            }
        }
    }

    fn collect(&mut self, from: usize) {
        while let Some(output) = self.members[from].poll_output() {
            let Output::Send { peer, packet, .. } = output else {
                self.changes[from] += u32::from(matches!(output, Output::Changed { .. }));
                continue;
            };
            self.sent.push(self.now);
            self.to_mute += u32::from(self.mute && from == 0);
            let lost = self.random() % 100 < self.loss_percent || (self.mute && from == 1);
            let underlay = packet.len() + WIREGUARD_OVERHEAD + UNDERLAY_OVERHEAD_V4;
            if !lost && underlay <= usize::from(self.mtu) {
                // 5 ms and a little more, so that packets overtake each other.
                let arrival = self.now + MS * 5 + MS / 1000 * (self.random() % 2000) as u32;
                self.pipe.push(Reverse((arrival, self.sent.len() as u64, peer, packet)));
            }
        }
    }

    /// Runs with frames in the tunnel.
    fn run_in_use(&mut self, time: Duration, mut each: impl FnMut(&Self)) {
        let end = self.now + time;
        while self.now < end {
            for n in [0, 1] {
                self.members[n].used(self.now, 1 - n);
                self.collect(n);
            }
            self.run_until(self.now + MS * 100);
            each(self);
        }
    }

    fn path_mtu(&self, member: usize) -> u16 {
        self.members[member].peer(1 - member).unwrap().path_mtu
    }

    fn networks_of_peer(&self, member: usize) -> Option<Vec<u32>> {
        self.members[member].peer(1 - member)?.greeting.map(|greeting| greeting.networks.clone())
    }
}

fn best(mtu: u16) -> u16 {
    CANDIDATES.into_iter().filter(|&size| size <= mtu).max().unwrap()
}

/// The most messages sent within one second.
fn busiest_second(sent: &[Duration]) -> usize {
    let until = |end: Duration| sent.partition_point(|at| *at < end);
    sent.iter().enumerate().map(|(n, start)| until(*start + SECOND) - n).max().unwrap_or(0)
}

#[test]
fn the_path_mtu_follows_a_pipe_that_changes_and_loses() {
    for (loss, seed) in [(0, 1), (5, 2), (5, 3), (10, 4), (20, 5), (20, 6)] {
        let mut world = World::new(1500, loss, seed);
        for (mtu, time) in [(1500, 300), (1280, 300), (9000, 1200), (1420, 300), (9000, 1200), (1500, 300)] {
            world.mtu = mtu;
            let changed = world.now;
            let (mut right, mut all) = (0, 0);
            let settled = changed + SECOND * (time / 2);
            world.run_in_use(SECOND * time, |world| {
                for member in [0, 1] {
                    let found = world.path_mtu(member);
                    // Loss may hide one round of a search or of a test.
                    let slack = if loss == 0 { Duration::ZERO } else { SECOND * 10 };
                    let late = world.now > changed + DETECTION + slack;
                    assert!(found <= mtu || !late, "{found} on {mtu}, {:?} after the change", world.now - changed);
                    all += u32::from(world.now > settled);
                    right += u32::from(world.now > settled && found == best(mtu));
                }
            });
            let percent = 100 * right / all;
            let wanted = match loss {
                0 => 100,
                5 => 98,
                10 => 80,
                // At 20 % one test in twenty fails for nothing: the price of noticing a shrunken path within seconds.
                _ => 60,
            };
            assert!(percent >= wanted, "{loss} % loss, {mtu}: right for {percent} % of the time");
        }
        let average = world.sent.len() as u64 / 2 / (world.now.as_secs() - 10);
        assert!(average < 4, "{average} messages a second each");
        let busiest = busiest_second(&world.sent) / 2;
        assert!(busiest < MAX_MESSAGES_PER_SECOND as usize / 2, "{busiest} messages in one second each");
    }
}

#[test]
fn a_mute_peer_is_assumed_to_be_on_the_smallest_path_and_left_in_peace() {
    let mut world = World::new(1500, 0, 1);
    world.mute = true;
    world.run_until(SECOND * 3610);
    let view = world.members[0].peer(1).unwrap();
    assert_eq!((view.greeting, view.path_mtu, view.basis, view.round_trip), (None, BASE, Basis::Assumed, None));
    assert_eq!(view.inner_limit, 1220);
    assert!(world.to_mute < 160, "{} messages in an hour", world.to_mute);
}

#[test]
fn members_know_each_other_after_one_round_trip() {
    let mut world = World::new(1500, 0, 1);
    world.members[0].set_networks(world.now, [9, 7, 7]);
    world.run_until(world.now + MS * 20);
    assert_eq!(world.networks_of_peer(1), Some(vec![7, 9]));
    assert_eq!(world.networks_of_peer(0), Some(vec![]));
    let view = world.members[1].peer(0).unwrap();
    assert_eq!((view.path_mtu, view.inner_limit, view.basis), (1500, 1440, Basis::Probed));
    assert!(view.round_trip.unwrap() >= MS * 10);
    let greeting = view.greeting.unwrap();
    assert_eq!((greeting.capabilities, greeting.incarnation), (0, 1000));
    // Silence is no news.
    let changes = world.changes;
    world.run_until(world.now + SECOND * 100);
    assert_eq!(world.changes, changes);
}

#[test]
fn a_change_of_networks_is_told_at_once_and_again_until_it_is_heard() {
    let mut world = World::new(1500, 0, 1);
    world.run_until(world.now + SECOND);
    world.members[0].set_networks(world.now, [7]);
    world.run_until(world.now + MS * 20);
    assert_eq!(world.networks_of_peer(1), Some(vec![7]));
    world.loss_percent = 100;
    world.members[0].set_networks(world.now, [8]);
    world.run_until(world.now + MS * 500);
    world.loss_percent = 0;
    world.run_until(world.now + SECOND);
    assert_eq!(world.networks_of_peer(1), Some(vec![8]));
}

#[test]
fn a_restarted_member_learns_what_it_forgot() {
    let mut world = World::new(1500, 0, 1);
    world.members[0].set_networks(world.now, [7]);
    world.run_until(world.now + SECOND);
    let mut restarted = Mesh::new(2000, 1);
    restarted.add_peer(0, link(1));
    world.members[1] = restarted;
    world.members[1].session_up(world.now, 0);
    world.run_until(world.now + MS * 20);
    assert_eq!(world.networks_of_peer(1), Some(vec![7]));
    assert_eq!(world.members[0].peer(1).unwrap().greeting.unwrap().incarnation, 2000);
}

#[test]
fn a_peer_that_no_longer_says_hello_is_no_weft_until_it_does() {
    let mut world = World::new(1500, 0, 11);
    world.run_until(world.now + SECOND * 100);
    assert!(world.members[0].peer(1).unwrap().greeting.is_some());
    // A stock host with the same key has taken its place.
    world.mute = true;
    world.run_until(world.now + GREETING_LASTS + SECOND);
    assert!(world.members[0].peer(1).unwrap().greeting.is_none());
    world.mute = false;
    world.run_until(world.now + SECOND * 61);
    assert!(world.members[0].peer(1).unwrap().greeting.is_some());
}

#[test]
fn a_greeting_ends_also_when_the_tunnel_is_used_only_now_and_then() {
    let mut world = World::new(1500, 0, 12);
    (0..2).for_each(|n| world.members[n].set_keep(world.now, 1 - n, false));
    world.run_in_use(SECOND * 5, |_| ());
    world.run_until(world.now + SECOND * 3600);
    assert!(world.members[0].peer(1).unwrap().greeting.is_some(), "an idle tunnel is left alone");
    world.mute = true;
    for _ in 0..20 {
        world.run_until(world.now + SECOND * 30);
        world.run_in_use(SECOND, |_| ());
    }
    assert!(world.members[0].peer(1).unwrap().greeting.is_none());
}

#[test]
fn what_a_peer_said_outlives_its_session_but_nothing_is_sent_to_it() {
    let mut world = World::new(1500, 0, 1);
    world.members[1].set_networks(world.now, [7]);
    world.run_until(world.now + SECOND);
    world.members[0].session_down(1);
    world.members[0].set_networks(world.now, [1, 2, 3]);
    world.sent.clear();
    world.members[1].session_down(0);
    world.run_until(world.now + SECOND * 100);
    assert!(world.sent.is_empty());
    assert_eq!(world.networks_of_peer(0), Some(vec![7]));
    world.members[0].remove_peer(1);
    assert_eq!(world.members[0].peer(1), None);
}

#[test]
fn a_hostile_peer_is_heeded_only_so_often() {
    let mut mesh = Mesh::new(1, 0);
    mesh.add_peer(1, link(0));
    mesh.session_up(SECOND, 1);
    while mesh.poll_output().is_some() {}
    let (mut answers, mut changes) = (0, 0);
    for n in 1..10_000_u32 {
        let hello = Message::Hello { capabilities: 0, vnis: vec![n], incarnation: 0, reply_wanted: true };
        mesh.input(SECOND, 1, underlay(1), &message::packet(&hello, ADDRESSES[1], ADDRESSES[0], None)[HEADERS..]);
        mesh.input(SECOND, 1, underlay(1), &[0xff; 50]);
        mesh.input(SECOND, 2, underlay(1), &[]);
        while let Some(output) = mesh.poll_output() {
            match output {
                Output::Send { .. } => answers += 1,
                Output::Changed { .. } => changes += 1,
                _ => {}
            }
        }
    }
    assert_eq!((answers, changes), (MAX_MESSAGES_PER_SECOND / 2, MAX_MESSAGES_PER_SECOND / 2));
}

#[test]
fn what_nobody_takes_away_does_not_pile_up() {
    let mut mesh = Mesh::new(1, 0);
    mesh.add_peer(1, link(0));
    mesh.session_up(SECOND, 1);
    let probe = message::packet(&Message::Probe { token: 1 }, ADDRESSES[1], ADDRESSES[0], Some(1000));
    for n in 0..100_000 {
        mesh.input(SECOND + MS * n, 1, underlay(1), &probe[HEADERS..]);
    }
    assert_eq!(mesh.queue.len(), MAX_QUEUED);
}

#[test]
fn a_probe_fills_its_size_exactly_over_either_family() {
    for (underlay_v6, overhead) in [(false, 32 + 28), (true, 32 + 48)] {
        let mut mesh = Mesh::new(1, 0);
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 51820));
        mesh.add_peer(1, Link { endpoint: Some(if underlay_v6 { v6 } else { underlay(1) }), ..link(0) });
        mesh.session_up(SECOND, 1);
        let mut sizes = Vec::new();
        while let Some(output) = mesh.poll_output() {
            if let Output::Send { packet, whole, .. } = output
                && whole
                && let Ok(Message::Probe { .. }) = message::parse(&packet[HEADERS..])
            {
                sizes.push(packet.len() + overhead);
            }
        }
        assert_eq!(sizes, [1500, 1280]);
    }
}

#[test]
fn an_endpoint_of_the_other_family_is_another_path() {
    let mut world = World::new(1500, 0, 1);
    world.run_until(world.now + SECOND);
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 51820));
    world.members[0].rerouted(world.now, 1, Some(v6));
    let outputs: Vec<_> = std::iter::from_fn(|| world.members[0].poll_output()).collect();
    assert_eq!(outputs, [Output::Choose { peer: 1, way: underlay(1) }], "the way that was chosen works");
    world.mute = true;
    world.run_in_use(SECOND * 3, |_| ());
    world.members[0].rerouted(world.now, 1, Some(v6));
    let view = world.members[0].peer(1).unwrap();
    assert_eq!((view.path_mtu, view.inner_limit, view.way), (BASE, 1200, Some(v6)));
    assert_eq!(world.members[0].poll_output(), Some(Output::Changed { peer: 1 }));
}

#[test]
fn the_inner_limit_is_what_the_overhead_ruler_says() {
    assert_eq!((inner_limit(1500, false), inner_limit(1500, true)), (1440, 1420));
    assert_eq!(inner_limit(0, true), 0);
}

/// The UDP payload of a message of member 1 to member 0.
fn said(message: &Message) -> Vec<u8> {
    message::packet(message, ADDRESSES[1], ADDRESSES[0], None)[HEADERS..].to_vec()
}

#[test]
fn a_connection_of_the_peer_is_a_way_to_it_while_it_lasts() {
    let mut world = World::new(1500, 0, 1);
    world.run_until(SECOND * 12);
    let stream = crate::wire::way::stream(7);
    let (now, probe) = (world.now, said(&Message::Probe { token: 1 }));
    world.members[0].input(now, 1, stream, &probe);
    let knows = |mesh: &Mesh<usize>| mesh.paths(1).iter().any(|path| path.way == stream && path.kind == Kind::Stream);
    assert!(knows(&world.members[0]));
    let probed = |output| matches!(output, Output::Send { via: Some(via), whole: false, .. } if via == stream);
    let mut sent = 0;
    while let Some(output) = world.members[0].poll_output() {
        sent += usize::from(probed(output));
    }
    assert!(sent >= 2, "an answer and a probe of our own, not {sent} messages");
    world.members[0].stream_down(now, 1, stream);
    assert!(!knows(&world.members[0]));
}

#[test]
fn who_forgoes_punching_heeds_no_addresses() {
    let told = underlay(77);
    for forgoes in [false, true] {
        let mut world = World::new(1500, 0, 1);
        if forgoes {
            world.members[0].forgo_punching();
        }
        world.run_until(SECOND * 12);
        let (now, punch) = (world.now, said(&Message::Punch { addresses: vec![told], reply_wanted: true }));
        world.members[0].input(now, 1, underlay(1), &punch);
        assert_eq!(world.members[0].paths(1).iter().any(|path| path.way == told), !forgoes);
    }
}
