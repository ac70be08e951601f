//! Names, as a member says them of its containers and of what was added by hand.
//!
//! ```text
//!  8 name   VNI (4), kind (1), then of kind
//!           1 attachment   MAC (6), name             the attachment says the addresses
//!           2 added        name, count (1) of services, each: protocol (1), port (2), name; then addresses
//!           a name is its length (1) and those bytes
//! ```
//!
//! A name of an unknown kind is skipped.

use super::{Record, read_address, read_vni, write_address};
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::ethernet::Mac;
use crate::wire::name::is_host_name;
use crate::wire::service::{Protocol, Service};
use std::net::IpAddr;

/// Names of a member: two for each attachment it may have.
pub const MAX_NAMES: usize = 2048;
/// Bytes of all their records, a quarter of the largest document: 2,048 names of the usual length, fewer long ones.
pub const MAX_NAME_BYTES: usize = 64 * 1024;
/// Addresses of one name that was added: all of one family in a few hundred bytes, so that the record finds room in its page.
pub const MAX_ADDED: usize = 64;
/// Services of one name.
pub const MAX_SERVICES: usize = 8;

/// The record's type.
pub(super) const NAME: u8 = 8;
/// Type and length of a record.
const RECORD_HEAD: usize = 3;

/// A name in one network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The network.
    pub vni: u32,
    /// The name, in lower case, below the network's domain.
    pub name: String,
    /// What has it.
    pub of: Named,
}

/// What has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Named {
    /// The attachment with this MAC address in the network.
    Attachment(Mac),
    /// Something outside of weft, added by hand.
    Added {
        /// Its addresses, ascending, at most [`MAX_ADDED`].
        addresses: Vec<IpAddr>,
        /// What it offers, ascending, at most [`MAX_SERVICES`].
        services: Vec<Service>,
    },
}

impl Name {
    /// Whether both say something of the same.
    fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.of, &other.of) {
            (Named::Attachment(mac), Named::Attachment(other)) => mac == other,
            (Named::Added { .. }, Named::Added { .. }) => true,
            _ => false,
        };
        same && (self.vni, &self.name) == (other.vni, &other.name)
    }

    fn value(&self) -> Writer {
        let mut value = Writer::default();
        let text = |value: &mut Writer, text: &str| {
            value.u8(u8::try_from(text.len()).unwrap_or(u8::MAX)).bytes(text.as_bytes());
        };
        value.u32(self.vni);
        match &self.of {
            Named::Attachment(mac) => {
                value.u8(1).bytes(&mac.0);
                text(&mut value, &self.name);
            }
            Named::Added { addresses, services } => {
                value.u8(2);
                text(&mut value, &self.name);
                value.u8(u8::try_from(services.len()).unwrap_or(u8::MAX));
                for service in services {
                    let protocol = match service.protocol {
                        Protocol::Tcp => 6,
                        Protocol::Udp => 17,
                    };
                    value.u8(protocol).u16(service.port);
                    text(&mut value, &service.name);
                }
                addresses.iter().for_each(|address| write_address(&mut value, *address));
            }
        }
        value
    }

    /// Bytes of its record.
    pub fn record_len(&self) -> usize {
        RECORD_HEAD + self.value().0.len()
    }

    pub(super) fn record(&self) -> Record {
        let value = self.value();
        let mut name = Writer::default();
        name.u8(NAME).u32(self.vni);
        if let Named::Attachment(mac) = &self.of {
            name.bytes(&mac.0);
        }
        name.bytes(self.name.as_bytes());
        let mut bytes = Writer::default();
        bytes.u8(NAME).prefixed(&value.0);
        Record { name: name.0, bytes: bytes.0 }
    }

    /// Reads a record's value; `None` is of a kind that is not known here.
    pub(super) fn read(value: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let vni = read_vni(value)?;
        let text = |value: &mut Reader<'_>| {
            let length = value.u8()?;
            std::str::from_utf8(value.take(length.into())?).map(str::to_owned).map_err(|_| Malformed)
        };
        let (name, of) = match value.u8()? {
            1 => {
                let mac = Mac(value.array()?);
                (text(value)?, Named::Attachment(mac))
            }
            2 => {
                let (name, count) = (text(value)?, value.u8()?);
                let (mut services, mut addresses) = (Vec::new(), Vec::new());
                for _ in 0..count {
                    let (protocol, port) = (value.u8()?, value.u16()?);
                    let called = text(value)?;
                    let protocol = match protocol {
                        6 => Protocol::Tcp,
                        17 => Protocol::Udp,
                        _ => continue,
                    };
                    if services.len() < MAX_SERVICES {
                        services.push(Service::new(&called, protocol, port).map_err(|_| Malformed)?);
                    }
                }
                while !value.is_empty() && addresses.len() < MAX_ADDED {
                    addresses.push(read_address(value)?);
                }
                (name, Named::Added { addresses, services })
            }
            _ => return Ok(None),
        };
        if is_host_name(&name) { Ok(Some(Self { vni, name, of })) } else { Err(Malformed) }
    }
}

/// Puts names in order and within their limits. Returns how many there were.
pub(super) fn tidy(names: &mut Vec<Name>) -> usize {
    for name in names.iter_mut() {
        if let Named::Added { addresses, services } = &mut name.of {
            super::ascending(addresses);
            addresses.truncate(MAX_ADDED);
            super::ascending(services);
            services.truncate(MAX_SERVICES);
        }
    }
    names.retain(|name| super::is_vni(name.vni) && is_host_name(&name.name));
    super::ascending(names);
    names.dedup_by(|a, b| a.is_same(b));
    let had = names.len();
    let mut bytes = 0;
    names.truncate(MAX_NAMES);
    names.retain(|name| {
        bytes += name.record_len();
        bytes <= MAX_NAME_BYTES
    });
    had
}
