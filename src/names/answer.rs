//! From a question to its answer.
//!
//! ```text
//!   web.blue.weft            below the network's domain: answered, whether or not there is such a name
//!   web, api.web             a name of the network as it stands: answered
//!   5.0.32.10.in-addr.arpa   an address of the network: answered
//!   web.red.weft             below another network's domain, or ours in general: there is no such name
//!   anything else            is asked elsewhere or refused, as the file says
//! ```
//!
//! What is ours is answered with authority and never leaves the host. A name that exists without what is asked for is not the
//! same as a name that does not exist (RFC 2308): resolvers give up on the second altogether, and on all below it. In both cases a SOA record says for how long
//! that may be remembered; its owner is the domain, or, for names without one, the name asked for.
//!
//! The instances of a name come in random order, those on this host first where the file asks for it. As many as fit are
//! in a truncated answer: some askers never come again by TCP.

use super::TTL;
use super::directory::{Book, Directory, Node};
use super::query::{Asker, Builder, NoQuery, Query, error};
use super::text::{Reverse, Text, Wire, below, labels};
use super::zone::{DOMAIN, Others, Settings, Zone};
use crate::wire::cidr::Cidr;
use crate::wire::service::Protocol;
use domain::base::charstr::CharStr;
use domain::base::iana::{Class, OptRcode, Rtype};
use domain::base::name::ParsedName;
use domain::base::{Name, Serial, Ttl};
use domain::rdata::{A, Aaaa, Hinfo, Ns, Ptr, Soa, Srv};
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses that one answer has at most: what fits a message in a stream, a random part of them where there are more.
const MAX_ANSWERS: usize = 2048;
/// Names that are told for one address.
const MAX_POINTERS: usize = 16;
/// Instances, ports and names that are looked at with [`Effort::Little`].
const FEW: usize = 16;
/// Who is asked about the zone: nobody (as for the empty zones of RFC 6303 §3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\x00";

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, its length having been in front of it.
    Tcp,
}

/// How much may be done for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Some microseconds, and no waiting for who changes the directory.
    Little,
    /// What it takes.
    Whole,
}

/// What is to be done about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The answer was written.
    Answer,
    /// It is for a [`super::forward::Forwarder`]; nothing was written.
    Forward,
    /// Nothing is sent.
    Silent,
    /// It is more than was to be done for it: ask with [`Effort::Whole`]. Nothing was written.
    Later,
}

/// What is answered.
enum Reply {
    /// There is no such name below the domain with so many labels.
    NoSuchName(usize),
    /// There is, without what is asked for.
    Nothing(usize),
    /// These addresses of the family asked for.
    Addresses(Vec<IpAddr>),
    /// The names of an address.
    Pointers(Vec<Arc<str>>),
    /// The ports of a service, and the addresses of the name behind its two labels.
    Services(Vec<u16>, Vec<IpAddr>),
    /// The domain's SOA record.
    Authority,
    /// The domain's name server: itself.
    Server,
    /// That there is something (RFC 8482).
    Something,
    /// With this code and nothing else.
    Error(OptRcode),
}

/// It is more than is to be looked at.
struct TooMuch;

/// Answers `query`, which somebody in a network asked, into `out`, which is emptied first. `random` puts the instances of a name in order.
pub fn answer(
    directory: &Directory,
    vni: u32,
    transport: Transport,
    effort: Effort,
    query: &[u8],
    random: u64,
    out: &mut Vec<u8>,
) -> Verdict {
    out.clear();
    let settings = directory.settings();
    let Some(zone) = settings.zone(vni).filter(|zone| zone.others != Others::Off) else { return Verdict::Silent };
    if effort == Effort::Little && !Query::is_plain(query) {
        return Verdict::Later;
    }
    let query = match Query::read(query, transport) {
        Ok(query) => query,
        Err(NoQuery::Silent) => return Verdict::Silent,
        Err(NoQuery::Error(message, edns, code)) => {
            error(message, Asker { transport, edns }, code, out);
            return Verdict::Answer;
        }
    };
    let text = Text::of(&query.name);
    let most = if effort == Effort::Little { FEW } else { usize::MAX };
    let look = Look { settings: &settings, zone, rtype: query.rtype, text: text.as_str(), random, most };
    let found = match effort {
        Effort::Little => directory.try_in_network(vni, |book| look.reply(book)),
        Effort::Whole => Some(directory.in_network(vni, |book| look.reply(book))),
    };
    match found {
        None | Some(Err(TooMuch)) => Verdict::Later,
        Some(Ok(None)) => Verdict::Forward,
        Some(Ok(Some(reply))) => {
            write(&query, zone, directory.version(), reply, out);
            Verdict::Answer
        }
    }
}

