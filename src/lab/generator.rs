//! Bulk TCP between two namespaces, and what arrived of it.
//!
//! Sockets are made inside the namespaces; the threads that drive them need not be there. Every block sent is a part
//! of one endless pattern, and the receiver compares both ends of whatever each read brings with it: bytes lost,
//! doubled or swapped would shift the pattern, at a price too low to show in the figure.

use super::Stop;
use super::link::Random;
use crate::io::netns::Netns;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes per read and write, as iperf3 has it; also the period of the pattern.
const BLOCK: usize = 128 << 10;
/// How much of each end of a read is compared.
const COMPARED: usize = 64;
/// A connection that moves nothing for this long is called stalled.
const STALLED: Duration = Duration::from_secs(10);
/// How long a blocking call lasts before the thread looks at the clock and at [`Stop`].
const SLICE: Duration = Duration::from_millis(200);

/// Traffic that could not be generated, or did not arrive as it was sent.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A socket refused.
    #[error("cannot {what}: {source}")]
    Socket {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing moved.
    #[error("{what} stood still for {} s", .waited.as_secs())]
    Stalled {
        /// What stood still.
        what: String,
        /// For how long.
        waited: Duration,
    },
    /// Something else arrived than was sent.
    #[error("{0}")]
    Wrong(String),
    /// Somebody wants us to end.
    #[error("interrupted")]
    Interrupted,
}

impl TrafficError {
    pub(super) fn socket(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Socket { what, source }
    }
}

/// What a bulk transfer moved.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bulk {
    /// Bytes the receivers got, all streams.
    pub bytes: u64,
    /// From the first byte to the last.
    pub seconds: f64,
    /// Segments the senders sent again (`tcpi_total_retrans` of tcp(7)), all streams.
    pub retransmits: u64,
}

impl Bulk {
    /// 10⁹ bits a second, as the receivers saw it.
    pub fn gbps(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8.0 / 1e9 / self.seconds } else { 0.0 }
    }
}

/// Sends TCP from `from` to `to`, which has the address `address`, over `streams` connections for `duration`.
///
/// # Errors
/// [`TrafficError`]; a byte that is lost or wrong is one.
pub fn bulk_tcp(
    from: &Netns,
    to: &Netns,
    address: SocketAddr,
    streams: usize,
    duration: Duration,
    stop: &Stop,
) -> Result<Bulk, TrafficError> {
    let pairs = (0..streams).map(|_| connect(from, to, address)).collect::<Result<Vec<_>, _>>()?;
    let pattern: Arc<[u8]> = pattern().into();
    let start = Instant::now();
    let totals = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (sender, receiver) in pairs {
            let (of_sender, of_receiver) = (&pattern, &pattern);
            let sending = scope.spawn(move || send(sender, of_sender, start + duration, stop));
            threads.push((sending, scope.spawn(move || receive(receiver, of_receiver, stop))));
        }
        threads.into_iter().map(|(sending, receiving)| (joined(sending), joined(receiving))).collect::<Vec<_>>()
    });
    let mut moved = Bulk::default();
    for (sent, received) in totals {
        let ((sent, again), (bytes, end)) = (sent?, received?);
        if bytes != sent {
            return Err(TrafficError::Wrong(format!("{sent} bytes were sent over TCP and {bytes} arrived")));
        }
        moved.bytes += bytes;
        moved.retransmits += again;
        moved.seconds = moved.seconds.max((end - start).as_secs_f64());
    }
    Ok(moved)
}

