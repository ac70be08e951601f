//! Leases through control: who gets which address, for how long, and what a full disk or a restart does to it.

use super::*;
use crate::control::ipam::Denied;
use crate::control::request::{LeaseStatus, LeaseWanted, Wish};
use crate::ipam::leases::GRACE;
use crate::mesh::document::Archive;
use crate::mesh::facts::{Attachment, Facts};
use crate::mesh::membership::{GRACE_UNSEEN, Membership, Output, Settings};
use crate::trust::Policy;

/// A file of a member that is alone, with one network of eight addresses.
const ALONE: &str = "[[network]]\nname = 'blue'\nvni = 100\nsubnets = ['10.32.0.0/29', 'fd00:32::/64']\n";

fn auto(plane: &mut Plane, n: u32) -> Result<Vec<String>, String> {
    let port = plane.attach(n, |attach| attach.auto = true)?;
    Ok(port.addresses.iter().map(ToString::to_string).collect())
}

fn exactly(plane: &mut Plane, n: u32, address: &str) -> Result<PortStatus, String> {
    plane.attach(n, |attach| attach.addresses = vec![address.parse().unwrap()])
}

fn v4(plane: &mut Plane, n: u32) -> String {
    auto(plane, n).unwrap()[0].clone()
}

fn leases(plane: &Plane) -> Vec<LeaseStatus> {
    let Some(Response::Leases(leases)) = plane.control.show(plane.now, &Request::Leases) else { panic!() };
    leases
}

fn states(plane: &Plane) -> Vec<(String, String)> {
    let v4 = leases(plane).into_iter().filter(|lease| lease.address.address.is_ipv4());
    v4.map(|lease| (lease.address.address.to_string(), lease.state)).collect()
}

/// The namespace of a port of `pid:n` ends.
fn die(plane: &mut Plane, n: u32) {
    let id = plane.id(&format!("pid:{n}:eth1"));
    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(2));
    assert_eq!(plane.state(&format!("pid:{n}:eth1")), "gone");
}

fn wanted(holder: &str, wish: Wish) -> LeaseWanted {
    LeaseWanted { network: "blue".into(), holder: holder.into(), wish }
}

fn lease(plane: &mut Plane, holder: &str, wish: Wish) -> Result<Vec<String>, String> {
    let given = plane.control.lease(plane.now, &wanted(holder, wish))?;
    Ok(given.iter().map(ToString::to_string).collect())
}

const V4: Wish = Wish::Auto { v4: true, v6: false };

fn just(address: &str) -> Wish {
    Wish::Exactly(address.parse().unwrap())
}

#[test]
fn the_lowest_free_address_of_each_family_is_given_and_the_networks_own_is_not() {
    let mut plane = Plane::new(ALONE);
    assert_eq!(auto(&mut plane, 1).unwrap(), ["10.32.0.2/29", "fd00:32::2/64"]);
    let id = plane.id("pid:1:eth1");
    let attached = plane.control.attachments[&id].addresses.clone();
    assert_eq!(attached, ["10.32.0.2".parse::<IpAddr>().unwrap(), "fd00:32::2".parse().unwrap()]);
    exactly(&mut plane, 2, "10.32.0.3/29").unwrap();
    assert_eq!(v4(&mut plane, 3), "10.32.0.4/29");
    let taken = exactly(&mut plane, 4, "10.32.0.4/29").unwrap_err();
    assert!(taken.contains("belongs to pid:3:eth1 of this host"), "{taken}");
    let service = exactly(&mut plane, 4, "10.32.0.1/29").unwrap_err();
    assert!(service.contains("is answered for"), "{service}");
    for n in [5, 6] {
        v4(&mut plane, n);
    }
    let full = auto(&mut plane, 7).unwrap_err();
    assert!(full.contains("all 5 IPv4 addresses") && full.contains("10.32.0.0/29"), "{full}");
    let is_full = |plane: &Plane| match plane.control.show(plane.now, &Request::Networks) {
        Some(Response::Networks(networks)) => networks[0].full,
        other => panic!("{other:?}"),
    };
    assert!(is_full(&plane));
    // One that should give addresses and has no slice to give them from is no better off.
    let sliceless = Plane::new(&format!("{ALONE}[[peer]]\nname = 'beta'\npublic_key = '{}'\n", beta_key()));
    assert!(is_full(&sliceless) && !is_full(&Plane::new("[[network]]\nname = 'blue'\nvni = 100\n")));
    assert_eq!(plane.state("pid:7:eth1"), "gone");
    // What cannot be made keeps no address.
    plane.detach("pid:6");
    assert!(!is_full(&plane));
    plane.control.host.refusal = Some("no room".into());
    assert_eq!(auto(&mut plane, 7), Err("no room".into()));
    plane.control.host.refusal = None;
    assert_eq!(auto(&mut plane, 8).unwrap()[0], "10.32.0.6/29");
}

