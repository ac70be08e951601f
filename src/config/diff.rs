//! What a reload has to change: the difference of two configurations, or the keys of it that need a restart.
//!
//! Things keep their identity by what the mesh or the machine knows them by: a network by its VNI, a peer by its
//! public key, a port by its name. The names inside the file are looked through: a port whose network has got another
//! VNI under the same name has changed.
//!
//! The list is in an order in which it can be applied: what goes away first (ports before the networks they are in),
//! then networks, peers and ports, each after what it refers to.

use super::{Config, FdbLimits, LogLevel, Network, Peer, Port, StaticPlace, Trust};
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;

/// One step from a configuration to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `node.log`.
    LogLevel(LogLevel),
    /// `node.resolvers`.
    Resolvers,
    /// `[fdb]`.
    FdbLimits(FdbLimits),
    /// `[trust]`: the authorities or the names.
    Trust(Trust),
    /// `[[allow]]`.
    Allows,
    /// A port of the file goes.
    PortRemoved(Port),
    /// A peer goes.
    PeerRemoved(Peer),
    /// A network goes.
    NetworkRemoved(Network),
    /// A network comes.
    NetworkAdded(Network),
    /// A network of the same VNI is different: its name, subnets, MTU, ageing time or static entries.
    NetworkChanged {
        /// As it was.
        old: Network,
        /// As it will be.
        new: Network,
    },
    /// A peer comes.
    PeerAdded(Peer),
    /// A peer of the same public key is different.
    PeerChanged {
        /// As it was.
        old: Box<Peer>,
        /// As it will be.
        new: Box<Peer>,
    },
    /// A port comes.
    PortAdded(Port),
    /// A port of the same name is different.
    PortChanged {
        /// As it was.
        old: Port,
        /// As it will be.
        new: Port,
    },
}

/// The steps from `old` to `new`; none when they are equal.
///
/// # Errors
/// The paths of all keys that differ and that only a restart applies.
pub fn diff(old: &Config, new: &Config) -> Result<Vec<Change>, Vec<String>> {
    let restart = restart_needed(old, new);
    if !restart.is_empty() {
        return Err(restart);
    }
    let network =
        Items::compare(&old.networks, &new.networks, |n| n.vni, |a, b| a == b && pins(old, a) == pins(new, b));
    let peer =
        Items::compare(&old.peers, &new.peers, |p| p.public_key, |a, b| a == b && vnis(old, a) == vnis(new, b));
    let same_port = |a: &Port, b: &Port| a == b && vni(old, &a.network) == vni(new, &b.network);
    let port = Items::compare(&old.ports, &new.ports, |port| port.name.clone(), same_port);

    let mut changes = Vec::new();
    if old.node.log != new.node.log {
        changes.push(Change::LogLevel(new.node.log));
    }
    if old.node.resolvers != new.node.resolvers {
        changes.push(Change::Resolvers);
    }
    if old.fdb != new.fdb {
        changes.push(Change::FdbLimits(new.fdb));
    }
    if old.trust != new.trust {
        changes.push(Change::Trust(new.trust.clone()));
    }
    if old.allows != new.allows {
        changes.push(Change::Allows);
    }
    changes.extend(port.removed.into_iter().map(Change::PortRemoved));
    changes.extend(peer.removed.into_iter().map(Change::PeerRemoved));
    changes.extend(network.removed.into_iter().map(Change::NetworkRemoved));
    changes.extend(network.changed.into_iter().map(|(old, new)| Change::NetworkChanged { old, new }));
    changes.extend(network.added.into_iter().map(Change::NetworkAdded));
    let boxed = |(old, new)| Change::PeerChanged { old: Box::new(old), new: Box::new(new) };
    changes.extend(peer.changed.into_iter().map(boxed));
    changes.extend(peer.added.into_iter().map(Change::PeerAdded));
    changes.extend(port.changed.into_iter().map(|(old, new)| Change::PortChanged { old, new }));
    changes.extend(port.added.into_iter().map(Change::PortAdded));
    Ok(changes)
}

