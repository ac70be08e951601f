//! Reload: apply the difference between two configurations, or refuse it whole.
//!
//! Everything that could be refused is looked at first; what is applied afterwards cannot fail. A peer or port that did
//! not change is not touched: its session, its interface and its FDB entries live on.

use super::peers::{PeerEntry, PeerOrigin};
use super::ports::{Origin, State};
use super::request::Response;
use super::{Control, Host};
use crate::config::diff::{Change, diff};
use crate::config::{self, Config, FdbLimits, check_identity, check_port};
use crate::switch::fdb::Limits;
use crate::wire::key::PublicKey;
use std::time::Instant;

/// The FDB's bounds as the switch has them.
pub fn limits(limits: FdbLimits) -> Limits {
    Limits { max_entries: limits.max_entries, max_per_port: limits.max_per_port, max_per_peer: limits.max_per_peer }
}

impl<H: Host> Control<H> {
    /// `weft reload` and SIGHUP.
    pub fn reload(&mut self, now: Instant) -> Response {
        let next = match self.host.load_config() {
            Ok(next) => next,
            Err(problems) => return self.refuse(&problems),
        };
        let changes = match diff(&self.config, &next) {
            Ok(changes) => changes,
            Err(keys) => {
                let keys = keys.join(", ");
                return self.refuse(&format!("a reload cannot change {keys}: restart the daemon for that"));
            }
        };
        let fits = check_identity(&next, &self.identity.key).and_then(|()| self.check_attached(&next));
        if let Err(reason) = fits {
            return self.refuse(&reason);
        }
        if changes.is_empty() {
            return Response::Done(vec!["nothing changed".to_owned()]);
        }
        let told = changes.iter().map(describe).collect();
        self.apply(now, next, &changes);
        for change in &changes {
            tracing::info!("reload: {}", describe(change));
        }
        Response::Done(told)
    }

    fn refuse(&self, reason: &str) -> Response {
        tracing::warn!("reload refused, running on as before: {reason}");
        Response::Refused(format!("reload refused, running on as before: {reason}"))
    }

    /// Ports that `weft attach` or Docker made must still fit.
    fn check_attached(&self, next: &Config) -> Result<(), String> {
        let attached = || self.ports.values().filter(|entry| entry.origin != Origin::File);
        for entry in attached() {
            let spec = &entry.spec;
            let here = self.network(&spec.network).map(|network| network.vni);
            let Some(network) = next.networks.iter().find(|n| n.name == spec.network && Some(n.vni) == here) else {
                let remedy = match entry.origin {
                    Origin::Expose => "hide it",
                    Origin::Docker => "disconnect its container by Docker",
                    _ => "detach it",
                };
                let others = attached().filter(|other| other.spec.network == spec.network).count() - 1;
                let others = if others == 0 { String::new() } else { format!(" and {others} more") };
                return Err(format!(
                    "network {} still has the attached port {}{others}: {remedy} first, or leave the network as it is",
                    spec.network, spec.name
                ));
            };
            // Also the addresses that it was given.
            let has = config::Port { addresses: self.addresses_of(spec), ..spec.clone() };
            check_port(&has, network, &next.ports)
                .map_err(|reason| format!("attached port {}: {reason}", spec.name))?;
        }
        Ok(())
    }

    fn apply(&mut self, now: Instant, next: Config, changes: &[Change]) {
        let old = std::mem::replace(&mut self.config, next);
        self.renew_policies();
        self.switch.fdb.set_limits(limits(self.config.fdb));
        // First, while the names in the old file still mean the peers and ports that they meant.
        self.forget_static_entries(&old);
        self.apply_peers(now, &old);
        self.apply_ports(now, changes);
        self.renew_policies();
        self.apply_networks(now);
        // Last, when the workers no longer meet what is gone and cannot learn it anew.
        for network in &old.networks {
            if !self.config.networks.iter().any(|kept| kept.vni == network.vni) {
                self.switch.fdb.forget_network(network.vni);
                self.switch.neighbours.forget_network(network.vni);
                self.switch.groups.set(network.vni, None);
            }
        }
        self.apply_mtus(&old);
        if changes.iter().any(|change| matches!(change, Change::LogLevel(_))) {
            self.host.set_log_level(self.config.node.log);
        }
        self.seek();
        self.resolve();
        self.tell_facts(now);
        self.call_all(now);
        self.run_mesh(now);
    }