#[test]
fn a_container_that_restarts_keeps_its_address_and_one_that_is_detached_does_not() {
    let mut plane = Plane::new(ALONE);
    assert_eq!((v4(&mut plane, 1), v4(&mut plane, 2)), ("10.32.0.2/29".into(), "10.32.0.3/29".into()));
    die(&mut plane, 1);
    assert_eq!(states(&plane)[0], ("10.32.0.2".into(), "kept".into()));
    assert_eq!(v4(&mut plane, 3), "10.32.0.4/29");
    assert_eq!(v4(&mut plane, 1), "10.32.0.2/29");
    // Also the address that it was given by hand; whoever asks for that very one gets it.
    exactly(&mut plane, 4, "10.32.0.6/29").unwrap();
    die(&mut plane, 4);
    assert_eq!(v4(&mut plane, 5), "10.32.0.5/29");
    exactly(&mut plane, 6, "10.32.0.6/29").unwrap();
    // After its time it is anybody's, and with nothing else free before.
    die(&mut plane, 1);
    assert_eq!(v4(&mut plane, 7), "10.32.0.2/29");
    die(&mut plane, 2);
    plane.pass(GRACE);
    assert_eq!(states(&plane).len(), 4);
    assert_eq!(v4(&mut plane, 8), "10.32.0.3/29");
    plane.detach("pid:3");
    assert_eq!(v4(&mut plane, 9), "10.32.0.4/29");
}

#[test]
fn leases_outlive_the_daemon_and_are_let_go_when_nobody_comes_for_them() {
    let mut plane = Plane::new(ALONE);
    v4(&mut plane, 1);
    v4(&mut plane, 2);
    let spec = plane.control.ports["pid:2:eth1"].spec.clone();
    let saved = plane.control.host.leases.clone();
    let restarted = || {
        let mut plane = Plane::new(ALONE);
        plane.control.host.leases = saved.clone();
        plane.control.restore_leases(plane.now);
        plane
    };
    let mut plane = restarted();
    let port = plane.control.new_port(100, mac(2));
    plane.control.host.ports.insert(port.id, ("pid:2:eth1".into(), 2, 1500));
    plane.control.adopted(plane.now, spec, Origin::Attach, port, 0);
    assert_eq!(plane.port("pid:2:eth1").unwrap().addresses[0].to_string(), "10.32.0.3/29");
    let held = |plane: &Plane| states(plane).into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    assert_eq!(held(&plane), ["kept", "in use"]);
    plane.pass(GRACE + Duration::from_secs(1));
    assert_eq!(held(&plane), ["in use"]);
    assert_eq!(plane.control.host.leases.as_ref().unwrap().len(), 2, "one of each family");
    // Another that comes back in time finds what it had.
    let mut plane = restarted();
    assert_eq!(v4(&mut plane, 3), "10.32.0.4/29");
    assert_eq!(v4(&mut plane, 1), "10.32.0.2/29");
}

#[test]
fn an_address_that_cannot_be_saved_is_not_given() {
    let mut plane = Plane::new(ALONE);
    let kept = plane.control.host.leases.take();
    assert_eq!(auto(&mut plane, 1), Err("the disk is full".into()));
    assert!(plane.control.host.ports.is_empty() && leases(&plane).is_empty());
    plane.control.host.leases = kept;
    assert_eq!(v4(&mut plane, 1), "10.32.0.2/29");
    // Nor is one free that the disk still has.
    plane.control.host.leases = None;
    plane.detach("pid:1");
    assert_eq!(states(&plane), [("10.32.0.2".into(), "kept".into())]);
}

