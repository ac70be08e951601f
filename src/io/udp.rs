//! The underlay sockets: WireGuard datagrams in and out, many per syscall.
//!
//! One IPv4 and one IPv6 socket per worker, all on one port. Don't-fragment is always set and the kernel's idea of the
//! path MTU is ignored (IP_PMTUDISC_PROBE): the tunnel finds the path MTU itself and fragments inside.
//!
//! Out: datagrams are sealed one behind the other into a [`SendBatch`]. Consecutive ones of one size to one endpoint
//! form a *run* that leaves as one UDP_SEGMENT send; all runs leave in one `sendmmsg`. Order is never changed.
//! In: a [`ReceiveBatch`] takes up to eight 64 KiB buffers in one `recvmmsg`, each holding a UDP_GRO train of datagrams.

use libc::{c_int, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_storage, socklen_t};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Buffers of one `recvmmsg`. Eight trains of 64 KiB fit a core's second-level cache beside what they turn into.
const RECEIVE_BUFFERS: usize = 8;
/// The largest UDP_GRO train.
const RECEIVE_BYTES: usize = 65_536;
/// Segments of one UDP_SEGMENT send that every kernel takes (UDP_MAX_SEGMENTS; 128 since Linux 6.9).
const MAX_SEGMENTS: usize = 64;
/// Bytes of one UDP_SEGMENT send: 65,535 less the longest IP and UDP headers.
const MAX_RUN_BYTES: usize = 65_535 - 48;
/// Runs before a flush.
const MAX_RUNS: usize = 128;
/// Bytes sealed before a flush: two super-frames, so that the receiver starts while we go on.
const SEND_BYTES: usize = 160 * 1024;
/// Socket buffers asked for: 4 MiB hold 3 ms of 10 Gbit/s.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
const CONTROL_BYTES: usize = 64;

const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;
const SOL_UDP: c_int = 17;
/// linux/socket.h: do not send.
const MSG_PROBE: c_int = 0x10;
/// What SO_MEMINFO (Linux 4.12) answers with: linux/sock_diag.h.
const SK_MEMINFO_VARS: usize = 9;
const SK_MEMINFO_DROPS: usize = 8;

/// Which offloads the sockets use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOffload {
    /// UDP_SEGMENT.
    pub segment: bool,
    /// UDP_GRO.
    pub gro: bool,
}

/// The sockets of one worker. Shared with the control thread, which sends on the first worker's.
#[derive(Debug)]
pub struct UdpSockets {
    /// The IPv4 socket, where the host has IPv4.
    pub v4: Option<Socket>,
    /// The IPv6 socket, where the host has IPv6.
    pub v6: Option<Socket>,
    segment: AtomicBool,
    /// What the kernel's counts of each socket's drops were when they were last taken.
    drops_taken: [AtomicU32; 2],
}

impl UdpSockets {
    /// Binds one set of sockets per worker to `port`.
    ///
    /// # Errors
    /// The port is taken, also by another of our own, or the host has neither IPv4 nor IPv6.
    pub fn bind(port: u16, workers: usize, offload: UdpOffload) -> io::Result<Vec<Self>> {
        if workers > 1 {
            // SO_REUSEPORT would let a second daemon of the same user share our datagrams: look without it first.
            drop(Self::bind_one(port, false, offload)?);
        }
        (0..workers).map(|_| Self::bind_one(port, workers > 1, offload)).collect()
    }

