#![allow(clippy::unwrap_used)]
use super::Quick;
use super::packet::DNS;
use super::stack::{Heard, Outcome, Stack};
use super::tcp::{IN_ALL, OF_PORT};
use super::wire::{Wire, instant, interface, set_address};
use crate::names::directory::{Entry, Kind};
use crate::names::zone::Others;
use crate::names::{Directory, Settings, Zone};
use crate::switch::ids::PortId;
use crate::switch::service::Service;
use crate::switch::topology::Network;
use crate::wire::checksum;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use crate::wire::testing::naive_sum;
use crate::wire::vnet::{GSO_TCPV4, GSO_UDP_L4, VnetHeader};
use proptest::prelude::*;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::IpAddress;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

const VNI: u32 = 100;
const PORT: PortId = PortId(3);
const STATION: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x32, 0, 0, 0, 0, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 32, 1, 9);
const THEIRS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x32, 0, 0, 0, 0, 1, 9);
const MS: Duration = Duration::from_millis(1);

fn network() -> Network {
    let service = Service { v4: Some(OWN), v6: Some(OWN_V6) };
    Network { vni: VNI, mtu: 1500, service, ..Network::default() }
}

/// An IPv4 packet of the station in a frame.
fn v4(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let [a, b] = total.to_be_bytes();
    let mut header = [0x45, 0, a, b, 0, 7, 0, 0, 9, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&THEIRS.octets());
    header[16..].copy_from_slice(&to.octets());
    let sum = !naive_sum(0, &header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&Mac::service(VNI).0[..], &STATION.0, &[8, 0], &header, payload].concat()
}

