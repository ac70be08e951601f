//! The virtio-net header in front of every frame a TAP reads or writes (virtio 1.x §5.1.6).
//!
//! It says what the sender left undone: an L4 checksum that is only begun ([`PartialChecksum`]) and a super-frame
//! that is still to be cut ([`Gso`]). A container with `CAP_NET_RAW` can write any header, so nothing here is
//! believed before it was held against the frame; `hdr_len` is never believed at all.
//!
//! ```text
//!  0       1          2          4          6            8             10
//! | flags | gso_type | hdr_len  | gso_size | csum_start | csum_offset |     legacy layout: the host's byte order
//! ```

use super::Malformed;

/// Length of the header as TAPs use it without `IFF_VNET_HDR` extensions (`TUNSETVNETHDRSZ` 10).
pub const LEN: usize = 10;
/// `flags`: the checksum at `csum_start + csum_offset` is partial.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum was verified by the sender's device.
pub const DATA_VALID: u8 = 2;
/// `gso_type`: one ordinary frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: a TCP super-frame over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: IP fragmentation of one large datagram (UFO), which no TAP of ours enables.
pub const GSO_UDP: u8 = 3;
/// `gso_type`: a TCP super-frame over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: a UDP super-frame, many datagrams of `gso_size` (USO, Linux 6.2).
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type` bit: a TCP super-frame whose first segment alone may carry CWR.
pub const GSO_ECN: u8 = 0x80;

/// The header. The default promises nothing: one ordinary frame, complete checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` constants, [`GSO_ECN`] possibly added.
    pub gso_type: u8,
    /// Bytes of headers before the payload: a hint, not to be trusted.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where summing starts: the L4 header, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum field is, in bytes from `csum_start`.
    pub csum_offset: u16,
}

/// What kind of super-frame a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// None: one frame.
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

/// A checksum that is only begun: the field holds the folded, non-inverted sum of the pseudo-header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where summing starts (the L4 header), in bytes from the start of the Ethernet frame.
    pub start: u16,
    /// Where the field is, in bytes from `start`: 16 for TCP, 6 for UDP.
    pub offset: u16,
}

/// Offset of the checksum field in a TCP header (RFC 9293 §3.1).
pub const TCP_CHECKSUM: u16 = 16;
/// Offset of the checksum field in a UDP header (RFC 768).
pub const UDP_CHECKSUM: u16 = 6;

impl VnetHeader {
    /// Reads the ten bytes. Every value is a header; whether it fits its frame is seen later.
    pub fn parse(bytes: &[u8; LEN]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        }
    }

    /// The header of one ordinary frame whose checksum is `partial`, or complete.
    pub fn single(partial: Option<PartialChecksum>) -> Self {
        partial.map_or_else(Self::default, |partial| Self {
            flags: NEEDS_CSUM,
            csum_start: partial.start,
            csum_offset: partial.offset,
            ..Self::default()
        })
    }

    /// The ten bytes.
    pub fn to_bytes(self) -> [u8; LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// Whether the frame's L4 checksum is partial.
    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// The partial checksum, if it is one.
    pub fn partial(&self) -> Option<PartialChecksum> {
        self.needs_checksum().then_some(PartialChecksum { start: self.csum_start, offset: self.csum_offset })
    }

    /// What kind of super-frame it is.
    ///
    /// # Errors
    /// [`Malformed`] for types that do not exist or that we never enabled (UFO), and for ECN without TCP.
    pub fn gso(&self) -> Result<Gso, Malformed> {
        match (self.gso_type & !GSO_ECN, self.gso_type & GSO_ECN != 0) {
            (GSO_NONE, false) => Ok(Gso::None),
            (GSO_TCPV4, _) => Ok(Gso::Tcp4),
            (GSO_TCPV6, _) => Ok(Gso::Tcp6),
            (GSO_UDP_L4, false) => Ok(Gso::Udp),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_the_legacy_one_of_virtio() {
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 66,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        #[cfg(target_endian = "little")]
        assert_eq!(header.to_bytes(), [1, 0x81, 66, 0, 0xa8, 0x05, 34, 0, 16, 0]);
        assert_eq!(VnetHeader::parse(&header.to_bytes()), header);
        assert_eq!(VnetHeader::parse(&[0; LEN]), VnetHeader::default());
    }

    #[test]
    fn only_the_types_we_enable_are_super_frames() {
        let gso = |gso_type| VnetHeader { gso_type, ..VnetHeader::default() }.gso();
        assert_eq!(gso(0), Ok(Gso::None));
        assert_eq!(gso(1), Ok(Gso::Tcp4));
        assert_eq!(gso(4), Ok(Gso::Tcp6));
        assert_eq!(gso(5), Ok(Gso::Udp));
        assert_eq!((gso(0x81), gso(0x84)), (Ok(Gso::Tcp4), Ok(Gso::Tcp6)));
        for wrong in [2, GSO_UDP, 6, 0x7f, 0x80, 0x83, 0x85, 0xff] {
            assert_eq!(gso(wrong), Err(Malformed), "{wrong}");
        }
    }

    #[test]
    fn a_single_frame_carries_its_partial_checksum_and_nothing_else() {
        let partial = PartialChecksum { start: 34, offset: UDP_CHECKSUM };
        assert_eq!(VnetHeader::single(Some(partial)).partial(), Some(partial));
        assert_eq!(VnetHeader::single(None), VnetHeader::default());
        assert_eq!(VnetHeader::default().partial(), None);
    }

    proptest! {
        #[test]
        fn any_ten_bytes_come_back_as_they_were(bytes: [u8; LEN]) {
            prop_assert_eq!(VnetHeader::parse(&bytes).to_bytes(), bytes);
        }
    }
}