/// The paths of keys that differ and that only a restart applies.
fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let (a, b) = (&old.node, &new.node);
    let (x, y) = (&old.offload, &new.offload);
    [
        ("node.name", a.name != b.name),
        ("node.key_file", a.key_file != b.key_file),
        ("node.listen_port", a.listen_port != b.listen_port),
        ("node.state_dir", a.state_dir != b.state_dir),
        ("node.control_socket", a.control_socket != b.control_socket),
        ("node.tunnel_address", a.tunnel_address != b.tunnel_address),
        ("node.workers", a.workers != b.workers),
        ("node.container_sockets", a.container_sockets != b.container_sockets),
        ("node.advertise", a.advertise != b.advertise),
        ("node.relay", a.relay != b.relay),
        ("node.tcp", a.tcp != b.tcp),
        ("node.tcp_ports", a.tcp_ports != b.tcp_ports),
        ("node.discovery", a.discovery != b.discovery),
        ("node.lan_discovery", a.lan_discovery != b.lan_discovery),
        ("trust.authority_key_file", old.trust.authority_key_file != new.trust.authority_key_file),
        ("trust.certificate_file", old.trust.certificate_file != new.trust.certificate_file),
        ("docker.enabled", old.docker.enabled != new.docker.enabled),
        ("docker.socket", old.docker.socket != new.docker.socket),
        ("docker.engine", old.docker.engine != new.docker.engine),
        ("offload.tap_checksum", x.tap_checksum != y.tap_checksum),
        ("offload.tap_tso", x.tap_tso != y.tap_tso),
        ("offload.tap_uso", x.tap_uso != y.tap_uso),
        ("offload.merge", x.merge != y.merge),
        ("offload.udp_segment", x.udp_segment != y.udp_segment),
        ("offload.udp_gro", x.udp_gro != y.udp_gro),
        ("offload.avx512", x.avx512 != y.avx512),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(path, _)| path.to_owned())
    .collect()
}

/// What became of the items of one kind.
struct Items<T> {
    removed: Vec<T>,
    changed: Vec<(T, T)>,
    added: Vec<T>,
}

impl<T: Clone> Items<T> {
    fn compare<K: Ord>(old: &[T], new: &[T], id: impl Fn(&T) -> K, same: impl Fn(&T, &T) -> bool) -> Self {
        let by_id = |items: &'_ [T]| -> std::collections::BTreeMap<K, T> {
            items.iter().map(|item| (id(item), item.clone())).collect()
        };
        let (before, after) = (by_id(old), by_id(new));
        let mut items = Self { removed: Vec::new(), changed: Vec::new(), added: Vec::new() };
        for item in old {
            match after.get(&id(item)) {
                None => items.removed.push(item.clone()),
                Some(other) if !same(item, other) => items.changed.push((item.clone(), other.clone())),
                Some(_) => {}
            }
        }
        items.added.extend(new.iter().filter(|item| !before.contains_key(&id(item))).cloned());
        items
    }
}

fn vni(config: &Config, network: &str) -> Option<u32> {
    config.networks.iter().find(|other| other.name == network).map(|network| network.vni)
}

/// The VNIs a peer has, for its networks' names.
fn vnis(config: &Config, peer: &Peer) -> Vec<Option<u32>> {
    peer.networks.iter().flatten().map(|name| vni(config, name)).collect()
}

