//! What the underlay carries, seen with AF_PACKET: is it WireGuard and nothing else?
//!
//! [`judge`] is a pure function over one frame. ARP, neighbour discovery and multicast listener reports are how hosts
//! find each other and are well, and so are the beacons by which weft members do; so is a UDP datagram between two
//! WireGuard ports that begins like a WireGuard message. Everything else is a finding. A super-frame of the kernel shows as one large datagram, of which the first
//! message is looked at. Besides, no frame may contain the marker, which the tour sends through the overlay in plain.
//!
//! Memory is bounded: frames are judged as they come, counts are kept, and the first few findings are described.

use super::Stop;
use crate::io::lan;
use crate::io::netns::Netns;
use crate::wire::ethernet::Frame;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Findings described; the rest is counted.
const MAX_DESCRIBED: usize = 10;
/// The largest super-frame, with room to spare.
const MAX_FRAME: usize = 1 << 17;
/// Bytes the kernel may queue for us: super-frames come at tens of thousands a second.
const BUFFER: usize = 64 << 20;
/// How long a read lasts before the thread sees that it should end.
const SLICE: Duration = Duration::from_millis(100);
/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h: a frame that crosses a bridge is seen where it enters, once.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `PACKET_STATISTICS` of linux/if_packet.h.
const PACKET_STATISTICS: libc::c_int = 6;

/// What one frame of the underlay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A WireGuard message, by its type.
    Wireguard(&'static str),
    /// What hosts say to find each other.
    Neighbours(&'static str),
    /// Anything else, described.
    Finding(String),
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames in all.
    pub frames: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Frames by what they are.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Frames that should not be there.
    pub findings: u64,
    /// The first of those, described.
    pub described: Vec<String>,
    /// Frames the kernel could not queue for us.
    pub missed: u64,
}

impl Seen {
    /// WireGuard messages.
    pub fn wireguard(&self) -> u64 {
        WIREGUARD.iter().filter_map(|(_, name)| self.kinds.get(name)).sum()
    }

    fn note(&mut self, frame: &[u8], ports: &[u16], marker: &[u8]) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        let found = if !marker.is_empty() && contains(frame, marker) {
            "a frame with the overlay's plaintext in it".to_owned()
        } else {
            match judge(frame, ports) {
                Verdict::Wireguard(kind) | Verdict::Neighbours(kind) => {
                    *self.kinds.entry(kind).or_default() += 1;
                    return;
                }
                Verdict::Finding(what) => what,
            }
        };
        self.findings += 1;
        if self.described.len() < MAX_DESCRIBED {
            self.described.push(found);
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.frames)?;
        for (kind, count) in &self.kinds {
            write!(f, ", {count} {kind}")?;
        }
        if self.missed > 0 {
            write!(f, ", {} missed", self.missed)?;
        }
        match self.findings {
            0 => Ok(()),
            n => write!(f, ", {n} that should not be there: {}", self.described.join("; ")),
        }
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Stop,
    thread: Option<JoinHandle<io::Result<Seen>>>,
}

impl Capture {
    /// Watches all interfaces of a namespace. WireGuard is expected between UDP ports of `ports`; `marker`, if it is
    /// not empty, must not be seen.
    ///
    /// # Errors
    /// The namespace may not be entered, or gives no packet socket.
    pub fn start(netns: &Netns, ports: &[u16], marker: &[u8]) -> io::Result<Self> {
        let socket = netns.run(open)??;
        let (stop, ports, marker): (_, Vec<u16>, Arc<[u8]>) = (Stop::default(), ports.to_vec(), marker.into());
        let of_thread = stop.clone();
        let run = move || watch(socket, &ports, &marker, &of_thread);
        let thread = std::thread::Builder::new().name("lab-capture".into()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it. Frames that were sent before the call are in what is returned.
    ///
    /// # Errors
    /// The socket failed while it was watching.
    pub fn finish(mut self) -> io::Result<Seen> {
        self.end()
    }

    fn end(&mut self) -> io::Result<Seen> {
        self.stop.set();
        let Some(thread) = self.thread.take() else { return Ok(Seen::default()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Nobody asked for the result.
        let _ = self.end();
    }
}

fn open() -> io::Result<Socket> {
    let every_protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every_protocol)))?;
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option takes an int, which `on` is, and `size` is its size.
    let outcome = unsafe {
        let value = (&raw const on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, value, size)
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    force_buffer(&socket);
    socket.set_read_timeout(Some(SLICE))?;
    Ok(socket)
}

/// As much queue as we may have; root may go beyond `net.core.rmem_max`.
fn force_buffer(socket: &Socket) {
    let _ = socket.set_recv_buffer_size(BUFFER);
    let bytes = BUFFER as libc::c_int;
    // SAFETY: the option takes an int, which `bytes` is. A refusal leaves the size above.
    unsafe {
        let (value, size) = ((&raw const bytes).cast(), size_of_val(&bytes) as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, size);
    }
}

fn watch(mut socket: Socket, ports: &[u16], marker: &[u8], stop: &Stop) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut buffer = vec![0u8; MAX_FRAME];
    loop {
        match socket.read(&mut buffer) {
            Ok(length) => seen.note(&buffer[..length], ports, marker),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The queue is empty, so whatever was sent before the stop has been seen.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stop.is_set() {
                    break;
                }
            }
            // An interface went down, which the tour does on purpose.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            Err(error) => return Err(error),
        }
    }
    seen.missed = missed(&socket);
    Ok(seen)
}

/// Frames that found our queue full.
fn missed(socket: &Socket) -> u64 {
    // `tpacket_stats`: packets, drops.
    let mut statistics = [0u32; 2];
    let mut size = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes, which is the size of `statistics`.
    unsafe {
        let value = statistics.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, PACKET_STATISTICS, value, &mut size);
    }
    statistics[1].into()
}

