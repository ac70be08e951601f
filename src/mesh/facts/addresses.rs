//! Addresses that a member gives: its slices, and what it has leased that no attachment has.
//!
//! ```text
//!  9 lease        VNI (4), address, holder (behind its length, 2; the first 63 bytes of it)
//!  10 slice       VNI (4), prefix length (1), address
//! ```

use super::{MAX_NAME, is_name, read_address, read_name, read_vni, write_address};
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::cidr::Cidr;
use std::net::IpAddr;

/// The type of a lease.
pub(super) const LEASE: u8 = 9;
/// The type of a slice.
pub(super) const SLICE: u8 = 10;
/// Leases that a member tells of. Most are attachments, which are told as such; what is left is reserved by an engine for the
/// moment, or kept for a container that restarts. With the longest holders they fill a sixth of the largest document.
pub const MAX_LEASES: usize = 512;
/// Slices that a member tells of: as many as a certificate has, and as many again for each of a few networks of its file.
pub const MAX_SLICES: usize = 256;

/// An address that is somebody's, and that no attachment has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseFact {
    /// The network.
    pub vni: u32,
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub holder: String,
}

/// A part of a network's range that the member gives addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceFact {
    /// The network.
    pub vni: u32,
    /// The part.
    pub slice: Cidr,
}

impl LeaseFact {
    pub(super) fn read(value: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { vni: read_vni(value)?, address: read_address(value)?, holder: read_name(value)? })
    }

    /// What tells it from others, and its value.
    pub(super) fn written(&self) -> (Vec<u8>, Writer) {
        let mut value = Writer::default();
        value.u32(self.vni);
        write_address(&mut value, self.address);
        let name = value.0.clone();
        value.prefixed(self.holder.as_bytes());
        (name, value)
    }

    pub(super) fn tidy(&mut self) {
        if !is_name(&self.holder) {
            self.holder.retain(|c| !c.is_control());
            self.holder.truncate(self.holder.floor_char_boundary(MAX_NAME));
        }
    }
}

impl SliceFact {
    pub(super) fn read(value: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (vni, prefix, address) = (read_vni(value)?, value.u8()?, read_address(value)?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        if prefix > most { Err(Malformed) } else { Ok(Self { vni, slice: Cidr { address, prefix } }) }
    }

    /// Its value, which is what tells it from others too.
    pub(super) fn written(&self) -> Writer {
        let mut value = Writer::default();
        value.u32(self.vni).u8(self.slice.prefix);
        write_address(&mut value, self.slice.address);
        value
    }
}
