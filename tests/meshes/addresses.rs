//! Addresses that members give by themselves: no two the same, kept over restarts, refused where somebody has them, and
//! given again when a member is gone for good.

use super::Hosts;
use crate::common::eventually;
use crate::common::place::{Sleeper, path_of, usable};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use weft::control::request::{LeaseStatus, LeaseWanted, NetworkStatus, PortStatus, Request, Response, Wish};
use weft::io::client;
use weft::wire::cidr::Cidr;

impl Hosts {
    /// Members of one mesh whose containers have no interface yet.
    fn without_ports(hosts: usize) -> Self {
        let mut mesh = Self::lay(hosts);
        mesh.begin(1);
        for h in 2..=hosts {
            mesh.take_in(h);
        }
        mesh
    }

    fn take_in(&mut self, h: usize) {
        let token = self.invite(&format!("h{h}"));
        self.join(h, &token);
    }

    /// Gives a target on a host an address of the host's choice.
    fn give(&self, h: usize, target: &str, name: &str) -> Ipv4Addr {
        let port: PortStatus =
            self.weft(h, &format!("attach {target} --name {name} --network mesh --ip auto --json")).json();
        v4(&port)
    }

    fn give_container(&self, h: usize) -> Ipv4Addr {
        self.give(h, &format!("netns:{}", path_of(&self.container(h).netns).display()), "own")
    }

    fn ports(&self, h: usize) -> Vec<PortStatus> {
        self.weft(h, "ports --json").json()
    }

    fn leases(&self, h: usize) -> Vec<LeaseStatus> {
        self.weft(h, "leases --json").json()
    }

    fn slices(&self, h: usize) -> Vec<Cidr> {
        let networks: Vec<NetworkStatus> = self.weft(h, "networks --json").json();
        networks[0].slices.clone()
    }

    #[track_caller]
    fn answers(&self, from: usize, ip: Ipv4Addr) {
        self.container(from).ping(IpAddr::V4(ip), 56, Duration::from_secs(30)).unwrap();
    }
}

fn v4(port: &PortStatus) -> Ipv4Addr {
    let [address] = port.addresses.as_slice() else { panic!("{port:?}") };
    assert_eq!((address.cidr.prefix, address.gateway), (12, None));
    match address.cidr.address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => panic!("{v6}"),
    }
}

#[test]
fn every_host_gives_addresses_of_its_own_and_containers_keep_them() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::without_ports(3);
    let given: Vec<Ipv4Addr> = (1..=3).map(|h| mesh.give_container(h)).collect();
    let lowest = [[10, 32, 0, 2], [10, 32, 1, 1], [10, 32, 2, 1]].map(Ipv4Addr::from);
    assert_eq!(given, lowest, "the lowest of each host's slice that is nobody's");
    for (from, to) in [(1, 2), (1, 3), (2, 3), (3, 1)] {
        mesh.answers(from, lowest[to - 1]);
    }

    // A daemon that is killed finds what it gave, and gives it to nobody else.
    mesh.restart(2, libc::SIGKILL);
    assert_eq!(v4(&mesh.ports(2)[0]), lowest[1]);
    let other = Sleeper::new();
    assert_eq!(mesh.give(2, &format!("pid:{}", other.pid()), "other"), Ipv4Addr::new(10, 32, 1, 2));
    mesh.answers(1, lowest[1]);

    // Who gives the slices takes no other one for itself by starting again.
    let slices = mesh.slices(1);
    mesh.restart(1, libc::SIGTERM);
    assert_eq!((slices.len(), mesh.slices(1)), (1, slices));
    mesh.answers(2, lowest[0]);

    // A container that restarts has its address again, whoever came meanwhile.
    drop(other);
    let is_kept = |lease: &LeaseStatus| lease.holder == "other" && lease.state == "kept";
    eventually("the address is kept", || mesh.leases(2).iter().any(is_kept).then_some(()));
    let (third, again) = (Sleeper::new(), Sleeper::new());
    assert_eq!(mesh.give(2, &format!("pid:{}", third.pid()), "third"), Ipv4Addr::new(10, 32, 1, 3));
    assert_eq!(mesh.give(2, &format!("pid:{}", again.pid()), "other"), Ipv4Addr::new(10, 32, 1, 2));
    mesh.weft(2, "detach third").done();
    let fourth = Sleeper::new();
    assert_eq!(mesh.give(2, &format!("pid:{}", fourth.pid()), "fourth"), Ipv4Addr::new(10, 32, 1, 3));

    // Everybody knows whose an address is, and nobody else gets it, by hand or otherwise.
    let elsewhere = Sleeper::new();
    let attach = |mesh: &Hosts, ip: &str| {
        mesh.weft(1, &format!("attach pid:{} --name elsewhere --network mesh --ip {ip}/12", elsewhere.pid()))
    };
    eventually("h1 knows", || mesh.leases(1).iter().any(|lease| lease.holder == "fourth").then_some(()));
    let refused = attach(&mesh, "10.32.1.3").refused();
    assert!(refused.contains("10.32.1.3") && refused.contains("fourth of member 'h2'"), "{refused}");
    let service = attach(&mesh, "10.32.0.1").refused();
    assert!(service.contains("10.32.0.1"), "{service}");
    // One in another's slice that is free is had, and its owner gives it to nobody.
    attach(&mesh, "10.32.1.4").done();
    eventually("h2 knows", || mesh.leases(2).iter().any(|lease| lease.holder == "elsewhere").then_some(()));
    // Also when it starts and has heard of nobody yet: it does each second what has to be done for that.
    let known = mesh.status(2).uptime_s;
    eventually("h2 has written it down", || (mesh.status(2).uptime_s > known + 1).then_some(()));
    mesh.restart(2, libc::SIGKILL);
    let fifth = Sleeper::new();
    assert_eq!(mesh.give(2, &format!("pid:{}", fifth.pid()), "fifth"), Ipv4Addr::new(10, 32, 1, 5));
    // What its owner lets go, others have as soon as they hear of it.
    mesh.weft(2, "detach fourth").done();
    mesh.weft(1, "detach elsewhere").done();
    eventually("h1 has heard", || mesh.leases(1).iter().all(|lease| lease.holder != "fourth").then_some(()));
    attach(&mesh, "10.32.1.3").done();
}

