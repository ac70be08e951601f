//! Resolvers that answer, are silent, fail, and lie.
#![allow(clippy::unwrap_used)]

use super::*;
use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::{MessageBuilder, Name, Question, Serial, Ttl};
use domain::rdata::{A, AllRecordData, Cname, Soa};
use proptest::prelude::*;

const FIRST: &str = "192.0.2.1:53";
const SECOND: &str = "192.0.2.2:53";
/// The socket that questions leave by.
const OURS: usize = 3;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn name(text: &str) -> Name<Vec<u8>> {
    Name::vec_from_str(text).unwrap()
}

fn query(text: &str, edns: Option<u16>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x4321);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push(Question::new(name(text), Rtype::A, Class::IN)).unwrap();
    let mut builder = builder.additional();
    if let Some(size) = edns {
        builder
            .opt(|opt| {
                opt.set_udp_payload_size(size);
                Ok(())
            })
            .unwrap();
    }
    builder.finish()
}

/// What a resolver says to a question.
#[derive(Clone, Copy)]
enum Says {
    Addresses(u8, u32),
    NoName(u32),
    /// Another name, which has no address; by an SOA record of so many seconds, if any.
    Alias(Option<u32>),
    Truncated,
    Code(Rcode),
}

fn response(question: &[u8], says: Says) -> Vec<u8> {
    let question = Message::from_slice(question).unwrap();
    let code = match says {
        Says::NoName(_) => Rcode::NXDOMAIN,
        Says::Code(code) => code,
        _ => Rcode::NOERROR,
    };
    let mut builder = MessageBuilder::new_vec().start_answer(question, code).unwrap();
    builder.header_mut().set_ra(true);
    builder.header_mut().set_tc(matches!(says, Says::Truncated));
    let owner = question.sole_question().unwrap();
    if let Says::Addresses(count, ttl) = says {
        for last in 1..=count {
            builder.push((owner.qname(), Ttl::from_secs(ttl), A::from_octets(198, 51, 100, last))).unwrap();
        }
    }
    if let Says::Alias(_) = says {
        builder.push((owner.qname(), Ttl::from_secs(3600), Cname::new(name("other.org")))).unwrap();
    }
    let mut builder = builder.authority();
    if let Says::NoName(ttl) | Says::Alias(Some(ttl)) = says {
        let ttl = Ttl::from_secs(ttl);
        let soa = Soa::new(name("ns"), name("ns"), Serial(1), ttl, ttl, ttl, ttl);
        builder.push((name("org"), Ttl::from_secs(3600), soa)).unwrap();
    }
    builder.finish()
}

struct World {
    forwarder: Forwarder<u32>,
    now: Duration,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Resolvers that nothing can be sent to.
    no_way: Vec<SocketAddr>,
    streams: Vec<(u64, SocketAddr, Vec<u8>)>,
    closed: Vec<u64>,
    answers: Vec<(u32, Message<Vec<u8>>)>,
}

impl World {
    fn new(resolvers: &[&str]) -> Self {
        let mut forwarder = Forwarder::new([7; 32]);
        forwarder.set_resolvers(resolvers.iter().map(|text| at(text)).collect());
        let (datagrams, no_way, streams, closed, answers) = Default::default();
        Self { forwarder, now: ms(1000), datagrams, no_way, streams, closed, answers }
    }

    fn collect(&mut self) {
        while let Some(output) = self.forwarder.poll_output() {
            match output {
                Output::Datagram { exchange, to, .. } if self.no_way.contains(&to) => {
                    self.forwarder.unsent(self.now, exchange);
                }
                Output::Datagram { exchange, to, bytes } => {
                    self.forwarder.sent(exchange, OURS);
                    self.datagrams.push((to, bytes));
                }
                Output::Stream { exchange, to, bytes } => self.streams.push((exchange, to, bytes)),
                Output::Close { exchange } => self.closed.push(exchange),
                Output::Answer { token, bytes } => self.answers.push((token, Message::from_octets(bytes).unwrap())),
            }
        }
    }

