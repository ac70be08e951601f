//! The machine as the control plane sees it: ports made and removed, files read, names looked for.

use super::configfile;
use super::finders::{Latest, Sought};
use super::hostside::HostSide;
use super::keyfile;
use super::lan::Lan;
use super::netlink::Netlink;
use super::outbox::{Outbox, PortEntry, PortTable};
use super::ports::{self, Adopted, Located, PortError, Wanted, loose};
use super::service::Services;
use super::store::{PortRecord, Store, Via};
use super::stream::Streams;
use super::tap::{Tap, TapOffload};
use super::udp::UdpSockets;
use super::worker::{WorkerHandle, port_token};
use crate::config::{Config, LogLevel, PortAddress, Target};
use crate::control::contacts::Contact;
use crate::control::docker::Whereabouts;
use crate::control::exposures;
use crate::control::names::AddedName;
use crate::control::nat::{HostPort, Rules};
use crate::control::ports::Origin;
use crate::control::{Host, Lookup, MachineReport, NewPort};
use crate::docker::record::Record as DockerRecord;
use crate::ipam::{Claim, Lease};
use crate::switch::counters::Drop;
use crate::switch::ids::{IdMap, PortId};
use crate::switch::topology::Port;
use crate::trust::Authority;
use crate::trust::record::Record;
use crate::wire::key::PublicKey;
use arc_swap::ArcSwap;
use mio::Interest;
use mio::unix::SourceFd;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Addresses of this host that are told: others probe each of them.
const MAX_ADDRESSES: usize = 16;

/// The daemon's machine. Lives on the control thread.
pub struct Machine {
    /// The configuration file.
    pub config_file: PathBuf,
    /// What the TAPs may use.
    pub offload: TapOffload,
    /// The ports that exist, as the workers see them.
    pub table: Arc<ArcSwap<PortTable>>,
    /// What must survive us.
    pub store: Store,
    /// The data plane.
    pub workers: Vec<WorkerHandle>,
    /// The workers' sockets.
    pub sockets: Vec<Arc<UdpSockets>>,
    /// Our own way out.
    pub outbox: Outbox,
    /// Where to put the targets to be looked for.
    pub seek: Latest<Vec<Sought>>,
    /// Where to put the names to be resolved.
    pub resolve: Latest<Vec<Lookup>>,
    /// The packet filter, and what else of the host is ours.
    pub side: HostSide,
    /// The TCP connections, where they are wanted.
    pub streams: Option<Streams>,
    /// What answers for service addresses.
    pub service: Option<Services>,
    /// What finds members on our LANs, where it is wanted.
    pub lan: Option<Lan>,
    /// The authority's key file, where this member holds one.
    pub authority_key_file: Option<PathBuf>,
    /// What the probes at start found.
    pub report: MachineReport,
    records: IdMap<PortId, PortRecord>,
    residents: loose::Residents,
}

impl Machine {
    /// A machine without ports.
    #[expect(clippy::too_many_arguments, reason = "the parts of the daemon, made in its order of start")]
    pub fn new(
        config_file: PathBuf,
        offload: TapOffload,
        table: Arc<ArcSwap<PortTable>>,
        store: Store,
        workers: Vec<WorkerHandle>,
        sockets: Vec<Arc<UdpSockets>>,
        outbox: Outbox,
        seek: Latest<Vec<Sought>>,
        resolve: Latest<Vec<Lookup>>,
        side: HostSide,
        report: MachineReport,
    ) -> Self {
        let records = IdMap::default();
        Self {
            config_file,
            offload,
            table,
            store,
            workers,
            sockets,
            outbox,
            seek,
            resolve,
            side,
            streams: None,
            service: None,
            lan: None,
            authority_key_file: None,
            report,
            records,
            residents: loose::Residents::default(),
        }
    }

    /// Takes the kernel's drops at the sockets into our counts.
    pub fn count_receive_drops(&self) {
        let drops = self.sockets.iter().map(|sockets| sockets.take_receive_drops()).sum();
        self.outbox.count(Drop::ReceiveBufferFull, drops);
    }

    /// The ports that an earlier run left.
    pub fn left_ports(&self) -> Vec<PortRecord> {
        self.store.ports().to_vec()
    }

