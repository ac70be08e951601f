//! Making, adopting and removing ports: a TAP of ours in somebody's network namespace.
//!
//! ```text
//!   locate ─▶ create ─▶ keep ─▶ … daemon dies … ─▶ adopt ─▶ … ─▶ destroy
//!                │         │                          │
//!   TAP as weftN │         │ record saved, then       │ inside the namespace: the TAP with
//!   here, moved, │         │ made to outlive us       │ our MAC, whatever its name is now
//!   renamed, addressed
//! ```
//!
//! **All or nothing.** Until [`MadePort::keep`] the TAP is not persistent: when a step fails or the daemon dies, its
//! file is closed and the kernel removes the interface, in whichever namespace it is, with its addresses and routes.
//!
//! **Whose life it shares.** A TAP's file keeps the namespace alive that it was *opened* in. A port is made in the
//! daemon's namespace, so a container's namespace can die under it, and the file says so (`EBADFD`). An adopted port
//! had to be opened inside: it keeps the namespace alive, and somebody has to ask [`alive`] from time to time.

use super::container::{self, ContainerError};
use super::netlink::{Netlink, NetlinkError};
use super::netns::{Netns, NetnsId};
use super::store::{PortRecord, Store, StoreError, Via};
use super::tap::{Tap, TapError, TapOffload};
use crate::config::{Port, PortAddress, Target};
use crate::control::ports::Origin;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Frames that wait in a TAP for the daemon to read them. The kernel's 500 overflows when a worker is busy with
/// other ports for a millisecond at the packet rates we forward.
const QUEUE: u32 = 1000;
/// The name a TAP is made under, before it goes where it belongs. The kernel finds the number.
const TEMPORARY: &str = "weft%d";

/// Why a port was not made, adopted or changed. Nothing half-made is left behind.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The process is not there.
    #[error("there is no process {0}: has it ended?")]
    NoProcess(i32),
    /// The namespace cannot be found or entered.
    #[error(transparent)]
    Namespace(io::Error),
    /// The container cannot be found.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The container has no namespace of its own.
    #[error(
        "container {0} runs in the host's own network namespace (network mode 'host'), where there is nothing to attach: \
         run it in another mode (none, bridge, or a network of its own), or give the host itself an address with `weft expose`"
    )]
    HostMode(String),
    /// The namespace is the daemon's own.
    #[error("{0} is the host's own: give the host an address with `weft expose`")]
    HostsOwn(String),
    /// Another interface has the name.
    #[error("interface {ifname} already exists in {place} ({kind}): choose another name with --ifname")]
    NameTaken {
        /// The name.
        ifname: String,
        /// Where.
        place: String,
        /// What it is: "a veth".
        kind: String,
    },
    /// Another interface has the address.
    #[error("address {} is already on interface {ifname} in {place}: choose another with --ip", .address.address)]
    AddressTaken {
        /// The address asked for.
        address: Cidr,
        /// Who has it.
        ifname: String,
        /// Where.
        place: String,
    },
    /// An IPv6 address was asked for where there is no IPv6.
    #[error("cannot give {place} the address {address}: {why}")]
    NoIpv6 {
        /// The address asked for.
        address: Cidr,
        /// Where.
        place: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A capability is missing.
    #[error("not allowed to {0}: run weft as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    NotPermitted(String),
    /// The TAP could not be made or opened.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The kernel refused a step.
    #[error("{source}, in {place}")]
    Netlink {
        /// Where.
        place: String,
        /// What it said.
        source: NetlinkError,
    },
    /// The record could not be saved.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused something that is never refused.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl PortError {
    /// Whether what is missing may come by itself: a container that has not started yet.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoProcess(_) | Self::Container(_) => true,
            Self::Namespace(error) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }

    fn netlink(place: &str) -> impl Fn(NetlinkError) -> Self {
        move |source| match source.is(libc::EPERM) {
            true => Self::NotPermitted(format!("{} in {place}", source.verb)),
            false => Self::Netlink { place: place.to_owned(), source },
        }
    }
}

/// A target's namespace, found and held.
#[derive(Debug)]
pub struct Located {
    /// The namespace.
    pub netns: Netns,
    /// How it was reached.
    pub via: Via,
    /// What people call it, for messages.
    pub place: String,
}

