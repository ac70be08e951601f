//! From what is wanted to chains of rules: one table, `weft`, of the family inet.
//!
//! ```text
//!  guard        prerouting, raw       what comes by our interface for 127.0.0.0/8 is dropped: see below
//!  prerouting   prerouting, dstnat    for an address of this host: ask `publish`
//!  output       output,     dstnat    the same, for connections that this host makes
//!  publish                            one rule for each instance: the destination becomes the instance
//!  postrouting  postrouting, srcnat   published connections, and what leaves a network with `--masquerade`,
//!                                     get the address of the interface they leave by
//!  forward      forward,    filter    into an exposed network pass published connections and what is answered to
//!                                     its containers, nothing else, wherever it comes from
//! ```
//!
//! *Sharing.* With n instances the first rule takes every n-th connection that it sees, the next every (n-1)-th of those that
//! are left, the last all of them: each gets its equal share in turn. Only the first packet of a connection comes here; the others
//! follow conntrack.
//!
//! *Why published connections are masqueraded into the network.* The instance answers to whoever it thinks asked. With the client's own address it
//! would answer by its own default route, past the host that has to change the addresses back.
//!
//! *127.0.0.1.* A connection to a published port of 127.0.0.1 leaves by our interface with our address there. Its answers come
//! back and are for 127.0.0.1 once their addresses were changed back, which the kernel calls martian unless `route_localnet` is
//! set on the interface. With that a container could send to 127.0.0.1 of this host: `guard` sees packets before any address is
//! changed and drops such ones. There is nothing like `route_localnet` in IPv6, so `[::1]` reaches no published port.
//!
//! *What others drop.* An `accept` holds in its own table only: a chain of others that drops what is forwarded (Docker's, by
//! its policy) still drops it. [`super::Nft::warnings`] tells of those.

use super::expression::{Rule, Way};
use super::message::{ACK, APPEND, Attributes, CREATE, INET, Messages};
use crate::control::nat::{Forward, Rules};
use crate::wire::cidr::Cidr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Our table's name.
pub const TABLE: &str = "weft";
/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a type.
pub(super) const SUBSYSTEM: u16 = 10;
/// Messages of it.
pub(super) const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
/// The messages around a batch.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Hooks of linux/netfilter.h.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// The longest comment, as nft has it.
const MAX_COMMENT: usize = 120;
/// 127.0.0.0/8.
const LOOPBACK_V6: Cidr = Cidr { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 };
const LOOPBACK: Cidr = Cidr { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 };

/// Where the kernel asks a chain: hook and priority (linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Base {
    kind: &'static str,
    hook: u32,
    priority: i32,
}

/// A chain with its rules, each with the comment by which it is known.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    base: Option<Base>,
    pub(super) rules: Vec<(String, Rule)>,
}

impl Chain {
    fn new(name: &'static str, base: Option<(&'static str, u32, i32)>) -> Self {
        let base = base.map(|(kind, hook, priority)| Base { kind, hook, priority });
        Self { name, base, rules: Vec::new() }
    }

    fn add(&mut self, comment: impl Into<String>, rule: Rule) {
        let mut comment: String = comment.into();
        comment.truncate(comment.floor_char_boundary(MAX_COMMENT));
        self.rules.push((comment, rule));
    }
}

