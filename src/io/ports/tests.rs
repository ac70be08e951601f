//! Ports in real namespaces. The "daemon" of each test lives in a namespace of its own too, so that no test sees
//! another's interfaces and nothing appears on the machine.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::io::scratch::Scratch;
use crate::io::skip;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const OFFLOAD: TapOffload = TapOffload { checksum: true, tso: true, uso: false };
const MAC: Mac = Mac([0x02, 0x42, 0x0a, 0x09, 0x00, 0x01]);

/// Runs a test as a daemon in a namespace of its own, or prints why it cannot.
fn as_daemon(test: impl FnOnce() + Send) {
    match Netns::create() {
        Ok(netns) => netns.run(test).unwrap(),
        Err(error) => skip::say(&error.to_string()),
    }
}

/// A process in a namespace of its own; both end with it.
struct Container(Child);

impl Container {
    fn start() -> Self {
        let netns = Netns::create().unwrap();
        // A child starts in the namespace of the thread that made it, and `cat` ends when its input does.
        let cat = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        Self(netns.run(cat).unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    fn located(&self) -> Located {
        locate(&Target::Pid(self.pid()), &[]).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spec(target: Target, addresses: &[&str]) -> Port {
    Port {
        name: "test:eth1".to_owned(),
        network: "blue".to_owned(),
        target,
        ifname: "eth1".to_owned(),
        mac: None,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        auto: false,
        names: Vec::new(),
        labels: Default::default(),
        allow: Default::default(),
        rate: Default::default(),
    }
}

fn wanted(spec: &Port) -> Wanted<'_> {
    let addresses = &spec.addresses;
    Wanted { spec, addresses, vni: 7, origin: Origin::Attach, mtu: 1400, mac: MAC, sequence: 0, offload: OFFLOAD }
}

/// Makes a port with these addresses in a container.
fn attach(container: &Container, addresses: &[&str]) -> Result<MadePort, PortError> {
    create(&wanted(&spec(Target::Pid(container.pid()), addresses)), &container.located())
}

/// Does something in the container that must work.
fn there<T: Send>(at: &Located, job: impl FnOnce(&mut Netlink) -> Result<T, NetlinkError> + Send) -> T {
    inside(&at.netns, |netlink| Ok(job(netlink).unwrap())).unwrap()
}

fn links(netns: &Netns) -> Vec<String> {
    let links = netns.run(|| Netlink::open().unwrap().links().unwrap()).unwrap();
    links.into_iter().map(|link| link.name).collect()
}

/// A TAP that is nobody's goes with its last open file. A child that another test is just making has a copy of that until it
/// runs its program, so this waits.
fn only(netns: &Netns, names: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut there = links(netns);
        there.sort();
        if there == names {
            return;
        }
        assert!(Instant::now() < deadline, "{there:?} instead of {names:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn seen(netns: &Netns) -> (Vec<String>, Vec<super::super::netlink::Route>) {
    netns
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link("eth1").unwrap().unwrap().index;
            let mut addresses = netlink.addresses(index).unwrap();
            addresses.retain(|address| !address.cidr.to_string().starts_with("fe80"));
            assert!(addresses.iter().all(|address| !address.tentative));
            let routes = netlink.routes().unwrap();
            let routes = routes.into_iter().filter(|route| route.index == index && route.gateway.is_some());
            (addresses.iter().map(|address| address.cidr.to_string()).collect(), routes.collect())
        })
        .unwrap()
}

/// Asks 10.9.0.1 behind the TAP for its MAC address, and waits for the answer.
fn arp_is_answered(tap: &Tap) -> bool {
    let ask = [2, 0, 0, 0, 0, 9];
    let mut frame = vec![0u8; 10];
    frame.extend([0xff; 6]);
    frame.extend(ask);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(ask);
    frame.extend([10, 9, 0, 9, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1]);
    let (header, body) = frame.split_at(10);
    assert_eq!(tap.write_vectored(&[IoSlice::new(header), IoSlice::new(body)]).unwrap(), frame.len());
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let mut waiting = libc::pollfd { fd: tap.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which lives here.
        unsafe { libc::poll(&raw mut waiting, 1, 1000) };
        while let Ok(length) = tap.read(&mut buffer) {
            let frame = &buffer[10..length];
            if frame[12..14] == [0x08, 0x06] && frame[20..22] == [0, 2] && frame[6..12] == MAC.0 {
                return true;
            }
        }
    }
    false
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_port_arrives_complete_and_carries_frames() {
    as_daemon(|| {
        let container = Container::start();
        let at = container.located();
        let made =
            attach(&container, &["10.9.0.1/24@10.9.0.254", "fd00:9::1/64@fd00:9::fe", "10.10.0.1/32"]).unwrap();
        let link = at.netns.run(|| Netlink::open().unwrap().link("eth1").unwrap().unwrap()).unwrap();
        assert_eq!((link.mac, link.mtu, link.kind.as_deref()), (Some(MAC), 1400, Some("tun")));
        assert!(link.up && link.carrier);
        let (addresses, routes) = seen(&at.netns);
        assert_eq!(addresses, ["10.9.0.1/24", "10.10.0.1/32", "fd00:9::1/64"]);
        let gateways: Vec<_> = routes.iter().map(|route| route.gateway.unwrap().to_string()).collect();
        assert_eq!(gateways, ["10.9.0.254", "fd00:9::fe"]);
        assert_eq!(links(&Netns::current().unwrap()), ["lo"]);
        assert_eq!((made.record.netns, &made.record.via), (at.netns.id(), &at.via));
        assert!(arp_is_answered(&made.tap));

        set_mtu(&made.tap, 9000).unwrap();
        let link = at.netns.run(|| Netlink::open().unwrap().link("eth1").unwrap().unwrap()).unwrap();
        assert_eq!(link.mtu, 9000);
        drop(made);
        only(&at.netns, &["lo"]);
    });
}

#[test]
fn the_hosts_own_namespace_is_no_containers() {
    as_daemon(|| {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let neighbour = Container(child);
        let by_path = Target::Netns(format!("/proc/{}/ns/net", neighbour.pid()).into());
        for target in [Target::Pid(neighbour.pid()), by_path] {
            let error = locate(&target, &[]).unwrap_err().to_string();
            assert!(error.contains("is the host's own") && error.contains("weft expose"), "{error}");
        }
    });
}

#[test]
fn a_port_for_the_host_stays_where_it_was_made() {
    as_daemon(|| {
        let spec = spec(Target::Host, &["10.9.0.1/24"]);
        let made = create(&wanted(&spec), &locate(&Target::Host, &[]).unwrap()).unwrap();
        assert_eq!(links(&Netns::current().unwrap()), ["lo", "eth1"]);
        assert!(arp_is_answered(&made.tap) && alive(&made.record));
        destroy(&made.tap).unwrap();
        assert_eq!(links(&Netns::current().unwrap()), ["lo"]);
    });
}

#[test]
fn a_port_is_preferred_to_the_default_route_that_was_there_and_gives_it_back() {
    as_daemon(|| {
        let container = Container::start();
        let at = container.located();
        let first = || -> Option<std::net::IpAddr> {
            let routes = at.netns.run(|| Netlink::open().unwrap().routes().unwrap()).unwrap();
            routes.into_iter().find(|route| route.destination.is_none())?.gateway
        };
        there(&at, |netlink| {
            netlink.add_veth("eth0", "peer", None)?;
            for name in ["peer", "eth0"] {
                let index = netlink.link(name)?.unwrap().index;
                netlink.set_up(index)?;
            }
            let index = netlink.link("eth0")?.unwrap().index;
            netlink.add_address(index, "172.17.0.2/16".parse().unwrap(), true)?;
            netlink.add_route(None, "172.17.0.1".parse().unwrap(), index)
        });
        let made = attach(&container, &["10.9.0.1/24@10.9.0.254"]).unwrap();
        assert_eq!(first(), Some("10.9.0.254".parse().unwrap()));
        drop(made);
        assert_eq!(first(), Some("172.17.0.1".parse().unwrap()));
    });
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_left_behind() {
    as_daemon(|| {
        let container = Container::start();
        let at = container.located();
        let in_the_way = |name: &str, address: &str| {
            there(&at, |netlink| {
                netlink.add_veth(name, "peer", None)?;
                let index = netlink.link(name)?.unwrap().index;
                netlink.add_address(index, address.parse().unwrap(), true)?;
                Ok(index)
            })
        };
        let index = in_the_way("eth1", "192.0.2.1/24");
        let error = attach(&container, &[]).unwrap_err().to_string();
        let place = format!("the namespace of process {}", container.pid());
        assert_eq!(
            error,
            format!("interface eth1 already exists in {place} (a veth): choose another name with --ifname")
        );
        there(&at, |netlink| netlink.delete(index));

        in_the_way("eth0", "10.9.0.1/16");
        let error = attach(&container, &["10.8.0.1/24", "10.9.0.1/24"]).unwrap_err().to_string();
        let expected = format!("address 10.9.0.1 is already on interface eth0 in {place}: choose another with --ip");
        assert_eq!(error, expected);

        // Refused by the kernel when the TAP is already in its place: the gateway is on no link.
        let mut far = spec(Target::Pid(container.pid()), &["10.7.0.1/24"]);
        far.addresses[0].gateway = Some("203.0.113.1".parse().unwrap());
        let error = create(&wanted(&far), &at).unwrap_err();
        assert!(error.to_string().contains("cannot add a default route via 203.0.113.1"), "{error}");

        only(&Netns::current().unwrap(), &["lo"]);
        only(&at.netns, &["eth0", "lo", "peer"]);
    });
}

#[test]
fn a_name_taken_at_the_last_moment_leaves_nothing_behind_either() {
    as_daemon(|| {
        let container = Container::start();
        let at = container.located();
        let mut here = Netlink::open().unwrap();
        there(&at, |netlink| netlink.add_bridge("eth1"));
        let tap = Tap::create(TEMPORARY, OFFLOAD).unwrap();
        let index = here.link(&tap.name().unwrap()).unwrap().unwrap().index;
        assert!(here.move_to(index, &at.netns, "eth1").unwrap_err().is(libc::EEXIST));
        drop(tap);
        only(&at.netns, &["eth1", "lo"]);
        only(&Netns::current().unwrap(), &["lo"]);
    });
}

#[test]
fn ipv6_is_switched_on_for_the_port_alone_where_an_engine_switched_it_off() {
    as_daemon(|| {
        let container = Container::start();
        let at = container.located();
        let off = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
        let switched = at.netns.run(|| {
            ["all", "default"].map(|name| fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1"))
        });
        if switched.unwrap().iter().any(Result::is_err) {
            return skip::say("/proc/sys is read-only");
        }
        let made = attach(&container, &["10.9.0.1/24", "fd00:9::1/64"]).unwrap();
        assert_eq!(seen(&at.netns).0, ["10.9.0.1/24", "fd00:9::1/64"]);
        let (eth1, default) = at.netns.run(|| (off("eth1").unwrap(), off("default").unwrap())).unwrap();
        assert_eq!((eth1.trim(), default.trim()), ("0", "1"));
        drop(made);
        only(&at.netns, &["lo"]);

        let four = spec(Target::Pid(container.pid()), &["fd00:9::1/64"]);
        let error = create(&Wanted { mtu: 1000, ..wanted(&four) }, &at).unwrap_err().to_string();
        assert!(error.contains("the MTU is below 1280"), "{error}");
        only(&at.netns, &["lo"]);
    });
}

#[test]
fn a_killed_daemons_port_is_adopted_with_everything_on_it() {
    as_daemon(|| {
        let (container, state) = (Container::start(), Scratch::new());
        let at = container.located();
        let mut store = Store::open(state.path()).unwrap();
        let made = attach(&container, &["10.9.0.1/24@10.9.0.254", "fd00:9::1/64"]).unwrap();
        let (tap, record) = made.keep(&mut store).unwrap();
        let before = seen(&at.netns);
        assert!(matches!(adopt(&record, OFFLOAD), Err(PortError::Tap(TapError::Busy(_)))));

        // What a kill leaves of a daemon: closed files.
        drop((tap, store));
        let store = Store::open(state.path()).unwrap();
        assert_eq!(store.ports(), std::slice::from_ref(&record));
        let Adopted::Port(tap) = adopt(&record, OFFLOAD).unwrap() else { panic!("the port is gone") };
        assert_eq!(seen(&at.netns), before);
        assert!(arp_is_answered(&tap));

        // A container may rename what it has.
        drop(tap);
        there(&at, |netlink| {
            let index = netlink.link("eth1")?.unwrap().index;
            netlink.set_down(index)?;
            netlink.rename(index, "lan")?;
            netlink.set_up(index)
        });
        let Adopted::Port(tap) = adopt(&record, OFFLOAD).unwrap() else { panic!("the port is gone") };
        set_mtu(&tap, 1300).unwrap();
        destroy(&tap).unwrap();
        assert_eq!(links(&at.netns), ["lo"]);
        destroy(&tap).unwrap();
        drop(tap);
        assert!(matches!(adopt(&record, OFFLOAD).unwrap(), Adopted::Gone(why) if why == "interface eth1 is gone"));
    });
}

#[test]
fn an_adopted_port_does_not_hide_that_its_container_is_gone() {
    as_daemon(|| {
        let (container, state) = (Container::start(), Scratch::new());
        let mut store = Store::open(state.path()).unwrap();
        let (tap, record) = attach(&container, &["10.9.0.1/24"]).unwrap().keep(&mut store).unwrap();
        drop(tap);
        let Adopted::Port(tap) = adopt(&record, OFFLOAD).unwrap() else { panic!("the port is gone") };
        assert!(alive(&record));

        // The first process may end while another stays.
        let stays = {
            let at = container.located();
            let cat = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            Container(at.netns.run(cat).unwrap())
        };
        drop(container);
        assert!(alive(&record));
        drop(stays);
        assert!(!alive(&record));
        assert_eq!(tap.name().unwrap(), "eth1", "our file still holds the namespace");
        assert!(matches!(adopt(&record, OFFLOAD).unwrap(), Adopted::Gone(_)));
        destroy(&tap).unwrap();
    });
}

#[test]
fn a_port_that_was_never_adopted_dies_with_its_container() {
    as_daemon(|| {
        let container = Container::start();
        let made = attach(&container, &["10.9.0.1/24"]).unwrap();
        made.tap.set_persist(true).unwrap();
        drop(container);
        wait_until("the TAP is still there", || made.tap.name().is_err());
        assert!(!alive(&made.record));
        destroy(&made.tap).unwrap();
    });
}

#[test]
fn who_is_in_a_namespace_is_known_of_all_from_one_look_and_of_none_that_ended() {
    as_daemon(|| {
        let (one, other) = (Container::start(), Container::start());
        let (at, there) = (one.located().netns, other.located().netns);
        let mut residents = loose::Residents::default();
        assert_eq!(residents.of(at.id()), Some(one.pid()));
        assert_eq!(residents.looks(), 1);
        assert_eq!(residents.of(there.id()), Some(other.pid()));
        assert_eq!((residents.of(at.id()), residents.looks()), (Some(one.pid()), 1));
        // One that came after the look is found all the same, and one that ended is not.
        let late = Container::start();
        assert_eq!(residents.of(late.located().netns.id()), Some(late.pid()));
        drop(one);
        assert_eq!(residents.of(at.id()), None);
    });
}

#[test]
fn a_target_that_is_not_there_is_one_clear_error() {
    let ended = Command::new("true").spawn().and_then(|mut child| {
        child.wait()?;
        Ok(child.id())
    });
    let pid = i32::try_from(ended.unwrap()).unwrap();
    let error = |target: Target| locate(&target, &[]).unwrap_err().to_string();
    assert_eq!(error(Target::Pid(pid)), format!("there is no process {pid}: has it ended?"));
    assert!(error(Target::Netns("/run/netns/none".into())).contains("/run/netns/none"));
    assert!(error(Target::Netns("/etc/passwd".into())).contains("/etc/passwd is not a network namespace"));
}