#[test]
fn who_asks_for_an_address_has_it_until_it_is_released() {
    let mut plane = Plane::new(ALONE);
    let both = Wish::Auto { v4: true, v6: true };
    assert_eq!(lease(&mut plane, "cni:abc:eth0", V4).unwrap(), ["10.32.0.2/29"]);
    assert_eq!(lease(&mut plane, "cni:abc:eth0", both).unwrap(), ["10.32.0.2/29", "fd00:32::2/64"]);
    assert_eq!(lease(&mut plane, "cni:def:eth0", just("10.32.0.5")).unwrap(), ["10.32.0.5/29"]);
    let taken = lease(&mut plane, "web", just("10.32.0.5")).unwrap_err();
    assert!(taken.contains("belongs to cni:def:eth0"), "{taken}");
    let outside = lease(&mut plane, "web", just("10.99.0.5")).unwrap_err();
    assert!(outside.contains("10.99.0.5 is outside network 'blue'"), "{outside}");
    assert_eq!(
        lease(&mut plane, "docker:gateway", just("10.32.0.1")).unwrap(),
        ["10.32.0.1/29"],
        "it is everybody's"
    );
    assert!(lease(&mut plane, "", V4).is_err());
    // The port of the one who asked uses it, and does not take it along.
    plane
        .attach(1, |attach| {
            attach.name = Some("cni:abc:eth0".into());
            attach.addresses = vec!["10.32.0.2/29".parse().unwrap()];
        })
        .unwrap();
    assert_eq!(states(&plane)[0].1, "in use");
    plane.detach("cni:abc:eth0");
    plane.pass(GRACE + Duration::from_secs(1));
    assert_eq!(states(&plane)[0], ("10.32.0.2".into(), "reserved".into()));
    let ip = "10.32.0.2".parse().unwrap();
    for _ in 0..2 {
        plane.control.release(plane.now, "blue", ip).unwrap();
    }
    assert_eq!(lease(&mut plane, "next", V4).unwrap(), ["10.32.0.2/29"]);
    // An engine that asks again for what it has, without saying for whom, has it still.
    assert_eq!(lease(&mut plane, "docker:1", V4).unwrap(), ["10.32.0.3/29"]);
    assert_eq!(lease(&mut plane, "docker:2", just("10.32.0.3")).unwrap(), ["10.32.0.3/29"]);
    assert_eq!(lease(&mut plane, "docker:3", V4).unwrap(), ["10.32.0.4/29"]);
}

#[test]
fn what_is_released_while_a_port_has_it_goes_with_the_port() {
    let mut plane = Plane::new(ALONE);
    lease(&mut plane, "cni:c1:eth0", just("10.32.0.3")).unwrap();
    plane
        .attach(1, |attach| {
            attach.name = Some("cni:c1:eth0".into());
            attach.addresses = vec!["10.32.0.3/29".parse().unwrap()];
        })
        .unwrap();
    plane.control.release(plane.now, "blue", "10.32.0.3".parse().unwrap()).unwrap();
    assert!(exactly(&mut plane, 2, "10.32.0.3/29").is_err());
    plane.detach("cni:c1:eth0");
    exactly(&mut plane, 2, "10.32.0.3/29").unwrap();
}

