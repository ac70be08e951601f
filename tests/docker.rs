//! weft as Docker's network and IPAM driver, driven by real dockerds: two of them, each on a host of a lab with a weft daemon of its
//! own, started, stopped, killed and started again.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::cli::weft;
use common::docker::{Docker, PROGRAMS};
use common::engine::{IMAGE, text, with_engines};
use common::place::{self, spec};
use common::{SOON, eventually};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use weft::control::request::{LeaseStatus, NameStatus, PortStatus};
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::spec::LabSpec;
use weft::lab::{Lab, Stop, process};

/// The weft networks, and who gives which addresses of them; HOST is the host's number.
const CONFIG: &str = r#"
[docker]
enabled = true
socket = "/run/docker-of-hHOST/run/plugins/weft.sock"
engine = "/run/docker-of-hHOST/docker.sock"

[[network]]
name = "blue"
vni = 300
subnets = ["10.99.0.0/16", "fd00:99::/64"]
slice = ["10.99.HOST.0/24", "fd00:99::HOST:0/112"]

[[network]]
name = "red"
vni = 301
mtu = 1400
subnets = ["10.98.0.0/16"]
slice = ["10.98.HOST.0/24"]
"#;
/// Both ways to name a network; Docker wants to hear the subnet from whoever wants to say `--ip`.
const BLUE: &str = "network create -d weft --ipam-driver weft --subnet 10.99.0.0/16 -o network=blue";
const ANY_BLUE: &str = "network create -d weft --ipam-driver weft --ipam-opt network=blue -o network=blue";

/// Two hosts with a weft each, and a dockerd each.
struct World {
    one: Docker,
    two: Docker,
    lab: Lab,
}

impl World {
    fn new(image: &Path, arguments: &[&str]) -> Result<Self, String> {
        let mut lab = Lab::lay(LabSpec { extra_config: CONFIG.to_owned(), ..spec(2, 0) }).unwrap();
        for (host, number) in lab.hosts().iter().zip(1..) {
            let text = fs::read_to_string(host.files.config()).unwrap();
            fs::write(host.files.config(), text.replace("HOST", &number.to_string())).unwrap();
        }
        lab.start_daemons(&Stop::default()).unwrap();
        let (one, two) = (Docker::start(&lab, 1, image, arguments)?, Docker::start(&lab, 2, image, arguments)?);
        Ok(Self { one, two, lab })
    }

    fn ports(&self, h: usize) -> Vec<PortStatus> {
        weft(&self.lab.host(h).files.socket(), "ports --json").json()
    }

    fn leases(&self, h: usize) -> Vec<LeaseStatus> {
        let name = self.lab.host(h).name.clone();
        let leases: Vec<LeaseStatus> = weft(&self.lab.host(h).files.socket(), "leases --json").json();
        leases.into_iter().filter(|lease| lease.member == name).collect()
    }

