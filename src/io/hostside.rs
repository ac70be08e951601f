//! What of the host itself is ours: rules of its packet filter, switches of its kernel, ports that are held for containers.
//!
//! *Forwarding.* A packet is forwarded if the interface that it came in by forwards. What containers send comes by ours, but what is
//! sent to a published port, and what is answered to containers, comes by the host's others: so it is `net.ipv4.ip_forward`, for all of
//! them, that published ports and `--masquerade` need, as with every container engine. For IPv6 it is
//! `net.ipv6.conf.all.forwarding`, if there is anything to forward of IPv6. A host that forwards stops listening to routers unless
//! `accept_ra` is 2, so where it is 1 it becomes 2; on our interfaces it is 0, because only containers would be routers there. What we
//! changed is remembered before it is changed, until the host boots, and put back when nothing of its family needs it, unless somebody
//! else has rules for forwarding by then, and so needs it too.
//!
//! *Held ports.* A rule of the packet filter takes a port away from whoever listens on it, without a word. So a socket is bound to each
//! published port: that is refused if somebody has it, and refuses others afterwards. A TCP one does not listen, so that what no rule
//! takes away is refused as if there were no socket.

use super::finders::{Found, Latest};
use super::netlink::Netlink;
use super::nft::{self, Nft};
use super::probe;
use super::store::Store;
use crate::control::exposures::Record;
use crate::control::nat::{Forward, HostPort, PREFIX, Proto, Rules};
use crossbeam::channel::Sender;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const INTERFACES_V6: &str = "/proc/sys/net/ipv6/conf";
/// Another one after each boot, which sets all switches back. It stands among the remembered ones, and says whether they count.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// See the head of this file. Lives on the control thread.
pub struct HostSide {
    nft: Nft,
    rules: Rules,
    /// Switches of the kernel that we changed, by path, with what they were.
    switches: BTreeMap<String, String>,
    held: BTreeMap<HostPort, Vec<Socket>>,
    probes: Latest<Vec<SocketAddr>>,
    probed: Vec<SocketAddr>,
    strays: Latest<Vec<Forward>>,
}

