//! Frames of a container, out of a TAP, and what two members make of them.
//!
//! ```text
//!  limit (2), settings (1): bit 0 the peer takes partial checksums, bit 1 merge across frames
//!  then drafts (see `draft`), all sent by A's port 1
//! ```
//!
//! What must hold: the frame's buffer comes back unchanged; each frame is delivered, sent or counted; at A it arrives
//! at the other port as it was; what B's ports get is what A sealed, cut as it would be on a wire, once, in order; no
//! frame comes back, and none reaches the other network.

use super::draft::{self, Draft, L4};
use super::input::Input;
use super::merge;
use super::world::{MTU, World};
use weft::switch::HEADROOM;
use weft::switch::ids::PortId;
use weft::wire::ethernet::Frame;
use weft::wire::vnet::Gso;
use weft::wire::{INNER_OVERHEAD, fragment};

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
    let port = a.ports[0].clone();
    a.switch.port_input(world.now, &port, *header, &mut buffer, HEADROOM, &mut a.out);
    assert!(buffer[HEADROOM..] == original[HEADROOM..], "the frame was changed");
    let sealed = a.tunnel_frames().0 - sealed;
    let (dropped, packets, delivered) = (a.dropped(), a.out.sent.len() - packets, a.out.delivered.len());
    assert!(dropped > 0 || delivered + packets > 0, "neither delivered nor counted");
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
        if destination != super::world::REMOTE {
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