/// An IPv6 packet of the station in a frame; the checksum at `field` of its payload is made right.
fn v6(to: Ipv6Addr, protocol: u8, field: usize, payload: &[u8]) -> Vec<u8> {
    let [a, b] = (payload.len() as u16).to_be_bytes();
    let addresses = [THEIRS_V6.octets(), to.octets()].concat();
    let pseudo = u64::from(naive_sum(u64::from(protocol) + payload.len() as u64, &addresses));
    let mut payload = payload.to_vec();
    payload[field..field + 2].fill(0);
    let sum = !naive_sum(pseudo, &payload);
    payload[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    let header = [0x60, 0, 0, 0, a, b, protocol, 9];
    [&Mac::service(VNI).0[..], &STATION.0, &[0x86, 0xdd], &header, &addresses, &payload].concat()
}

/// A datagram whose checksum is left to us: it is not even begun right.
fn udp(to: u16, payload: &[u8]) -> Vec<u8> {
    let [a, b] = (8 + payload.len() as u16).to_be_bytes();
    let [c, d] = to.to_be_bytes();
    [&[0x9c, 0x40, c, d, a, b, 0xbe, 0xef][..], payload].concat()
}

/// What the stack answers to a frame by itself.
fn answers(stack: &mut Stack, frame: &[u8]) -> Vec<Vec<u8>> {
    let heard = Heard { port: PORT, header: VnetHeader::default(), frame };
    let outcome = stack.input(Duration::ZERO, &network(), heard, 7);
    assert!(!matches!(outcome, Outcome::Queries(..)), "{outcome:?}");
    let frames: Vec<_> = stack.take_frames().collect();
    assert!(frames.iter().all(|(port, _)| *port == PORT));
    frames.into_iter().map(|(_, frame)| frame).collect()
}

fn stack() -> Stack {
    Stack::new(Duration::ZERO, 42)
}

#[test]
fn what_is_for_elsewhere_is_never_refused_here() {
    let whole = udp(53, b"x");
    for (to, outcome) in [(OWN, "Refused"), (Ipv4Addr::new(192, 0, 2, 1), "Taken")] {
        let mut fragment = v4(to, 17, &whole);
        fragment[20] = 0x20;
        for frame in [&fragment[..], &v4(to, 17, &whole)[..35]] {
            let heard = Heard { port: PORT, header: VnetHeader::default(), frame };
            let became = format!("{:?}", stack().input(Duration::ZERO, &network(), heard, 7));
            assert_eq!(became, outcome, "{to}: {} bytes", frame.len());
        }
    }
}

#[test]
fn a_ping_comes_back_as_it_was_to_who_sent_it() {
    let data: Vec<u8> = (0..=255).cycle().take(8000).collect();
    let mut echo = [&[8, 0, 0, 0, 0, 5, 0, 1][..], &data].concat();
    let sum = !naive_sum(0, &echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    let frames = answers(&mut stack(), &v4(OWN, 1, &echo));
    let [reply] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!(reply[..14], [&STATION.0[..], &Mac::service(VNI).0, &[8, 0]].concat());
    assert_eq!((&reply[26..30], &reply[30..34]), (&OWN.octets()[..], &THEIRS.octets()[..]));
    assert_eq!((reply[34], &reply[38..]), (0, &echo[4..]));
    assert_eq!((naive_sum(0, &reply[14..34]), naive_sum(0, &reply[34..])), (0xffff, 0xffff));

    let echo = [&[128, 0, 0, 0, 0, 5, 0, 1][..], b"of six"].concat();
    let frames = answers(&mut stack(), &v6(OWN_V6, 58, 2, &echo));
    let [reply] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!(reply[..14], [&STATION.0[..], &Mac::service(VNI).0, &[0x86, 0xdd]].concat());
    assert_eq!((reply[54], &reply[58..]), (129, &echo[4..]));
}

#[test]
fn questions_by_udp_are_handed_out_one_by_one_whatever_their_checksum() {
    let mut stack = stack();
    let header = VnetHeader { gso_type: GSO_UDP_L4, gso_size: 5, ..VnetHeader::default() };
    for (header, expected) in [(header, vec!["first", "secon", "d"]), (VnetHeader::default(), vec!["firstsecond"])] {
        let frame = v4(OWN, 17, &udp(DNS, b"firstsecond"));
        let heard = Heard { port: PORT, header, frame: &frame };
        let Outcome::Queries(asker, queries) = stack.input(Duration::ZERO, &network(), heard, 7) else { panic!() };
        assert_eq!(queries.map(|query| std::str::from_utf8(query).unwrap()).collect::<Vec<_>>(), expected);
        let mut answer = Vec::new();
        asker.datagram(b"an answer", &mut answer);
        assert_eq!((naive_sum(0, &answer[14..34]), answer.len()), (0xffff, 14 + 20 + 8 + 9));
        assert_eq!((&answer[34..38], &answer[42..]), (&[0, 53, 0x9c, 0x40][..], &b"an answer"[..]));
        let pseudo = checksum::sum(17 + 17, &answer[26..34]);
        assert!(checksum::verifies(pseudo, &answer[34..]));
    }
    let frame = v6(OWN_V6, 17, 6, &udp(DNS, b"six"));
    let heard = Heard { port: PORT, header: VnetHeader::default(), frame: &frame };
    let Outcome::Queries(asker, _) = stack.input(Duration::ZERO, &network(), heard, 7) else { panic!() };
    let mut answer = Vec::new();
    asker.datagram(b"of six", &mut answer);
    assert!(checksum::verifies(checksum::sum(17 + 14, &answer[22..54]), &answer[54..]));
}

#[test]
fn what_nobody_listens_to_is_refused_as_hosts_do() {
    let mut stack = stack();
    // What traceroute sends.
    let frames = answers(&mut stack, &v4(OWN, 17, &udp(33434, b"hop")));
    assert_eq!((frames.len(), &frames[0][34..36]), (1, &[3, 3][..]), "port unreachable");
    let frames = answers(&mut stack, &v6(OWN_V6, 17, 6, &udp(33434, b"hop")));
    assert_eq!((frames.len(), &frames[0][54..56]), (1, &[1, 4][..]), "port unreachable");
    let segment = |port: u16, flags: u8| {
        let [a, b] = port.to_be_bytes();
        v4(OWN, 6, &[&[0x9c, 0x40, a, b, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 4, 0][..], &[0; 4]].concat())
    };
    for (port, flags) in [(80, 2), (DNS, 0x10)] {
        let frames = answers(&mut stack, &segment(port, flags));
        assert_eq!((frames.len(), frames[0][47] & 4), (1, 4), "a reset");
    }
    assert!(answers(&mut stack, &segment(80, 4)).is_empty(), "no reset for a reset");
}

#[test]
fn who_sends_where_no_way_leads_is_told_and_errors_are_not_answered() {
    let mut stack = stack();
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    let frames = answers(&mut stack, &v4(outside, 6, &[7; 900]));
    let [told] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!((&told[26..34], &told[34..36]), (&[OWN.octets(), THEIRS.octets()].concat()[..], &[3, 0][..]));
    assert_eq!(told[42..62], v4(outside, 6, &[7; 900])[14..34], "with the packet's beginning");
    assert!(told.len() <= 14 + 576);
    let frames = answers(&mut stack, &v6("2001:db8::1".parse().unwrap(), 17, 6, &udp(DNS, b"elsewhere")));
    assert_eq!((frames.len(), &frames[0][54..56]), (1, &[1, 0][..]));
    assert!(answers(&mut stack, &v4(outside, 1, &[3, 1, 0, 0, 0, 0, 0, 0, 9, 9])).is_empty());
    let only_v6 = Network { service: Service { v4: None, v6: Some(OWN_V6) }, ..network() };
    let frame = v4(outside, 6, &[7; 90]);
    stack.input(Duration::ZERO, &only_v6, Heard { port: PORT, header: VnetHeader::default(), frame: &frame }, 7);
    assert_eq!(stack.take_frames().count(), 0);
}

/// A container's TCP.
struct Client {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Wire,
    port: PortId,
    heard: Vec<u8>,
}

impl Client {
    fn connect(port: PortId, service: IpAddr, from: u16) -> Self {
        let own: IpAddr = if service.is_ipv4() { THEIRS.into() } else { THEIRS_V6.into() };
        let mut wire = Wire::new(1500);
        wire.is_of(VNI, STATION);
        let mut interface = interface(Duration::ZERO, 1, &mut wire);
        set_address(&mut interface, own);
        let buffer = || SocketBuffer::new(vec![0; 8192]);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(Socket::new(buffer(), buffer()));
        let remote = (IpAddress::from(service), DNS);
        sockets.get_mut::<Socket<'_>>(socket).connect(interface.context(), remote, from).unwrap();
        Self { interface, sockets, socket, wire, port, heard: Vec::new() }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn say(&mut self, bytes: &[u8]) {
        assert_eq!(self.socket().send_slice(bytes).unwrap(), bytes.len());
    }

    /// Both sides do what they can.
    fn run(&mut self, now: Duration, stack: &mut Stack) {
        loop {
            self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
            let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), self.heard.extend_from_slice(bytes))).unwrap();
            }
            let frames: Vec<_> = self.wire.take().collect();
            for mut frame in frames.iter().cloned() {
                frame[..6].copy_from_slice(&Mac::service(VNI).0);
                frame[6..12].copy_from_slice(&STATION.0);
                let heard = Heard { port: self.port, header: VnetHeader::default(), frame: &frame };
                assert!(matches!(stack.input(now, &network(), heard, 7), Outcome::Taken | Outcome::Refused));
            }
            stack.tick(now);
            let answers: Vec<_> = stack.take_frames().filter(|(port, _)| *port == self.port).collect();
            for (_, frame) in &answers {
                self.wire.put(&frame[14..]);
                self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
            }
            if frames.is_empty() && answers.is_empty() {
                return;
            }
        }
    }
}

