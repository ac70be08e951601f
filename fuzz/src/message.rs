//! Messages of an authenticated but hostile peer, over any of the ways it may come by, while sessions, streams, routes and
//! time come and go.
//!
//! ```text
//!  what (1): bits 0-2
//!   0  way (1), length (1), bytes   a message, as it is
//!   1  way (1), type (1), length (1), bytes   a message of ours in front: 'W', 1, type, 0
//!   2  n (1)                        the answer to the nth of the last probes, over the way it went
//!   3  n (1)                        n × 20 ms pass
//!   4  bits (1)                     the session is up or down; the tunnel is used; frames are heard; kept
//!   5  way (1)                      the stream of that number is up, or down
//!   6  bits (1)                     a route through others, of some kind, or none
//!   7  way (1), n (1)               a source knows n addresses from that on
//! ```
//!
//! What must hold: whatever is said, ways are bounded in number, what is sent is bounded in rate and can be read, what is
//! chosen is a way that is known, and no deadline stays behind.

use super::input::Input;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft::mesh::paths::{MAX_DIRECT, MAX_HANDSHAKES, RelayRoute, Source};
use weft::mesh::{Link, MAX_MESSAGES_PER_SECOND, Mesh, Output};
use weft::wire::message::{self, Message};
use weft::wire::vxlan::{self, Payload};
use weft::wire::way;

const MAX_RECORDS: usize = 256;
const OURS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const THEIRS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// Direct ways, streams and the relay, with room for those that hold on while they work.
const MAX_WAYS: usize = MAX_DIRECT + 4 + 4 + 1;
/// What is sent in a second by ourselves: all ways probed on every beat, the search for the path MTU, hellos.
const OWN_PER_SECOND: u64 = 64 + 4 * MAX_WAYS as u64;
/// What an event that is not a message may lead to at once.
const PER_EVENT: u64 = 16;

struct World {
    now: Duration,
    mesh: Mesh<u8>,
    /// The last probes and the ways they went.
    probes: VecDeque<(u64, SocketAddr)>,
    sent: u64,
    events: u64,
}

/// The target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut mesh = Mesh::new(1, message::PARTIAL_CHECKSUM);
    mesh.add_peer(1, Link { ours: OURS, theirs: THEIRS, path_mtu: None, endpoint: Some(underlay(1)) });
    let mut world = World { now: Duration::from_secs(1), mesh, probes: VecDeque::new(), sent: 0, events: 1 };
    world.mesh.session_up(world.now, 1);
    world.drain();
    for _ in 0..MAX_RECORDS {
        if world.step(&mut input).is_none() {
            break;
        }
        world.check();
    }
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let what = input.byte()? & 7;
        let now = self.now;
        self.events += u64::from(what != 0 && what != 1 && what != 3);
        match what {
            0 | 1 => {
                let from = any_way(input.byte()?);
                let mut payload = match what {
                    0 => Vec::new(),
                    _ => vec![b'W', 1, input.byte()?, 0],
                };
                let length = input.byte()?;
                payload.extend(input.bytes(length.into()));
                self.mesh.input(now, 1, from, &payload);
            }
            2 => {
                let n = usize::from(input.byte()?);
                if let Some(&(token, via)) = self.probes.get(n) {
                    let ack = Message::ProbeAck { token, size: 71, seen: Some(underlay(200)) };
                    let packet = message::packet(&ack, THEIRS, OURS, None);
                    self.mesh.input(now, 1, via, &packet[28..]);
                }
            }
            3 => {
                self.now += Duration::from_millis(20 * u64::from(input.byte()?));
                self.mesh.tick(self.now);
            }
            4 => {
                let bits = input.byte()?;
                match bits & 3 {
                    0 => self.mesh.session_down(1),
                    1 => self.mesh.session_up(now, 1),
                    2 => self.mesh.rerouted(now, 1, Some(any_way(bits >> 2))),
                    _ => self.mesh.set_keep(now, 1, bits & 16 != 0),
                }
                if bits & 4 != 0 {
                    self.mesh.used(now, 1);
                }
                if bits & 8 != 0 {
                    self.mesh.heard(now, 1, any_way(bits >> 4), true);
                }
                self.mesh.trying(now, 1);
            }
            5 => {
                let n = input.byte()?;
                let way = way::stream(u32::from(n >> 1));
                if n & 1 == 0 { self.mesh.stream_up(now, 1, way) } else { self.mesh.stream_down(now, 1, way) }
            }
            6 => {
                let bits = input.byte()?;
                let (preferred, over_stream) = (bits & 2 != 0, bits & 4 != 0);
                let way = SocketAddr::from((THEIRS, 0));
                let route = RelayRoute { way, cost: 1, hops: 1, limit: 1200, preferred, over_stream };
                self.mesh.set_relay(now, 1, (bits & 1 != 0).then_some(route));
            }
            _ => {
                let (first, n) = (input.byte()?, input.byte()?);
                let ways: Vec<SocketAddr> = (0..n).map(|n| any_way(first.wrapping_add(n))).collect();
                let source = Source::ALL[usize::from(first) % Source::ALL.len()];
                self.mesh.set_candidates(now, 1, source, &ways);
            }
        }
        self.drain();
        Some(())
    }

    fn drain(&mut self) {
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { packet, via, .. } => {
                    let parsed = vxlan::parse(&packet).expect("we send packets");
                    let Payload::Message(range) = parsed.payload else { panic!("we send messages") };
                    let sent = message::parse(&packet[range]).expect("that can be read");
                    if let Message::Probe { token } = sent {
                        self.probes.push_front((token, via.unwrap_or_else(|| underlay(1))));
                        self.probes.truncate(256);
                    }
                    self.sent += 1;
                }
                Output::Choose { way, .. } => {
                    assert!(self.mesh.paths(1).iter().any(|path| path.way == way), "a way out of nowhere");
                }
                _ => {}
            }
        }
    }

    fn check(&mut self) {
        self.mesh.tick(self.now);
        self.drain();
        assert!(self.mesh.next_deadline().is_none_or(|due| due > self.now), "a deadline stays behind");
        let paths = self.mesh.paths(1);
        assert!(paths.len() <= MAX_WAYS, "{} ways", paths.len());
        assert!(paths.iter().filter(|path| path.chosen.is_some()).count() <= 1);
        assert!(self.mesh.handshake_candidates(1).len() <= MAX_HANDSHAKES);
        let _ = self.mesh.why_not_better(self.now, 1);
        // What each message may lead to: an answer, a hello or a punch, and a probe back.
        let per_second = u64::from(MAX_MESSAGES_PER_SECOND) * 3 + OWN_PER_SECOND;
        let most = (self.now.as_secs() + 1) * per_second + self.events * PER_EVENT;
        assert!(self.sent <= most, "{} sent by {:?}, at most {most}", self.sent, self.now);
    }
}

fn underlay(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 51820))
}

/// Ways of all kinds.
fn any_way(n: u8) -> SocketAddr {
    match n {
        0 => SocketAddr::from((THEIRS, 0)),
        1..=20 => underlay(n),
        21..=30 => way::stream(n.into()),
        31..=40 => SocketAddr::from(([192, 0, 2, 1], u16::from(n))),
        41..=50 => SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()], 51820)),
        51 => SocketAddr::from(([255, 255, 255, 255], 9)),
        52 => SocketAddr::from((OURS, 0)),
        _ => SocketAddr::from(([198, 51, 100, n], 51820)),
    }
}
