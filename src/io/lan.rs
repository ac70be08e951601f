//! Beacons on our LANs: the thread that sends and hears them. What they say and mean is in [`crate::mesh::beacon`].
//!
//! Interfaces come and go, so they are looked for again before each sending: every Ethernet interface that is on and
//! connected, whatever its kind, but none that leads into the networks we make ourselves: an address found through them
//! would be one of a tunnel through itself.
//!
//! That a beacon comes from the link and not from far away follows from how it is heard: over IPv4 only what was sent to
//! the group, which no router forwards with a TTL of 1; over IPv6 only what comes from a link-local address.

use super::finders::Latest;
use super::netlink::{Link, Netlink};
use super::outbox::{Notice, PortTable};
use super::{clocks, random};
use crate::mesh::beacon::{self, Beacons, GROUP_V4, GROUP_V6, PORT};
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use arc_swap::ArcSwap;
use crossbeam::channel::Sender;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const V4: Token = Token(0);
const V6: Token = Token(1);
const WAKE: Token = Token(2);
/// Interfaces that beacons are sent on: as many groups as Linux lets a socket join (igmp_max_memberships).
const MAX_INTERFACES: usize = 20;
/// Datagrams read before something else gets its turn.
const READ_BUDGET: usize = 64;
/// A beacon, and what later versions may add.
const READ_BYTES: usize = 512;

/// Whether a datagram to `to` is a beacon.
pub fn is_beacon(to: &SocketAddr, payload: &[u8]) -> bool {
    let group = [IpAddr::V4(GROUP_V4), IpAddr::V6(GROUP_V6)].contains(&to.ip());
    group && to.port() == PORT && beacon::is_beacon(payload)
}

/// What control keeps of the running thread.
pub struct Lan {
    known: Latest<Vec<PublicKey>>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lan {
    /// Starts to say on the LANs of this network namespace that the member `own` listens on the UDP port `listen_port`,
    /// and to look for others. The ports in `table` are not LANs.
    ///
    /// # Errors
    /// The host has neither IPv4 nor IPv6, or the kernel refused a socket or a thread.
    pub fn start(
        own: PublicKey,
        listen_port: u16,
        table: Arc<ArcSwap<PortTable>>,
        notices: Sender<Notice>,
    ) -> io::Result<Self> {
        let (poll, v4, v6) = (Poll::new()?, open_v4()?, open_v6()?);
        for (socket, token) in [(&v4, V4), (&v6, V6)] {
            if let Some(socket) = socket {
                poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
            }
        }
        if v4.is_none() && v6.is_none() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this host has neither IPv4 nor IPv6"));
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (known, stop) = (Latest::default(), Arc::new(AtomicBool::new(false)));
        let beacons = Beacons::new(Instant::now(), own, listen_port);
        let interfaces = BTreeSet::new();
        let ears =
            Ears { poll, v4, v6, interfaces, beacons, table, notices, known: known.clone(), stop: stop.clone() };
        let thread = std::thread::Builder::new().name("weft-lan".to_owned()).spawn(move || ears.run())?;
        Ok(Self { known, waker, stop, thread: Some(thread) })
    }

    /// Looks for these members, and no others. What is found is told by [`Notice::Seen`].
    pub fn set_known(&self, keys: Vec<PublicKey>) {
        self.known.put(keys);
        let _ = self.waker.wake();
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Ears {
    poll: Poll,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// Where the groups were joined.
    interfaces: BTreeSet<u32>,
    beacons: Beacons,
    table: Arc<ArcSwap<PortTable>>,
    notices: Sender<Notice>,
    known: Latest<Vec<PublicKey>>,
    stop: Arc<AtomicBool>,
}

impl Ears {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut more = false;
        while !self.stop.load(Relaxed) {
            let pause = self.beacons.next_deadline().saturating_duration_since(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(if more { Duration::ZERO } else { pause }))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::warn!("members on the LAN are no longer looked for: {error}");
                return;
            }
            if let Some(known) = self.known.take(Some(Duration::ZERO)) {
                self.beacons.set_known(Instant::now(), known);
            }
            more = self.hear();
            self.speak();
        }
    }

    /// Takes the beacons that have come; says whether more may wait.
    fn hear(&mut self) -> bool {
        let (unix, now) = clocks();
        let mut buffer = [0; READ_BYTES];
        let mut more = false;
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            let mut left = READ_BUDGET;
            // An error is that of a datagram sent earlier, or there is nothing more.
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default();
                if is_on_link(&from)
                    && let Some((key, address)) = self.beacons.input(now, unix, from, bytes)
                {
                    // When control's queue is full, the next beacon but a few tells it again.
                    let _ = self.notices.try_send(Notice::Seen { key, address });
                }
                left -= 1;
                if left == 0 {
                    more = true;
                    break;
                }
            }
        }
        more
    }

    /// Sends a beacon on every LAN when one is due.
    fn speak(&mut self) {
        let (unix, now) = clocks();
        if now < self.beacons.next_deadline() {
            return;
        }
        let interfaces = self.lans();
        if interfaces.difference(&self.interfaces).next().is_some() {
            self.beacons.ask(now);
        }
        let Some(beacon) = self.beacons.due(now, unix, random()) else { return };
        self.move_to(interfaces);
        for &index in &self.interfaces {
            // Nothing of this may keep the other LANs from theirs: one without addresses of a family has no beacons of it,
            // and a full queue loses one.
            if let Some(v4) = &self.v4 {
                let _ = leave_by(v4, index).and_then(|()| v4.send_to(&beacon, (GROUP_V4, PORT)));
            }
            if let Some(v6) = &self.v6 {
                let _ = v6.send_to(&beacon, SocketAddrV6::new(GROUP_V6, PORT, 0, index));
            }
        }
    }

    /// Joins the groups on interfaces that are new, and leaves them on those that are gone: also on one that does not
    /// exist any more, the kernel counts a group as joined.
    fn move_to(&mut self, interfaces: BTreeSet<u32>) {
        for (socket, is_v4) in [(&self.v4, true), (&self.v6, false)] {
            let Some(socket) = socket.as_ref().map(SockRef::from) else { continue };
            let interface = InterfaceIndexOrAddress::Index;
            for &index in self.interfaces.difference(&interfaces) {
                let _ = match is_v4 {
                    true => socket.leave_multicast_v4_n(&GROUP_V4, &interface(index)),
                    false => socket.leave_multicast_v6(&GROUP_V6, index),
                };
            }
            for &index in interfaces.difference(&self.interfaces) {
                let _ = match is_v4 {
                    true => socket.join_multicast_v4_n(&GROUP_V4, &interface(index)),
                    false => socket.join_multicast_v6(&GROUP_V6, index),
                };
            }
        }
        self.interfaces = interfaces;
    }

    /// The interfaces that lead to LANs.
    fn lans(&self) -> BTreeSet<u32> {
        let Ok(links) = Netlink::open().and_then(|mut netlink| netlink.links().map_err(io::Error::from)) else {
            return self.interfaces.clone();
        };
        let ports: BTreeSet<Mac> = self.table.load().values().map(|entry| entry.port.mac).collect();
        let lans = lans_of(&links, &ports);
        lans.into_iter().take(MAX_INTERFACES).collect()
    }
}

