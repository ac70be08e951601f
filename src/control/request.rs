//! The one typed API: a [`Request`] per connection on the control socket, answered by one [`Response`].
//!
//! Both are one line of JSON, at most [`MAX_REQUEST`] bytes towards the daemon. The command line prints the very
//! structures found here, as tables or as `--json`.

mod leases;
mod policy;

use crate::config::policy::{Permission, Rate};
mod names;

pub use leases::{LeaseStatus, LeaseWanted, Wish};

use crate::config::{PortAddress, Target};
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
pub use names::{AddName, NameStatus, RemoveName};
pub use policy::{NetworkPolicy, Refused, RuleStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

mod host;

pub use host::{Backend, Expose, ExposureStatus, InstanceStatus, Outside, PublicationStatus, Publish, Unpublish};

/// The longest request line the daemon reads: an attach with dozens of addresses is far below it.
pub const MAX_REQUEST: usize = 64 * 1024;

/// What a caller asks of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The daemon as a whole.
    Status,
    /// The other members.
    Peers,
    /// The local ports.
    Ports,
    /// The networks.
    Networks,
    /// The FDB, of one network or of all.
    Fdb {
        /// A network's name.
        #[serde(default)]
        network: Option<String>,
    },
    /// Make a port.
    Attach(Attach),
    /// Remove a port.
    Detach(Detach),
    /// Read the configuration file again and apply the difference.
    Reload,
    /// How each peer is reached, and why not better.
    Paths {
        /// Only this peer's.
        #[serde(default)]
        peer: Option<String>,
    },
    /// Make a peer that stays, besides those of the file.
    Connect(Connect),
    /// Undo that, or drop what is kept of a member that is gone.
    Forget(Forget),
    /// Make an invitation.
    Invite(Invite),
    /// Take a member's certificate back.
    Revoke {
        /// Its name, or its public key.
        member: String,
    },
    /// Hand the authority on to a new key.
    Rotate {
        /// For how long, in seconds, certificates of the old one count.
        overlap_s: u64,
    },
    /// Give this host an address in a network.
    Expose(Expose),
    /// Take it away.
    Hide {
        /// The network's name.
        network: String,
    },
    /// Make a port of this host lead to containers.
    Publish(Publish),
    /// Undo that.
    Unpublish(Unpublish),
    /// What is exposed and published.
    Published,
    /// What frames may do in each network, and what was refused.
    Policy,
    /// The names that are answered, of one network or of all.
    Names {
        /// A network's name.
        #[serde(default)]
        network: Option<String>,
    },
    /// Add a name.
    AddName(AddName),
    /// Take one back that was added.
    RemoveName(RemoveName),
    /// An address for somebody.
    Lease(LeaseWanted),
    /// Let an address go.
    Release {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
    },
    /// Who has which address.
    Leases,
    /// Take the slices of a member that is gone, to give them to others.
    Reclaim {
        /// Its name, or its public key.
        member: String,
    },
}

/// The peer that `weft connect` makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Its name.
    pub name: String,
    /// Its key; absent means that of the member with this name.
    #[serde(default)]
    pub public_key: Option<PublicKey>,
    /// Where it may be reached, as in the file.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Its tunnel address, where that does not follow from its key.
    #[serde(default)]
    pub tunnel_address: Option<Ipv4Addr>,
}

/// The peer that `weft forget` drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// Its name.
    pub name: String,
}

/// The invitation wanted by `weft invite`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// What the new member will be called.
    pub name: String,
    /// How long it lives, in seconds.
    pub life_s: u64,
    /// What it will allocate addresses from.
    #[serde(default)]
    pub slices: Vec<Cidr>,
    /// Where this member can be reached, besides where it knows itself.
    #[serde(default)]
    pub endpoints: Vec<String>,
}

/// The port wanted by `weft attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Whose namespace.
    pub target: Target,
    /// The network's name.
    pub network: String,
    /// Addresses, possibly none.
    #[serde(default)]
    pub addresses: Vec<PortAddress>,
    /// The MAC address; absent lets the daemon choose.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The interface's name in the target; absent is `eth1`.
    #[serde(default)]
    pub ifname: Option<String>,
    /// The port's name; absent is `TARGET:IFNAME`.
    #[serde(default)]
    pub name: Option<String>,
    /// Besides the addresses, one of each family out of this member's slice.
    #[serde(default)]
    pub auto: bool,
    /// The names that DNS answers with its addresses.
    #[serde(default)]
    pub names: Vec<String>,
    /// By what policies may know it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it may do although its network guards or isolates.
    #[serde(default)]
    pub allow: Vec<Permission>,
    /// How much it may send and get.
    #[serde(default)]
    pub rate: Option<Rate>,
}

impl Attach {
    /// A port without addresses, of which the daemon chooses what it can.
    pub fn new(target: Target, network: impl Into<String>) -> Self {
        Self {
            target,
            network: network.into(),
            addresses: Vec::new(),
            mac: None,
            ifname: None,
            name: None,
            auto: false,
            names: Vec::new(),
            labels: BTreeMap::new(),
            allow: Vec::new(),
            rate: None,
        }
    }
}

