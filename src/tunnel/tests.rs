//! Two tunnels with nothing between them, and time as an argument: when something is said without being asked.

#![allow(clippy::unwrap_used)]

use super::*;
use std::net::Ipv4Addr;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const HERE: [SocketAddr; 2] = [address(1), address(2)];

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 51820)
}

/// Sides 0 and 1.
struct Pair {
    now: Instant,
    gates: [Gate; 2],
    tunnels: [Tunnel; 2],
    /// What was sent and did not arrive yet: to which side, and when.
    under_way: Vec<(Instant, usize, Vec<u8>)>,
    latency: Duration,
    /// Sent by each side, by type.
    sent: [[usize; 5]; 2],
    /// The next of these types is lost.
    losing: Vec<u8>,
    /// Packets that each side heard.
    heard: [usize; 2],
}

/// Side 0 has the larger public key, and so defers.
fn pair(keepalive: [Option<u16>; 2]) -> Pair {
    let now = Instant::now();
    let mut secrets = [1, 2].map(|n| Secret::private([n; 32]));
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.public_key().0));
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).unwrap();
    let settings = GateSettings { engine: Engine::Ring, random, now, unix_time: Duration::from_secs(1_700_000_000) };
    let gates = [0, 1].map(|n| Gate::new(&secrets[n], settings));
    let tunnels = [0, 1].map(|n| {
        let peer = secrets[1 - n].public_key();
        let endpoints = vec![HERE[1 - n]];
        let settings = TunnelSettings { peer, preshared_key: None, keepalive: keepalive[n], index: 5, endpoints };
        Tunnel::new(&gates[n], &settings, now)
    });
    let (sent, heard) = ([[0; 5]; 2], [0; 2]);
    Pair { now, gates, tunnels, under_way: Vec::new(), latency: MS, sent, losing: Vec::new(), heard }
}

impl Pair {
    fn send(&mut self, from: usize, datagram: &[u8]) {
        if datagram.is_empty() {
            return;
        }
        self.sent[from][usize::from(datagram[0])] += 1;
        if let Some(at) = self.losing.iter().position(|kind| *kind == datagram[0]) {
            self.losing.remove(at);
            return;
        }
        self.under_way.push((self.now + self.latency, 1 - from, datagram.to_vec()));
    }

    fn call(&mut self, n: usize) {
        let mut message = [0; HANDSHAKE_ROOM];
        if let Some(length) = self.tunnels[n].initiate(self.now, &mut message) {
            self.send(n, &message[..length]);
        }
    }

    /// Side `n` says something, if it has a session.
    fn say(&mut self, n: usize) -> bool {
        let Some((sealer, _)) = self.tunnels[n].outgoing(self.now) else { return false };
        let mut datagram = [0; 100 + OVERHEAD];
        sealer.seal(&[1; 100], &mut datagram).unwrap();
        self.send(n, &datagram);
        true
    }

    fn arrive(&mut self, n: usize, datagram: &[u8]) -> Result<(), Refusal> {
        let (now, from, mut reply) = (self.now, HERE[1 - n], [0; HANDSHAKE_ROOM]);
        let length = match Gate::claim(datagram).unwrap() {
            Claim::Initiation => {
                let called = self.gates[n].read(datagram).unwrap();
                self.tunnels[n].answer(now, from, called, &mut reply)?
            }
            Claim::Response(_) => self.tunnels[n].take_response(now, from, datagram, &mut reply)?.reply,
            Claim::Cookie(_) => return self.tunnels[n].take_cookie(now, datagram),
            Claim::Data(index) => {
                let opener = self.tunnels[n].opener(now, index).ok_or(Refusal::UnknownSession)?;
                let length = opener.open(datagram, &mut [0; 2000])?;
                let content = if length > 0 { Content::Frame } else { Content::Keepalive };
                self.tunnels[n].heard(now, from, index, content);
                self.heard[n] += usize::from(length > 0);
                return Ok(());
            }
        };
        self.send(n, &reply[..length]);
        Ok(())
    }

    /// Lets time pass in steps of a tick; nothing that arrives may be refused.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += (end - self.now).min(10 * MS);
            for n in 0..2 {
                let mut message = [0; HANDSHAKE_ROOM];
                match self.tunnels[n].tick(self.now, &mut message) {
                    Some(Timely::Initiation(length) | Timely::Keepalive(length)) => self.send(n, &message[..length]),
                    None => {}
                }
            }
            let now = self.now;
            for (_, to, datagram) in self.under_way.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
                self.arrive(to, &datagram).unwrap();
            }
        }
    }

    fn with_session() -> Self {
        let mut pair = pair([None, None]);
        pair.call(0);
        pair.pass(S);
        assert!(pair.tunnels.iter().all(Tunnel::is_live));
        pair
    }
}

