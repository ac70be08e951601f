//! Which offloads this kernel's TAPs really have, found out before the first port is made.
//!
//! The kernel is asked twice. `TUNSETOFFLOAD` says what it would hand to us. Whether it takes a super-frame *from*
//! us is a different matter (there have been kernels that knew the flag and answered `EINVAL` to the frame), so one
//! of each kind is written to a throw-away TAP, addressed to nobody.

use super::{Tap, TapError, TapOffload, VNET_HEADER};
use crate::io::netlink::Netlink;
use crate::io::netns::Netns;
use std::io::IoSlice;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the L4 checksum is still to be filled in.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE`.
const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_UDP_L4: u8 = 5;
/// Offset of the L4 header: Ethernet and an IPv4 header without options.
const L4: u8 = 14 + 20;
/// Payload of each segment of a test frame; it has three.
const SEGMENT: u16 = 1000;

/// What was found: for each offload, that it works, or why it is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Partial checksums.
    pub checksum: Result<(), String>,
    /// TCP super-frames.
    pub tso: Result<(), String>,
    /// UDP super-frames.
    pub uso: Result<(), String>,
}

impl Probe {
    /// The offloads to make ports with.
    pub fn granted(&self) -> TapOffload {
        TapOffload { checksum: self.checksum.is_ok(), tso: self.tso.is_ok(), uso: self.uso.is_ok() }
    }
}

/// Tries the wanted offloads on a throw-away TAP.
///
/// # Errors
/// [`TapError`]: TAPs cannot be made at all.
pub fn probe(wanted: TapOffload) -> Result<Probe, TapError> {
    match Netns::create() {
        Ok(netns) => netns.run(|| probe_here(wanted)).map_err(TapError::kernel("enter a namespace of our own"))?,
        // With CAP_NET_ADMIN alone there are no namespaces, but ports for the host: the TAP is seen for a moment.
        Err(_) => probe_here(wanted),
    }
}

fn probe_here(wanted: TapOffload) -> Result<Probe, TapError> {
    let tap = Tap::create("weftprobe%d", TapOffload::default())?;
    bring_up(&tap)?;
    let off = || Err("switched off in the configuration".to_owned());
    let needs_checksum = || Err("needs tap_checksum".to_owned());

    let checksum = TapOffload { checksum: true, ..TapOffload::default() };
    let checksum = if wanted.checksum { attempt(&tap, checksum, &udp(GSO_NONE)) } else { off() };
    let tso = match (wanted.tso, &checksum) {
        (false, _) => off(),
        (true, Err(_)) => needs_checksum(),
        (true, Ok(())) => attempt(&tap, TapOffload { checksum: true, tso: true, uso: false }, &tcp()),
    };
    let uso = match (wanted.uso, &checksum) {
        (false, _) => off(),
        (true, Err(_)) => needs_checksum(),
        (true, Ok(())) => attempt(&tap, TapOffload { checksum: true, tso: false, uso: true }, &udp(GSO_UDP_L4)),
    };
    Ok(Probe { checksum, tso, uso })
}

/// The kernel refuses frames of an interface that is down.
fn bring_up(tap: &Tap) -> Result<(), TapError> {
    let up = || -> std::io::Result<()> {
        let mut netlink = Netlink::open()?;
        let index = netlink.link(&tap.name()?)?.map_or(0, |link| link.index);
        Ok(netlink.set_up(index)?)
    };
    up().map_err(TapError::kernel("bring a throw-away TAP up"))
}

fn attempt(tap: &Tap, offload: TapOffload, frame: &[u8]) -> Result<(), String> {
    tap.set_offload(offload).map_err(|error| format!("this kernel does not offer it: {error}"))?;
    match tap.write_vectored(&[IoSlice::new(frame)]) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("this kernel refuses such frames: {error}")),
    }
}

/// A TCP super-frame of three segments.
fn tcp() -> Vec<u8> {
    let mut header = [0; 20];
    header[12] = 5 << 4; // Data offset: five words (RFC 9293 §3.1).
    header[13] = 0x10; // ACK.
    frame(GSO_TCPV4, 6, &header, 16)
}

/// A UDP super-frame of three segments, or without GSO a plain frame of one.
fn udp(gso: u8) -> Vec<u8> {
    let segments = if gso == GSO_NONE { 1 } else { 3 };
    let mut header = [0; 8];
    header[4..6].copy_from_slice(&(8 + segments * SEGMENT).to_be_bytes());
    frame(gso, 17, &header, 6)
}

/// A virtio-net header and an IPv4 frame from and to stations that do not exist, with a partial checksum.
fn frame(gso: u8, protocol: u8, l4: &[u8], checksum_at: u8) -> Vec<u8> {
    let segments = if gso == GSO_NONE { 1 } else { 3 };
    let payload = usize::from(segments * SEGMENT);
    let l4_len = u8::try_from(l4.len()).unwrap_or_default();
    let size = if gso == GSO_NONE { 0 } else { SEGMENT };

    let mut bytes = Vec::with_capacity(VNET_HEADER + usize::from(L4) + l4.len() + payload);
    bytes.extend([NEEDS_CSUM, gso]);
    for field in [u16::from(L4 + l4_len), size, u16::from(L4), u16::from(checksum_at)] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend([2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 0xfd, 0x08, 0x00]);
    let total = 20 + u16::from(l4_len) + segments * SEGMENT;
    bytes.extend([0x45, 0]);
    bytes.extend(total.to_be_bytes());
    // Identification and flags, TTL and protocol; from and to the documentation's addresses (RFC 5737).
    bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    bytes.extend(l4);
    bytes.resize(bytes.len() + payload, 0);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::skip;

    const EVERYTHING: TapOffload = TapOffload { checksum: true, tso: true, uso: true };

    fn probed(wanted: TapOffload) -> Option<Probe> {
        match probe(wanted) {
            Err(error @ (TapError::NoDriver | TapError::NotPermitted)) => {
                skip::say(&error.to_string());
                None
            }
            other => Some(other.unwrap()),
        }
    }

    #[test]
    fn checksums_and_tcp_super_frames_are_there_on_every_kernel_we_support() {
        let Some(found) = probed(EVERYTHING) else { return };
        assert!(found.checksum.is_ok() && found.tso.is_ok(), "{found:?}");
        // UDP super-frames came with Linux 6.2; an older kernel has to give its reason.
        assert!(found.uso.is_ok() || found.uso.clone().unwrap_err().contains("this kernel"), "{found:?}");
    }

    #[test]
    fn what_is_switched_off_is_not_granted_and_takes_along_what_needs_it() {
        let Some(found) = probed(TapOffload { tso: false, ..EVERYTHING }) else { return };
        assert!(!found.granted().tso && found.granted().checksum);
        assert_eq!(found.tso.unwrap_err(), "switched off in the configuration");
        let found = probed(TapOffload { checksum: false, ..EVERYTHING }).unwrap();
        assert_eq!(found.granted(), TapOffload::default());
        assert!(found.uso.unwrap_err().contains("needs tap_checksum"));
    }

    #[test]
    fn a_frame_that_contradicts_its_header_is_refused_so_the_probe_means_something() {
        let Ok(netns) = Netns::create() else { return skip::say("no namespaces") };
        netns
            .run(|| {
                let Ok(tap) = Tap::create("weftprobe%d", EVERYTHING) else { return skip::say("no TAP") };
                bring_up(&tap).unwrap();
                let mut frame = tcp();
                frame[1] = 0x7f; // No such GSO type.
                assert!(attempt(&tap, EVERYTHING, &frame).unwrap_err().contains("refuses"));
            })
            .unwrap();
    }
}
