//! Frames as a container's kernel sees them: captured with AF_PACKET, sent with AF_PACKET, made and checked by the
//! book (slowly, and by none of the code under test).

#![allow(dead_code, clippy::unwrap_used)]

use super::common::{SOON, eventually};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use weft::io::netns::Netns;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::VnetHeader;

/// `PACKET_AUXDATA` of linux/if_packet.h: VLAN tags, which the kernel takes off what it receives, and more.
const PACKET_AUXDATA: libc::c_int = 8;
/// `PACKET_VNET_HDR` of linux/if_packet.h.
const PACKET_VNET_HDR: libc::c_int = 15;
/// `TP_STATUS_CSUMNOTREADY`: the checksum is not yet filled in.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// `TP_STATUS_VLAN_VALID`: the tag is in the auxiliary data.
const VLAN_VALID: u32 = 1 << 4;
/// `PACKET_OUTGOING`: the namespace itself sent it.
const OUTGOING: u8 = 4;

/// A captured frame.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// From the Ethernet header on, or for an interface without one, as WireGuard's, from the IP header on.
    pub bytes: Vec<u8>,
    /// The namespace sent it itself.
    pub outgoing: bool,
    /// Its L4 checksum is filled in, as far as the kernel knows.
    pub complete: bool,
}

impl Seen {
    pub(crate) fn contains(&self, marker: &[u8]) -> bool {
        self.bytes.windows(marker.len()).any(|window| window == marker)
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head: String = self.bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
        write!(f, "{} bytes {head}… outgoing {} complete {}", self.bytes.len(), self.outgoing, self.complete)
    }
}

/// Sees all frames of one interface from its opening on.
pub(crate) struct Sniffer {
    socket: Socket,
    seen: Vec<Seen>,
}

impl Sniffer {
    pub(crate) fn open(netns: &Netns, ifname: &str) -> Self {
        let socket = packet_socket(netns, ifname, Type::RAW);
        set(&socket, PACKET_AUXDATA);
        // What a second of bulk traffic brings; more than the limit is root's privilege.
        let size: libc::c_int = 64 << 20;
        setsockopt(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size);
        socket.set_nonblocking(true).unwrap();
        Self { socket, seen: Vec::new() }
    }

    /// Everything seen so far.
    pub(crate) fn seen(&mut self) -> &[Seen] {
        let mut buffer = vec![0; 1 << 17];
        while let Some(frame) = receive(&self.socket, &mut buffer) {
            self.seen.push(frame);
        }
        &self.seen
    }

    /// How often something with `marker` in it came in.
    pub(crate) fn copies(&mut self, marker: &[u8]) -> usize {
        self.seen().iter().filter(|seen| !seen.outgoing && seen.contains(marker)).count()
    }

    /// The first frame with `marker` in it, waited for.
    pub(crate) fn arrived(&mut self, marker: &[u8]) -> Seen {
        eventually(&format!("a frame with {}", String::from_utf8_lossy(marker)), || {
            self.seen().iter().find(|seen| !seen.outgoing && seen.contains(marker)).cloned()
        })
    }

    /// Forgets what was seen so far.
    pub(crate) fn clear(&mut self) {
        self.seen();
        self.seen.clear();
    }
}

/// Sends frames through an interface, as its container.
pub(crate) struct Sender {
    socket: Socket,
    vnet: bool,
}

impl Sender {
    pub(crate) fn open(netns: &Netns, ifname: &str) -> Self {
        Self { socket: packet_socket(netns, ifname, Type::RAW), vnet: false }
    }

    /// One that takes super-frames and partial checksums.
    pub(crate) fn with_offload(netns: &Netns, ifname: &str) -> Self {
        let sender = Self { vnet: true, ..Self::open(netns, ifname) };
        set(&sender.socket, PACKET_VNET_HDR);
        sender
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        self.send_with(VnetHeader::default(), frame);
    }

    pub(crate) fn send_with(&self, header: VnetHeader, frame: &[u8]) {
        let bytes = if self.vnet { [&header.to_bytes(), frame].concat() } else { frame.to_vec() };
        let deadline = Instant::now() + SOON;
        loop {
            match self.socket.send(&bytes) {
                Ok(_) => return,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("send a frame of {} bytes: {error}", frame.len()),
            }
        }
    }
}

fn packet_socket(netns: &Netns, ifname: &str, kind: Type) -> Socket {
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    let open = || {
        let name = CString::new(ifname).unwrap();
        // SAFETY: `name` is a C string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "no interface {ifname}");
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0))).unwrap();
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: sockaddr_ll is one of the addresses the storage is for, and plain old data.
        let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every_protocol;
        address.sll_ifindex = index.cast_signed();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the storage holds a sockaddr_ll of that length.
        socket.bind(&unsafe { SockAddr::new(storage, length) }).unwrap();
        socket
    };
    netns.run(open).unwrap()
}

fn set(socket: &Socket, option: libc::c_int) {
    setsockopt(socket, libc::SOL_PACKET, option, 1);
}

fn setsockopt(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes, which is the size of `value`.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    assert_eq!(outcome, 0, "socket option {option}: {}", io::Error::last_os_error());
}