    fn bind_one(port: u16, share: bool, offload: UdpOffload) -> io::Result<Self> {
        let v4 = open(Domain::IPV4, port, share, offload)?;
        let v6 = open(Domain::IPV6, port, share, offload)?;
        if v4.is_none() && v6.is_none() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this host has neither IPv4 nor IPv6"));
        }
        Ok(Self { v4, v6, segment: AtomicBool::new(offload.segment), drops_taken: Default::default() })
    }

    /// What this kernel offers of what is wanted: each as `Ok`, or why not.
    pub fn probe(wanted: UdpOffload) -> [(&'static str, Result<(), String>); 2] {
        let probe = |on: bool, option: c_int, value: c_int| {
            if !on {
                return Err("switched off in the configuration".to_owned());
            }
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).map_err(|e| e.to_string())?;
            set_option(&socket, SOL_UDP, option, value).map_err(|e| format!("not supported by this kernel: {e}"))
        };
        [("udp_segment", probe(wanted.segment, UDP_SEGMENT, 1400)), ("udp_gro", probe(wanted.gro, UDP_GRO, 1))]
    }

    /// Whether runs still leave as UDP_SEGMENT sends; a device that cannot do it switches it off.
    pub fn segments(&self) -> bool {
        self.segment.load(Relaxed)
    }

    /// The receive and send buffer sizes in bytes that the kernel granted.
    pub fn buffer_sizes(&self) -> (usize, usize) {
        let socket = self.v4.as_ref().or(self.v6.as_ref());
        let size = |get: fn(&Socket) -> io::Result<usize>| socket.and_then(|s| get(s).ok()).unwrap_or(0);
        (size(Socket::recv_buffer_size), size(Socket::send_buffer_size))
    }

    /// How many datagrams the kernel dropped since this was last asked, because the receive buffer was full.
    pub fn take_receive_drops(&self) -> u64 {
        let sockets = [&self.v4, &self.v6].into_iter().zip(&self.drops_taken);
        let news = sockets.filter_map(|(socket, taken)| {
            let drops = receive_drops(socket.as_ref()?)?;
            Some(u64::from(drops.wrapping_sub(taken.swap(drops, Relaxed))))
        });
        news.sum()
    }

    /// What is sent to `to` arrives there: the kernel's entry for the neighbour on the way holds on. Otherwise the kernel, to which
    /// datagrams show nothing, asks for it every half minute, and where three such questions are lost lets everything wait for
    /// a second or more.
    ///
    /// Sends nothing (MSG_CONFIRM with MSG_PROBE, Linux 2.3.15). What the kernel says to it does not matter: it is a hint.
    pub fn confirm_neighbour(&self, to: SocketAddr) {
        if let Some(socket) = self.socket_for(&to) {
            let _ = socket.send_to_with_flags(&[], &to.into(), libc::MSG_CONFIRM | MSG_PROBE);
        }
    }

    fn socket_for(&self, to: &SocketAddr) -> Option<&Socket> {
        if to.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }
}

fn open(domain: Domain, port: u16, share: bool, offload: UdpOffload) -> io::Result<Option<Socket>> {
    let socket = match Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP)) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let address: SocketAddr = if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        (Ipv4Addr::UNSPECIFIED, port).into()
    };
    let size = SOCKET_BUFFER as c_int;
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        // Without CAP_NET_ADMIN the system's limit applies; `weft status` warns when that is small.
        if set_option(&socket, libc::SOL_SOCKET, force, size).is_err() {
            let _ = set_option(&socket, libc::SOL_SOCKET, plain, size);
        }
    }
    if offload.gro {
        let _ = set_option(&socket, SOL_UDP, UDP_GRO, 1);
    }
    if share {
        socket.set_reuse_port(true)?;
    }
    match socket.bind(&SockAddr::from(address)) {
        Ok(()) => Ok(Some(socket)),
        // IPv6 switched off by sysctl: the family exists but has no addresses.
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_option(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as socklen_t;
    // SAFETY: the value outlives the call and the length is its own.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's count of what it dropped on a socket; it wraps.
fn receive_drops(socket: &Socket) -> Option<u32> {
    let mut info = [0u32; SK_MEMINFO_VARS];
    let mut length = size_of_val(&info) as socklen_t;
    // SAFETY: the array and its length live until the call returns, and the kernel writes no more than the length says.
    let result = unsafe {
        let info = info.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, info, &raw mut length)
    };
    (result == 0 && length as usize == size_of_val(&info)).then(|| info[SK_MEMINFO_DROPS])
}

/// A cmsg buffer aligned as `cmsghdr` must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams the kernel took.
    pub datagrams: u64,
    /// Datagrams dropped because the send buffer was full.
    pub full: u64,
    /// Datagrams larger than the outgoing interface takes.
    pub too_big: u64,
    /// Where the last of those was going, and its size.
    pub largest: Option<(SocketAddr, usize)>,
    /// Datagrams the kernel refused for another reason.
    pub failed: u64,
}