#[test]
fn a_question_by_tcp_in_pieces_has_its_long_answer_and_then_the_next_one() {
    for service in [IpAddr::V4(OWN), IpAddr::V6(OWN_V6)] {
        let mut stack = stack();
        let mut client = Client::connect(PORT, service, 40_000);
        client.run(MS, &mut stack);
        assert_eq!((client.socket().state(), stack.connections()), (State::Established, 1));
        client.say(&[0]);
        client.run(2 * MS, &mut stack);
        client.say(b"\x05who");
        client.run(3 * MS, &mut stack);
        assert!(stack.take_queries().is_empty());
        // The end of one and the whole of another in one segment.
        client.say(b"is\x00\x04next");
        client.run(4 * MS, &mut stack);
        let queries = stack.take_queries();
        let [(asker, number, query)] = queries.as_slice() else { panic!("{queries:?}") };
        assert_eq!((query.as_slice(), asker.service, asker.port), (&b"whois"[..], service, PORT));
        let long: Vec<u8> = (0..=250).cycle().take(60_000).collect();
        stack.answer(5 * MS, *asker, *number, &long);
        client.run(5 * MS, &mut stack);
        assert_eq!(client.heard[..2], 60_000u16.to_be_bytes());
        assert!(client.heard[2..] == long, "{}", client.heard.len());
        let queries = stack.take_queries();
        assert_eq!(queries.len(), 1);
        assert_eq!(queries[0].2, b"next");
        client.socket().close();
        client.run(6 * MS, &mut stack);
        stack.answer(7 * MS, *asker, *number, b"last");
        // Whoever closed takes his time to say that he heard the same of us.
        [7, 50].into_iter().for_each(|at| client.run(at * MS, &mut stack));
        assert_eq!((&client.heard[60_002..], stack.connections()), (&b"\x00\x04last"[..], 0));
    }
}

