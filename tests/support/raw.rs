//! Frames as they are: AF_PACKET sockets (packet(7)) that put any bytes on an interface and see what comes off it.

use super::super::common::place::inside;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use weft::io::netns::Netns;
use weft::wire::ethernet::Mac;

/// `PACKET_AUXDATA`, `PACKET_VNET_HDR` and `PACKET_IGNORE_OUTGOING` of linux/if_packet.h.
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `TP_STATUS_VLAN_VALID`, `TP_STATUS_VLAN_TPID_VALID`.
const VLAN_VALID: u32 = 1 << 4;
const TPID_VALID: u32 = 1 << 6;
/// Frames per `sendmmsg`.
const BATCH: usize = 64;

/// `struct tpacket_auxdata`: what the kernel took out of a frame before it gave it to us.
#[repr(C)]
#[derive(Clone, Copy)]
struct Auxiliary {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// A socket on one interface. Sees what arrives there, not what leaves.
pub(crate) struct Raw {
    socket: Socket,
    /// The interface's own address.
    pub(crate) mac: Mac,
}

impl Raw {
    /// Opens `ifname` inside a namespace.
    pub(crate) fn open(netns: &Netns, ifname: &str) -> Self {
        Self::with(netns, ifname, false)
    }

    /// The same, where each frame to be sent stands behind a virtio-net header of ten bytes.
    pub(crate) fn with_vnet_header(netns: &Netns, ifname: &str) -> Self {
        Self::with(netns, ifname, true)
    }

    fn with(netns: &Netns, ifname: &str, vnet: bool) -> Self {
        let link = inside(netns, |netlink| netlink.link(ifname).unwrap().unwrap());
        let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
        let open = || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol)));
        let socket = netns.run(open).unwrap().unwrap();
        // SAFETY: all zeroes is a value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = link.index as i32;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address outlives the call and the length is its own.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "bind to {ifname}: {}", io::Error::last_os_error());
        for option in [PACKET_IGNORE_OUTGOING, PACKET_AUXDATA].into_iter().chain(vnet.then_some(PACKET_VNET_HDR)) {
            let on: libc::c_int = 1;
            let size = size_of_val(&on) as libc::socklen_t;
            let fd = socket.as_raw_fd();
            // SAFETY: the value outlives the call and the length is its own.
            let set = unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, (&raw const on).cast(), size) };
            assert_eq!(set, 0, "option {option}: {}", io::Error::last_os_error());
        }
        socket.set_recv_buffer_size(8 << 20).unwrap();
        Self { socket, mac: link.mac.unwrap() }
    }

    /// Sends one frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Sends one frame, again and again while the interface's queue is full.
    pub(crate) fn insist(&self, frame: &[u8]) -> io::Result<()> {
        loop {
            match self.send(frame) {
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    /// Sends frames, many per system call; returns how many the kernel took.
    pub(crate) fn send_many(&self, frames: &[Vec<u8>]) -> usize {
        frames.chunks(BATCH).map(|batch| self.send_batch(batch)).sum()
    }

    fn send_batch(&self, frames: &[Vec<u8>]) -> usize {
        let mut vectors: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let headers = vectors.iter_mut().map(|vector| {
            // SAFETY: all zeroes is a value of this plain structure.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let mut headers: Vec<libc::mmsghdr> = headers.collect();
        // SAFETY: the headers point to vectors and frames that outlive the call; the kernel only reads them.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as libc::c_uint, 0)
        };
        usize::try_from(sent).unwrap_or(0)
    }

    /// The next frame that arrives within `patience`, as it was on the wire.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        let mut frame = vec![0u8; 70_000];
        let mut control = [0u64; 16];
        let mut vector = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        // SAFETY: all zeroes is a value of this plain structure.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message points to buffers that outlive the call, with their own lengths.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        frame.truncate(usize::try_from(length).ok()?);
        // SAFETY: the kernel filled in the control buffer and its length; the data of this type is one `Auxiliary`.
        let auxiliary = unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (!header.is_null() && (*header).cmsg_type == PACKET_AUXDATA)
                .then(|| libc::CMSG_DATA(header).cast::<Auxiliary>().read_unaligned())
        };
        if let Some(tag) = auxiliary.filter(|auxiliary| auxiliary.status & VLAN_VALID != 0) {
            let tpid = if tag.status & TPID_VALID != 0 { tag.vlan_tpid } else { 0x8100 };
            let [a, b] = tpid.to_be_bytes();
            let [c, d] = tag.vlan_tci.to_be_bytes();
            frame.splice(12..12, [a, b, c, d]);
        }
        Some(frame)
    }

    /// The next frame that satisfies `wanted`, for `patience` at most.
    pub(crate) fn receive_one(&self, patience: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            match self.receive(left) {
                Some(frame) if wanted(&frame) => return Some(frame),
                _ => {}
            }
        }
    }
}

/// An Ethernet frame.
pub(crate) fn frame(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes(), payload].concat()
}

/// An Ethernet frame with a UDP datagram in it, as it would come from anybody; without UDP checksum.
pub(crate) fn udp_frame(macs: (Mac, Mac), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0u8; 28];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((28 + payload.len()) as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&from.0.octets());
    packet[16..20].copy_from_slice(&to.0.octets());
    finish_ipv4(&mut packet[..20]);
    packet[20..22].copy_from_slice(&from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&to.1.to_be_bytes());
    packet[24..26].copy_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    packet.extend_from_slice(payload);
    frame(macs.1, macs.0, 0x0800, &packet)
}

/// Fills in the checksum of an IPv4 header (RFC 791 §3.1), whose field is zero.
pub(crate) fn finish_ipv4(header: &mut [u8]) {
    let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes());
}