#[derive(Debug, Clone, Copy)]
struct SendRun {
    to: SocketAddr,
    start: usize,
    bytes: usize,
    segment: usize,
    count: usize,
    closed: bool,
}

/// Datagrams on their way out. Owned by one thread.
pub struct SendBatch {
    buffer: Box<[u8]>,
    used: usize,
    runs: Vec<SendRun>,
    headers: Vec<mmsghdr>,
    vectors: Vec<iovec>,
    names: Vec<SockAddr>,
    controls: Vec<Control>,
}

// SAFETY: the raw pointers inside the header arrays are written and used within one call of `flush` only.
unsafe impl Send for SendBatch {}

impl Default for SendBatch {
    fn default() -> Self {
        Self {
            buffer: vec![0; SEND_BYTES + RECEIVE_BYTES].into_boxed_slice(),
            used: 0,
            runs: Vec::with_capacity(MAX_RUNS),
            headers: Vec::with_capacity(MAX_RUNS),
            vectors: Vec::with_capacity(MAX_RUNS),
            names: Vec::with_capacity(MAX_RUNS),
            controls: Vec::with_capacity(MAX_RUNS),
        }
    }
}

impl SendBatch {
    /// Whether the next datagram should wait for a [`Self::flush`].
    pub fn is_full(&self) -> bool {
        self.used >= SEND_BYTES || self.runs.len() >= MAX_RUNS
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Lends `fill` at least `room` bytes and queues what it used for `to`. Nothing happens when `room` is larger than
    /// any datagram can be.
    pub fn push(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let Some(space) = self.buffer.get_mut(self.used..).filter(|space| space.len() >= room) else { return };
        let Some(bytes) = fill(space).filter(|&bytes| bytes > 0) else { return };
        let start = self.used;
        self.used += bytes;
        if let Some(run) = self.runs.last_mut()
            && !run.closed
            && run.to == to
            && bytes <= run.segment
            && run.count < MAX_SEGMENTS
            && run.bytes + bytes <= MAX_RUN_BYTES
        {
            run.bytes += bytes;
            run.count += 1;
            run.closed = bytes < run.segment;
            return;
        }
        self.runs.push(SendRun { to, start, bytes, segment: bytes, count: 1, closed: false });
    }

    /// Sends everything and starts over. Never blocks: what the kernel does not take at once is dropped and counted.
    pub fn flush(&mut self, sockets: &UdpSockets) -> Sent {
        let mut sent = Sent::default();
        let mut first = 0;
        while first < self.runs.len() {
            let is_v4 = self.runs[first].to.is_ipv4();
            let same = self.runs[first..].iter().take_while(|run| run.to.is_ipv4() == is_v4).count();
            self.send_runs(first..first + same, sockets, &mut sent);
            first += same;
        }
        self.runs.clear();
        self.used = 0;
        sent
    }

    /// Sends runs of one address family in order.
    fn send_runs(&mut self, range: std::ops::Range<usize>, sockets: &UdpSockets, sent: &mut Sent) {
        let count = |runs: &[SendRun]| runs.iter().map(|run| run.count as u64).sum::<u64>();
        let Some(socket) = sockets.socket_for(&self.runs[range.start].to) else {
            sent.failed += count(&self.runs[range]);
            return;
        };
        let mut next = range.start;
        while next < range.end {
            if !sockets.segments() && self.runs[next].count > 1 {
                self.send_singly(socket.as_raw_fd(), self.runs[next], sent);
                next += 1;
                continue;
            }
            let end =
                (next..range.end).find(|&at| !sockets.segments() && self.runs[at].count > 1).unwrap_or(range.end);
            match self.send_many(socket.as_raw_fd(), next..end) {
                Ok(taken) => {
                    sent.datagrams += count(&self.runs[next..next + taken]);
                    next += taken.max(1);
                }
                Err(error) => {
                    let run = self.runs[next];
                    match error.raw_os_error() {
                        Some(libc::EAGAIN | libc::ENOBUFS) => {
                            sent.full += count(&self.runs[next..range.end]);
                            return;
                        }
                        // The device cannot segment (EIO), or the path shrank below the segment size.
                        Some(libc::EIO) if run.count > 1 => {
                            sockets.segment.store(false, Relaxed);
                            self.send_singly(socket.as_raw_fd(), run, sent);
                        }
                        Some(libc::EINVAL | libc::EMSGSIZE) if run.count > 1 => {
                            self.send_singly(socket.as_raw_fd(), run, sent);
                        }
                        Some(libc::EMSGSIZE) => {
                            sent.too_big += run.count as u64;
                            sent.largest = Some((run.to, run.segment));
                        }
                        _ => sent.failed += run.count as u64,
                    }
                    next += 1;
                }
            }
        }
    }

    /// One `sendmmsg` over `range`; returns how many runs the kernel took.
    fn send_many(&mut self, fd: RawFd, range: std::ops::Range<usize>) -> io::Result<usize> {
        let count = range.len();
        self.headers.clear();
        self.vectors.clear();
        self.names.clear();
        self.controls.clear();
        self.headers.reserve(count);
        self.vectors.reserve(count);
        self.names.reserve(count);
        self.controls.reserve(count);
        for run in &self.runs[range] {
            let base: *mut c_void = self.buffer[run.start..run.start + run.bytes].as_mut_ptr().cast();
            self.vectors.push(iovec { iov_base: base, iov_len: run.bytes });
            self.names.push(SockAddr::from(run.to));
            self.controls.push(Control([0; CONTROL_BYTES]));
            // SAFETY: all zeroes is a valid `mmsghdr`.
            self.headers.push(unsafe { zeroed() });
            let last = self.headers.len() - 1;
            let header = &mut self.headers[last].msg_hdr;
            header.msg_iov = &raw mut self.vectors[last];
            header.msg_iovlen = 1;
            header.msg_name = self.names[last].as_ptr().cast_mut().cast();
            header.msg_namelen = self.names[last].len();
            if run.count > 1 {
                put_segment_size(header, &mut self.controls[last], run.segment as u16);
            }
        }
        // SAFETY: every header points at a vector, name and control that live until the call returns; room for all of
        // them was reserved before the first, so pushing has not moved them.
        let taken = unsafe { libc::sendmmsg(fd, self.headers.as_mut_ptr(), self.headers.len() as u32, 0) };
        usize::try_from(taken).map_err(|_| io::Error::last_os_error())
    }

    fn send_singly(&self, fd: RawFd, run: SendRun, sent: &mut Sent) {
        let name = SockAddr::from(run.to);
        for datagram in self.buffer[run.start..run.start + run.bytes].chunks(run.segment) {
            // SAFETY: the slice and the address live until the call returns, with their own lengths.
            let result = unsafe {
                libc::sendto(fd, datagram.as_ptr().cast(), datagram.len(), 0, name.as_ptr().cast(), name.len())
            };
            if result >= 0 {
                sent.datagrams += 1;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS) => sent.full += 1,
                Some(libc::EMSGSIZE) => {
                    sent.too_big += 1;
                    sent.largest = Some((run.to, datagram.len()));
                }
                _ => sent.failed += 1,
            }
        }
    }
}

