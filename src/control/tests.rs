//! The control plane without a machine: ports are entries of a map, namespaces are numbers, time is what the test says.
//! What is asked for and what is refused, who waits for what, what a reload touches, and what a restart takes over.

#![allow(clippy::unwrap_used)]

mod connecting;
mod members;

use super::contacts::Contact;
use super::ports::Origin;
use super::reload::limits;
use super::request::{Attach, Detach, FdbEntry, PeerStatus, PortStatus, Request, Response};
use super::{Control, Host, Identity, Lookup, MachineReport, NewPort};
use crate::config::parse::{Defaults, parse};
use crate::config::{Config, LogLevel, Target};
use crate::switch::ids::{Place, PortId};
use crate::switch::topology::Topology;
use crate::switch::{Egress, Event, Switch};
use crate::trust::Authority;
use crate::trust::record::Record;
use crate::trust::sign::Signer;
use crate::tunnel::Engine;
use crate::tunnel::{Gate, GateSettings};
use crate::wire::announce;
use crate::wire::ethernet::Mac;
use crate::wire::key::{PublicKey, Secret};
use crate::wire::vnet;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Where frames and datagrams end up.
#[derive(Default)]
struct Sink {
    frames: Vec<(PortId, Vec<u8>)>,
    datagrams: Vec<SocketAddr>,
}

impl Egress for Sink {
    fn deliver(&mut self, port: PortId, pieces: &[IoSlice<'_>]) {
        self.frames.push((port, pieces.iter().flat_map(|piece| piece.to_vec()).skip(vnet::LEN).collect()));
    }

    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        if fill(&mut vec![0; room]).is_some() {
            self.datagrams.push(to);
        }
    }

    fn notify(&mut self, _: Event<'_>) {}
}

/// A machine of maps.
struct Fake {
    file: Result<Config, String>,
    /// Name, place, MTU.
    ports: BTreeMap<PortId, (String, u32, u16)>,
    dead: BTreeSet<PortId>,
    refusal: Option<String>,
    sought: Vec<(String, Target)>,
    lookups: Vec<Lookup>,
    log: Option<LogLevel>,
    random: u64,
    contacts: BTreeMap<PublicKey, Contact>,
    unix: Duration,
    /// What trust has saved, by slot; `None` when nothing can be.
    trust: Option<BTreeMap<String, Record>>,
    authorities: Vec<[u8; 32]>,
    out: Sink,
}

impl Host for Fake {
    type Place = u32;
    type Out = Sink;

    fn create_port(&mut self, port: &NewPort<'_>, place: &u32) -> Result<(), String> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let before = self.ports.insert(port.port.id, (port.spec.name.clone(), *place, port.mtu));
        assert!(before.is_none(), "an id is given once");
        Ok(())
    }

    fn remove_port(&mut self, id: PortId) {
        assert!(self.ports.remove(&id).is_some(), "a port is removed once");
    }

    fn port_lives(&mut self, id: PortId) -> bool {
        self.ports.contains_key(&id) && !self.dead.contains(&id)
    }

    fn set_port_mtu(&mut self, id: PortId, mtu: u16) -> Result<(), String> {
        self.ports.get_mut(&id).ok_or("the port is gone")?.2 = mtu;
        Ok(())
    }

    fn load_config(&mut self) -> Result<Config, String> {
        self.file.clone()
    }

    fn seek(&mut self, targets: Vec<(String, Target)>) {
        self.sought = targets;
    }

    fn resolve(&mut self, names: Vec<Lookup>) {
        self.lookups = names;
    }

    fn connect_stream(&mut self, _: PublicKey, _: SocketAddr) -> bool {
        false
    }

    fn close_stream(&mut self, _: u32) {}

    fn set_known(&mut self, _: Vec<PublicKey>) {}

    fn set_log_level(&mut self, level: LogLevel) {
        self.log = Some(level);
    }

    fn random(&mut self) -> u64 {
        // Another number each time; SplitMix64's increment.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random
    }

    fn contacts(&mut self) -> Vec<Contact> {
        Vec::new()
    }

