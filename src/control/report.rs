//! What the control plane shows: the structures behind `weft status`, `peers`, `ports`, `networks` and `fdb`.

use super::paths::name_of_basis;
use super::peers::PeerOrigin;
use super::ports::{Origin, PortEntry, State};
use super::request::{self, FdbCounts, FdbEntry, NetworkStatus, PeerStatus, PortStatus, Response, Status, Traffic};
use super::{Control, Host};
use crate::config::Dns;
use crate::config::Endpoint;
use crate::mesh::membership::MemberView;
use crate::switch::counters::Drop;
use crate::switch::fdb::Kind;
use crate::switch::ids::Place;
use crate::wire::MIN_PATH_MTU;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

impl<H: Host> Control<H> {
    /// Answers a request that only looks.
    pub fn show(&self, now: Instant, request: &request::Request) -> Option<Response> {
        use request::Request;
        Some(match request {
            Request::Status => Response::Status(Box::new(self.status(now))),
            Request::Peers => Response::Peers(self.peer_statuses(now)),
            Request::Ports => Response::Ports(self.ports.values().map(|entry| self.describe_port(entry)).collect()),
            Request::Networks => Response::Networks(self.network_statuses()),
            Request::Fdb { network } => self.fdb_entries(now, network.as_deref()),
            Request::Paths { peer } => match self.path_statuses(now, peer.as_deref()) {
                none if none.is_empty() && peer.is_some() => {
                    let name = peer.as_deref().unwrap_or_default();
                    Response::Refused(format!("there is no peer '{name}': `weft peers` lists them"))
                }
                paths => Response::Paths(paths),
            },
            Request::Published => Response::Published(self.outside_status()),
            Request::Leases => Response::Leases(self.lease_statuses(now)),
            Request::Lease(_) | Request::Release { .. } | Request::Reclaim { .. } => return None,
            Request::Policy => Response::Policy(self.policy_statuses(now)),
            Request::Attach(_) | Request::Detach(_) | Request::Reload => return None,
            Request::Expose(_) | Request::Hide { .. } | Request::Publish(_) | Request::Unpublish(_) => return None,
            Request::Connect(_) | Request::Forget(_) => return None,
            Request::Invite(_) | Request::Revoke { .. } | Request::Rotate { .. } => return None,
            Request::Names { network } => self.name_statuses(network.as_deref()),
            Request::AddName(_) | Request::RemoveName(_) => return None,
        })
    }

    fn status(&self, now: Instant) -> Status {
        let counters = &self.switch.counters;
        let machine = self.host.machine();
        let fdb = self.switch.fdb.counts();
        let mut warnings = machine.warnings;
        warnings.extend(self.trust.warnings(self.host.unix_time()));
        warnings.extend(self.members.warnings());
        for entry in self.ports.values() {
            if let State::Waiting(reason) = &entry.state {
                warnings.push(format!("port {} waits: {reason}", entry.spec.name));
            }
        }
        warnings.extend(self.station_warnings());
        warnings.extend(self.outside_warnings());
        warnings.extend(self.name_warnings());
        warnings.extend(self.address_warnings());
        Status {
            name: self.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: machine.pid,
            uptime_s: now.saturating_duration_since(self.started).as_secs(),
            public_key: self.identity.key,
            tunnel_address: self.identity.address,
            listen_port: self.config.node.listen_port,
            config_file: machine.config_file,
            workers: machine.workers,
            networks: self.config.networks.len(),
            ports: self.up_ports().count(),
            peers: self.peers.len(),
            peers_up: self.peers.values().filter(|entry| entry.peer.tunnel().is_live()).count(),
            fdb_entries: self.switch.fdb.len(),
            fdb: FdbCounts { learned: fdb.learned, moved: fdb.moved, expired: fdb.expired, evicted: fdb.evicted },
            offloads: machine.offloads,
            traffic: Traffic {
                port_rx_frames: counters.port_rx_frames.get(),
                port_tx_frames: counters.port_tx_frames.get(),
                tunnel_tx_frames: counters.tunnel_tx_frames.get(),
                tunnel_rx_frames: counters.tunnel_rx_frames.get(),
                flooded_frames: counters.flooded_frames.get(),
                told_frames: counters.told_frames.get(),
                suppressed_frames: counters.suppressed_frames.get(),
                snooped_frames: counters.snooped_frames.get(),
                relayed_packets: counters.relayed_packets.get(),
                relayed_bytes: counters.relayed_bytes.get(),
                datagrams_tx: counters.datagrams_tx.get(),
                datagrams_rx: counters.datagrams_rx.get(),
            },
            drops: Drop::ALL.iter().map(|&reason| (reason.name().to_owned(), counters.dropped(reason))).collect(),
            trust: self.trust.counters().named(),
            mesh: self.mesh_counts(),
            other_names: self.names().forwarded().named(),
            refused: self.refused_lately(now),
            warnings,
        }
    }

