//! The control plane without a machine: ports are entries of a map, namespaces are numbers, time is what the test says.
//! What is asked for and what is refused, who waits for what, what a reload touches, and what a restart takes over.

#![allow(clippy::unwrap_used)]

mod adopting;
mod announcing;
mod connecting;
mod docker;
mod members;
mod names;
mod policy;

use super::contacts::Contact;
use super::exposures;
use super::names::AddedName;
use super::nat::{HostPort, Rules};
use super::ports::{Missing, Origin};

use super::docker::Whereabouts;
use super::reload::limits;
use super::request::{Attach, Detach, FdbEntry, PeerStatus, PortStatus, Request, Response};
use super::{Control, Host, Identity, Lookup, MachineReport, NewPort};
use crate::config::parse::{Defaults, parse};
use crate::config::{Config, LogLevel, PortAddress, Target};
use crate::docker::record::Record as DockerRecord;
use crate::ipam::{Claim, Lease};
use crate::switch::ids::{Place, PortId};
use crate::switch::topology::{Port, Topology};
use crate::switch::{Egress, Event, Switch};
use crate::trust::Authority;
use crate::trust::record::Record;
use crate::trust::sign::Signer;
use crate::tunnel::Engine;
use crate::tunnel::{Gate, GateSettings};
use crate::wire::announce;
use crate::wire::ethernet::Mac;
use crate::wire::key::{PublicKey, Secret};
use crate::wire::vnet::{self, VnetHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod addresses;
mod fake;

use fake::{Fake, Sink};
mod outside;
mod reload;
mod standing;
mod trust;

const BETA: &str = "S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=";
const FILE: &str = r#"
[[network]]
name = "blue"
vni = 100
subnets = ["10.32.0.0/16"]
[[network]]
name = "red"
vni = 200
[[port]]
name = "web"
network = "blue"
target = "web"
ip = ["10.32.0.5/16"]
"#;

fn config(text: &str) -> Config {
    let none = |_: &std::path::Path| Err("there is none".to_owned());
    parse("weft.toml", text, &Defaults { hostname: "alpha".into() }, &none).unwrap_or_else(|error| panic!("{error}"))
}

/// A control plane and its clock.
struct Plane {
    control: Control<Fake>,
    switch: Arc<Switch>,
    now: Instant,
}

impl Plane {
    fn new(text: &str) -> Self {
        Self::with_records(text, BTreeMap::new())
    }

    fn with_records(text: &str, host_records: BTreeMap<String, exposures::Record>) -> Self {
        let now = Instant::now();
        let config = config(text);
        let private = Secret::private([7; 32]);
        let identity = Identity { key: private.public_key(), address: private.public_key().tunnel_address() };
        let topology = Topology::new(identity.address, Vec::new(), &[]);
        let (engine, random) = (Engine::Ring, |bytes: &mut [u8]| bytes.fill(1));
        let gate = GateSettings { engine, random, now, unix_time: Duration::ZERO };
        let switch = Arc::new(Switch::new(Gate::new(&private, gate), topology, limits(config.fdb), 1, now));
        let host = Fake {
            file: Ok(config.clone()),
            ports: BTreeMap::new(),
            dead: BTreeSet::new(),
            refusal: None,
            sought: Vec::new(),
            lookups: Vec::new(),
            log: None,
            random: 0,
            contacts: BTreeMap::new(),
            unix: Duration::from_secs(1_795_219_200),
            trust: Some(BTreeMap::new()),
            leases: Some(BTreeMap::new()),
            claims: BTreeSet::new(),
            claim_changes: 0,
            authorities: Vec::new(),
            docker: BTreeMap::new(),
            remembered: BTreeSet::new(),
            host_records,
            rules: Rules::default(),
            obstacles: Vec::new(),
            busy: BTreeSet::new(),
            held: BTreeSet::new(),
            probed: Vec::new(),
            unmendable: None,
            names: BTreeMap::new(),
            out: Sink::default(),
        };
        let control =
            Control::new(host, config, Signer::new(&private), identity.address, switch.clone(), Arc::default(), now);
        Self { control, switch, now }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += super::TICK;
            self.control.tick(self.now);
        }
    }

    fn reload(&mut self, text: &str) -> Result<Vec<String>, String> {
        self.control.host.file = Ok(config(text));
        self.reload_file()
    }

    fn reload_file(&mut self) -> Result<Vec<String>, String> {
        match self.control.reload(self.now) {
            Response::Done(told) => Ok(told),
            Response::Refused(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn attach(&mut self, place: u32, change: impl FnOnce(&mut Attach)) -> Result<PortStatus, String> {
        let mut attach = Attach::new(Target::Pid(place as i32), "blue");
        change(&mut attach);
        match self.control.attach(self.now, &attach, &place) {
            Response::Attached(port) => Ok(*port),
            Response::Refused(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn detach(&mut self, port: &str) -> Response {
        self.control.detach(self.now, &Detach { port: port.to_owned(), ifname: None })
    }

    fn found(&mut self, name: &str, place: Result<u32, &str>) {
        let missing = |reason: &str| Missing { reason: reason.to_owned(), removed: reason.contains("removed") };
        self.control.located(self.now, name, place.map_err(missing));
    }

    fn port(&self, name: &str) -> Option<PortStatus> {
        let Some(Response::Ports(ports)) = self.control.show(self.now, &Request::Ports) else { panic!() };
        ports.into_iter().find(|port| port.name == name)
    }

    fn state(&self, name: &str) -> String {
        self.port(name).map_or_else(|| "gone".to_owned(), |port| port.state)
    }

    fn fdb(&self) -> Vec<FdbEntry> {
        let Some(Response::Fdb(fdb)) = self.control.show(self.now, &Request::Fdb { network: None }) else { panic!() };
        fdb
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let Some(Response::Peers(peers)) = self.control.show(self.now, &Request::Peers) else { panic!() };
        peers
    }

    fn id(&self, name: &str) -> PortId {
        *self.control.host.ports.iter().find(|(_, (have, ..))| have == name).unwrap().0
    }

    /// The ports that the data plane has in a network.
    fn published(&self, vni: u32) -> Vec<PortId> {
        self.switch
            .topology()
            .network(vni)
            .map_or_else(Vec::new, |network| network.ports.iter().map(|p| p.id).collect())
    }

    fn sought(&self) -> Vec<&str> {
        self.control.host.sought.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

#[test]
fn an_attached_port_is_everywhere_until_it_is_detached_and_then_nowhere() {
    let mut plane = Plane::new(FILE);
    let port = plane.attach(7, |attach| attach.addresses = vec!["10.32.0.9/16".parse().unwrap()]).unwrap();
    assert_eq!((port.name.as_str(), port.ifname.as_str(), port.state.as_str()), ("pid:7:eth1", "eth1", "up"));
    let id = plane.id("pid:7:eth1");
    assert_eq!(plane.published(100), [id]);
    assert_eq!(plane.control.host.ports[&id], ("pid:7:eth1".to_owned(), 7, 1500));
    let entry = plane.fdb().into_iter().find(|entry| Some(entry.mac) == port.mac).unwrap();
    assert_eq!((entry.at.as_str(), entry.kind.as_str()), ("port pid:7:eth1", "static"));

    assert!(matches!(plane.detach("pid:7"), Response::Done(_)));
    assert!(plane.published(100).is_empty() && plane.fdb().is_empty() && plane.control.host.ports.is_empty());
    assert!(matches!(plane.detach("pid:7"), Response::Refused(_)));
}

#[test]
fn a_port_that_the_machine_refuses_is_nowhere() {
    let mut plane = Plane::new(FILE);
    plane.control.host.refusal = Some("interface eth1 already exists".to_owned());
    assert_eq!(plane.attach(7, |_| ()).unwrap_err(), "interface eth1 already exists");
    assert!(plane.port("pid:7:eth1").is_none() && plane.published(100).is_empty() && plane.fdb().is_empty());
    plane.control.host.refusal = None;
    plane.attach(7, |_| ()).unwrap();
}

#[test]
fn what_cannot_be_beside_the_ports_there_are_does_not_reach_the_machine() {
    let mut plane = Plane::new(FILE);
    let first = plane.attach(7, |_| ()).unwrap();
    plane.control.host.refusal = Some("the machine was asked".to_owned());
    let refused = |plane: &mut Plane, change: &dyn Fn(&mut Attach)| plane.attach(8, change).unwrap_err();
    for (part, change) in [
        (
            "no network 'green' here; this member has: blue, red",
            &(|a: &mut Attach| a.network = "green".into()) as &dyn Fn(&mut Attach),
        ),
        ("eth1 of pid:7 already", &|a| (a.target, a.name) = (Target::Pid(7), Some("x".into()))),
        ("there is a port 'web' already", &|a| a.name = Some("web".into())),
        ("port 'web' in network 'blue' has 10.32.0.5", &|a| a.addresses = vec!["10.32.0.5/16".parse().unwrap()]),
        ("outside network 'blue'", &|a| a.addresses = vec!["10.33.0.5/16".parse().unwrap()]),
        ("already port pid:7:eth1's", &|a| a.mac = first.mac),
        ("at most 16 names", &|a| a.names = (0..17).map(|n| format!("n{n}")).collect()),
    ] {
        let said = refused(&mut plane, change);
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    // One MAC address may be in two networks: they are two Ethernets.
    plane.control.host.refusal = None;
    plane.attach(8, |attach| (attach.mac, attach.network) = (first.mac, "red".into())).unwrap();
}

#[test]
fn a_port_of_the_file_waits_for_its_target_each_time_it_goes() {
    let mut plane = Plane::new(FILE);
    assert_eq!(
        (plane.state("web").as_str(), plane.sought()),
        ("waiting: its target has not been found yet", vec!["web"])
    );
    plane.found("web", Err("there is no container 'web'"));
    assert_eq!(plane.state("web"), "waiting: there is no container 'web'");
    plane.control.host.refusal = Some("interface eth1 already exists".to_owned());
    plane.found("web", Ok(1));
    assert_eq!(plane.state("web"), "waiting: interface eth1 already exists");
    plane.control.host.refusal = None;
    plane.found("web", Ok(1));
    assert_eq!((plane.state("web").as_str(), plane.sought().len()), ("up", 0));
    // News that was on its way already.
    let id = plane.id("web");
    plane.found("web", Ok(2));
    plane.found("web", Err("gone"));
    plane.found("unheard of", Ok(3));
    assert_eq!((plane.state("web").as_str(), plane.id("web")), ("up", id));
    assert!(matches!(plane.detach("web"), Response::Refused(reason) if reason.contains("weft reload")));

    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(2));
    assert!(plane.state("web").starts_with("waiting") && plane.control.host.ports.is_empty());
    assert_eq!((plane.sought(), plane.published(100), plane.fdb()), (vec!["web"], vec![], vec![]));
    plane.found("web", Ok(1));
    assert_eq!(plane.state("web"), "up");
}

#[test]
fn an_attached_port_goes_with_its_namespace_and_a_failed_read_alone_is_no_death() {
    let mut plane = Plane::new(FILE);
    plane.attach(7, |_| ()).unwrap();
    let id = plane.id("pid:7:eth1");
    plane.control.port_failed(plane.now, id);
    assert_eq!(plane.state("pid:7:eth1"), "up");
    plane.control.host.dead.insert(id);
    plane.control.port_failed(plane.now, id);
    assert_eq!((plane.state("pid:7:eth1").as_str(), plane.sought()), ("gone", vec!["web"]));
    plane.control.port_failed(plane.now, id);
    plane.control.port_failed(plane.now, PortId(99));
}

#[test]
fn a_static_entry_waits_for_its_port() {
    let text = FILE.replace("vni = 100", "vni = 100\nstatic = [{ mac = '02:00:00:00:00:77', port = 'web' }]");
    let mut plane = Plane::new(&text);
    let pinned = |plane: &Plane| plane.fdb().into_iter().find(|entry| entry.mac == mac(0x77)).map(|entry| entry.at);
    assert_eq!(pinned(&plane), None);
    plane.found("web", Ok(1));
    assert_eq!(pinned(&plane).as_deref(), Some("port web"));
    plane.control.host.dead.insert(plane.id("web"));
    plane.pass(Duration::from_secs(2));
    assert_eq!(pinned(&plane), None);
    plane.found("web", Ok(1));
    assert!(pinned(&plane).is_some());
    plane.reload(FILE).unwrap();
    assert_eq!(pinned(&plane), None);
    assert_eq!(plane.state("web"), "up");
}