/// Finds a target's namespace. `sockets` are the Docker-compatible API sockets to ask for container names.
///
/// # Errors
/// [`PortError`]: no such process, path or container, or it may not be entered.
pub fn locate(target: &Target, sockets: &[PathBuf]) -> Result<Located, PortError> {
    let host = Netns::current().map_err(PortError::Namespace)?;
    let located = match target {
        Target::Host => return Ok(Located { netns: host, via: Via::Host, place: "the host".to_owned() }),
        Target::Pid(pid) => locate_process(*pid, format!("the namespace of process {pid}"))?,
        Target::Netns(path) => {
            let netns = Netns::open(path).map_err(PortError::Namespace)?;
            Located { netns, via: Via::Path(path.clone()), place: format!("namespace {}", path.display()) }
        }
        Target::Container(name) => {
            let running = container::resolve(name, sockets)?;
            let mut located = locate_process(running.pid, format!("container {name}"))?;
            if let Via::Process { engine, .. } = &mut located.via {
                *engine = Some(running.engine);
            }
            located
        }
    };
    if located.netns.id() == host.id() {
        return Err(match target {
            Target::Container(name) => PortError::HostMode(name.clone()),
            _ => PortError::HostsOwn(located.place),
        });
    }
    Ok(located)
}

fn locate_process(pid: i32, place: String) -> Result<Located, PortError> {
    let started = start_of(pid).ok_or(PortError::NoProcess(pid))?;
    let netns = Netns::of_pid(pid).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PortError::NoProcess(pid),
        _ => PortError::Namespace(error),
    })?;
    // The id may have changed hands between the two looks.
    if start_of(pid) != Some(started) {
        return Err(PortError::NoProcess(pid));
    }
    Ok(Located { netns, via: Via::Process { pid, started, engine: None }, place })
}

/// The port to make.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// As it was asked for.
    pub spec: &'a Port,
    /// Its addresses, those chosen here among them.
    pub addresses: &'a [PortAddress],
    /// Its network's VNI.
    pub vni: u32,
    /// Who asked.
    pub origin: Origin,
    /// Its network's MTU.
    pub mtu: u16,
    /// Its MAC address, chosen by the caller where the specification leaves it open.
    pub mac: Mac,
    /// Which of two places of its station is the later one.
    pub sequence: u32,
    /// The offloads the probe granted.
    pub offload: TapOffload,
}

/// A port that is in its place and carries frames, but goes when it is dropped.
#[derive(Debug)]
#[must_use = "the interface vanishes unless the port is kept"]
pub struct MadePort {
    /// Its open TAP.
    pub tap: Tap,
    /// What is to be remembered of it.
    pub record: PortRecord,
}

impl MadePort {
    /// Makes the port outlive the daemon: first saves its record, then makes its TAP persistent, so that no TAP is
    /// ever left without a record.
    ///
    /// # Errors
    /// [`PortError`]; the port is gone then.
    pub fn keep(self, store: &mut Store) -> Result<(Tap, PortRecord), PortError> {
        store.put(&self.record)?;
        if let Err(error) = self.tap.set_persist(true) {
            store.remove(&self.record.spec.name)?;
            return Err(PortError::system("make the TAP persistent")(error));
        }
        Ok((self.tap, self.record))
    }
}

/// Makes a port: a TAP in the target's namespace, with its name, addresses and default routes, and up.
///
/// # Errors
/// [`PortError`]; nothing is left behind.
pub fn create(wanted: &Wanted<'_>, at: &Located) -> Result<MadePort, PortError> {
    let spec = wanted.spec;
    inside(&at.netns, |netlink| check_free(netlink, spec, wanted.addresses, &at.place))?;

    // From here on the interface goes with `tap`, wherever it has got to.
    let tap = Tap::create(TEMPORARY, wanted.offload)?;
    let mut here = Netlink::open().map_err(PortError::system("open a netlink socket"))?;
    let index = dress(&mut here, &tap, wanted)?;
    here.move_to(index, &at.netns, &spec.ifname).map_err(|error| match error.is(libc::EEXIST) {
        true => name_taken(spec, &at.place, None),
        false => PortError::netlink(&at.place)(error),
    })?;
    inside(&at.netns, |netlink| configure(netlink, spec, wanted.addresses, &at.place))?;

    let record = PortRecord {
        spec: spec.clone(),
        vni: wanted.vni,
        mac: wanted.mac,
        origin: wanted.origin,
        netns: at.netns.id(),
        via: at.via.clone(),
        sequence: wanted.sequence,
    };
    Ok(MadePort { tap, record })
}

