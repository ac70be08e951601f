//! Packets of a hostile peer: they are sealed with a live session, so everything behind the decryption is reached.
//!
//! ```text
//!  how (1), length (2), bytes
//!   bit 0    the IPv4 header is put right: version, length, addresses, header checksum
//!   bit 1    ... and is no fragment's
//!   bit 2-3  1: UDP, its length right, for VXLAN   2: for the mesh   3: for VXLAN, VNI_VALID and the VNI both have
//!   bit 4    the receive batch ends before it
//!   bit 5    the packet before, again
//!   bit 6    put right: from a third member, which the peer relays, and with bits 2-3 0 for the port of that
//!   bit 7    put right: for the third member, which B would reach through the peer that it came from
//! ```
//!
//! What must hold: a packet is delivered, told to the control plane, waits for its other fragments, or is counted, and
//! only one of these; frames come out at ports of their own network only; what is written to a TAP is consistent in
//! itself. Messages also go to the mesh, which may not be talked into sending without bound.

use super::input::{Input, get, get_word, put_word};
use super::world::{PRIVATE, SHARED, THIRD, World};
use super::{draft, merge};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft::mesh::{Link, MAX_MESSAGES_PER_SECOND, Mesh, Output};
use weft::wire::vxlan::{self, Payload};
use weft::wire::{MESH_PORT, RELAY_PORT, VXLAN_PORT, message};

const MAX_RECORDS: usize = 64;
/// A datagram's worth.
const MAX_PACKET: usize = 65_000;

/// The target.
pub fn run(data: &[u8]) {
    World::with(|world| {
        let mut input = Input::new(data);
        let (mut batch, mut packet, mut messages) = (Batch::default(), Vec::new(), Vec::new());
        for _ in 0..MAX_RECORDS {
            let Some(how) = input.byte() else { break };
            if how & 0x10 != 0 {
                batch = batch.end(world);
            }
            if how & 0x20 == 0 {
                let Some(length) = input.word() else { break };
                packet = input.bytes(usize::from(length).min(MAX_PACKET)).to_vec();
                put_right(&mut packet, how, world);
            }
            batch.packet(world, &packet);
            messages.append(&mut world.b.out.messages);
        }
        batch.end(world);
        to_the_mesh(&messages);
    });
}

fn put_right(packet: &mut [u8], how: u8, world: &World) {
    if how & 1 == 0 || packet.len() < 20 {
        return;
    }
    packet[0] = 0x40 | packet[0] & 15;
    let header = usize::from(packet[0] & 15) * 4;
    let length = packet.len();
    put_word(packet, 2, length as u16);
    if how & 2 != 0 {
        put_word(packet, 6, 0);
    }
    packet[12..16].copy_from_slice(&world.a.address.octets());
    packet[16..20].copy_from_slice(&world.b.address.octets());
    for (bit, at) in [(0x40, 12), (0x80, 16)] {
        if how & bit != 0 {
            packet[at..at + 4].copy_from_slice(&THIRD.octets());
        }
    }
    let kind = how >> 2 & 3;
    if kind != 0 || how & 0xc0 != 0 {
        packet[9] = 17;
        put_word(packet, header + 2, [RELAY_PORT, VXLAN_PORT, MESH_PORT, VXLAN_PORT][usize::from(kind)]);
        put_word(packet, header + 4, length.saturating_sub(header) as u16);
    }
    if kind == 3 {
        let flags = get_word(packet, header + 8) | 0x0800;
        put_word(packet, header + 8, flags);
        put_word(packet, header + 12, (SHARED >> 8) as u16);
        put_word(packet, header + 14, (SHARED << 8) as u16 | u16::from(get(packet, header + 15)));
    }
    if let Some(bytes) = packet.get_mut(..header) {
        put_word(bytes, 10, 0);
        let checksum = !draft::sum(0, bytes);
        put_word(bytes, 10, checksum);
    }
}

/// Packets between two flushes.
#[derive(Default)]
struct Batch {
    /// A frame was staged that must be delivered.
    staged: bool,
    /// A frame for the private network may be among them.
    private: bool,
}

impl Batch {
    fn packet(&mut self, world: &mut World, packet: &[u8]) {
        let sealed = world.a.seal(world.now, packet);
        let b = &mut world.b;
        let told = b.out.messages.len();
        let frames = b.tunnel_frames().1;
        b.input(world.now, world.a.underlay, &sealed, sealed.len());
        let (dropped, told) = (b.dropped(), b.out.messages.len() - told);
        let framed = b.tunnel_frames().1 > frames && dropped == 0;
        let parsed = vxlan::parse(packet).map(|packet| packet.payload);
        let waits = matches!(parsed, Ok(Payload::Fragment)) && dropped == 0 && told == 0 && !framed;
        let nothing = packet.is_empty();
        let fates = dropped + told as u64 + u64::from(framed) + u64::from(waits) + u64::from(nothing);
        assert_eq!(fates, 1, "delivered, told, waiting or counted: {parsed:?}");
        self.staged |= framed;
        self.private |= match parsed {
            Ok(Payload::Frame { vni, .. }) => vni == PRIVATE,
            Ok(Payload::Fragment) => true,
            _ => false,
        };
    }

    fn end(self, world: &mut World) -> Self {
        let b = &mut world.b;
        b.flush();
        assert_eq!(b.dropped(), 0, "staging drops nothing");
        assert!(b.out.sent.is_empty(), "a frame from a peer goes to no peer");
        assert!(!self.staged || !b.out.delivered.is_empty());
        for (port, header, frame) in b.out.delivered.drain(..) {
            let Some(port) = b.ports.iter().find(|other| other.id == port) else { panic!("no such port") };
            assert!(port.vni == SHARED || self.private, "a frame crossed networks");
            merge::check(&header, &frame);
        }
        assert!(b.peer.tunnel().endpoint() == Some(world.a.underlay));
        Self::default()
    }
}

/// What a peer says may change what we think of it, never make us talk without end.
fn to_the_mesh(messages: &[Vec<u8>]) {
    let now = Duration::from_secs(1);
    let mut mesh = Mesh::new(1, message::PARTIAL_CHECKSUM);
    let (ours, theirs) = (Ipv4Addr::new(100, 64, 0, 2), Ipv4Addr::new(100, 64, 0, 1));
    let from = SocketAddr::from(([192, 0, 2, 1], 51820));
    mesh.add_peer(1, Link { ours, theirs, path_mtu: None, endpoint: Some(from) });
    mesh.session_up(now, 1);
    let mut sent = 0;
    for payload in messages {
        let _ = message::parse(payload);
        mesh.input(now, 1, from, payload);
        while let Some(output) = mesh.poll_output() {
            if let Output::Send { packet, .. } = output {
                let parsed = vxlan::parse(&packet).expect("we send packets");
                let Payload::Message(range) = parsed.payload else { panic!("we send messages") };
                assert!(message::parse(&packet[range]).is_ok());
                sent += 1;
            }
        }
    }
    assert!(sent <= MAX_MESSAGES_PER_SECOND + 8, "{sent} answers to {} messages", messages.len());
}
