//! A machine of a test's own.

use super::super::*;
use crate::control::request::{Attach, PublicationStatus, Unpublish};
use std::collections::BTreeMap;

/// A machine with one network, `blue`, and whatever a test puts into it.
#[derive(Default)]
pub(super) struct Fake {
    /// The daemon's ports.
    pub(super) ports: BTreeMap<String, PortStatus>,
    /// Whether a daemon runs.
    pub(super) down: bool,
    /// What it refuses, by the beginning of the request's JSON.
    pub(super) refuses: Option<&'static str>,
    /// What the IPAM plugin answers to each command; it is content where nothing stands.
    pub(super) plugin: BTreeMap<&'static str, Delegated>,
    /// What is exposed and published.
    pub(super) outside: Outside,
    /// The container's interface, before anything is made.
    pub(super) seen: Option<Seen>,
    /// Why its namespace cannot be entered.
    pub(super) no_sandbox: Option<NoSandbox>,
    /// Whether the network has no address left.
    pub(super) full: bool,
    /// Whether the kernel refuses routes.
    pub(super) no_routes: bool,
    /// Requests, plugins and routes, in their order.
    pub(super) log: Vec<String>,
    /// The socket that was asked.
    pub(super) socket: Option<std::path::PathBuf>,
}

impl Fake {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn network(&self) -> NetworkStatus {
        serde_json::from_value(json!({
            "name": "blue", "vni": 7, "subnets": ["10.32.0.0/16", "fd00:32::/64"], "gateways": ["10.32.0.1/16", "fd00:32::1/64"], "domain": "blue.weft",
            "full": self.full, "mtu": 1400, "ageing_s": 300, "ports": [], "peers": [], "fdb_entries": 0
        }))
        .unwrap()
    }

    fn attach(&mut self, attach: &Attach) -> PortStatus {
        let mut addresses = attach.addresses.clone();
        if attach.auto {
            addresses.extend(
                ["10.32.7.9/16", "fd00:32::9/64"].map(|cidr| cidr.parse::<crate::config::PortAddress>().unwrap()),
            );
        }
        let port: PortStatus = serde_json::from_value(json!({
            "name": attach.name, "network": attach.network, "state": "up", "target": attach.target, "ifname": attach.ifname,
            "mac": attach.mac.map_or_else(|| "02:00:00:00:00:99".to_owned(), |mac| mac.to_string()), "addresses": addresses,
            "labels": attach.labels, "mtu": 1400, "origin": "attach",
            "rx_frames": 0, "rx_bytes": 0, "tx_frames": 0, "tx_bytes": 0, "drops": 0
        }))
        .unwrap();
        self.ports.insert(port.name.clone(), port.clone());
        port
    }

    /// What was done, without what was only looked at.
    pub(super) fn changes(&self) -> Vec<&str> {
        let looks = [
            "{\"request\":\"ports\"",
            "{\"request\":\"networks\"",
            "{\"request\":\"leases\"",
            "{\"request\":\"published\"",
        ];
        let changes = self.log.iter().map(String::as_str);
        changes.filter(|line| !looks.iter().any(|look| line.starts_with(look))).collect()
    }
}

impl World for Fake {
    fn ask(&mut self, socket: Option<&Path>, request: &Request) -> Result<Response, String> {
        self.socket = socket.map(Path::to_owned);
        if self.down {
            return Err("no weft daemon answers".to_owned());
        }
        let text = serde_json::to_string(request).unwrap();
        self.log.push(text.clone());
        if self.refuses.is_some_and(|part| text.contains(part)) {
            return Ok(Response::Refused("no, because".to_owned()));
        }
        Ok(match request {
            Request::Ports => Response::Ports(self.ports.values().cloned().collect()),
            Request::Networks => Response::Networks(vec![self.network()]),
            Request::Attach(attach) => Response::Attached(Box::new(self.attach(attach))),
            Request::Published => Response::Published(self.outside.clone()),
            Request::Publish(publish) => {
                self.outside.published.push(PublicationStatus { publish: publish.clone(), instances: Vec::new() });
                Response::Done(vec!["published".to_owned()])
            }
            Request::Unpublish(Unpublish::Holder(holder)) => {
                self.outside.published.retain(|one| one.publish.holder.as_ref() != Some(holder));
                Response::Done(vec!["unpublished".to_owned()])
            }
            Request::Detach(detach) => match self.ports.remove(&detach.port) {
                Some(_) => Response::Done(vec!["detached".to_owned()]),
                None => Response::Refused("no such port".to_owned()),
            },
            other => panic!("{other:?}"),
        })
    }

    fn delegate(&mut self, plugin: &str, command: Command) -> Result<Delegated, String> {
        self.log.push(format!("{plugin} {}", command.name()));
        if plugin == "absent" {
            return Err("there is no IPAM plugin absent".to_owned());
        }
        Ok(self
            .plugin
            .get(command.name())
            .cloned()
            .unwrap_or_else(|| Delegated { done: true, ..Delegated::default() }))
    }

    fn look(&mut self, _: &Path, _: &str) -> Result<Option<Seen>, NoSandbox> {
        self.no_sandbox.clone().map_or_else(|| Ok(self.seen.clone()), Err)
    }

    fn add_routes(&mut self, _: &Path, ifname: &str, routes: &[(Cidr, IpAddr)]) -> Result<(), String> {
        let routes: Vec<String> = routes.iter().map(|(to, gateway)| format!("{to} via {gateway}")).collect();
        self.log.push(format!("{ifname}: {}", routes.join(", ")));
        if self.no_routes { Err("cannot add the route".to_owned()) } else { Ok(()) }
    }
}
