//! Our tunnel and another implementation's: boringtun, unmodified, as the peer. Nothing of it is in the product.
//!
//! Both are values; between them datagrams are passed by hand, in virtual time (`foreign/clock.rs`: boringtun reads clocks).
//! wireguard-go, a program, is the peer in `interop.rs`.

#![allow(clippy::unwrap_used)]

#[path = "foreign/clock.rs"]
mod clock;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use clock::Clock;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use weft::tunnel::{
    Admission, Claim, Content, Engine, Gate, GateSettings, HANDSHAKE_ROOM, OVERHEAD, Timely, Tunnel, TunnelSettings,
};
use weft::wire::key::Secret;

const MS: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(250);
const INITIATION: u8 = 1;
const COOKIE: u8 = 3;

/// Our tunnel, and boringtun's, with nothing between them.
struct Pair {
    clock: Clock,
    elapsed: Duration,
    gate: Gate,
    ours: Tunnel,
    theirs: Tunn,
    limiter: Arc<RateLimiter>,
    /// What came out at each side.
    heard: [Vec<Vec<u8>>; 2],
    /// Handshake messages sent, by side and type.
    sent: [[usize; 5]; 2],
    to_us: VecDeque<Vec<u8>>,
    to_them: VecDeque<Vec<u8>>,
    /// Types that get lost.
    lost: Vec<u8>,
}

fn endpoint() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 51820))
}

