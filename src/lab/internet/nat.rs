//! A network address and port translator as RFC 4787 describes it, as a value.
//!
//! ```text
//!   inside 192.168.1.2:51820 ──► mapping ──► outside 198.51.100.1:51820 ──► remote 192.0.2.1:51820
//!                                  │
//!    mapping behaviour: which remotes share a mapping        filtering behaviour: who may answer through it
//! ```
//!
//! Both behaviours are one question: how much of the remote is looked at ([`Behaviour::of`]). Endpoint-independent
//! mapping and filtering is what people call a full cone, address-and-port-dependent mapping a symmetric NAT. Only
//! what goes out keeps a mapping and a permission alive (RFC 4787 REQ-6 asks for no more), so that a peer that relies
//! on what comes in loses its way here as it would at a strict router.
//!
//! TCP and ICMP echo are translated by the same table, with the timeouts of RFC 5382 and RFC 5508; nothing follows
//! TCP's states, a mapping ends by its timeout alone.

use crate::lab::link::Random;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Mappings at once: of a small router's order, and more than any test of ours opens. One more is refused.
pub const MAX_MAPPINGS: usize = 4096;
/// Remotes that may answer through one mapping. The one that was sent to longest ago gives way.
pub const MAX_PERMITTED: usize = 1024;
/// How long a TCP mapping lives after the last packet went out (RFC 5382 REQ-5).
const TCP_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// The same for ICMP echo (RFC 5508 REQ-2).
const ECHO_TIMEOUT: Duration = Duration::from_secs(60);
/// Tries of a port by chance before the table counts as full.
const PORT_TRIES: usize = 200;
/// Below it ports are for servers: no mapping is given one by chance.
const FIRST_PORT: u16 = 1024;

/// How much of a remote a NAT looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Behaviour {
    /// Nothing: every remote is like every other.
    #[default]
    EndpointIndependent,
    /// Its address.
    AddressDependent,
    /// Its address and port.
    AddressAndPortDependent,
}

impl Behaviour {
    /// What it sees of `remote`; two remotes of which it sees the same are one to it.
    fn of(self, remote: SocketAddrV4) -> SocketAddrV4 {
        match self {
            Self::EndpointIndependent => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
            Self::AddressDependent => SocketAddrV4::new(*remote.ip(), 0),
            Self::AddressAndPortDependent => remote,
        }
    }
}

/// Which port a new mapping gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ports {
    /// The port inside, while nobody else has it; by chance otherwise.
    #[default]
    Preserved,
    /// One by chance.
    Random,
}

/// What a NAT does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NatSettings {
    /// Which remotes share a mapping.
    pub mapping: Behaviour,
    /// Who may answer through one.
    pub filtering: Behaviour,
    /// Whether hosts behind it reach each other by its public address.
    pub hairpin: bool,
    /// Which port a new mapping gets.
    pub ports: Ports,
    /// How long a UDP mapping lives after the last datagram went out.
    pub udp_timeout: Duration,
}

impl Default for NatSettings {
    /// A port-restricted cone, as of an ordinary home router: one mapping for all remotes, filtered by address and
    /// port, the port kept.
    fn default() -> Self {
        Self {
            mapping: Behaviour::EndpointIndependent,
            filtering: Behaviour::AddressAndPortDependent,
            hairpin: false,
            ports: Ports::Preserved,
            udp_timeout: Duration::from_secs(120),
        }
    }
}

impl NatSettings {
    /// Everybody may answer through every mapping, and one is enough for all.
    pub fn full_cone() -> Self {
        Self { filtering: Behaviour::EndpointIndependent, ..Self::default() }
    }

    /// Each remote gets a mapping of its own, by chance, through which nobody else answers. Two of these cannot be
    /// punched through.
    pub fn symmetric() -> Self {
        Self { mapping: Behaviour::AddressAndPortDependent, ports: Ports::Random, ..Self::default() }
    }
}

