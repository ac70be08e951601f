//! What a member says of itself, and how that is written: records of a type, a length and a value.
//!
//! [`Facts`] is the typed form. [`records`] turns it into [`Record`]s, each with a *name*: the bytes by which a record of
//! the same thing is found again when its value changes (an attachment's network and MAC address, a neighbour's key).
//! [`Facts::absorb`] reads them back out of a document's pages, in any order.
//!
//! ```text
//!  | type (1) | length (2) | value                            all numbers big-endian
//!  1 identity     tunnel address (4), capabilities (4), relay (1), name, program (each behind its length, 2)
//!  2 endpoints    each: kind (1), address, port (2); the most preferred first
//!  3 network      VNI (4)
//!  4 attachment   VNI (4), MAC (6), sequence (4), name (behind its length, 2), addresses
//!  5 group        VNI (4), address
//!  6 link         neighbour's key (32), round trip (1), loss (1): see [`Link`]
//!  7 certificate  bytes of the authority
//! 11 labels       see [`labels`]
//!  8 name         see `name`
//!  9 lease, 10 slice: see [`addresses`]
//!  an address is its length in bytes (4 or 16) and those bytes
//! ```
//!
//! Members of different ages understand each other: a record of an unknown type is skipped here, and carried on unread in
//! the page that holds it; bytes behind a known record's last field are skipped. A record that is cut short, or is one more than
//! its kind may have, is skipped and counted. It harms nobody but the one who said it.

pub mod addresses;
pub mod labels;
mod name;

pub use addresses::{LeaseFact, SliceFact};

use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use labels::{LABELS, Labels};
pub use name::{MAX_ADDED, MAX_NAME_BYTES, MAX_NAMES, MAX_SERVICES, Name, Named};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes of a name. A container's host name has at most 63 (RFC 1123 §2.1).
pub const MAX_NAME: usize = 63;
/// Endpoints of a member: a handful of interfaces, two families, and what others observed.
pub const MAX_ENDPOINTS: usize = 16;
/// Networks of a member, as many as its file may have.
pub const MAX_NETWORKS: usize = 1024;
/// Attachments of a member. Fifty times what a host of a cluster usually runs; with two addresses each they fill half of
/// the largest document.
pub const MAX_ATTACHMENTS: usize = 1024;
/// Addresses of one attachment.
pub const MAX_ADDRESSES: usize = 8;
/// Multicast groups that a member's containers listen to, all networks together.
pub const MAX_GROUPS: usize = 256;
/// Links of a member: several times as many as the ring asks for, so that the popular end of many has room.
pub const MAX_LINKS: usize = 64;
/// Bytes of a certificate.
pub const MAX_CERTIFICATE: usize = 1024;

/// Capability, beside those of a hello: holds the authority's key and issues certificates.
pub const ISSUER: u32 = 1 << 16;

const IDENTITY: u8 = 1;
const ENDPOINTS: u8 = 2;
const NETWORK: u8 = 3;
const ATTACHMENT: u8 = 4;
const GROUP: u8 = 5;
const LINK: u8 = 6;
const CERTIFICATE: u8 = 7;

/// Whether a member forwards for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relay {
    /// Never.
    No,
    /// Where its way is the best.
    #[default]
    Yes,
    /// Rather than others: it is there for that.
    Prefer,
}

/// How an endpoint came to be known to the member that announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointKind {
    /// The member's file says so.
    Configured,
    /// An address of one of its interfaces.
    Local,
    /// Others see it there: the outside of a NAT.
    Observed,
    /// Takes TCP.
    Stream,
}

/// An underlay address of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where it comes from.
    pub kind: EndpointKind,
    /// The address.
    pub address: SocketAddr,
}

/// A container's presence in a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The network.
    pub vni: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IP addresses, ascending.
    pub addresses: Vec<IpAddr>,
    /// Larger after each move (RFC 7432 §15).
    pub sequence: u32,
    /// What it is called.
    pub name: String,
}