/// Makes a port in the daemon's namespace, under its interface's name: without addresses and not up.
///
/// # Errors
/// [`PortError`]; nothing is left behind.
pub fn create_loose(wanted: &Wanted<'_>) -> Result<MadePort, PortError> {
    let spec = wanted.spec;
    let here = Netns::current().map_err(PortError::Namespace)?;
    let tap = Tap::create(&spec.ifname, wanted.offload)?;
    let mut netlink = Netlink::open().map_err(PortError::system("open a netlink socket"))?;
    dress(&mut netlink, &tap, wanted)?;
    let record = PortRecord {
        spec: spec.clone(),
        vni: wanted.vni,
        mac: wanted.mac,
        origin: wanted.origin,
        netns: here.id(),
        via: Via::Host,
        sequence: wanted.sequence,
    };
    Ok(MadePort { tap, record })
}

/// Gives a fresh TAP what it keeps wherever it goes; returns its index.
fn dress(netlink: &mut Netlink, tap: &Tap, wanted: &Wanted<'_>) -> Result<u32, PortError> {
    let refused = PortError::netlink("the daemon's namespace");
    let name = tap.name().map_err(PortError::system("look at the TAP"))?;
    let index = netlink.link(&name).map_err(&refused)?.ok_or(TapError::Missing(name))?.index;
    netlink.set_txqueuelen(index, QUEUE).map_err(&refused)?;
    netlink.set_mtu(index, u32::from(wanted.mtu)).map_err(&refused)?;
    netlink.set_mac(index, wanted.mac).map_err(&refused)?;
    Ok(index)
}

fn check_free(netlink: &mut Netlink, spec: &Port, addresses: &[PortAddress], place: &str) -> Result<(), PortError> {
    let refused = PortError::netlink(place);
    if let Some(link) = netlink.link(&spec.ifname).map_err(&refused)? {
        return Err(name_taken(spec, place, link.kind));
    }
    let present = netlink.all_addresses().map_err(&refused)?;
    for address in addresses.iter().map(|address| address.cidr) {
        let Some(other) = present.iter().find(|other| other.cidr.address == address.address) else { continue };
        let owner = netlink.link_by_index(other.index).map_err(&refused)?;
        let ifname = owner.map_or_else(|| other.index.to_string(), |link| link.name);
        return Err(PortError::AddressTaken { address, ifname, place: place.to_owned() });
    }
    Ok(())
}

fn name_taken(spec: &Port, place: &str, kind: Option<String>) -> PortError {
    let kind = kind.map_or_else(|| "not weft's".to_owned(), |kind| format!("a {kind}"));
    PortError::NameTaken { ifname: spec.ifname.clone(), place: place.to_owned(), kind }
}

/// Gives an interface in the daemon's namespace those of its addresses that it lacks, and switches it on; whether there was anything to do.
///
/// # Errors
/// The kernel refused something; the rest is as it was.
pub fn mend(ifname: &str, addresses: &[PortAddress]) -> Result<bool, PortError> {
    let refused = PortError::netlink("the host");
    let mut netlink = Netlink::open().map_err(PortError::system("open a netlink socket"))?;
    let Some(link) = netlink.link(ifname).map_err(&refused)? else { return Ok(false) };
    let present = netlink.addresses(link.index).map_err(&refused)?;
    let is_missing = |wanted: &&PortAddress| present.iter().all(|there| there.cidr.address != wanted.cidr.address);
    let missing: Vec<Cidr> = addresses.iter().filter(is_missing).map(|wanted| wanted.cidr).collect();
    // IPv6 addresses are forgotten by an interface that is switched off, and taken by one that is on.
    if !link.up {
        netlink.set_up(link.index).map_err(&refused)?;
    }
    for &cidr in &missing {
        netlink.add_address(link.index, cidr, true).map_err(&refused)?;
    }
    Ok(!link.up || !missing.is_empty())
}