#[test]
fn a_member_gives_what_its_file_says_and_nothing_where_others_may_be() {
    let ranges = "range = ['10.32.0.3-10.32.0.6']\nreserved = ['10.32.0.3']\n";
    let mut plane = Plane::new(&format!("{ALONE}{ranges}"));
    let given = lease(&mut plane, "a", V4).unwrap();
    assert_eq!(given, ["10.32.0.4/29"]);
    exactly(&mut plane, 1, "10.32.0.3/29").unwrap();

    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let mut plane = Plane::new(&format!("{ALONE}{peer}"));
    let none = auto(&mut plane, 1).unwrap_err();
    assert!(none.contains("no IPv4 addresses to give in network 'blue'") && none.contains("set `slice`"), "{none}");
    exactly(&mut plane, 1, "10.32.0.3/29").unwrap();
    let sliced = format!("{ALONE}slice = ['10.32.0.4/30', 'fd00:32::/80']\n{peer}");
    plane.reload(&sliced).unwrap();
    assert_eq!(auto(&mut plane, 2).unwrap(), ["10.32.0.5/29", "fd00:32::2/64"]);
    // A port of the file has its addresses while it waits for its container.
    let port = "[[port]]\nnetwork = 'blue'\ntarget = 'web'\nip = ['10.32.0.6/29']\n";
    plane.reload(&format!("{sliced}{port}")).unwrap();
    let full = auto(&mut plane, 3).unwrap_err();
    assert!(full.contains("all 2 IPv4 addresses"), "{full}");
}

#[test]
fn a_container_that_is_stopped_has_its_address_for_as_long_as_its_port_waits_for_it() {
    let mut plane = Plane::new(ALONE);
    let mut attach = Attach::new("web".parse().unwrap(), "blue");
    attach.auto = true;
    let Response::Attached(port) = plane.control.attach(plane.now, &attach, &1) else { panic!() };
    assert_eq!(port.addresses[0].to_string(), "10.32.0.2/29");
    let id = plane.id("web:eth1");
    plane.control.host.dead.insert(id);
    plane.pass(GRACE * 3);
    assert!(plane.state("web:eth1").starts_with("waiting"), "{}", plane.state("web:eth1"));
    assert_eq!(states(&plane), [("10.32.0.2".into(), "kept".into())]);
    assert_eq!(v4(&mut plane, 2), "10.32.0.3/29");
    plane.found("web:eth1", Ok(3));
    assert_eq!(plane.port("web:eth1").unwrap().addresses[0].to_string(), "10.32.0.2/29");
    // Detached while it waits, it is gone at once.
    let id = plane.id("web:eth1");
    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(2));
    plane.detach("web");
    assert_eq!(v4(&mut plane, 4), "10.32.0.2/29");
}

/// Two members with half of the network each, by the file of the one that is looked at.
fn sliced() -> String {
    let beta = beta_key();
    format!("{ALONE}slice = ['10.32.0.0/30', 'fd00:32::/80']\n[[peer]]\nname = 'beta'\npublic_key = '{beta}'\n")
}

fn beta_signer() -> Signer {
    Signer::new(&Secret::private([8; 32]))
}

fn beta_key() -> PublicKey {
    beta_signer().public_key()
}

/// Lets a plane and a beta that has these addresses by hand tell each other everything, over a session of theirs.
fn beta_says(plane: &mut Plane, has: &[&str]) {
    let mut policy = Policy::default();
    policy.pin([plane.control.identity.key]);
    let started = plane.now;
    let (archive, unix) = (Archive::default(), plane.control.host.unix);
    let settings = Settings { signer: beta_signer(), incarnation: 1, seed: 1, unix, policy, archive };
    let mut beta = Membership::new(Duration::ZERO, settings);
    let addresses = has.iter().map(|ip| ip.parse().unwrap()).collect();
    let attachment = Attachment { vni: 100, mac: mac(9), addresses, sequence: 0, name: "db:eth1".into() };
    beta.set_facts(Duration::ZERO, Facts { name: "beta".into(), attachments: vec![attachment], ..Facts::default() });
    let (ours, theirs) = (plane.control.identity.key, beta_key());
    beta.link_up(Duration::ZERO, ours);
    let elapsed = plane.control.elapsed(plane.now);
    plane.control.members.membership.link_up(elapsed, theirs);
    for _ in 0..100 {
        plane.now += Duration::from_millis(20);
        let (here, there) = (plane.control.elapsed(plane.now), plane.now.duration_since(started));
        plane.control.members.membership.tick(here);
        beta.tick(there);
        while let Some(output) = plane.control.members.membership.poll_output() {
            let Output::Send { payload, .. } = output else { continue };
            beta.input(there, ours, &payload);
        }
        while let Some(output) = beta.poll_output() {
            let Output::Send { payload, .. } = output else { continue };
            plane.control.members.membership.input(here, theirs, &payload);
        }
    }
    assert!(plane.control.is_alive(&theirs));
    plane.control.addresses.due = true;
    plane.control.tick_addresses(plane.now);
}

