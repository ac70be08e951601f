//! The machine, as the control plane needs it: a trait with two implementations, the daemon's and the tests'.

use super::contacts::Contact;
use super::docker::Whereabouts;
use super::names::AddedName;
use super::ports::Origin;
use super::{exposures, nat};
use crate::config::{self, Config, PortAddress, Target};
use crate::docker::record::Record as DockerRecord;
use crate::ipam::{Claim, Lease};
use crate::switch::Egress;
use crate::switch::ids::PortId;
use crate::switch::topology::Port;
use crate::trust::Authority;
use crate::trust::record::Record;
use crate::wire::key::PublicKey;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The machine we run on, as the control plane needs it.
pub trait Host {
    /// A namespace that was found and can take a port.
    type Place;
    /// Where frames and datagrams of our own go.
    type Out: Egress;

    /// Makes a port's interface, all or nothing.
    ///
    /// # Errors
    /// One sentence: what is in the way and what to do.
    fn create_port(&mut self, port: &NewPort<'_>, place: &Self::Place) -> Result<(), String>;
    /// Makes a port's interface in the daemon's namespace, all or nothing: without addresses and not up, for Docker to take.
    ///
    /// # Errors
    /// One sentence: what is in the way and what to do.
    fn create_loose_port(&mut self, port: &NewPort<'_>) -> Result<(), String>;
    /// Where the interface of such a port is now; remembers it across restarts where that is news. `sandbox` is where Docker
    /// says that its container's namespace is.
    fn find_loose_port(&mut self, id: PortId, sandbox: Option<&str>) -> Whereabouts;
    /// Removes a TAP from the daemon's namespace that is no port's; one that is not there is no error.
    fn remove_loose_interface(&mut self, ifname: &str);
    /// Removes a port's interface, wherever it is; one that is gone already is no error. What is remembered of it stays if the
    /// port is to come back.
    fn remove_port(&mut self, id: PortId, comes_back: bool);
    /// Forgets what is remembered of a port that has no interface.
    fn forget_port(&mut self, name: &str);
    /// Gives an interface in the daemon's own namespace those of these addresses that it lacks, and switches it on; whether there was
    /// anything to do. One that is gone is none of its business.
    ///
    /// # Errors
    /// One sentence.
    fn mend_interface(&mut self, ifname: &str, addresses: &[PortAddress]) -> Result<bool, String>;
    /// Whether a port's interface and namespace still exist.
    fn port_lives(&mut self, id: PortId) -> bool;
    /// Changes the MTU of a port's interface.
    ///
    /// # Errors
    /// One sentence; the MTU is as before.
    fn set_port_mtu(&mut self, id: PortId, mtu: u16) -> Result<(), String>;
    /// Reads and checks the configuration file again.
    ///
    /// # Errors
    /// All that is wrong with it.
    fn load_config(&mut self) -> Result<Config, String>;
    /// Looks for these targets until told otherwise; what is found comes back through [`super::Control::located`].
    fn seek(&mut self, targets: Vec<(String, Target)>);
    /// Resolves these names until told otherwise; answers come back through [`super::Control::resolved`].
    fn resolve(&mut self, names: Vec<Lookup>);
    /// Connects to a member by TCP; what becomes of it comes back through [`super::Control::stream`]. `false` if this machine does
    /// not do that.
    fn connect_stream(&mut self, to: PublicKey, address: SocketAddr) -> bool;
    /// Closes a TCP connection; one that is not there is no error.
    fn close_stream(&mut self, number: u32);
    /// Names the members to look for on our LANs; where they are comes back through [`super::Control::seen`].
    fn set_known(&mut self, keys: Vec<PublicKey>);
    /// Changes how much is logged.
    fn set_log_level(&mut self, level: config::LogLevel);
    /// Random bits.
    fn random(&mut self) -> u64;
    /// What was kept of other members, once.
    fn contacts(&mut self) -> Vec<Contact>;
    /// Keeps a contact across restarts, in place of the one with its key.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn keep_contact(&mut self, contact: &Contact) -> Result<(), String>;
    /// Keeps it no longer.
    fn drop_contact(&mut self, key: &PublicKey);
    /// The time since 1970, as far as the machine knows it.
    fn unix_time(&self) -> Duration;
    /// The addresses by which other hosts may reach this one: those of its interfaces, but not those that are only of use
    /// on it, nor those that it has inside our own networks.
    fn underlay_addresses(&mut self) -> Vec<IpAddr>;
    /// Bits for secrets.
    fn fill_random(&mut self, bytes: &mut [u8]);
    /// Remembers a record of trust across restarts.
    ///
    /// # Errors
    /// One sentence; what was remembered before is.
    fn keep_trust(&mut self, record: &Record) -> Result<(), String>;
    /// Forgets what is in a slot.
    ///
    /// # Errors
    /// One sentence; it is remembered still.
    fn drop_trust(&mut self, slot: &str) -> Result<(), String>;
    /// Makes the key of the authority that is to follow ours, on the disk.
    ///
    /// # Errors
    /// One sentence; nothing changed.
    fn next_authority(&mut self) -> Result<Authority, String>;
    /// Puts it in the place of ours, whose key is gone then.
    ///
    /// # Errors
    /// One sentence; the next start does it.
    fn adopt_next_authority(&mut self) -> Result<(), String>;
    /// What was kept of Docker's networks and endpoints, once.
    fn docker_records(&mut self) -> Vec<DockerRecord>;
    /// Keeps such a record across restarts, in place of the one in its slot.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn keep_docker(&mut self, record: &DockerRecord) -> Result<(), String>;
    /// Keeps it no longer.
    fn drop_docker(&mut self, slot: &str);
    /// The daemon's own namespace.
    ///
    /// # Errors
    /// One sentence.
    fn host_place(&mut self) -> Result<Self::Place, String>;
    /// What was remembered of exposed networks and published ports, once.
    fn host_records(&mut self) -> Vec<exposures::Record>;
    /// Remembers such a record across restarts, in place of the one in its slot.
    ///
    /// # Errors
    /// One sentence; what was remembered before is.
    fn keep_host_record(&mut self, record: &exposures::Record) -> Result<(), String>;
    /// Forgets what is in a slot.
    ///
    /// # Errors
    /// One sentence; it is remembered still.
    fn drop_host_record(&mut self, slot: &str) -> Result<(), String>;
    /// Makes the packet filter, and the switches of the kernel that go with it, do this and nothing else for us.
    ///
    /// # Errors
    /// One sentence; it does what it did before.
    fn set_rules(&mut self, rules: &nat::Rules) -> Result<(), String>;
    /// What stands in the way of those rules: sentences that begin with the network.
    fn obstacles(&self) -> Vec<String>;
    /// Keeps a port of this host free of others as long as it is published.
    ///
    /// # Errors
    /// Who has it.
    fn hold_port(&mut self, port: nat::HostPort) -> Result<(), String>;
    /// Does so no longer; one that is not held is no error.
    fn release_port(&mut self, port: nat::HostPort);
    /// Probes these addresses by TCP until told otherwise; what they answer comes back through [`super::Control::probed`].
    fn probe(&mut self, instances: Vec<SocketAddr>);
    /// The names that were added by hand, once.
    fn added_names(&mut self) -> Vec<AddedName>;
    /// Keeps such a name across restarts, in place of the one with its network and name.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn keep_name(&mut self, added: &AddedName) -> Result<(), String>;
    /// Keeps it no longer.
    ///
    /// # Errors
    /// One sentence; it is kept still.
    fn drop_name(&mut self, added: &AddedName) -> Result<(), String>;
    /// The leases that were kept, once.
    fn leases(&mut self) -> Vec<Lease>;
    /// Keeps some leases across restarts, in place of those of their addresses, and forgets others: all of it or nothing.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn change_leases(&mut self, keep: &[Lease], forget: &[(u32, IpAddr)]) -> Result<(), String>;
    /// What other members were known to have in our slices, once.
    fn claims(&mut self) -> Vec<Claim>;
    /// Keeps some of it across restarts, and other no longer: all of it or nothing.
    ///
    /// # Errors
    /// One sentence; what was kept before is.
    fn change_claims(&mut self, keep: &[Claim], forget: &[Claim]) -> Result<(), String>;
    /// Tells the kernel that what we send to this underlay address arrives, so that it need not ask for its neighbour on the way.
    fn confirm_neighbour(&mut self, to: SocketAddr);
    /// Our way out.
    fn out(&mut self) -> &mut Self::Out;
    /// What the machine itself would tell an operator: offload name → state, and warnings.
    fn machine(&self) -> MachineReport;
}

/// A port to be made.
pub struct NewPort<'a> {
    /// As the switch will know it.
    pub port: Arc<Port>,
    /// As it was asked for.
    pub spec: &'a config::Port,
    /// The addresses of its interface: those asked for, and those chosen.
    pub addresses: &'a [PortAddress],
    /// Who asked.
    pub origin: Origin,
    /// MTU of its network.
    pub mtu: u16,
    /// Which of two places of its station is the later one; kept across restarts.
    pub sequence: u32,
}

/// A name to be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The name, and the UDP port that goes with it.
    pub name: (String, u16),
    /// Whether a peer does not answer where the name led last: it may have moved.
    pub pressing: bool,
}

/// What the machine can do, for `weft status`.
#[derive(Debug, Clone, Default)]
pub struct MachineReport {
    /// Offload name → `on` or `off (why)`.
    pub offloads: BTreeMap<String, String>,
    /// Sentences an operator should read.
    pub warnings: Vec<String>,
    /// Data-plane threads.
    pub workers: usize,
    /// The configuration file.
    pub config_file: String,
    /// The daemon's process id.
    pub pid: u32,
}