/// Sends `text`, `times` over, through TCP from `from` to `to`, which has the address `address`, and compares.
///
/// # Errors
/// [`TrafficError`].
pub fn send_text(
    from: &Netns,
    to: &Netns,
    address: SocketAddr,
    text: &[u8],
    times: usize,
    stop: &Stop,
) -> Result<(), TrafficError> {
    let (mut sender, mut receiver) = connect(from, to, address)?;
    let whole = text.repeat(times);
    let (sent, received) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let (mut done, mut moved) = (0, Instant::now());
            while done < whole.len() {
                match sender.write(&whole[done..]) {
                    Ok(bytes) => (done, moved) = (done + bytes, Instant::now()),
                    Err(error) => try_again(error, "sending over TCP", moved, stop)?,
                }
            }
            sender.shutdown(Shutdown::Write).map_err(TrafficError::socket("end a TCP connection"))
        });
        let (mut all, mut buffer, mut moved) = (Vec::new(), vec![0; BLOCK], Instant::now());
        let received = loop {
            match receiver.read(&mut buffer) {
                Ok(0) => break Ok(all),
                Ok(bytes) => {
                    all.extend_from_slice(&buffer[..bytes]);
                    moved = Instant::now();
                }
                Err(error) => {
                    if let Err(error) = try_again(error, "receiving over TCP", moved, stop) {
                        break Err(error);
                    }
                }
            }
        };
        (joined(sending), received)
    });
    sent?;
    if received? == whole {
        Ok(())
    } else {
        Err(TrafficError::Wrong("TCP delivered another text than was sent".into()))
    }
}

/// A panic of a generator's thread is ours.
pub(super) fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A TCP connection between two namespaces, over which blocking calls return after [`SLICE`] at the latest.
fn connect(from: &Netns, to: &Netns, address: SocketAddr) -> Result<(TcpStream, TcpStream), TrafficError> {
    let pair = || {
        let (sender, receiver) = tcp_pair(from, to, address.ip(), STALLED)?;
        sender.set_write_timeout(Some(SLICE))?;
        receiver.set_read_timeout(Some(SLICE))?;
        Ok((sender, receiver))
    };
    pair().map_err(TrafficError::socket(format!("connect to {}", address.ip())))
}

/// Both ends of a TCP connection from one namespace to `address` in another.
///
/// # Errors
/// A socket refused, or either end is not connected within `patience`: when the network dies between the last two
/// messages of the handshake, the connecting end believes in a connection that the other never gets.
pub fn tcp_pair(from: &Netns, to: &Netns, address: IpAddr, patience: Duration) -> io::Result<(TcpStream, TcpStream)> {
    let listener = to.run(|| listener(address, patience))??;
    let target = listener.local_addr()?;
    let sender = from.run(|| TcpStream::connect_timeout(&target, patience))??;
    let (receiver, _) = listener.accept()?;
    // It has the listener's patience, which was not for reading.
    receiver.set_read_timeout(None)?;
    Ok((sender, receiver))
}

/// A listener on a free port that waits for a connection for `patience` at most.
fn listener(address: IpAddr, patience: Duration) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, 0))?;
    // It bounds accept(2), too (socket(7)).
    socket2::SockRef::from(&listener).set_read_timeout(Some(patience))?;
    Ok(listener)
}

