//! The gate: what every datagram passes before any tunnel spends time on it.
//!
//! It reads what a datagram claims to be, and decides which handshake messages may cost Diffie-Hellman computations. A
//! message that is not made for us ends at its *mac1*. One without a cookie is admitted while few come, from its address
//! and in all; beyond that its sender is sent a cookie, which a sender that forged its address never sees. One with a
//! cookie has a budget of its own, so that no flood from forged addresses uses up what those who are really there need.
//!
//! ```text
//!              each second:   of one source   in all
//!   without a cookie                20          100     beyond: cookie
//!   with a cookie                   20        1,000     beyond: dropped
//! ```
//!
//! A source is an IPv4 address, an IPv6 /64 or a TCP connection. Sources share [`SOURCES`] counters by a keyed hash: a flooder takes of the
//! budget of one in so many others, and cannot choose of whose.

use super::macs::{Mac, MacKeys, has_cookie, mac};
use super::noise::{Called, Timestamp};
use super::{
    COOKIE_REPLY, COOKIE_REPLY_LEN, DATA, HANDSHAKE_ROOM, INITIATION, INITIATION_LEN, RESPONSE, RESPONSE_LEN,
};
use crate::aead::Engine;
use crate::wire::key::{PublicKey, Secret};
use crate::wire::way::stream_of;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// Handshakes taken each second without asking for a cookie. A restart of a hundred peers passes at once; a flood costs at
/// most as many times three Diffie-Hellman computations: 2 % of a core.
pub const HANDSHAKES_PER_SECOND: u32 = 100;
/// Handshakes taken each second from addresses that are their sender's.
const PROVEN_HANDSHAKES_PER_SECOND: u32 = 1000;
/// Handshakes taken each second from one source: several members behind one address that all start at once.
const HANDSHAKES_OF_ONE_SOURCE: u16 = 20;
/// Counters that sources share.
const SOURCES: usize = 4096;
/// How long a cookie is given out; it is taken as long again. The paper §5.4.7 changes its secret every two minutes.
const COOKIE_EPOCH: Duration = Duration::from_secs(120);
/// TAI64's second 0 of the Unix epoch, with the ten leap seconds of before 1972, as WireGuard has it.
const TAI64_UNIX: u64 = 0x4000_0000_0000_000a;
/// Bits of the nanoseconds that timestamps do not tell: how long our computations take is nobody's business.
const VAGUE_NANOSECONDS: u32 = (1 << 24) - 1;

/// What the gate and its tunnels have from outside.
#[derive(Debug, Clone, Copy)]
pub struct GateSettings {
    /// What seals and opens data.
    pub engine: Engine,
    /// Fills a buffer with bytes that nobody can guess.
    pub random: fn(&mut [u8]),
    /// When this is.
    pub now: Instant,
    /// The same moment as time since 1970, which must not be earlier than in the last run with this key: a peer refuses
    /// handshakes that are not later than those it knows. Where it may be, see [`Gate::set_clock`].
    pub unix_time: Duration,
}

/// Who we are, for all tunnels.
pub(super) struct Identity {
    pub(super) secret: StaticSecret,
    pub(super) public: PublicKey,
    pub(super) settings: GateSettings,
    /// Nanoseconds from 1970 to `settings.now`, as far as is known.
    begin: AtomicU64,
}

impl Identity {
    pub(super) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.settings.random)(&mut bytes);
        bytes
    }

    /// The time of an initiation, as TAI64N.
    pub(super) fn timestamp(&self, now: Instant) -> Timestamp {
        let begin = Duration::from_nanos(self.begin.load(Relaxed));
        let time = begin + now.saturating_duration_since(self.settings.now);
        let mut timestamp = [0; 12];
        timestamp[..8].copy_from_slice(&(TAI64_UNIX + time.as_secs()).to_be_bytes());
        timestamp[8..].copy_from_slice(&(time.subsec_nanos() & !VAGUE_NANOSECONDS).to_be_bytes());
        timestamp
    }
}

/// What a datagram claims to be; nothing of it is authenticated yet. The numbers are session indexes of ours; their upper
/// 24 bits name the tunnel, see [`tunnel_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Wants to begin a session.
    Initiation,
    /// Answers the initiation with this index.
    Response(u32),
    /// Sends a cookie for the handshake message with this index.
    Cookie(u32),
    /// Carries a packet in the session with this index.
    Data(u32),
}

/// The 24 bits of a session index that name its tunnel.
pub fn tunnel_of(index: u32) -> u32 {
    index >> 8
}

/// What is to become of an initiation or response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// May be looked at.
    Admitted,
    /// Too many arrive: answer with this many bytes of cookie.
    Cookie(usize),
    /// Too many arrive from an address that was proven: no answer.
    Limited,
    /// It was not made for us.
    Refused,
}