fn put_segment_size(header: &mut msghdr, control: &mut Control, size: u16) {
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the control buffer is aligned for `cmsghdr` and larger than the space
    // of one u16, so the first header and its data lie inside it.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
        let message: *mut cmsghdr = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = SOL_UDP;
        (*message).cmsg_type = UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(size);
    }
}

/// Datagrams that arrived. Owned by one worker.
pub struct ReceiveBatch {
    buffer: Box<[u8]>,
    headers: [mmsghdr; RECEIVE_BUFFERS],
    vectors: [iovec; RECEIVE_BUFFERS],
    names: [sockaddr_storage; RECEIVE_BUFFERS],
    controls: [Control; RECEIVE_BUFFERS],
    received: usize,
}

// SAFETY: the raw pointers are rebuilt from `self` at the start of every `receive` and used within it only.
unsafe impl Send for ReceiveBatch {}

/// A train of datagrams from one address.
pub struct Train<'a> {
    /// Who sent them.
    pub from: SocketAddr,
    /// All datagrams, one behind the other.
    pub bytes: &'a [u8],
    /// The size of each but the last, which may be shorter.
    pub stride: usize,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        // SAFETY: all zeroes is valid for these plain C structures.
        let (headers, vectors, names) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            buffer: vec![0; RECEIVE_BUFFERS * RECEIVE_BYTES].into_boxed_slice(),
            headers,
            vectors,
            names,
            controls: [Control([0; CONTROL_BYTES]); RECEIVE_BUFFERS],
            received: 0,
        }
    }
}

