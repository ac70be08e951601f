//! ICMP echo (RFC 792, RFC 4443 §4) from inside a namespace: whether something answers, with what delay, and whether
//! what comes back is what was sent.
//!
//! The socket is raw and made in the namespace; after that any thread may use it. A payload larger than the
//! interface's MTU is fragmented by the sender's kernel and reassembled by the receiver's, as with ping(8).

use crate::io::netns::Netns;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::ffi::CString;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long one attempt of [`Pinger::until`] waits before the next: the first packet of a pair may meet a handshake
/// or an address resolution, which each take less.
const ATTEMPT: Duration = Duration::from_millis(300);
/// Bytes of type, code, checksum, identifier and sequence number.
const HEADER: usize = 8;
/// The largest payload an IPv4 packet carries behind its header and ours.
pub const MAX_PAYLOAD: usize = 65_535 - 20 - HEADER;

/// Tells the pings of this process apart; a raw socket sees the answers to all of its namespace.
static NEXT_IDENTIFIER: AtomicU16 = AtomicU16::new(1);

/// An echo that was not answered as it should.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// The socket refused.
    #[error("cannot ping {to}: {source}")]
    Socket {
        /// Who was asked.
        to: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing came back.
    #[error("{to} did not answer a ping of {size} bytes within {} ms", .waited.as_millis())]
    Timeout {
        /// Who was asked.
        to: IpAddr,
        /// Bytes of payload.
        size: usize,
        /// How long we waited.
        waited: Duration,
    },
    /// Something else came back.
    #[error("{to} answered a ping of {size} bytes with other bytes than were sent")]
    Corrupt {
        /// Who was asked.
        to: IpAddr,
        /// Bytes of payload.
        size: usize,
    },
}

/// A socket that pings one address from one namespace.
#[derive(Debug)]
pub struct Pinger {
    socket: Socket,
    to: IpAddr,
    address: SockAddr,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    /// Prepares to ping `to` from inside `from`. A link-local address needs the interface it is meant on.
    ///
    /// # Errors
    /// The namespace may not be entered, or gives no raw socket.
    pub fn open(from: &Netns, to: IpAddr, ifname: Option<&str>) -> Result<Self, PingError> {
        let failed = |source| PingError::Socket { to, source };
        let open = || -> io::Result<(Socket, u32)> {
            let (domain, protocol) = match to {
                IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
                IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
            };
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            // The largest echo counts several times its size against the buffer.
            socket.set_recv_buffer_size(1 << 20)?;
            socket.set_send_buffer_size(1 << 20)?;
            Ok((socket, ifname.map_or(Ok(0), index_of)?))
        };
        let (socket, scope) = from.run(open).and_then(|inner| inner).map_err(failed)?;
        let address = match to {
            IpAddr::V4(to) => SocketAddrV4::new(to, 0).into(),
            IpAddr::V6(to) => SocketAddrV6::new(to, 0, 0, scope).into(),
        };
        let identifier = NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { socket, to, address, identifier, sequence: 0 })
    }

    /// Sends one echo request of `size` bytes of payload, at most [`MAX_PAYLOAD`], and waits for its reply.
    ///
    /// # Errors
    /// [`PingError`].
    pub fn once(&mut self, size: usize, timeout: Duration) -> Result<Duration, PingError> {
        let (to, size) = (self.to, size.min(MAX_PAYLOAD));
        let failed = |source| PingError::Socket { to, source };
        self.sequence = self.sequence.wrapping_add(1);
        let request = self.request(size);
        let sent = Instant::now();
        self.socket.send_to(&request, &self.address).map_err(failed)?;
        let mut buffer = vec![0u8; 65_536];
        loop {
            let left = timeout.saturating_sub(sent.elapsed());
            if left.is_zero() {
                return Err(PingError::Timeout { to, size, waited: timeout });
            }
            self.socket.set_read_timeout(Some(left)).map_err(failed)?;
            let length = match self.socket.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let Some(reply) = self.reply(&buffer[..length]) else { continue };
            return if reply == &request[HEADER..] {
                Ok(sent.elapsed())
            } else {
                Err(PingError::Corrupt { to, size })
            };
        }
    }

    /// Sends echo requests until one is answered, for `patience` at most, and returns the delay of that one.
    ///
    /// # Errors
    /// What the last attempt said.
    pub fn until(&mut self, size: usize, patience: Duration) -> Result<Duration, PingError> {
        let start = Instant::now();
        loop {
            let begun = Instant::now();
            let outcome = self.once(size, ATTEMPT.min(patience));
            let waited = start.elapsed();
            match outcome {
                Ok(delay) => return Ok(delay),
                Err(error @ PingError::Corrupt { .. }) => return Err(error),
                Err(PingError::Timeout { to, size, .. }) if waited >= patience => {
                    return Err(PingError::Timeout { to, size, waited });
                }
                Err(error) if waited >= patience => return Err(error),
                // A refusal ("network unreachable") comes at once: keep the pace.
                Err(_) => std::thread::sleep(ATTEMPT.saturating_sub(begun.elapsed())),
            }
        }
    }

    fn request(&self, size: usize) -> Vec<u8> {
        let kind = if self.to.is_ipv4() { 8 } else { 128 };
        let mut packet = vec![kind, 0, 0, 0];
        packet.extend(self.identifier.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((0..size).map(|i| (i ^ (i >> 8)) as u8));
        if self.to.is_ipv4() {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        // ICMPv6's checksum covers addresses only the kernel knows: it fills it in (RFC 3542 §3.1).
        packet
    }

    /// The payload, if this is the reply to our last request.
    fn reply<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        // A raw IPv4 socket hands over the IP header, a raw IPv6 socket does not.
        let (message, kind) = match self.to {
            IpAddr::V4(_) => (packet.get(usize::from(packet.first()? & 15) * 4..)?, 0),
            IpAddr::V6(_) => (packet, 129),
        };
        let (header, payload) = message.split_at_checked(HEADER)?;
        let [identifier, sequence] = [self.identifier, self.sequence].map(u16::to_be_bytes);
        (header[0] == kind && header[4..6] == identifier && header[6..8] == sequence).then_some(payload)
    }
}

/// The number of the interface `name` in the calling thread's namespace.
fn index_of(name: &str) -> io::Result<u32> {
    let text = CString::new(name)?;
    // SAFETY: `text` is a C string that outlives the call.
    match unsafe { libc::if_nametoindex(text.as_ptr()) } {
        0 => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}"))),
        index => Ok(index),
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| b.into())).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::skip;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn the_loopback_of_a_fresh_namespace_answers_every_size_over_both_families() {
        let Some(netns) = Netns::create().map_err(|error| skip::say(&error.to_string())).ok() else { return };
        for to in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let mut pinger = Pinger::open(&netns, to, None).unwrap();
            for size in [0, 1, 56, 1473, 10_000, 60_000] {
                pinger.once(size, Duration::from_secs(5)).unwrap();
            }
        }
    }

    #[test]
    fn who_does_not_exist_does_not_answer() {
        let Some(netns) = Netns::create().map_err(|error| skip::say(&error.to_string())).ok() else { return };
        let mut pinger = Pinger::open(&netns, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), None).unwrap();
        let error = pinger.until(10, Duration::from_millis(350)).unwrap_err();
        assert!(matches!(error, PingError::Socket { .. }), "{error}");
        let error = Pinger::open(&netns, IpAddr::V6(Ipv6Addr::LOCALHOST), Some("eth9")).unwrap_err();
        assert!(error.to_string().contains("there is no interface eth9"), "{error}");
    }

    #[test]
    fn the_checksum_is_the_one_rfc_1071_computes() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
