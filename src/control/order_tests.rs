//! The control plane on a machine that does as it is told and remembers in which order.

#![allow(clippy::unwrap_used)]

use super::request::{Attach, Request, Response};
use super::*;
use crate::config::parse::{Defaults, parse};
use crate::control::reload::limits;
use crate::switch::Event;
use crate::switch::fdb::Entry;
use crate::switch::ids::Place;
use crate::switch::tunnel::Gate;
use crate::wire::key::Secret;
use std::io::IoSlice;
use std::net::SocketAddr;

/// Takes everything and keeps nothing.
struct Sink;

impl Egress for Sink {
    fn deliver(&mut self, _port: PortId, _pieces: &[IoSlice<'_>]) {}
    fn transmit(&mut self, _to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        fill(&mut vec![0; room]);
    }
    fn notify(&mut self, _event: Event<'_>) {}
}

struct Machine {
    next: Result<Config, String>,
    names: BTreeMap<PortId, String>,
    done: Vec<String>,
    random: u64,
    out: Sink,
}

impl Host for Machine {
    type Place = ();
    type Out = Sink;

    fn create_port(&mut self, new: &NewPort<'_>, _place: &()) -> Result<(), String> {
        self.names.insert(new.port.id, new.spec.name.clone());
        self.done.push(format!("make {} in {}", new.spec.name, new.port.vni));
        Ok(())
    }
    fn remove_port(&mut self, id: PortId) {
        let name = self.names.remove(&id).unwrap();
        self.done.push(format!("remove {name}"));
    }
    fn port_lives(&mut self, id: PortId) -> bool {
        self.names.contains_key(&id)
    }
    fn set_port_mtu(&mut self, id: PortId, mtu: u16) -> Result<(), String> {
        self.done.push(format!("{} has MTU {mtu}", self.names[&id]));
        Ok(())
    }
    fn load_config(&mut self) -> Result<Config, String> {
        self.next.clone()
    }
    fn seek(&mut self, _targets: Vec<(String, Target)>) {}
    fn resolve(&mut self, _names: Vec<Lookup>) {}
    fn set_log_level(&mut self, _level: config::LogLevel) {}
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.random
    }
    fn out(&mut self) -> &mut Sink {
        &mut self.out
    }
    fn machine(&self) -> MachineReport {
        MachineReport::default()
    }
}

const NETWORK: &str = "[[network]]\nname = 'blue'\nvni = 100\n";
const PEER: &str = "[[peer]]\nname = 'beta'\npublic_key = 'S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU='\n";
const PIN: &str = "static = [{ mac = '02:00:00:00:00:05', peer = 'beta' }]\n";

fn config(text: &str) -> Config {
    let defaults = Defaults { hostname: "alpha".to_owned() };
    let psk = |_: &std::path::Path| Err("there is no such file".to_owned());
    parse("weft.toml", text, &defaults, &psk).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn port(name: &str, address: &str) -> String {
    format!("[[port]]\nname = '{name}'\nnetwork = 'blue'\ntarget = '{name}'\nip = ['{address}/24']\n")
}

fn control(text: &str) -> Control<Machine> {
    let (now, config, private) = (Instant::now(), config(text), Secret::private([1; 32]));
    let key = private.public_key();
    let identity = Identity { key, address: key.tunnel_address() };
    let topology = Topology::new(identity.address, Vec::new(), &[]);
    let switch = Arc::new(Switch::new(Gate::new(&private), topology, limits(config.fdb), 1, now));
    let next = Err("no other file yet".to_owned());
    let machine = Machine { next, names: BTreeMap::new(), done: Vec::new(), random: 1, out: Sink };
    let mut control = Control::new(machine, config, identity, switch, now);
    for name in control.ports.keys().cloned().collect::<Vec<_>>() {
        control.located(now, &name, Ok(()));
    }
    control.host.done.clear();
    control
}

/// Reloads; what was said and what the machine was told to do, files' ports being found at once.
fn reload(control: &mut Control<Machine>, text: &str) -> (Response, Vec<String>) {
    control.host.next = Ok(config(text));
    let said = control.reload(Instant::now());
    for name in control.ports.keys().cloned().collect::<Vec<_>>() {
        control.located(Instant::now(), &name, Ok(()));
    }
    (said, std::mem::take(&mut control.host.done))
}

fn fdb(control: &Control<Machine>) -> Vec<Entry> {
    control.switch.fdb.snapshot(0)
}

#[test]
fn a_pin_goes_with_its_line_also_when_its_peer_is_renamed_meanwhile() {
    let mut control = control(&format!("{NETWORK}{PIN}{PEER}"));
    assert_eq!(fdb(&control).len(), 1);
    let (said, _) = reload(&mut control, &format!("{NETWORK}{}", PEER.replace("beta", "gamma")));
    assert!(matches!(said, Response::Done(_)), "{said:?}");
    assert_eq!(fdb(&control), []);
}

#[test]
fn what_was_learned_behind_a_peer_goes_with_its_session_and_its_pins_stay() {
    let mut control = control(&format!("{NETWORK}{PIN}{PEER}"));
    let before = *control.peers.keys().next().unwrap();
    let station = Mac([2, 0, 0, 0, 0, 9]);
    control.switch.fdb.observe(0, 100, station, Place::Peer(before), Mac::BROADCAST);
    let secret = "preshared_key = 'FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE='\n";
    reload(&mut control, &format!("{NETWORK}{PIN}{PEER}{secret}"));
    let after = *control.peers.keys().next().unwrap();
    assert_ne!(before, after);
    let places: Vec<_> = fdb(&control).iter().map(|entry| (entry.is_static, entry.place)).collect();
    assert_eq!(places, [(true, Place::Peer(after))]);
}

#[test]
fn ports_that_swap_their_addresses_are_both_gone_before_either_is_made() {
    let file = |a, b| format!("{NETWORK}{}{}", port("a", a), port("b", b));
    let mut control = control(&file("10.0.0.1", "10.0.0.2"));
    let (_, done) = reload(&mut control, &file("10.0.0.2", "10.0.0.1"));
    assert_eq!(done, ["remove a", "remove b", "make a in 100", "make b in 100"]);
}

#[test]
fn a_port_follows_its_network_to_another_vni_and_keeps_still_when_the_network_changes_its_mtu() {
    let file = |network: &str| format!("{network}{}", port("a", "10.0.0.1"));
    let mut control = control(&file(NETWORK));
    let (_, done) = reload(&mut control, &file(&format!("{NETWORK}mtu = 9000\n")));
    assert_eq!(done, ["a has MTU 9000"]);
    let (_, done) = reload(&mut control, &file(&NETWORK.replace("100", "200")));
    assert_eq!(done, ["remove a", "make a in 200"]);
    assert!(fdb(&control).iter().all(|entry| entry.vni == 200));
}

#[test]
fn a_reload_that_does_not_fit_what_was_attached_changes_nothing() {
    let mut control = control(NETWORK);
    let attach = Attach {
        target: Target::Host,
        network: "blue".to_owned(),
        addresses: Vec::new(),
        mac: None,
        ifname: None,
        name: None,
    };
    assert!(matches!(control.attach(Instant::now(), &attach, &()), Response::Attached(_)));
    control.host.done.clear();
    let before = (control.config.clone(), fdb(&control));
    for next in [NETWORK.replace("blue", "red"), NETWORK.replace("100", "200")] {
        let (said, done) = reload(&mut control, &next);
        assert!(matches!(said, Response::Refused(reason) if reason.contains("host:eth1")));
        assert_eq!((control.config.clone(), fdb(&control), done), (before.0.clone(), before.1.clone(), Vec::new()));
    }
    assert!(
        matches!(control.show(Instant::now(), &Request::Ports), Some(Response::Ports(ports)) if ports.len() == 1)
    );
}
