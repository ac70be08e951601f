//! Two switches in one process over real connections on the loopback interface, and strangers who connect.

#![allow(clippy::unwrap_used)]

use super::{Limits, Prepared, Streams};
use crate::io::gate_settings;
use crate::io::outbox::{Notice, Outbox, PortTable};
use crate::io::udp::{UdpOffload, UdpSockets};
use crate::switch::allowance::Allowance;
use crate::switch::counters::{Drop, Flow};
use crate::switch::fdb;
use crate::switch::ids::{PeerId, Place, PortId};
use crate::switch::staging::Merge;
use crate::switch::topology::{Network, Peer, Port, Topology};
use crate::switch::{Egress, HEADROOM, Switch};
use crate::tunnel::{Engine, Gate, TunnelSettings};
use crate::wire::ethernet::Mac;
use crate::wire::key::{PublicKey, Secret};
use crate::wire::message::{self, Message};
use crate::wire::stream::PreambleKey;
use crate::wire::vnet::VnetHeader;
use crate::wire::way;
use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, bounded};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const VNI: u32 = 7;
const NEAR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const FAR: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// One member with one peer.
struct Side {
    switch: Arc<Switch>,
    peer: Arc<Peer>,
    ours: Ipv4Addr,
    outbox: Outbox,
    notices: Receiver<Notice>,
    streams: Streams,
    key: PublicKey,
    /// Where its connections are made.
    address: SocketAddr,
}

impl Side {
    fn new(ours: u8, theirs: u8, limits: Limits) -> Self {
        let [own, other] = [ours, theirs].map(|n| Secret::private([n; 32]));
        let (key, now) = (own.public_key(), Instant::now());
        let gate = Gate::new(&own, gate_settings(Engine::Ring));
        let settings = TunnelSettings {
            peer: other.public_key(),
            preshared_key: None,
            keepalive: None,
            index: u32::from(ours),
            endpoints: Vec::new(),
        };
        let address = other.public_key().tunnel_address();
        let peer = Arc::new(Peer::new(PeerId(0), address, &gate, &settings, now));
        let network = Network { vni: VNI, mtu: 1500, ..Network::default() };
        let topology = Topology::new(key.tunnel_address(), vec![network], std::slice::from_ref(&peer));
        let fdb = fdb::Limits { max_entries: 16, max_per_port: 16, max_per_peer: 16 };
        let switch = Arc::new(Switch::new(gate, topology, fdb, 1, now));
        switch.fdb.insert_static(VNI, FAR, Place::Peer(peer.id));
        let sockets = UdpSockets::bind(0, 1, UdpOffload { segment: false, gro: false }).unwrap().remove(0);
        let (sockets, table) = (Arc::new(sockets), Arc::new(ArcSwap::from_pointee(PortTable::default())));
        let (sender, notices) = bounded(1024);
        let mut prepared = Prepared::new().unwrap();
        let port = prepared.listen(0).unwrap();
        let queue = Some(prepared.queue());
        let outbox = || Outbox::new(switch.clone(), sockets.clone(), table.clone(), queue.clone(), sender.clone());
        let (own_outbox, outbox) = (outbox(), outbox());
        let streams =
            prepared.start(&key, limits, switch.clone(), own_outbox, sender.clone(), Merge::Nothing).unwrap();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self { peer, ours: key.tunnel_address(), outbox, notices, streams, key, address, switch }
    }

    /// The first notice that `pick` takes; others are passed over.
    #[track_caller]
    fn notice<T>(&self, what: &str, mut pick: impl FnMut(Notice) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        loop {
            let notice = self.notices.recv_deadline(deadline).unwrap_or_else(|_| panic!("not in time: {what}"));
            if let Some(picked) = pick(notice) {
                return picked;
            }
        }
    }

    /// The number of a connection to `to`, which must come about.
    #[track_caller]
    fn connected(&self, to: &Self) -> u32 {
        self.streams.connect(to.key, to.address);
        self.notice("a connection", |notice| match notice {
            Notice::Stream { to: key, address, number } => {
                assert_eq!((key, address), (to.key, to.address));
                Some(number.unwrap())
            }
            _ => None,
        })
    }

