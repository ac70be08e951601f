//! One connection: its socket, what was read of a datagram so far, and what could not be written yet.

use super::Limits;
use crate::wire::key::PublicKey;
use crate::wire::stream::{Decoder, PreambleKey};
use mio::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Bytes that wait for a connection to take them: four super-frames. More would only grow old.
const MAX_UNSENT: usize = 256 * 1024;
/// What a buffer that is empty again may keep.
const KEPT: usize = 16 * 1024;
/// Bytes in the kernel's buffer that it has not sent: beyond, datagrams wait here, where they can be dropped.
const KERNEL_UNSENT: u32 = 128 * 1024;
/// How long sent bytes may stay unacknowledged: then the kernel ends the connection, and another way is looked for.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How often a silent connection is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes read of one connection before the others get their turn.
const READ_BUDGET: usize = 256 * 1024;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// We called and nobody has answered.
    Connecting,
    /// Nothing authentic has come.
    Unproven,
    /// Something authentic came.
    Proven,
}

/// Why a connection is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Closed or broken by the other side or the network.
    Gone,
    /// What came was not our format.
    Foreign,
}

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// The address at its other end.
    pub(super) address: SocketAddr,
    /// Whom we called; `None` if we were called.
    pub(super) to: Option<PublicKey>,
    pub(super) phase: Phase,
    /// When its phase began, or when something authentic came last.
    since: Instant,
    decoder: Decoder,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent.
    sent: usize,
}

impl Connection {
    /// Somebody called.
    pub(super) fn of_caller(now: Instant, stream: TcpStream, address: SocketAddr, key: PreambleKey) -> Self {
        Self::new(now, stream, address, None, Decoder::of_caller(key), &[])
    }

    /// We call `to`, and will say this first.
    pub(super) fn of_called(
        now: Instant,
        stream: TcpStream,
        address: SocketAddr,
        to: PublicKey,
        preamble: &[u8],
    ) -> Self {
        Self::new(now, stream, address, Some(to), Decoder::of_called(), preamble)
    }

    fn new(
        now: Instant,
        stream: TcpStream,
        address: SocketAddr,
        to: Option<PublicKey>,
        decoder: Decoder,
        preamble: &[u8],
    ) -> Self {
        let socket = SockRef::from(&stream);
        // Each of them only makes it better: without, a connection still works.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_notsent_lowat(KERNEL_UNSENT);
        let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE));
        let phase = if to.is_some() { Phase::Connecting } else { Phase::Unproven };
        Self { stream, address, to, phase, since: now, decoder, unsent: preamble.to_vec(), sent: 0 }
    }

    /// When to give it up unless something happens.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        self.since
            + match self.phase {
                Phase::Connecting => limits.connect,
                Phase::Unproven => limits.prove,
                Phase::Proven => limits.idle,
            }
    }

    /// When its phase began.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// It may have been answered. Whether it is connected from here on.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn answered(&mut self, now: Instant) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                (self.phase, self.since) = (Phase::Unproven, now);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Something authentic came.
    pub(super) fn prove(&mut self, now: Instant) {
        (self.phase, self.since) = (Phase::Proven, now);
    }

    /// Hands the datagrams that have come to `take`; says whether more may wait.
    pub(super) fn read(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<bool, End> {
        let mut budget = READ_BUDGET;
        while budget > 0 {
            match self.stream.read(buffer) {
                Ok(0) => return Err(End::Gone),
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.decoder.input(bytes, &mut take).map_err(|_| End::Foreign)?;
                    budget = budget.saturating_sub(length);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(End::Gone),
            }
        }
        Ok(true)
    }

    /// Takes a framed datagram for the next [`Self::write`]; `false` if there is no room.
    pub(super) fn push(&mut self, framed: &[u8]) -> bool {
        let fits = self.unsent.len() - self.sent + framed.len() <= MAX_UNSENT;
        if fits {
            self.unsent.extend_from_slice(framed);
        }
        fits
    }

    /// Writes what the kernel takes.
    pub(super) fn write(&mut self) -> Result<(), End> {
        if self.phase == Phase::Connecting {
            return Ok(());
        }
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(End::Gone),
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // What is sent moves out once there is as much of it as of the rest: each byte is moved once.
                    if self.sent >= self.unsent.len() / 2 {
                        self.unsent.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(End::Gone),
            }
        }
        self.unsent.clear();
        self.unsent.shrink_to(KEPT);
        self.sent = 0;
        Ok(())
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 /64.
pub(super) fn source(address: &SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}
