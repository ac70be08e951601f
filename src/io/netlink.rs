//! The kernel's interfaces, addresses and routes, over a synchronous rtnetlink socket (RFC 3549).
//!
//! A [`Netlink`] speaks to the namespace its socket was opened in, for ever, whichever thread uses it. Each method is
//! one request and its answer; nothing is cached and nothing is retried, except a dump that the kernel itself calls
//! inconsistent. What the kernel says about a refusal (its extended acknowledgement) is part of the error.

use super::netns::Netns;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

mod read;

/// How often a dump is asked for again when the tables change under it. Each round is a whole dump, so a machine
/// that is busier than this is told, not waited for.
const DUMP_ATTEMPTS: usize = 16;
/// The metric of a preferred IPv6 default route. Routes added by people and container engines have 1024, the
/// kernel's default; those of router advertisements too.
const PREFERRED_METRIC_V6: u32 = 512;
/// `NLMSGERR_ATTR_MSG` of linux/netlink.h: the kernel's own words about a refusal.
const ACK_TEXT: u16 = 1;
/// Length of the request's header that an acknowledgement repeats before its attributes.
const ACK_HEADER: usize = 16;

/// A request the kernel refused, or that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb}: {source}{}", .detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct NetlinkError {
    /// What was asked for: "add address 10.0.0.1/24 to interface 4".
    pub verb: String,
    /// The kernel's answer.
    pub source: io::Error,
    /// The kernel's explanation, where it gave one.
    pub detail: Option<String>,
}

