//! `weft attach`, `detach` and `wait`, by the real command line against the real daemon: what a container finds in its
//! namespace, what the others hear of it, and when it goes again. What is refused is in `misuse.rs`.

#![allow(clippy::unwrap_used)]

mod common;

use common::cli::{self, weft};
use common::eventually;
use common::place::{self, Sleeper, inside, lab, link, path_of, spec};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use weft::config::mac_from_text;
use weft::control::request::{PortStatus, Status};
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::{Lab, Stop, process};
use weft::wire::announce;

/// A network with subnets, besides the lab's own.
const BLUE: &str =
    "\n[[network]]\nname = \"blue\"\nvni = 200\nmtu = 1400\nsubnets = [\"10.77.0.0/16\", \"fd77::/64\"]\n";

fn blue(hosts: usize, containers: usize) -> Lab {
    lab(weft::lab::spec::LabSpec { extra_config: BLUE.to_owned(), ..spec(hosts, containers) })
}

fn socket(lab: &Lab, h: usize) -> std::path::PathBuf {
    lab.host(h).files.socket()
}

fn ports(lab: &Lab, h: usize) -> Vec<PortStatus> {
    weft(&socket(lab, h), "ports --json").json()
}

fn port(lab: &Lab, h: usize, name: &str) -> Option<PortStatus> {
    ports(lab, h).into_iter().find(|port| port.name == name)
}

fn ping(from: &Netns, to: &str) {
    let to: IpAddr = to.parse().unwrap();
    Pinger::open(from, to, None).unwrap().until(56, common::SOON).unwrap();
}

/// A file descriptor that hears every frame of a namespace.
fn listen(netns: &Netns) -> Socket {
    let every_protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    let open = || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every_protocol))).unwrap();
    let socket = netns.run(open).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// Waits until all of `wanted` have been heard.
fn hear(mut socket: &Socket, mut wanted: Vec<Vec<u8>>) {
    let deadline = Instant::now() + common::SOON;
    let mut frame = [0; 2048];
    while !wanted.is_empty() {
        if let Ok(length) = socket.read(&mut frame) {
            wanted.retain(|wanted| *wanted != frame[..length]);
        }
        assert!(Instant::now() < deadline, "not heard: {wanted:x?}");
    }
}

fn default_routes(netns: &Netns) -> Vec<IpAddr> {
    let routes = inside(netns, |netlink| netlink.routes().unwrap());
    let mut gateways: Vec<_> = routes.iter().filter(|r| r.destination.is_none()).filter_map(|r| r.gateway).collect();
    gateways.sort();
    gateways
}

fn addresses(netns: &Netns, ifname: &str) -> Vec<String> {
    let index = link(netns, ifname).unwrap().index;
    let addresses = inside(netns, |netlink| netlink.addresses(index).unwrap());
    // Besides its link-local one, which the kernel makes and checks.
    let ours = addresses.iter().filter(|address| !address.cidr.to_string().starts_with("fe80"));
    let mut texts: Vec<_> = ours.inspect(|ours| assert!(!ours.tentative)).map(|ours| ours.cidr.to_string()).collect();
    texts.sort();
    texts
}

