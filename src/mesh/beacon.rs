//! LAN beacons: members on one LAN find each other without a server or an address in a file.
//!
//! Every [`INTERVAL`] or so, and at once where something is news, a member sends this to a multicast group of each of
//! its LANs:
//!
//! ```text
//!  "weft" | version 1 (1) | flags (1) | our UDP port (2) | hour (4) | tag (16)
//! ```
//!
//! The tag is BLAKE2s of the sender's public key and the hour (since 1970, by the sender's clock), so that only who knows
//! the key recognises it, and to others the beacons of one member look new each hour. Who listens makes the tags of all
//! members it knows for that hour, once. The hour stands in the beacon, so the clocks need not agree; but only for our
//! own hour and its neighbours is the work done without a limit.
//!
//! A beacon is a hint. It is not authenticated, and may be a copy: all that follows is that an address is tried, where
//! WireGuard finds out who is there. It must come from the link; what sends and receives it sees to that.

use crate::wire::bytes::{Reader, Writer};
use crate::wire::key::PublicKey;
use crate::wire::{MESH_PORT, Malformed};
use blake2::{Blake2s256, Digest};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The UDP port of beacons on a LAN: inside the tunnels the members' messages have the same.
pub const PORT: u16 = MESH_PORT;
/// The group over IPv4: of the local scope (RFC 2365 §6.1).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 93, 38);
/// The group over IPv6: link-local, of those that nobody assigns (RFC 3307 §4.3).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x8000, 0x9338);
/// Bytes of a beacon; later versions may add some.
pub const LEN: usize = 28;

/// How often a beacon is sent, give or take a quarter.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the first ones are apart, and the answers to the first ones of others.
const SOON: Duration = Duration::from_secs(1);
/// How many are sent that soon: one may get lost, and an interface may need a second until it forwards.
const FIRST: u8 = 4;
/// Members that are looked for.
const MAX_KNOWN: usize = 4096;
/// Beacons looked at in a second: a LAN of a thousand members sends half as many.
const HEEDED: u32 = 200;
/// Hours whose tags are kept: ours, its neighbours, and as many of clocks that are wrong.
const HOURS: usize = 6;
/// How often tags may be made for an hour that is not ours: 4,096 of them take some milliseconds.
const FOREIGN_HOUR: Duration = Duration::from_secs(10);
/// How long an address that was told is no news.
const NEWS: Duration = Duration::from_secs(60);
/// Addresses of one member that are told within [`NEWS`]: its LANs of both families. Whoever forges more is not heard.
const MAX_ADDRESSES: usize = 8;

const MAGIC: &[u8; 4] = b"weft";
const VERSION: u8 = 1;
/// Flag: who hears this should send one soon.
const FRESH: u8 = 1;
const HOUR: u64 = 3600;

type Tag = [u8; 16];

/// What a beacon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beacon {
    fresh: bool,
    port: u16,
    hour: u32,
    tag: Tag,
}

impl Beacon {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Writer::default();
        bytes.bytes(MAGIC).u8(VERSION).u8(if self.fresh { FRESH } else { 0 });
        bytes.u16(self.port).u32(self.hour).bytes(&self.tag);
        bytes.0
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        if reader.array()? != *MAGIC || reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let (flags, port) = (reader.u8()?, reader.u16()?);
        let beacon = Self { fresh: flags & FRESH != 0, port, hour: reader.u32()?, tag: reader.array()? };
        if port == 0 { Err(Malformed) } else { Ok(beacon) }
    }
}

/// Whether `bytes` are a beacon, whoever's.
pub fn is_beacon(bytes: &[u8]) -> bool {
    bytes.len() == LEN && Beacon::parse(bytes).is_ok()
}

fn tag(key: &PublicKey, hour: u32) -> Tag {
    let hash = Blake2s256::new().chain_update(b"weft lan beacon v1").chain_update(key.0);
    let hash: [u8; 32] = hash.chain_update(hour.to_be_bytes()).finalize().into();
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash[..16]);
    tag
}