/// A network's static entries that point to peers, with the peers' keys for their names.
fn pins(config: &Config, network: &Network) -> Vec<(Mac, Option<PublicKey>)> {
    let key = |name: &String| config.peers.iter().find(|peer| peer.name == *name).map(|peer| peer.public_key);
    let pin = |mac, place: &StaticPlace| match place {
        StaticPlace::Peer(name) => Some((mac, key(name))),
        StaticPlace::Port(_) => None,
    };
    network.static_entries.iter().filter_map(|entry| pin(entry.mac, &entry.at)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::keys;
    use crate::config::parse::{Defaults, parse};

    const BETA: &str = "name = 'beta'\npublic_key = 'S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU='\n";
    const NETWORKS: &str = "[[network]]\nname = 'blue'\nvni = 100\n[[network]]\nname = 'red'\nvni = 200\n";
    const WEB: &str = "name = 'web'\nnetwork = 'blue'\ntarget = 'web'\n";

    fn config(text: &str) -> Config {
        let defaults = Defaults { hostname: "thishost".into() };
        let psk = |_: &std::path::Path| Ok("FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=".to_owned());
        parse("weft.toml", text, &defaults, &psk).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
    }

    /// A file, and the same with one key added or changed.
    fn with_and_without(table: &keys::Table, key: &keys::Key) -> (String, String) {
        let base = |network: &str, peer: &str, port: &str, rest: &str| {
            format!("{NETWORKS}{network}\n[[peer]]\n{BETA}{peer}\n[[port]]\n{WEB}{port}\n{rest}")
        };
        let line = format!("{} = {}\n", key.name, key.example);
        let replaced = |text: &str, from: &str, to: &str| text.replace(from, to);
        let plain = base("", "", "", "");
        let changed = match (table.name, key.name) {
            ("network", "name") => replaced(&plain, "'red'", "'green'"),
            ("network", "vni") => replaced(&plain, "vni = 200", "vni = 201"),
            ("network", "gateway") => {
                let subnets = "subnets = ['10.32.0.0/16', 'fd00:32::/64']\n";
                return (base(subnets, "", "", ""), base(&format!("{subnets}{line}"), "", "", ""));
            }
            ("network", _) => base(&line, "", "", ""),
            ("network.static", name) => {
                let pin = |mac: &str, at: &str| base(&format!("static = [{{ mac = '{mac}', {at} }}]"), "", "", "");
                let port =
                    |target: &str| replaced(&pin("02:00:00:00:00:01", target), "'blue'\ntarget", "'red'\ntarget");
                return match name {
                    "mac" => (pin("02:00:00:00:00:01", "peer = 'beta'"), pin("02:00:00:00:00:02", "peer = 'beta'")),
                    "peer" => (port("port = 'web'"), port("peer = 'beta'")),
                    _ => (port("peer = 'beta'"), port("port = 'web'")),
                };
            }
            ("peer", "name") => replaced(&plain, "'beta'", "'gamma'"),
            ("peer", "public_key") => replaced(&plain, "S3Lq", "T3Lq"),
            ("peer", _) => base("", &line, "", ""),
            ("port", "name") => replaced(&plain, "name = 'web'", "name = 'web2'"),
            ("port", "network") => replaced(&plain, "network = 'blue'", "network = 'red'"),
            ("port", "target") => replaced(&plain, "target = 'web'", "target = 'host'"),
            ("port", _) => base("", "", &line, ""),
            ("allow", name) => {
                let allow = "[[allow]]\nnetwork = 'red'\nfrom = 'any'\nto = 'any'\n";
                let replaced = match name {
                    "network" => allow.replace("'red'", key.example),
                    "ports" => format!("{allow}{line}"),
                    _ => replaced(allow, &format!("{name} = 'any'"), &line),
                };
                return (base("", "", "", allow), base("", "", "", &replaced));
            }
            (table, _) => base("", "", "", &format!("[{table}]\n{line}")),
        };
        (plain, changed)
    }

    #[test]
    fn every_live_key_gives_a_change_and_every_other_a_refusal_that_names_it() {
        for table in keys::TABLES {
            for key in table.keys {
                let path = format!("{}.{}", table.name, key.name);
                let (old, new) = with_and_without(table, key);
                let (old, new) = (config(&old), config(&new));
                assert_ne!(old, new, "{path} must make a difference");
                match diff(&old, &new) {
                    Ok(changes) => assert!(key.live && !changes.is_empty(), "{path}: {changes:?}"),
                    Err(keys) => assert!(!key.live && keys.contains(&path), "{path}: {keys:?}"),
                }
                assert_eq!(diff(&new, &new), Ok(Vec::new()));
            }
        }
    }

    #[test]
    fn a_changed_key_is_another_peer() {
        let old = config(&format!("[[peer]]\n{BETA}"));
        let new = config(&format!("[[peer]]\n{}", BETA.replace("S3Lq", "T3Lq")));
        let (gone, come) = (old.peers[0].clone(), new.peers[0].clone());
        assert_eq!(diff(&old, &new), Ok(vec![Change::PeerRemoved(gone), Change::PeerAdded(come)]));
    }

    #[test]
    fn what_refers_to_a_name_changes_with_what_the_name_means() {
        let text = format!(
            "{NETWORKS}static = [{{ mac = '02:00:00:00:00:01', peer = 'beta' }}]\n[[port]]\n{WEB}[[peer]]\n{BETA}"
        );
        let text = format!("{text}networks = ['red', 'blue']\n");
        let old = config(&text);
        let swapped = config(&text.replace("vni = 100", "vni = 300"));
        let changes = diff(&old, &swapped).unwrap();
        assert!(matches!(
            changes.as_slice(),
            [
                Change::NetworkRemoved(_),
                Change::NetworkAdded(_),
                Change::PeerChanged { .. },
                Change::PortChanged { .. }
            ]
        ));
        let other_key = config(&text.replace("S3Lq", "T3Lq"));
        let changes = diff(&old, &other_key).unwrap();
        assert!(changes.iter().any(|change| matches!(change, Change::NetworkChanged { .. })), "{changes:?}");
    }

    #[test]
    fn ports_go_before_their_networks_and_come_after_them() {
        let old = config(&format!("{NETWORKS}[[port]]\n{WEB}"));
        let none = config("");
        let kinds = |changes: &[Change]| {
            changes.iter().map(|c| matches!(c, Change::PortRemoved(_) | Change::PortAdded(_))).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&diff(&old, &none).unwrap()), [true, false, false]);
        assert_eq!(kinds(&diff(&none, &old).unwrap()), [false, false, true]);
    }
}
