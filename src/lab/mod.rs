//! The lab: hosts and containers in network namespaces on one machine, with the real daemon on each host.
//!
//! ```text
//!            h1                       h2                          one namespace per host
//!   ┌──────────────────┐     ┌──────────────────┐
//!   │ weft up  weft0…  │     │ weft up          │                  the real binary, one process per host
//!   │   │        eth0──┼──┬──┼──eth0            │                  underlay: a bridge, an impaired wire, an internet
//!   └───┼──────────────┘  │  └───┼──────────────┘
//!   ┌───┴────┐ ┌────────┐ │  ┌───┴────┐ ┌────────┐
//!   │ eth1   │ │ eth1   │ │  │ eth1   │ │ eth1   │                one namespace per container, TAPs attached over
//!   │ h1/c1  │ │ h1/c2  │    │ h2/c1  │ │ h2/c2  │                the daemon's control socket
//!   └────────┘ └────────┘    └────────┘ └────────┘
//! ```
//!
//! [`Lab`] is the library; the tour, the bench, `weft lab up` and the end-to-end tests are its users. Everything a
//! lab makes is a namespace held by an open file, a child tied to this process, a thread, or a file in one
//! directory: it all ends with the [`Lab`], and all but the directory also when the process is killed. No outside
//! tool is run.
//!
//! Hosts and containers are counted from 1 here, as in their names.

pub mod bench;
pub mod capture;
pub mod contenders;
pub mod daemon;
pub mod datagrams;
pub mod generator;
pub mod host;
pub mod internet;
mod line;
pub mod link;
pub mod ping;
pub mod privileges;
pub mod process;
pub mod registry;
pub mod report;
pub mod scale;
pub mod scenes;
pub mod spec;
pub mod supervise;
pub mod topology;
pub mod tour;
mod trouble;
pub mod underlay;
pub mod wire;

#[cfg(test)]
mod tests;

use crate::config::PortAddress;
use crate::control::request::{Attach, Request, Response};
use crate::io::client::ClientError;
use crate::io::netns::Netns;
use crate::wire::cidr::Cidr;
use daemon::{Daemon, PeerEntry};
pub use host::{Container, Host};
use link::LinkCounts;
use registry::{ContainerState, HostState, LabState, RunDir};
use spec::{CONTAINER_IFNAME, Discovery, LabSpec};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use underlay::Underlay;

/// How long a daemon that was sent a signal may take to end.
const KILLED: Duration = Duration::from_secs(5);

/// What went wrong in a lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was asked for cannot be had.
    #[error("{0}")]
    Refused(String),
    /// A daemon failed.
    #[error("the daemon of {host} {what}; the end of its log:\n{log}")]
    Daemon {
        /// Its host.
        host: String,
        /// What it did or did not do.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// A daemon refused a request.
    #[error("the daemon of {host} refused to {what}: {reason}")]
    Request {
        /// Its host.
        host: String,
        /// What it was asked for.
        what: String,
        /// Its reason.
        reason: String,
    },
    /// A daemon does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A ping failed.
    #[error("{from} → {to}: {source}")]
    Ping {
        /// Who pinged.
        from: String,
        /// Who was pinged.
        to: String,
        /// What happened.
        source: ping::PingError,
    },
    /// Traffic failed.
    #[error(transparent)]
    Traffic(#[from] generator::TrafficError),
    /// Somebody wants us to end.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// Says what was tried when the kernel refused.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Somebody wants us to end. Cheap to clone; all clones are one flag.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that SIGINT and SIGTERM set.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            signal_hook::flag::register(signal, stop.0.clone())?;
        }
        Ok(stop)
    }

    /// Says so.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody said so.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`LabError::Interrupted`] when somebody said so.
    pub fn check(&self) -> Result<(), LabError> {
        if self.is_set() { Err(LabError::Interrupted) } else { Ok(()) }
    }
}

/// A lab. Dropping it ends the daemons and removes everything.
#[derive(Debug)]
pub struct Lab {
    spec: LabSpec,
    hosts: Vec<Host>,
    underlay: Underlay,
    dir: RunDir,
}