/// What every handshake passes before any tunnel spends time on it.
pub struct Gate {
    pub(super) identity: Arc<Identity>,
    macs: MacKeys,
    /// What cookies are made from, and the hash of sources.
    cookie_secret: Zeroizing<[u8; 32]>,
    budgets: Mutex<Budgets>,
}

impl Gate {
    /// A gate for the member with this private key.
    pub fn new(private: &Secret, settings: GateSettings) -> Self {
        let public = private.public_key();
        let begin = AtomicU64::new(nanoseconds(settings.unix_time));
        let identity = Identity { secret: StaticSecret::from(*private.expose()), public, settings, begin };
        Self {
            macs: MacKeys::of(&public),
            cookie_secret: Zeroizing::new(identity.random()),
            budgets: Mutex::new(Budgets::new()),
            identity: Arc::new(identity),
        }
    }

    /// The clock says that `now` is `unix_time` after 1970. Where it was behind at the start, as on a machine that learns
    /// the time from its network, handshakes are dated right from here on. One that is put back changes nothing.
    pub fn set_clock(&self, now: Instant, unix_time: Duration) {
        let age = now.saturating_duration_since(self.identity.settings.now);
        self.identity.begin.fetch_max(nanoseconds(unix_time.saturating_sub(age)), Relaxed);
    }

    /// Reads a datagram's message type and index; `None` if it is no message of WireGuard's.
    pub fn claim(datagram: &[u8]) -> Option<Claim> {
        let (head, rest) = datagram.split_first_chunk::<4>()?;
        let index = |at: usize| rest[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let [kind, 0, 0, 0] = *head else { return None };
        match (kind, datagram.len()) {
            (INITIATION, INITIATION_LEN) => Some(Claim::Initiation),
            (RESPONSE, RESPONSE_LEN) => Some(Claim::Response(index(4))),
            (COOKIE_REPLY, COOKIE_REPLY_LEN) => Some(Claim::Cookie(index(0))),
            (DATA, super::session::OVERHEAD..) => Some(Claim::Data(index(0))),
            _ => None,
        }
    }

    /// Checks the MACs and the rate of an initiation or response from `from`. `reply` takes a cookie.
    pub fn admit(
        &self,
        now: Instant,
        from: SocketAddr,
        message: &[u8],
        reply: &mut [u8; HANDSHAKE_ROOM],
    ) -> Admission {
        if ![INITIATION_LEN, RESPONSE_LEN].contains(&message.len()) || !self.macs.is_ours(message) {
            return Admission::Refused;
        }
        let age = now.saturating_duration_since(self.identity.settings.now);
        let epoch = age.as_secs() / COOKIE_EPOCH.as_secs();
        let has_mac2 = message[message.len() - 16..] != [0; 16];
        let proven = has_mac2
            && (has_cookie(message, &self.cookie(epoch, from))
                || has_cookie(message, &self.cookie(epoch.saturating_sub(1), from)));
        let slot = usize::from(u16::from_le_bytes(self.slot(&from))) % SOURCES;
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = budgets.take(age.as_secs(), slot, proven);
        drop(budgets);
        match (admitted, proven) {
            (true, _) => Admission::Admitted,
            (false, true) => Admission::Limited,
            (false, false) => {
                let Some(reply) = reply.first_chunk_mut() else { return Admission::Limited };
                self.macs.reply(message, &self.cookie(epoch, from), self.identity.random(), reply);
                Admission::Cookie(reply.len())
            }
        }
    }

    /// Reads an admitted initiation; `None` if it is not one for us. Costs a Diffie-Hellman computation.
    pub fn read(&self, initiation: &[u8]) -> Option<Called> {
        Called::read(&self.identity.secret, initiation.try_into().ok()?)
    }

    fn cookie(&self, epoch: u64, from: SocketAddr) -> Mac {
        let secret = mac(&self.cookie_secret[..], &[b"cookie", &epoch.to_le_bytes()]);
        let port = from.port().to_le_bytes();
        match from.ip() {
            IpAddr::V4(address) => mac(&secret, &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(&secret, &[&address.octets(), &port]),
        }
    }

    fn slot(&self, source: &SocketAddr) -> [u8; 2] {
        let key = &self.cookie_secret[..];
        let [a, b, ..] = match source.ip().to_canonical() {
            IpAddr::V4(address) => mac(key, &[b"source", &address.octets()]),
            // Each TCP connection is a source, or one stranger's would use up what all of them have.
            IpAddr::V6(address) if stream_of(source).is_some() => mac(key, &[b"stream", &address.octets()]),
            IpAddr::V6(address) => mac(key, &[b"source", &address.octets()[..8]]),
        };
        [a, b]
    }
}

/// Until the year 2554.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What was admitted in this second: without a cookie, and with.
struct Budgets {
    second: u64,
    all: [u32; 2],
    /// The second counted, and the same two counts.
    sources: Box<[(u64, [u16; 2])]>,
}

impl Budgets {
    fn new() -> Self {
        Self { second: 0, all: [0; 2], sources: vec![(0, [0; 2]); SOURCES].into_boxed_slice() }
    }

    /// Takes one from both budgets, if there is something left in both: a source that used up its own takes nothing from
    /// the others.
    fn take(&mut self, second: u64, slot: usize, proven: bool) -> bool {
        // Workers' times differ by the length of a turn: one that is late counts for the second that has begun.
        let second = second.max(self.second);
        if self.second != second {
            (self.second, self.all) = (second, [0; 2]);
        }
        let source = &mut self.sources[slot];
        if source.0 != second {
            *source = (second, [0; 2]);
        }
        let (of_source, of_all) = (&mut source.1[usize::from(proven)], &mut self.all[usize::from(proven)]);
        let limit = if proven { PROVEN_HANDSHAKES_PER_SECOND } else { HANDSHAKES_PER_SECOND };
        if *of_source >= HANDSHAKES_OF_ONE_SOURCE || *of_all >= limit {
            return false;
        }
        *of_source += 1;
        *of_all += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::way::stream;

    fn settings() -> GateSettings {
        let random = |bytes: &mut [u8]| bytes.fill(0x5a);
        let unix_time = Duration::new(1_700_000_000, 999_999_999);
        GateSettings { engine: Engine::Ring, random, now: Instant::now(), unix_time }
    }

    fn gate() -> Gate {
        Gate::new(&Secret::private([1; 32]), settings())
    }

    /// An initiation, as far as a gate looks.
    fn message(gate: &Gate, cookie: Option<&Mac>) -> [u8; INITIATION_LEN] {
        let mut message = [0; INITIATION_LEN];
        message[0] = INITIATION;
        gate.macs.stamp(&mut message, cookie);
        message
    }

    /// How many of `count` messages are admitted, each from where `from` says.
    fn admitted(gate: &Gate, now: Instant, cookie: bool, count: u32, from: impl Fn(u32) -> SocketAddr) -> u32 {
        let mut admitted = 0;
        for n in 0..count {
            let cookie = cookie.then(|| gate.cookie(0, from(n)));
            let message = message(gate, cookie.as_ref());
            let admission = gate.admit(now, from(n), &message, &mut [0; HANDSHAKE_ROOM]);
            admitted += u32::from(admission == Admission::Admitted);
            if admission != Admission::Admitted {
                let expected =
                    if cookie.is_some() { Admission::Limited } else { Admission::Cookie(COOKIE_REPLY_LEN) };
                assert_eq!(admission, expected);
            }
        }
        admitted
    }

    fn spread(n: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + n), 1000))
    }