fn configure(netlink: &mut Netlink, spec: &Port, addresses: &[PortAddress], place: &str) -> Result<(), PortError> {
    let refused = PortError::netlink(place);
    let found = netlink.link(&spec.ifname).map_err(&refused)?;
    let index = found.ok_or_else(|| TapError::Missing(spec.ifname.clone()))?.index;
    if let Some(address) = addresses.iter().find(|address| address.cidr.address.is_ipv6()) {
        enable_ipv6(&spec.ifname).map_err(|why| PortError::NoIpv6 {
            address: address.cidr,
            place: place.to_owned(),
            why,
        })?;
    }
    for address in addresses {
        // Without duplicate address detection: weft announces the address itself, and it is of use at once.
        netlink.add_address(index, address.cidr, true).map_err(&refused)?;
    }
    netlink.set_up(index).map_err(&refused)?;
    for gateway in addresses.iter().filter_map(|address| address.gateway) {
        netlink.add_default_route(gateway, index).map_err(&refused)?;
    }
    Ok(())
}

/// Container engines switch IPv6 off in a container whose own networks have none. Somebody who asks for an IPv6
/// address on this interface wants it there, and only there. The calling thread is in the interface's namespace, and
/// `/proc/sys/net` shows what belongs to that.
fn enable_ipv6(ifname: &str) -> Result<(), String> {
    let switch = Path::new("/proc/sys/net/ipv6/conf").join(ifname).join("disable_ipv6");
    match fs::read_to_string(&switch) {
        Ok(text) if text.trim() == "0" => Ok(()),
        Ok(_) => fs::write(&switch, "0").map_err(|error| {
            format!("IPv6 is switched off there and {} cannot be changed: {error}", switch.display())
        }),
        Err(_) => Err("IPv6 is not available there: the kernel runs without it, or the MTU is below 1280".to_owned()),
    }
}

/// What became of a port while no daemon was there.
#[derive(Debug)]
pub enum Adopted {
    /// It is still there, and open again. Addresses and routes were not touched.
    Port(Tap),
    /// It, or its whole namespace, is gone: why. Its record can be removed.
    Gone(String),
}

/// Opens a port again that an earlier daemon made.
///
/// # Errors
/// [`PortError`]: it may be there, but cannot be opened; above all, another daemon has it.
pub fn adopt(record: &PortRecord, offload: TapOffload) -> Result<Adopted, PortError> {
    let Some(path) = reach(record) else {
        return Ok(Adopted::Gone("its namespace is gone".to_owned()));
    };
    match Netns::open(&path) {
        // An id found on the way may have died since.
        Ok(netns) if netns.id() == record.netns => adopt_in(&netns, record, offload),
        _ => Ok(Adopted::Gone("its namespace is gone".to_owned())),
    }
}

fn adopt_in(netns: &Netns, record: &PortRecord, offload: TapOffload) -> Result<Adopted, PortError> {
    inside(netns, |netlink| {
        // By its MAC address, not its name: a container may have renamed it.
        let links = netlink.links().map_err(PortError::netlink("its namespace"))?;
        let ours = |link: &&super::netlink::Link| link.mac == Some(record.mac) && link.kind.as_deref() == Some("tun");
        let Some(link) = links.iter().find(ours) else {
            return Ok(Adopted::Gone(format!("interface {} is gone", record.spec.ifname)));
        };
        match Tap::open_existing(&link.name, offload) {
            Ok(tap) => Ok(Adopted::Port(tap)),
            Err(TapError::Missing(_)) => Ok(Adopted::Gone(format!("interface {} is gone", link.name))),
            Err(TapError::NotATap(name)) => Ok(Adopted::Gone(format!("interface {name} is not weft's"))),
            Err(error) => Err(error.into()),
        }
    })
}

/// Whether anybody but us still has the port's namespace. Two system calls while the process or path it was reached
/// by is there, a look at every process otherwise.
pub fn alive(record: &PortRecord) -> bool {
    reach(record).is_some()
}