#[test]
fn a_slice_that_is_nearly_full_gets_another_beside_it_and_one_that_cannot_says_so() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::without_ports(2);
    assert_eq!(mesh.slices(2), ["10.32.1.0/24".parse().unwrap()]);
    let socket = mesh.socket(2);
    let lease = |n: usize| {
        let wish = Wish::Auto { v4: true, v6: false };
        let wanted = LeaseWanted { network: "mesh".into(), holder: format!("test:{n}"), wish };
        match client::ask(&socket, &Request::Lease(wanted)).unwrap() {
            Response::Leased(leases) => Ok(leases[0].address.to_string()),
            Response::Refused(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lease(1).unwrap(), "10.32.1.1/12");
    for n in 2..=210 {
        lease(n).unwrap();
    }
    eventually("h2 has another slice", || (mesh.slices(2).len() == 2).then_some(()));
    assert_eq!(mesh.slices(2)[1], "10.32.2.0/24".parse().unwrap());
    for n in 211..=255 {
        lease(n).unwrap();
    }
    assert_eq!(lease(256).unwrap(), "10.32.2.2/12");
    assert_eq!(lease(7).unwrap(), "10.32.1.7/12", "whoever asks again has what it had");
    // Without the one who gives slices it goes on with what it has, and then says what is missing at once.
    mesh.down(1, libc::SIGKILL);
    let full = (257..).find_map(|n| lease(n).err()).unwrap();
    assert!(full.contains("addresses that this host can give in network 'mesh' are used"), "{full}");
    // It knows all of it after a restart.
    mesh.restart(2, libc::SIGKILL);
    assert!(lease(9999).unwrap_err().contains("are used"));
    assert_eq!(lease(7).unwrap(), "10.32.1.7/12");
    mesh.weft(2, "leases release --network mesh 10.32.1.9").done();
    assert_eq!(lease(9999).unwrap(), "10.32.1.9/12");
}

#[test]
fn the_addresses_of_a_host_that_is_gone_are_given_again_and_it_gives_way_when_it_comes_back() {
    if !usable() {
        return;
    }
    // The fourth comes later.
    let mut mesh = Hosts::lay(4);
    mesh.begin(1);
    for h in 2..=3 {
        mesh.take_in(h);
    }
    for h in 1..=3 {
        mesh.give_container(h);
    }
    let contested = Ipv4Addr::new(10, 32, 2, 1);
    mesh.answers(1, contested);
    let refused = mesh.weft(1, "leases reclaim h3").refused();
    assert!(refused.contains("'h3' is there"), "{refused}");
    let refused = mesh.weft(2, "leases reclaim h3").refused();
    assert!(refused.contains("does not hold the authority's key"), "{refused}");

    mesh.down(3, libc::SIGKILL);
    eventually("h1 misses h3", || mesh.peer(1, "h3").filter(|peer| peer.alive == Some(false)));
    let told = mesh.weft(1, "leases reclaim h3").done();
    assert!(told.contains("'h3' has lost 10.32.2.0/24"), "{told}");
    mesh.take_in(4);
    // Asked for any address it would first give those that h3 is not known to have; who names one gets it.
    assert_eq!(mesh.slices(4), ["10.32.2.0/24".parse().unwrap()]);
    let target = path_of(&mesh.container(4).netns).display().to_string();
    mesh.weft(4, &format!("attach netns:{target} --name own --network mesh --ip {contested}/12")).done();
    mesh.answers(2, contested);

    // It comes back with a container that has the address still.
    mesh.up(3);
    let warned = || mesh.status(3).warnings.into_iter().find(|text| text.contains("member 'h4'"));
    let warning = eventually("h3 gives way", warned);
    assert!(warning.contains("port own has 10.32.2.1 of network mesh, which member 'h4' gave"), "{warning}");
    let fresh = eventually("h3 has another slice", || mesh.slices(3).first().copied());
    assert_eq!(fresh, "10.32.3.0/24".parse().unwrap());
    let at = |h: usize| -> Vec<String> {
        let leases = mesh.leases(h).into_iter();
        let about = leases.filter(|lease| lease.address.address == contested && lease.state == "in use");
        about.map(|lease| lease.member).collect()
    };
    eventually("h2 knows of one that has it", || (at(2) == ["h4"]).then_some(()));
    mesh.answers(1, contested);
    mesh.answers(2, contested);
    mesh.weft(3, "detach own").done();
    assert_eq!(mesh.give_container(3), Ipv4Addr::new(10, 32, 3, 1));
    mesh.answers(3, contested);
    mesh.answers(4, Ipv4Addr::new(10, 32, 3, 1));
    eventually("h3 has nothing to say any more", || warned().is_none().then_some(()));
}