#[test]
fn a_namespace_gets_what_was_asked_for_and_gives_it_back() {
    if !place::usable() {
        return;
    }
    let lab = blue(2, 0);
    let netns = Netns::create().unwrap();
    let target = format!("netns:{}", path_of(&netns).display());
    let line = format!(
        "attach {target} --network blue --ip 10.77.0.5/16@10.77.0.1 --ip 10.77.9.5/24 --ip fd77::5/64@fd77::1 \
         --mac U:web --ifname net7 --name web"
    );
    let said = weft(&socket(&lab, 1), &line).done();
    assert!(said.starts_with(&format!("web: net7 in {target} is in network blue: MAC ")), "{said}");
    let made = link(&netns, "net7").unwrap();
    assert_eq!((made.mac, made.mtu), (mac_from_text("U:web").ok(), 1400));
    assert!(made.up && made.carrier, "{made:?}");
    assert_eq!(addresses(&netns, "net7"), ["10.77.0.5/16", "10.77.9.5/24", "fd77::5/64"]);
    assert_eq!(default_routes(&netns), ["10.77.0.1".parse::<IpAddr>().unwrap(), "fd77::1".parse().unwrap()]);
    assert_eq!(place::links(&lab.host(1).netns), ["eth0", "lo"], "the TAP has left the host's namespace");
    let told = port(&lab, 1, "web").unwrap();
    assert_eq!((told.mac, told.mtu, told.state.as_str(), told.origin.as_str()), (made.mac, 1400, "up", "attach"));
    assert_eq!((told.target.as_str(), told.ifname.as_str(), told.network.as_str()), (&*target, "net7", "blue"));

    // By its process on the other host, with a made-up address and as JSON; and then they reach each other.
    let other = Sleeper::new();
    let line = format!("attach pid:{} --network blue --ip 10.77.0.6/16 --ip fd77::6/64 --json", other.pid());
    let told: PortStatus = weft(&socket(&lab, 2), &line).json();
    assert_eq!((told.name.clone(), told.ifname.as_str()), (format!("pid:{}:eth1", other.pid()), "eth1"));
    let mac = told.mac.unwrap();
    assert!(!mac.is_group() && mac.0[0] & 2 != 0, "{mac} is a local address");
    assert_eq!(link(&other.netns(), "eth1").unwrap().mac, Some(mac));
    ping(&netns, "10.77.0.6");
    ping(&other.netns(), "fd77::5");

    // The host itself may have a port too.
    weft(&socket(&lab, 2), "attach host --network blue --ifname blue0 --ip 10.77.0.7/16").done();
    assert_eq!(place::links(&lab.host(2).netns), ["blue0", "eth0", "lo"]);
    ping(&netns, "10.77.0.7");
    ping(&lab.host(2).netns, "10.77.0.6");

    // By target where it has one port, by name, and by target and interface where it has several.
    weft(&socket(&lab, 1), &format!("attach {target} --network lab")).done();
    assert_eq!(weft(&socket(&lab, 1), &format!("detach {target} --ifname net7")).done(), "port web detached\n");
    assert_eq!(place::links(&netns), ["eth1", "lo"]);
    assert!(default_routes(&netns).is_empty());
    weft(&socket(&lab, 1), &format!("detach {target}")).done();
    assert_eq!(place::links(&netns), ["lo"]);
    weft(&socket(&lab, 2), &format!("detach pid:{}:eth1", other.pid())).done();
    weft(&socket(&lab, 2), "detach host").done();
    assert_eq!(place::links(&lab.host(2).netns), ["eth0", "lo"]);
    assert!(ports(&lab, 1).is_empty() && ports(&lab, 2).is_empty());
    let status: Status = weft(&socket(&lab, 2), "status --json").json();
    assert_eq!((status.ports, status.warnings), (0, vec![]));
}

#[test]
fn the_other_hosts_containers_hear_of_an_address_and_of_its_move() {
    if !place::usable() {
        return;
    }
    let lab = blue(2, 1);
    let listener = &lab.container(2, 1).netns;
    lab.container(1, 1).ping(lab.container(2, 1).v4.into(), 56, common::SOON).unwrap();
    let heard = listen(listener);
    let (first, second) = (Sleeper::new(), Sleeper::new());
    let attach = |h: usize, pid: u32, mac: &str| {
        let line = format!("attach pid:{pid} --network lab --mac {mac} --ip 10.32.9.9/16 --ip fd00:32::9:9/64");
        weft(&socket(&lab, h), &line).done();
    };
    let announced = |mac: &str| {
        let mac = mac_from_text(mac).unwrap();
        let v6 = "fd00:32::9:9".parse().unwrap();
        vec![announce::gratuitous_arp(mac, [10, 32, 9, 9].into()), announce::unsolicited_advertisement(mac, v6)]
    };
    attach(1, first.pid(), "02:00:00:00:09:01");
    hear(&heard, announced("02:00:00:00:09:01"));
    ping(listener, "10.32.9.9");
    ping(listener, "fd00:32::9:9");

    // The address moves to another host and another MAC address: who remembers the old one learns the new one.
    weft(&socket(&lab, 1), &format!("detach pid:{}", first.pid())).done();
    attach(2, second.pid(), "02:00:00:00:09:02");
    hear(&heard, announced("02:00:00:00:09:02"));
    ping(listener, "10.32.9.9");
    ping(listener, "fd00:32::9:9");
    ping(&lab.container(1, 1).netns, "10.32.9.9");
}