fn pattern() -> Vec<u8> {
    let mut random = Random(0x7765_6674);
    (0..BLOCK / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect()
}

/// Sends the pattern over and over until `end`, and returns how many bytes, and how many segments went twice.
fn send(mut stream: TcpStream, pattern: &[u8], end: Instant, stop: &Stop) -> Result<(u64, u64), TrafficError> {
    let (mut sent, mut moved) = (0u64, Instant::now());
    while Instant::now() < end {
        if stop.is_set() {
            return Err(TrafficError::Interrupted);
        }
        let at = (sent % BLOCK as u64) as usize;
        match stream.write(&pattern[at..]) {
            Ok(bytes) => (sent, moved) = (sent + bytes as u64, Instant::now()),
            Err(error) => try_again(error, "sending over TCP", moved, stop)?,
        }
    }
    stream.shutdown(Shutdown::Write).map_err(TrafficError::socket("end a TCP connection"))?;
    let again = retransmits(&stream).map_err(TrafficError::socket("ask for TCP's retransmissions"))?;
    Ok((sent, again))
}

/// How many segments of a connection were sent more than once so far.
fn retransmits(stream: &TcpStream) -> io::Result<u64> {
    // SAFETY: tcp_info is plain old data, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, name, into) = (libc::IPPROTO_TCP, libc::TCP_INFO, &raw mut info);
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has as many, and both outlive the call.
    match unsafe { libc::getsockopt(stream.as_raw_fd(), level, name, into.cast(), &mut length) } {
        0 => Ok(info.tcpi_total_retrans.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads to the end of the stream, and returns how many bytes it had and when the last one came.
fn receive(mut stream: TcpStream, pattern: &[u8], stop: &Stop) -> Result<(u64, Instant), TrafficError> {
    let mut buffer = vec![0u8; BLOCK];
    let (mut received, mut moved) = (0u64, Instant::now());
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((received, moved)),
            Ok(bytes) => {
                let head = bytes.min(COMPARED);
                let tail = bytes - head;
                for range in [0..head, tail..bytes] {
                    if !is_part_of(pattern, received + range.start as u64, &buffer[range.clone()]) {
                        let at = received + range.start as u64;
                        return Err(TrafficError::Wrong(format!("TCP delivered wrong bytes at offset {at}")));
                    }
                }
                (received, moved) = (received + bytes as u64, Instant::now());
            }
            Err(error) => try_again(error, "receiving over TCP", moved, stop)?,
        }
    }
}

/// Whether `bytes` are those of the endless pattern at `offset`.
fn is_part_of(pattern: &[u8], offset: u64, bytes: &[u8]) -> bool {
    let at = (offset % pattern.len() as u64) as usize;
    let first = bytes.len().min(pattern.len() - at);
    bytes[..first] == pattern[at..at + first] && bytes[first..] == pattern[..bytes.len() - first]
}

/// Whether a blocking call that failed is worth another try: it only ran out of its slice.
fn try_again(error: io::Error, what: &str, moved: Instant, stop: &Stop) -> Result<(), TrafficError> {
    if stop.is_set() {
        return Err(TrafficError::Interrupted);
    }
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            if moved.elapsed() < STALLED =>
        {
            Ok(())
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Err(TrafficError::Stalled { what: what.to_owned(), waited: STALLED })
        }
        _ => Err(TrafficError::socket(what)(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::skip;

    #[test]
    fn bulk_tcp_over_loopback_arrives_whole() {
        let Some(netns) = Netns::create().map_err(|error| skip::say(&error.to_string())).ok() else { return };
        let address = "127.0.0.1:0".parse().unwrap();
        for streams in [1, 3] {
            let moved =
                bulk_tcp(&netns, &netns, address, streams, Duration::from_millis(300), &Stop::default()).unwrap();
            assert!(moved.bytes > 1 << 20 && moved.gbps() > 0.1, "{moved:?}");
        }
    }

    #[test]
    fn a_connection_that_never_comes_is_not_waited_for_for_ever() {
        let listener = listener("127.0.0.1".parse().unwrap(), Duration::from_millis(50)).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_connection_is_waited_for_no_longer_than_allowed_and_read_from_for_ever() {
        let Some(netns) = Netns::create().map_err(|error| skip::say(&error.to_string())).ok() else { return };
        let pair = tcp_pair(&netns, &netns, "127.0.0.1".parse().unwrap(), Duration::from_millis(50)).unwrap();
        assert_eq!((pair.0.read_timeout().unwrap(), pair.1.read_timeout().unwrap()), (None, None));
    }

    #[test]
    fn a_shifted_or_changed_pattern_is_noticed() {
        let pattern = pattern();
        let mut doubled = pattern.clone();
        doubled.extend(&pattern);
        for offset in [0, 1, BLOCK - 3, BLOCK, BLOCK + 9] {
            let at = offset % BLOCK;
            assert!(is_part_of(&pattern, offset as u64, &doubled[at..at + COMPARED]));
            assert!(!is_part_of(&pattern, offset as u64 + 1, &doubled[at..at + COMPARED]));
        }
    }

    #[test]
    fn a_stop_ends_a_transfer_that_cannot_move() {
        let Some(netns) = Netns::create().map_err(|error| skip::say(&error.to_string())).ok() else { return };
        let (sender, _unread) = connect(&netns, &netns, "127.0.0.1:0".parse().unwrap()).unwrap();
        let stop = Stop::default();
        stop.set();
        let end = Instant::now() + Duration::from_secs(60);
        assert!(matches!(send(sender, &pattern(), end, &stop), Err(TrafficError::Interrupted)));
    }
}