#[test]
fn retries_come_after_five_seconds_and_a_little_and_end_after_ninety() {
    let mut pair = pair([None, None]);
    pair.losing = vec![INITIATION; 100];
    pair.call(0);
    let mut times = vec![pair.now];
    let begin = pair.now;
    while pair.now - begin < 300 * S {
        let before = pair.sent[0][1];
        pair.pass(10 * MS);
        if pair.sent[0][1] > before {
            times.push(pair.now);
        }
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (5000 * MS..=5350 * MS).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap != gaps[0]), "no jitter");
    assert!((16..=18).contains(&times.len()), "{} in ninety seconds", times.len());
    assert!(!pair.tunnels[0].is_trying());
    // Whoever wants to speak begins anew at once.
    pair.call(0);
    assert!(pair.tunnels[0].is_trying());
}

#[test]
fn renewal_loses_no_packet_whichever_handshake_message_is_lost() {
    for initiator in 0..2 {
        for lost in [vec![], vec![INITIATION], vec![RESPONSE], vec![INITIATION, RESPONSE], vec![INITIATION; 5]] {
            for latency in [MS, 300 * MS] {
                let mut pair = pair([None, None]);
                pair.latency = latency;
                pair.call(initiator);
                pair.pass(2 * S);
                pair.losing = lost.clone();
                let mut said = 0;
                for _ in 0..4000 {
                    assert!(pair.say(0) && pair.say(1));
                    said += 1;
                    pair.pass(100 * MS);
                }
                pair.pass(S);
                assert_eq!(pair.heard, [said; 2], "{lost:?} {latency:?}");
                let initiations = [pair.sent[0][1], pair.sent[1][1]];
                assert_eq!(initiations[1 - initiator], 0, "who began renews");
                assert!((4..=4 + lost.len()).contains(&initiations[initiator]), "{initiations:?} {lost:?}");
            }
        }
    }
}

#[test]
fn when_both_begin_at_once_the_one_with_the_smaller_key_renews_for_both() {
    let mut pair = pair([None, None]);
    pair.latency = 200 * MS;
    pair.call(0);
    pair.call(1);
    pair.pass(S);
    let mut said = 0;
    for _ in 0..6000 {
        assert!(pair.say(0) && pair.say(1));
        said += 1;
        pair.pass(100 * MS);
    }
    pair.pass(S);
    assert_eq!(pair.heard, [said; 2]);
    assert_eq!(pair.sent[0][1], 1);
    assert!((5..=6).contains(&pair.sent[1][1]), "{:?}", pair.sent);
}

#[test]
fn a_session_ends_after_three_minutes_and_its_keys_with_it() {
    let mut pair = Pair::with_session();
    let index = |pair: &Pair| pair.tunnels[1].keyring.current(pair.now).unwrap().opener.index();
    let (last, before) = (index(&pair), pair.now);
    let opener = Arc::downgrade(&pair.tunnels[1].opener(pair.now, last).unwrap());
    pair.now = before + 178 * S;
    assert!(pair.tunnels[1].opener(pair.now, last).is_some() && pair.tunnels[1].is_live());
    // Over is over, also before a tick notices.
    pair.now = before + 180 * S;
    assert!(pair.tunnels[1].opener(pair.now, last).is_none() && !pair.say(1));
    pair.pass(20 * MS);
    assert!(!pair.tunnels[1].is_live() && opener.upgrade().is_none());
    assert_eq!(pair.sent[1][1], 0, "nobody had anything to say");
}

#[test]
fn while_the_clock_stands_still_everything_works_and_nothing_is_due() {
    let mut pair = Pair::with_session();
    let (now, sent) = (pair.now, pair.sent);
    for _ in 0..1000 {
        for n in 0..2 {
            assert!(pair.say(n));
            let (_, to, datagram) = pair.under_way.pop().unwrap();
            pair.arrive(to, &datagram).unwrap();
            assert_eq!(pair.tunnels[n].tick(now, &mut [0; HANDSHAKE_ROOM]), None);
        }
    }
    assert_eq!(pair.heard, [1000; 2]);
    assert_eq!(pair.sent.map(|sent| sent[1]), sent.map(|sent| sent[1]));
    // Nor does one that goes back do harm.
    pair.now -= 100 * S;
    assert!(pair.say(0));
    assert_eq!(pair.tunnels[0].tick(pair.now, &mut [0; HANDSHAKE_ROOM]), None);
}

#[test]
fn keepalives_answer_data_and_persistent_ones_fill_silence() {
    let mut pair = Pair::with_session();
    let sent = pair.sent;
    pair.say(0);
    pair.pass(9900 * MS);
    assert_eq!(pair.sent[1][4], sent[1][4]);
    pair.pass(200 * MS);
    assert_eq!(pair.sent[1][4], sent[1][4] + 1, "ten seconds after data that was not answered");
    pair.pass(60 * S);
    assert_eq!((pair.sent[0][4], pair.sent[1][4]), (sent[0][4] + 1, sent[1][4] + 1), "a keepalive is not answered");

    let mut pair = self::pair([Some(25), None]);
    pair.pass(S);
    assert!(pair.tunnels[0].is_live(), "keepalive begins a session by itself");
    let sent = pair.sent[0][4];
    pair.pass(76 * S);
    assert_eq!(pair.sent[0][4], sent + 3);
    for _ in 0..40 {
        pair.pass(S);
        pair.say(0);
    }
    assert_eq!(pair.sent[0][4], sent + 3 + 40, "data is as good as a keepalive");
}