#[test]
fn connections_that_say_nothing_end_and_a_port_that_opens_many_hurts_itself() {
    let mut stack = stack();
    let mut silent = Client::connect(PORT, OWN.into(), 50_000);
    silent.run(MS, &mut stack);
    let later = Duration::from_secs(11);
    assert!(stack.next_deadline(MS).unwrap() < later);
    silent.run(later, &mut stack);
    assert_eq!(silent.socket().state(), State::CloseWait);
    silent.run(later + Duration::from_secs(6), &mut stack);
    assert_eq!(stack.connections(), 0);

    let mut other = Client::connect(PortId(9), OWN.into(), 1);
    other.run(later, &mut stack);
    let mut greedy: Vec<_> = (1..=OF_PORT as u16 + 4).map(|n| Client::connect(PORT, OWN.into(), n)).collect();
    greedy.iter_mut().for_each(|client| client.run(later, &mut stack));
    assert_eq!(stack.connections(), OF_PORT + 1);
    let many = IN_ALL / OF_PORT + 2;
    for port in 0..many as u32 {
        for n in 1..=OF_PORT as u16 {
            Client::connect(PortId(100 + port), OWN.into(), n).run(later, &mut stack);
        }
    }
    assert_eq!(stack.connections(), IN_ALL);
    other.say(b"\x00\x01?");
    other.run(later, &mut stack);
    assert_eq!(stack.take_queries().len(), 1, "who has one keeps it");
}