/// WireGuard's message types and what the numbers in a summary are called.
const WIREGUARD: [(u8, &str); 4] = [
    (1, "WireGuard handshake initiations"),
    (2, "WireGuard handshake responses"),
    (3, "WireGuard cookie replies"),
    (4, "WireGuard data messages"),
];

/// What a frame of the underlay is, when WireGuard speaks between UDP ports of `ports`.
pub fn judge(frame: &[u8], ports: &[u16]) -> Verdict {
    let Ok(frame) = Frame::parse(frame) else { return Verdict::Finding("a frame without a header".to_owned()) };
    let packet = frame.payload();
    match frame.ethertype() {
        0x0806 => Verdict::Neighbours("ARP"),
        0x0800 => judge_v4(packet, ports),
        0x86dd => judge_v6(packet, ports),
        other => Verdict::Finding(format!("ethertype {other:#06x} from {}", frame.source())),
    }
}

fn judge_v4(packet: &[u8], ports: &[u16]) -> Verdict {
    let Some(header) = packet.first_chunk::<20>() else { return Verdict::Finding("a cut IPv4 header".to_owned()) };
    let [from, to] = [12, 16].map(|at| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let whole = u16::from_be_bytes([header[6], header[7]]) & 0x3fff == 0;
    if !whole {
        return Verdict::Finding(format!("an IPv4 fragment {from} → {to}"));
    }
    let rest = packet.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
    match header[9] {
        17 => judge_udp(rest, ports, from.into(), to.into()),
        2 => Verdict::Neighbours("IGMP"),
        protocol => Verdict::Finding(format!("{} {from} → {to}", protocol_name(protocol))),
    }
}

fn judge_v6(packet: &[u8], ports: &[u16]) -> Verdict {
    let Some(header) = packet.first_chunk::<40>() else { return Verdict::Finding("a cut IPv6 header".to_owned()) };
    let address =
        |at: usize| header[at..at + 16].first_chunk().map_or(Ipv6Addr::UNSPECIFIED, |&b: &[u8; 16]| b.into());
    let (from, to) = (address(8), address(24));
    let mut rest = &packet[40..];
    let mut protocol = header[6];
    if protocol == 0 {
        // Hop-by-hop options (RFC 8200 §4.3): multicast listener reports carry a router alert.
        protocol = rest.first().copied().unwrap_or_default();
        rest = rest.get(1).and_then(|&length| rest.get(usize::from(length) * 8 + 8..)).unwrap_or_default();
    }
    match (protocol, rest.first()) {
        (17, _) => judge_udp(rest, ports, from.into(), to.into()),
        (58, Some(133..=137)) => Verdict::Neighbours("neighbour discovery"),
        (58, Some(130..=132 | 143)) => Verdict::Neighbours("multicast listener reports"),
        _ => Verdict::Finding(format!("{} {from} → {to}", protocol_name(protocol))),
    }
}

fn judge_udp(datagram: &[u8], ports: &[u16], from: IpAddr, to: IpAddr) -> Verdict {
    let Some((header, payload)) = datagram.split_first_chunk::<8>() else {
        return Verdict::Finding(format!("a cut UDP header {from} → {to}"));
    };
    let [source, destination] = [0, 2].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
    if lan::is_beacon(&SocketAddr::new(to, destination), payload) {
        return Verdict::Neighbours("LAN beacons");
    }
    let kind = match payload {
        [kind, 0, 0, 0, ..] if ports.contains(&source) && ports.contains(&destination) => *kind,
        _ => 0,
    };
    match WIREGUARD.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => Verdict::Wireguard(name),
        None => Verdict::Finding(format!("UDP {from}:{source} → {to}:{destination} that is not WireGuard")),
    }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("IP protocol {other}"),
    }
}

