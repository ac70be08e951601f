//! Datagrams of anyone on the UDP port of a member that has a live session with another.
//!
//! ```text
//!  how (1): bits 0-1 what, bits 2-4 whose address
//!   0  stride (2), length (2), bytes         as they are
//!   1  length (1), damage (5)                a data message of the peer
//!   2  number (1), damage (5)                a message of the handshake that made the session
//!   3  length (1), damage (5)                a stranger's initiation, well made
//!  damage: length to cut to (2), place (2), a byte to flip it by (1)
//! ```
//!
//! What must hold: every datagram that is not exactly the peer's next is dropped and counted once; the tunnel's endpoint
//! moves for authentic ones only; nothing is answered with more bytes than came; nothing is delivered.

use super::input::Input;
use super::world::{World, gate, underlay};
use std::net::SocketAddr;
use weft::tunnel::{Gate, HANDSHAKE_ROOM, Tunnel, TunnelSettings};
use weft::wire::key::Secret;

/// One input's worth of datagrams is no better for being longer.
const MAX_RECORDS: usize = 16;

/// The target.
pub fn run(data: &[u8]) {
    World::with(|world| {
        let mut input = Input::new(data);
        for _ in 0..MAX_RECORDS {
            if record(world, &mut input).is_none() {
                break;
            }
        }
    });
}

fn record(world: &mut World, input: &mut Input<'_>) -> Option<()> {
    let how = input.byte()?;
    let from = underlay(how >> 2 & 7);
    match how & 3 {
        0 => {
            let (stride, length) = (usize::from(input.word()?), usize::from(input.word()?));
            let bytes = input.bytes(length);
            let _ = Gate::claim(bytes);
            refused(world, from, bytes, stride);
        }
        1 => {
            let packet = inner(input.byte()?);
            let sealed = world.a.seal(world.now, &packet);
            let damaged = damaged(&sealed, input)?;
            if damaged == sealed {
                accepted(world, from, &sealed, packet.is_empty());
                refused(world, underlay(9), &sealed, sealed.len());
            } else {
                refused(world, from, &damaged, damaged.len());
            }
        }
        2 => {
            let number = usize::from(input.byte()?);
            let message = world.recorded.get(number % world.recorded.len()).cloned().unwrap_or_default();
            let damaged = damaged(&message, input)?;
            refused(world, from, &damaged, damaged.len());
        }
        _ => {
            input.byte()?;
            let damaged = damaged(&strangers_initiation(world), input)?;
            refused(world, from, &damaged, damaged.len());
        }
    }
    Some(())
}

fn damaged(datagram: &[u8], input: &mut Input<'_>) -> Option<Vec<u8>> {
    let (length, at, by) = (usize::from(input.word()?), usize::from(input.word()?), input.byte()?);
    let mut damaged = datagram.to_vec();
    damaged.truncate(length);
    if let Some(byte) = damaged.get_mut(at) {
        *byte ^= by;
    }
    Some(damaged)
}

fn strangers_initiation(world: &World) -> Vec<u8> {
    let gate = gate(&Secret::private([3; 32]), world.now);
    let settings = TunnelSettings {
        peer: Secret::private([2; 32]).public_key(),
        preshared_key: None,
        keepalive: None,
        index: 1,
        endpoints: vec![underlay(2)],
    };
    let mut message = [0; HANDSHAKE_ROOM];
    let length =
        Tunnel::new(&gate, &settings, world.now).initiate(world.now, &mut message).expect("nothing is under way");
    message[..length].to_vec()
}

/// A keepalive, or a packet that nothing behind the tunnel lets through.
fn inner(length: u8) -> Vec<u8> {
    let mut packet = vec![0; usize::from(length)];
    if let [first, _, high, low, _, ..] = packet.as_mut_slice() {
        (*first, *high, *low) = (0x45, 0, length);
    }
    packet
}

/// The peer's own next datagram: it is authentic, so where it came from is the endpoint.
fn accepted(world: &mut World, from: SocketAddr, datagram: &[u8], keepalive: bool) {
    let b = &mut world.b;
    b.input(world.now, from, datagram, datagram.len());
    b.flush();
    let drops = b.drops();
    assert_eq!(drops.iter().map(|(_, count)| count).sum::<u64>(), u64::from(!keepalive), "{drops:?}");
    assert_eq!(b.peer.tunnel().endpoint(), Some(from));
    assert!(b.out.delivered.is_empty());
}

fn refused(world: &mut World, from: SocketAddr, datagrams: &[u8], stride: usize) {
    let b = &mut world.b;
    let before = b.peer.tunnel().endpoint();
    b.input(world.now, from, datagrams, stride);
    b.flush();
    let count = datagrams.chunks(stride.max(1)).len().max(1);
    assert_eq!(b.dropped(), count as u64, "each is counted once, also an empty one");
    assert_eq!(b.peer.tunnel().endpoint(), before, "only what is authentic moves the endpoint");
    assert!(b.out.delivered.is_empty() && b.out.messages.is_empty());
    let answered: usize = b.out.sent.iter().map(|(_, datagram)| datagram.len()).sum();
    assert!(answered <= datagrams.len(), "an answer may not be larger than what it answers");
    assert!(b.out.sent.iter().all(|(to, _)| *to == from), "an answer goes to where the question came from");
    b.out.sent.clear();
}
