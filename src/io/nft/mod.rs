//! The host's packet filter, nf_tables by netlink: our own table and nobody else's.
//!
//! [`Nft::set`] puts what is wanted into the table `weft`, all at once or not at all. A thread looks every two seconds
//! whether it is still there: the kernel numbers the states of its rules, so as long as nobody changed anything this is one question.
//! Whoever flushes everything ("nft flush ruleset", a firewall that is loaded again) makes a gap of two seconds at most.
//!
//! The table stays when the daemon ends, as the interfaces do, and is written anew by the next one; it goes when nothing is wanted.

mod conntrack;
mod expression;
mod message;
mod rules;

pub use conntrack::forget_strays;
pub use rules::TABLE;

use crate::control::nat::Rules;
use message::{Answer, DUMP, INET, Messages, UNSPECIFIED};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use rules::{Chain, GET_CHAIN, GET_RULE, NEW_CHAIN, NEW_RULE, SUBSYSTEM};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the table is looked at. What is flushed is to be back within ten seconds.
const LOOK: Duration = Duration::from_secs(2);
/// `NFT_MSG_GETGEN`, and the attribute with the number.
const GET_GENERATION: u16 = 16;
const GENERATION: u16 = 1;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// What a batch may take: a thousand publications with sixteen instances each are 6 MB.
const SEND_BUFFER: libc::c_int = 16 << 20;
/// How long the kernel may take for one answer: it answers while it is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// The table, kept as it is wanted by a thread of its own.
#[derive(Debug, Clone, Default)]
pub struct Nft(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    wanted: Rules,
    chains: Vec<Chain>,
    /// The kernel's number of the state that was found right.
    generation: Option<u32>,
    warnings: Vec<String>,
}

impl Nft {
    /// Starts the thread that watches the table.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn start() -> io::Result<Self> {
        let nft = Self::default();
        let watched = nft.clone();
        let watch = move || {
            loop {
                std::thread::sleep(LOOK);
                watched.look();
            }
        };
        std::thread::Builder::new().name("weft-nft".to_owned()).spawn(watch)?;
        Ok(nft)
    }

    /// Makes the table what is wanted; there is none when nothing is.
    ///
    /// # Errors
    /// One sentence; the table is as before.
    pub fn set(&self, wanted: &Rules) -> Result<(), String> {
        let mut state = self.lock();
        let chains = rules::chains(wanted);
        if chains.is_empty() && state.chains.is_empty() && state.generation.is_some() {
            return Ok(());
        }
        write(&chains).map_err(|error| explain(&error))?;
        (state.wanted, state.chains) = (wanted.clone(), chains);
        state.generation = generation().ok();
        state.warnings = warnings(&state.wanted);
        Ok(())
    }

    /// What an operator should know of it.
    pub fn warnings(&self) -> Vec<String> {
        self.lock().warnings.clone()
    }

    /// Looks whether the table is as it was written, and writes it again if not.
    fn look(&self) {
        let mut state = self.lock();
        if state.chains.is_empty() {
            return;
        }
        let now = match generation() {
            Ok(now) if state.generation == Some(now) => return,
            now => now.ok(),
        };
        // Somebody changed something, not necessarily ours.
        let mut warnings = warnings(&state.wanted);
        state.generation = now;
        if !matches!(is_whole(&state.chains), Ok(true)) {
            match write(&state.chains) {
                Ok(()) => {
                    tracing::warn!("somebody changed or removed the nftables table {TABLE}: it is back");
                    state.generation = generation().ok();
                }
                Err(error) => {
                    state.generation = None;
                    warnings.push(explain(&error));
                }
            }
        }
        state.warnings = warnings;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn explain(error: &io::Error) -> String {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run weft as root, or with CAP_NET_ADMIN",
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT | libc::EAFNOSUPPORT) => {
            "the kernel needs nf_tables with NAT (modules nf_tables, nft_nat, nft_masq, nft_fib_inet, nft_numgen, nft_ct)"
        }
        _ => "look at `nft list ruleset`",
    };
    format!("cannot write the nftables table {TABLE}: {error}; {remedy}")
}

/// A socket to the packet filter of our network namespace.
fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    for (option, force) in [(libc::SO_SNDBUFFORCE, true), (libc::SO_SNDBUF, false)] {
        let size = SEND_BUFFER;
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let pointer = std::ptr::from_ref(&size).cast();
        // SAFETY: the option's value is an int that outlives the call, and its length is given.
        let done = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, pointer, length) } == 0;
        if done && force {
            break;
        }
    }
    let patience = libc::timeval { tv_sec: PATIENCE.as_secs().try_into().unwrap_or(5), tv_usec: 0 };
    let length = size_of::<libc::timeval>() as libc::socklen_t;
    let pointer = std::ptr::from_ref(&patience).cast();
    // SAFETY: the option's value is a timeval that outlives the call, and its length is given.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, pointer, length) };
    Ok(socket)
}

/// Writes the chains. The kernel does a batch while it is being sent, and answers it at once.
fn write(chains: &[Chain]) -> io::Result<()> {
    let socket = open()?;
    socket.send(&rules::batch(chains), 0)?;
    // One acknowledgement was asked for; what was refused is said without asking.
    loop {
        let mut buffer = Vec::with_capacity(1 << 16);
        match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let errors = message::answers(&buffer).filter(|answer| answer.kind == ERROR);
        if let Some(errno) = errors.map(|answer| answer.errno()).find(|&errno| errno != 0) {
            return Err(io::Error::from_raw_os_error(errno));
        }
    }
}