/// Gives a port another MTU, wherever it is.
///
/// # Errors
/// [`PortError`]: it is gone, or cannot have this MTU.
pub fn set_mtu(tap: &Tap, mtu: u16) -> Result<(), PortError> {
    let name = tap.name().map_err(PortError::system("look at the TAP"))?;
    let netns = tap.netns().map_err(PortError::system("find the TAP's namespace"))?;
    inside(&netns, |netlink| {
        let refused = PortError::netlink("its namespace");
        let link = netlink.link(&name).map_err(&refused)?.ok_or(TapError::Missing(name))?;
        netlink.set_mtu(link.index, u32::from(mtu)).map_err(&refused)
    })
}

/// Removes a port's interface, wherever it is and whoever else still holds its file; a port that is gone already is
/// no error.
///
/// # Errors
/// [`PortError`]: the interface is still there. It goes with its last open file, as it is not persistent any longer.
pub fn destroy(tap: &Tap) -> Result<(), PortError> {
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::EBADFD);
    match tap.set_persist(false) {
        Err(error) if gone(&error) => return Ok(()),
        other => other.map_err(PortError::system("give up the TAP"))?,
    }
    let (Ok(netns), Ok(name)) = (tap.netns(), tap.name()) else {
        return Ok(()); // Its namespace is being torn down.
    };
    inside(&netns, |netlink| {
        let refused = PortError::netlink("its namespace");
        let Some(link) = netlink.link(&name).map_err(&refused)? else { return Ok(()) };
        match netlink.delete(link.index) {
            Err(error) if error.is(libc::ENODEV) => Ok(()),
            other => other.map_err(&refused),
        }
    })
}

/// Runs `job` in a namespace, with a netlink socket of that namespace.
fn inside<T: Send>(
    netns: &Netns,
    job: impl FnOnce(&mut Netlink) -> Result<T, PortError> + Send,
) -> Result<T, PortError> {
    netns
        .run(|| {
            let mut netlink = Netlink::open().map_err(PortError::system("open a netlink socket"))?;
            job(&mut netlink)
        })
        .map_err(PortError::Namespace)?
}

/// A path that leads to the record's namespace, if one still does that is not ours alone: the way it was reached
/// before, else a process in it, else a mount of it. Our own files and throw-away threads appear in neither place. A container's
/// is its own as long as its first process runs: started again it is in another, though the one before may live on for others
/// that were started in it.
fn reach(record: &PortRecord) -> Option<PathBuf> {
    let before = match &record.via {
        Via::Host => Some("/proc/thread-self/ns/net".into()),
        Via::Path(path) => Some(path.clone()),
        Via::Process { pid, started, .. } if start_of(*pid) == Some(*started) => Some(namespace_of(*pid)),
        Via::Process { .. } => None,
    };
    let before = before.filter(|path| leads_to(path, record.netns));
    if matches!(&record.via, Via::Process { engine: Some(_), .. }) {
        return before;
    }
    before.or_else(|| a_process_in(record.netns).map(namespace_of)).or_else(|| a_mount_of(record.netns))
}

fn leads_to(path: &Path, netns: NetnsId) -> bool {
    fs::metadata(path).is_ok_and(|metadata| NetnsId::of(&metadata) == netns)
}

fn namespace_of(pid: i32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn a_process_in(netns: NetnsId) -> Option<i32> {
    processes().find(|&pid| leads_to(&namespace_of(pid), netns))
}

fn a_mount_of(netns: NetnsId) -> Option<PathBuf> {
    // proc_pid_mountinfo(5): the fourth field is the root within nsfs, the fifth where it is mounted.
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let root = format!("net:[{}]", netns.ino);
    let mut bound = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        (fields.next()? == root).then_some(fields.next()?)
    });
    bound.find(|path| leads_to(Path::new(path), netns)).map(PathBuf::from)
}

/// When a living process started, in clock ticks since boot; `None` for one that has ended, waited for or not.
fn start_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may contain anything. The state is the third, the
    // start the twenty-second.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.nth(18)?.parse().ok() }
}

pub mod loose;

#[cfg(test)]
mod tests;