    fn ask(&mut self, token: u32, name: &str) {
        self.ask_as(token, 1, Transport::Udp, &query(name, None));
    }

    fn ask_as(&mut self, token: u32, vni: u32, transport: Transport, query: &[u8]) {
        self.forwarder.ask(self.now, token, vni, transport, query);
        self.collect();
    }

    /// Time passes, each deadline being kept.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.forwarder.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline;
            self.forwarder.tick(deadline);
            self.collect();
        }
        self.now = end;
    }

    /// Whom was asked since the last time, and with what.
    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.datagrams)
    }

    fn arrive(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.forwarder.datagram(self.now, from, OURS, bytes);
        self.collect();
    }

    /// The only answer since the last time: its token, code and addresses with their TTL.
    fn answer(&mut self) -> Option<(u32, Rcode, Told)> {
        let (token, message) = self.answers.pop()?;
        assert!(self.answers.is_empty());
        assert_eq!((message.header().id(), message.header().qr()), (0x4321, true));
        let records = message.answer().unwrap().into_records::<AllRecordData<_, _>>();
        let records = records.map(|record| record.unwrap()).map(|r| (r.data().to_string(), r.ttl().as_secs()));
        Some((token, message.header().rcode(), records.collect()))
    }
}

/// Addresses and their TTL.
type Told = Vec<(String, u32)>;

fn one(ttl: u32) -> Told {
    vec![("198.51.100.1".to_owned(), ttl)]
}

#[test]
fn a_question_is_asked_once_and_kept_for_as_long_as_its_owner_says() {
    let mut world = World::new(&[FIRST, SECOND]);
    world.ask(1, "Example.org");
    world.ask(2, "example.ORG");
    let sent = world.sent();
    assert_eq!((sent.len(), sent[0].0), (1, at(FIRST)), "one question, of the first");
    world.arrive(at(FIRST), &response(&sent[0].1, Says::Addresses(1, 60)));
    let tokens: Vec<u32> = world.answers.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [1, 2]);
    let echoed: Vec<_> =
        world.answers.drain(..).map(|(_, m)| m.sole_question().unwrap().qname().to_string()).collect();
    assert_eq!(echoed, ["Example.org", "example.ORG"], "letter by letter as it was asked");
    world.pass(ms(20_000));
    world.ask(3, "example.org");
    assert_eq!(world.answer(), Some((3, Rcode::NOERROR, one(40))));
    world.pass(ms(40_000));
    world.ask(4, "example.org");
    assert_eq!((world.answer(), world.sent().len()), (None, 1), "it has ended");
    assert_eq!(world.forwarder.counters().cached, 1);
}

#[test]
fn what_is_not_there_is_kept_too_but_not_for_long() {
    let mut world = World::new(&[FIRST]);
    for (says, lasts) in [
        (Says::NoName(10), 10),
        (Says::NoName(7200), 30),
        (Says::Addresses(0, 0), 0),
        (Says::Alias(Some(10)), 10),
        (Says::Alias(Some(7200)), 30),
        (Says::Alias(None), 0),
        (Says::Addresses(1, 90_000), 300),
    ] {
        world.forwarder.set_resolvers(vec![]);
        world.forwarder.set_resolvers(vec![at(FIRST)]);
        world.ask(1, "nobody.org");
        let sent = world.sent();
        world.arrive(at(FIRST), &response(&sent[0].1, says));
        assert!(world.answer().is_some());
        let mut kept = 0;
        while kept <= 400 {
            world.ask(2, "nobody.org");
            if world.answer().is_none() {
                break;
            }
            world.pass(ms(1000));
            kept += 1;
        }
        assert_eq!(kept, lasts);
        world.pass(ms(10_000));
        assert!(world.answer().is_some(), "nobody is left without an answer");
        world.sent();
    }
}

