//! Conntrack entries that lead nowhere any more, by netlink (linux/netfilter/nfnetlink_conntrack.h).
//!
//! Rules decide where the first packet of a connection goes; conntrack remembers it for the others. A client that goes on sending UDP keeps the
//! entry alive, and so would send to a dead instance, or past a rule that was made after its first packet, for ever. So whenever
//! rules change, the entries of published ports are looked through, and those that lead to no instance are forgotten: the next packet
//! is a first one. A TCP connection to a dead instance gets a reset from another and ends, instead of hanging.

use super::message::{self, DUMP, IPV4, IPV6};
use crate::control::nat::{Forward, Proto};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_GET`, `IPCTNL_MSG_CT_DELETE`.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;

/// An entry: its protocol, whom the client meant, who answers, and the first tuple as the kernel wrote it.
struct Entry {
    family: u8,
    proto: u8,
    meant: SocketAddr,
    answers: SocketAddr,
    tuple: Vec<u8>,
}

/// Forgets the entries of these ports of this host that lead to none of the ports' instances. `ours` are the host's addresses.
///
/// # Errors
/// The kernel's: it has no conntrack by netlink, or we may not.
pub fn forget_strays(forwards: &[&Forward], ours: &[IpAddr]) -> io::Result<usize> {
    if forwards.is_empty() {
        return Ok(0);
    }
    let mut strays = Vec::new();
    for family in [IPV4, IPV6] {
        super::ask(
            SUBSYSTEM << 8 | GET,
            DUMP,
            family,
            |_| {},
            |answer| {
                let entry = read(answer.family(), answer.attributes());
                strays.extend(entry.filter(|entry| is_stray(entry, forwards, ours)));
            },
        )?;
    }
    for stray in &strays {
        let fill = |to: &mut message::Attributes| to.nest(ORIGINAL, |to| to.raw(&stray.tuple));
        match super::ask(SUBSYSTEM << 8 | DELETE, message::ACK, stray.family, fill, |_| {}) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(strays.len())
}

fn is_stray(entry: &Entry, forwards: &[&Forward], ours: &[IpAddr]) -> bool {
    let is_of = |forward: &&&Forward| {
        let proto = match forward.proto {
            Proto::Tcp => libc::IPPROTO_TCP,
            Proto::Udp => libc::IPPROTO_UDP,
        };
        let meant = entry.meant.ip();
        let is_at = |ip: IpAddr| ip == meant || ip.is_unspecified() && ip.is_ipv4() == meant.is_ipv4();
        (i32::from(entry.proto), entry.meant.port()) == (proto, forward.host_port)
            && forward.host_ip.is_none_or(is_at)
            && (ours.contains(&meant) || meant.is_loopback())
    };
    forwards.iter().find(is_of).is_some_and(|forward| !forward.known.contains(&entry.answers))
}

fn read(family: u8, attributes: &[u8]) -> Option<Entry> {
    let tuple = message::attribute(attributes, ORIGINAL)?;
    let (proto, _, meant) = ends(tuple)?;
    let (_, answers, _) = ends(message::attribute(attributes, REPLY)?)?;
    Some(Entry { family, proto, meant, answers, tuple: tuple.to_vec() })
}

/// Protocol, source and destination of a tuple.
fn ends(tuple: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (ip, proto) = (message::attribute(tuple, 1)?, message::attribute(tuple, 2)?);
    let address = |v4: u16, v6: u16| -> Option<IpAddr> {
        let v4 = message::attribute(ip, v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let v6 = message::attribute(ip, v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        v4.map(IpAddr::from).or_else(|| v6.map(IpAddr::from))
    };
    let port =
        |kind: u16| message::attribute(proto, kind).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    let number = *message::attribute(proto, 1)?.first()?;
    let source = SocketAddr::new(address(1, 3)?, port(2)?);
    Some((number, source, SocketAddr::new(address(2, 4)?, port(3)?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use message::Messages;

    /// A tuple as the kernel writes one.
    fn tuple(to: &mut message::Attributes, kind: u16, source: &str, destination: &str) {
        let (source, destination): (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        to.nest(kind, |to| {
            to.nest(1, |to| {
                for (kind, address) in [(1, source), (2, destination)] {
                    match address.ip() {
                        IpAddr::V4(ip) => to.bytes(kind, &ip.octets()),
                        IpAddr::V6(ip) => to.bytes(kind + 2, &ip.octets()),
                    }
                }
            });
            to.nest(2, |to| {
                to.bytes(1, &[17]);
                to.bytes(2, &source.port().to_be_bytes());
                to.bytes(3, &destination.port().to_be_bytes());
            });
        });
    }

    fn entry(meant: &str, answers: &str) -> Entry {
        let mut messages = Messages::default();
        let client = if meant.starts_with('[') { "[2001:db8::9]:4000" } else { "192.0.2.9:4000" };
        messages.add(0x100, 0, IPV4, 0, |to| {
            tuple(to, ORIGINAL, client, meant);
            tuple(to, REPLY, answers, client);
        });
        let bytes = messages.into_bytes();
        let answer = message::answers(&bytes).next().unwrap();
        read(answer.family(), answer.attributes()).unwrap()
    }

    #[test]
    fn an_entry_of_a_published_port_that_leads_to_no_instance_is_stray() {
        let known = vec!["10.32.0.5:53".parse().unwrap(), "[fd00:32::5]:53".parse().unwrap()];
        let forward = Forward { proto: Proto::Udp, host_ip: None, host_port: 5353, targets: Vec::new(), known };
        let ours: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        for (meant, answers, stray) in [
            ("192.0.2.1:5353", "10.32.0.6:53", true),
            ("127.0.0.1:5353", "10.32.0.6:53", true),
            ("192.0.2.1:5353", "192.0.2.1:5353", true),
            ("192.0.2.1:5353", "10.32.0.5:53", false),
            ("192.0.2.1:5354", "10.32.0.6:53", false),
            // Somebody else's port of the same number.
            ("198.51.100.7:5353", "198.51.100.7:5353", false),
            ("[2001:db8::1]:5353", "[fd00:32::6]:53", true),
            ("[2001:db8::1]:5353", "[fd00:32::5]:53", false),
        ] {
            assert_eq!(is_stray(&entry(meant, answers), &[&forward], &ours), stray, "{meant} {answers}");
        }
        let tcp = Forward { proto: Proto::Tcp, ..forward.clone() };
        let elsewhere = Forward { host_ip: Some("192.0.2.2".parse().unwrap()), ..forward };
        for other in [tcp, elsewhere] {
            assert!(!is_stray(&entry("192.0.2.1:5353", "10.32.0.6:53"), &[&other], &ours));
        }
    }

    /// As CNI publishes for a container with an address of each family.
    #[test]
    fn a_port_at_all_addresses_of_one_family_is_no_port_of_the_other() {
        let publication = |ip: &str, instance: &str| {
            let (host_ip, known) = (Some(ip.parse().unwrap()), vec![instance.parse().unwrap()]);
            Forward { proto: Proto::Udp, host_ip, host_port: 5353, targets: Vec::new(), known }
        };
        let (v4, v6) = (publication("0.0.0.0", "10.32.0.5:53"), publication("::", "[fd00:32::5]:53"));
        let ours: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        for (meant, answers, stray) in [
            ("192.0.2.1:5353", "10.32.0.5:53", false),
            ("192.0.2.1:5353", "10.32.0.6:53", true),
            ("[2001:db8::1]:5353", "[fd00:32::5]:53", false),
            ("[2001:db8::1]:5353", "[fd00:32::6]:53", true),
        ] {
            for both in [[&v4, &v6], [&v6, &v4]] {
                assert_eq!(is_stray(&entry(meant, answers), &both, &ours), stray, "{meant} {answers}");
            }
        }
    }

    #[test]
    fn what_is_no_connection_is_no_entry() {
        assert!(read(IPV4, &[]).is_none() && read(IPV4, &[8, 0, 1, 0x80, 4, 0, 1, 0]).is_none());
    }
}