#[test]
fn a_worn_session_is_renewed_and_an_exhausted_one_replaced() {
    let mut pair = Pair::with_session();
    let sealer = pair.tunnels[1].outgoing(pair.now).unwrap().0;
    sealer.spend(1 << 60);
    pair.pass(S);
    assert_eq!((pair.sent[1][1], pair.tunnels[1].is_live()), (1, true));
    let other = pair.tunnels[1].outgoing(pair.now).unwrap().0;
    assert!(!Arc::ptr_eq(&sealer, &other));
    other.spend(u64::MAX - (1 << 13));
    assert!(!pair.say(1), "not sealed, but kept until there is a session");
    assert_eq!(pair.tunnels[1].hold(pair.now, &[1; 100]), 0);
    pair.pass(S);
    assert!(pair.tunnels[1].is_live() && pair.say(1));
}

#[test]
fn indexes_of_a_tunnel_differ_in_their_last_byte() {
    let mut pair = Pair::with_session();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        pair.pass(6 * S);
        pair.call(0);
        pair.pass(S);
        let current = pair.tunnels[0].keyring.current(pair.now).unwrap().opener.index();
        assert_eq!(tunnel_of(current), 5);
        seen.insert(current);
    }
    assert!(seen.len() > 50, "{} of 256 after 100 draws", seen.len());
}

#[test]
fn a_response_is_taken_once_and_only_for_the_initiation_it_answers() {
    let mut pair = pair([None, None]);
    pair.call(0);
    let (.., initiation) = pair.under_way.pop().unwrap();
    pair.arrive(1, &initiation).unwrap();
    assert_eq!(pair.arrive(1, &initiation), Err(Refusal::Handshake), "a copy");
    let (.., response) = pair.under_way.pop().unwrap();
    let mut other = response.clone();
    other[8] ^= 1;
    assert_eq!(pair.arrive(0, &other), Err(Refusal::UnknownSession));
    let mut damaged = response.clone();
    damaged[50] ^= 1;
    assert_eq!(pair.arrive(0, &damaged), Err(Refusal::Handshake));
    assert!(!pair.tunnels[0].is_live());
    pair.arrive(0, &response).unwrap();
    assert!(pair.tunnels[0].is_live() && !pair.tunnels[1].is_live());
    assert_eq!(pair.arrive(0, &response), Err(Refusal::UnknownSession));
    pair.pass(S);
    assert!(pair.tunnels[1].is_live());
}

#[test]
fn what_waits_since_a_session_ended_leaves_with_the_next_also_before_a_tick() {
    for caller in 0..2 {
        let mut pair = Pair::with_session();
        pair.now += 180 * S;
        for n in 0..2 {
            assert!(!pair.say(n));
            pair.tunnels[n].hold(pair.now, &[1; 100]);
        }
        let mut reply = [0; HANDSHAKE_ROOM];
        let length = pair.tunnels[caller].initiate(pair.now, &mut reply).unwrap();
        let called = pair.gates[1 - caller].read(&reply[..length]).unwrap();
        let (here, there) = (HERE[caller], HERE[1 - caller]);
        let length = pair.tunnels[1 - caller].answer(pair.now, here, called, &mut reply).unwrap();
        let response = reply;
        let outcome = pair.tunnels[caller].take_response(pair.now, there, &response[..length], &mut reply).unwrap();
        assert!(outcome.session_up, "the caller's packets");
        let Some(Claim::Data(index)) = Gate::claim(&reply[..outcome.reply]) else { panic!("no keepalive") };
        assert!(pair.tunnels[1 - caller].heard(pair.now, here, index, Content::Keepalive), "the other's");
    }
}

#[test]
fn a_copy_of_an_old_initiation_takes_no_live_session_elsewhere() {
    let mut pair = pair([None, None]);
    pair.call(1);
    let (.., old) = pair.under_way.pop().unwrap();
    // Side 0 restarts, so that it knows nothing of side 1's calls, and begins a session.
    let peer = pair.tunnels[1].identity.public;
    let settings = TunnelSettings { peer, preshared_key: None, keepalive: None, index: 5, endpoints: vec![HERE[1]] };
    pair.tunnels[0] = Tunnel::new(&pair.gates[0], &settings, pair.now);
    pair.call(0);
    pair.pass(S);
    let called = pair.gates[0].read(&old).unwrap();
    let copied = pair.tunnels[0].answer(pair.now, address(66), called, &mut [0; HANDSHAKE_ROOM]);
    assert_eq!(copied, Ok(RESPONSE_LEN), "it cannot be told from a fresh one");
    assert_eq!(pair.tunnels[0].outgoing(pair.now).map(|(_, to)| to), Some(HERE[1]));
    assert!(pair.say(0) && pair.say(1));
    pair.pass(S);
    assert_eq!(pair.heard, [1, 1]);
}
