//! Frames of a container, out of a TAP, and what two members make of them.
//!
//! ```text
//!  limit (2), settings (1): bit 0 the peer takes partial checksums, bit 1 merge across frames, bit 2 A knows who has
//!                           REMOTE's addresses and who listens to what
//!  then drafts (see `draft`), all sent by A's port 1
//! ```
//!
//! What must hold: the frame's buffer comes back unchanged; each frame is delivered, sent or counted; at A it arrives
//! at the other port as it was; what B's ports get is what A sealed, cut as it would be on a wire, once, in order; no
//! frame comes back, and none reaches the other network. What a policy reads of a frame is what is in it. A question is answered to its port alone, and a stream reaches
//! nobody who does not listen.

use super::draft::{self, Draft, L4};
use super::input::Input;
use super::merge;
use super::world::{MTU, REMOTE, SHARED, World};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft::switch::HEADROOM;
use weft::switch::groups::Forwarding;
use weft::switch::ids::PortId;
use weft::wire::ethernet::Frame;
use weft::wire::multicast::{Class, classify};
use weft::wire::neighbour::question;
use weft::wire::packet::Content;
use weft::wire::ports::Ports;
use weft::wire::vnet::{Gso, VnetHeader};
use weft::wire::{INNER_OVERHEAD, fragment};

/// REMOTE's addresses, where A knows them.
pub const V4: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 2);
pub const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x32, 0, 0, 0, 0, 0, 2);
/// A group that only B listens to, and one that only A's port 2 listens to, where A knows.
pub const FAR: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
pub const NEAR: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 1);

const MAX_RECORDS: usize = 24;
/// Frames on the way to one receive batch: what is larger is flushed in between, and merges less.
const MAX_BYTES: usize = 400 * 1024;

/// The target.
pub fn run(data: &[u8]) {
    World::with(|world| {
        let mut input = Input::new(data);
        let (Some(limit), Some(settings)) = (input.word(), input.byte()) else { return };
        // From the smallest path to the largest a peer can have.
        let limit = 1200 + usize::from(limit) % 8000;
        world.a.peer.set_limits(limit, limit);
        world.a.peer.set_takes_partial(settings & 1 != 0);
        if settings & 4 != 0 {
            know(world);
        }
        let (mut before, mut expected, mut bytes) = (Draft::default(), Expected::default(), 0);
        for _ in 0..MAX_RECORDS {
            let Some(draft) = draft::next(&mut input, &before) else { break };
            before = draft;
            bytes += before.frame.len();
            if bytes > MAX_BYTES {
                break;
            }
            send(world, &before, limit, &mut expected);
            if settings & 2 == 0 {
                arrive(world, &mut expected);
            }
        }
        arrive(world, &mut expected);
    });
}

/// A knows its neighbours: REMOTE's addresses, that B listens to [`FAR`] and A's port 2 to [`NEAR`].
fn know(world: &World) {
    let switch = &world.a.switch;
    for address in [V4.into(), V6.into()] {
        switch.neighbours.insert(SHARED, address, REMOTE);
    }
    let mut forwarding = Forwarding::default();
    forwarding.port_listens(PortId(2), NEAR.into());
    forwarding.peer_listens(world.a.peer.id, [FAR.into()]);
    switch.groups.set(SHARED, Some(forwarding));
}

/// What a policy would read: what is cut off is never taken for another thing than it was.
fn read(view: &Frame<'_>) {
    let whole = Content::of(view);
    let Content::Ip(packet) = whole else { return };
    assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
    let bytes = view.bytes();
    for cut in view.payload_offset()..bytes.len().min(120) {
        let short = Frame::parse(&bytes[..cut]).expect("its header is whole");
        if let Content::Ip(less) = Content::of(&short) {
            assert_eq!(
                (less.source, less.destination, less.protocol),
                (packet.source, packet.destination, packet.protocol)
            );
        }
    }
    for ports in [Ports::Any, Ports::Icmp, Ports::Tcp(1, 80), Ports::Udp(53, 53)] {
        let _ = (ports.asks(&packet), ports.answers(&packet));
        assert!(!ports.asks(&packet) || Ports::Any.asks(&packet));
    }
}

/// What B's ports 1 and 2 have to get.
#[derive(Default)]
struct Expected {
    one: Vec<Vec<u8>>,
    two: Vec<Vec<u8>>,
    /// A frame was among them of which only the accounts can be checked: its partial checksum is none of its own, so
    /// completing it changes anything, addresses included.
    strange: bool,
}