/// One end of a live session between two neighbours, as that end measures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The other end.
    pub neighbour: PublicKey,
    /// The round trip in steps: step n is 2^(n/2) times 100 µs.
    pub round_trip: u8,
    /// The share of messages that were lost, in steps of 5 %.
    pub loss: u8,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its address inside tunnels.
    pub tunnel_address: Ipv4Addr,
    /// Its program and version.
    pub program: String,
    /// What it can do, a bit each, as in a hello.
    pub capabilities: u32,
    /// Whether it forwards for others.
    pub relay: Relay,
    /// Another one means that it was restarted.
    pub incarnation: u64,
    /// Where it can be reached, the most preferred first.
    pub endpoints: Vec<Endpoint>,
    /// VNIs of the networks it has ports in, ascending.
    pub networks: Vec<u32>,
    /// What is attached to it, ascending by network and MAC address.
    pub attachments: Vec<Attachment>,
    /// Groups that are listened to, by network, ascending.
    pub groups: Vec<(u32, IpAddr)>,
    /// Its neighbours; the membership fills this in.
    pub links: Vec<Link>,
    /// What makes it a member where an authority decides.
    pub certificate: Option<Vec<u8>>,
    /// What policies know attachments by, ascending.
    pub labels: Vec<Labels>,
    /// What its attachments are called, and what was added by hand; ascending.
    pub names: Vec<Name>,
    /// Addresses that are somebody's and that no attachment has, by network, ascending.
    pub leases: Vec<LeaseFact>,
    /// What it gives addresses from, by network, ascending.
    pub slices: Vec<SliceFact>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            name: String::new(),
            tunnel_address: Ipv4Addr::UNSPECIFIED,
            program: String::new(),
            capabilities: 0,
            relay: Relay::default(),
            incarnation: 0,
            endpoints: Vec::new(),
            networks: Vec::new(),
            attachments: Vec::new(),
            groups: Vec::new(),
            links: Vec::new(),
            certificate: None,
            labels: Vec::new(),
            names: Vec::new(),
            leases: Vec::new(),
            slices: Vec::new(),
        }
    }
}

/// A record on its way into a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its type and what tells it from others of the type.
    pub name: Vec<u8>,
    /// Type, length and value.
    pub bytes: Vec<u8>,
}

impl Facts {
    /// Puts everything in order and within its limits. Returns what had to be left out, for people; `None` if nothing.
    pub fn tidy(&mut self) -> Option<String> {
        let mut left_out = Vec::new();
        for (what, text) in [("name", &mut self.name), ("program", &mut self.program)] {
            if !is_name(text) {
                *text = text.chars().filter(|c| !c.is_control()).collect();
                text.truncate(text.floor_char_boundary(MAX_NAME));
                left_out.push(format!("a part of its {what}"));
            }
        }
        let mut limit = |what: &str, had: usize, has: usize| {
            if has < had {
                left_out.push(format!("{} of {had} {what}", had - has));
            }
        };
        limit("endpoints", self.endpoints.len(), truncated(&mut self.endpoints, MAX_ENDPOINTS));
        self.networks.retain(|vni| is_vni(*vni));
        limit("networks", ascending(&mut self.networks), truncated(&mut self.networks, MAX_NETWORKS));
        self.groups.retain(|(vni, _)| is_vni(*vni));
        limit("multicast groups", ascending(&mut self.groups), truncated(&mut self.groups, MAX_GROUPS));
        limit("links", ascending(&mut self.links), truncated(&mut self.links, MAX_LINKS));
        self.leases.retain(|lease| is_vni(lease.vni));
        self.leases.iter_mut().for_each(LeaseFact::tidy);
        ascending(&mut self.leases);
        self.leases.dedup_by_key(|lease| (lease.vni, lease.address));
        limit("leases", self.leases.len(), truncated(&mut self.leases, addresses::MAX_LEASES));
        self.slices.retain(|fact| is_vni(fact.vni));
        limit("slices", ascending(&mut self.slices), truncated(&mut self.slices, addresses::MAX_SLICES));
        for attachment in &mut self.attachments {
            ascending(&mut attachment.addresses);
            attachment.addresses.truncate(MAX_ADDRESSES);
            if !is_name(&attachment.name) {
                attachment.name.retain(|c| !c.is_control());
                attachment.name.truncate(attachment.name.floor_char_boundary(MAX_NAME));
            }
        }
        self.attachments.retain(|attachment| is_vni(attachment.vni));
        ascending(&mut self.attachments);
        self.attachments.dedup_by_key(|attachment| (attachment.vni, attachment.mac));
        limit("attachments", self.attachments.len(), truncated(&mut self.attachments, MAX_ATTACHMENTS));
        limit("labelled attachments", self.labels.len(), self.labels.len() - labels::tidy(&mut self.labels));
        limit("attachments with labels", self.labels.len(), truncated(&mut self.labels, MAX_ATTACHMENTS));
        limit("names", name::tidy(&mut self.names), self.names.len());
        if self.certificate.as_ref().is_some_and(|certificate| certificate.len() > MAX_CERTIFICATE) {
            self.certificate = None;
            left_out.push("a certificate longer than 1 KiB".to_owned());
        }
        (!left_out.is_empty()).then(|| left_out.join(", "))
    }