/// Which of these interfaces lead to LANs, when TAPs with these addresses are ports of ours.
fn lans_of(links: &[Link], ports: &BTreeSet<Mac>) -> Vec<u32> {
    let is_port =
        |link: &Link| link.kind.as_deref() == Some("tun") && link.mac.is_some_and(|mac| ports.contains(&mac));
    let with_ports: BTreeSet<u32> =
        links.iter().filter(|link| is_port(link)).filter_map(|link| link.master).collect();
    let is_lan = |link: &&Link| {
        let ethernet = link.mac.is_some_and(|mac| !mac.is_zero());
        // The port of a bridge is reached through the bridge.
        let own = link.master.is_none() && !is_port(link) && !with_ports.contains(&link.index);
        link.up && link.carrier && ethernet && own
    };
    links.iter().filter(is_lan).map(|link| link.index).collect()
}

/// Whether only somebody on the link can have sent from there. Over IPv4 the group itself sees to it.
fn is_on_link(from: &SocketAddr) -> bool {
    match from.ip() {
        IpAddr::V4(address) => !address.is_unspecified() && !address.is_multicast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A socket that hears what is sent to the group, and nothing else; beside other daemons of this host.
fn open_v4() -> io::Result<Option<UdpSocket>> {
    let Some(socket) = open(Domain::IPV4)? else { return Ok(None) };
    socket.set_multicast_all_v4(false)?;
    socket.set_multicast_ttl_v4(1)?;
    bound(socket, SocketAddr::from((GROUP_V4, PORT)))
}

fn open_v6() -> io::Result<Option<UdpSocket>> {
    let Some(socket) = open(Domain::IPV6)? else { return Ok(None) };
    socket.set_only_v6(true)?;
    // Linux 4.20; without it, groups that others joined are heard, too.
    let _ = socket.set_multicast_all_v6(false);
    socket.set_multicast_hops_v6(1)?;
    bound(socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)))
}

fn open(domain: Domain) -> io::Result<Option<Socket>> {
    match Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP)) {
        Ok(socket) => socket.set_reuse_address(true).map(|()| Some(socket)),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn bound(socket: Socket, address: SocketAddr) -> io::Result<Option<UdpSocket>> {
    match socket.bind(&SockAddr::from(address)) {
        Ok(()) => Ok(Some(socket.into())),
        // IPv6 switched off by sysctl: the family exists but has no addresses.
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes what is sent to IPv4 groups leave by this interface.
fn leave_by(socket: &UdpSocket, index: u32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: u32::from(Ipv4Addr::UNSPECIFIED) };
    let request = libc::ip_mreqn { imr_multiaddr: any, imr_address: any, imr_ifindex: index.cast_signed() };
    let length = size_of_val(&request) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, which is the size of `request`.
    let result = unsafe {
        let request = (&raw const request).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lans_are_what_does_not_lead_into_our_own_networks() {
        let ours = Mac([2, 0, 0, 0, 0, 9]);
        let link = |index, kind: Option<&str>, mac, master| Link {
            index,
            name: format!("if{index}"),
            mac,
            mtu: 1500,
            up: true,
            carrier: true,
            kind: kind.map(str::to_owned),
            master,
        };
        let some = |n| Some(Mac([2, 0, 0, 0, 0, n]));
        let links = [
            link(1, None, Some(Mac([0; 6])), None),
            link(2, None, some(2), None),
            link(3, Some("wireguard"), None, None),
            link(4, Some("bridge"), some(4), None),
            link(5, None, some(5), Some(4)),
            // A virtual machine's TAP is a LAN's, ours is not, nor is the bridge it is on.
            link(6, Some("tun"), some(6), Some(4)),
            link(7, Some("tun"), Some(ours), Some(8)),
            link(8, Some("bridge"), some(8), None),
            link(9, Some("tun"), Some(ours), None),
            link(10, Some("veth"), some(10), None),
            Link { carrier: false, ..link(11, None, some(11), None) },
            Link { up: false, ..link(12, None, some(12), None) },
        ];
        assert_eq!(lans_of(&links, &BTreeSet::from([ours])), [2, 4, 10]);
    }
}
