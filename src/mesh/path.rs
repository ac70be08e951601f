//! The MTU of the underlay path to one peer, found by probing inside the tunnel (DPLPMTUD, RFC 8899).
//!
//! A probe is padded so that its datagram has exactly the size in question; who receives it answers with a few bytes.
//! ICMP need not arrive and is not listened to. [`BASE`] is always taken to pass (RFC 8899 §5.1.2, BASE_PLPMTU).
//!
//! ```text
//!            start                 confirmed: the next size                    peer is mute:
//!  Off ──────────────► Test(size) ───────────────────────► Test(larger)        Ping(base), ever more rarely
//!                        │   ▲  ▲ PROBES lost, pings pass: a smaller size          ▲        │ answered
//!        no size left    │   │  └──────────────────────────────────                │        ▼
//!                        ▼   │ from time to time: the size in use, the next larger │      Test
//!                      Settled ──► Test ──── PROBES lost, pings too ───────────────┘
//! ```
//!
//! *Search.* The likeliest sizes first, so that an ordinary path is known within one round trip: what passed before, 1500,
//! then [`CEILING`], then halving what [`CANDIDATES`] are left between the largest that passed and the smallest that did
//! not. A size counts as too large after [`PROBES`] lost probes, more on a path that loses much
//! ([`PathMtu::set_probes`]), if pings of the base size were answered meanwhile; loss can make that wrong, so the next
//! larger size is tried again, after 15 s at first and at last every 600 s (PMTU_RAISE_TIMER).
//!
//! *Black holes.* The size in use is tested again every second while the tunnel carries frames. When [`PROBES`] such
//! tests are lost the path falls back to the base at once and is searched again: some 2 s after it shrank, 4 at the
//! latest ([`DETECTION`]), frames pass. That is before TCP's fifth retransmission, which would come 6 s after the first
//! segment was lost; and a false alarm costs one round trip at the base.
//!
//! *Mute peers.* A stock WireGuard host answers nothing. It keeps the base and gets one ping a minute.
//!
//! Time is what has passed since the daemon started. Sizes are MTUs of the underlay: whole IP packets.

#[cfg(test)]
mod tests;

use crate::wire::MIN_PATH_MTU;
use std::collections::VecDeque;
use std::time::Duration;

/// The size that every path carries.
pub const BASE: u16 = MIN_PATH_MTU;
/// The largest size looked for: the usual jumbo frame.
pub const CEILING: u16 = 9000;
/// Sizes worth a test. Up to 1500: tunnels of all kinds, PPPoE (1492), clouds (1450, 1460); above: FDDI (4352) and
/// jumbo frames less this or that encapsulation.
pub const CANDIDATES: [u16; 28] = [
    BASE, 1300, 1320, 1340, 1360, 1380, 1400, 1410, 1420, 1430, 1440, 1450, 1460, 1472, 1476, 1480, 1492, 1500, 1600,
    2000, 3000, 4000, 4352, 6000, 8000, 8900, 8950, CEILING,
];
/// What nearly every path carries; tested before everything else.
const LIKELIEST: u16 = 1500;

/// Lost probes after which a size counts as too large (RFC 8899 §5.1.2, MAX_PROBES), on a path that loses little
/// ([`PathMtu::set_probes`]).
pub const PROBES: u32 = 3;
/// How long the first, second and third probe of a test are waited for, unless one and a half round trips are longer.
/// An answer to any of them is welcome until the last one's time is over: three times that.
const PATIENCE: [Duration; PROBES as usize] =
    [Duration::from_millis(300), Duration::from_millis(600), Duration::from_millis(1000)];
/// And no longer than this, whatever round trip a peer pretends to.
const MAX_PATIENCE: Duration = Duration::from_millis(1500);
/// The same for tests of the size in use, during which frames may be vanishing.
const CONFIRM_PATIENCE: [Duration; PROBES as usize] =
    [Duration::from_millis(200), Duration::from_millis(300), Duration::from_millis(500)];