/// An IPv4 packet as far as anybody looks.
fn packet(length: u16, number: u32) -> Vec<u8> {
    let mut packet = vec![0xa5; usize::from(length)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[12..16].copy_from_slice(&number.to_be_bytes());
    packet
}

impl Pair {
    fn new(preshared: Option<u8>, keepalive: Option<u16>) -> Self {
        let clock = Clock::start();
        let (our_secret, their_secret) = (Secret::private([3; 32]), Secret::private([4; 32]));
        let random = |bytes: &mut [u8]| getrandom::fill(bytes).unwrap();
        let unix_time = Duration::from_secs(1_700_000_000);
        let settings = GateSettings { engine: Engine::fastest(), random, now: clock.now(), unix_time };
        let gate = Gate::new(&our_secret, settings);
        let settings = TunnelSettings {
            peer: their_secret.public_key(),
            preshared_key: preshared.map(|byte| Secret::shared([byte; 32])),
            keepalive,
            index: 0x0012_3456,
            endpoints: vec![endpoint()],
        };
        let ours = Tunnel::new(&gate, &settings, clock.now());
        let their_key = StaticSecret::from(*their_secret.expose());
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&their_key), 100));
        let peer = PublicKey::from(our_secret.public_key().0);
        let preshared = preshared.map(|byte| [byte; 32]);
        let theirs = Tunn::new(their_key, peer, preshared, keepalive, 77, Some(limiter.clone()));
        Self {
            clock,
            elapsed: Duration::ZERO,
            gate,
            ours,
            theirs,
            limiter,
            heard: Default::default(),
            sent: Default::default(),
            to_us: VecDeque::new(),
            to_them: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    fn send(&mut self, side: usize, datagram: &[u8]) {
        self.sent[side][usize::from(datagram[0])] += 1;
        if !self.lost.contains(&datagram[0]) {
            let queue = if side == 0 { &mut self.to_them } else { &mut self.to_us };
            queue.push_back(datagram.to_vec());
        }
    }

    /// Passes datagrams on until none is under way.
    fn settle(&mut self) {
        loop {
            if let Some(datagram) = self.to_us.pop_front() {
                self.take_ours(&datagram);
            } else if let Some(datagram) = self.to_them.pop_front() {
                self.take_theirs(&datagram);
            } else {
                return;
            }
        }
    }

    fn take_ours(&mut self, datagram: &[u8]) {
        let (now, from, mut reply) = (self.clock.now(), endpoint(), [0; HANDSHAKE_ROOM]);
        let claim = Gate::claim(datagram).unwrap();
        if matches!(claim, Claim::Initiation | Claim::Response(_)) {
            match self.gate.admit(now, from, datagram, &mut reply) {
                Admission::Admitted => {}
                Admission::Cookie(length) => return self.send(0, &reply[..length]),
                other => panic!("{other:?}"),
            }
        }
        match claim {
            Claim::Initiation => {
                let called = self.gate.read(datagram).unwrap();
                // It may ask twice in one moment; the second time is no later than the first.
                let Ok(length) = self.ours.answer(now, from, called, &mut reply) else { return };
                self.send(0, &reply[..length]);
            }
            Claim::Response(_) => {
                // Of two answers to initiations that crossed one may come too late.
                let Ok(outcome) = self.ours.take_response(now, from, datagram, &mut reply) else { return };
                self.send(0, &reply[..outcome.reply]);
                if outcome.session_up {
                    self.flush();
                }
            }
            Claim::Cookie(_) => self.ours.take_cookie(now, datagram).unwrap(),
            Claim::Data(index) => {
                let opener = self.ours.opener(now, index).expect("a session that we know");
                let mut packet = vec![0; datagram.len() - OVERHEAD];
                let length = opener.open(datagram, &mut packet).unwrap();
                let up =
                    self.ours.heard(now, from, index, if length > 0 { Content::Frame } else { Content::Keepalive });
                if length > 0 {
                    self.heard[0].push(packet);
                }
                if up {
                    self.flush();
                }
            }
        }
    }

    fn take_theirs(&mut self, datagram: &[u8]) {
        let mut buffer = vec![0; 65_536];
        let mut result = self.theirs.decapsulate(Some(endpoint().ip()), datagram, &mut buffer);
        loop {
            match result {
                TunnResult::WriteToNetwork(bytes) => {
                    let bytes = bytes.to_vec();
                    self.send(1, &bytes);
                }
                TunnResult::WriteToTunnelV4(packet, _) => return self.heard[1].push(packet.to_vec()),
                _ => return,
            }
            result = self.theirs.decapsulate(None, &[], &mut buffer);
        }
    }

    fn flush(&mut self) {
        while let Some(packet) = self.ours.next_waiting() {
            self.say_ours(&packet);
        }
    }

    fn say_ours(&mut self, packet: &[u8]) {
        let now = self.clock.now();
        if let Some((sealer, _)) = self.ours.outgoing(now) {
            let mut datagram = vec![0; packet.len() + OVERHEAD];
            sealer.seal(packet, &mut datagram).unwrap();
            return self.send(0, &datagram);
        }
        assert_eq!(self.ours.hold(now, packet), 0);
        self.call_ours();
    }

    fn call_ours(&mut self) {
        let mut message = [0; HANDSHAKE_ROOM];
        if let Some(length) = self.ours.initiate(self.clock.now(), &mut message) {
            self.send(0, &message[..length]);
        }
    }

    fn say_theirs(&mut self, packet: &[u8]) {
        let mut buffer = vec![0; packet.len() + 200];
        if let TunnResult::WriteToNetwork(bytes) = self.theirs.encapsulate(packet, &mut buffer) {
            let bytes = bytes.to_vec();
            self.send(1, &bytes);
        }
    }

    /// One side says something, before there is a session.
    fn begin(&mut self, ours: bool) {
        match ours {
            true => self.say_ours(&packet(40, 0)),
            false => self.say_theirs(&packet(40, 0)),
        }
    }

    /// Lets time pass.
    fn pass(&mut self, span: Duration) {
        let end = self.elapsed + span;
        while self.elapsed < end {
            self.elapsed += TICK;
            self.clock.set(self.elapsed);
            let mut message = [0; HANDSHAKE_ROOM];
            match self.ours.tick(self.clock.now(), &mut message) {
                Some(Timely::Initiation(length) | Timely::Keepalive(length)) => self.send(0, &message[..length]),
                None => {}
            }
            self.limiter.reset_count();
            let mut buffer = [0; 2000];
            if let TunnResult::WriteToNetwork(bytes) = self.theirs.update_timers(&mut buffer) {
                let bytes = bytes.to_vec();
                self.send(1, &bytes);
            }
            self.settle();
        }
    }

    /// Each says something new, and the other hears it at once.
    fn converse(&mut self, number: u32, length: u16) {
        self.say_ours(&packet(length, number));
        self.settle();
        self.say_theirs(&packet(length, number));
        self.settle();
        for heard in &mut self.heard {
            assert_eq!(std::mem::take(heard), [packet(length, number)], "after {:?}", self.elapsed);
        }
    }
}

#[test]
fn whoever_begins_packets_of_all_lengths_pass_both_ways() {
    for preshared in [None, Some(9)] {
        for we_begin in [true, false] {
            let mut pair = Pair::new(preshared, None);
            // What begins the session waits for it.
            pair.begin(we_begin);
            pair.settle();
            assert_eq!(pair.heard[usize::from(we_begin)], [packet(40, 0)], "{preshared:?}, we begin: {we_begin}");
            pair.heard = Default::default();
            assert!(pair.ours.is_live());
            assert_eq!(pair.sent[0][1] + pair.sent[1][1], 1);
            for length in (20..200).chain([1420, 8940, 9216, 65_000]) {
                pair.converse(1, length);
            }
        }
    }
}