impl HostSide {
    /// Nothing is ours so far. Starts the threads that watch the packet filter, probe instances and forget connections.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn start(found: Sender<Found>) -> io::Result<Self> {
        let strays = Latest::<Vec<Forward>>::default();
        let incoming = strays.clone();
        let forget = move || {
            while let Some(forwards) = incoming.take(None) {
                forget_strays(&forwards);
            }
        };
        std::thread::Builder::new().name("weft-conntrack".to_owned()).spawn(forget)?;
        Ok(Self {
            nft: Nft::start()?,
            rules: Rules::default(),
            switches: BTreeMap::new(),
            held: BTreeMap::new(),
            probes: probe::start(found)?,
            probed: Vec::new(),
            strays,
        })
    }

    /// Takes up what an earlier run left.
    pub fn restore(&mut self, records: &[Record]) {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        for record in records {
            if let Record::Switches(switches) = record {
                self.switches = of_this_boot(switches, &boot);
            }
        }
    }

    /// Makes the packet filter, and the switches that go with it, do this.
    ///
    /// # Errors
    /// One sentence; it does what it did before.
    pub fn set_rules(&mut self, rules: &Rules, store: &Store) -> Result<(), String> {
        // First the rules, of which one guards what the switches open.
        self.nft.set(rules)?;
        for exposed in &rules.exposed {
            let switch = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", exposed.ifname);
            if let Err(error) = fs::write(&switch, if exposed.publishes { "1" } else { "0" }) {
                tracing::warn!("published ports do not answer at 127.0.0.1: cannot write {switch}: {error}");
            }
            let switch = format!("{INTERFACES_V6}/{}/accept_ra", exposed.ifname);
            match fs::write(&switch, "0") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("containers may give this host routes: cannot write {switch}: {error}");
                }
                _ => {}
            }
        }
        let changed = self.set_forwarding(rules, store);
        if let Err(error) = changed {
            let _ = self.nft.set(&self.rules);
            return Err(error);
        }
        if self.rules.forwards != rules.forwards || self.rules.resuming != rules.resuming {
            // What was published and is no longer has no instances.
            let is_kept = |old: &&Forward| !rules.forwards.iter().any(|new| new.to_string() == old.to_string());
            let gone = self.rules.forwards.iter().filter(is_kept);
            let gone = gone.map(|old| Forward { known: Vec::new(), targets: Vec::new(), ..old.clone() });
            let still = rules.forwards.iter().filter(|_| !rules.resuming).cloned();
            self.strays.put(still.chain(gone).collect());
        }
        self.rules = rules.clone();
        Ok(())
    }

    fn set_forwarding(&mut self, rules: &Rules, store: &Store) -> Result<(), String> {
        let masqueraded =
            || rules.exposed.iter().flat_map(|exposed| &exposed.masquerade).map(|prefix| prefix.address);
        let targets = || rules.forwards.iter().flat_map(|forward| &forward.known).map(SocketAddr::ip);
        let publishes = rules.exposed.iter().any(|exposed| exposed.publishes);
        if publishes || masqueraded().any(|address| address.is_ipv4()) {
            self.switch(FORWARD_V4, "1", store)?;
        } else {
            self.restore_switches(true, store);
        }
        if masqueraded().chain(targets()).any(|address| address.is_ipv6()) {
            if fs::read_to_string(FORWARD_V6).is_ok_and(|now| now.trim() == "0") {
                self.keep_listening_to_routers(store);
            }
            if Path::new(FORWARD_V6).exists() {
                self.switch(FORWARD_V6, "1", store)?;
            }
        } else if rules.forwards.iter().all(|forward| !forward.known.is_empty()) {
            // A published port whose instances are all gone may have one of IPv6 again at any moment.
            self.restore_switches(false, store);
        }
        Ok(())
    }

    fn keep_listening_to_routers(&mut self, store: &Store) {
        let Ok(interfaces) = fs::read_dir(INTERFACES_V6) else { return };
        let mut listening = Vec::new();
        for interface in interfaces.filter_map(Result::ok) {
            // Neither what is no interface, nor ours.
            let name = interface.file_name().to_string_lossy().into_owned();
            let path = interface.path().join("accept_ra").display().to_string();
            let is_meant = !["all", "default"].contains(&name.as_str()) && !name.starts_with(PREFIX);
            if is_meant && fs::read_to_string(&path).is_ok_and(|now| now.trim() == "1") {
                self.switches.entry(path.clone()).or_insert_with(|| "1".to_owned());
                listening.push(path);
            }
        }
        // All at once: there may be hundreds.
        self.save_switches(store);
        for path in listening {
            if let Err(reason) = self.switch(&path, "2", store) {
                tracing::warn!("{reason}: this host may lose routes that it learned from routers");
            }
        }
    }

    /// Gives a switch a value, after remembering what it was.
    fn switch(&mut self, path: &str, value: &str, store: &Store) -> Result<(), String> {
        let before = fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let before = before.trim();
        if before == value {
            return Ok(());
        }
        let is_first = !self.switches.contains_key(path);
        if is_first {
            self.switches.insert(path.to_owned(), before.to_owned());
            self.save_switches(store);
        }
        fs::write(path, value).map_err(|error| {
            if is_first {
                self.switches.remove(path);
                self.save_switches(store);
            }
            format!("this host does not forward, and cannot be made to: {path}: {error}; run `echo {value} > {path}`")
        })?;
        tracing::info!("{path} is {value} from now on, it was {before}");
        Ok(())
    }

    /// Puts back what we changed of one family, unless somebody else needs it by now.
    fn restore_switches(&mut self, v4: bool, store: &Store) {
        let is_meant = |path: &str| path.starts_with(INTERFACES_V6) != v4;
        let switches = std::mem::take(&mut self.switches);
        let (meant, kept): (BTreeMap<_, _>, _) = switches.into_iter().partition(|(path, _)| is_meant(path));
        self.switches = kept;
        if meant.is_empty() {
            return;
        }
        if nft::others_forward() {
            tracing::info!("this host goes on forwarding: others have rules for it");
        } else {
            for (path, before) in &meant {
                match fs::write(path, before) {
                    Ok(()) => tracing::info!("{path} is {before} again"),
                    // It went with its interface, as that of an exposed network does.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!("{path} stays changed: {error}"),
                }
            }
        }
        self.save_switches(store);
    }

    fn save_switches(&self, store: &Store) {
        let mut switches = self.switches.clone();
        if let Ok(boot) = fs::read_to_string(BOOT_ID) {
            switches.insert(BOOT_ID.to_owned(), boot);
        }
        let record = Record::Switches(switches);
        let saved =
            if self.switches.is_empty() { store.forget_host(&record.slot()) } else { store.put_host(&record) };
        if let Err(error) = saved {
            tracing::warn!("what this host's forwarding was before will not be known after a restart: {error}");
        }
    }

    /// Keeps a port free of others.
    ///
    /// # Errors
    /// Who has it.
    pub fn hold(&mut self, port: HostPort) -> Result<(), String> {
        let addresses = match port.ip {
            Some(ip) => vec![ip],
            None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        };
        let mut sockets = Vec::new();
        for ip in addresses {
            let address = SocketAddr::new(ip, port.port);
            // Looked at first: that is closed again before the other is bound.
            match bind(address, port.proto, true).map(drop).and_then(|()| bind(address, port.proto, false)) {
                Ok(socket) => sockets.push(socket),
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                    return Err(format!("{ip} is no address of this host: `ip address` lists them"));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if bind(address, port.proto, true).is_ok() {
                        continue; // Nobody listens: connections that have just ended are in the way of holding it.
                    }
                    let owner = super::owner::of_port(address, port.proto);
                    let owner = owner.unwrap_or_else(|| "another program".to_owned());
                    return Err(format!(
                        "port {port} of this host is taken by {owner}: choose another, or stop that"
                    ));
                }
                // A host without IPv6.
                Err(_) if port.ip.is_none() && ip.is_ipv6() => {}
                Err(error) => return Err(format!("cannot hold port {port} of this host: {error}")),
            }
        }
        self.held.insert(port, sockets);
        Ok(())
    }

    /// Gives it free.
    pub fn release(&mut self, port: HostPort) {
        self.held.remove(&port);
    }

    /// Probes these from now on.
    pub fn probe(&mut self, instances: Vec<SocketAddr>) {
        if self.probed != instances {
            self.probed.clone_from(&instances);
            self.probes.put(instances);
        }
    }

    /// What an operator should know.
    pub fn warnings(&self) -> Vec<String> {
        self.nft.warnings()
    }
}