/// The same for the further probes of a path that loses many.
const FURTHER_PATIENCE: Duration = Duration::from_millis(250);
/// How often the size in use is tested while the tunnel carries frames.
const CONFIRM_IN_USE: Duration = Duration::from_secs(1);
/// How often it is tested otherwise: what shrank meanwhile is found out when it is used, and a full-size probe to every
/// neighbour is not cheap.
const CONFIRM_IDLE: Duration = Duration::from_secs(60);
/// How long frames may vanish on a path in use that shrank, its round trip being below 100 ms and nothing else being
/// lost: the pause, the rest of a test that is under way, and the test that finds out.
pub const DETECTION: Duration = Duration::from_millis(1000 + (300 + 600 + 1000) + (200 + 300 + 500));
/// When a larger size is first tried again; it doubles …
const FIRST_RAISE: Duration = Duration::from_secs(15);
/// … up to PMTU_RAISE_TIMER (RFC 8899 §5.1.1).
const LAST_RAISE: Duration = Duration::from_secs(600);
/// The first pause between pings to a peer that answers nothing; it doubles …
const FIRST_PING: Duration = Duration::from_secs(1);
/// … up to this.
const LAST_PING: Duration = Duration::from_secs(60);
/// How often the round trip of a path with a configured MTU is measured.
const PING_CONFIGURED: Duration = Duration::from_secs(15);
/// The largest token.
pub const MAX_TOKEN: u64 = 0x7fff_ffff;
/// Probes whose answers are still welcome: all of one test and its pings, and a late one.
const MAX_SENT: usize = 40;

/// A probe to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The size its underlay packet must have.
    pub size: u16,
    /// What the answer will carry.
    pub token: u64,
}

/// Where an MTU comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// From the configuration.
    Configured,
    /// A probe of that size was answered.
    Probed,
    /// The peer answered no probe: it is the base.
    Assumed,
    /// It is what the members that relay, or the stream, can carry.
    Given,
}

/// See the head of this file.
#[derive(Debug)]
pub struct PathMtu {
    configured: Option<u16>,
    /// The size in use.
    mtu: u16,
    /// The largest size that ever passed: the likeliest when everything is to be found out again.
    known: u16,
    /// The smallest size found not to pass in this search; above [`CEILING`] when there is none.
    too_large: u16,
    state: State,
    /// A search is not at its end, though it may be interrupted by a test of the size in use.
    searching: bool,
    /// A ping goes out beside the probe just sent.
    ping: bool,
    sent: VecDeque<Sent>,
    next_token: u64,
    /// Lost probes that make a size too large.
    probes: u32,
    /// When any probe was last answered in this session.
    heard: Option<Duration>,
    /// Smoothed (RFC 6298 §2).
    round_trip: Option<Duration>,
    /// When a probe of the size in use was last answered.
    confirmed: Duration,
    /// When the tunnel last carried frames.
    used: Duration,
    raise_due: Duration,
    raise_pause: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No session.
    Off,
    /// Finding out whether `size` passes: the size in use, or a larger one.
    Test { size: u16, began: Duration, lost: u32, due: Duration },
    /// Nothing to find out until a timer says so.
    Settled,
    /// Nothing is answered, or the MTU is configured: a ping now and then.
    Ping { due: Duration, pause: Duration },
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    probe: Probe,
    at: Duration,
}

impl PathMtu {
    /// A path without a session; with the MTU of the configuration, if that has one.
    pub fn new(configured: Option<u16>) -> Self {
        Self {
            configured,
            mtu: configured.unwrap_or(BASE),
            known: LIKELIEST,
            too_large: u16::MAX,
            state: State::Off,
            searching: false,
            ping: false,
            sent: VecDeque::new(),
            next_token: 1,
            probes: PROBES,
            heard: None,
            round_trip: None,
            confirmed: Duration::ZERO,
            used: Duration::ZERO,
            raise_due: Duration::MAX,
            raise_pause: FIRST_RAISE,
        }
    }

    /// A session is up, or goes this way from here on: what was known of the path is tested first, and not relied on.
    pub fn start(&mut self, now: Duration) {
        self.heard = None;
        self.round_trip = None;
        if self.configured.is_some() {
            self.sent.clear();
            self.state = State::Ping { due: now, pause: PING_CONFIGURED };
        } else {
            self.fall_back(now);
            self.search(now);
        }
    }