    /// Takes in what the records of one page say. Returns how many were skipped, unknown types not counted.
    pub fn absorb(&mut self, page: &[u8]) -> usize {
        let (mut page, mut skipped) = (Reader(page), 0);
        while !page.is_empty() {
            let (Ok(kind), Ok(value)) = (page.u8(), page.prefixed()) else { return skipped + 1 };
            skipped += usize::from(self.absorb_record(kind, Reader(value)).is_err());
        }
        skipped
    }

    /// Brings what was absorbed into the order that [`Facts`] promises. Returns how many records are too many.
    pub fn settle(&mut self) -> usize {
        let count = |facts: &Self| {
            facts.endpoints.len()
                + facts.networks.len()
                + facts.attachments.len()
                + facts.groups.len()
                + facts.links.len()
                + facts.labels.len()
                + facts.names.len()
                + facts.leases.len()
                + facts.slices.len()
        };
        let before = count(self);
        self.tidy();
        before - count(self)
    }

    fn absorb_record(&mut self, kind: u8, mut value: Reader<'_>) -> Result<(), Malformed> {
        match kind {
            IDENTITY => {
                self.tunnel_address = Ipv4Addr::from(value.array::<4>()?);
                self.capabilities = value.u32()?;
                self.relay = match value.u8()? {
                    0 => Relay::No,
                    2 => Relay::Prefer,
                    _ => Relay::Yes,
                };
                self.name = read_name(&mut value)?;
                self.program = read_name(&mut value)?;
            }
            ENDPOINTS => {
                self.endpoints.clear();
                while !value.is_empty() && self.endpoints.len() < MAX_ENDPOINTS {
                    let kind = value.u8()?;
                    let address = SocketAddr::new(read_address(&mut value)?, value.u16()?);
                    let kind = match kind {
                        1 => EndpointKind::Configured,
                        2 => EndpointKind::Local,
                        3 => EndpointKind::Observed,
                        4 => EndpointKind::Stream,
                        _ => continue,
                    };
                    self.endpoints.push(Endpoint { kind, address });
                }
            }
            NETWORK => self.networks.push(read_vni(&mut value)?),
            ATTACHMENT => {
                let (vni, mac, sequence) = (read_vni(&mut value)?, Mac(value.array()?), value.u32()?);
                let name = read_name(&mut value)?;
                let mut addresses = Vec::new();
                while !value.is_empty() && addresses.len() < MAX_ADDRESSES {
                    addresses.push(read_address(&mut value)?);
                }
                self.attachments.push(Attachment { vni, mac, addresses, sequence, name });
            }
            GROUP => self.groups.push((read_vni(&mut value)?, read_address(&mut value)?)),
            LINK => {
                let neighbour = PublicKey(value.array()?);
                self.links.push(Link { neighbour, round_trip: value.u8()?, loss: value.u8()? });
            }
            CERTIFICATE if value.0.len() <= MAX_CERTIFICATE => self.certificate = Some(value.0.to_vec()),
            CERTIFICATE => return Err(Malformed),
            LABELS => self.labels.push(Labels::read(&mut value)?),
            name::NAME => self.names.extend(Name::read(&mut value)?),
            addresses::LEASE => self.leases.push(LeaseFact::read(&mut value)?),
            addresses::SLICE => self.slices.push(SliceFact::read(&mut value)?),
            _ => {}
        }
        Ok(())
    }
}