/// Whether `needle` is somewhere in `bytes`.
fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(&first) = needle.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::skip;
    use std::net::UdpSocket;

    const PORTS: [u16; 1] = [51820];

    fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [source, destination, 8 + payload.len() as u16, 0].map(u16::to_be_bytes).concat();
        bytes.extend(payload);
        bytes
    }

    fn v4(protocol: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 0, 0, 0, flags, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend(body);
        frame
    }

    fn v6(next: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 0, next, 64]);
        frame.extend([0xfe; 32]);
        frame.extend(body);
        frame
    }

    #[test]
    fn wireguard_and_neighbours_are_well() {
        let data = [4, 0, 0, 0, 9, 9, 9, 9];
        assert_eq!(judge(&v4(17, 0x40, &udp(51820, 51820, &data)), &PORTS), Verdict::Wireguard(WIREGUARD[3].1));
        assert_eq!(judge(&v6(17, &udp(51820, 51820, &[1, 0, 0, 0])), &PORTS), Verdict::Wireguard(WIREGUARD[0].1));
        assert_eq!(judge(&v6(58, &[135, 0]), &PORTS), Verdict::Neighbours("neighbour discovery"));
        let report = [58, 0, 5, 2, 0, 0, 1, 0, 143, 0];
        assert_eq!(judge(&v6(0, &report), &PORTS), Verdict::Neighbours("multicast listener reports"));
        let mut beacon = v4(17, 0, &udp(9338, 9338, &[&b"weft\x01\x01"[..], &[1; 22]].concat()));
        beacon[30..34].copy_from_slice(&[239, 255, 93, 38]);
        assert_eq!(judge(&beacon, &PORTS), Verdict::Neighbours("LAN beacons"));
        beacon[33] ^= 1;
        assert!(matches!(judge(&beacon, &PORTS), Verdict::Finding(_)), "to another group");
        let arp = [&[0xff; 12][..], &[8, 6, 0, 1]].concat();
        assert_eq!(judge(&arp, &PORTS), Verdict::Neighbours("ARP"));
    }

    #[test]
    fn anything_else_is_a_finding() {
        let data = [4, 0, 0, 0];
        for (frame, what) in [
            (v4(17, 0, &udp(51820, 51820, &[5, 0, 0, 0])), "UDP 192.0.2.1:51820 → 192.0.2.2:51820"),
            (v4(17, 0, &udp(51820, 51820, &[4, 0, 0, 1])), "not WireGuard"),
            (v4(17, 0, &udp(51820, 4789, &data)), "192.0.2.2:4789"),
            (v4(17, 0x20, &udp(51820, 51820, &data)), "fragment"),
            (v4(17, 0, &[1, 2]), "cut UDP"),
            (v4(1, 0, &[3, 3]), "ICMP 192.0.2.1 → 192.0.2.2"),
            (v6(58, &[128, 0]), "ICMPv6"),
            (v6(0, &[]), "IP protocol 0"),
            (v6(6, &[]), "TCP"),
            ([&[0xff; 12][..], &[0x12, 0x34]].concat(), "ethertype 0x1234"),
            (vec![1, 2, 3], "without a header"),
        ] {
            let verdict = judge(&frame, &PORTS);
            assert!(matches!(&verdict, Verdict::Finding(text) if text.contains(what)), "{what}: {verdict:?}");
        }
    }

    #[test]
    fn judging_takes_every_prefix_of_a_frame() {
        for frame in [v4(17, 0x40, &udp(51820, 51820, &[4, 0, 0, 0])), v6(0, &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0])] {
            for length in 0..frame.len() {
                judge(&frame[..length], &PORTS);
            }
        }
    }

    #[test]
    fn the_marker_is_found_wherever_it_is() {
        let mut seen = Seen::default();
        let data = |text: &[u8]| v4(17, 0x40, &udp(51820, 51820, &[&[4, 0, 0, 0], text].concat()));
        seen.note(&data(b"xxmarkermarkedx"), &PORTS, b"marked");
        seen.note(&data(b"xxmarkermarke"), &PORTS, b"marked");
        assert_eq!((seen.findings, seen.wireguard()), (1, 1));
        assert!(seen.to_string().contains("plaintext"), "{seen}");
    }

    #[test]
    fn a_capture_sees_what_was_sent_before_its_end() {
        let Some(netns) = Netns::create().map_err(|error| skip::say(&error.to_string())).ok() else { return };
        let capture = Capture::start(&netns, &PORTS, b"").unwrap();
        let sender = netns.run(|| UdpSocket::bind("127.0.0.1:51820")).unwrap().unwrap();
        for _ in 0..20 {
            sender.send_to(&[4, 0, 0, 0], "127.0.0.1:51820").unwrap();
        }
        sender.send_to(b"hello", "127.0.0.1:51820").unwrap();
        let seen = capture.finish().unwrap();
        assert_eq!((seen.wireguard(), seen.findings, seen.missed), (20, 1, 0), "{seen}");
    }
}
