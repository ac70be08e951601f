//! Ethernet II frames (IEEE 802.3) without FCS, VLAN tags (802.1Q, 802.1ad) carried untouched.
//!
//! A [`Frame`] is a view over bytes that were checked once; its accessors cannot panic.

use super::Malformed;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Destination, source and EtherType.
pub const HEADER_LEN: usize = 14;
/// One 802.1Q tag.
pub const TAG_LEN: usize = 4;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of a customer VLAN tag (802.1Q).
pub const VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// A MAC address (EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// A locally administered unicast address made of 46 given random bits (IEEE 802 §8.2).
    pub fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] & 0xfc) | 0x02;
        Self(octets)
    }

    /// Where every member answers for the network with this VNI itself: the same address on all hosts, so that a container
    /// finds it wherever it is started. Its middle octets are "wf".
    pub const fn service(vni: u32) -> Self {
        let [_, a, b, c] = vni.to_be_bytes();
        Self([0x0a, 0x77, 0x66, a, b, c])
    }

    /// Broadcast or multicast: the I/G bit is set.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// 01-80-C2-00-00-00 to -0F, which a bridge must not forward (802.1Q table 8-1).
    pub fn is_reserved(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && self.0[5] <= 0x0f
    }

    /// 00:00:00:00:00:00, which no station may use.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address: write six hexadecimal octets, like 02:42:0a:20:00:05")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or(NotAMac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(NotAMac);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| NotAMac)?;
        }
        if parts.next().is_some() { Err(NotAMac) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = NotAMac;
    fn try_from(text: String) -> Result<Self, NotAMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// A frame whose Ethernet header and VLAN tags are known to be complete.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    payload: usize,
}

impl<'a> Frame<'a> {
    /// Checks the Ethernet header and up to two VLAN tags (a third is payload to us).
    ///
    /// # Errors
    /// [`Malformed`] when the header or a tag is cut short.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN {
            return Err(Malformed);
        }
        let mut payload = HEADER_LEN;
        for _ in 0..2 {
            match u16::from_be_bytes([bytes[payload - 2], bytes[payload - 1]]) {
                VLAN | SERVICE_VLAN if bytes.len() < payload + TAG_LEN => return Err(Malformed),
                VLAN | SERVICE_VLAN => payload += TAG_LEN,
                _ => break,
            }
        }
        Ok(Self { bytes, payload })
    }

    /// Where the frame is going.
    #[inline]
    pub fn destination(&self) -> Mac {
        let b = self.bytes;
        Mac([b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Mac {
        let b = self.bytes;
        Mac([b[6], b[7], b[8], b[9], b[10], b[11]])
    }

    /// The EtherType behind any VLAN tags.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        u16::from_be_bytes([self.bytes[self.payload - 2], self.bytes[self.payload - 1]])
    }

    /// Offset of what follows the header and tags: 14, 18 or 22.
    #[inline]
    pub fn payload_offset(&self) -> usize {
        self.payload
    }

    /// What follows the header and tags.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload..]
    }

    /// The whole frame.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mac_is_read_as_it_is_written() {
        let mac: Mac = "02:42:0A:20:00:05".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:20:00:05");
        assert_eq!("02-42-0a-20-00-05".parse::<Mac>().unwrap(), mac);
        for wrong in ["", "02:42:0a:20:00", "02:42:0a:20:00:05:06", "2:42:0a:20:00:05", "+2:42:0a:20:00:05"] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reserved_addresses_are_the_sixteen_of_the_standard() {
        assert!("01:80:c2:00:00:00".parse::<Mac>().unwrap().is_reserved());
        assert!("01:80:c2:00:00:0f".parse::<Mac>().unwrap().is_reserved());
        assert!(!"01:80:c2:00:00:10".parse::<Mac>().unwrap().is_reserved());
    }

    #[test]
    fn tags_are_looked_through_and_never_past_the_end() {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend([0x88, 0xa8, 0, 1, 0x81, 0x00, 0, 2, 0x08, 0x00, 0x45]);
        let view = Frame::parse(&frame).unwrap();
        assert_eq!((view.ethertype(), view.payload_offset()), (IPV4, 22));
        for cut in 0..22 {
            let cut = &frame[..cut];
            assert!(Frame::parse(cut).is_err(), "{}", cut.len());
        }
    }
}