fn send(world: &mut World, draft: &Draft, limit: usize, expected: &mut Expected) {
    let Draft { header, frame } = draft;
    let a = &mut world.a;
    let mut buffer = vec![0xee; HEADROOM];
    buffer.extend_from_slice(frame);
    let original = buffer.clone();
    let (sealed, packets) = (a.tunnel_frames().0, a.out.sent.len());
    let suppressed = a.switch.counters.suppressed_frames.get();
    let port = a.ports[0].clone();
    a.switch.port_input(world.now, &port, *header, &mut buffer, HEADROOM, &mut a.out);
    assert!(buffer[HEADROOM..] == original[HEADROOM..], "the frame was changed");
    let sealed = a.tunnel_frames().0 - sealed;
    let (dropped, packets, delivered) = (a.dropped(), a.out.sent.len() - packets, a.out.delivered.len());
    let snooped = a.out.snooped.drain(..).count();
    assert!(dropped > 0 || delivered + packets + snooped > 0, "neither delivered nor counted");
    if a.switch.counters.suppressed_frames.get() > suppressed {
        let asked = question(frame).expect("a question");
        assert!(dropped == 0 && sealed == 0 && delivered == 1, "an answer goes to the asker alone");
        let (port, to, answer) = a.out.delivered.remove(0);
        assert_eq!((port, to), (PortId(1), VnetHeader::default()));
        let answer = Frame::parse(&answer).expect("an answer is a frame");
        assert!(answer.source() == REMOTE && [V4.into(), V6.into()].contains(&asked.target));
        return;
    }
    if let Ok(view) = Frame::parse(frame) {
        read(&view);
    }
    if let Ok(view) = Frame::parse(frame)
        && let Class::Group(group) = classify(&view)
        && a.switch.neighbours.lookup(SHARED, V4.into()).is_some()
    {
        assert!(packets == 0 || group == IpAddr::from(FAR), "a stream went where nobody listens");
        assert!(delivered == 0 || group == IpAddr::from(NEAR), "a stream went where nobody listens");
    }
    assert!(sealed as usize <= packets, "a sealed frame is at least one packet");
    for (port, to, bytes) in a.out.delivered.drain(..) {
        assert_eq!((port, to, &bytes), (PortId(2), *header, frame), "a port gets the frame as it is");
    }
    for (_, datagram) in &a.out.sent {
        assert!(datagram.len() <= limit + weft::wire::WIREGUARD_OVERHEAD, "larger than the path carries");
    }
    if sealed == 0 {
        return;
    }
    let partial = header.partial();
    expected.strange |= partial.is_some() && partial != L4::find(frame).map(|l4| l4.partial()) && !is_extended(frame);
    let wire = merge::cut(header, frame, limit - INNER_OVERHEAD).expect("it was cut before");
    assert_eq!(wire.len(), sealed as usize, "as many frames as were cut");
    let destination = Frame::parse(frame).expect("it was parsed before").destination();
    for frame in wire {
        assert!(frame.len() <= usize::from(MTU) + 22 || header.gso() != Ok(Gso::None), "longer than the MTU");
        expected.strange |= frame.len() + INNER_OVERHEAD > fragment::MAX_PACKET;
        if destination != REMOTE {
            expected.two.push(frame.clone());
        }
        expected.one.push(frame);
    }
}

/// IPv6 with extension headers, behind which the L4 header is not where a draft looks for it.
fn is_extended(frame: &[u8]) -> bool {
    Frame::parse(frame).is_ok_and(|view| view.ethertype() == weft::wire::ethernet::IPV6)
}

fn arrive(world: &mut World, expected: &mut Expected) {
    world.carry();
    let b = &mut world.b;
    let drops = b.drops();
    assert!(b.out.sent.is_empty(), "a frame from a peer goes to no peer");
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for (port, header, frame) in b.out.delivered.drain(..) {
        merge::check(&header, &frame);
        let frames = merge::cut(&header, &frame, usize::MAX).expect("it was checked");
        match port {
            PortId(1) => one.extend(frames),
            PortId(2) => two.extend(frames),
            _ => panic!("a frame crossed networks"),
        }
    }
    let expected = std::mem::take(expected);
    if !expected.strange {
        assert_eq!(drops, [], "B refuses what A sent");
        merge::same_flows(&expected.one, &one);
        merge::same_flows(&expected.two, &two);
    }
}