/// `struct tpacket_auxdata` of linux/if_packet.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> Option<Seen> {
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a value of these plain structures.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut control = [0u64; 16];
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as libc::socklen_t;
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: everything the message points to lives as long as the call, with the lengths it gives.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, 0) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        // ENETDOWN tells once that the interface went down.
        assert!(
            error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENETDOWN),
            "capture: {error}"
        );
        return None;
    };
    let mut auxiliary = AuxData::default();
    // SAFETY: the kernel has filled in the message; its control data is walked with its own macros.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(&message);
        while !head.is_null() {
            if (*head).cmsg_level == libc::SOL_PACKET && (*head).cmsg_type == PACKET_AUXDATA {
                auxiliary = libc::CMSG_DATA(head).cast::<AuxData>().read_unaligned();
            }
            head = libc::CMSG_NXTHDR(&message, head);
        }
    }
    let mut bytes = buffer[..length].to_vec();
    if auxiliary.status & VLAN_VALID != 0 {
        let tag = [auxiliary.vlan_tpid.to_be_bytes(), auxiliary.vlan_tci.to_be_bytes()].concat();
        bytes.splice(12..12, tag);
    }
    let complete = auxiliary.status & CHECKSUM_NOT_READY == 0;
    Some(Seen { bytes, outgoing: from.sll_pkttype == OUTGOING, complete })
}

/// An address that belongs to no container.
pub(crate) fn stranger(number: u8) -> Mac {
    Mac([0x02, 0xee, 0, 0, 0, number])
}

/// A frame with an EtherType for experiments (IEEE 802 §9.2.3) and this content.
pub(crate) fn frame(destination: Mac, source: Mac, content: &[u8]) -> Vec<u8> {
    [&destination.0, &source.0, &[0x88, 0xb5][..], content, &[0; 46]].concat()
}

/// Puts VLAN tags into a frame, the outermost first.
pub(crate) fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}

/// A TCP segment in IPv4 in a frame, with a complete checksum.
pub(crate) fn tcp4(
    (destination, source): (Mac, Mac),
    (from, to): (Ipv4Addr, Ipv4Addr),
    sequence: u32,
    payload: &[u8],
) -> Vec<u8> {
    let mut tcp = [9999u16, 9998].map(u16::to_be_bytes).concat();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(payload);
    let mut ip = vec![0x45, 0];
    ip.extend((20 + tcp.len() as u16).to_be_bytes());
    ip.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
    ip.extend([from.octets(), to.octets()].concat());
    let sum = ones_complement(&ip);
    ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
    let sum = ones_complement(&[&pseudo_v4(&ip, 6, tcp.len()), &tcp[..]].concat());
    tcp[16..18].copy_from_slice(&(!sum).to_be_bytes());
    [&destination.0, &source.0, &[8, 0][..], &ip, &tcp].concat()
}

fn pseudo_v4(ip: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    [&ip[12..20], &[0, protocol][..], &(length as u16).to_be_bytes()].concat()
}

/// The sum of RFC 1071, straight from its text.
pub(crate) fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What is wrong with the checksums in a frame: of IPv4, TCP, UDP, ICMP and ICMPv6. `Ok(false)` says there was none to
/// check.
pub(crate) fn check_frame(frame: &[u8]) -> Result<bool, String> {
    let mut at = 12;
    while matches!(frame[at..], [0x81, 0x00, ..] | [0x88, 0xa8, ..]) {
        at += 4;
    }
    check_packet(u16::from_be_bytes([frame[at], frame[at + 1]]), &frame[at + 2..])
}

/// As [`check_frame`], from the IP header on.
pub(crate) fn check_packet(ethertype: u16, packet: &[u8]) -> Result<bool, String> {
    let (protocol, mut pseudo, l4) = match ethertype {
        0x0800 => {
            let header = usize::from(packet[0] & 15) * 4;
            if ones_complement(&packet[..header]) != 0xffff {
                return Err("the IPv4 header checksum is wrong".to_owned());
            }
            if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
                return Ok(false);
            }
            let l4 = &packet[header..usize::from(u16::from_be_bytes([packet[2], packet[3]]))];
            (packet[9], pseudo_v4(packet, packet[9], l4.len()), l4)
        }
        0x86dd => {
            let l4 = &packet[40..40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))];
            let pseudo = [&packet[8..40], &(l4.len() as u32).to_be_bytes(), &[0, 0, 0, packet[6]]].concat();
            (packet[6], pseudo, l4)
        }
        _ => return Ok(false),
    };
    let name = match protocol {
        6 => "TCP",
        17 if l4[6..8] == [0, 0] && ethertype == 0x0800 => return Ok(false),
        17 => "UDP",
        58 => "ICMPv6",
        1 => {
            pseudo.clear();
            "ICMP"
        }
        _ => return Ok(false),
    };
    let sum = ones_complement(&[&pseudo[..], l4].concat());
    if sum == 0xffff {
        Ok(true)
    } else {
        Err(format!("the {name} checksum is wrong: {sum:#06x} over {} bytes", l4.len()))
    }
}

/// Container addresses of the lab, for people who count from 1.
pub(crate) fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x32, 0, 0, 0, 0, 9, last)
}