/// What is looked for, and where.
struct Look<'a> {
    settings: &'a Settings,
    zone: &'a Zone,
    rtype: Rtype,
    text: &'a str,
    random: u64,
    /// Items of one kind that are looked at.
    most: usize,
}

impl Look<'_> {
    /// What is answered; `None` is for others to answer.
    fn reply(&self, book: Option<&Book>) -> Result<Option<Reply>, TooMuch> {
        // Zones are not handed out, and nothing but these can be asked for by that name.
        if matches!(self.rtype, Rtype::AXFR | Rtype::IXFR | Rtype::MAILA | Rtype::MAILB | Rtype::OPT | Rtype::TSIG) {
            return Ok(Some(Reply::Error(OptRcode::REFUSED)));
        }
        let apex = labels(&self.zone.domain);
        match below(self.text, &self.zone.domain) {
            Some("") => return Ok(Some(self.domain_itself(apex))),
            Some(name) => return Ok(Some(self.name(book, name, apex)?.unwrap_or(Reply::NoSuchName(apex)))),
            None => {}
        }
        if let Some(domain) = self.settings.domain_of(self.text) {
            // Who hears that there is no such name need not ask for anything below it (RFC 8020), and there our own domain may be.
            // Above another network's there is nothing to say: that network is none of the asker's business.
            let is_above_ours = self.text == DOMAIN || below(&self.zone.domain, self.text).is_some();
            let apex = labels(domain);
            return Ok(Some(if is_above_ours { Reply::Nothing(apex) } else { Reply::NoSuchName(apex) }));
        }
        if let Some(reverse) = Reverse::of(self.text)
            && let Some(reply) = self.address(book, &reverse)?
        {
            return Ok(Some(reply));
        }
        // One that is only the end of a name of ours may be a name of others.
        let whole = labels(self.text);
        let bare = self.name(book, self.text, whole)?.filter(|_| self.is_bare(book));
        Ok(bare.or_else(|| (self.zone.others == Others::Refuse).then_some(Reply::Error(OptRcode::REFUSED))))
    }

    fn is_bare(&self, book: Option<&Book>) -> bool {
        let name = service_of(self.text).map_or(self.text, |(.., name)| name);
        let is_name = |name| book.and_then(|book| book.name(name)).is_some_and(Node::is_name);
        is_name(self.text) || is_name(name)
    }

    /// The zone's own name: it has the addresses where the zone is asked for.
    fn domain_itself(&self, apex: usize) -> Reply {
        match self.rtype {
            Rtype::SOA => Reply::Authority,
            Rtype::NS => Reply::Server,
            Rtype::ANY => Reply::Something,
            rtype => {
                let service = self.zone.service.iter().copied();
                let found: Vec<_> = service.filter(|address| is_of(*address, rtype)).collect();
                if found.is_empty() { Reply::Nothing(apex) } else { Reply::Addresses(found) }
            }
        }
    }

    /// A name of the network, if there is one.
    fn name(&self, book: Option<&Book>, name: &str, apex: usize) -> Result<Option<Reply>, TooMuch> {
        let Some(book) = book else { return Ok(None) };
        if let Some(node) = book.name(name) {
            return Ok(Some(match self.rtype {
                Rtype::ANY if node.is_name() => Reply::Something,
                rtype => match self.instances(node, |address| is_of(address, rtype))? {
                    none if none.is_empty() => Reply::Nothing(apex),
                    found => Reply::Addresses(found),
                },
            }));
        }
        // _SERVICE._PROTOCOL.NAME, and _PROTOCOL.NAME, which is but its end.
        let Some((service, protocol, name)) = service_of(name) else { return Ok(None) };
        let Some(node) = book.name(name) else { return Ok(None) };
        self.check(node.services.len())?;
        let of_protocol = node.services.iter().filter(|offered| offered.protocol == protocol);
        let Some(service) = service else {
            return Ok(of_protocol.map(|_| Reply::Nothing(apex)).next());
        };
        let is_meant = |port: u16, name: &str| service == name || service.parse() == Ok(port);
        let mut ports: Vec<u16> = of_protocol.filter(|s| is_meant(s.port, &s.name)).map(|s| s.port).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(match (ports.is_empty(), self.rtype) {
            (true, _) => None,
            (false, Rtype::SRV) => Some(Reply::Services(ports, self.instances(node, |_| true)?)),
            (false, Rtype::ANY) => Some(Reply::Something),
            (false, _) => Some(Reply::Nothing(apex)),
        })
    }

    /// The names of an address of this network; `None` if it is none of its.
    fn address(&self, book: Option<&Book>, reverse: &Reverse) -> Result<Option<Reply>, TooMuch> {
        let (Cidr { address, .. }, whole) = (reverse.part, labels(self.text));
        let is_inside = self.zone.subnets.iter().any(|subnet| reverse.is_inside(subnet));
        if !reverse.is_address() {
            return Ok(is_inside.then_some(Reply::Nothing(whole)));
        }
        let known = book.map_or(&[][..], |book| book.names_of(address));
        self.check(known.len())?;
        let mut names = known.to_vec();
        if self.zone.service.contains(&address) {
            names.push("".into());
        }
        names.sort_unstable();
        names.dedup();
        if reverse.is_longer || names.is_empty() {
            return Ok((is_inside || !names.is_empty()).then(|| Reply::NoSuchName(whole.saturating_sub(1))));
        }
        Ok(Some(match self.rtype {
            Rtype::PTR => {
                shuffle(&mut names, self.random);
                names.truncate(MAX_POINTERS);
                Reply::Pointers(names)
            }
            Rtype::ANY => Reply::Something,
            _ => Reply::Nothing(whole),
        }))
    }

    /// So many are to be looked at.
    fn check(&self, items: usize) -> Result<(), TooMuch> {
        if items > self.most { Err(TooMuch) } else { Ok(()) }
    }

    /// The addresses of a name that are wanted, once each, in random order.
    fn instances(&self, node: &Node, is_wanted: impl Fn(IpAddr) -> bool) -> Result<Vec<IpAddr>, TooMuch> {
        let all = &node.instances;
        self.check(all.len())?;
        let start = usize::try_from(self.random % all.len().max(1) as u64).unwrap_or(0);
        let (end, begin) = all.split_at(start.min(all.len()));
        let wanted = begin.iter().chain(end).filter(|(address, _)| is_wanted(*address));
        let mut found: Vec<(IpAddr, bool)> = wanted.take(MAX_ANSWERS).copied().collect();
        if found.len() > 1 {
            found.sort_unstable_by_key(|&(address, is_local)| (address, !is_local));
            found.dedup_by_key(|(address, _)| *address);
            shuffle(&mut found, self.random);
            if self.zone.local_first {
                found.sort_by_key(|(_, is_local)| !is_local);
            }
        }
        Ok(found.into_iter().map(|(address, _)| address).collect())
    }
}