/// The records that say all of this; the incarnation is in a document's head.
pub fn records(facts: &Facts) -> Vec<Record> {
    let mut records = Vec::new();
    let mut add = |kind: u8, name: &[u8], value: &Writer| {
        let mut bytes = Writer::default();
        bytes.u8(kind).prefixed(&value.0);
        records.push(Record { name: [&[kind], name].concat(), bytes: bytes.0 });
    };
    let mut value = Writer::default();
    let relay = match facts.relay {
        Relay::No => 0,
        Relay::Yes => 1,
        Relay::Prefer => 2,
    };
    value.bytes(&facts.tunnel_address.octets()).u32(facts.capabilities).u8(relay);
    value.prefixed(facts.name.as_bytes()).prefixed(facts.program.as_bytes());
    add(IDENTITY, &[], &value);
    let mut value = Writer::default();
    for endpoint in &facts.endpoints {
        value.u8(match endpoint.kind {
            EndpointKind::Configured => 1,
            EndpointKind::Local => 2,
            EndpointKind::Observed => 3,
            EndpointKind::Stream => 4,
        });
        write_address(&mut value, endpoint.address.ip());
        value.u16(endpoint.address.port());
    }
    add(ENDPOINTS, &[], &value);
    for vni in &facts.networks {
        let mut value = Writer::default();
        value.u32(*vni);
        add(NETWORK, &vni.to_be_bytes(), &value);
    }
    for attachment in &facts.attachments {
        let mut value = Writer::default();
        value.u32(attachment.vni).bytes(&attachment.mac.0).u32(attachment.sequence);
        value.prefixed(attachment.name.as_bytes());
        attachment.addresses.iter().for_each(|address| write_address(&mut value, *address));
        add(ATTACHMENT, &[&attachment.vni.to_be_bytes()[..], &attachment.mac.0].concat(), &value);
    }
    for (vni, group) in &facts.groups {
        let mut value = Writer::default();
        value.u32(*vni);
        write_address(&mut value, *group);
        add(GROUP, &value.0.clone(), &value);
    }
    for link in &facts.links {
        let mut value = Writer::default();
        value.bytes(&link.neighbour.0).u8(link.round_trip).u8(link.loss);
        add(LINK, &link.neighbour.0, &value);
    }
    for labels in &facts.labels {
        let (name, value) = labels.write();
        add(LABELS, &name, &value);
    }
    if let Some(certificate) = &facts.certificate {
        add(CERTIFICATE, &[], &Writer(certificate.clone()));
    }
    for (name, value) in facts.leases.iter().map(LeaseFact::written) {
        add(addresses::LEASE, &name, &value);
    }
    for value in facts.slices.iter().map(SliceFact::written) {
        add(addresses::SLICE, &value.0, &value);
    }
    records.extend(facts.names.iter().map(Name::record));
    records
}

fn is_vni(vni: u32) -> bool {
    (1..1 << 24).contains(&vni)
}

/// Names go into tables and logs: nothing in them moves a cursor.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

fn read_vni(value: &mut Reader<'_>) -> Result<u32, Malformed> {
    let vni = value.u32()?;
    if is_vni(vni) { Ok(vni) } else { Err(Malformed) }
}

fn read_name(value: &mut Reader<'_>) -> Result<String, Malformed> {
    let text = std::str::from_utf8(value.prefixed()?).map_err(|_| Malformed)?;
    if is_name(text) { Ok(text.to_owned()) } else { Err(Malformed) }
}

fn read_address(value: &mut Reader<'_>) -> Result<IpAddr, Malformed> {
    match value.u8()? {
        4 => value.array::<4>().map(IpAddr::from),
        16 => value.array::<16>().map(IpAddr::from),
        _ => Err(Malformed),
    }
}

fn write_address(value: &mut Writer, address: IpAddr) {
    match address {
        IpAddr::V4(address) => value.u8(4).bytes(&address.octets()),
        IpAddr::V6(address) => value.u8(16).bytes(&address.octets()),
    };
}

/// Sorts and removes what is there twice; returns how many are left.
pub fn ascending<T: Ord>(items: &mut Vec<T>) -> usize {
    items.sort();
    items.dedup();
    items.len()
}

/// Cuts off what is beyond the limit; returns how many are left.
fn truncated<T>(items: &mut Vec<T>, limit: usize) -> usize {
    items.truncate(limit);
    items.len()
}

#[cfg(test)]
mod tests;