/// The chains that do what is wanted; none when nothing is.
pub(super) fn chains(wanted: &Rules) -> Vec<Chain> {
    if wanted.exposed.is_empty() {
        return Vec::new();
    }
    let rule = Rule::default;
    let mut guard = Chain::new("guard", Some(("filter", PREROUTING, -300)));
    let mut forward = Chain::new("forward", Some(("filter", FORWARD, 0)));
    let mut post = Chain::new("postrouting", Some(("nat", POSTROUTING, 100)));
    let mut publish = Chain::new("publish", None);
    forward.add("published", rule().forwarded().accept());
    for exposed in &wanted.exposed {
        let (ifname, network) = (&exposed.ifname, &exposed.network);
        guard.add(format!("{network}: no way to 127.0.0.0/8"), rule().by(Way::In, ifname).to(LOOPBACK).drop());
        guard.add(format!("{network}: nobody is 127.0.0.0/8"), rule().by(Way::In, ifname).from(LOOPBACK).drop());
        forward.add(format!("{network}: answers"), rule().by(Way::Out, ifname).answers().accept());
        let others = rule().not_by(Way::In, ifname).by(Way::Out, ifname).drop();
        forward.add(format!("{network}: nothing else from elsewhere"), others);
        post.add(format!("{network}: published"), rule().by(Way::Out, ifname).forwarded().masquerade());
        for prefix in &exposed.masquerade {
            let leaving = rule().from(*prefix).not_by(Way::Out, ifname).masquerade();
            post.add(format!("{network}: to the outside from {prefix}"), leaving);
        }
    }
    // Behind all that keeps others out: from one network into another nobody gets.
    for exposed in &wanted.exposed {
        let (ifname, network) = (&exposed.ifname, &exposed.network);
        forward.add(format!("{network}: answers of containers"), rule().by(Way::In, ifname).answers().accept());
        for prefix in &exposed.masquerade {
            let out = rule().by(Way::In, ifname).from(*prefix).not_by(Way::Out, ifname).accept();
            forward.add(format!("{network}: from {prefix} to the outside"), out);
        }
        forward.add(format!("{network}: nobody else leaves"), rule().by(Way::In, ifname).drop());
    }
    for one in &wanted.forwards {
        add_forward(&mut publish, one);
    }
    let mut all = vec![guard, publish];
    for (name, hook) in [("prerouting", PREROUTING), ("output", OUTPUT)] {
        let mut chain = Chain::new(name, Some(("nat", hook, -100)));
        if hook == OUTPUT {
            // Linux lets nothing out that comes from ::1. So it is refused, and programs try 127.0.0.1.
            chain.add("not from ::1", rule().to(LOOPBACK_V6).accept());
        }
        chain.add("for this host", rule().for_us().jump("publish"));
        all.push(chain);
    }
    all.extend([post, forward]);
    all
}

/// The rules of one publication: those of one family share its connections.
fn add_forward(chain: &mut Chain, forward: &Forward) {
    for v4 in [true, false] {
        if forward.host_ip.is_some_and(|ip| ip.is_ipv4() != v4) {
            continue;
        }
        let targets: Vec<&SocketAddr> = forward.targets.iter().filter(|target| target.is_ipv4() == v4).collect();
        for (index, target) in targets.iter().enumerate() {
            let rule = match forward.host_ip.filter(|ip| !ip.is_unspecified()) {
                Some(address) => Rule::default().to(Cidr { address, prefix: if v4 { 32 } else { 128 } }),
                None => Rule::default().of_v4(v4),
            };
            let rule = rule.for_port(forward.proto, forward.host_port);
            let left = u32::try_from(targets.len() - index).unwrap_or(1);
            let rule = if left > 1 { rule.every(left) } else { rule };
            chain.add(format!("{forward} to {target}"), rule.forward(**target));
        }
    }
}

/// The batch that puts these chains in the place of whatever is in our table, all at once; no chains, and no table is left.
pub(super) fn batch(chains: &[Chain]) -> Vec<u8> {
    let mut batch = Messages::default();
    batch.add(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| {});
    let kind = |message: u16| SUBSYSTEM << 8 | message;
    let name = |to: &mut Attributes| to.text(1, TABLE);
    // Made first, so that there is one to remove.
    batch.add(kind(NEW_TABLE), CREATE, INET, 0, name);
    batch.add(kind(DELETE_TABLE), ACK, INET, 0, name);
    if !chains.is_empty() {
        batch.add(kind(NEW_TABLE), CREATE, INET, 0, name);
    }
    for chain in chains {
        batch.add(kind(NEW_CHAIN), CREATE, INET, 0, |to| {
            to.text(1, TABLE);
            to.text(3, chain.name);
            if let Some(base) = chain.base {
                to.nest(4, |to| {
                    to.number(1, base.hook);
                    to.bytes(2, &base.priority.to_be_bytes());
                });
                to.number(5, 1);
                to.text(7, base.kind);
            }
        });
    }
    for chain in chains {
        for (comment, rule) in &chain.rules {
            batch.add(kind(NEW_RULE), CREATE | APPEND, INET, 0, |to| {
                to.text(1, TABLE);
                to.text(2, chain.name);
                to.nest(4, |to| to.append(rule.expressions()));
                to.bytes(7, &user_data(comment));
            });
        }
    }
    batch.add(BATCH_END, 0, 0, SUBSYSTEM, |_| {});
    batch.into_bytes()
}

/// A comment as nft writes and shows it: type, length, text with its zero byte.
fn user_data(comment: &str) -> Vec<u8> {
    let mut data = vec![0, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    data.extend(comment.as_bytes());
    data.push(0);
    data
}

/// The comment in user data.
pub(super) fn comment_of(data: &[u8]) -> Option<String> {
    let length = usize::from(*data.get(1)?);
    (data.first() == Some(&0)).then(|| data.get(2..2 + length).map(super::message::text))?
}