    /// Takes a port of an earlier run over, or says why that cannot be, and whether it is gone.
    ///
    /// # Errors
    /// One sentence, and `true` for one that is gone. Otherwise it may be a passing trouble, and the next start tries again.
    pub fn adopt(&mut self, record: &PortRecord, port: Arc<Port>) -> Result<(), (String, bool)> {
        let mut record = record.clone();
        match self.find_left(&mut record) {
            Ok(Adopted::Port(tap)) => self.enter(port, tap, record).map_err(|reason| (reason, false)),
            Ok(Adopted::Gone(reason)) => Err((reason, true)),
            Err(error) => Err((error.to_string(), false)),
        }
    }

    /// Removes a port of an earlier run that nobody wants. One that cannot be had now keeps its record: the next start
    /// tries again.
    pub fn discard(&mut self, record: &PortRecord) {
        match self.find_left(&mut record.clone()) {
            Ok(Adopted::Port(tap)) => destroy(&tap, &record.spec.name),
            Ok(Adopted::Gone(_)) => {}
            Err(error) => return tracing::warn!("port {}: its interface stays behind: {error}", record.spec.name),
        }
        self.forget(&record.spec.name);
    }

    /// Opens a port of an earlier run again, wherever it has got to.
    fn find_left(&self, record: &mut PortRecord) -> Result<Adopted, PortError> {
        match ports::adopt(record, self.offload) {
            Ok(Adopted::Gone(_)) if record.origin == Origin::Docker => loose::adopt_elsewhere(record, self.offload),
            found => found,
        }
    }

    /// Removes what Docker left in our namespace when both it and a daemon of ours were killed: TAPs of endpoints that nobody knows.
    pub fn sweep(&mut self) {
        for ifname in loose::left() {
            if !self.records.values().any(|record| record.spec.ifname == ifname) {
                tracing::info!("interface {ifname}: removed, no container has it");
                self.remove_loose_interface(&ifname);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        if let Err(error) = self.store.remove(name) {
            tracing::warn!("port {name}: {error}");
        }
    }

    /// Hands a port to the worker that reads it.
    fn enter(&mut self, port: Arc<Port>, tap: Tap, record: PortRecord) -> Result<(), String> {
        let (id, fd) = (port.id, tap.as_raw_fd());
        let mut table = PortTable::clone(&self.table.load());
        table.insert(id, Arc::new(PortEntry { port, tap }));
        // First the table, then the token: a worker that is woken finds the port.
        self.table.store(Arc::new(table));
        self.outbox.refresh();
        self.records.insert(id, record);
        let worker = &self.workers[id.0 as usize % self.workers.len()];
        let registered = worker.registry.register(&mut SourceFd(&fd), port_token(id), Interest::READABLE);
        registered.map_err(|error| format!("cannot watch the TAP: {error}"))
    }

    fn wanted<'a>(&self, new: &NewPort<'a>) -> Wanted<'a> {
        Wanted {
            spec: new.spec,
            addresses: new.addresses,
            vni: new.port.vni,
            origin: new.origin,
            mtu: new.mtu,
            mac: new.port.mac,
            sequence: new.sequence,
            offload: self.offload,
        }
    }

    fn take_made(&mut self, new: &NewPort<'_>, made: Result<(Tap, PortRecord), PortError>) -> Result<(), String> {
        let (tap, record) = made.map_err(|error| error.to_string())?;
        let entered = self.enter(new.port.clone(), tap, record);
        if entered.is_err() {
            self.remove_port(new.port.id, false);
        }
        entered
    }

    /// Takes a port away from the workers; returns its TAP's last owner and its record.
    fn leave(&mut self, id: PortId) -> Option<(Arc<PortEntry>, PortRecord)> {
        let record = self.records.remove(&id)?;
        let mut table = PortTable::clone(&self.table.load());
        let entry = table.remove(&id)?;
        let worker = &self.workers[id.0 as usize % self.workers.len()];
        let _ = worker.registry.deregister(&mut SourceFd(&entry.tap.as_raw_fd()));
        self.table.store(Arc::new(table));
        self.outbox.refresh();
        self.workers.iter().for_each(WorkerHandle::wake);
        Some((entry, record))
    }
}

impl Host for Machine {
    type Place = Located;
    type Out = Outbox;

    fn create_port(&mut self, new: &NewPort<'_>, place: &Located) -> Result<(), String> {
        let made = ports::create(&self.wanted(new), place).and_then(|made| made.keep(&mut self.store));
        self.take_made(new, made)
    }