/// What one member sends, and what it makes of what it hears.
pub struct Beacons {
    own: PublicKey,
    port: u16,
    known: Vec<PublicKey>,
    /// The tags of all known members for some hours, the newest last.
    hours: VecDeque<(u32, HashMap<Tag, PublicKey>)>,
    /// When tags may be made for an hour that is not ours.
    foreign_from: Instant,
    /// Where members were said to be, and when that was told.
    told: BTreeMap<PublicKey, Vec<(SocketAddr, Instant)>>,
    /// How many more are sent soon one after the other.
    first: u8,
    next: Instant,
    last: Option<Instant>,
    /// The second in which beacons are counted, and their number.
    heard: (u64, u32),
    started: Instant,
}

impl Beacons {
    /// Beacons of the member `own`, which listens on the UDP `port`. The first is due at once.
    pub fn new(now: Instant, own: PublicKey, port: u16) -> Self {
        Self {
            own,
            port,
            known: Vec::new(),
            hours: VecDeque::new(),
            foreign_from: now,
            told: BTreeMap::new(),
            first: FIRST,
            next: now,
            last: None,
            heard: (0, 0),
            started: now,
        }
    }

    /// Looks for these members and no others. Where some are new, they are asked to tell where they are.
    pub fn set_known(&mut self, now: Instant, mut keys: Vec<PublicKey>) {
        keys.retain(|key| *key != self.own);
        keys.sort_unstable();
        keys.dedup();
        keys.truncate(MAX_KNOWN);
        if keys == self.known {
            return;
        }
        if keys.iter().any(|key| self.known.binary_search(key).is_err()) {
            self.ask(now);
        }
        self.told.retain(|key, _| keys.binary_search(key).is_ok());
        self.known = keys;
        self.hours.clear();
    }

    /// Sends a few soon, to be answered: there is somebody or some LAN new.
    pub fn ask(&mut self, now: Instant) {
        self.first = FIRST;
        self.hasten(now);
    }

    /// The next is due as soon as may be after the last one.
    fn hasten(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| now.max(last + SOON));
        self.next = self.next.min(earliest);
    }

    /// When the next one is due.
    pub fn next_deadline(&self) -> Instant {
        self.next
    }

    /// The beacon to send on every LAN, if one is due. `unix` is the time since 1970, `random` any bits.
    pub fn due(&mut self, now: Instant, unix: Duration, random: u64) -> Option<Vec<u8>> {
        if now < self.next {
            return None;
        }
        let fresh = self.first > 0;
        self.first = self.first.saturating_sub(1);
        let pause = if self.first > 0 { SOON } else { INTERVAL };
        // Members that start together do not go on together: three quarters to five quarters.
        self.next = now + pause * 3 / 4 + pause.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64) / 2;
        self.last = Some(now);
        let hour = hour_of(unix);
        Some(Beacon { fresh, port: self.port, hour, tag: tag(&self.own, hour) }.to_bytes())
    }

    /// `bytes` came from `from`. Who is where, if that is somebody we look for and it is news.
    pub fn input(
        &mut self,
        now: Instant,
        unix: Duration,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<(PublicKey, SocketAddr)> {
        let second = now.saturating_duration_since(self.started).as_secs();
        self.heard = if self.heard.0 == second { (second, self.heard.1 + 1) } else { (second, 1) };
        if self.heard.1 > HEEDED {
            return None;
        }
        let beacon = Beacon::parse(bytes).ok()?;
        let key = self.recognise(now, unix, &beacon)?;
        if beacon.fresh {
            self.hasten(now);
        }
        let mut address = from;
        address.set_port(beacon.port);
        self.is_news(now, key, address).then_some((key, address))
    }

    fn recognise(&mut self, now: Instant, unix: Duration, beacon: &Beacon) -> Option<PublicKey> {
        let hour = beacon.hour;
        if !self.hours.iter().any(|(of, _)| *of == hour) {
            let ours = hour_of(unix);
            if ours.abs_diff(hour) > 1 {
                if now < self.foreign_from {
                    return None;
                }
                self.foreign_from = now + FOREIGN_HOUR;
            }
            // The one that gives way is, if possible, none of ours.
            if self.hours.len() >= HOURS {
                let stale = self.hours.iter().position(|(of, _)| of.abs_diff(ours) > 1).unwrap_or(0);
                self.hours.remove(stale);
            }
            self.hours.push_back((hour, self.known.iter().map(|key| (tag(key, hour), *key)).collect()));
        }
        let (_, tags) = self.hours.iter().find(|(of, _)| *of == hour)?;
        tags.get(&beacon.tag).copied()
    }

    fn is_news(&mut self, now: Instant, key: PublicKey, address: SocketAddr) -> bool {
        let told = self.told.entry(key).or_default();
        told.retain(|(_, when)| now.saturating_duration_since(*when) < NEWS);
        let news = told.len() < MAX_ADDRESSES && told.iter().all(|(known, _)| *known != address);
        if news {
            told.push((address, now));
        }
        news
    }
}

