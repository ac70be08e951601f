//! UDP between two namespaces: many small datagrams, single ones back and forth, and one of every size.
//!
//! Small datagrams go through sendmmsg(2) and recvmmsg(2) in batches, without segmentation offload: what is measured
//! is the path, which meets every one of them, not the generator's syscalls.

use super::Stop;
use super::generator::{TrafficError, joined};
use crate::io::netns::Netns;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Datagrams per syscall.
const BATCH: usize = 64;
/// The largest UDP payload an IPv4 packet carries.
pub const MAX_DATAGRAM: usize = 65_535 - 20 - 8;
/// How long a receiver waits for a datagram before it looks whether it should end.
const SLICE: Duration = Duration::from_millis(100);
/// How long one try of an echo lasts, and how many there are: UDP may lose, an MTU problem loses every time.
const ECHO_TRY: Duration = Duration::from_millis(500);
/// See [`ECHO_TRY`].
const ECHO_TRIES: usize = 5;
/// Receive buffer asked for; a stranger's limit on it is not ours to change.
const BUFFER: usize = 4 << 20;

/// What a flood of datagrams came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flood {
    /// Datagrams the sender's kernel took.
    pub offered: u64,
    /// Datagrams the receiver got.
    pub delivered: u64,
    /// For how long.
    pub seconds: f64,
}

impl Flood {
    /// 1000 datagrams a second that the receiver got.
    pub fn delivered_kpps(&self) -> f64 {
        self.delivered as f64 / 1e3 / self.seconds
    }

    /// 1000 datagrams a second that the sender's kernel took.
    pub fn offered_kpps(&self) -> f64 {
        self.offered as f64 / 1e3 / self.seconds
    }
}

/// Sends datagrams of `size` bytes from `from` to `to`, which has the address `address`, as fast as they are taken.
///
/// # Errors
/// [`TrafficError`]; losing datagrams is none.
pub fn flood(
    from: &Netns,
    to: &Netns,
    address: SocketAddr,
    size: usize,
    duration: Duration,
    stop: &Stop,
) -> Result<Flood, TrafficError> {
    let (sender, receiver) = sockets(from, to, address)?;
    receiver.set_read_timeout(Some(SLICE)).map_err(TrafficError::socket("set a timeout"))?;
    sender.set_write_timeout(Some(SLICE)).map_err(TrafficError::socket("set a timeout"))?;
    let end = Instant::now() + duration;
    let (offered, delivered) = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| count(&receiver, size, end, stop));
        let offered = offer(&sender, size, end, stop);
        (offered, joined(receiving))
    });
    if stop.is_set() {
        return Err(TrafficError::Interrupted);
    }
    Ok(Flood { offered: offered?, delivered: delivered?, seconds: duration.as_secs_f64() })
}

/// Round-trip times of single datagrams, sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoundTrips(Vec<Duration>);