fn beta_goes(plane: &mut Plane) {
    let elapsed = plane.control.elapsed(plane.now);
    plane.control.members.membership.link_down(elapsed, beta_key());
    plane.pass(Duration::from_secs(1));
    assert!(!plane.control.is_alive(&beta_key()));
}

/// The daemon starts again, with what it kept.
fn again(plane: &Plane) -> Plane {
    let mut next = Plane::new(&sliced());
    next.control.host.leases = plane.control.host.leases.clone();
    next.control.host.claims = plane.control.host.claims.clone();
    next.control.restore_leases(next.now);
    next
}

#[test]
fn what_another_member_has_of_our_slice_is_known_from_the_start() {
    let mut plane = Plane::new(&sliced());
    beta_says(&mut plane, &["10.32.0.2", "10.32.0.5"]);
    let kept: Vec<_> = plane.control.host.claims.iter().map(|claim| claim.address.to_string()).collect();
    assert_eq!(kept, ["10.32.0.2"], "and not what lies in its own");
    for _ in 0..3 {
        plane.control.addresses.due = true;
        plane.control.tick_addresses(plane.now);
    }
    assert_eq!(plane.control.host.claim_changes, 1, "the disk is written when it changes");

    // Nobody has been heard of when the first container asks; whether beta is gone is not known.
    let mut plane = again(&plane);
    let wanted_v4 = wanted("web", V4);
    let unknown = plane.control.try_lease(plane.now, &wanted_v4);
    assert!(matches!(&unknown, Err(Denied::Elsewhere(why)) if why.contains("just started")), "{unknown:?}");
    // It is back, and has it; and lets it go.
    beta_says(&mut plane, &["10.32.0.2"]);
    assert!(lease(&mut plane, "web", V4).unwrap_err().contains("all 1 IPv4 addresses"));
    beta_goes(&mut plane);
    beta_says(&mut plane, &[]);
    assert!(plane.control.host.claims.is_empty());
    assert_eq!(lease(&mut plane, "web", V4).unwrap(), ["10.32.0.2/29"]);
}

#[test]
fn what_a_member_had_that_does_not_come_back_is_given_last() {
    let mut plane = Plane::new(&sliced());
    beta_says(&mut plane, &["10.32.0.2", "fd00:32::2"]);
    let mut plane = again(&plane);
    let v6 = Wish::Auto { v4: false, v6: true };
    assert_eq!(lease(&mut plane, "web", v6).unwrap(), ["fd00:32::3/64"], "no need to wait for anybody");
    plane.pass(Duration::from_secs(2));
    assert_eq!(lease(&mut plane, "db", v6).unwrap(), ["fd00:32::4/64"]);
    assert_eq!(lease(&mut plane, "web", V4).unwrap(), ["10.32.0.2/29"], "there is no other");
    // It is remembered for as long as nobody is there who could have forgotten it.
    plane.pass(GRACE_UNSEEN);
    assert_eq!(plane.control.host.claims.len(), 2);
}

#[test]
fn an_address_by_hand_waits_for_members_of_before_and_not_for_long() {
    let mut plane = Plane::new(&sliced());
    exactly(&mut plane, 1, "10.32.0.5/29").unwrap();
    beta_says(&mut plane, &["10.32.0.2"]);
    // It was moved to beta while this host was away.
    let mut here = again(&plane);
    let same = wanted("pid:1:eth1", just("10.32.0.5"));
    assert!(matches!(here.control.try_lease(here.now, &same), Err(Denied::Elsewhere(_))));
    beta_says(&mut here, &["10.32.0.5"]);
    let Err(Denied::Elsewhere(why)) = here.control.try_lease(here.now, &same) else { panic!("beta has it") };
    assert!(why.contains("db:eth1 of member 'beta'"), "{why}");
    // A host that is alone starts its containers.
    let mut alone = again(&plane);
    alone.pass(Duration::from_secs(2));
    exactly(&mut alone, 1, "10.32.0.5/29").unwrap();
    // One that never knew anybody has nobody to wait for.
    exactly(&mut Plane::new(&sliced()), 1, "10.32.0.5/29").unwrap();
}

