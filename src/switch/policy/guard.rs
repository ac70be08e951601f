//! The source guard: a port's frames come from whom they say (RFC 2827, RFC 7513 for containers).
//!
//! A [`Guard`] holds what control knows of the port: its MAC address, its IP addresses, and what it was allowed besides. Of a
//! port with addresses, frames come from its MAC address and packets from its addresses; of one without (a container that
//! asks DHCP, a bridge with machines behind it) nothing is known that could be held against it. No port, whether guarded
//! or not, takes the MAC address of a station that is known elsewhere: the FDB has it pinned. And none takes an address that is
//! known to be another's.
//!
//! | passes always                         | because                                                                      |
//! |---------------------------------------|------------------------------------------------------------------------------|
//! | source 0.0.0.0, ::                    | probes (RFC 5227), duplicate address detection, DHCP clients, IGMP            |
//! | source 169.254.0.0/16, fe80::/10      | hosts give themselves such addresses                                          |
//! | a family of which the port has none   | IPv6 that was made up from a router's prefix                                  |

use crate::switch::counters::Drop;
use crate::wire::ethernet::{Frame, Mac};
use crate::wire::packet::{
    Claim, Content, ICMP, Packet, REDIRECT, REDIRECT_V4, ROUTER_ADVERTISEMENT, ROUTER_ADVERTISEMENT_V4, Transport,
};
use std::net::IpAddr;

/// Where DHCP clients listen (RFC 2131 §4.1, RFC 8415 §7.2): only servers send there.
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;

/// What a port may say of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// The only MAC address its frames come from; `None` is any that is not known elsewhere.
    pub mac: Option<Mac>,
    /// Whether IP addresses, DHCP and routers are looked at, too.
    pub full: bool,
    /// The addresses it may use, of a family of which there is any here; of another family all that are not known to be
    /// another's.
    pub addresses: Box<[IpAddr]>,
    /// It may answer DHCP clients.
    pub dhcp_server: bool,
    /// It may say that it is a router.
    pub router: bool,
    /// Its packets may come from any address: it forwards for others.
    pub any_source: bool,
}

impl Guard {
    /// Whether a frame may leave its port. `owner` knows whose an IP address is.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(
        &self,
        frame: &Frame<'_>,
        content: &Content,
        owner: impl Fn(IpAddr) -> Option<Mac>,
    ) -> Result<(), Drop> {
        let source = frame.source();
        if self.mac.is_some_and(|mac| mac != source) {
            return Err(Drop::ForeignMac);
        }
        match content {
            Content::Arp(claim) => self.claims(source, claim, owner),
            Content::Ip(packet) => {
                if self.full {
                    self.check_packet(source, packet, &owner)?;
                }
                match packet.transport {
                    Transport::Neighbour { claim, .. } => self.claims(source, &claim, owner),
                    _ => Ok(()),
                }
            }
            // It may be the ARP or neighbour discovery that is not to be.
            Content::Unreadable => Err(Drop::Unreadable),
            Content::Other => Ok(()),
        }
    }

    /// Whether a packet is of those that its port may send at all, and from there.
    fn check_packet(&self, source: Mac, packet: &Packet, owner: impl Fn(IpAddr) -> Option<Mac>) -> Result<(), Drop> {
        match packet.transport {
            Transport::Udp { destination, .. } if !self.dhcp_server => {
                let client = if packet.source.is_ipv4() { DHCP_CLIENT } else { DHCPV6_CLIENT };
                if destination == client {
                    return Err(Drop::RogueDhcp);
                }
            }
            Transport::Neighbour { kind: ROUTER_ADVERTISEMENT | REDIRECT, .. } if !self.router => {
                return Err(Drop::RogueRouter);
            }
            Transport::Icmp { kind: REDIRECT_V4 | ROUTER_ADVERTISEMENT_V4 }
                if packet.protocol == ICMP && !self.router =>
            {
                return Err(Drop::RogueRouter);
            }
            _ => {}
        }
        let right = self.any_source
            || match self.may_use(packet.source) {
                Some(known) => known,
                None => owner(packet.source).is_none_or(|owner| owner == source),
            };
        if right { Ok(()) } else { Err(Drop::SpoofedAddress) }
    }

    /// Whether it may use an address; `None` if nothing is known of its family.
    #[inline]
    fn may_use(&self, address: IpAddr) -> Option<bool> {
        if self.addresses.contains(&address) || is_anybodys(address) {
            return Some(true);
        }
        self.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4()).then_some(false)
    }

    /// Whether it may say that `claim`'s addresses belong together.
    fn claims(&self, source: Mac, claim: &Claim, owner: impl Fn(IpAddr) -> Option<Mac>) -> Result<(), Drop> {
        let right = claim.mac.is_none_or(|mac| mac == source)
            && (!self.full
                || match self.may_use(claim.address) {
                    Some(known) if !self.any_source => known,
                    Some(true) => true,
                    _ => owner(claim.address).is_none_or(|owner| owner == source),
                });
        if right { Ok(()) } else { Err(Drop::SpoofedAddress) }
    }
}

/// Addresses that nobody has alone.
fn is_anybodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unspecified() || address.is_unicast_link_local(),
    }
}
