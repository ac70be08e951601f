//! The service address: where this member answers for a network itself, as every other member does for its own ports.
//!
//! A network has at most one address of each family that belongs to no container but to the switch, on every host the same, behind
//! [`Mac::service`]. What a container sends there is answered on its own host: it works without a process on the host, in a
//! network that leads nowhere else, and while every other member is away. Who answers is not the switch but whoever takes what
//! [`Egress::serve`] is given; here is decided what gets there.
//!
//! | a frame of a port                                   | what becomes of it                                            |
//! |------------------------------------------------------|----------------------------------------------------------------|
//! | asks for the MAC address of a service address       | answered by the switch, also where nothing is suppressed      |
//! | to the service MAC, for a service address           | served                                                        |
//! | to the service MAC, for any other IP address        | to the network's egress port, if it has one; else `no_egress`, and some are served, so that senders are told |
//! | the same of an isolated port, for the own subnets   | `isolated`: the host would send it back in, from a port that reaches everybody |
//! | to the service MAC, no IP                           | `service_refused`                                             |
//! | from the service MAC or a service address           | `service_claimed`; a claim by ARP is told that it is taken    |
//! | which of these it is cannot be read                 | `unreadable`, where the network has a guard or rules          |
//!
//! A frame of a peer is never served, and none pretends to come from the service address: a member that could answer for
//! another's containers could send them anywhere.
//!
//! The service MAC is in no FDB: it is compared with, so that nobody can learn it, pin it or make it age.

use super::counters::Drop;
use super::ids::PortId;
use super::outbound::tell;
use super::policy::Passage;
use super::topology::{Network, Port, Topology};
use super::{Egress, Switch};
use crate::wire::ethernet::{Frame, HEADER_LEN, IPV4, IPV6, Mac};
use crate::wire::neighbour::question;
use crate::wire::packet::{Content, Transport};
use crate::wire::vnet::VnetHeader;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Senders that are told in a second that there is no way out: enough for people to see why, and nothing for who floods.
const COMPLAINTS_PER_SECOND: u32 = 64;

/// Where packets have their destination.
const V4_DESTINATION: usize = 16;
const V6_DESTINATION: usize = 24;

/// The service addresses of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Service {
    /// Of IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Service {
    /// Whether there is one.
    pub fn is_any(&self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }

    /// Whether this is one.
    pub fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => self.v6 == Some(address),
        }
    }

    /// Whether a frame says that one of them is its sender's.
    fn is_said_by(&self, content: &Content) -> bool {
        match content {
            Content::Arp(claim) => self.has(claim.address),
            Content::Ip(packet) => {
                let claims =
                    matches!(packet.transport, Transport::Neighbour { claim, .. } if self.has(claim.address));
                claims || self.has(packet.source)
            }
            Content::Other | Content::Unreadable => false,
        }
    }
}

impl FromIterator<IpAddr> for Service {
    /// The first address of each family.
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        addresses.into_iter().fold(Self::default(), |service, address| match address {
            IpAddr::V4(v4) => Self { v4: service.v4.or(Some(v4)), ..service },
            IpAddr::V6(v6) => Self { v6: service.v6.or(Some(v6)), ..service },
        })
    }
}

fn v4_at(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    packet.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

fn v6_at(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    packet.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

/// Where an untagged frame's IP packet is going.
pub fn ip_destination(frame: &[u8]) -> Option<IpAddr> {
    let frame = Frame::parse(frame).ok().filter(|frame| frame.payload_offset() == HEADER_LEN)?;
    match frame.ethertype() {
        IPV4 => v4_at(frame.payload(), V4_DESTINATION).map(IpAddr::V4),
        IPV6 => v6_at(frame.payload(), V6_DESTINATION).map(IpAddr::V6),
        _ => None,
    }
}

/// What is in a frame, as far as its network has anything to ask of it: it is read once for all who do.
#[inline]
pub(super) fn content(network: &Network, frame: &Frame<'_>) -> Content {
    match network.policy.is_some() || network.service.is_any() {
        true => Content::of(frame),
        false => Content::Other,
    }
}

/// Whether a frame pretends to come from the service address of its network.
pub(super) fn is_claim(network: &Network, source: Mac, content: &Content) -> bool {
    source == Mac::service(network.vni) || network.service.is_said_by(content)
}

/// Whether it can be told of a frame that it does not claim the service address. Where containers are trusted with anything, any
/// Ethernet passes.
pub(super) fn check_readable(network: &Network, content: &Content) -> Result<(), Drop> {
    match content {
        Content::Unreadable if network.service.is_any() && network.policy.is_some() => Err(Drop::Unreadable),
        _ => Ok(()),
    }
}

/// Whether a peer's frame is neither from the service address nor for it.
pub(super) fn check_peer(network: &Network, frame: &Frame<'_>, content: &Content) -> Result<(), Drop> {
    if is_claim(network, frame.source(), content) {
        return Err(Drop::ServiceClaimed);
    }
    if frame.destination() == Mac::service(network.vni) {
        return Err(Drop::ServiceRefused);
    }
    check_readable(network, content)
}

impl Switch {
    /// A port's frame claims the service address: it goes nowhere, and an ARP announcement hears whose it is (RFC 5227 §2.4).
    pub(super) fn refuse_claim(&self, network: &Network, port: &Port, frame: &[u8], out: &mut impl Egress) -> Drop {
        let mac = Mac::service(network.vni);
        let taken = question(frame).filter(|question| question.asker != mac && network.service.has(question.target));
        if let Some(answer) = taken.and_then(|question| question.answer_of_router(mac)) {
            tell(&self.counters, port, answer.bytes(), out);
        }
        Drop::ServiceClaimed
    }

    /// A port's frame is for the service MAC. It comes back unchanged.
    #[expect(clippy::too_many_arguments, reason = "the frame and everything it meets")]
    pub(super) fn serve(
        &self,
        second: u32,
        topology: &Topology,
        network: &Network,
        port: &Port,
        passage: Option<&Passage<'_>>,
        header: VnetHeader,
        frame: &mut [u8],
        out: &mut impl Egress,
    ) -> Result<(), Drop> {
        let destination = ip_destination(frame).ok_or(Drop::ServiceRefused)?;
        if network.service.has(destination) {
            return if out.serve(port, header, frame) { Ok(()) } else { Err(Drop::ServiceQueueFull) };
        }
        if let Some(passage) = passage {
            passage.through_host()?;
        }
        let Some(exit) = topology.exit(network.vni).filter(|exit| exit.id != port.id) else {
            if network.service.is_any() && self.complaints.take(second, COMPLAINTS_PER_SECOND) {
                // One that there is no room for is counted as what it is anyway.
                out.serve(port, header, frame);
            }
            return Err(Drop::NoEgress);
        };
        frame[..6].copy_from_slice(&exit.mac.0);
        out.deliver(exit.id, &[IoSlice::new(&header.to_bytes()), IoSlice::new(frame)]);
        frame[..6].copy_from_slice(&Mac::service(network.vni).0);
        Ok(())
    }

    /// Hands a port a frame that its network's service address answers.
    pub fn reply(&self, port: PortId, frame: &[u8], out: &mut impl Egress) {
        self.counters.told_frames.add(1);
        out.deliver(port, &[IoSlice::new(&VnetHeader::default().to_bytes()), IoSlice::new(frame)]);
    }
}