impl RoundTrips {
    /// The round-trip time in µs that `share` (0 to 1) of the datagrams did not exceed.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.0.get(at.min(last)).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Sends datagrams of `size` bytes one at a time, each after the answer to the one before, for `duration`.
///
/// # Errors
/// [`TrafficError`]; a datagram that is lost costs [`ECHO_TRY`] and is left out.
pub fn ping_pong(
    from: &Netns,
    to: &Netns,
    address: SocketAddr,
    size: usize,
    duration: Duration,
    stop: &Stop,
) -> Result<RoundTrips, TrafficError> {
    with_echo(from, to, address, stop, |client| {
        let end = Instant::now() + duration;
        let (mut times, mut buffer, mut number) = (Vec::new(), [0; MAX_DATAGRAM], 0u64);
        while Instant::now() < end {
            number += 1;
            let request = content(size.max(8), number);
            let begun = Instant::now();
            if echo(client, &request, &mut buffer)? {
                times.push(begun.elapsed());
            }
            if stop.is_set() {
                return Err(TrafficError::Interrupted);
            }
        }
        times.sort_unstable();
        if times.is_empty() { Err(no_answer(size, address)) } else { Ok(RoundTrips(times)) }
    })
}

/// Sends one datagram of each of `sizes` and has it come back, every byte compared. Returns how many there were.
///
/// # Errors
/// [`TrafficError`]; a size that never comes back is named.
pub fn every_size(
    from: &Netns,
    to: &Netns,
    address: SocketAddr,
    sizes: impl Iterator<Item = usize>,
    stop: &Stop,
) -> Result<usize, TrafficError> {
    with_echo(from, to, address, stop, |client| {
        let (mut buffer, mut passed, mut number) = ([0; MAX_DATAGRAM], 0, 0);
        for size in sizes {
            let mut came_back = false;
            for _ in 0..ECHO_TRIES {
                if stop.is_set() {
                    return Err(TrafficError::Interrupted);
                }
                number += 1;
                came_back = echo(client, &content(size, number), &mut buffer)?;
                if came_back {
                    break;
                }
            }
            if !came_back {
                return Err(no_answer(size, address));
            }
            passed += 1;
        }
        Ok(passed)
    })
}

fn no_answer(size: usize, address: SocketAddr) -> TrafficError {
    TrafficError::Wrong(format!("UDP datagrams of {size} bytes to {} do not come back", address.ip()))
}

/// Runs `client` on a socket whose peer sends everything back.
fn with_echo<T>(
    from: &Netns,
    to: &Netns,
    address: SocketAddr,
    stop: &Stop,
    client: impl FnOnce(&UdpSocket) -> Result<T, TrafficError>,
) -> Result<T, TrafficError> {
    let (near, far) = sockets(from, to, address)?;
    near.set_read_timeout(Some(ECHO_TRY)).map_err(TrafficError::socket("set a timeout"))?;
    far.set_read_timeout(Some(SLICE)).map_err(TrafficError::socket("set a timeout"))?;
    let over = Stop::default();
    std::thread::scope(|scope| {
        let echoing = scope.spawn(|| {
            let mut buffer = [0; MAX_DATAGRAM];
            while !over.is_set() && !stop.is_set() {
                if let Ok((length, peer)) = far.recv_from(&mut buffer) {
                    // A queue that is full loses the answer; the client asks again.
                    let _ = far.send_to(&buffer[..length], peer);
                }
            }
        });
        let outcome = client(&near);
        over.set();
        joined(echoing);
        outcome
    })
}

/// One datagram there and back. `false` says that nothing came within [`ECHO_TRY`].
fn echo(client: &UdpSocket, request: &[u8], buffer: &mut [u8]) -> Result<bool, TrafficError> {
    let refused = || TrafficError::socket(format!("echo a UDP datagram of {} bytes", request.len()));
    match client.send(request) {
        Ok(_) => {}
        Err(error) if is_passing(&error) => return Ok(false),
        Err(error) => return Err(refused()(error)),
    }
    let begun = Instant::now();
    while begun.elapsed() < ECHO_TRY {
        match client.recv(buffer) {
            Ok(length) if buffer[..length] == *request => return Ok(true),
            // The late answer to an earlier try differs in its number; an answer of this size that does not is wrong.
            Ok(length) if length == request.len() && buffer[..length.min(8)] == request[..length.min(8)] => {
                return Err(TrafficError::Wrong(format!("a UDP datagram of {length} bytes came back changed")));
            }
            Ok(_) => {}
            Err(error) if is_passing(&error) => return Ok(false),
            Err(error) => return Err(refused()(error)),
        }
    }
    Ok(false)
}

/// Nothing arrived, no buffer, or somebody on the way said something in ICMP: UDP goes on.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, TimedOut, WouldBlock};
    let kinds = [WouldBlock, TimedOut, Interrupted, ConnectionRefused, HostUnreachable, NetworkUnreachable];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// What a datagram of `size` bytes with this number is made of: the number, as far as there is room, and bytes that
/// differ from their neighbours and from those of the datagram before.
fn content(size: usize, number: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size as u64).map(|i| (i ^ (i >> 8) ^ number.wrapping_mul(31)) as u8).collect();
    for (to, from) in bytes.iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    bytes
}

/// A socket in `from` connected to one in `to` at `address`.
fn sockets(from: &Netns, to: &Netns, address: SocketAddr) -> Result<(UdpSocket, UdpSocket), TrafficError> {
    let receiver = to.run(|| UdpSocket::bind(SocketAddr::new(address.ip(), 0))).and_then(|inner| inner);
    let receiver = receiver.map_err(TrafficError::socket(format!("bind a UDP socket to {}", address.ip())))?;
    let failed = || TrafficError::socket(format!("connect a UDP socket to {}", address.ip()));
    let target = SocketAddr::new(address.ip(), receiver.local_addr().map_err(failed())?.port());
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let open = || {
        let sender = UdpSocket::bind(any)?;
        sender.connect(target)?;
        Ok(sender)
    };
    let sender = from.run(open).and_then(|inner| inner).map_err(failed())?;
    for socket in [&sender, &receiver] {
        // The kernel grants what net.core.rmem_max allows.
        let _ = socket2::SockRef::from(socket).set_recv_buffer_size(BUFFER);
    }
    Ok((sender, receiver))
}