#[test]
fn a_mac_address_that_another_member_has_is_refused_and_may_be_free_in_a_moment() {
    let mut plane = Plane::new(&sliced());
    beta_says(&mut plane, &["10.32.0.5"]);
    let mut attach = Attach::new(Target::Pid(1), "blue");
    attach.mac = Some(mac(9));
    let refused = plane.control.attach(plane.now, &attach, &1);
    assert!(
        matches!(&refused, Response::Absent(why) if why.contains("belongs to db:eth1 of member 'beta'")),
        "{refused:?}"
    );
    assert_eq!(leases(&plane).len(), 1, "beta's");
    beta_goes(&mut plane);
    plane.attach(1, |attach| attach.mac = Some(mac(9))).unwrap();
}

#[test]
fn a_member_that_the_file_keeps_out_of_a_network_has_no_addresses_there_as_soon_as_it_does() {
    let mut plane = Plane::new(&sliced());
    beta_says(&mut plane, &["10.32.0.5"]);
    let there = |plane: &mut Plane| {
        plane.control.run_members(plane.now);
        plane.switch.neighbours.lookup(100, "10.32.0.5".parse().unwrap()).is_some()
    };
    // What it said was taken in by hand.
    plane.control.members.changed.insert(beta_key());
    assert!(there(&mut plane));
    let same = wanted("web", just("10.32.0.5"));
    assert!(matches!(plane.control.try_lease(plane.now, &same), Err(Denied::Elsewhere(_))));
    plane.reload(&sliced().replace("name = 'beta'", "name = 'beta'\nnetworks = []")).unwrap();
    assert!(!there(&mut plane));
    exactly(&mut plane, 1, "10.32.0.5/29").unwrap();
    plane.detach("pid:1:eth1");
    plane.reload(&sliced()).unwrap();
    assert!(there(&mut plane));
}

#[test]
fn an_address_that_moved_away_is_not_taken_back_by_asking_for_any() {
    let mut plane = Plane::new(&sliced());
    let v6 = Wish::Auto { v4: false, v6: true };
    plane.attach(1, |attach| attach.auto = true).unwrap();
    assert_eq!(plane.port("pid:1:eth1").unwrap().addresses[1].to_string(), "fd00:32::2/64");
    let mut plane = again(&plane);
    beta_says(&mut plane, &["fd00:32::2"]);
    assert_eq!(lease(&mut plane, "pid:1:eth1", v6).unwrap(), ["fd00:32::3/64"]);
}

#[test]
fn who_releases_an_address_is_told_what_became_of_it() {
    let mut plane = Plane::new(&sliced());
    beta_says(&mut plane, &["10.32.0.5"]);
    v4(&mut plane, 1);
    let v6 = Wish::Auto { v4: false, v6: true };
    assert_eq!(lease(&mut plane, "engine:1", v6).unwrap(), ["fd00:32::3/64"]);
    let mut released = |address: &str| match plane.control.released(plane.now, "blue", address.parse().unwrap()) {
        Response::Done(told) => told.concat(),
        Response::Refused(reason) => format!("refused: {reason}"),
        other => panic!("{other:?}"),
    };
    let used = "10.32.0.2 of network blue belongs to port pid:1:eth1, and is free when that is detached";
    assert_eq!(released("10.32.0.2"), used);
    assert_eq!(released("fd00:32::3"), "fd00:32::3 of network blue is free");
    assert_eq!(released("fd00:32::3"), "fd00:32::3 of network blue is nobody's on this host");
    let theirs = "refused: 10.32.0.5 of network blue belongs to db:eth1 of member 'beta': release it there";
    assert_eq!(released("10.32.0.5"), theirs);
    assert_eq!(states(&plane)[0], ("10.32.0.2".into(), "in use".into()));
}