    fn apply_peers(&mut self, now: Instant, old: &Config) {
        for peer in &old.peers {
            if !self.config.peers.iter().any(|kept| kept.public_key == peer.public_key)
                && let Some(id) = self.id_of(&peer.public_key)
            {
                self.remove_peer(now, id);
            }
        }
        // The file goes before what members say: one that has a tunnel address of the file's makes room, and that is told.
        for peer in self.config.peers.clone() {
            if let Err(reason) = self.admits(&peer) {
                self.warn(reason);
            }
        }
        let has_address = |key: &PublicKey, address| {
            self.config.peers.iter().any(|peer| peer.public_key != *key && peer.tunnel_address == address)
        };
        let is_file = |entry: &PeerEntry| self.config.peers.iter().any(|peer| peer.public_key == entry.peer.key);
        let in_the_way = |entry: &&PeerEntry| !is_file(entry) && has_address(&entry.peer.key, entry.peer.address);
        let in_the_way: Vec<_> = self.peers.values().filter(in_the_way).map(|entry| entry.peer.id).collect();
        in_the_way.into_iter().for_each(|id| self.remove_peer(now, id));
        for peer in self.config.peers.clone() {
            self.set_peer(now, &peer, PeerOrigin::File);
        }
        // Whom the file no longer names may be a peer for another reason; that it was named is none.
        self.judge_again(now);
        self.recall(now);
    }

    fn apply_ports(&mut self, now: Instant, changes: &[Change]) {
        for change in changes {
            match change {
                Change::PortRemoved(port) => {
                    self.remove_port(now, &port.name);
                    self.forget_holder(&port.name);
                }
                Change::PortAdded(port) => self.want(port.clone(), Origin::File),
                Change::PortChanged { new, .. } => {
                    self.remove_port(now, &new.name);
                    self.want(new.clone(), Origin::File);
                }
                _ => {}
            }
        }
    }

    /// Static entries that the file no longer has; those it still has are put in again with the networks.
    fn forget_static_entries(&self, old: &Config) {
        for network in &old.networks {
            for entry in &network.static_entries {
                if let Some(place) = self.place_of(&entry.at) {
                    self.switch.fdb.remove_static(network.vni, entry.mac, place);
                }
            }
        }
        // A container's own address may have been one of them.
        self.place_all_stations();
    }

    fn apply_mtus(&mut self, old: &Config) {
        let ids = self.ports.values().filter_map(|entry| match &entry.state {
            State::Up { port } => Some((entry.spec.name.clone(), port.id, port.vni)),
            State::Waiting(_) => None,
        });
        for (name, id, vni) in ids.collect::<Vec<_>>() {
            let mtu = |config: &Config| config.networks.iter().find(|n| n.vni == vni).map(|n| self.mtu_of(&name, n));
            if let (before, Some(after)) = (mtu(old), mtu(&self.config))
                && before != Some(after)
                && let Err(reason) = self.host.set_port_mtu(id, after)
            {
                tracing::warn!("port {name} keeps its MTU: {reason}");
            }
        }
    }
}

/// One change, in words.
fn describe(change: &Change) -> String {
    match change {
        Change::LogLevel(_) => "log level changed".to_owned(),
        Change::Resolvers => "resolvers changed".to_owned(),
        Change::FdbLimits(_) => "FDB limits changed".to_owned(),
        Change::Trust(_) => "trust changed".to_owned(),
        Change::Allows => "rules of networks changed".to_owned(),
        Change::PortRemoved(port) => format!("port {} removed", port.name),
        Change::PortAdded(port) => format!("port {} added", port.name),
        Change::PortChanged { new, .. } => format!("port {} changed", new.name),
        Change::PeerRemoved(peer) => format!("peer {} removed", peer.name),
        Change::PeerAdded(peer) => format!("peer {} added", peer.name),
        Change::PeerChanged { new, .. } => format!("peer {} changed", new.name),
        Change::NetworkRemoved(network) => format!("network {} removed", network.name),
        Change::NetworkAdded(network) => format!("network {} added", network.name),
        Change::NetworkChanged { new, .. } => format!("network {} changed", new.name),
    }
}