/// `weft LINE` running inside a namespace.
fn start(netns: &Netns, socket: &Path, line: &str) -> Child {
    let mut command = cli::command(socket, line);
    process::inside(netns, &mut command).unwrap();
    process::die_with_us(&mut command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(line: &str, child: Child) -> cli::Said {
    cli::said(line, &child.wait_with_output().unwrap())
}

#[test]
fn attach_waits_for_a_target_and_a_container_for_its_interface() {
    if !place::usable() {
        return;
    }
    let lab = blue(1, 0);
    let (here, sleeper) = (Netns::create().unwrap(), Sleeper::new());
    let path = lab.dir().join("later");
    let line = format!("attach netns:{} --network blue --ifname eth3 --wait=30 --json", path.display());
    let mut attach = start(&here, &socket(&lab, 1), &line);
    let mut wait = start(&sleeper.netns(), Path::new("/none"), "wait -i eth3");
    // Nothing is there yet, so both wait; what they wait for is asked for a few times meanwhile.
    for _ in 0..3 {
        assert!(ports(&lab, 1).is_empty());
        let said = weft(&socket(&lab, 1), &format!("attach netns:{} --network blue", path.display())).refused();
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
    assert!(attach.try_wait().unwrap().is_none() && wait.try_wait().unwrap().is_none());
    symlink(sleeper.path(), &path).unwrap();
    let made: PortStatus = finish(&line, attach).json();
    assert_eq!((made.state.as_str(), made.ifname.as_str()), ("up", "eth3"));
    assert_eq!(finish("wait -i eth3", wait).done(), "");

    // Whoever waits in vain is told, within the time given.
    let begun = Instant::now();
    let said = finish("wait", start(&sleeper.netns(), Path::new("/none"), "wait -i eth9 --timeout 1")).refused();
    assert!(said.contains("eth9") && said.contains("1 second"), "{said}");
    let said = weft(&socket(&lab, 1), "attach netns:/no/such --network blue --wait=1").refused();
    assert!(said.contains("/no/such"), "{said}");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    // What waiting cannot mend is refused at once.
    let begun = Instant::now();
    weft(&socket(&lab, 1), "attach netns:/etc/passwd --network blue --wait=300").refused();
    weft(&socket(&lab, 1), "attach host --network red --wait=300").refused();
    assert!(begun.elapsed() < Duration::from_secs(60));
}

/// A cable into a namespace whose end here goes when the namespace does.
fn tie(lab: &Lab, sleeper: &Sleeper, name: &str) {
    let netns = sleeper.netns();
    inside(&lab.host(1).netns, |netlink| netlink.add_veth(name, "tie", Some(&netns)).unwrap());
}

fn cut(lab: &Lab, name: &str) {
    eventually("the namespace is gone", || link(&lab.host(1).netns, name).is_none().then_some(()));
}

#[test]
fn a_port_goes_with_its_namespace_also_after_a_restart() {
    if !place::usable() {
        return;
    }
    let mut lab = blue(1, 1);
    let doomed = [Sleeper::new(), Sleeper::new()];
    let [first, second] = doomed.each_ref().map(|sleeper| format!("pid:{}:eth1", sleeper.pid()));
    for (sleeper, name) in doomed.iter().zip(["tie0", "tie1"]) {
        weft(&socket(&lab, 1), &format!("attach pid:{} --network lab", sleeper.pid())).done();
        tie(&lab, sleeper, name);
    }
    let [one, two] = doomed;
    assert!(port(&lab, 1, &first).is_some() && port(&lab, 1, &second).is_some());
    one.end();
    eventually("the port is gone", || port(&lab, 1, &first).is_none().then_some(()));
    cut(&lab, "tie0");
    assert!(port(&lab, 1, &second).is_some());

    // Taken over by the next daemon, which then is the only one that has the namespace open.
    let mac = port(&lab, 1, &second).unwrap().mac;
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    lab.start_daemon(1, &Stop::default()).unwrap();
    assert_eq!(port(&lab, 1, &second).unwrap().mac, mac);
    two.end();
    eventually("the port is gone", || port(&lab, 1, &second).is_none().then_some(()));
    cut(&lab, "tie1");

    // And while no daemon was there.
    let three = Sleeper::new();
    weft(&socket(&lab, 1), &format!("attach pid:{} --network lab", three.pid())).done();
    tie(&lab, &three, "tie2");
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    three.end();
    cut(&lab, "tie2");
    lab.start_daemon(1, &Stop::default()).unwrap();
    let left: Vec<_> = ports(&lab, 1).into_iter().map(|port| port.name).collect();
    assert_eq!(left, ["c1"]);
    assert_eq!(place::links(&lab.host(1).netns), ["eth0", "lo"]);
}

#[test]
fn a_port_of_the_file_waits_for_its_namespace_and_comes_back_with_it() {
    if !place::usable() {
        return;
    }
    place::with_own_mounts(|| {
        let first = Sleeper::new();
        let mut spec = spec(1, 0);
        let path = spec.base.join(&spec.name).join("ns-web");
        let (path_text, pid) = (path.display(), first.pid());
        spec.extra_config = format!(
            "{BLUE}static = [{{ mac = \"02:00:00:00:77:05\", port = \"web\" }}]\n\
             [[port]]\nname = \"web\"\nnetwork = \"blue\"\ntarget = \"netns:{path_text}\"\nip = [\"10.77.0.5/16\"]\n\
             mac = \"U:web\"\n[[port]]\nnetwork = \"blue\"\ntarget = \"pid:{pid}\"\nip = [\"10.77.0.8/16\"]\n"
        );
        let lab = lab(spec);
        let from = Netns::create().unwrap();
        let line = format!("attach netns:{} --network blue --ip 10.77.0.6/16", path_of(&from).display());
        weft(&socket(&lab, 1), &line).done();

        let waits = |part: &str| {
            let state = eventually("the port waits", || {
                Some(port(&lab, 1, "web")?.state).filter(|state| state.contains(part))
            });
            assert!(state.starts_with("waiting: "), "{state}");
            let status: Status = weft(&socket(&lab, 1), "status --json").json();
            assert!(status.warnings.iter().any(|warning| warning.starts_with("port web waits: ")), "{status:?}");
        };
        let up = |name: &str| {
            eventually("the port is up", || Some(port(&lab, 1, name)?.state).filter(|state| state == "up"));
        };
        waits(path.to_str().unwrap());
        let by_pid = format!("pid:{pid}:eth1");
        up(&by_pid);
        ping(&from, "10.77.0.8");

        // As `ip netns add` has it: a file with the namespace mounted on it.
        std::fs::write(&path, "").unwrap();
        waits("is not a network namespace");
        for _ in 0..2 {
            let held = Netns::create().unwrap();
            place::bind(&path_of(&held), &path);
            up("web");
            let mac = mac_from_text("U:web").ok();
            assert_eq!(link(&held, "eth1").unwrap().mac, mac);
            ping(&from, "10.77.0.5");
            assert_eq!(port(&lab, 1, "web").unwrap().mac, mac);
            place::unmount(&path);
            drop(held);
            waits("is not a network namespace");
        }
        first.end();
        eventually("the process is gone", || port(&lab, 1, &by_pid).filter(|p| p.state.starts_with("waiting")));
        assert_eq!(place::links(&lab.host(1).netns), ["eth0", "lo"]);
    });
}

#[test]
fn an_interface_removed_by_hand_is_a_port_that_is_gone() {
    if !place::usable() {
        return;
    }
    let lab = blue(1, 0);
    let sleeper = Sleeper::new();
    weft(&socket(&lab, 1), &format!("attach pid:{} --network blue --name hand", sleeper.pid())).done();
    let netns = sleeper.netns();
    let index = link(&netns, "eth1").unwrap().index;
    inside(&netns, |netlink| netlink.delete(index).unwrap());
    eventually("the port is gone", || port(&lab, 1, "hand").is_none().then_some(()));
    weft(&socket(&lab, 1), &format!("attach pid:{} --network blue --name hand", sleeper.pid())).done();
    assert!(link(&netns, "eth1").is_some());
}

#[test]
fn a_restart_leaves_a_port_of_the_file_as_it_is_unless_the_file_has_changed() {
    if !place::usable() {
        return;
    }
    let sleeper = Sleeper::new();
    let table = format!(
        "[[port]]\nname = \"web\"\nnetwork = \"blue\"\ntarget = \"pid:{}\"\nip = [\"10.77.0.5/16@10.77.0.1\"]\n",
        sleeper.pid()
    );
    let mut lab = lab(weft::lab::spec::LabSpec { extra_config: format!("{BLUE}{table}"), ..spec(1, 0) });
    let netns = sleeper.netns();
    let up = |lab: &Lab| eventually("the port is up", || port(lab, 1, "web").filter(|port| port.state == "up"));
    let restart = |lab: &mut Lab, from: &str, to: &str| {
        lab.kill_daemon(1, libc::SIGKILL).unwrap();
        let config = lab.host(1).files.config();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace(from, to)).unwrap();
        lab.start_daemon(1, &Stop::default()).unwrap();
    };
    let mac = up(&lab).mac;
    let made = link(&netns, "eth1").unwrap();
    restart(&mut lab, "", "");
    assert_eq!(port(&lab, 1, "web").unwrap().state, "up", "it does not have to be looked for");
    assert_eq!(link(&netns, "eth1").unwrap(), made);
    assert_eq!(default_routes(&netns), ["10.77.0.1".parse::<IpAddr>().unwrap()]);

    // Another MTU is set; another address makes another interface; a port that is gone from the file goes.
    restart(&mut lab, "mtu = 1400", "mtu = 1300");
    assert_eq!(up(&lab).mac, mac);
    let narrow = link(&netns, "eth1").unwrap();
    assert_eq!((narrow.index, narrow.mtu), (made.index, 1300));
    restart(&mut lab, "10.77.0.5/16", "10.77.0.6/16");
    up(&lab);
    assert_eq!(addresses(&netns, "eth1"), ["10.77.0.6/16"]);
    restart(&mut lab, &table.replace("10.77.0.5/16", "10.77.0.6/16"), "");
    assert_eq!(place::links(&netns), ["lo"]);
    assert!(ports(&lab, 1).is_empty());
}