/// The remembered switches, if they were changed since this boot; an earlier weft did not write down which it was.
fn of_this_boot(switches: &BTreeMap<String, String>, boot: &str) -> BTreeMap<String, String> {
    let mut switches = switches.clone();
    match switches.remove(BOOT_ID) {
        Some(of) if of != boot => BTreeMap::new(),
        _ => switches,
    }
}

/// Binds a socket. With `beside` it is for looking only: connections that have ended are not in its way, listeners are.
fn bind(address: SocketAddr, proto: Proto, beside: bool) -> io::Result<Socket> {
    let (kind, protocol) = match proto {
        Proto::Tcp => (Type::STREAM, Protocol::TCP),
        Proto::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if proto == Proto::Tcp && beside {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if proto == Proto::Tcp && beside {
        socket.listen(0)?;
    }
    if proto == Proto::Udp {
        // What no rule takes away is for nobody: as little as can be of it is kept.
        socket.set_recv_buffer_size(0)?;
    }
    Ok(socket)
}

fn forget_strays(forwards: &[Forward]) {
    let forget = || -> io::Result<usize> {
        let addresses: Vec<IpAddr> = Netlink::open()?.all_addresses()?.iter().map(|one| one.cidr.address).collect();
        nft::forget_strays(&forwards.iter().collect::<Vec<_>>(), &addresses)
    };
    match forget() {
        Ok(0) => {}
        Ok(count) => tracing::info!("{count} connections to instances that are gone were forgotten"),
        Err(error) => {
            tracing::warn!("clients that go on sending to an instance that is gone may not find another: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_of_another_boot_are_forgotten() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
        };
        let changed = of(&[(FORWARD_V4, "0")]);
        let with_boot = |boot: &str| of(&[(FORWARD_V4, "0"), (BOOT_ID, boot)]);
        assert_eq!(of_this_boot(&with_boot("one\n"), "one\n"), changed);
        assert_eq!(of_this_boot(&with_boot("one\n"), "two\n"), BTreeMap::new());
        assert_eq!(of_this_boot(&changed, "two\n"), changed);
    }
}