#[test]
fn a_silent_resolver_gives_way_to_the_next_and_is_avoided_for_a_while() {
    let mut world = World::new(&[FIRST, SECOND]);
    world.ask(1, "example.org");
    assert_eq!(world.sent()[0].0, at(FIRST));
    world.pass(PATIENCE);
    let sent = world.sent();
    assert_eq!((sent.len(), sent[0].0), (1, at(SECOND)));
    // Late, but it was asked.
    world.arrive(at(FIRST), &response(&sent[0].1, Says::Addresses(1, 60)));
    assert_eq!(world.answer(), Some((1, Rcode::NOERROR, one(60))));
    world.ask(2, "example.net");
    assert_eq!(world.sent()[0].0, at(SECOND));
    world.pass(AVOIDED);
    world.answers.clear();
    world.sent();
    world.pass(AVOIDED);
    world.ask(3, "example.com");
    assert_eq!(world.sent()[0].0, at(FIRST));
}

#[test]
fn where_nobody_answers_the_asker_is_told_before_it_asks_again() {
    let mut world = World::new(&[FIRST, SECOND]);
    world.ask(1, "example.org");
    world.pass(PATIENCE * TRIES - ms(1));
    assert_eq!(world.answer(), None);
    assert_eq!(world.sent().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [at(FIRST), at(SECOND), at(FIRST)]);
    world.pass(ms(1));
    assert_eq!(world.answer(), Some((1, Rcode::SERVFAIL, vec![])));
    assert!(PATIENCE * TRIES < Duration::from_secs(5));
    assert_eq!(world.forwarder.next_deadline(), None);
    let mut world = World::new(&[]);
    world.ask(1, "example.org");
    assert_eq!(world.answer(), Some((1, Rcode::SERVFAIL, vec![])), "there is nobody to ask");
}

#[test]
fn a_resolver_that_fails_gives_way_at_once_and_no_name_is_an_answer() {
    for code in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP] {
        let mut world = World::new(&[FIRST, SECOND]);
        world.ask(1, "example.org");
        let sent = world.sent();
        world.arrive(at(FIRST), &response(&sent[0].1, Says::Code(code)));
        assert_eq!(world.answer(), None);
        let sent = world.sent();
        assert_eq!(sent[0].0, at(SECOND));
        world.arrive(at(SECOND), &response(&sent[0].1, Says::Code(Rcode::SERVFAIL)));
        assert_eq!(world.answer(), Some((1, code, vec![])), "what the first said");
    }
    let mut world = World::new(&[FIRST, SECOND]);
    world.ask(1, "example.org");
    let sent = world.sent();
    world.arrive(at(FIRST), &response(&sent[0].1, Says::NoName(5)));
    assert_eq!(world.answer(), Some((1, Rcode::NXDOMAIN, vec![])));
}

#[test]
fn a_resolver_that_there_is_no_way_to_costs_no_time() {
    let mut world = World::new(&[FIRST, SECOND]);
    world.no_way = vec![at(FIRST)];
    world.ask(1, "example.org");
    assert_eq!(world.sent()[0].0, at(SECOND));
    world.no_way.push(at(SECOND));
    world.ask(2, "example.net");
    assert_eq!(world.answer(), Some((2, Rcode::SERVFAIL, vec![])));
    // There is one again, which is found out as soon as somebody asks.
    world.no_way.clear();
    world.ask(3, "example.com");
    assert_eq!(world.sent()[0].0, at(FIRST));
}

