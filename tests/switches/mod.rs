//! What the tests of forwarding share: ears and mouths in containers, and what daemons say.

mod forwarding;
mod multicast;
mod networks;
mod offloads;
mod stations;

use crate::common::eventually;
use crate::common::place::link;
use crate::frames::{Sender, Sniffer, frame};
use std::fs;
use weft::control::request::{FdbEntry, PeerStatus, PortStatus, Request, Response, Status};
use weft::io::netns::Netns;
use weft::lab::spec::{CONTAINER_IFNAME, LabSpec};
use weft::lab::{Container, Host, Lab, Stop};
use weft::wire::ethernet::Mac;

/// A lab whose daemons' files were changed before they started.
fn lab_with(spec: LabSpec, change: impl Fn(&Host, String) -> String) -> Lab {
    let mut lab = Lab::lay(spec).unwrap();
    lab.hosts().iter().for_each(|host| edit(host, |text| change(host, text)));
    lab.start_daemons(&Stop::default()).unwrap();
    lab.attach_all().unwrap();
    lab
}

/// Changes a daemon's file.
fn edit(host: &Host, change: impl FnOnce(String) -> String) {
    let file = host.files.config();
    let text = change(fs::read_to_string(&file).unwrap());
    fs::write(&file, text).unwrap();
}

fn mac(container: &Container) -> Mac {
    link(&container.netns, CONTAINER_IFNAME).unwrap().mac.unwrap()
}

fn status(host: &Host) -> Status {
    match host.control(&Request::Status).unwrap() {
        Response::Status(status) => *status,
        other => panic!("no status: {other:?}"),
    }
}

fn dropped(host: &Host, reason: &str) -> u64 {
    status(host).drops[reason]
}

fn ports(host: &Host) -> Vec<PortStatus> {
    match host.control(&Request::Ports).unwrap() {
        Response::Ports(ports) => ports,
        other => panic!("no ports: {other:?}"),
    }
}

fn peer(host: &Host, name: &str) -> PeerStatus {
    match host.control(&Request::Peers).unwrap() {
        Response::Peers(peers) => peers.into_iter().find(|peer| peer.name == name).unwrap(),
        other => panic!("no peers: {other:?}"),
    }
}

/// Where a host's FDB has a station.
fn entry(host: &Host, station: Mac) -> Option<FdbEntry> {
    match host.control(&Request::Fdb { network: None }).unwrap() {
        Response::Fdb(entries) => entries.into_iter().find(|entry| entry.mac == station),
        other => panic!("no FDB: {other:?}"),
    }
}

/// Waits until a host's FDB has a station at `place`.
fn settles_at(host: &Host, station: Mac, place: &str) -> FdbEntry {
    eventually(&format!("{} has {station} at {place}", host.name), || {
        entry(host, station).filter(|entry| entry.at == place)
    })
}

/// An ear and a mouth in each of some containers.
struct Party {
    names: Vec<String>,
    ears: Vec<Sniffer>,
    mouths: Vec<Sender>,
    macs: Vec<Mac>,
    barriers: usize,
}

impl Party {
    fn of(containers: &[&Container]) -> Self {
        let ears = containers.iter().map(|container| Sniffer::open(&container.netns, CONTAINER_IFNAME));
        let mouths = containers.iter().map(|container| Sender::open(&container.netns, CONTAINER_IFNAME));
        Self {
            names: containers.iter().map(|container| container.name.clone()).collect(),
            ears: ears.collect(),
            mouths: mouths.collect(),
            macs: containers.iter().map(|container| mac(container)).collect(),
            barriers: 0,
        }
    }

    /// Has container `from` send a frame, and waits until everyone has received whatever they will of it: frames keep
    /// their order, so it is enough to wait for a broadcast behind it. Returns how many copies each received.
    fn send(&mut self, from: usize, frame: &[u8], marker: &[u8]) -> Vec<usize> {
        self.mouths[from].send(frame);
        self.barrier(from);
        self.ears.iter_mut().map(|ear| ear.copies(marker)).collect()
    }

    fn barrier(&mut self, from: usize) {
        self.barriers += 1;
        let text = format!("barrier {} of {}.", self.barriers, self.names[from]).into_bytes();
        self.mouths[from].send(&frame(Mac::BROADCAST, self.macs[from], &text));
        for ear in self.ears.iter_mut().enumerate().filter(|(to, _)| *to != from).map(|(_, ear)| ear) {
            ear.arrived(&text);
        }
    }

    /// A frame from container `from` with its own address.
    fn from(&self, from: usize, destination: Mac, content: &str) -> Vec<u8> {
        frame(destination, self.macs[from], content.as_bytes())
    }
}

/// A path to a namespace that the daemon can open, and an address in the lab's subnets.
fn attach_line(netns: &Netns, network: &str, ifname: &str, more: &str) -> String {
    let path = crate::common::place::path_of(netns);
    format!("attach netns:{} --network {network} --ifname {ifname} {more}", path.display())
}