    fn keep_contact(&mut self, contact: &Contact) -> Result<(), String> {
        self.contacts.insert(contact.public_key, contact.clone());
        Ok(())
    }

    fn drop_contact(&mut self, key: &PublicKey) {
        self.contacts.remove(key);
    }

    fn underlay_addresses(&mut self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn unix_time(&self) -> Duration {
        self.unix
    }

    fn fill_random(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.random() as u8);
    }

    fn keep_trust(&mut self, record: &Record) -> Result<(), String> {
        self.trust.as_mut().ok_or("the disk is full")?.insert(record.slot(), record.clone());
        Ok(())
    }

    fn drop_trust(&mut self, slot: &str) -> Result<(), String> {
        self.trust.as_mut().ok_or("the disk is full")?.remove(slot);
        Ok(())
    }

    fn next_authority(&mut self) -> Result<Authority, String> {
        self.authorities.push([self.authorities.len() as u8 + 50; 32]);
        Ok(Authority::new(&Secret::shared(self.authorities[self.authorities.len() - 1])))
    }

    fn adopt_next_authority(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn out(&mut self) -> &mut Sink {
        &mut self.out
    }

    fn machine(&self) -> MachineReport {
        MachineReport::default()
    }
}

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
            authorities: Vec::new(),
            out: Sink::default(),
        };
        let control = Control::new(host, config, Signer::new(&private), identity.address, switch.clone(), now);
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
        let target = Target::Pid(place as i32);
        let (network, addresses) = ("blue".to_owned(), Vec::new());
        let mut attach = Attach { target, network, addresses, mac: None, ifname: None, name: None };
        change(&mut attach);
        match self.control.attach(self.now, &attach, &place) {
            Response::Attached(port) => Ok(port),
            Response::Refused(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn detach(&mut self, port: &str) -> Response {
        self.control.detach(self.now, &Detach { port: port.to_owned(), ifname: None })
    }

    fn found(&mut self, name: &str, place: Result<u32, &str>) {
        self.control.located(self.now, name, place.map_err(str::to_owned));
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
fn a_port_is_announced_three_times_to_its_network_alone() {
    let mut plane = Plane::new(FILE);
    plane.attach(7, |attach| attach.name = Some("listener".into())).unwrap();
    plane.attach(8, |attach| (attach.name, attach.network) = (Some("elsewhere".into()), "red".into())).unwrap();
    let announced = |attach: &mut Attach| {
        (attach.name, attach.mac) = (Some("caller".into()), Some(mac(5)));
        attach.addresses = vec!["10.32.0.9/16".parse().unwrap()];
    };
    plane.control.host.out.frames.clear();
    plane.attach(9, announced).unwrap();
    let frame = announce::gratuitous_arp(mac(5), [10, 32, 0, 9].into());
    let listener = plane.id("listener");
    let heard = |plane: &Plane| plane.control.host.out.frames.iter().filter(|(_, heard)| *heard == frame).count();
    assert_eq!(plane.control.host.out.frames, [(listener, frame.clone())]);
    plane.pass(Duration::from_secs(3));
    assert_eq!(heard(&plane), 2);
    plane.pass(Duration::from_secs(20));
    assert_eq!(heard(&plane), 3);
    assert!(plane.control.host.out.frames.iter().all(|(port, _)| *port == listener));
    // Who has gone is not announced any more.
    plane.detach("caller");
    plane.attach(9, announced).unwrap();
    plane.detach("caller");
    let before = heard(&plane);
    plane.pass(Duration::from_secs(20));
    assert_eq!(heard(&plane), before);
}

#[test]
fn many_ports_are_announced_without_haste_and_all_of_them() {
    const PORTS: u32 = 200;
    let mut plane = Plane::new(FILE);
    let mut most = 0;
    for n in 1..=PORTS {
        let address = format!("10.32.1.{n}/16").parse().unwrap();
        plane.attach(n, |attach| (attach.mac, attach.addresses) = (Some(mac(n as u8)), vec![address])).unwrap();
    }
    let mut heard: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for _ in 0..80 {
        let frames = std::mem::take(&mut plane.control.host.out.frames);
        most = most.max(frames.len());
        frames.into_iter().for_each(|(_, frame)| *heard.entry(frame).or_default() += 1);
        plane.pass(super::TICK);
    }
    // A quarter of a second's worth at 20 µs each, and the one announcement that exceeds it.
    assert!(most <= 12_500 + PORTS as usize, "{most} copies at once");
    let others = PORTS as usize - 1;
    let often = (2 * others..=3 * others).contains(&heard[&announce::gratuitous_arp(mac(1), [10, 32, 1, 1].into())]);
    assert!(heard.len() == PORTS as usize && often, "{} of {PORTS} announced", heard.len());
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

#[test]
fn a_restart_takes_over_what_still_belongs_here() {
    let plane = Plane::new(FILE);
    let web = config(FILE).ports[0].clone();
    let wants = |spec: &crate::config::Port, origin, vni| plane.control.wants_adopted(spec, origin, vni);
    assert!(wants(&web, Origin::File, 100));
    let other = |change: fn(&mut crate::config::Port)| {
        let mut spec = web.clone();
        change(&mut spec);
        spec
    };
    // The network has got another VNI; the file says something else of the port, or nothing.
    assert!(!wants(&web, Origin::File, 101));
    assert!(!wants(&other(|spec| spec.ifname = "eth2".into()), Origin::File, 100));
    assert!(!wants(&other(|spec| spec.name = "gone".into()), Origin::File, 100));
    // What was attached stays, unless the file has taken its name or lost its network.
    assert!(wants(&other(|spec| spec.name = "mine".into()), Origin::Attach, 100));
    assert!(!wants(&web, Origin::Attach, 100));
    assert!(!wants(&other(|spec| (spec.name, spec.network) = ("x".into(), "gone".into())), Origin::Attach, 100));

    let mut plane = plane;
    let port = plane.control.new_port(100, mac(1));
    plane.control.host.ports.insert(port.id, ("web".to_owned(), 1, 1400));
    plane.control.adopted(plane.now, web, Origin::File, port.clone(), 0);
    assert_eq!(plane.control.host.ports[&port.id].2, 1500, "the network's MTU is another one now");
    assert_eq!((plane.state("web").as_str(), plane.port("web").unwrap().mac), ("up", Some(mac(1))));
    assert_eq!((plane.published(100), plane.sought().len()), (vec![port.id], 0));
}

#[test]
fn a_name_is_pressing_while_its_peer_is_called_in_vain() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\nendpoints = [\"beta.example:5\"]\n");
    let mut plane = Plane::new(&format!("{FILE}{peer}"));
    let name = ("beta.example".to_owned(), 5);
    let lookup = |pressing| vec![Lookup { name: name.clone(), pressing }];
    plane.pass(Duration::from_secs(5));
    assert_eq!(plane.control.host.lookups, lookup(false));
    assert!(plane.control.host.out.datagrams.is_empty());
    assert_eq!(plane.peers()[0].endpoints, ["beta.example:5 (not resolved)"]);

    let (first, second): (SocketAddr, SocketAddr) =
        ("192.0.2.1:5".parse().unwrap(), "[2001:db8::2]:5".parse().unwrap());
    plane.control.resolved(plane.now, name.clone(), vec![first]);
    assert_eq!(plane.control.host.out.datagrams, [first]);
    plane.pass(Duration::from_secs(2));
    assert_eq!(plane.control.host.lookups, lookup(true));
    assert_eq!(plane.peers()[0].state, "handshake");
    // The same answer again is none; another one is where the next call goes.
    plane.control.host.out.datagrams.clear();
    plane.control.resolved(plane.now, name.clone(), vec![first]);
    assert!(plane.control.host.out.datagrams.is_empty());
    plane.control.resolved(plane.now, name.clone(), vec![second]);
    assert_eq!(plane.peers()[0].endpoints, ["beta.example:5 ([2001:db8::2]:5)"]);

    // Nobody asks any more; an answer that was on its way is for nobody.
    plane.reload(FILE).unwrap();
    assert!(plane.control.host.lookups.is_empty());
    plane.control.host.out.datagrams.clear();
    plane.control.resolved(plane.now, name, vec![first]);
    assert!(plane.control.host.out.datagrams.is_empty());
}
