//! Docker's remote network driver and IPAM driver, as a value: a call's path and body come in, its answer goes out.
//!
//! Docker asks over HTTP on a socket that we serve (`src/io/docker`); which calls there are and what they mean stands in
//! moby's `libnetwork/docs/remote.md` and `ipam.md`. What a call makes happen goes through [`Member`]: the control plane is
//! one, and the tests have one of maps.
//!
//! ```text
//!   network create   RequestPool, RequestAddress (gateway), CreateNetwork      remembered: its weft network, its options
//!   container start  RequestAddress, CreateEndpoint, Join                      a lease, a port in the host's namespace
//!                    ... docker moves the interface and renames it ...         found again by its file (control, each second)
//!   container stop   Leave, DeleteEndpoint, ReleaseAddress                     the port goes, the lease goes
//!   dockerd killed   nothing; when it starts, ReleaseAddress at best           collected, see below
//! ```
//!
//! **Docker is not relied on.** It may call twice, out of order, about what nobody knows, or never again. So every call can be
//! repeated; what goes away and is gone already is no error; and what Docker forgot is collected ([`Driver::tick`]): an endpoint
//! whose namespace is gone, one that was never moved into a container, a lease that no endpoint came for.
//!
//! **Who holds an address.** Docker's IPAM calls say nothing of containers, so a lease made for Docker has a holder `docker:…`
//! of its own. The same address asked for again is refused while a container has it, or is about to; a lease whose
//! endpoint is gone, or never came, yields. That only this host's Docker leases yield is what makes that safe.
//!
//! **Networks of Docker** differ from host to host in their ids, and their names are never told; what makes one of two hosts the same
//! is `-o network=NAME`, the name of a network in weft's file.

pub mod api;
mod ipam;
pub mod names;
mod networks;
pub mod options;
pub mod published;
pub mod record;

pub mod testing;

#[cfg(test)]
mod tests;

use crate::config;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use published::Published;
use record::{EndpointRecord, NetworkRecord, Record};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Beginning of the holders of leases that were made for Docker.
pub const HOLDER: &str = "docker:";
/// Docker networks remembered: as many as there can be networks in the file, and each once more.
pub const MAX_NETWORKS: usize = 2048;
/// Beginning of an interface's name while it is in the host's namespace; the beginning of its endpoint's id follows.
pub const SOURCE: &str = "wd";
/// Digits of an endpoint's id in that name and in its port's: 48 random bits, and a name of 14 of the 15 bytes there are.
pub const DIGITS: usize = 12;
/// How long after an address was given its endpoint may be asked for: Docker does it at once, a loaded machine within seconds.
const PENDING: Duration = Duration::from_secs(5);
/// How long what nobody came for is kept: an interface that Docker did not move, a lease without an endpoint. Between the calls
/// and the move runc starts the container, which on a machine that is out of memory and disk takes a minute.
const ABANDONED: Duration = Duration::from_secs(120);

/// What an address is wanted of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The lowest free one, of IPv6 or of IPv4.
    Next {
        /// Of IPv6.
        v6: bool,
    },
    /// This one.
    Exactly(IpAddr),
}

/// A port to be made in the host's namespace, for Docker to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPort {
    /// Its name.
    pub name: String,
    /// The network of the file that it is in.
    pub network: String,
    /// The interface's name until Docker gives it another.
    pub ifname: String,
    /// Its addresses, which Docker puts on it.
    pub addresses: Vec<Cidr>,
    /// Its MAC address; `None` leaves it to the member.
    pub mac: Option<Mac>,
    /// Its MTU, where that is not the network's.
    pub mtu: Option<u16>,
}

/// Where a port's interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Still, or again, in the host's namespace.
    Host,
    /// In a container that exists.
    Container,
    /// Nowhere, or in a container that is gone.
    Gone,
}