/// What is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// ICMP echo, of either family; its identifier stands for the port.
    Echo,
}

/// Why nothing was translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such mapping, or it is over.
    NoMapping,
    /// There is, and this remote may not use it.
    Filtered,
    /// [`MAX_MAPPINGS`] are alive, or no port was found.
    Full,
}

#[derive(Debug)]
struct Mapping {
    inside: SocketAddrV4,
    /// What the filtering behaviour sees of those that were sent to, and when last.
    permitted: BTreeMap<SocketAddrV4, Instant>,
    /// When something last went out.
    used: Instant,
}

/// A NAT with one public address.
#[derive(Debug)]
pub struct Nat {
    address: Ipv4Addr,
    settings: NatSettings,
    random: Random,
    ports: HashMap<(Protocol, u16), Mapping>,
    /// (inside, what is seen of the remote) → the port outside.
    insides: HashMap<(Protocol, SocketAddrV4, SocketAddrV4), u16>,
}

impl Nat {
    /// A NAT without a mapping.
    pub fn new(address: Ipv4Addr, settings: NatSettings, seed: u64) -> Self {
        Self { address, settings, random: Random(seed), ports: HashMap::new(), insides: HashMap::new() }
    }

    /// Its public address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What it does.
    pub fn settings(&self) -> &NatSettings {
        &self.settings
    }

    /// Mappings, those that are over and not yet met again included.
    pub fn mappings(&self) -> usize {
        self.ports.len()
    }

    /// Who the source is outside when `inside` sends to `remote`.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn outbound(
        &mut self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Result<SocketAddrV4, Refusal> {
        let timeout = self.timeout(protocol);
        let seen = self.settings.mapping.of(remote);
        let known = self.insides.get(&(protocol, inside, seen)).copied();
        let alive = known.filter(|port| {
            self.ports.get(&(protocol, *port)).is_some_and(|mapping| now.duration_since(mapping.used) < timeout)
        });
        let port = match alive {
            Some(port) => port,
            None => self.map(now, protocol, inside, seen)?,
        };
        let filter = self.settings.filtering.of(remote);
        if let Some(mapping) = self.ports.get_mut(&(protocol, port)) {
            mapping.used = now;
            if mapping.permitted.len() >= MAX_PERMITTED && !mapping.permitted.contains_key(&filter) {
                let oldest = mapping.permitted.iter().min_by_key(|(_, at)| **at).map(|(remote, _)| *remote);
                oldest.and_then(|oldest| mapping.permitted.remove(&oldest));
            }
            mapping.permitted.insert(filter, now);
        }
        Ok(SocketAddrV4::new(self.address, port))
    }

    /// Who gets what `remote` sends to `port` of the public address.
    ///
    /// # Errors
    /// [`Refusal::NoMapping`], [`Refusal::Filtered`].
    pub fn inbound(
        &self,
        now: Instant,
        protocol: Protocol,
        port: u16,
        remote: SocketAddrV4,
    ) -> Result<SocketAddrV4, Refusal> {
        let timeout = self.timeout(protocol);
        let live = |at: &Instant| now.duration_since(*at) < timeout;
        let mapping = self.ports.get(&(protocol, port)).filter(|mapping| live(&mapping.used));
        let mapping = mapping.ok_or(Refusal::NoMapping)?;
        match mapping.permitted.get(&self.settings.filtering.of(remote)) {
            Some(at) if live(at) => Ok(mapping.inside),
            _ => Err(Refusal::Filtered),
        }
    }