    fn mesh_counts(&self) -> BTreeMap<String, u64> {
        let membership = &self.members.membership;
        let mut counts = membership.counters().named();
        let count = |is_counted: fn(&MemberView<'_>) -> bool| membership.members().filter(is_counted).count() as u64;
        counts.extend(
            [
                ("members", count(|_| true)),
                ("alive", count(|view| view.alive)),
                ("neighbours", membership.neighbours().len() as u64),
                ("document_bytes", membership.document_bytes() as u64),
                ("ledger_version", membership.ledger_version()),
                ("outputs_lost", membership.outputs_lost()),
            ]
            .map(|(name, count)| (name.to_owned(), count)),
        );
        counts
    }

    fn peer_statuses(&self, now: Instant) -> Vec<PeerStatus> {
        let peers = self.peers.values().map(|entry| {
            let peer = &entry.peer;
            let view = self.mesh.peer(peer.id);
            let path = self.path_status(now, entry);
            let tunnel = peer.tunnel();
            let state = match () {
                () if tunnel.is_live() => "up",
                () if tunnel.is_trying() => "handshake",
                () => "idle",
            };
            let get = |counter: &AtomicU64| counter.load(Relaxed);
            PeerStatus {
                name: entry.config.name.clone(),
                public_key: peer.key,
                tunnel_address: peer.address,
                state: state.to_owned(),
                endpoint: tunnel.endpoint(),
                endpoints: entry.config.endpoints.iter().map(|endpoint| self.describe_endpoint(endpoint)).collect(),
                handshake_age_s: tunnel.established().map(|at| now.saturating_duration_since(at).as_secs()),
                rtt_ms: view.and_then(|view| view.round_trip).map(|rtt| rtt.as_secs_f64() * 1e3),
                path_mtu: view.map_or(MIN_PATH_MTU, |view| view.path_mtu),
                path_mtu_source: name_of_basis(view.map(|view| view.basis)).to_owned(),
                path: path.path,
                via: path.via,
                why: path.why,
                origin: match entry.origin {
                    PeerOrigin::File => "file",
                    PeerOrigin::Connected => "connect",
                    PeerOrigin::Member => "mesh",
                    PeerOrigin::Introducer => "token",
                    PeerOrigin::Stranger(_) => "stranger",
                }
                .to_owned(),
                alive: self.members.membership.member(&peer.key).map(|view| view.alive),
                weft: view.is_some_and(|view| view.greeting.is_some()),
                networks: self.networks_of(entry),
                tx_packets: get(&peer.flow.tx.frames),
                tx_bytes: get(&peer.flow.tx.bytes),
                rx_packets: get(&peer.flow.rx.frames),
                rx_bytes: get(&peer.flow.rx.bytes),
            }
        });
        peers.collect()
    }

    fn networks_of(&self, entry: &super::PeerEntry) -> Option<Vec<String>> {
        let named = |vni: &u32| {
            let known = self.config.networks.iter().find(|network| network.vni == *vni);
            known.map_or_else(|| format!("vni {vni}"), |network| network.name.clone())
        };
        let told = || Some(self.greeted_networks(entry.peer.id)?.iter().map(named).collect());
        entry.config.networks.clone().or_else(told)
    }

    fn describe_endpoint(&self, endpoint: &Endpoint) -> String {
        match endpoint {
            Endpoint::Address(_) | Endpoint::TcpAddress(_) => endpoint.to_string(),
            Endpoint::Name(name, port) | Endpoint::TcpName(name, port) => {
                match self.resolved.get(&(name.clone(), *port)) {
                    Some(addresses) if !addresses.is_empty() => {
                        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                        format!("{endpoint} ({})", addresses.join(", "))
                    }
                    _ => format!("{endpoint} (not resolved)"),
                }
            }
        }
    }

    /// One port, by name.
    pub(super) fn port_status(&self, name: &str) -> Option<PortStatus> {
        self.ports.get(name).map(|entry| self.describe_port(entry))
    }

    fn describe_port(&self, entry: &PortEntry) -> PortStatus {
        let (state, mac, flow) = match &entry.state {
            State::Up { port } => ("up".to_owned(), Some(port.mac), Some(&port.flow)),
            State::Waiting(reason) => (format!("waiting: {reason}"), entry.spec.mac, None),
        };
        let get =
            |pick: fn(&crate::switch::counters::Flow) -> &AtomicU64| flow.map_or(0, |flow| pick(flow).load(Relaxed));
        PortStatus {
            name: entry.spec.name.clone(),
            network: entry.spec.network.clone(),
            state,
            target: entry.spec.target.to_string(),
            ifname: entry.spec.ifname.clone(),
            mac,
            addresses: self.addresses_of(&entry.spec),
            names: self.names_of_port(entry),
            labels: entry.spec.labels.clone(),
            mtu: self.network(&entry.spec.network).map_or(0, |network| self.mtu_of(&entry.spec.name, network)),
            origin: match entry.origin {
                Origin::File => "file".to_owned(),
                Origin::Attach => "attach".to_owned(),
                Origin::Expose => "expose".to_owned(),
                Origin::Docker => "docker".to_owned(),
            },
            rx_frames: get(|flow| &flow.rx.frames),
            rx_bytes: get(|flow| &flow.rx.bytes),
            tx_frames: get(|flow| &flow.tx.frames),
            tx_bytes: get(|flow| &flow.tx.bytes),
            drops: get(|flow| &flow.rx.drops) + get(|flow| &flow.tx.drops),
        }
    }

    fn network_statuses(&self) -> Vec<NetworkStatus> {
        let networks = self.config.networks.iter().map(|network| NetworkStatus {
            name: network.name.clone(),
            vni: network.vni,
            subnets: network.subnets.iter().map(ToString::to_string).collect(),
            gateways: network.service_addresses(),
            domain: (network.naming.dns != Dns::Off).then(|| network.naming.zone.clone()),
            slices: self.slices_of(network),
            full: self.is_full(network),
            mtu: network.mtu,
            ageing_s: network.ageing.as_secs(),
            ports: self
                .ports
                .values()
                .filter(|e| e.spec.network == network.name)
                .map(|e| e.spec.name.clone())
                .collect(),
            peers: self.peers_of(network).map(|entry| entry.config.name.clone()).collect(),
            fdb_entries: self.switch.fdb.len_of(network.vni),
        });
        networks.collect()
    }

    fn fdb_entries(&self, now: Instant, network: Option<&str>) -> Response {
        if let Some(name) = network
            && self.network(name).is_none()
        {
            return Response::Refused(format!("there is no network '{name}': `weft networks` lists them"));
        }
        let entries = self.switch.fdb.snapshot(self.switch.seconds(now));
        let entries = entries.into_iter().filter_map(|entry| {
            let known = self.config.networks.iter().find(|network| network.vni == entry.vni)?;
            if network.is_some_and(|name| name != known.name) {
                return None;
            }
            Some(FdbEntry {
                network: known.name.clone(),
                mac: entry.mac,
                at: self.describe_place(entry.place),
                // Our own container's address is pinned here whether or not the mesh knows of it.
                kind: match (entry.kind, entry.place) {
                    (Kind::Dynamic, _) => "dynamic",
                    (Kind::Mesh, Place::Peer(_)) => "mesh",
                    (Kind::Mesh, Place::Port(_)) | (Kind::Static, _) => "static",
                }
                .to_owned(),
                age_s: (entry.kind == Kind::Dynamic).then_some(u64::from(entry.age)),
            })
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by(|a, b| (&a.network, a.mac).cmp(&(&b.network, b.mac)));
        Response::Fdb(entries)
    }

    fn describe_place(&self, place: Place) -> String {
        match place {
            Place::Port(id) => {
                let name = self.up_ports().find(|(_, port, _)| port.id == id).map(|(name, ..)| name.as_str());
                format!("port {}", name.unwrap_or("(gone)"))
            }
            Place::Peer(id) => {
                format!("peer {}", self.peers.get(&id).map_or("(gone)", |entry| entry.config.name.as_str()))
            }
        }
    }
}