    /// Nothing of Docker is left on either host.
    #[track_caller]
    fn clean(&self) {
        for h in [1, 2] {
            let left = || {
                let mut left: Vec<String> = self.ports(h).into_iter().map(|port| port.name).collect();
                left.extend(self.leases(h).into_iter().map(|lease| format!("{lease:?}")));
                left.extend(place::links(&self.lab.host(h).netns).into_iter().filter(|name| name.starts_with("wd")));
                left
            };
            let deadline = Instant::now() + SOON;
            while !left().is_empty() {
                assert!(Instant::now() < deadline, "left on h{h}: {:?}", left());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn restart_weft(&mut self, h: usize, signal: i32) {
        self.lab.kill_daemon(h, signal).unwrap();
        self.lab.start_daemon(h, &Stop::default()).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in self.lab.hosts() {
                println!("--- weft of {}:\n{}", host.name, process::last_words(&host.files.log(), 40));
            }
        }
    }
}

fn ping(from: &Netns, to: IpAddr) {
    Pinger::open(from, to, None).unwrap().until(56, SOON).unwrap();
}

/// Waits until a container is told the address of another by its name.
fn is_told(docker: &Docker, asker: &str, name: &str, address: &str) {
    let name = format!("{name}.blue.weft");
    let address = format!("Address: {address}\n");
    eventually(&format!("{name} is answered"), || {
        let output = docker.command(&["exec", asker, "/bin/nslookup", &name, "10.99.0.1"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&address).then_some(())
    });
}

fn with_docker(arguments: &[&str], test: impl FnOnce(World) + Send) {
    with_engines(&PROGRAMS, |image| World::new(image, arguments).map(test));
}

#[test]
fn containers_of_two_dockers_share_a_network() {
    with_docker(&[], |world| {
        let (one, two) = (&world.one, &world.two);
        // What is wrong is said so.
        for (line, part) in [
            ("network create -d weft --ipam-driver weft --ipam-opt network=blue lan", "-o network=NAME"),
            (
                "network create -d weft --ipam-driver weft --ipam-opt network=blue -o network=bleu lan",
                "no network 'bleu'",
            ),
            ("network create -d weft --ipam-driver weft -o network=blue lan", "--ipam-opt network=NAME"),
            ("network create -d weft --ipam-driver weft --ipam-opt net=blue -o network=blue lan", "'net'"),
            (
                "network create -d weft --ipam-driver weft --ipam-opt network=blue -o network=blue -o icc=false lan",
                "'icc'",
            ),
            ("network create -d weft --ipam-driver weft --subnet 10.1.0.0/16 -o network=blue lan", "no subnet"),
        ] {
            let said = one.refused(line);
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
        one.run(&format!("{BLUE} lan"));
        two.run("network create -d weft --ipam-driver weft --ipv6 --subnet 10.99.0.0/16 --subnet fd00:99::/64 -o network=blue other");
        one.container("web", "--network lan");
        two.container_with_mac("db", "02:00:00:00:77:77", "other", "10.99.7.7", "fd00:99::7:7");
        assert!(one.address("web", "lan").to_string().starts_with("10.99.1."), "not of this host's slice");
        assert!(one.run("exec web /bin/ping -c 1 -w 20 10.99.7.7").contains("1 packets received"));
        ping(&two.netns("db"), one.address("web", "lan"));
        // The name is Docker's, the MAC address ours to see, and docker_gwbridge leads out.
        assert_eq!(place::links(&one.netns("web")), ["eth0", "eth1", "lo"]);
        let db = eventually("the port is where Docker moved it", || {
            world.ports(2).into_iter().find(|port| port.ifname == "eth0")
        });
        assert_eq!((db.mac.unwrap().to_string().as_str(), db.origin.as_str()), ("02:00:00:00:77:77", "docker"));
        assert_eq!(place::link(&two.netns("db"), "eth0").unwrap().mac, db.mac);
        // An address is one container's in all of the mesh.
        let said = one.refused(&format!("run --rm --network lan --ip 10.99.7.7 {IMAGE} /bin/sleep 1"));
        assert!(said.contains("h2"), "{said}");
        let said = two.refused(&format!("run --rm --network other --ip 10.99.7.7 {IMAGE} /bin/sleep 1"));
        assert!(said.contains("a running container"), "{said}");

        // Another network, while it runs; with an MTU of its own, and nothing leads out of it.
        one.run("network create -d weft --ipam-driver weft --subnet 10.98.0.0/16 -o network=red -o mtu=1300 --internal back");
        two.run("network create -d weft --ipam-driver weft --subnet 10.98.0.0/16 -o network=red --internal back");
        one.run("network connect --ip 10.98.7.1 back web");
        two.run("network connect back db");
        ping(&one.netns("web"), two.address("db", "back"));
        assert_eq!(world.ports(1).len(), 2);
        let mtu = |docker: &Docker, ifname: &str| place::link(&docker.netns("web"), ifname).unwrap().mtu;
        assert_eq!((mtu(one, "eth0"), mtu(one, "eth2")), (1500, 1300));
        one.container("inner", "--network back");
        assert_eq!(place::links(&one.netns("inner")), ["eth0", "lo"], "it has a way out");
        one.run("network disconnect back web");
        assert_eq!(place::links(&one.netns("web")), ["eth0", "eth1", "lo"]);
        one.run("network connect --ip 10.98.7.1 back web");
        ping(&two.netns("db"), "10.98.7.1".parse().unwrap());

        // What containers are called is known on the other host, and answered there by the network itself.
        one.container("mail", "--network lan --network-alias smtp --hostname mx");
        two.container("client", "--network other --dns 10.99.0.1 --link db:database");
        let names = |h: usize, whose: &str| -> Vec<String> {
            let names: Vec<NameStatus> = weft(&world.lab.host(h).files.socket(), "names --json").json();
            names
                .into_iter()
                .filter(|name| name.network == "blue" && name.member == whose)
                .map(|name| name.name)
                .collect()
        };
        eventually("names are known on the other host", || {
            let (of_one, of_two) = (names(2, "h1"), names(1, "h2"));
            let all = ["web", "mail", "smtp", "mx"].iter().all(|name| of_one.iter().any(|known| known == name));
            (all && ["db", "database"].iter().all(|name| of_two.iter().any(|known| known == name))).then_some(())
        });
        let said = two.run("exec client /bin/ping -c 1 -w 20 smtp.blue.weft.");
        assert!(said.contains("1 packets received"), "{said}");
        one.run("rename mail post");
        eventually("the new name is known", || names(2, "h1").contains(&"post".to_owned()).then_some(()));
        one.run("rm -f post");
        two.run("rm -f client");
        eventually("names of what is gone are gone", || {
            let gone = |name: &str| !names(2, "h1").iter().any(|known| known == name);
            (gone("post") && gone("smtp") && !names(1, "h2").contains(&"database".to_owned())).then_some(())
        });

        // Published by docker_gwbridge.
        let serve = "while true; do echo hello | nc -l -p 80; done";
        let line =
            ["run", "-d", "--name", "front", "--network", "lan", "-p", "8080:80", IMAGE, "/bin/sh", "-c", serve];
        text(&one.command(&line).output().unwrap());
        let hello = |port: u16| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            let mut said = String::new();
            stream.read_to_string(&mut said).ok()?;
            (said == "hello\n").then_some(())
        };
        let answers = |port| world.lab.host(1).netns.run(|| eventually("the published port answers", || hello(port)));
        answers(8080).unwrap();
        // And by weft, where it leads out.
        one.run(&format!("{BLUE} -o gateway=weft out"));
        let line =
            ["run", "-d", "--name", "porch", "--network", "out", "-p", "8090:80", IMAGE, "/bin/sh", "-c", serve];
        text(&one.command(&line).output().unwrap());
        answers(8090).unwrap();
        let said = one.refused(&format!("run --rm --network out -p 8090:80 {IMAGE} /bin/true"));
        assert!(said.contains("8090") && said.contains("published"), "{said}");
        let said = one.refused(&format!("run --rm --network out -p 80 {IMAGE} /bin/true"));
        assert!(said.contains("weft chooses no port"), "{said}");
        one.run("restart -t 0 porch");
        answers(8090).unwrap();
        one.run("rm -f porch");
        let refused = world.lab.host(1).netns.run(|| TcpStream::connect("127.0.0.1:8090")).unwrap();
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        one.run("network rm out");

        for (docker, names) in [(one, "web inner front"), (two, "db")] {
            docker.run(&format!("rm -f {names}"));
        }
        one.run("network rm lan back");
        two.run("network rm other back");
        world.clean();
    });
}

#[test]
fn restarts_and_kills_leave_nothing_behind_and_cut_nothing_that_lives() {
    with_docker(&[], |mut world| {
        for docker in [&world.one, &world.two] {
            docker.run(&format!("{BLUE} lan"));
        }
        world.one.container("web", "--network lan --ip 10.99.7.1 --restart always");
        world.two.container("db", "--network lan --ip 10.99.7.2");
        let (web, db): (IpAddr, IpAddr) = ("10.99.7.1".parse().unwrap(), "10.99.7.2".parse().unwrap());
        ping(&world.two.netns("db"), web);

        // weft is stopped, then killed: running containers stay as they are, also one that it had no time to look at.
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            world.two.container("fresh", "--network lan --ip 10.99.7.3");
            world.restart_weft(2, signal);
            ping(&world.two.netns("db"), web);
            ping(&world.one.netns("web"), "10.99.7.3".parse().unwrap());
            // And they are called what they were.
            is_told(&world.one, "web", "db", "10.99.7.2");
            is_told(&world.one, "web", "fresh", "10.99.7.3");
            world.two.run("rm -f fresh");
            assert_eq!(world.ports(2).len(), 1);
        }
        // What has gone while weft was away is found out, and free.
        world.two.container("fresh", "--network lan --ip 10.99.7.3");
        world.lab.kill_daemon(2, libc::SIGKILL).unwrap();
        let id = world.two.run("inspect -f {{.State.Pid}} fresh");
        // SAFETY: a signal to a process that this test started.
        unsafe { libc::kill(id.parse().unwrap(), libc::SIGKILL) };
        world.lab.start_daemon(2, &Stop::default()).unwrap();
        eventually("the address is free again", || {
            let _ = world.two.command(&["rm", "-f", "fresh"]).output();
            let line = format!("run -d --name fresh --network lan --ip 10.99.7.3 {IMAGE} /bin/sleep 900");
            let arguments: Vec<&str> = line.split_whitespace().collect();
            world.two.command(&arguments).output().unwrap().status.success().then_some(())
        });
        ping(&world.one.netns("web"), "10.99.7.3".parse().unwrap());

        // dockerd is stopped and started, then killed and started: the container comes back with its address, each time.
        for kill in [false, true, true] {
            if kill {
                world.one.kill();
            } else {
                world.one.stop();
            }
            world.one.start_again(&world.lab, &[]);
            eventually("the container runs again", || {
                let output = world.one.command(&["inspect", "-f", "{{.State.Running}}", "web"]).output().unwrap();
                (String::from_utf8_lossy(&output.stdout).trim() == "true").then_some(())
            });
            assert_eq!(world.one.address("web", "lan"), web);
            ping(&world.two.netns("db"), web);
            is_told(&world.two, "db", "web", "10.99.7.1");
            eventually("one port is left", || (world.ports(1).len() == 1).then_some(()));
        }

        // Killed, and its container with it, while its address is asked for again as soon as it is back.
        let pid = world.two.run("inspect -f {{.State.Pid}} db");
        world.two.kill();
        // SAFETY: as above.
        unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
        world.two.start_again(&world.lab, &[]);
        world.two.container("db2", "--network lan --ip 10.99.7.2");
        ping(&world.one.netns("web"), db);

        // From one host to the other, with its address: at once.
        let watcher = world.two.netns("db2");
        for _ in 0..3 {
            world.one.run("rm -f web");
            world.two.container("web", "--network lan --ip 10.99.7.1");
            ping(&watcher, web);
            world.two.run("rm -f web");
            world.one.container("web", "--network lan --ip 10.99.7.1");
            ping(&watcher, web);
        }
        world.one.run("rm -f web");
        world.two.run("rm -f db db2 fresh");
        for docker in [&world.one, &world.two] {
            docker.run("network rm lan");
        }
        world.clean();
    });
}

#[test]
fn containers_outlive_a_docker_with_live_restore() {
    with_docker(&["--live-restore"], |mut world| {
        for docker in [&world.one, &world.two] {
            docker.run(&format!("{BLUE} lan"));
        }
        world.one.container("web", "--network lan --ip 10.99.7.1");
        world.two.container("db", "--network lan --ip 10.99.7.2");
        let (web, netns) = ("10.99.7.1".parse().unwrap(), world.one.netns("web"));
        for kill in [false, true] {
            if kill {
                world.one.kill();
            } else {
                world.one.stop();
            }
            ping(&world.two.netns("db"), web);
            world.restart_weft(1, libc::SIGKILL);
            ping(&world.two.netns("db"), web);
            world.one.start_again(&world.lab, &["--live-restore"]);
            assert_eq!(world.one.netns("web").id(), netns.id());
            ping(&world.two.netns("db"), web);
            is_told(&world.two, "db", "web", "10.99.7.1");
            let said = world.one.refused(&format!("run --rm --network lan --ip 10.99.7.1 {IMAGE} /bin/sleep 1"));
            assert!(said.contains("a running container"), "{said}");
        }
        drop(netns);
        for (docker, name) in [(&world.one, "web"), (&world.two, "db")] {
            docker.run(&format!("rm -f {name}"));
            docker.run("network rm lan");
        }
        world.clean();
    });
}

#[test]
fn twenty_containers_start_at_once() {
    with_docker(&[], |world| {
        for docker in [&world.one, &world.two] {
            docker.run(&format!("{ANY_BLUE} lan"));
        }
        std::thread::scope(|scope| {
            for docker in [&world.one, &world.two] {
                for n in 0..10 {
                    scope.spawn(move || docker.container(&format!("c{n}"), "--network lan"));
                }
            }
        });
        let mut addresses = Vec::new();
        for docker in [&world.one, &world.two] {
            addresses.extend((0..10).map(|n| docker.address(&format!("c{n}"), "lan")));
        }
        let from = world.one.netns("c0");
        addresses.iter().skip(1).for_each(|&address| ping(&from, address));
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 20);
        let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
        for docker in [&world.one, &world.two] {
            docker.run(&format!("rm -f {}", names.join(" ")));
            docker.run("network rm lan");
        }
        world.clean();
    });
}
