//! The machine as the control plane sees it: ports made and removed, files read, names looked for.

use super::configfile;
use super::finders::Latest;
use super::outbox::{Outbox, PortEntry, PortTable};
use super::ports::{self, Adopted, Located, Wanted};
use super::store::{PortRecord, Store};
use super::tap::{Tap, TapOffload};
use super::udp::UdpSockets;
use super::worker::{WorkerHandle, port_token};
use crate::config::{Config, LogLevel, Target};
use crate::control::{Host, Lookup, MachineReport, NewPort};
use crate::switch::counters::Drop;
use crate::switch::ids::{IdMap, PortId};
use crate::switch::topology::Port;
use arc_swap::ArcSwap;
use mio::Interest;
use mio::unix::SourceFd;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

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
    pub seek: Latest<Vec<(String, Target)>>,
    /// Where to put the names to be resolved.
    pub resolve: Latest<Vec<Lookup>>,
    /// What the probes at start found.
    pub report: MachineReport,
    records: IdMap<PortId, PortRecord>,
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
        seek: Latest<Vec<(String, Target)>>,
        resolve: Latest<Vec<Lookup>>,
        report: MachineReport,
    ) -> Self {
        let records = IdMap::default();
        Self { config_file, offload, table, store, workers, sockets, outbox, seek, resolve, report, records }
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

    /// Takes a port of an earlier run over, or says why that cannot be; then its record is forgotten.
    ///
    /// # Errors
    /// One sentence.
    pub fn adopt(&mut self, record: &PortRecord, port: Arc<Port>) -> Result<(), String> {
        match ports::adopt(record, self.offload) {
            Ok(Adopted::Port(tap)) => self.enter(port, tap, record.clone()),
            Ok(Adopted::Gone(reason)) => {
                self.forget(&record.spec.name);
                Err(reason)
            }
            // It may be a passing trouble: the record stays for the next start.
            Err(error) => Err(error.to_string()),
        }
    }

    /// Removes a port of an earlier run that nobody wants.
    pub fn discard(&mut self, record: &PortRecord) {
        if let Ok(Adopted::Port(tap)) = ports::adopt(record, self.offload) {
            destroy(&tap, &record.spec.name);
        }
        self.forget(&record.spec.name);
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

    /// Takes a port away from the workers; returns its TAP's last owner and its record.
    fn leave(&mut self, id: PortId) -> Option<(Arc<PortEntry>, PortRecord)> {
        let record = self.records.remove(&id)?;
        let mut table = PortTable::clone(&self.table.load());
        let entry = table.remove(&id)?;
        let worker = &self.workers[id.0 as usize % self.workers.len()];
        let _ = worker.registry.deregister(&mut SourceFd(&entry.tap.as_raw_fd()));
        self.table.store(Arc::new(table));
        self.outbox.refresh();
        Some((entry, record))
    }
}

impl Host for Machine {
    type Place = Located;
    type Out = Outbox;

    fn create_port(&mut self, new: &NewPort<'_>, place: &Located) -> Result<(), String> {
        let port = &new.port;
        let wanted = Wanted {
            spec: new.spec,
            vni: port.vni,
            origin: new.origin,
            mtu: new.mtu,
            mac: port.mac,
            offload: self.offload,
        };
        let made = ports::create(&wanted, place).and_then(|made| made.keep(&mut self.store));
        let (tap, record) = made.map_err(|error| error.to_string())?;
        let entered = self.enter(port.clone(), tap, record);
        if entered.is_err() {
            self.remove_port(port.id);
        }
        entered
    }

    fn remove_port(&mut self, id: PortId) {
        if let Some((entry, record)) = self.leave(id) {
            destroy(&entry.tap, &record.spec.name);
            self.forget(&record.spec.name);
        }
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
        self.seek.put(targets);
    }

    fn resolve(&mut self, names: Vec<Lookup>) {
        self.resolve.put(names);
    }

    fn set_log_level(&mut self, level: LogLevel) {
        super::log::set_level(level);
    }

    fn random(&mut self) -> u64 {
        super::random()
    }

    fn out(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn machine(&self) -> MachineReport {
        self.report.clone()
    }
}

fn destroy(tap: &Tap, name: &str) {
    if let Err(error) = ports::destroy(tap) {
        tracing::warn!("port {name}: its interface stays behind: {error}");
    }
}