#[test]
fn what_is_truncated_is_asked_for_again_by_tcp() {
    let mut world = World::new(&[FIRST, SECOND]);
    world.ask(1, "example.org");
    world.ask_as(2, 1, Transport::Tcp, &query("example.org", None));
    let sent = world.sent();
    world.arrive(at(FIRST), &response(&sent[0].1, Says::Truncated));
    let (exchange, to, bytes) = world.streams.pop().unwrap();
    assert_eq!((to, &bytes), (at(FIRST), &sent[0].1));
    world.forwarder.stream(world.now, exchange, Ok(&response(&bytes, Says::Addresses(100, 60))));
    world.collect();
    assert_eq!(world.closed, [exchange]);
    let [(1, short), (2, whole)] = &world.answers[..] else { panic!("{:?}", world.answers) };
    assert!(short.header().tc() && short.as_slice().len() <= 512 && short.header_counts().ancount() > 20);
    assert_eq!((whole.header().tc(), whole.header_counts().ancount()), (false, 100));
    world.answers.clear();
    // Whoever comes by TCP because of that finds it.
    world.ask_as(3, 1, Transport::Tcp, &query("example.org", None));
    assert_eq!(world.answer().unwrap().2.len(), 100);

    // Where there is no TCP, the cut answer is better than none; but not in a stream.
    world.ask(4, "example.net");
    let sent = world.sent();
    world.arrive(at(FIRST), &response(&sent[0].1, Says::Truncated));
    let (exchange, ..) = world.streams.pop().unwrap();
    world.forwarder.stream(world.now, exchange, Err(()));
    world.collect();
    let (token, message) = world.answers.pop().unwrap();
    assert_eq!((token, message.header().tc(), message.header().rcode()), (4, true, Rcode::NOERROR));
    world.ask_as(5, 1, Transport::Tcp, &query("example.com", None));
    let sent = world.sent();
    world.arrive(at(FIRST), &response(&sent[0].1, Says::Truncated));
    world.pass(ms(10_000));
    assert_eq!(world.answer(), Some((5, Rcode::SERVFAIL, vec![])));
}

#[test]
fn who_was_not_asked_is_not_heard() {
    let mut world = World::new(&[FIRST, SECOND]);
    world.ask(1, "example.org");
    let sent = world.sent();
    let good = response(&sent[0].1, Says::Addresses(1, 60));
    let mut other_id = good.clone();
    other_id[1] ^= 1;
    let mut question = sent[0].1.clone();
    question[13] ^= 2;
    let other_name = response(&question, Says::Addresses(1, 60));
    for (from, bytes) in [
        (SECOND, &good[..]),
        ("192.0.2.1:54", &good),
        (FIRST, &other_id),
        (FIRST, &other_name),
        (FIRST, &sent[0].1),
        (FIRST, &good[..2]),
        (FIRST, &[]),
    ] {
        world.arrive(at(from), bytes);
        assert_eq!(world.answer(), None);
    }
    // On another of our sockets: whoever guesses would have that many more chances.
    world.forwarder.datagram(world.now, at(FIRST), OURS + 1, &good);
    world.collect();
    assert_eq!((world.answer(), world.forwarder.counters().foreign), (None, 8));
    // Malformed, but by whom was asked: it cannot.
    world.arrive(at(FIRST), &good[..good.len() - 1]);
    assert_eq!(world.sent()[0].0, at(SECOND));
    world.arrive(at(SECOND), &good);
    assert!(world.answer().is_some());
    world.arrive(at(SECOND), &good);
    assert_eq!(world.answer(), None, "once");
}

#[test]
fn a_ttl_that_is_none_is_not_passed_on_as_a_long_one() {
    let mut world = World::new(&[FIRST]);
    world.ask(1, "example.org");
    let sent = world.sent();
    world.arrive(at(FIRST), &response(&sent[0].1, Says::Addresses(1, u32::MAX)));
    assert_eq!(world.answer(), Some((1, Rcode::NOERROR, one(0))));
}

#[test]
fn one_network_does_not_crowd_out_another() {
    let mut world = World::new(&[FIRST]);
    for n in 0..MAX_WAITING as u32 {
        world.ask_as(n, 1, Transport::Udp, &query(&format!("n{n}.org"), None));
    }
    assert_eq!(world.answer(), None);
    world.ask_as(9999, 1, Transport::Udp, &query("one-more.org", Some(1232)));
    assert_eq!(world.answer(), Some((9999, Rcode::SERVFAIL, vec![])));
    world.sent();
    world.ask_as(1, 2, Transport::Udp, &query("other.org", None));
    let sent = world.sent();
    world.arrive(at(FIRST), &response(&sent[0].1, Says::Addresses(1, 5)));
    assert!(world.answer().is_some());
    world.pass(ms(5000));
    assert_eq!(world.answers.len(), MAX_WAITING, "everybody is told");
    world.answers.clear();
    world.sent();
    world.ask(1, "again.org");
    assert_eq!(world.sent().len(), 1);
    assert_eq!(world.forwarder.counters().crowded, 1);
}