/// Sends one request; `take` sees each message of its answer.
fn ask(
    kind: u16,
    flags: u16,
    family: u8,
    fill: impl FnOnce(&mut message::Attributes),
    mut take: impl FnMut(&Answer<'_>),
) -> io::Result<()> {
    let socket = open()?;
    let mut request = Messages::default();
    request.add(kind, flags, family, 0, fill);
    socket.send(&request.into_bytes(), 0)?;
    loop {
        let mut buffer = Vec::with_capacity(1 << 16);
        socket.recv(&mut buffer, 0)?;
        for answer in message::answers(&buffer).filter(|answer| answer.sequence == 1) {
            match answer.kind {
                ERROR | DONE if answer.errno() != 0 => return Err(io::Error::from_raw_os_error(answer.errno())),
                ERROR | DONE => return Ok(()),
                _ => take(&answer),
            }
            if flags & DUMP == 0 {
                return Ok(());
            }
        }
    }
}

/// The number of the present state of all rules.
fn generation() -> io::Result<u32> {
    let mut generation = None;
    ask(
        SUBSYSTEM << 8 | GET_GENERATION,
        0,
        UNSPECIFIED,
        |_| {},
        |answer| {
            generation = message::attribute(answer.attributes(), GENERATION).and_then(message::number);
        },
    )?;
    generation.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Whether our table has these chains and rules, in this order, and no others.
fn is_whole(chains: &[Chain]) -> io::Result<bool> {
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    dump(GET_CHAIN, INET, |answer| {
        if answer.kind == SUBSYSTEM << 8 | NEW_CHAIN && of_table(answer, TABLE) {
            names.extend(message::attribute(answer.attributes(), 3).map(message::text));
        }
    })?;
    dump(GET_RULE, INET, |answer| {
        if answer.kind == SUBSYSTEM << 8 | NEW_RULE && of_table(answer, TABLE) {
            let chain = message::attribute(answer.attributes(), 2).map(message::text).unwrap_or_default();
            let comment = message::attribute(answer.attributes(), 7).and_then(rules::comment_of).unwrap_or_default();
            rules.push((chain, comment));
        }
    })?;
    // The kernel lists the chains in an order of its own.
    let is_ours = |(chain, comments): (&str, Vec<&str>)| {
        rules.iter().filter(|(of, _)| of == chain).map(|(_, comment)| comment.as_str()).eq(comments)
    };
    let mut by_chain = chains.iter().map(|c| (c.name, c.rules.iter().map(|(comment, _)| comment.as_str()).collect()));
    Ok(names.iter().map(String::as_str).eq(chains.iter().map(|chain| chain.name).collect::<BTreeSet<_>>())
        && chains.iter().map(|chain| chain.rules.len()).sum::<usize>() == rules.len()
        && by_chain.all(is_ours))
}

fn of_table(answer: &Answer<'_>, table: &str) -> bool {
    message::attribute(answer.attributes(), 1).is_some_and(|name| message::text(name) == table)
}

fn dump(what: u16, family: u8, take: impl FnMut(&Answer<'_>)) -> io::Result<()> {
    ask(SUBSYSTEM << 8 | what, DUMP, family, |_| {}, take)
}

/// Chains of others through which forwarded packets go: family, table, name, and whether they drop what no rule accepts.
fn forwarding_chains() -> io::Result<Vec<(u8, String, String, bool)>> {
    const FORWARD: u32 = 2;
    let mut found = Vec::new();
    dump(GET_CHAIN, UNSPECIFIED, |answer| {
        let attributes = answer.attributes();
        let text = |kind| message::attribute(attributes, kind).map(message::text).unwrap_or_default();
        let hook =
            message::attribute(attributes, 4).and_then(|hook| message::attribute(hook, 1)).and_then(message::number);
        let is_ip = [INET, message::IPV4, message::IPV6].contains(&answer.family());
        if is_ip && hook == Some(FORWARD) && !(answer.family() == INET && text(1) == TABLE) {
            let drops = message::attribute(attributes, 5).and_then(message::number) == Some(0);
            found.push((answer.family(), text(1), text(3), drops));
        }
    })?;
    Ok(found)
}

/// Whether somebody else has rules for forwarded packets, and so needs forwarding.
pub fn others_forward() -> bool {
    forwarding_chains().is_ok_and(|chains| !chains.is_empty())
}

/// Sentences about chains of others that drop what is forwarded by default, and have no rule that names our interface.
fn warnings(wanted: &Rules) -> Vec<String> {
    let needs = |exposed: &&crate::control::nat::Exposed| exposed.publishes || !exposed.masquerade.is_empty();
    let mut warnings = Vec::new();
    let Ok(chains) = forwarding_chains() else { return warnings };
    for (family, table, chain, _) in chains.iter().filter(|(_, _, _, drops)| *drops) {
        let mut rules = Vec::new();
        let _ = dump(GET_RULE, *family, |answer| {
            if of_table(answer, table) {
                rules.extend_from_slice(answer.payload);
            }
        });
        for exposed in wanted.exposed.iter().filter(needs) {
            let ifname = exposed.ifname.as_str();
            if rules.windows(ifname.len()).any(|bytes| bytes == ifname.as_bytes()) {
                continue;
            }
            let (family, is_iptables) = match *family {
                message::IPV4 => ("ip", "iptables"),
                message::IPV6 => ("ip6", "ip6tables"),
                _ => ("inet", ""),
            };
            let remedy = if chain == "FORWARD" && !is_iptables.is_empty() {
                format!("`{is_iptables} -I FORWARD -i {ifname} -j ACCEPT` and the same with -o")
            } else {
                format!(
                    "`nft insert rule {family} {table} {chain} iifname {ifname} accept` and the same with oifname"
                )
            };
            warnings.push(format!(
                "network {}: chain {chain} of the nftables table {family} {table} drops what is forwarded and names no \
                 {ifname}: published ports and masqueraded containers may not get through; {remedy}",
                exposed.network
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