    fn create_loose_port(&mut self, new: &NewPort<'_>) -> Result<(), String> {
        let made = ports::create_loose(&self.wanted(new)).and_then(|made| made.keep(&mut self.store));
        self.take_made(new, made)
    }

    fn find_loose_port(&mut self, id: PortId, sandbox: Option<&str>) -> Whereabouts {
        let table = self.table.load();
        let (Some(entry), Some(record)) = (table.get(&id), self.records.get_mut(&id)) else {
            return Whereabouts::Nowhere;
        };
        let (whereabouts, news) = loose::find(&entry.tap, record, sandbox, &mut self.residents);
        if let Some(news) = news {
            if let Err(error) = self.store.put(&news) {
                tracing::warn!("port {}: {error}", news.spec.name);
            }
            *record = news;
        }
        whereabouts
    }

    fn remove_loose_interface(&mut self, ifname: &str) {
        if let Err(error) = loose::remove(ifname, self.offload) {
            tracing::warn!("interface {ifname} stays behind: {error}");
        }
    }

    fn remove_port(&mut self, id: PortId, comes_back: bool) {
        if let Some((entry, record)) = self.leave(id) {
            destroy(&entry.tap, &record.spec.name);
            if !comes_back {
                self.forget(&record.spec.name);
            }
        }
    }

    fn forget_port(&mut self, name: &str) {
        self.forget(name);
    }

    fn mend_interface(&mut self, ifname: &str, addresses: &[PortAddress]) -> Result<bool, String> {
        ports::mend(ifname, addresses).map_err(|error| error.to_string())
    }

    fn port_lives(&mut self, id: PortId) -> bool {
        let Some(record) = self.records.get(&id) else { return false };
        let has_interface = self.table.load().get(&id).is_some_and(|entry| entry.tap.exists());
        has_interface && ports::alive(record)
    }

    fn set_port_mtu(&mut self, id: PortId, mtu: u16) -> Result<(), String> {
        let table = self.table.load();
        let entry = table.get(&id).ok_or("the port is gone")?;
        ports::set_mtu(&entry.tap, mtu).map_err(|error| error.to_string())
    }

    fn load_config(&mut self) -> Result<Config, String> {
        configfile::load(&self.config_file).map_err(|errors| errors.to_string())
    }

    fn seek(&mut self, targets: Vec<(String, Target)>) {
        let engine = |port: &str| {
            let record = self.store.ports().iter().find(|record| record.spec.name == port)?;
            let Via::Process { engine, .. } = &record.via else { return None };
            engine.clone()
        };
        let sought = targets.into_iter().map(|(port, target)| Sought { engine: engine(&port), port, target });
        self.seek.put(sought.collect());
    }

    fn resolve(&mut self, names: Vec<Lookup>) {
        self.resolve.put(names);
    }

    fn connect_stream(&mut self, to: PublicKey, address: SocketAddr) -> bool {
        self.streams.as_ref().map(|streams| streams.connect(to, address)).is_some()
    }

    fn close_stream(&mut self, number: u32) {
        if let Some(streams) = &self.streams {
            streams.close(number);
        }
    }

    fn set_known(&mut self, keys: Vec<PublicKey>) {
        if let Some(lan) = &self.lan {
            lan.set_known(keys);
        }
    }

    fn set_log_level(&mut self, level: LogLevel) {
        super::log::set_level(level);
    }

    fn random(&mut self) -> u64 {
        super::random()
    }

    fn contacts(&mut self) -> Vec<Contact> {
        self.store.take_contacts()
    }

    fn keep_contact(&mut self, contact: &Contact) -> Result<(), String> {
        self.store.put_contact(contact).map_err(|error| error.to_string())
    }

    fn drop_contact(&mut self, key: &PublicKey) {
        if let Err(error) = self.store.remove_contact(key) {
            tracing::warn!("a member that was forgotten will be called again after a restart: {error}");
        }
    }

    fn unix_time(&self) -> Duration {
        super::clocks().0
    }

    fn underlay_addresses(&mut self) -> Vec<IpAddr> {
        let ours = self.records.values().filter(|record| record.via == Via::Host);
        let ours: Vec<&str> = ours.map(|record| record.spec.ifname.as_str()).collect();
        let read = || -> std::io::Result<Vec<IpAddr>> {
            let mut netlink = Netlink::open()?;
            let links = netlink.links()?;
            let is_underlay =
                |index: u32| links.iter().any(|link| link.index == index && !ours.contains(&link.name.as_str()));
            let all = netlink.all_addresses()?.into_iter();
            let usable = all.filter(|address| is_underlay(address.index) && !address.tentative);
            Ok(usable.map(|address| address.cidr.address).filter(is_reachable).take(MAX_ADDRESSES).collect())
        };
        read().unwrap_or_else(|error| {
            tracing::warn!("the addresses of this host are not announced: {error}");
            Vec::new()
        })
    }