/// Hours since 1970; they last longer than 32 bits' worth of years.
fn hour_of(unix: Duration) -> u32 {
    u32::try_from(unix.as_secs() / HOUR).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const A: PublicKey = PublicKey([1; 32]);
    const B: PublicKey = PublicKey([2; 32]);
    const UNIX: Duration = Duration::from_secs(1_800_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn listener(now: Instant, own: PublicKey, known: &[PublicKey]) -> Beacons {
        let mut beacons = Beacons::new(now, own, 51820);
        beacons.set_known(now, known.to_vec());
        beacons
    }

    #[test]
    fn the_bytes_of_a_beacon_are_these() {
        let now = Instant::now();
        let beacon = Beacons::new(now, A, 51820).due(now, UNIX, 0).unwrap();
        // Python: blake2s(b"weft lan beacon v1" + bytes([1] * 32) + struct.pack(">I", 500000)).hexdigest()[:32]
        let hex: String = beacon.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "77656674".to_owned() + "01" + "01" + "ca6c" + "0007a120" + "239bd8780e7ca68709a3d8fc4dbfab57"
        );
        assert_eq!(beacon.len(), LEN);
    }

    #[test]
    fn who_knows_the_key_learns_the_address_and_nobody_else_does() {
        let now = Instant::now();
        let beacon = Beacons::new(now, A, 4711).due(now, UNIX, 0).unwrap();
        let mut b = listener(now, B, &[A, B]);
        assert_eq!(b.input(now, UNIX, at("192.0.2.1:9338"), &beacon), Some((A, at("192.0.2.1:4711"))));
        // A link-local address is one only together with its link.
        let found = b.input(now, UNIX, at("[fe80::1%3]:9338"), &beacon);
        assert_eq!(found, Some((A, at("[fe80::1%3]:4711"))));
        assert_eq!(b.input(now, UNIX, at("192.0.2.1:9338"), &beacon), None, "that is no news");
        let later = now + NEWS;
        assert!(b.input(later, UNIX, at("192.0.2.1:9338"), &beacon).is_some(), "but it may be lost by now");
        let mut stranger = listener(now, PublicKey([3; 32]), &[B]);
        assert_eq!(stranger.input(now, UNIX, at("192.0.2.1:9338"), &beacon), None);
        // One's own, which multicast brings back.
        assert_eq!(listener(now, A, &[A]).input(now, UNIX, at("192.0.2.1:9338"), &beacon), None);
    }

    #[test]
    fn beacons_of_one_member_look_alike_for_an_hour_and_clocks_need_not_agree() {
        let now = Instant::now();
        let mut a = Beacons::new(now, A, 51820);
        let year = Duration::from_secs(365 * 24 * 3600);
        let hours: Vec<_> = [UNIX, UNIX + Duration::from_secs(HOUR), UNIX + year, Duration::ZERO]
            .into_iter()
            .zip(0u32..)
            .map(|(unix, n)| a.due(now + INTERVAL * n * 2, unix, 0).unwrap())
            .collect();
        let mut b = listener(now, B, &[A]);
        for (n, beacon) in hours.iter().enumerate() {
            assert!(hours[..n].iter().all(|other| other[12..] != beacon[12..]), "tags differ");
            let then = now + FOREIGN_HOUR * n as u32;
            assert!(b.input(then, UNIX, at(&format!("192.0.2.{n}:9338")), beacon).is_some(), "hour {n}");
        }
    }

    #[test]
    fn hours_that_somebody_makes_up_cost_little_and_displace_none_that_matters() {
        let now = Instant::now();
        let mut b = listener(now, B, &[A]);
        let mut a = Beacons::new(now, A, 51820);
        let good = a.due(now, UNIX, 0).unwrap();
        assert!(b.input(now, UNIX, at("192.0.2.1:1"), &good).is_some());
        for n in 0..1000u32 {
            let then = now + FOREIGN_HOUR * n;
            for wrong in 0..20 {
                let beacon = Beacon { fresh: false, port: 1, hour: n * 100 + wrong, tag: [0; 16] }.to_bytes();
                assert_eq!(b.input(then, UNIX, at("192.0.2.1:1"), &beacon), None);
            }
            assert!(b.hours.len() <= HOURS);
        }
        assert!(b.hours.iter().any(|(hour, _)| *hour == hour_of(UNIX)));
        assert_eq!(b.hours.len(), HOURS);
    }

    #[test]
    fn forged_addresses_are_told_a_few_at_a_time() {
        let now = Instant::now();
        let beacon = Beacons::new(now, A, 51820).due(now, UNIX, 0).unwrap();
        let mut b = listener(now, B, &[A]);
        let told = (0..5000u32).filter(|n| {
            let from = SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + n), 9338));
            b.input(now + SECOND * (n / 500), UNIX, from, &beacon).is_some()
        });
        assert_eq!(told.count(), MAX_ADDRESSES);
    }

    #[test]
    fn a_member_is_heard_at_once_answers_soon_and_then_now_and_then() {
        let now = Instant::now();
        let (mut a, mut b) = (listener(now, A, &[B]), listener(now, B, &[A]));
        // B has been here for long.
        let mut then = now;
        while b.first > 0 || b.next < then {
            then = b.next;
            b.due(then, UNIX, u64::MAX).unwrap();
        }
        let quiet = then + 2 * SECOND;
        assert!(b.next > quiet, "it has no reason to speak");
        // A starts.
        a.next = quiet;
        let first = a.due(quiet, UNIX, 0).unwrap();
        assert!(b.input(quiet, UNIX, at("192.0.2.1:1"), &first).is_some());
        let answer = b.due(quiet, UNIX, 0).unwrap();
        assert!(a.input(quiet, UNIX, at("192.0.2.2:1"), &answer).is_some());
        // An answer is not answered, and a flood of questions is answered once a second.
        assert!(!Beacon::parse(&answer).unwrap().fresh);
        let mut answers = 0;
        for n in 0..100 {
            let then = quiet + SECOND / 10 * n;
            b.input(then, UNIX, at("192.0.2.1:1"), &first);
            answers += u32::from(b.due(then, UNIX, 0).is_some());
        }
        assert!((9..=10).contains(&answers), "{answers}");
        // Left alone, it speaks about every ten seconds.
        let (mut then, mut count) = (b.next, 0);
        let end = then + 100 * INTERVAL;
        while then < end {
            b.due(then, UNIX, (count as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
            let pause = b.next_deadline() - then;
            assert!(pause >= INTERVAL * 3 / 4 && pause <= INTERVAL * 5 / 4, "{pause:?}");
            (then, count) = (b.next, count + 1);
        }
        assert!((90..=110).contains(&count), "{count}");
    }

    #[test]
    fn somebody_new_to_us_is_asked_for() {
        let now = Instant::now();
        let mut a = listener(now, A, &[]);
        let mut then = now;
        for _ in 0..10 {
            then = a.next;
            a.due(then, UNIX, 0);
        }
        let later = then + 2 * SECOND;
        a.set_known(later, vec![B]);
        assert!(Beacon::parse(&a.due(later, UNIX, 0).unwrap()).unwrap().fresh);
        let next = a.next;
        a.set_known(later, vec![B, A, B]);
        assert_eq!(a.next, next, "nobody is new");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_are_nobody(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..60), is_ours: bool, unix in 0u64..1 << 40,
        ) {
            if is_ours {
                bytes.splice(..bytes.len().min(5), *b"weft\x01");
            }
            let now = Instant::now();
            let mut b = listener(now, B, &[A]);
            prop_assert_eq!(b.input(now, Duration::from_secs(unix), at("192.0.2.1:1"), &bytes), None);
            b.due(now, Duration::from_secs(unix), unix);
        }
    }
}
