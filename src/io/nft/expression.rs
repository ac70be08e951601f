//! What a rule of nf_tables is made of: small machine instructions on registers, as attributes.
//!
//! A rule runs its expressions from left to right; a comparison that fails ends it. Loads put what they find into a register,
//! numbers of packets in the network's byte order and of the kernel's own in the machine's. Names and numbers are those of
//! linux/netfilter/nf_tables.h.

use super::message::Attributes;
use crate::control::nat::Proto;
use crate::wire::cidr::Cidr;
use std::net::IpAddr;

/// Two of the 16-byte registers.
const REGISTER: u32 = 1;
const SECOND: u32 = 2;
/// The register of verdicts.
const VERDICT: u32 = 0;
/// What interface names are padded to.
const IFNAMSIZ: usize = 16;

/// Comparisons.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// Keys of `meta`.
const META_IN: u32 = 6;
const META_OUT: u32 = 7;
const META_FAMILY: u32 = 15;
const META_L4: u32 = 16;

/// A rule in the making.
#[derive(Debug, Default)]
pub(super) struct Rule {
    expressions: Attributes,
}

/// Which interface of a packet is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The one it came by.
    In,
    /// The one it leaves by.
    Out,
}

impl Rule {
    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(1, |to| {
            to.text(1, name);
            to.nest(2, fill);
        });
        self
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |to| {
            to.number(1, REGISTER);
            to.number(2, operator);
            to.nest(3, |to| to.bytes(1, value));
        })
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", |to| {
            to.number(2, key);
            to.number(1, REGISTER);
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.expression("payload", |to| {
            to.number(1, REGISTER);
            to.number(2, base);
            to.number(3, offset);
            to.number(4, length);
        })
    }

    fn masked(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or_default();
        let zero = vec![0; mask.len()];
        self.expression("bitwise", |to| {
            to.number(1, REGISTER);
            to.number(2, REGISTER);
            to.number(3, length);
            to.nest(4, |to| to.bytes(1, mask));
            to.nest(5, |to| to.bytes(1, &zero));
        })
    }

    fn interface(self, way: Way, operator: u32, name: &[u8]) -> Self {
        self.meta(if way == Way::In { META_IN } else { META_OUT }).compare(operator, name)
    }

    /// The packet comes or leaves by this interface.
    pub(super) fn by(self, way: Way, ifname: &str) -> Self {
        self.interface(way, EQUAL, &padded(ifname))
    }

    /// It does not.
    pub(super) fn not_by(self, way: Way, ifname: &str) -> Self {
        self.interface(way, NOT_EQUAL, &padded(ifname))
    }

    /// The packet is IPv4, or IPv6.
    pub(super) fn of_v4(self, v4: bool) -> Self {
        self.meta(META_FAMILY).compare(EQUAL, &[if v4 { super::message::IPV4 } else { super::message::IPV6 }])
    }

    /// The packet is of this protocol and for this port. The destination port is in the same place of both.
    pub(super) fn for_port(self, proto: Proto, port: u16) -> Self {
        let protocol = match proto {
            Proto::Tcp => libc::IPPROTO_TCP,
            Proto::Udp => libc::IPPROTO_UDP,
        };
        let protocol = u8::try_from(protocol).unwrap_or_default();
        self.meta(META_L4).compare(EQUAL, &[protocol]).payload(2, 2, 2).compare(EQUAL, &port.to_be_bytes())
    }

    /// The packet comes from this prefix.
    pub(super) fn from(self, prefix: Cidr) -> Self {
        let offset = if prefix.address.is_ipv4() { 12 } else { 8 };
        self.in_prefix(offset, prefix)
    }

    /// The packet is for this prefix.
    pub(super) fn to(self, prefix: Cidr) -> Self {
        let offset = if prefix.address.is_ipv4() { 16 } else { 24 };
        self.in_prefix(offset, prefix)
    }

    fn in_prefix(self, offset: u32, prefix: Cidr) -> Self {
        let (bits, mask) = octets(prefix);
        let length = u32::try_from(bits.len()).unwrap_or_default();
        let rule = self.of_v4(prefix.address.is_ipv4()).payload(1, offset, length);
        if mask.iter().all(|&byte| byte == 0xff) {
            return rule.compare(EQUAL, &bits);
        }
        rule.masked(&mask).compare(EQUAL, &bits)
    }

    /// The packet is for an address of this host (`fib daddr type local`).
    pub(super) fn for_us(self) -> Self {
        let fib = self.expression("fib", |to| {
            to.number(1, REGISTER);
            to.number(2, 3);
            to.number(3, 2);
        });
        fib.compare(EQUAL, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Conntrack has one of these bits of the packet's connection.
    fn connection(self, key: u32, bits: u32) -> Self {
        let loaded = self.expression("ct", |to| {
            to.number(2, key);
            to.number(1, REGISTER);
        });
        loaded.masked(&bits.to_ne_bytes()).compare(NOT_EQUAL, &[0; 4])
    }

    /// The connection's destination was changed (`ct status dnat`).
    pub(super) fn forwarded(self) -> Self {
        const STATUS: u32 = 2;
        const DNAT: u32 = 1 << 5;
        self.connection(STATUS, DNAT)
    }

    /// The packet is of a connection that there is, or an error about one (`ct state established,related`).
    pub(super) fn answers(self) -> Self {
        const STATE: u32 = 0;
        const ESTABLISHED: u32 = 1 << 1;
        const RELATED: u32 = 1 << 2;
        self.connection(STATE, ESTABLISHED | RELATED)
    }

    /// It is the turn of this rule: of every `of` packets that come here one goes on.
    pub(super) fn every(self, of: u32) -> Self {
        let counted = self.expression("numgen", |to| {
            to.number(1, REGISTER);
            to.number(2, of);
            to.number(3, 0);
            to.number(4, 0);
        });
        counted.compare(EQUAL, &[0; 4])
    }

    fn load(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |to| {
            to.number(1, register);
            to.nest(2, |to| to.bytes(1, value));
        })
    }

    /// The packet's destination, and that of its connection, becomes this one.
    pub(super) fn forward(self, to: std::net::SocketAddr) -> Self {
        let (address, _) = octets(Cidr { address: to.ip(), prefix: if to.is_ipv4() { 32 } else { 128 } });
        let family = if to.is_ipv4() { super::message::IPV4 } else { super::message::IPV6 };
        self.load(REGISTER, &address).load(SECOND, &to.port().to_be_bytes()).expression("nat", |to| {
            to.number(1, 1);
            to.number(2, u32::from(family));
            to.number(3, REGISTER);
            to.number(5, SECOND);
        })
    }

    /// The connection's source becomes the address of the interface that it leaves by.
    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.expression("immediate", |to| {
            to.number(1, VERDICT);
            to.nest(2, |to| {
                to.nest(2, |to| {
                    to.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        to.text(2, chain);
                    }
                });
            });
        })
    }

    /// The packet is dropped.
    pub(super) fn drop(self) -> Self {
        self.verdict(0, None)
    }

    /// The packet goes on to whatever comes behind this chain.
    pub(super) fn accept(self) -> Self {
        self.verdict(1, None)
    }

    /// The rules of another chain are asked, and then the next of this one.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(-3, Some(chain))
    }

    /// All of it.
    pub(super) fn expressions(&self) -> &Attributes {
        &self.expressions
    }
}

fn padded(ifname: &str) -> [u8; IFNAMSIZ] {
    let mut padded = [0; IFNAMSIZ];
    for (to, from) in padded.iter_mut().zip(ifname.bytes()) {
        *to = from;
    }
    padded
}

/// A prefix's bits without those of the host, and its mask.
fn octets(prefix: Cidr) -> (Vec<u8>, Vec<u8>) {
    match prefix.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.prefix)).unwrap_or(0);
            ((u32::from(address) & mask).to_be_bytes().to_vec(), mask.to_be_bytes().to_vec())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.prefix)).unwrap_or(0);
            ((u128::from(address) & mask).to_be_bytes().to_vec(), mask.to_be_bytes().to_vec())
        }
    }
}