impl NetlinkError {
    /// Whether the kernel answered with this errno.
    pub fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` when it is of another kind.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is switched on (`IFF_UP`).
    pub up: bool,
    /// Whether it is on and connected (`IFF_LOWER_UP`): for a TAP, that a program has it open.
    pub carrier: bool,
    /// What made it: `veth`, `tun`, `bridge`; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// The bridge it is a port of.
    pub master: Option<u32>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub index: u32,
    /// The address and its prefix length.
    pub cidr: Cidr,
    /// Whether duplicate address detection (RFC 4862 §5.4) still runs: the address cannot be used yet.
    pub tentative: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; `None` is the default route.
    pub destination: Option<Cidr>,
    /// Through whom; `None` is on the link.
    pub gateway: Option<IpAddr>,
    /// Through which interface.
    pub index: u32,
}

/// An rtnetlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

type Result<T> = std::result::Result<T, NetlinkError>;

impl Netlink {
    /// Opens a socket to the calling thread's namespace.
    ///
    /// # Errors
    /// Out of file descriptors, or the kernel has no netlink.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Both are conveniences of Linux 4.12 and later: the kernel's words, without our own request repeated.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self { socket, sequence: 0 })
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// [`NetlinkError`]; an interface that does not exist is `None`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(ask, &format!("look up interface {name}"))
    }

    /// The interface with this number.
    ///
    /// # Errors
    /// [`NetlinkError`]; an interface that does not exist is `None`.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        self.one_link(about(index), &format!("look up interface {index}"))
    }

    /// All interfaces.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), "list interfaces")?;
        Ok(answers.into_iter().filter_map(read::link).collect())
    }

    /// Makes a pair of connected interfaces, the peer in `peer_ns` if there is one. Both are down.
    ///
    /// # Errors
    /// [`NetlinkError`]: a name is taken, not permitted.
    pub fn add_veth(&mut self, name: &str, peer_name: &str, peer_ns: Option<&Netns>) -> Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(peer_name.to_owned()));
        if let Some(netns) = peer_ns {
            peer.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
        }
        self.add_link(name, InfoKind::Veth, InfoData::Veth(InfoVeth::Peer(peer)))
    }

    /// Makes a bridge, down, without spanning tree.
    ///
    /// # Errors
    /// [`NetlinkError`]: the name is taken, not permitted, no bridge module.
    pub fn add_bridge(&mut self, name: &str) -> Result<()> {
        self.add_link(name, InfoKind::Bridge, InfoData::Bridge(vec![InfoBridge::StpState(0u32.into())]))
    }

    /// Makes a VXLAN interface (RFC 7348) with one fixed remote, which needs no multicast.
    ///
    /// # Errors
    /// [`NetlinkError`]: the name is taken, not permitted, no vxlan module.
    pub fn add_vxlan(&mut self, name: &str, vni: u32, local: Ipv4Addr, remote: Ipv4Addr, port: u16) -> Result<()> {
        let data = vec![InfoVxlan::Id(vni), InfoVxlan::Local(local), InfoVxlan::Group(remote), InfoVxlan::Port(port)];
        self.add_link(name, InfoKind::Vxlan, InfoData::Vxlan(data))
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// [`NetlinkError`]: it does not exist, not permitted.
    pub fn delete(&mut self, index: u32) -> Result<()> {
        let ask = RouteNetlinkMessage::DelLink(about(index));
        self.change(ask, 0, &format!("remove interface {index}"))
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Up, &format!("bring up interface {index}"))
    }

    /// Switches an interface off.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::empty(), &format!("bring down interface {index}"))
    }

    /// Sets an interface's MTU.
    ///
    /// # Errors
    /// [`NetlinkError`]: the interface cannot have it.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        let verb = format!("set the MTU of interface {index} to {mtu}");
        self.set_link(index, vec![LinkAttribute::Mtu(mtu)], &verb)
    }

    /// Sets an interface's Ethernet address.
    ///
    /// # Errors
    /// [`NetlinkError`]: it is no unicast address, or the interface is up and cannot change it then.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<()> {
        let verb = format!("set the MAC address of interface {index} to {mac}");
        self.set_link(index, vec![LinkAttribute::Address(mac.0.to_vec())], &verb)
    }

    /// Makes an interface a port of a bridge, or of none.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        let verb = match master {
            Some(bridge) => format!("make interface {index} a port of bridge {bridge}"),
            None => format!("take interface {index} out of its bridge"),
        };
        self.set_link(index, vec![LinkAttribute::Controller(master.unwrap_or(0))], &verb)
    }

    /// Sets how many frames wait in front of an interface; for a TAP, in front of its reader.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn set_txqueuelen(&mut self, index: u32, frames: u32) -> Result<()> {
        let verb = format!("set the queue length of interface {index} to {frames}");
        self.set_link(index, vec![LinkAttribute::TxQueueLen(frames)], &verb)
    }

    /// Renames an interface in its namespace.
    ///
    /// # Errors
    /// [`NetlinkError`]: the name is taken (`EEXIST`) or not a name (`EINVAL`).
    pub fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        let verb = format!("rename interface {index} to {name}");
        self.set_link(index, vec![LinkAttribute::IfName(name.to_owned())], &verb)
    }

    /// Moves an interface into another namespace under another name, in one request: nobody there ever sees it under
    /// its old name. When the name is taken there, the interface may have moved all the same, still under its old
    /// name: the caller removes it.
    ///
    /// # Errors
    /// [`NetlinkError`]: the name is taken (`EEXIST`), not permitted in that namespace.
    pub fn move_to(&mut self, index: u32, netns: &Netns, new_name: &str) -> Result<()> {
        let verb = format!("move interface {index} into its namespace as {new_name}");
        let attributes =
            vec![LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()), LinkAttribute::IfName(new_name.to_owned())];
        self.set_link(index, attributes, &verb)
    }

    /// Adds an address. `no_dad` makes an IPv6 address usable at once, without asking the link for duplicates.
    ///
    /// # Errors
    /// [`NetlinkError`]: the interface has it (`EEXIST`), IPv6 is switched off there (`EACCES`, `EPERM`).
    pub fn add_address(&mut self, index: u32, cidr: Cidr, no_dad: bool) -> Result<()> {
        let mut ask = AddressMessage::default();
        ask.header.family = family(cidr.address);
        ask.header.prefix_len = cidr.prefix;
        ask.header.index = index;
        ask.attributes.push(AddressAttribute::Local(cidr.address));
        ask.attributes.push(AddressAttribute::Address(cidr.address));
        match cidr.address {
            IpAddr::V4(address) => {
                // A /31 or /32 has no broadcast address (RFC 3021).
                if let Some(hosts @ 2..) = 32u8.checked_sub(cidr.prefix) {
                    let last = u32::from(address) | u32::MAX >> (32 - u32::from(hosts));
                    ask.attributes.push(AddressAttribute::Broadcast(last.into()));
                }
            }
            IpAddr::V6(_) if no_dad => ask.header.flags = AddressHeaderFlags::Nodad,
            IpAddr::V6(_) => {}
        }
        let ask = RouteNetlinkMessage::NewAddress(ask);
        self.change(ask, NLM_F_CREATE | NLM_F_EXCL, &format!("add address {cidr} to interface {index}"))
    }

    /// The addresses of one interface.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>> {
        let mut all = self.all_addresses()?;
        all.retain(|address| address.index == index);
        Ok(all)
    }

    /// The addresses of all interfaces.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn all_addresses(&mut self) -> Result<Vec<Address>> {
        let answers = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), "list addresses")?;
        Ok(answers.into_iter().filter_map(read::address).collect())
    }

    /// Adds a route; `None` is the default route of the gateway's family.
    ///
    /// # Errors
    /// [`NetlinkError`]: there is such a route (`EEXIST`), the gateway is on no link (`ENETUNREACH`).
    pub fn add_route(&mut self, destination: Option<Cidr>, gateway: IpAddr, index: u32) -> Result<()> {
        self.route(destination, gateway, index, NLM_F_EXCL, None)
    }

    /// Adds a default route that is preferred to the one that may be there already. The other stays, and is in
    /// effect again when the interface goes.
    ///
    /// # Errors
    /// [`NetlinkError`]: the gateway is on no link (`ENETUNREACH`).
    pub fn add_default_route(&mut self, gateway: IpAddr, index: u32) -> Result<()> {
        // IPv4 puts the later of two equal routes first ("ip route prepend"); IPv6 would share the traffic among
        // them, so there it is the metric that decides.
        let metric = gateway.is_ipv6().then_some(PREFERRED_METRIC_V6);
        self.route(None, gateway, index, 0, metric)
    }

    /// The unicast routes of the main table, both families.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let answers = self.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()), "list routes")?;
        Ok(answers.into_iter().filter_map(read::route).collect())
    }

    fn add_link(&mut self, name: &str, kind: InfoKind, data: InfoData) -> Result<()> {
        let verb = format!("make {kind} interface {name}");
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
        ask.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
        self.change(RouteNetlinkMessage::NewLink(ask), NLM_F_CREATE | NLM_F_EXCL, &verb)
    }

    fn route(
        &mut self,
        destination: Option<Cidr>,
        gateway: IpAddr,
        index: u32,
        flags: u16,
        metric: Option<u32>,
    ) -> Result<()> {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family(gateway);
        ask.header.table = RouteHeader::RT_TABLE_MAIN;
        ask.header.protocol = RouteProtocol::Static;
        ask.header.scope = RouteScope::Universe;
        ask.header.kind = RouteType::Unicast;
        if let Some(prefix) = destination {
            ask.header.destination_prefix_length = prefix.prefix;
            ask.attributes.push(RouteAttribute::Destination(prefix.address.into()));
        }
        ask.attributes.push(RouteAttribute::Gateway(gateway.into()));
        ask.attributes.push(RouteAttribute::Oif(index));
        ask.attributes.extend(metric.map(RouteAttribute::Priority));
        let verb = match destination {
            Some(prefix) => format!("add a route to {prefix} via {gateway}"),
            None => format!("add a default route via {gateway}"),
        };
        self.change(RouteNetlinkMessage::NewRoute(ask), NLM_F_CREATE | flags, &verb)
    }

    fn set_link(&mut self, index: u32, attributes: Vec<LinkAttribute>, verb: &str) -> Result<()> {
        let mut ask = about(index);
        ask.attributes = attributes;
        self.change(RouteNetlinkMessage::NewLink(ask), 0, verb)
    }

    fn set_flags(&mut self, index: u32, flags: LinkFlags, verb: &str) -> Result<()> {
        let mut ask = about(index);
        ask.header.flags = flags;
        ask.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::NewLink(ask), 0, verb)
    }

    fn one_link(&mut self, ask: LinkMessage, verb: &str) -> Result<Option<Link>> {
        match self.ask(RouteNetlinkMessage::GetLink(ask), NLM_F_ACK, verb) {
            Ok(answer) => Ok(answer.messages.into_iter().find_map(read::link)),
            Err(error) if error.is(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn change(&mut self, ask: RouteNetlinkMessage, flags: u16, verb: &str) -> Result<()> {
        self.ask(ask, NLM_F_ACK | flags, verb).map(drop)
    }

    fn dump(&mut self, ask: RouteNetlinkMessage, verb: &str) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.ask(ask.clone(), NLM_F_DUMP, verb)?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        let source = io::Error::from_raw_os_error(libc::EINTR);
        let detail = Some("the tables change faster than they can be read".to_owned());
        Err(NetlinkError { verb: verb.to_owned(), source, detail })
    }

    /// Sends one request and collects everything up to its acknowledgement or the end of its dump.
    fn ask(&mut self, ask: RouteNetlinkMessage, flags: u16, verb: &str) -> Result<Answer> {
        let failed = |source: io::Error| NetlinkError { verb: verb.to_owned(), source, detail: None };
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(ask));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(failed)?;

        let mut answer = Answer::default();
        loop {
            let (datagram, from) = self.socket.recv_from_full().map_err(failed)?;
            if from.port_number() != 0 {
                continue; // Not the kernel's: in a container's namespace, its programs can write to this socket.
            }
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error.to_string())))?;
                let step = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(step..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue; // The tail of a request that failed half-way.
                }
                answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answer.messages.push(inner),
                    NetlinkPayload::Done(_) => return Ok(answer),
                    NetlinkPayload::Error(ack) if ack.code.is_none() => return Ok(answer),
                    NetlinkPayload::Error(refusal) => {
                        let detail = kernel_text(&refusal.header);
                        return Err(NetlinkError { verb: verb.to_owned(), source: refusal.to_io(), detail });
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What a request brought.
#[derive(Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The kernel's words in the attributes behind the repeated header of a refused request.
fn kernel_text(acknowledgement: &[u8]) -> Option<String> {
    let attributes = acknowledgement.get(ACK_HEADER..)?;
    let text =
        NlasIterator::new(attributes).filter_map(std::result::Result::ok).find(|nla| nla.kind() == ACK_TEXT)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests;