/// The port to remove: by its name, or by target and, where that has several, interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// The port's name, or a target as it was given to attach.
    pub port: String,
    /// The interface's name, when the target has several ports.
    #[serde(default)]
    pub ifname: Option<String>,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "body", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Peers`].
    Peers(Vec<PeerStatus>),
    /// To [`Request::Ports`].
    Ports(Vec<PortStatus>),
    /// To [`Request::Networks`].
    Networks(Vec<NetworkStatus>),
    /// To [`Request::Fdb`].
    Fdb(Vec<FdbEntry>),
    /// To [`Request::Paths`].
    Paths(Vec<PathStatus>),
    /// To [`Request::Policy`].
    Policy(Vec<NetworkPolicy>),
    /// To [`Request::Names`].
    Names(Vec<NameStatus>),
    /// To [`Request::Attach`]: the port as it is.
    Attached(Box<PortStatus>),
    /// To [`Request::Published`].
    Published(Outside),
    /// To [`Request::Leases`]: all that are known.
    Leases(Vec<LeaseStatus>),
    /// To [`Request::Lease`]: the addresses.
    Leased(Vec<LeaseStatus>),
    /// To [`Request::Invite`]: the line to give to the new host.
    Invited(String),
    /// To a request for a change: what was done, in sentences.
    Done(Vec<String>),
    /// The target of an attach does not exist, or not yet; nothing changed. Asking again may succeed.
    Absent(String),
    /// The request was refused or failed; nothing changed. What, where, and what to do.
    Refused(String),
}

/// The daemon as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The member's name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The member's public key.
    pub public_key: PublicKey,
    /// Its tunnel address.
    pub tunnel_address: Ipv4Addr,
    /// The UDP port it listens on.
    pub listen_port: u16,
    /// The configuration file.
    pub config_file: String,
    /// Data-plane threads.
    pub workers: usize,
    /// How many networks, ports, peers, live tunnels.
    pub networks: usize,
    /// Ports that carry frames.
    pub ports: usize,
    /// Peers in the configuration.
    pub peers: usize,
    /// Peers with a live session.
    pub peers_up: usize,
    /// FDB entries, static and dynamic.
    pub fdb_entries: usize,
    /// FDB events since start: learned, moved, expired, evicted.
    pub fdb: FdbCounts,
    /// Offload name → `on`, or `off (why)`.
    pub offloads: BTreeMap<String, String>,
    /// Frames and packets since start, by what became of them.
    pub traffic: Traffic,
    /// Drop reason → count since start. Every reason is listed, also with 0.
    pub drops: BTreeMap<String, u64>,
    /// What came of joins, renewals and ledgers since start, by what it was.
    #[serde(default)]
    pub trust: BTreeMap<String, u64>,
    /// What the mesh is: members, those alive, our neighbours, the size of all documents, the ledger in force; and what of
    /// others' documents and messages was refused since start, by why.
    #[serde(default)]
    pub mesh: BTreeMap<String, u64>,
    /// What became of questions for names that are not ours, since start: asked, answered out of the cache, failed, refused because
    /// too many waited; and of resolvers: silent, and messages that answer nothing.
    #[serde(default)]
    pub other_names: BTreeMap<String, u64>,
    /// Frames that a network's policy refused lately, the latest first.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// What an operator should know: small socket buffers, waiting ports.
    pub warnings: Vec<String>,
}

/// FDB events since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbCounts {
    /// Stations met for the first time.
    pub learned: u64,
    /// Stations that changed their place.
    pub moved: u64,
    /// Entries that aged out.
    pub expired: u64,
    /// Entries that gave way at a bound.
    pub evicted: u64,
}

/// Traffic since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames read from ports.
    pub port_rx_frames: u64,
    /// Frames written to ports.
    pub port_tx_frames: u64,
    /// Frames sent into tunnels, a flooded one once per peer.
    pub tunnel_tx_frames: u64,
    /// Frames that came out of tunnels.
    pub tunnel_rx_frames: u64,
    /// Frames that were flooded.
    pub flooded_frames: u64,
    /// Frames that we made ourselves and handed to ports: answers, queries, announcements.
    #[serde(default)]
    pub told_frames: u64,
    /// ARP requests and neighbour solicitations answered here instead of being flooded.
    #[serde(default)]
    pub suppressed_frames: u64,
    /// IGMP and MLD messages taken in here.
    #[serde(default)]
    pub snooped_frames: u64,
    /// Packets passed on between other members.
    #[serde(default)]
    pub relayed_packets: u64,
    /// Bytes of those.
    #[serde(default)]
    pub relayed_bytes: u64,
    /// UDP datagrams sent.
    pub datagrams_tx: u64,
    /// UDP datagrams received.
    pub datagrams_rx: u64,
}

/// One other member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub public_key: PublicKey,
    /// Its tunnel address.
    pub tunnel_address: Ipv4Addr,
    /// `up`, `handshake` (trying), or `idle` (no session, nothing to send).
    pub state: String,
    /// Where it is reached now.
    pub endpoint: Option<SocketAddr>,
    /// Endpoints of the file, names with what they resolved to.
    pub endpoints: Vec<String>,
    /// Seconds since the last handshake of the live session.
    pub handshake_age_s: Option<u64>,
    /// Round-trip time of the last probe.
    pub rtt_ms: Option<f64>,
    /// MTU of the underlay path in use.
    pub path_mtu: u16,
    /// `probed`, `configured` or `assumed`.
    pub path_mtu_source: String,
    /// `direct`, `relayed`, `tcp`, or `none`.
    #[serde(default)]
    pub path: String,
    /// The underlay address in use, or the name of the member that relays.
    #[serde(default)]
    pub via: Option<String>,
    /// Why there is no better path; empty when this is the best kind.
    #[serde(default)]
    pub why: String,
    /// Why it is a peer: `file`, `connect`, `mesh`, `token` or `stranger`.
    #[serde(default)]
    pub origin: String,
    /// Whether the mesh says that it is there; `None` while the mesh knows nothing of it.
    #[serde(default)]
    pub alive: Option<bool>,
    /// Whether it spoke weft's own messages; a stock WireGuard host does not.
    pub weft: bool,
    /// Networks it has, by name or VNI; `None` until known.
    pub networks: Option<Vec<String>>,
    /// Inner packets and bytes sent to it and received from it.
    pub tx_packets: u64,
    /// Bytes of inner packets sent.
    pub tx_bytes: u64,
    /// Inner packets received.
    pub rx_packets: u64,
    /// Bytes of inner packets received.
    pub rx_bytes: u64,
}

/// How one peer is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The peer's name.
    pub peer: String,
    /// `direct`, `relayed`, `tcp`, or `none`.
    pub path: String,
    /// The underlay address in use, or the name of the member that relays.
    pub via: Option<String>,
    /// Seconds since this path is in use.
    pub since_s: Option<u64>,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Per cent of what the peer sent lately that did not arrive.
    pub loss_percent: Option<f64>,
    /// Per cent of what arrived lately that had been overtaken.
    pub reordering_percent: Option<f64>,
    /// MTU of the path: of the underlay, or of what relays carry.
    pub path_mtu: u16,
    /// `probed`, `configured`, `assumed` or `relayed`.
    pub path_mtu_source: String,
    /// Why there is no better path; empty when this is the best kind.
    pub why: String,
    /// All ways that are known.
    pub candidates: Vec<CandidateStatus>,
}

/// One way by which a peer may be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// The underlay address, or the name of the member that relays.
    pub way: String,
    /// How it is known: `file`, `dns`, `announced`, `observed`, `cache`, `lan`, `heard`, `relay` or `tcp`.
    pub source: String,
    /// Whether it answers, and for how long it does or does not.
    pub state: String,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Per cent of probes that were lost lately.
    pub loss_percent: Option<f64>,
}

/// One local port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// `up`, or `waiting: why` while its target does not exist.
    pub state: String,
    /// Whose namespace it is in.
    pub target: String,
    /// The interface's name there.
    pub ifname: String,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: Vec<PortAddress>,
    /// The names that it answers to in its network.
    #[serde(default)]
    pub names: Vec<String>,
    /// By what policies may know it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its MTU.
    pub mtu: u16,
    /// `file`, `attach`, `expose` or `docker`.
    pub origin: String,
    /// Frames and bytes the container sent.
    pub rx_frames: u64,
    /// Bytes the container sent.
    pub rx_bytes: u64,
    /// Frames the container was given.
    pub tx_frames: u64,
    /// Bytes the container was given.
    pub tx_bytes: u64,
    /// Frames of this port that were dropped, both ways.
    pub drops: u64,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// Its VNI.
    pub vni: u32,
    /// Its subnets.
    pub subnets: Vec<String>,
    /// The addresses at which every member answers for the network itself.
    #[serde(default)]
    pub gateways: Vec<Cidr>,
    /// The domain of its names; `None` where they are not answered.
    #[serde(default)]
    pub domain: Option<String>,
    /// What this member gives addresses from.
    #[serde(default)]
    pub slices: Vec<Cidr>,
    /// Whether all that it can give of a family is given.
    #[serde(default)]
    pub full: bool,
    /// MTU of its ports.
    pub mtu: u16,
    /// FDB ageing time in seconds.
    pub ageing_s: u64,
    /// Names of local ports.
    pub ports: Vec<String>,
    /// Names of the peers that frames are flooded to.
    pub peers: Vec<String>,
    /// FDB entries.
    pub fdb_entries: usize,
}

/// One FDB entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The network's name.
    pub network: String,
    /// The station.
    pub mac: Mac,
    /// `port NAME` or `peer NAME`.
    pub at: String,
    /// `static` (of the file, or one of our ports), `mesh` (a member's attachment) or `dynamic` (learned).
    pub kind: String,
    /// Seconds since it was last heard of; absent for a static entry.
    pub age_s: Option<u64>,
}