#[test]
fn sessions_are_renewed_for_hours_and_no_packet_is_lost() {
    for we_begin in [true, false] {
        let mut pair = Pair::new(None, None);
        pair.begin(we_begin);
        pair.settle();
        pair.heard = Default::default();
        for number in 0..2 * 3600 {
            pair.converse(number, 100);
            pair.pass(1000 * MS);
        }
        let handshakes = pair.sent[0][usize::from(INITIATION)] + pair.sent[1][usize::from(INITIATION)];
        assert!((55..=62).contains(&handshakes), "{handshakes} in two hours, we begin: {we_begin}");
    }
}

#[test]
fn after_initiations_that_crossed_both_can_speak() {
    for lost in [vec![], vec![2], vec![4]] {
        let mut pair = Pair::new(None, None);
        pair.call_ours();
        pair.say_theirs(&packet(40, 0));
        pair.lost = lost;
        pair.settle();
        pair.lost.clear();
        pair.pass(6 * 1000 * MS);
        pair.heard = Default::default();
        for number in 0..600 {
            pair.converse(number, 100);
            pair.pass(1000 * MS);
        }
    }
}

#[test]
fn silence_and_loss_of_any_message_end_with_a_session() {
    for lost in [1, 2, 4] {
        let mut pair = Pair::new(None, Some(25));
        pair.lost = vec![lost];
        pair.say_ours(&packet(40, 0));
        pair.settle();
        pair.pass(3 * 1000 * MS);
        pair.lost.clear();
        pair.pass(11 * 1000 * MS);
        pair.heard = Default::default();
        pair.converse(1, 100);
        pair.pass(Duration::from_secs(3600));
        pair.converse(2, 100);
    }
}

#[test]
fn under_a_flood_boringtun_asks_us_for_a_cookie_and_then_takes_us() {
    let mut pair = Pair::new(None, None);
    // Somebody's initiations, each with a right mac1, until it has had enough.
    let (mut stranger, mut buffer) = (Pair::new(None, None), [0; 2000]);
    stranger.call_ours();
    let flood = stranger.to_them.pop_front().unwrap();
    for _ in 0..200 {
        let _ = pair.limiter.verify_packet(Some(endpoint().ip()), &flood, &mut buffer);
    }
    pair.say_ours(&packet(40, 0));
    pair.settle();
    assert_eq!((pair.sent[1][usize::from(COOKIE)], pair.ours.is_live()), (1, false));
    // The next initiation carries it, while the flood goes on.
    pair.elapsed += Duration::from_secs(6);
    pair.clock.set(pair.elapsed);
    for _ in 0..200 {
        let _ = pair.limiter.verify_packet(Some(endpoint().ip()), &flood, &mut buffer);
    }
    pair.call_ours();
    pair.settle();
    assert!(pair.ours.is_live());
    assert_eq!((pair.sent[1][usize::from(COOKIE)], pair.sent[0][usize::from(INITIATION)]), (1, 2));
}

#[test]
fn under_a_flood_we_ask_boringtun_for_a_cookie_and_then_take_it() {
    let mut pair = Pair::new(None, None);
    // An initiation that was sent before is as good for a flood as any.
    pair.say_theirs(&packet(40, 0));
    let flood = pair.to_us.pop_front().unwrap();
    let flood = |pair: &Pair| {
        let now = pair.clock.now();
        let last = (0..200).map(|_| pair.gate.admit(now, endpoint(), &flood, &mut [0; HANDSHAKE_ROOM])).last();
        assert!(matches!(last, Some(Admission::Cookie(_))));
    };
    flood(&pair);
    pair.pass(6 * 1000 * MS);
    // The retry came in a quiet second: it made a session, and the next one is asked for under the flood.
    assert!(pair.ours.is_live());
    let before = pair.sent;
    flood(&pair);
    let mut buffer = [0; 2000];
    let TunnResult::WriteToNetwork(again) = pair.theirs.format_handshake_initiation(&mut buffer, true) else {
        panic!()
    };
    let again = again.to_vec();
    pair.send(1, &again);
    pair.settle();
    assert_eq!(pair.sent[0][usize::from(COOKIE)] - before[0][usize::from(COOKIE)], 1);
    let responses = pair.sent[0][2];
    pair.elapsed += Duration::from_secs(6);
    pair.clock.set(pair.elapsed);
    flood(&pair);
    let TunnResult::WriteToNetwork(again) = pair.theirs.format_handshake_initiation(&mut buffer, true) else {
        panic!()
    };
    let again = again.to_vec();
    pair.send(1, &again);
    pair.settle();
    assert_eq!(pair.sent[0][2] - responses, 1, "with the cookie it is answered");
    pair.heard = Default::default();
    pair.converse(1, 100);
}