    /// The session is gone, or goes another way.
    pub fn stop(&mut self) {
        self.state = State::Off;
        self.ping = false;
        self.sent.clear();
    }

    /// How many probes in a row this path loses only once in a blue moon. At least [`PROBES`].
    pub fn set_probes(&mut self, probes: u32) {
        self.probes = probes.clamp(PROBES, MAX_SENT as u32 / 2);
    }

    /// The tunnel carries frames: the path is watched more closely.
    pub fn used(&mut self, now: Duration) {
        self.used = now;
    }

    /// The next probe to send, if one is due. To be called until there is none.
    pub fn poll(&mut self, now: Duration) -> Option<Probe> {
        if self.ping && !matches!(self.state, State::Off) {
            self.ping = false;
            return Some(self.send(now, BASE.min(self.mtu)));
        }
        loop {
            match self.state {
                State::Off => return None,
                State::Ping { due, .. } if now < due => return None,
                State::Ping { pause, .. } => {
                    self.state = State::Ping { due: now + pause, pause: (pause * 2).min(LAST_PING) };
                    return Some(self.send(now, BASE.min(self.mtu)));
                }
                State::Settled if now >= self.confirm_due() => self.test(now, self.mtu),
                State::Settled if now >= self.raise_due => self.raise(now),
                State::Settled => return None,
                State::Test { due, .. } if now < due => return None,
                State::Test { size, began, lost, .. } if lost >= self.probes => self.give_up(now, size, began),
                State::Test { size, began, lost, .. } => {
                    let patience = self.round_trip.unwrap_or_default() * 3 / 2;
                    let least = if size == self.mtu { CONFIRM_PATIENCE } else { PATIENCE };
                    let least = least.get(lost as usize).copied().unwrap_or(FURTHER_PATIENCE);
                    let due = now + patience.clamp(least, MAX_PATIENCE);
                    self.state = State::Test { size, began, lost: lost + 1, due };
                    self.ping = size > BASE && (lost > 0 || self.heard.is_none());
                    return Some(self.send(now, size));
                }
            }
        }
    }

    /// A probe was answered. Returns its round-trip time, or nothing if no such probe is out. Tokens can be guessed: a
    /// member that answers what did not arrive harms only what is sent to itself, and keeps our kernel from asking for the neighbour
    /// on the way there, which it asked for once.
    pub fn acked(&mut self, now: Duration, token: u64) -> Option<Duration> {
        let at = self.sent.iter().position(|sent| sent.probe.token == token)?;
        let Sent { probe: Probe { size, .. }, at } = self.sent.remove(at)?;
        let round_trip = now.saturating_sub(at);
        self.round_trip = Some(self.round_trip.map_or(round_trip, |smooth| (smooth * 7 + round_trip) / 8));
        self.heard = Some(now);
        if self.configured.is_some() {
            self.state = State::Ping { due: now + PING_CONFIGURED, pause: PING_CONFIGURED };
            return Some(round_trip);
        }
        if size >= self.mtu {
            self.confirmed = now;
        }
        if size >= self.too_large {
            self.too_large = u16::MAX;
        }
        match self.state {
            _ if size > self.mtu => {
                self.mtu = size;
                self.known = size;
                self.search(now);
            }
            State::Test { size: tested, .. } if size >= tested && self.searching => self.search(now),
            State::Test { size: tested, .. } if size >= tested => self.state = State::Settled,
            // Silence is over, and what the path is like after it is anybody's guess.
            State::Ping { .. } if self.mtu == BASE => self.search(now),
            State::Ping { .. } => self.test(now, self.mtu),
            _ => {}
        }
        Some(round_trip)
    }

    /// Something else proves that the path works: what is unknown of it is found out without waiting.
    pub fn wake(&mut self, now: Duration) {
        if matches!(self.state, State::Ping { .. }) && self.configured.is_none() {
            self.heard = Some(now);
            if self.mtu == BASE { self.search(now) } else { self.test(now, self.mtu) }
        }
    }