    fn timeout(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp => self.settings.udp_timeout,
            Protocol::Tcp => TCP_TIMEOUT,
            Protocol::Echo => ECHO_TIMEOUT,
        }
    }

    /// Makes a mapping, and forgets those that are over.
    fn map(
        &mut self,
        now: Instant,
        protocol: Protocol,
        inside: SocketAddrV4,
        seen: SocketAddrV4,
    ) -> Result<u16, Refusal> {
        let timeouts = [Protocol::Udp, Protocol::Tcp, Protocol::Echo].map(|each| (each, self.timeout(each)));
        let timeout = |of: Protocol| timeouts.iter().find(|(each, _)| *each == of).map_or(TCP_TIMEOUT, |(_, t)| *t);
        self.ports.retain(|(of, _), mapping| now.duration_since(mapping.used) < timeout(*of));
        let ports = &self.ports;
        self.insides.retain(|(of, ..), port| ports.contains_key(&(*of, *port)));
        if self.ports.len() >= MAX_MAPPINGS {
            return Err(Refusal::Full);
        }
        let port = self.free_port(protocol, inside.port()).ok_or(Refusal::Full)?;
        self.ports.insert((protocol, port), Mapping { inside, permitted: BTreeMap::new(), used: now });
        self.insides.insert((protocol, inside, seen), port);
        Ok(port)
    }

    /// A port nobody has: two mappings never share one (RFC 4787 REQ-3).
    fn free_port(&mut self, protocol: Protocol, wanted: u16) -> Option<u16> {
        if self.settings.ports == Ports::Preserved && !self.ports.contains_key(&(protocol, wanted)) {
            return Some(wanted);
        }
        let range = u64::from(u16::MAX - FIRST_PORT) + 1;
        (0..PORT_TRIES).find_map(|_| {
            let port = FIRST_PORT + (self.random.next_u64() % range) as u16;
            (port != wanted && !self.ports.contains_key(&(protocol, port))).then_some(port)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Behaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    use super::*;

    const UDP: Protocol = Protocol::Udp;
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn nat(mapping: Behaviour, filtering: Behaviour) -> (Nat, Instant) {
        let settings = NatSettings { mapping, filtering, ..Default::default() };
        (Nat::new(OUTSIDE, settings, 7), Instant::now())
    }

    #[test]
    fn each_mapping_behaviour_shares_a_mapping_among_the_remotes_it_cannot_tell_apart() {
        // Which of three remotes see the same port: one, the same address with another port, another address.
        let remotes = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"].map(at);
        for (mapping, same) in [
            (EndpointIndependent, [true, true, true]),
            (AddressDependent, [true, true, false]),
            (AddressAndPortDependent, [true, false, false]),
        ] {
            let (mut nat, now) = nat(mapping, EndpointIndependent);
            let seen = remotes.map(|remote| nat.outbound(now, UDP, at("192.168.1.2:5000"), remote).unwrap());
            assert_eq!(seen.map(|outside| outside == seen[0]), same, "{mapping:?}");
            // Each is found again.
            assert_eq!(seen, remotes.map(|remote| nat.outbound(now, UDP, at("192.168.1.2:5000"), remote).unwrap()));
        }
    }

    #[test]
    fn each_filtering_behaviour_lets_in_whom_it_cannot_tell_from_one_that_was_sent_to() {
        let remotes = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"].map(at);
        for (filtering, passes) in [
            (EndpointIndependent, [true, true, true]),
            (AddressDependent, [true, true, false]),
            (AddressAndPortDependent, [true, false, false]),
        ] {
            let (mut nat, now) = nat(EndpointIndependent, filtering);
            let inside = at("192.168.1.2:5000");
            let outside = nat.outbound(now, UDP, inside, remotes[0]).unwrap();
            for (remote, passes) in remotes.into_iter().zip(passes) {
                let expected = if passes { Ok(inside) } else { Err(Refusal::Filtered) };
                assert_eq!(nat.inbound(now, UDP, outside.port(), remote), expected, "{filtering:?} {remote}");
            }
            assert_eq!(nat.inbound(now, UDP, outside.port() + 1, remotes[0]), Err(Refusal::NoMapping));
            assert_eq!(nat.inbound(now, Protocol::Tcp, outside.port(), remotes[0]), Err(Refusal::NoMapping));
        }
    }

    #[test]
    fn a_port_is_preserved_for_the_first_and_never_shared() {
        let (mut nat, now) = nat(EndpointIndependent, EndpointIndependent);
        let remote = at("192.0.2.1:1");
        let first = nat.outbound(now, UDP, at("192.168.1.2:5000"), remote).unwrap();
        let second = nat.outbound(now, UDP, at("192.168.1.3:5000"), remote).unwrap();
        assert!(first.port() == 5000 && second.port() != 5000 && second.port() >= FIRST_PORT, "{second}");
        // Another protocol has ports of its own.
        assert_eq!(nat.outbound(now, Protocol::Tcp, at("192.168.1.3:5000"), remote).unwrap().port(), 5000);
        let settings = NatSettings { ports: Ports::Random, ..Default::default() };
        let mut random = Nat::new(OUTSIDE, settings, 7);
        assert_ne!(random.outbound(now, UDP, at("192.168.1.2:5000"), remote).unwrap().port(), 5000);
    }

    #[test]
    fn only_what_goes_out_keeps_a_mapping_alive() {
        let (mut nat, start) = nat(EndpointIndependent, AddressAndPortDependent);
        let (inside, kept, left) = (at("192.168.1.2:5000"), at("192.0.2.1:1"), at("192.0.2.2:1"));
        let port = nat.outbound(start, UDP, inside, kept).unwrap().port();
        nat.outbound(start, UDP, inside, left).unwrap();
        let half = start + nat.settings().udp_timeout / 2;
        nat.outbound(half, UDP, inside, kept).unwrap();
        let later = start + nat.settings().udp_timeout;
        assert_eq!(nat.inbound(later, UDP, port, kept), Ok(inside));
        assert_eq!(nat.inbound(later, UDP, port, left), Err(Refusal::Filtered), "its permission is over");
        let over = half + nat.settings().udp_timeout;
        assert_eq!(nat.inbound(over, UDP, port, kept), Err(Refusal::NoMapping));
        // Over UDP's time TCP is just at its beginning.
        let port = nat.outbound(start, Protocol::Tcp, inside, kept).unwrap().port();
        assert_eq!(nat.inbound(over, Protocol::Tcp, port, kept), Ok(inside));
    }

    #[test]
    fn mappings_and_permissions_are_bounded_and_those_that_are_over_make_room() {
        let (mut nat, start) = nat(AddressAndPortDependent, AddressAndPortDependent);
        let remote =
            |n: usize| SocketAddrV4::new(Ipv4Addr::from(0xc000_0200 + (n / 60_000) as u32), (n % 60_000) as u16);
        let inside = at("192.168.1.2:5000");
        for n in 0..MAX_MAPPINGS {
            nat.outbound(start, UDP, inside, remote(n)).unwrap();
        }
        assert_eq!(nat.outbound(start, UDP, inside, remote(MAX_MAPPINGS)), Err(Refusal::Full));
        let later = start + nat.settings().udp_timeout;
        nat.outbound(later, UDP, inside, remote(0)).unwrap();
        assert_eq!((nat.mappings(), nat.insides.len()), (1, 1));

        let (mut cone, _) = self::nat(EndpointIndependent, AddressAndPortDependent);
        let mut port = 0;
        for n in 0..=MAX_PERMITTED {
            let now = start + Duration::from_millis(n as u64);
            port = cone.outbound(now, UDP, inside, remote(n)).unwrap().port();
        }
        let now = start + Duration::from_secs(2);
        assert_eq!(cone.inbound(now, UDP, port, remote(0)), Err(Refusal::Filtered), "the oldest gave way");
        assert!(cone.inbound(now, UDP, port, remote(1)).is_ok());
        assert!(cone.inbound(now, UDP, port, remote(MAX_PERMITTED)).is_ok());
    }
}