#[test]
fn edns_stays_between_two() {
    let mut world = World::new(&[FIRST]);
    world.ask_as(1, 1, Transport::Udp, &query("example.org", Some(4096)));
    let sent = world.sent();
    assert_eq!(Message::from_slice(&sent[0].1).unwrap().opt().unwrap().udp_payload_size(), 1232);
    let mut builder =
        MessageBuilder::new_vec().start_answer(Message::from_slice(&sent[0].1).unwrap(), Rcode::NOERROR).unwrap();
    builder.push((name("example.org"), Ttl::from_secs(60), A::from_octets(198, 51, 100, 1))).unwrap();
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(512);
            opt.push_raw_option(10.into(), 4, |t| {
                t.extend_from_slice(b"cook");
                Ok(())
            })
        })
        .unwrap();
    world.arrive(at(FIRST), &builder.finish());
    let (_, message) = world.answers.pop().unwrap();
    let opt = message.opt().unwrap();
    assert_eq!((opt.udp_payload_size(), opt.opt().is_empty()), (1232, true));
    world.ask(2, "example.org");
    assert!(Message::from_slice(&world.sent()[0].1).unwrap().opt().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever comes, every asker gets one answer, and in the end nothing is remembered of it.
    #[test]
    fn every_question_is_answered_once(acts in proptest::collection::vec((0..8u8, 0..6u8, any::<u16>()), 1..60)) {
        let mut world = World::new(&[FIRST, SECOND]);
        let (mut asked, mut out, mut streams) = (0, Vec::new(), Vec::new());
        for (act, which, number) in acts {
            match act {
                0 | 1 => {
                    asked += 1;
                    let transport = if number % 3 == 0 { Transport::Tcp } else { Transport::Udp };
                    world.ask_as(asked, u32::from(number % 2), transport, &query(&format!("n{which}.org"), None));
                }
                2 => world.pass(ms(u64::from(number) % 4000)),
                _ if out.is_empty() && streams.is_empty() => {}
                3 if !streams.is_empty() => {
                    let (exchange, _, bytes): (u64, SocketAddr, Vec<u8>) = streams.swap_remove(usize::from(number) % streams.len());
                    let says = response(&bytes, Says::Addresses(which * 20, 3));
                    let result = if which == 0 { Err(()) } else { Ok(&says[..]) };
                    world.forwarder.stream(world.now, exchange, result);
                }
                _ if !out.is_empty() => {
                    let (to, bytes): &(SocketAddr, Vec<u8>) = &out[usize::from(number) % out.len()];
                    let says = match which {
                        0 => Says::Truncated,
                        1 => Says::NoName(2),
                        2 => Says::Code(Rcode::SERVFAIL),
                        _ => Says::Addresses(which, 2),
                    };
                    let mut bytes = response(bytes, says);
                    if act == 7 {
                        let at = usize::from(number) % bytes.len();
                        bytes[at] ^= 1 << which;
                    }
                    world.arrive(*to, &bytes);
                }
                _ => {}
            }
            world.collect();
            out.append(&mut world.datagrams);
            streams.append(&mut world.streams);
        }
        world.pass(Duration::from_secs(60));
        let mut tokens: Vec<u32> = world.answers.iter().map(|(token, _)| *token).collect();
        tokens.sort_unstable();
        prop_assert_eq!(tokens, (1..=asked).collect::<Vec<_>>());
        let left = &world.forwarder;
        prop_assert!(left.exchanges.is_empty() && left.by_key.is_empty() && left.by_id.is_empty());
        prop_assert!(left.deadlines.is_empty() && left.waiting.is_empty());
        prop_assert_eq!((left.waiting_in_all, left.streams), (0, 0));
    }
}