#[test]
fn a_question_that_is_too_long_ends_its_connection() {
    let mut stack = stack();
    let mut client = Client::connect(PORT, OWN.into(), 40_000);
    client.run(MS, &mut stack);
    client.say(b"\xff\xffgarbage");
    client.run(2 * MS, &mut stack);
    assert_eq!((client.socket().state(), stack.connections()), (State::Closed, 0));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        kind in 0usize..6, at in 0usize..90, bytes in proptest::collection::vec(any::<u8>(), 0..40), cut in 0usize..200,
        header: [u8; 10],
    ) {
        let base = [
            v4(OWN, 17, &udp(DNS, b"question")), v4(OWN, 6, &[0; 20]), v4(OWN, 1, &[8, 0, 0, 0, 1, 2, 3, 4]),
            v6(OWN_V6, 6, 16, &[0; 20]), v6(OWN_V6, 0, 2, &[58, 0, 5, 2, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0]), Vec::new(),
        ];
        let mut frame = base[kind].clone();
        for (to, from) in frame.iter_mut().skip(at).zip(&bytes) {
            *to ^= from;
        }
        frame.truncate(cut);
        let mut stack = stack();
        let heard = Heard { port: PORT, header: VnetHeader::parse(&header), frame: &frame };
        if let Outcome::Queries(asker, queries) = stack.input(Duration::ZERO, &network(), heard, 1) {
            let mut answer = Vec::new();
            queries.for_each(|query| asker.datagram(query, &mut answer));
        }
        stack.tick(Duration::from_secs(1));
    }
}

/// A question for an A record.
fn question(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    [&[7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &labels.collect::<Vec<_>>(), &[0, 0, 1, 0, 1]].concat()
}

#[test]
fn a_worker_answers_a_single_short_question_and_leaves_all_else_to_the_thread() {
    let directory = Arc::new(Directory::default());
    let zone = Zone {
        vni: VNI,
        domain: "blue.weft".into(),
        others: Others::Forward,
        local_first: false,
        subnets: vec!["10.32.0.0/16".parse().unwrap()],
        service: vec![OWN.into()],
    };
    directory.set_settings(Settings::new(vec![zone], Vec::new()));
    let entry = Entry { vni: VNI, name: "web", kind: Kind::Attachment, addresses: &[THEIRS.into()], services: &[] };
    directory.set_member(PublicKey([1; 32]), true, [entry]);
    let mut quick = Quick::new(directory, 0);
    let mut ask =
        |header, frame: &[u8]| quick.answer(&network(), Heard { port: PORT, header, frame }).map(<[u8]>::to_vec);
    let (plain, asked) = (VnetHeader::default(), question("web.blue.weft"));
    let answer = ask(plain, &v4(OWN, 17, &udp(DNS, &asked))).unwrap();
    assert_eq!(answer[..12], [&STATION.0[..], &Mac::service(VNI).0].concat());
    assert!(answer[26..30] == OWN.octets() && answer[30..34] == THEIRS.octets());
    assert_eq!(answer[42..46], [7, 9, 0x85, 0x80], "an answer with authority that can be had recursively");
    assert_eq!(answer[answer.len() - 4..], THEIRS.octets());

    let tcp = VnetHeader { gso_type: GSO_TCPV4, gso_size: 1400, ..plain };
    assert_eq!(ask(tcp, &v4(OWN, 17, &udp(DNS, &asked))), None, "a super-frame of another protocol");
    let two = VnetHeader { gso_type: GSO_UDP_L4, gso_size: asked.len() as u16, ..plain };
    assert_eq!(ask(two, &v4(OWN, 17, &udp(DNS, &asked.repeat(2)))), None, "several questions");
    assert_eq!(ask(plain, &v4(OWN, 17, &udp(DNS, &question("example.com")))), None, "a name of others");
    assert_eq!(ask(plain, &v4(OWN, 17, &udp(DNS, &asked[..5]))), None, "no question");
    assert_eq!(ask(plain, &v4(OWN, 17, &udp(DNS + 1, &asked))), None, "another port");
    assert_eq!(ask(plain, &v4(OWN, 6, &udp(DNS, &asked))), None, "another protocol");
    assert_eq!(ask(plain, &v4(THEIRS, 17, &udp(DNS, &asked))), None, "another address");
    assert_eq!(ask(plain, &[]), None, "no frame");
}
