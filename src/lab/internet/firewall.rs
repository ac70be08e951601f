//! A stateful packet filter, as a value: who may begin to talk, and to which ports.
//!
//! A *flow* is two endpoints and a protocol, and belongs to the side that began it. Its *service port* is the
//! destination of its first packet. Each packet is judged by the rules in force: UDP that is blocked while a flow is
//! alive stops, and goes on when it is allowed again, if its memory has lasted that long.

use super::nat::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Flows remembered at once. One more from inside takes the place of the oldest.
pub const MAX_FLOWS: usize = 4096;
/// How long a flow of datagrams is remembered after its last packet: conntrack's time for one that was answered.
const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a connection is.
const TCP_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

/// Which service ports of a protocol pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Allowed {
    /// All.
    #[default]
    All,
    /// These.
    Only(BTreeSet<u16>),
    /// None.
    Nothing,
}

impl Allowed {
    fn has(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(ports) => ports.contains(&port),
            Self::Nothing => false,
        }
    }
}

/// What a firewall does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FirewallSettings {
    /// Whether only answers come in: nobody outside may begin.
    pub closed: bool,
    /// Which UDP passes, both ways.
    pub udp: Allowed,
    /// Which TCP passes, both ways.
    pub tcp: Allowed,
}

impl FirewallSettings {
    /// Lets nothing in but answers.
    pub fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }

    /// Lets nothing in but answers, and no UDP at all.
    pub fn without_udp() -> Self {
        Self { closed: true, udp: Allowed::Nothing, ..Self::default() }
    }
}

/// Who sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A host behind the firewall.
    Inside,
    /// Anybody else.
    Outside,
}

/// A packet, as the firewall sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Who sends it.
    pub from: From,
    /// Of what kind it is.
    pub protocol: Protocol,
    /// The endpoint inside.
    pub inside: SocketAddr,
    /// The endpoint outside.
    pub outside: SocketAddr,
}

#[derive(Debug)]
struct Flow {
    begun_by: From,
    used: Instant,
}

/// A firewall with its memory.
#[derive(Debug, Default)]
pub struct Firewall {
    settings: FirewallSettings,
    flows: HashMap<(Protocol, SocketAddr, SocketAddr), Flow>,
}

impl Firewall {
    /// A firewall that remembers nothing.
    pub fn new(settings: FirewallSettings) -> Self {
        Self { settings, flows: HashMap::new() }
    }

    /// Changes the rules; flows are remembered.
    pub fn set(&mut self, settings: FirewallSettings) {
        self.settings = settings;
    }

    /// What it does.
    pub fn settings(&self) -> &FirewallSettings {
        &self.settings
    }

    /// Whether what is no flow (fragments, other protocols) passes: only where there is nothing to be judged.
    pub fn is_open(&self) -> bool {
        self.settings == FirewallSettings::default()
    }

    /// Whether the packet passes, and remembers its flow.
    pub fn passes(&mut self, now: Instant, packet: Passage) -> bool {
        let Passage { from, protocol, inside, outside } = packet;
        let key = (protocol, inside, outside);
        let lives = |flow: &&Flow| now.duration_since(flow.used) < timeout(protocol);
        let known = self.flows.get(&key).filter(lives).map(|flow| flow.begun_by);
        // A host inside that goes on talking makes a flow its own that nobody outside may begin any more.
        let begun_by = [known, Some(from)].into_iter().flatten().find(|&begun_by| self.allows(begun_by, packet));
        let Some(begun_by) = begun_by else { return false };
        self.remember(now, key, begun_by);
        true
    }

    /// Whether this side may have begun the flow of a packet.
    fn allows(&self, begun_by: From, packet: Passage) -> bool {
        let service = match begun_by {
            From::Inside => packet.outside.port(),
            From::Outside if self.settings.closed => return false,
            From::Outside => packet.inside.port(),
        };
        match packet.protocol {
            Protocol::Udp => self.settings.udp.has(service),
            Protocol::Tcp => self.settings.tcp.has(service),
            Protocol::Echo => true,
        }
    }

    fn remember(&mut self, now: Instant, key: (Protocol, SocketAddr, SocketAddr), begun_by: From) {
        if let Some(flow) = self.flows.get_mut(&key) {
            *flow = Flow { begun_by, used: now };
            return;
        }
        if self.flows.len() >= MAX_FLOWS {
            self.flows.retain(|(protocol, ..), flow| now.duration_since(flow.used) < timeout(*protocol));
        }
        if self.flows.len() >= MAX_FLOWS {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.flows.remove(&oldest));
        }
        self.flows.insert(key, Flow { begun_by, used: now });
    }
}