/// `_SERVICE._PROTOCOL.NAME`, the service missing in `_PROTOCOL.NAME`.
fn service_of(text: &str) -> Option<(Option<&str>, Protocol, &str)> {
    let protocol = |label: &str| match label {
        "_tcp" => Some(Protocol::Tcp),
        "_udp" => Some(Protocol::Udp),
        _ => None,
    };
    let (first, rest) = text.split_once('.')?;
    if let Some(protocol) = protocol(first) {
        return Some((None, protocol, rest));
    }
    let (second, name) = rest.split_once('.')?;
    Some((Some(first.strip_prefix('_')?), protocol(second)?, name))
}

fn is_of(address: IpAddr, rtype: Rtype) -> bool {
    rtype == if address.is_ipv4() { Rtype::A } else { Rtype::AAAA }
}

/// Puts things in an order that follows from `random`, each with about the same chance (Fisher and Yates).
fn shuffle<T>(things: &mut [T], random: u64) {
    let mut state = random | 1;
    for last in (1..things.len()).rev() {
        // Marsaglia's xorshift64*: balance is all that is asked of it.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let drawn = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        things.swap(last, usize::try_from(drawn % (last as u64 + 1)).unwrap_or(0));
    }
}

fn write(query: &Query<'_>, zone: &Zone, version: u32, reply: Reply, out: &mut Vec<u8>) {
    let code = match reply {
        Reply::NoSuchName(_) => OptRcode::NXDOMAIN,
        Reply::Error(code) => code,
        _ => OptRcode::NOERROR,
    };
    let asker = query.asker;
    let Some(mut builder) = asker.begin(out, query.message, code.rcode()) else { return };
    let header = builder.header_mut();
    header.set_aa(!matches!(reply, Reply::Error(_)));
    header.set_ra(zone.others == Others::Forward);
    header.set_cd(query.message.header().cd());
    let ttl = Ttl::from_secs(TTL);
    let name = &query.name;
    let mut authority = None;
    let mut additional: Vec<IpAddr> = Vec::new();
    let fits = match reply {
        Reply::Error(_) => true,
        Reply::NoSuchName(apex) | Reply::Nothing(apex) => {
            authority = Some(apex);
            true
        }
        Reply::Addresses(addresses) => addresses.into_iter().all(|address| push_address(&mut builder, name, address)),
        Reply::Pointers(names) => names.iter().all(|pointed| {
            let Some(wire) = Wire::of(&[pointed, &zone.domain]) else { return true };
            builder.push((name, Class::IN, ttl, Ptr::new(wire.name()))).is_ok()
        }),
        Reply::Services(ports, addresses) => {
            additional = addresses;
            ports.into_iter().all(|port| {
                let Some(target) = name.iter_suffixes().nth(2) else { return true };
                builder.push((name, Class::IN, ttl, Srv::new(0, 0, port, target))).is_ok()
            })
        }
        Reply::Authority => builder.push((name, Class::IN, ttl, soa(name, version))).is_ok(),
        Reply::Server => builder.push((name, Class::IN, ttl, Ns::new(name))).is_ok(),
        Reply::Something => {
            let text = |text: &'static [u8]| CharStr::from_octets(text).ok();
            let hinfo = text(b"RFC8482").zip(text(b"")).map(|(cpu, os)| Hinfo::new(cpu, os));
            hinfo.is_none_or(|hinfo| builder.push((name, Class::IN, ttl, hinfo)).is_ok())
        }
    };
    builder.header_mut().set_tc(!fits && asker.transport == Transport::Udp);
    let mut builder = builder.authority();
    if let Some(apex) = authority {
        let above = name.label_count().saturating_sub(apex + 1);
        if let Some(owner) = name.iter_suffixes().nth(above) {
            // Without it the answer is as true, and remembered by nobody.
            let _ = builder.push((&owner, Class::IN, ttl, soa(&owner, version)));
        }
    }
    let mut builder = builder.additional();
    if let Some(target) = name.iter_suffixes().nth(2) {
        for address in additional {
            let pushed = match address {
                IpAddr::V4(address) => builder.push((&target, Class::IN, ttl, A::new(address))),
                IpAddr::V6(address) => builder.push((&target, Class::IN, ttl, Aaaa::new(address))),
            };
            if pushed.is_err() {
                break;
            }
        }
    }
    asker.end(builder, code, out);
}

fn soa<'n>(domain: &ParsedName<&'n [u8]>, version: u32) -> Soa<ParsedName<&'n [u8]>> {
    let nobody = Name::from_octets(NOBODY).unwrap_or_else(|_| Name::root_ref());
    let (hour, ttl) = (Ttl::HOUR, Ttl::from_secs(TTL));
    Soa::new(*domain, nobody.into(), Serial(version), hour, hour, hour, ttl)
}

fn push_address(builder: &mut Builder, name: &ParsedName<&[u8]>, address: IpAddr) -> bool {
    let ttl = Ttl::from_secs(TTL);
    match address {
        IpAddr::V4(address) => builder.push((name, Class::IN, ttl, A::new(address))).is_ok(),
        IpAddr::V6(address) => builder.push((name, Class::IN, ttl, Aaaa::new(address))).is_ok(),
    }
}