    #[test]
    fn a_flooder_with_one_address_uses_up_only_its_own_budget() {
        let (gate, own) = (gate(), u32::from(HANDSHAKES_OF_ONE_SOURCE));
        let now = gate.identity.settings.now;
        assert_eq!(admitted(&gate, now, false, 10_000, |_| spread(0)), own);
        assert_eq!(admitted(&gate, now, true, 10_000, |_| spread(0)), own, "with a cookie");
        let everybody = admitted(&gate, now, false, HANDSHAKES_PER_SECOND - own, |n| spread(n + 1));
        assert_eq!(everybody, HANDSHAKES_PER_SECOND - own);
        // Each TCP connection is one: a stranger's has no share in what the others need.
        let another = now + Duration::from_secs(2);
        assert_eq!(admitted(&gate, another, false, 1000, |_| stream(7)), own);
        assert_eq!(admitted(&gate, another, false, own, |_| stream(8)), own);
        // An IPv6 subnet is one source, and so are both ways to write an IPv4 address.
        let subnet = |n: u32| format!("[2001:db8::{n:x}]:1").parse().unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!(admitted(&gate, later, false, 1000, subnet), own);
        assert_eq!(admitted(&gate, later, false, 15, |_| "10.0.0.7:1".parse().unwrap()), 15);
        assert_eq!(admitted(&gate, later, false, 15, |_| "[::ffff:10.0.0.7]:1".parse().unwrap()), own - 15);
    }

