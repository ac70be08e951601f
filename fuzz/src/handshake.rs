//! What a tunnel opens, without the gate and its MACs in front: the peer's messages, damaged, and anyone's bytes.
//!
//! ```text
//!  how (1): bits 0-2 what
//!   0-3  damage (5)           the peer's initiation, its response to ours, its cookie, data
//!   4-7  length (2), bytes    the same, as they are
//!  damage: length to cut to (2), place (2), a byte to flip it by (1)
//! ```
//!
//! What must hold: a message is taken only if every byte of it that is authenticated is the peer's, and only once; a message
//! that is not taken changes nothing that can be seen.

use super::input::Input;
use super::world::{gate, underlay};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft::tunnel::{Admission, Content, Gate, HANDSHAKE_ROOM, OVERHEAD, Opener, Tunnel, TunnelSettings};
use weft::wire::key::Secret;

/// One input's worth of messages is no better for being longer.
const MAX_RECORDS: usize = 16;
/// The authenticated bytes of the four messages; those of data end with it.
const AUTHENTIC: [Range<usize>; 4] = [8..116, 8..60, 4..64, 8..OVERHEAD + 40];

/// A tunnel that has a session and waits for the response to its next initiation, and its peer's messages.
struct World {
    now: Instant,
    gate: Gate,
    tunnel: Tunnel,
    opener: Arc<Opener>,
    messages: [Vec<u8>; 4],
    taken: [bool; 4],
}

/// The target.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    let mut input = Input::new(data);
    for _ in 0..MAX_RECORDS {
        if record(&mut world, &mut input).is_none() {
            break;
        }
    }
}

fn record(world: &mut World, input: &mut Input<'_>) -> Option<()> {
    let how = input.byte()?;
    let what = usize::from(how & 3);
    let genuine = world.messages[what].clone();
    let message = if how & 4 == 0 {
        let (length, at, by) = (usize::from(input.word()?), usize::from(input.word()?), input.byte()?);
        let mut damaged = genuine.clone();
        damaged.truncate(length);
        if let Some(byte) = damaged.get_mut(at) {
            *byte ^= by;
        }
        damaged
    } else {
        let length = usize::from(input.word()?);
        input.bytes(length).to_vec()
    };
    let before = (world.tunnel.endpoint(), world.tunnel.established());
    if world.take(what, &message) {
        let authentic = AUTHENTIC[what].clone();
        assert_eq!(message.get(authentic.clone()), genuine.get(authentic), "not what the peer said");
        assert!(!world.taken[what], "taken twice");
        world.taken[what] = true;
    } else {
        assert_eq!((world.tunnel.endpoint(), world.tunnel.established()), before, "refused, and yet");
        let damaged = message.get(AUTHENTIC[what].clone()) != genuine.get(AUTHENTIC[what].clone());
        // A cookie is for our last handshake message, and that is the answer to an initiation that was taken.
        let late = world.taken[what] || what == 2 && world.taken[0];
        assert!(damaged || message.len() != genuine.len() || late, "the peer's own was refused");
    }
    Some(())
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let secrets = [1, 2].map(|n| Secret::private([n; 32]));
        let gates = [0, 1].map(|n| gate(&secrets[n], now));
        let mut tunnels = [0, 1].map(|n| {
            let (peer, endpoints) = (secrets[1 - n].public_key(), vec![underlay(1 - n as u8)]);
            let settings = TunnelSettings { peer, preshared_key: None, keepalive: None, index: 7, endpoints };
            Tunnel::new(&gates[n], &settings, now)
        });
        let [ours, theirs] = &mut tunnels;
        let mut buffer = [0; HANDSHAKE_ROOM];
        // A session for data, then initiations that cross.
        let first = initiation(ours, now);
        let response = answer(&gates[1], theirs, now, &first);
        ours.take_response(now, underlay(1), &response, &mut buffer).expect("a response");
        let index = u32::from_le_bytes(buffer[4..8].try_into().expect("four bytes"));
        theirs.heard(now, underlay(0), index, Content::Keepalive);
        let (sealer, _) = theirs.outgoing(now).expect("a session");
        let mut data = vec![0; OVERHEAD + 40];
        sealer.seal(&[9; 40], &mut data);
        let index = u32::from_le_bytes(data[4..8].try_into().expect("four bytes"));
        let opener = ours.opener(now, index).expect("its session");
        let now = now + Duration::from_secs(6);
        let theirs_next = initiation(theirs, now);
        let ours_next = initiation(ours, now);
        let mut cookie = [0; HANDSHAKE_ROOM];
        let length = loop {
            match gates[1].admit(now, underlay(0), &ours_next, &mut cookie) {
                Admission::Cookie(length) => break length,
                admission => assert_eq!(admission, Admission::Admitted),
            }
        };
        let response = answer(&gates[1], theirs, now, &ours_next);
        let messages = [theirs_next, response, cookie[..length].to_vec(), data];
        let ([gate, _], [tunnel, _]) = (gates, tunnels);
        Self { now, gate, tunnel, opener, messages, taken: [false; 4] }
    }

    /// Gives a message to what takes its kind; returns whether it was taken.
    fn take(&mut self, what: usize, message: &[u8]) -> bool {
        let (now, from, mut reply) = (self.now, underlay(9), [0; HANDSHAKE_ROOM]);
        match what {
            0 => {
                let called = self.gate.read(message);
                called.is_some_and(|called| self.tunnel.answer(now, from, called, &mut reply).is_ok())
            }
            1 => self.tunnel.take_response(now, from, message, &mut reply).is_ok(),
            2 => self.tunnel.take_cookie(now, message).is_ok(),
            _ => self.opener.open(message, &mut vec![0; message.len()]).is_ok(),
        }
    }
}

fn initiation(tunnel: &mut Tunnel, now: Instant) -> Vec<u8> {
    let mut message = [0; HANDSHAKE_ROOM];
    let length = tunnel.initiate(now, &mut message).expect("nothing is under way");
    message[..length].to_vec()
}

fn answer(gate: &Gate, tunnel: &mut Tunnel, now: Instant, initiation: &[u8]) -> Vec<u8> {
    let mut response = [0; HANDSHAKE_ROOM];
    let called = gate.read(initiation).expect("an initiation");
    let length = tunnel.answer(now, underlay(0), called, &mut response).expect("an answer");
    response[..length].to_vec()
}