impl Lab {
    /// Builds a lab: hosts, underlay, daemons, and every container attached. The calling thread must live as long as
    /// the lab should: the daemons die with it.
    ///
    /// # Errors
    /// [`LabError`]; nothing is left behind.
    pub fn build(spec: LabSpec, stop: &Stop) -> Result<Self, LabError> {
        let mut lab = Self::lay(spec)?;
        lab.start_daemons(stop)?;
        lab.attach_all()?;
        Ok(lab)
    }

    /// Lays out namespaces, underlay and files, without a daemon.
    ///
    /// # Errors
    /// [`LabError`]; nothing is left behind.
    pub fn lay(spec: LabSpec) -> Result<Self, LabError> {
        spec.check()?;
        let dir = RunDir::create(&spec.base, &spec.name)?;
        Self::lay_in(dir, spec)
    }

    /// As [`Lab::lay`], in a directory made before.
    ///
    /// # Errors
    /// [`LabError`]; nothing is left behind.
    pub fn lay_in(dir: RunDir, spec: LabSpec) -> Result<Self, LabError> {
        spec.check()?;
        let mut hosts = (1..=spec.hosts).map(|h| Host::lay(&spec, dir.path(), h)).collect::<Result<Vec<_>, _>>()?;
        let netnses = hosts.iter().map(|host| host.netns.try_clone()).collect::<io::Result<Vec<_>>>();
        let underlay = Underlay::build(&spec, &netnses.map_err(LabError::io("hold the hosts' namespaces"))?)?;
        for h in 0..hosts.len() {
            let peers = peer_entries(&spec, &hosts, h + 1);
            let host = &mut hosts[h];
            let path = host.files.config();
            let text = daemon::config(&spec, &host.name, &host.files, &peers);
            std::fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))?;
        }
        Ok(Self { spec, hosts, underlay, dir })
    }

    /// Starts the daemon of every host and waits until all answer.
    ///
    /// # Errors
    /// One does not; the end of its log is in the error.
    pub fn start_daemons(&mut self, stop: &Stop) -> Result<(), LabError> {
        for host in &mut self.hosts {
            host.daemon = Some(Daemon::spawn(&self.spec.weft, &host.name, &host.netns, &host.files)?);
        }
        self.hosts.iter_mut().filter_map(|host| host.daemon.as_mut()).try_for_each(|daemon| daemon.wait_ready(stop))
    }

    /// Attaches every container to its network.
    ///
    /// # Errors
    /// A daemon refused.
    pub fn attach_all(&mut self) -> Result<(), LabError> {
        for h in 1..=self.hosts.len() {
            for c in 1..=self.hosts[h - 1].containers.len() {
                self.attach(h, c)?;
            }
        }
        for container in self.hosts.iter_mut().flat_map(|host| &mut host.containers) {
            container.link_local = host::link_local(&container.netns);
        }
        Ok(())
    }

    /// Attaches container `c` of host `h` to its network.
    ///
    /// # Errors
    /// The daemon refused or does not answer.
    pub fn attach(&self, h: usize, c: usize) -> Result<(), LabError> {
        let (host, container) = (self.host(h), self.container(h, c));
        let addresses = [(IpAddr::V4(container.v4), 16), (IpAddr::V6(container.v6), 64)]
            .map(|(address, prefix)| PortAddress { cidr: Cidr { address, prefix }, gateway: None });
        let request = Request::Attach(Attach {
            addresses: addresses.to_vec(),
            ifname: Some(CONTAINER_IFNAME.to_owned()),
            name: Some(format!("c{c}")),
            ..Attach::new(container.target(), &container.network)
        });
        match host.control(&request)? {
            Response::Attached(_) => Ok(()),
            Response::Refused(reason) => {
                let what = format!("attach {}", container.name);
                Err(LabError::Request { host: host.name.clone(), what, reason })
            }
            other => {
                let what = format!("attach {}", container.name);
                Err(LabError::Request { host: host.name.clone(), what, reason: format!("{other:?}") })
            }
        }
    }

    /// Starts the daemon of host `h` and waits until it answers.
    ///
    /// # Errors
    /// It does not; the end of its log is in the error.
    pub fn start_daemon(&mut self, h: usize, stop: &Stop) -> Result<(), LabError> {
        let host = &mut self.hosts[h - 1];
        let daemon = Daemon::spawn(&self.spec.weft, &host.name, &host.netns, &host.files)?;
        host.daemon.insert(daemon).wait_ready(stop)
    }

    /// Sends the daemon of host `h` a signal that ends it, and returns how and after how long it did.
    ///
    /// # Errors
    /// There is none, or it does not end.
    pub fn kill_daemon(&mut self, h: usize, signal: i32) -> Result<(std::process::ExitStatus, Duration), LabError> {
        let name = self.hosts[h - 1].name.clone();
        let gone = || LabError::Refused(format!("the daemon of {name} does not run"));
        let mut daemon = self.hosts[h - 1].daemon.take().ok_or_else(gone)?;
        let begun = Instant::now();
        daemon.signal(signal);
        let status = daemon.wait(KILLED).ok_or_else(|| LabError::Daemon {
            host: name.clone(),
            what: format!("did not end within {} s of signal {signal}", KILLED.as_secs()),
            log: daemon.log_tail(),
        })?;
        Ok((status, begun.elapsed()))
    }

    /// What became of the frames on the lab's own wire; nothing of a bridge.
    pub fn link_counts(&self) -> LinkCounts {
        match &self.underlay {
            Underlay::Bridge { .. } => LinkCounts::default(),
            Underlay::Impaired(wire) => wire.with(|impairment| impairment.counts()),
            Underlay::Routed(wire) => wire.with(|internet| internet.counts().lines),
        }
    }

    /// The namespace of the underlay's bridge, to be captured in.
    pub fn underlay_netns(&self) -> Option<&Netns> {
        match &self.underlay {
            Underlay::Bridge { netns } => Some(netns),
            Underlay::Impaired(_) | Underlay::Routed(_) => None,
        }
    }

    /// Host `h`, counted from 1. One that does not exist is a caller's bug and a panic.
    pub fn host(&self, h: usize) -> &Host {
        &self.hosts[h - 1]
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Container `c` of host `h`, both counted from 1. One that does not exist is a caller's bug and a panic.
    pub fn container(&self, h: usize, c: usize) -> &Container {
        &self.hosts[h - 1].containers[c - 1]
    }

    /// All containers of a network, by host and number.
    pub fn containers_of(&self, network: &str) -> Vec<&Container> {
        let all = self.hosts.iter().flat_map(|host| &host.containers);
        all.filter(|container| container.network == network).collect()
    }

    /// What it was built from.
    pub fn spec(&self) -> &LabSpec {
        &self.spec
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lets other processes find the lab: `weft lab status`, `exec` and `down`.
    ///
    /// # Errors
    /// The file system refused.
    pub fn publish(&self) -> Result<(), LabError> {
        let pid = std::process::id();
        let hosts = self.hosts.iter().map(host_state).collect();
        let started = registry::start_time(pid).unwrap_or_default();
        self.dir.publish(&LabState { name: self.spec.name.clone(), pid, started, hosts })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // All at once first, so that the ends overlap; each is waited for when it is dropped.
        self.hosts.iter().filter_map(Host::daemon).for_each(|daemon| daemon.signal(libc::SIGTERM));
        self.hosts.clear();
    }
}

/// What the file of host `h` says of the others.
fn peer_entries(spec: &LabSpec, hosts: &[Host], h: usize) -> Vec<PeerEntry> {
    if spec.discovery == Discovery::Authority {
        return Vec::new();
    }
    let others = (1..).zip(hosts).filter(|(other, _)| *other != h);
    let entry = |(other, host): (usize, &Host)| PeerEntry {
        name: host.name.clone(),
        public_key: host.public_key,
        address: spec.endpoint(h, other),
    };
    others.map(entry).collect()
}

fn host_state(host: &Host) -> HostState {
    let container = |container: &Container| ContainerState {
        name: container.name.clone(),
        network: container.network.clone(),
        netns_fd: container.netns.as_fd().as_raw_fd(),
        v4: container.v4,
        v6: container.v6,
        link_local: container.link_local,
    };
    HostState {
        name: host.name.clone(),
        netns_fd: host.netns.as_fd().as_raw_fd(),
        v4: host.v4,
        v6: host.v6,
        socket: host.files.socket(),
        config: host.files.config(),
        log: host.files.log(),
        containers: host.containers.iter().map(container).collect(),
    }
}