    #[test]
    fn workers_that_disagree_on_the_second_share_one_budget() {
        let gate = gate();
        let start = gate.identity.settings.now;
        let [late, now] = [999, 1000].map(|ms| start + Duration::from_millis(ms));
        let taken: u32 =
            (0..100).map(|n| admitted(&gate, [late, now][n % 2], false, 10, |m| spread(m + n as u32 * 10))).sum();
        // What was left of the first second, and all of the next.
        assert!(taken <= 10 + HANDSHAKES_PER_SECOND, "{taken}");
    }

    #[test]
    fn forged_addresses_use_up_only_what_needs_no_cookie() {
        let gate = gate();
        let now = gate.identity.settings.now;
        assert_eq!(admitted(&gate, now, false, 50_000, spread), HANDSHAKES_PER_SECOND);
        assert_eq!(admitted(&gate, now, true, 500, |n| spread(n + 100_000)), 500);
        assert_eq!(admitted(&gate, now, true, 50_000, spread), PROVEN_HANDSHAKES_PER_SECOND - 500);
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_port_and_for_two_to_four_minutes() {
        let gate = gate();
        let (start, here) = (gate.identity.settings.now, spread(1));
        let made = gate.cookie(0, here);
        let is_proof = |at: u64, from: SocketAddr| {
            let now = start + Duration::from_secs(at);
            // Only a proven sender is dropped without an answer when it exceeds its budget.
            let message = message(&gate, Some(&made));
            let last =
                (0..=HANDSHAKES_OF_ONE_SOURCE).map(|_| gate.admit(now, from, &message, &mut [0; HANDSHAKE_ROOM]));
            last.last() == Some(Admission::Limited)
        };
        assert!(is_proof(0, here) && is_proof(119, here) && is_proof(239, here));
        assert!(!is_proof(240, here));
        assert!(!is_proof(1, spread(2)) && !is_proof(2, SocketAddr::new(here.ip(), 1001)));
    }

    #[test]
    fn messages_for_somebody_else_are_refused_without_an_answer() {
        let gate = gate();
        let mut message = message(&gate, None);
        message[60] ^= 1;
        let refused = gate.admit(gate.identity.settings.now, spread(1), &message, &mut [0; HANDSHAKE_ROOM]);
        assert_eq!(refused, Admission::Refused);
    }

    #[test]
    fn claims_are_read_by_type_and_length() {
        let claim = |kind: u8, length: usize| {
            let mut datagram = vec![0; length];
            datagram.iter_mut().zip([kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).for_each(|(to, byte)| *to = byte);
            Gate::claim(&datagram)
        };
        assert_eq!(claim(1, 148), Some(Claim::Initiation));
        assert_eq!(claim(2, 92), Some(Claim::Response(0x0807_0605)));
        assert_eq!(claim(3, 64), Some(Claim::Cookie(0x0403_0201)));
        assert_eq!(claim(4, 32), Some(Claim::Data(0x0403_0201)));
        assert_eq!(tunnel_of(0x0403_0201), 0x0004_0302);
        for (kind, length) in [(0, 148), (1, 147), (1, 149), (2, 91), (3, 65), (4, 31), (4, 0), (4, 3), (5, 32)] {
            assert_eq!(claim(kind, length), None, "{kind} of {length}");
        }
        assert_eq!(Gate::claim(&[4, 0, 0, 1, 0, 0, 0, 0].repeat(8)), None, "the reserved bytes are zero");
    }

    #[test]
    fn timestamps_grow_and_do_not_tell_the_nanosecond() {
        let gate = gate();
        let at = |ms| gate.identity.timestamp(gate.identity.settings.now + Duration::from_millis(ms));
        // 2023-11-14 22:13:20 UTC.
        assert_eq!(at(0)[..8], (0x4000_0000_0000_000a + 1_700_000_000_u64).to_be_bytes());
        assert_eq!(at(0)[9..], [0; 3]);
        assert!(at(0) < at(1) && at(1) <= at(10) && at(10) < at(30) && at(999) < at(1000 + 17));
    }

    #[test]
    fn a_clock_that_is_set_later_dates_what_follows_and_one_that_is_put_back_does_not() {
        let unset = GateSettings { unix_time: Duration::ZERO, ..settings() };
        let (gate, now) = (Gate::new(&Secret::private([1; 32]), unset), unset.now + Duration::from_secs(60));
        let seconds = |now| gate.identity.timestamp(now)[..8].to_vec();
        let dated = |unix: u64| (TAI64_UNIX + unix).to_be_bytes();
        assert_eq!(seconds(now), dated(60));
        gate.set_clock(now, Duration::from_secs(1_700_000_000));
        assert_eq!(seconds(now), dated(1_700_000_000));
        gate.set_clock(now, Duration::from_secs(1_600_000_000));
        assert_eq!(seconds(now + Duration::from_secs(1)), dated(1_700_000_001));
    }
}