/// The member of the mesh that Docker drives.
pub trait Member {
    /// The networks of its file.
    fn networks(&self) -> &[config::Network];
    /// Takes an address.
    ///
    /// # Errors
    /// Who has it, or why there is none.
    fn lease(&mut self, network: &str, holder: &str, wish: Wish) -> Result<Cidr, Refusal>;
    /// Gives one back; one that is not leased is no error.
    fn release(&mut self, network: &str, address: IpAddr);
    /// Whether an address of this member was leased here, for Docker. A port that is called like our holders has its own.
    fn holds(&self, network: &str, address: IpAddr) -> bool;
    /// All addresses that [`Member::holds`] is true of.
    fn held(&self) -> Vec<(String, IpAddr)>;
    /// Gives back those in networks that its file has no longer, except these.
    fn release_orphans(&mut self, except: &BTreeSet<IpAddr>);
    /// Makes a port, all or nothing, and says its MAC address.
    ///
    /// # Errors
    /// What is in the way: one sentence.
    fn make_port(&mut self, port: &NewPort) -> Result<Mac, Refusal>;
    /// Publishes a port of the host, as long as its holder is there.
    ///
    /// # Errors
    /// Who has it, or what is in the way.
    fn publish(&mut self, wanted: &Published) -> Result<(), String>;
    /// Withdraws all that was published for a port; nothing is no error.
    fn withdraw(&mut self, holder: &str);
    /// Removes a port, wherever its interface is, and what is published for it; one that is gone is no error.
    fn remove_port(&mut self, name: &str);
    /// Removes a TAP of this name from the host's namespace, if there is one.
    fn remove_interface(&mut self, ifname: &str);
    /// Whether there is such a port.
    fn has_port(&self, name: &str) -> bool;
    /// Where a port's interface is at this moment.
    fn place(&mut self, port: &str, sandbox: Option<&str>) -> Place;
    /// Remembers something across restarts, in place of what is in its slot.
    ///
    /// # Errors
    /// One sentence.
    fn keep(&mut self, record: &Record) -> Result<(), String>;
    /// Remembers it no longer.
    fn forget(&mut self, slot: &str);
    /// Random bits.
    fn random(&mut self) -> u64;
}

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence.
    pub reason: String,
    /// Whether that may have changed in a moment: another host has what was asked for, as far as is known here.
    pub may_pass: bool,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, may_pass: false }
    }
}

/// An answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP's status: 200, also for what is refused, or 404 for a call that we do not know.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
    /// Whether the same call may be answered otherwise in a moment.
    pub may_pass: bool,
}

impl Reply {
    /// What a call brought, or why it is refused. Docker's network half reads `Err` and its IPAM half `Error`.
    pub fn of(outcome: Result<Value, Refusal>) -> Self {
        match outcome {
            Ok(value) => Self { status: 200, body: value.to_string().into_bytes(), may_pass: false },
            Err(Refusal { reason, may_pass }) => Self { status: 200, body: refusal(&reason), may_pass },
        }
    }

    /// There is no such call.
    pub fn unknown(path: &str) -> Self {
        let path: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
        Self { status: 404, body: refusal(&format!("weft does not know the call '{path}'")), may_pass: false }
    }
}

fn refusal(reason: &str) -> Vec<u8> {
    // An empty reason would read as success.
    let reason = if reason.is_empty() { "weft refused" } else { reason };
    let text = format!("weft: {reason}");
    json!({ "Err": text, "Error": text }).to_string().into_bytes()
}

/// What Docker was promised.
#[derive(Debug, Clone, Default)]
pub struct Driver {
    networks: BTreeMap<String, NetworkRecord>,
    endpoints: BTreeMap<String, EndpointRecord>,
    /// Since when endpoints are there of which no container has the interface.
    loose: BTreeMap<String, Duration>,
    /// Since when addresses are leased that no endpoint has.
    idle: BTreeMap<(String, IpAddr), Duration>,
    /// Addresses that Docker released while a container had them.
    released: BTreeSet<(String, IpAddr)>,
    /// The pool that was asked for last without naming a subnet, when, and how often; see [`Driver::request_pool`].
    proposed: Option<(String, Duration, u32)>,
    /// Networks that were remembered from before the restart, and of which Docker has not spoken since.
    unconfirmed: Vec<String>,
}

impl Driver {
    /// As it was before a restart.
    pub fn new(records: Vec<Record>, now: Duration) -> Self {
        let mut driver = Self::default();
        for record in records {
            match record {
                Record::Network(network) => {
                    driver.unconfirmed.push(network.id.clone());
                    driver.networks.insert(network.id.clone(), network);
                }
                Record::Endpoint(endpoint) => {
                    driver.loose.insert(endpoint.id.clone(), now);
                    driver.endpoints.insert(endpoint.id.clone(), endpoint);
                }
            }
        }
        driver
    }

    /// Whether a port of an earlier run is one of ours.
    pub fn has_port(&self, name: &str) -> bool {
        self.endpoints.values().any(|endpoint| endpoint.port == name)
    }

