//! Names as text, in lower case with dots between labels, and on the wire; and addresses as names.

use crate::wire::cidr::Cidr;
use domain::base::name::{Name, ToLabelIter};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest name on the wire, and longer than any as text (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;
/// Stands for every byte that no name of ours has.
const FOREIGN: u8 = b'?';

/// A name as it is looked up. Names of ours have letters, digits, `-` and `_`; other bytes of a question are all alike here.
pub(super) struct Text {
    bytes: [u8; MAX_NAME],
    length: usize,
}

impl Text {
    pub(super) fn of(name: &impl ToLabelIter) -> Self {
        let mut text = Self { bytes: [0; MAX_NAME], length: 0 };
        for label in name.iter_labels().filter(|label| !label.is_root()) {
            if text.length > 0 {
                text.push(b'.');
            }
            for byte in label.iter() {
                let is_ours = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                text.push(if is_ours { byte.to_ascii_lowercase() } else { FOREIGN });
            }
        }
        text
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    pub(super) fn as_str(&self) -> &str {
        // It is ASCII throughout.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// What of a name is below a domain: nothing where it is the domain itself; `None` where it is elsewhere.
pub(super) fn below<'t>(name: &'t str, domain: &str) -> Option<&'t str> {
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
}

/// How many labels a name has.
pub(super) fn labels(name: &str) -> usize {
    if name.is_empty() { 0 } else { name.split('.').count() }
}

/// A name on the wire.
pub(super) struct Wire {
    bytes: [u8; MAX_NAME],
    length: usize,
}

impl Wire {
    /// The name with these texts one behind the other, or `None` if that is none.
    pub(super) fn of(texts: &[&str]) -> Option<Self> {
        let mut wire = Self { bytes: [0; MAX_NAME], length: 0 };
        for label in texts.iter().filter(|text| !text.is_empty()).flat_map(|text| text.split('.')) {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
            let end = wire.length + 1 + label.len();
            // The root's empty label comes behind all.
            let place = wire.bytes.get_mut(wire.length..end).filter(|_| end < MAX_NAME)?;
            let (first, rest) = place.split_first_mut()?;
            *first = length;
            rest.copy_from_slice(label.as_bytes());
            wire.length = end;
        }
        wire.length += 1;
        Some(wire)
    }

    pub(super) fn name(&self) -> &Name<[u8]> {
        Name::from_slice(&self.bytes[..self.length]).unwrap_or_else(|_| Name::root_slice())
    }
}

/// A name below `in-addr.arpa` or `ip6.arpa`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reverse {
    /// The address, or how much of it the name has.
    pub(super) part: Cidr,
    /// The name has more labels than an address.
    pub(super) is_longer: bool,
}

impl Reverse {
    /// Reads such a name (RFC 1035 §3.5, RFC 3596 §2.5).
    pub(super) fn of(text: &str) -> Option<Self> {
        if let Some(rest) = below(text, "in-addr.arpa") {
            let (mut octets, mut known) = ([0; 4], 0);
            let mut labels = rest.rsplit('.').filter(|label| !label.is_empty());
            for (place, label) in octets.iter_mut().zip(&mut labels) {
                *place = label.parse().ok().filter(|octet: &u8| octet.to_string() == label)?;
                known += 8;
            }
            let part = Cidr { address: Ipv4Addr::from(octets).into(), prefix: known };
            return Some(Self { part, is_longer: labels.next().is_some() });
        }
        let rest = below(text, "ip6.arpa")?;
        let (mut bits, mut known) = (0_u128, 0);
        let mut labels = rest.rsplit('.').filter(|label| !label.is_empty());
        for (label, at) in (&mut labels).take(32).zip(1..) {
            let nibble = u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
            bits |= nibble << (128 - 4 * at);
            known += 4;
        }
        let part = Cidr { address: Ipv6Addr::from(bits).into(), prefix: known };
        Some(Self { part, is_longer: labels.next().is_some() })
    }

    /// Whether all of it is in a prefix.
    pub(super) fn is_inside(&self, subnet: &Cidr) -> bool {
        subnet.prefix <= self.part.prefix && subnet.contains(self.part.address)
    }

    /// Whether it is one whole address.
    pub(super) fn is_address(&self) -> bool {
        self.part.prefix == if self.part.address.is_ipv4() { 32 } else { 128 }
    }
}