    /// The kernel refused to send a packet of `size` because the interface does not carry it (EMSGSIZE).
    pub fn too_big(&mut self, now: Duration, size: u16) {
        if self.configured.is_some() || size <= BASE {
            return;
        }
        let in_use = size <= self.mtu;
        if in_use {
            self.fall_back(now);
        }
        self.too_large = self.too_large.min(size);
        match self.state {
            State::Settled if in_use => self.search(now),
            State::Test { size: tested, .. } if in_use || size <= tested => self.search(now),
            _ => {}
        }
    }

    /// The size in use: what the underlay packet of a tunnel datagram may have.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// What [`PathMtu::mtu`] will be if the test of the likeliest size succeeds that a search begins with, while that is
    /// open. A TCP connection settles its segment size when it begins, and the first ones begin before the answer.
    pub fn expected(&self) -> u16 {
        match self.state {
            State::Off if self.configured.is_none() => LIKELIEST.max(self.mtu),
            State::Test { size: LIKELIEST, .. } => LIKELIEST,
            _ => self.mtu,
        }
    }

    /// Where [`PathMtu::mtu`] comes from.
    pub fn basis(&self) -> Basis {
        match (self.configured, self.heard) {
            (Some(_), _) => Basis::Configured,
            (None, Some(_)) => Basis::Probed,
            (None, None) => Basis::Assumed,
        }
    }

    /// The smoothed round-trip time, once a probe of this session was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// When [`PathMtu::poll`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.state {
            State::Off => None,
            _ if self.ping => Some(Duration::ZERO),
            State::Test { due, .. } | State::Ping { due, .. } => Some(due),
            State::Settled => Some(self.confirm_due().min(self.raise_due)),
        }
    }

    fn confirm_due(&self) -> Duration {
        self.confirmed + if self.used >= self.confirmed { CONFIRM_IN_USE } else { CONFIRM_IDLE }
    }

    fn send(&mut self, now: Duration, size: u16) -> Probe {
        let probe = Probe { size, token: self.next_token };
        self.next_token = self.next_token.wrapping_add(1) & MAX_TOKEN;
        if self.sent.len() == MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { probe, at: now });
        probe
    }

    fn test(&mut self, now: Duration, size: u16) {
        self.ping = false;
        self.state = State::Test { size, began: now, lost: 0, due: now };
    }

    /// The base, and nothing known above it; what was sent before says nothing about the path as it is.
    fn fall_back(&mut self, now: Duration) {
        self.mtu = BASE;
        self.too_large = u16::MAX;
        self.sent.clear();
        self.confirmed = now;
        self.raise_pause = FIRST_RAISE;
    }

    /// Tests the next size of a search, or ends it.
    fn search(&mut self, now: Duration) {
        self.searching = true;
        if self.mtu > BASE && now >= self.confirm_due() {
            return self.test(now, self.mtu);
        }
        let open = || CANDIDATES.into_iter().filter(|&size| size > self.mtu && size < self.too_large);
        let likely =
            [self.known, LIKELIEST, CEILING].into_iter().find(|&size| open().any(|candidate| candidate == size));
        if let Some(size) = likely.or_else(|| open().nth(open().count() / 2)) {
            return self.test(now, size);
        }
        self.searching = false;
        self.state = State::Settled;
        self.ping = false;
        self.raise_due = now + self.raise_pause;
        self.raise_pause = (self.raise_pause * 2).min(LAST_RAISE);
    }

    /// Tries the next larger size again; if it passes, the search goes on from there.
    fn raise(&mut self, now: Duration) {
        self.too_large = u16::MAX;
        match CANDIDATES.into_iter().find(|&size| size > self.mtu) {
            Some(size) => self.test(now, size),
            None => self.raise_due = Duration::MAX,
        }
    }

    /// All probes of a test are lost.
    fn give_up(&mut self, now: Duration, size: u16, began: Duration) {
        let answered = self.heard.is_some_and(|heard| heard >= began);
        if size <= self.mtu {
            // Also when nothing is answered at all: then falling back costs nothing, as no frame passes either.
            self.fall_back(now);
            if answered {
                self.known = LIKELIEST;
            }
        } else if answered {
            self.too_large = self.too_large.min(size);
        }
        if answered {
            self.search(now);
        } else {
            self.ping = false;
            self.state = State::Ping { due: now, pause: FIRST_PING };
        }
    }
}