    /// Docker's API says what the container of an endpoint is called, which is remembered; returns the endpoint's port.
    pub fn named(&mut self, endpoint: &str, names: &[String], member: &mut impl Member) -> Option<String> {
        let endpoint = self.endpoints.get_mut(endpoint)?;
        if endpoint.names != names {
            names.clone_into(&mut endpoint.names);
            if let Err(reason) = member.keep(&Record::Endpoint(endpoint.clone())) {
                tracing::warn!("names of {} are not kept: {reason}", endpoint.port);
            }
        }
        Some(endpoint.port.clone())
    }

    /// What the container of a port is called, as far as Docker's API said.
    pub fn names_of(&self, port: &str) -> &[String] {
        self.endpoints.values().find(|endpoint| endpoint.port == port).map_or(&[], |endpoint| &endpoint.names)
    }

    /// The MTU that a port was promised, where that is not its network's.
    pub fn mtu_of(&self, port: &str) -> Option<u16> {
        let endpoint = self.endpoints.values().find(|endpoint| endpoint.port == port)?;
        self.networks.get(&endpoint.network_id)?.options.mtu
    }

    /// Answers one call. Any path and any body may come.
    pub fn answer(&mut self, now: Duration, path: &str, body: &[u8], member: &mut impl Member) -> Reply {
        let Some(call) = path.strip_prefix('/') else { return Reply::unknown(path) };
        let outcome = match call {
            "Plugin.Activate" => Ok(json!({ "Implements": ["NetworkDriver", "IpamDriver"] })),
            "NetworkDriver.GetCapabilities" => Ok(json!({ "Scope": "local", "ConnectivityScope": "global" })),
            "NetworkDriver.CreateNetwork" => read(body).and_then(|body| Ok(self.create_network(&body, member)?)),
            "NetworkDriver.DeleteNetwork" => read(body).map(|body| self.delete_network(&body, member)),
            "NetworkDriver.CreateEndpoint" => read(body).and_then(|body| self.create_endpoint(now, &body, member)),
            "NetworkDriver.EndpointOperInfo" => Ok(json!({ "Value": {} })),
            "NetworkDriver.DeleteEndpoint" => read(body).map(|body| self.delete_endpoint(&body, member)),
            "NetworkDriver.Join" => read(body).and_then(|body| Ok(self.join(now, &body, member)?)),
            "NetworkDriver.Leave" => read(body).map(|body| self.leave(now, &body)),
            "NetworkDriver.ProgramExternalConnectivity" => read(body).and_then(|body| self.program(&body, member)),
            "NetworkDriver.RevokeExternalConnectivity" => read(body).map(|body| self.revoke(&body, member)),
            "NetworkDriver.DiscoverNew" | "NetworkDriver.DiscoverDelete" | "NetworkDriver.FreeNetwork" => {
                Ok(json!({}))
            }
            "IpamDriver.ReleasePool" => {
                self.proposed = None;
                Ok(json!({}))
            }
            "NetworkDriver.AllocateNetwork" => {
                Err("networks of weft are local: make one on each host, with the same '-o network=NAME'"
                    .to_owned()
                    .into())
            }
            // Our leases outlive a restart of Docker by themselves: nothing needs to be asked for again.
            "IpamDriver.GetCapabilities" => {
                Ok(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }))
            }
            "IpamDriver.GetDefaultAddressSpaces" => {
                Ok(json!({ "LocalDefaultAddressSpace": "weft", "GlobalDefaultAddressSpace": "weft" }))
            }
            "IpamDriver.RequestPool" => read(body).and_then(|body| Ok(self.request_pool(now, &body, member)?)),
            "IpamDriver.RequestAddress" => read(body).and_then(|body| self.request_address(now, &body, member)),
            "IpamDriver.ReleaseAddress" => read(body).and_then(|body| Ok(self.release_address(&body, member)?)),
            _ => return Reply::unknown(path),
        };
        Reply::of(outcome)
    }

    /// Collects what Docker forgot. Called every second.
    pub fn tick(&mut self, now: Duration, member: &mut impl Member) {
        let ids: Vec<String> = self.endpoints.keys().cloned().collect();
        for id in ids {
            let Some(endpoint) = self.endpoints.get(&id) else { continue };
            if !self.loose.contains_key(&id) && member.has_port(&endpoint.port) {
                continue;
            }
            match member.place(&endpoint.port, endpoint.sandbox.as_deref()) {
                Place::Container => drop(self.loose.remove(&id)),
                Place::Host if now.saturating_sub(*self.loose.entry(id.clone()).or_insert(now)) < ABANDONED => {}
                // Docker may be about to start this container again: its lease is given up when it says so, or later.
                Place::Host | Place::Gone => self.collect(&id, member),
            }
        }
        let held = member.held();
        self.idle.retain(|lease, _| held.contains(lease));
        for lease in held {
            if self.is_used(&lease) {
                self.idle.remove(&lease);
            } else if now.saturating_sub(*self.idle.entry(lease.clone()).or_insert(now)) >= ABANDONED {
                self.idle.remove(&lease);
                member.release(&lease.0, lease.1);
            }
        }
        member.release_orphans(&self.set_aside_nowhere(member));
    }

    /// What Docker networks have set aside whose network the file has no longer: it may come back, while Docker knows nothing of it.
    fn set_aside_nowhere(&self, member: &impl Member) -> BTreeSet<IpAddr> {
        let is_gone = |name: &str| member.networks().iter().all(|network| network.name != name);
        let gone = self.networks.values().filter(|docker| is_gone(&docker.options.network));
        gone.flat_map(|docker| docker.aux.iter().copied()).collect()
    }

    /// Docker has these networks and no others, as its own API says.
    pub fn networks_are(&mut self, ids: &[String], member: &mut impl Member) {
        for id in std::mem::take(&mut self.unconfirmed) {
            if !ids.contains(&id) {
                self.networks.remove(&id);
                member.forget(&record::network_slot(&id));
            }
        }
    }

    /// Whether an endpoint has a leased address, or a Docker network has it set aside.
    fn is_used(&self, (network, address): &(String, IpAddr)) -> bool {
        let has = |endpoint: &EndpointRecord| endpoint.network == *network && endpoint.has(*address);
        let set_aside = |docker: &NetworkRecord| docker.options.network == *network && docker.aux.contains(address);
        self.endpoints.values().any(has) || self.networks.values().any(set_aside)
    }

    /// The endpoint with an address.
    fn endpoint_at(&self, network: &str, address: IpAddr) -> Option<&EndpointRecord> {
        self.endpoints.values().find(|endpoint| endpoint.network == network && endpoint.has(address))
    }

    /// Makes an address free that an endpoint has which is none any more.
    ///
    /// # Errors
    /// A container has it, or is about to.
    fn vacate(
        &mut self,
        now: Duration,
        network: &str,
        address: IpAddr,
        member: &mut impl Member,
    ) -> Result<(), String> {
        let Some(endpoint) = self.endpoint_at(network, address) else { return Ok(()) };
        let id = endpoint.id.clone();
        let since = *self.loose.get(&id).unwrap_or(&now);
        let taken = match member.place(&endpoint.port, endpoint.sandbox.as_deref()) {
            Place::Container => Some("a running container has it"),
            Place::Host if now.saturating_sub(since) < PENDING => Some("a container is being started with it"),
            Place::Host | Place::Gone => None,
        };
        match taken {
            Some(why) => Err(format!(
                "{address} is in use in network '{network}' on this host: {why} (port {}, see 'weft ports')",
                endpoint.port
            )),
            None => {
                self.collect(&id, member);
                Ok(())
            }
        }
    }

    /// Drops an endpoint, its port, and the leases that Docker knows nothing of.
    fn collect(&mut self, id: &str, member: &mut impl Member) {
        self.loose.remove(id);
        let Some(endpoint) = self.endpoints.remove(id) else { return };
        member.remove_port(&endpoint.port);
        for &address in &endpoint.claimed {
            member.release(&endpoint.network, address);
        }
        for address in endpoint.addresses.iter().map(|cidr| cidr.address) {
            if self.released.remove(&(endpoint.network.clone(), address)) {
                member.release(&endpoint.network, address);
            }
        }
        member.forget(&record::endpoint_slot(id));
    }
}

/// A call's body. Docker sends an empty one, or `null`, where there is nothing to say.
fn read<T: serde::de::DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let read: Result<Option<T>, _> = serde_json::from_slice(body);
    // The error repeats what it does not know, control characters and all.
    let odd = |error: serde_json::Error| format!("not a call of Docker: {error}").replace(char::is_control, " ");
    read.map(Option::unwrap_or_default).map_err(|error| odd(error).into())
}