    /// Connects, and begins a session on the connection.
    #[track_caller]
    fn session(&mut self, with: &Self) -> u32 {
        let number = self.connected(with);
        self.peer.tunnel().set_endpoints(vec![way::stream(number)]);
        self.switch.connect(Instant::now(), &self.peer, &mut self.outbox);
        for side in [&*self, with] {
            side.notice("a session", |notice| matches!(notice, Notice::SessionUp(_)).then_some(()));
        }
        assert_eq!(self.peer.tunnel().endpoint(), Some(way::stream(number)));
        number
    }

    /// Sends a message of the mesh, and expects the other to get it.
    #[track_caller]
    fn says(&mut self, to: &Self, token: u64) {
        let packet = message::packet(&Message::Probe { token }, self.ours, to.ours, None);
        self.switch.send_packet(Instant::now(), &self.peer, &packet, true, None, &mut self.outbox);
        let told = to.notice("a message", |notice| match notice {
            Notice::Message(_, _, payload) => message::parse(&payload).ok(),
            _ => None,
        });
        assert_eq!(told, Message::Probe { token });
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.switch.counters.dropped(reason)
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A stranger's connection, from 127.0.x.y where a source is given.
fn stranger(to: SocketAddr, source: Option<u16>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(source) = source {
        let [x, y] = source.to_be_bytes();
        socket.bind(&SocketAddr::from(([127, 0, x, y], 0)).into()).unwrap();
    }
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.into()
}

/// Whether it was hung up on; it was not told anything.
fn is_hung_up(mut stream: &TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(length) => panic!("a stranger was told {length} bytes"),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn both(limits: Limits) -> [Side; 2] {
    [Side::new(1, 2, limits), Side::new(2, 1, limits)]
}

#[test]
fn two_members_talk_over_a_connection() {
    let [mut a, mut b] = both(Limits::default());
    let number = a.session(&b);
    for token in 0..20 {
        a.says(&b, token);
        b.says(&a, token + 100);
    }
    // Frames in bulk: what the connection did not take at once is counted, and nothing else is lost.
    let port = Port { id: PortId(0), vni: VNI, mac: NEAR, flow: Flow::default(), spoken: Allowance::default() };
    let frame = [&FAR.0[..], &NEAR.0, &[0x88, 0xb5], &[0; 1100]].concat();
    let mut buffer = [&[0; HEADROOM][..], &frame].concat();
    const FRAMES: u64 = 20_000;
    for _ in 0..FRAMES {
        a.switch.port_input(Instant::now(), &port, VnetHeader::default(), &mut buffer, HEADROOM, &mut a.outbox);
    }
    eventually("all frames are there, or counted", || {
        b.switch.counters.tunnel_rx_frames.get() + a.dropped(Drop::StreamFull) == FRAMES
    });
    assert!(b.switch.counters.tunnel_rx_frames.get() > 500, "a queue full of them at the least");
    a.says(&b, 7);
    // Its end is told on both sides, and what goes there after is counted.
    a.streams.close(number);
    b.notice("the end", |notice| matches!(notice, Notice::StreamClosed(_)).then_some(()));
    a.outbox.transmit(way::stream(number), 10, |datagram| Some(datagram.len()));
    eventually("it is gone", || a.dropped(Drop::StreamGone) == 1);
    // And all begins again on another.
    assert_ne!(a.connected(&b), number);
}

#[test]
fn a_stranger_is_hung_up_on_and_told_nothing() {
    let b = Side::new(2, 1, Limits { prove: Duration::from_millis(300), ..Limits::default() });
    let preamble = PreambleKey::of(&b.key).preamble([9; 16]);
    let cases = [
        (&b"GET / HTTP/1.1\r\nHost: weft\r\n\r\n\r\n"[..], "another language"),
        (&[0; 32], "a preamble that is wrong"),
        (&[&preamble[..], &[0, 0]].concat(), "a length of nothing"),
        (&[&preamble[..], &[0xff; 400]].concat(), "a length of too much"),
        (b"", "silence"),
        (&preamble[..20], "half a preamble"),
        (&preamble, "a preamble alone"),
        (&[&preamble[..], &[0, 148], &[1; 70]].concat(), "half a datagram"),
        (&[&preamble[..], &[0, 40], &[7; 40]].concat(), "a datagram that is none of ours"),
    ];
    for ((sent, what), refused) in cases.into_iter().zip(1..) {
        let mut stream = stranger(b.address, None);
        stream.write_all(sent).unwrap();
        assert!(is_hung_up(&stream), "{what}");
        eventually("it is counted", || b.dropped(Drop::StreamRefused) == refused);
    }
    // Byte by byte is no way around the time.
    let mut slow = stranger(b.address, None);
    let begin = Instant::now();
    while slow.write_all(&[preamble[0]]).is_ok() {
        assert!(begin.elapsed() < SOON, "a slow stranger stays");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(b.notices.is_empty(), "control hears nothing of strangers");
}

#[test]
fn strangers_are_few_and_give_way_to_members() {
    let [mut a, b] = both(Limits { callers: 6, of_source: 3, prove: SOON, ..Limits::default() });
    let ours: Vec<_> = (0..3).map(|_| stranger(b.address, None)).collect();
    assert!(is_hung_up(&stranger(b.address, None)), "the fourth of one source");
    let others: Vec<_> = (1..4).map(|n| stranger(b.address, Some(0x0100 + n))).collect();
    let newest = stranger(b.address, Some(0x0200));
    assert!(is_hung_up(&ours[0]), "the oldest gives way");
    let number = a.session(&b);
    // They stay: whoever leaves by itself displaces nobody.
    let crowd: Vec<_> = (0..20).map(|n| stranger(b.address, Some(0x0300 + n))).collect();
    eventually("all are looked at", || b.dropped(Drop::StreamRefused) >= 20);
    a.says(&b, 1);
    assert_eq!(a.peer.tunnel().endpoint(), Some(way::stream(number)), "no stranger displaces a member");
    drop((others, newest, crowd));
}

#[test]
fn ten_thousand_connections_do_not_keep_members_from_talking() {
    let [mut a, mut b] = both(Limits::default());
    a.session(&b);
    for n in 0..10_000_u16 {
        // Connected, and gone: some before they are looked at.
        drop(stranger(b.address, Some(0x0400 + n)));
        if n % 1000 == 0 {
            a.says(&b, u64::from(n));
            b.says(&a, u64::from(n));
        }
    }
    a.says(&b, 1);
}

#[test]
fn a_connection_that_does_not_come_about_is_told() {
    let [a, b] = both(Limits { called: 1, ..Limits::default() });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = |address| {
        a.streams.connect(b.key, address);
        a.notice("an answer", |notice| match notice {
            Notice::Stream { number, .. } => Some(number),
            _ => None,
        })
    };
    let refused = outcome(closed).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    outcome(b.address).unwrap();
    assert_eq!(outcome(b.address), Err("there are 1 connections already".to_owned()));
}

#[test]
fn nobody_waits_for_a_member_that_does_not_read() {
    let mut a = Side::new(1, 2, Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    a.streams.connect(a.key, address);
    let (mut deaf, _) = listener.accept().unwrap();
    let number = a.notice("a connection", |notice| match notice {
        Notice::Stream { number, .. } => Some(number.unwrap()),
        _ => None,
    });
    let fill = |datagram: &mut [u8]| {
        datagram.fill(5);
        Some(datagram.len())
    };
    let sent = |a: &Side| a.switch.counters.datagrams_tx.get();
    // Until its buffers, the kernel's and ours, are full.
    let mut last = u64::MAX;
    eventually("it is full", || {
        (0..100).for_each(|_| a.outbox.transmit(way::stream(number), 10_000, fill));
        std::mem::replace(&mut last, sent(&a)) == sent(&a) && a.dropped(Drop::StreamFull) > 100
    });
    // What was taken arrives whole and in order when it reads at last.
    let mut preamble = [0; 32];
    deaf.read_exact(&mut preamble).unwrap();
    assert_eq!(preamble, PreambleKey::of(&a.key).preamble(preamble[..16].try_into().unwrap()));
    let mut framed = vec![0; 10_002];
    for _ in 0..last {
        deaf.read_exact(&mut framed).unwrap();
        assert!(framed[..2] == 10_000_u16.to_be_bytes() && framed[2..].iter().all(|&byte| byte == 5));
    }
    // What is too large for any connection is not tried.
    a.outbox.transmit(way::stream(number), 20_000, fill);
    assert_eq!(a.dropped(Drop::PathTooSmall), 1);
}

#[test]
fn an_idle_connection_ends() {
    let [mut a, b] = both(Limits { idle: Duration::from_millis(400), ..Limits::default() });
    let number = a.session(&b);
    let begin = Instant::now();
    let ended = a.notice("the end", |notice| match notice {
        Notice::StreamClosed(number) => Some(number),
        _ => None,
    });
    assert_eq!(ended, number);
    assert!(begin.elapsed() > Duration::from_millis(200));
}