/// Sends batches until `end`.
fn offer(socket: &UdpSocket, size: usize, end: Instant, stop: &Stop) -> Result<u64, TrafficError> {
    let mut batch = Batch::new(size);
    let mut offered = 0;
    while Instant::now() < end && !stop.is_set() {
        match batch.send(socket) {
            Ok(sent) => offered += sent as u64,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(TrafficError::socket("send UDP datagrams")(error)),
        }
    }
    Ok(offered)
}

/// Counts what arrives until `end`: what is queued by then came too late to be part of the rate.
fn count(socket: &UdpSocket, size: usize, end: Instant, stop: &Stop) -> Result<u64, TrafficError> {
    let mut batch = Batch::new(size);
    let mut delivered = 0;
    while Instant::now() < end && !stop.is_set() {
        match batch.receive(socket) {
            Ok(received) => delivered += received as u64,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(TrafficError::socket("receive UDP datagrams")(error)),
        }
    }
    Ok(delivered)
}

/// The buffers and headers of one sendmmsg or recvmmsg. The headers point into the buffers, which never move: they
/// are owned boxed slices that nobody replaces.
struct Batch {
    headers: Box<[libc::mmsghdr]>,
    _vectors: Box<[libc::iovec]>,
    _bytes: Box<[u8]>,
}

impl Batch {
    fn new(size: usize) -> Self {
        let mut bytes = content(size, 1).repeat(BATCH).into_boxed_slice();
        let base = bytes.as_mut_ptr();
        let mut vectors: Box<[libc::iovec]> = (0..BATCH)
            // `i * size` lies within `bytes`, whose length is `BATCH * size`.
            .map(|i| libc::iovec { iov_base: base.wrapping_add(i * size).cast(), iov_len: size })
            .collect();
        let base = vectors.as_mut_ptr();
        let headers = (0..BATCH).map(|i| {
            // SAFETY: mmsghdr is plain old data, for which all zeroes is a value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = base.wrapping_add(i);
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let headers = headers.collect();
        Self { headers, _vectors: vectors, _bytes: bytes }
    }

    /// How many datagrams the kernel took.
    fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: the headers and all they point to are owned by `self`, which is borrowed for the call.
        let n = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), BATCH as u32, 0) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// How many datagrams came: at least one, unless none does within the socket's timeout.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_WAITFORONE);
        // SAFETY: as for `send`; the kernel writes within the lengths the vectors give. No timeout is passed.
        let n = unsafe { libc::recvmmsg(fd, self.headers.as_mut_ptr(), BATCH as u32, flags, std::ptr::null_mut()) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::skip;

    fn loopback() -> Option<(Netns, SocketAddr)> {
        let netns = Netns::create().map_err(|error| skip::say(&error.to_string())).ok()?;
        Some((netns, "127.0.0.1:0".parse().unwrap()))
    }

    #[test]
    fn a_flood_over_loopback_is_counted() {
        let Some((netns, address)) = loopback() else { return };
        let flood = flood(&netns, &netns, address, 64, Duration::from_millis(300), &Stop::default()).unwrap();
        assert!(flood.delivered > 1000 && flood.delivered <= flood.offered, "{flood:?}");
    }

    #[test]
    fn datagrams_go_there_and_back() {
        let Some((netns, address)) = loopback() else { return };
        let times = ping_pong(&netns, &netns, address, 64, Duration::from_millis(200), &Stop::default()).unwrap();
        assert!(times.count() > 100);
        assert!(times.percentile(0.5) > 0.0 && times.percentile(0.5) <= times.percentile(0.99));
    }

    #[test]
    fn every_size_of_datagram_comes_back_whole() {
        let Some((netns, address)) = loopback() else { return };
        let sizes = (0..600).chain([1471, 1472, 1473, 9000, MAX_DATAGRAM]);
        assert_eq!(every_size(&netns, &netns, address, sizes, &Stop::default()).unwrap(), 605);
    }

    #[test]
    fn a_size_that_never_comes_back_is_named() {
        let Some((netns, address)) = loopback() else { return };
        let error = every_size(&netns, &netns, address, std::iter::once(70_000), &Stop::default()).unwrap_err();
        assert!(error.to_string().contains("70000"), "{error}");
    }
}