    fn fill_random(&mut self, bytes: &mut [u8]) {
        super::fill_random(bytes);
    }

    fn keep_trust(&mut self, record: &Record) -> Result<(), String> {
        self.store.put_trust(record).map_err(|error| error.to_string())
    }

    fn drop_trust(&mut self, slot: &str) -> Result<(), String> {
        self.store.forget_trust(slot).map_err(|error| error.to_string())
    }

    fn added_names(&mut self) -> Vec<AddedName> {
        self.store.take_names()
    }

    fn keep_name(&mut self, added: &AddedName) -> Result<(), String> {
        self.store.put_name(added).map_err(|error| error.to_string())
    }

    fn drop_name(&mut self, added: &AddedName) -> Result<(), String> {
        self.store.remove_name(added).map_err(|error| error.to_string())
    }

    fn next_authority(&mut self) -> Result<Authority, String> {
        let path = self.authority_key_file.as_ref().ok_or("this host does not hold the authority's key")?;
        keyfile::next_authority(path).map(|seed| Authority::new(&seed)).map_err(|error| error.to_string())
    }

    fn adopt_next_authority(&mut self) -> Result<(), String> {
        let path = self.authority_key_file.as_ref().ok_or("this host does not hold the authority's key")?;
        keyfile::adopt_next_authority(path).map_err(|error| error.to_string())
    }

    fn docker_records(&mut self) -> Vec<DockerRecord> {
        self.store.take_docker()
    }

    fn keep_docker(&mut self, record: &DockerRecord) -> Result<(), String> {
        self.store.put_docker(record).map_err(|error| error.to_string())
    }

    fn drop_docker(&mut self, slot: &str) {
        if let Err(error) = self.store.remove_docker(slot) {
            tracing::warn!("what was remembered for Docker stays until the next start: {error}");
        }
    }

    fn host_place(&mut self) -> Result<Located, String> {
        ports::locate(&Target::Host, &[]).map_err(|error| error.to_string())
    }

    fn host_records(&mut self) -> Vec<exposures::Record> {
        let records = self.store.take_host();
        self.side.restore(&records);
        records
    }

    fn keep_host_record(&mut self, record: &exposures::Record) -> Result<(), String> {
        self.store.put_host(record).map_err(|error| error.to_string())
    }

    fn drop_host_record(&mut self, slot: &str) -> Result<(), String> {
        self.store.forget_host(slot).map_err(|error| error.to_string())
    }

    fn set_rules(&mut self, rules: &Rules) -> Result<(), String> {
        self.side.set_rules(rules, &self.store)
    }

    fn obstacles(&self) -> Vec<String> {
        self.side.warnings()
    }

    fn hold_port(&mut self, port: HostPort) -> Result<(), String> {
        self.side.hold(port)
    }

    fn release_port(&mut self, port: HostPort) {
        self.side.release(port);
    }

    fn probe(&mut self, instances: Vec<SocketAddr>) {
        self.side.probe(instances);
    }

    fn leases(&mut self) -> Vec<Lease> {
        self.store.take_leases()
    }

    fn change_leases(&mut self, keep: &[Lease], forget: &[(u32, IpAddr)]) -> Result<(), String> {
        self.store.change_leases(keep, forget).map_err(|error| error.to_string())
    }

    fn claims(&mut self) -> Vec<Claim> {
        self.store.take_claims()
    }

    fn change_claims(&mut self, keep: &[Claim], forget: &[Claim]) -> Result<(), String> {
        self.store.change_claims(keep, forget).map_err(|error| error.to_string())
    }

    fn confirm_neighbour(&mut self, to: SocketAddr) {
        if let Some(sockets) = self.sockets.first() {
            sockets.confirm_neighbour(to);
        }
    }

    fn out(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn machine(&self) -> MachineReport {
        self.report.clone()
    }
}

/// Whether another host may reach a host by this address.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

fn destroy(tap: &Tap, name: &str) {
    if let Err(error) = ports::destroy(tap) {
        tracing::warn!("port {name}: its interface stays behind: {error}");
    }
}