impl ReceiveBatch {
    /// Takes what has arrived, without waiting; returns whether a further call may find more. A batch that is not full
    /// has emptied the socket: recvmmsg(2) ends one early only where a further message would block, or at an error,
    /// which it keeps for the next call.
    ///
    /// # Errors
    /// Whatever `recvmmsg` says beyond "nothing there"; an ICMP error of an earlier send is not one.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<bool> {
        self.received = 0;
        for (i, buffer) in self.buffer.chunks_exact_mut(RECEIVE_BYTES).enumerate() {
            self.vectors[i] = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: RECEIVE_BYTES };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
            header.msg_flags = 0;
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: each header points into buffers owned by `self` with their own lengths, which outlive the call.
        let count = unsafe {
            let headers = self.headers.as_mut_ptr();
            libc::recvmmsg(socket.as_raw_fd(), headers, RECEIVE_BUFFERS as u32, flags, std::ptr::null_mut())
        };
        match usize::try_from(count) {
            Ok(count) => {
                self.received = count;
                Ok(count == RECEIVE_BUFFERS)
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(true),
                error if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(true),
                error => Err(error),
            },
        }
    }

    /// What the last [`Self::receive`] took.
    pub fn trains(&self) -> impl Iterator<Item = Train<'_>> {
        (0..self.received).filter_map(|i| {
            let length = (self.headers[i].msg_len as usize).min(RECEIVE_BYTES);
            let bytes = &self.buffer[i * RECEIVE_BYTES..][..length];
            let from = address(&self.names[i])?;
            let stride = gro_size(&self.headers[i].msg_hdr).unwrap_or(length);
            Some(Train { from, bytes, stride })
        })
    }
}

fn address(name: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a `sockaddr_in`, which is smaller than the storage.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            Some((Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a `sockaddr_in6`, which is smaller than the storage.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let (ip, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
            Some(std::net::SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn gro_size(header: &msghdr) -> Option<usize> {
    // SAFETY: the kernel filled the control buffer that the header points to, and set its length; the CMSG functions stay
    // inside it, and UDP_GRO's data is an int.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == SOL_UDP && (*message).cmsg_type == UDP_GRO {
                let size = libc::CMSG_DATA(message).cast::<c_int>().read_unaligned();
                return usize::try_from(size).ok().filter(|&size| size > 0);
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}