fn timeout(protocol: Protocol) -> Duration {
    if protocol == Protocol::Tcp { TCP_TIMEOUT } else { DATAGRAM_TIMEOUT }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn packet(from: From, protocol: Protocol, inside: &str, outside: &str) -> Passage {
        Passage { from, protocol, inside: inside.parse().unwrap(), outside: outside.parse().unwrap() }
    }

    const HERE: &str = "[2001:db8:0:1::1]:5000";
    const THERE: &str = "[2001:db8:0:2::1]:53";

    #[test]
    fn a_closed_firewall_lets_only_answers_in_and_not_for_ever() {
        let (mut wall, start) = (Firewall::new(FirewallSettings::closed()), Instant::now());
        for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Echo] {
            assert!(!wall.passes(start, packet(From::Outside, protocol, HERE, THERE)));
            assert!(wall.passes(start, packet(From::Inside, protocol, HERE, THERE)));
            assert!(wall.passes(start, packet(From::Outside, protocol, HERE, THERE)));
            assert!(!wall.passes(start, packet(From::Outside, protocol, HERE, "[2001:db8:0:2::1]:54")));
        }
        let later = start + DATAGRAM_TIMEOUT;
        assert!(!wall.passes(later, packet(From::Outside, Protocol::Udp, HERE, THERE)));
        assert!(wall.passes(later, packet(From::Outside, Protocol::Tcp, HERE, THERE)));
    }

    #[test]
    fn a_protocol_that_is_blocked_stops_at_once_and_goes_on_when_it_is_allowed_again() {
        let (mut wall, now) = (Firewall::default(), Instant::now());
        let both = [From::Inside, From::Outside].map(|from| packet(from, Protocol::Udp, HERE, THERE));
        assert!(wall.is_open() && both.iter().all(|&packet| wall.passes(now, packet)));
        wall.set(FirewallSettings::without_udp());
        assert!(!wall.is_open() && both.iter().all(|&packet| !wall.passes(now, packet)));
        assert!(wall.passes(now, packet(From::Inside, Protocol::Tcp, HERE, THERE)));
        // Who began is remembered: the answer passes before anything else was said.
        wall.set(FirewallSettings::closed());
        assert!(wall.passes(now, both[1]));
    }

    #[test]
    fn only_the_service_port_of_a_flow_counts() {
        let udp = Allowed::Only([53].into());
        let (mut wall, now) = (Firewall::new(FirewallSettings { udp, ..Default::default() }), Instant::now());
        assert!(wall.passes(now, packet(From::Inside, Protocol::Udp, HERE, THERE)));
        assert!(wall.passes(now, packet(From::Outside, Protocol::Udp, HERE, THERE)));
        assert!(!wall.passes(now, packet(From::Inside, Protocol::Udp, HERE, "[2001:db8:0:2::1]:54")));
        // Who comes from port 53 does not come to port 53.
        assert!(!wall.passes(now, packet(From::Outside, Protocol::Udp, "[2001:db8:0:1::1]:5001", THERE)));
        assert!(wall.passes(now, packet(From::Outside, Protocol::Udp, "[2001:db8:0:1::1]:53", THERE)));
    }

    #[test]
    fn a_flow_begun_outside_before_the_firewall_closed_is_taken_over_from_inside() {
        let (mut wall, now) = (Firewall::default(), Instant::now());
        let incoming = packet(From::Outside, Protocol::Tcp, HERE, THERE);
        assert!(wall.passes(now, incoming));
        wall.set(FirewallSettings::closed());
        assert!(!wall.passes(now, incoming));
        assert!(wall.passes(now, Passage { from: From::Inside, ..incoming }));
        assert!(wall.passes(now, incoming));
    }

    #[test]
    fn its_memory_is_bounded() {
        let (mut wall, start) = (Firewall::new(FirewallSettings::closed()), Instant::now());
        let there = |n: usize| format!("[2001:db8:0:2::{:x}]:53", n + 1);
        for n in 0..=MAX_FLOWS {
            let now = start + Duration::from_millis(n as u64);
            assert!(wall.passes(now, packet(From::Inside, Protocol::Udp, HERE, &there(n))));
        }
        assert_eq!(wall.flows.len(), MAX_FLOWS);
        let now = start + Duration::from_secs(10);
        assert!(!wall.passes(now, packet(From::Outside, Protocol::Udp, HERE, &there(0))));
        assert!(wall.passes(now, packet(From::Outside, Protocol::Udp, HERE, &there(1))));
    }
}
