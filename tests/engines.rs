//! Real container engines: `weft attach NAME` finds a container of dockerd, and of Podman with and without its service.
//!
//! Each test has a mount namespace of its own with an empty /run and Podman storage, and starts the engines by hand, so
//! that it meets no engine of the machine and leaves nothing. Containers run a static busybox, imported from a
//! directory; they have no network but the one weft gives them.

#![allow(clippy::unwrap_used)]

mod common;

use common::cli::weft;
use common::docker::{Docker, PROGRAMS};
use common::engine::{IDLE, IMAGE, Podman, text, with_engines};
use common::eventually;
use common::place::{self, spec};
use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use weft::control::request::PortStatus;
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::spec::LabSpec;
use weft::lab::{Lab, Stop, process};

fn socket(lab: &Lab, h: usize) -> PathBuf {
    lab.host(h).files.socket()
}

fn port(lab: &Lab, h: usize, name: &str) -> Option<PortStatus> {
    let ports: Vec<PortStatus> = weft(&socket(lab, h), "ports --json").json();
    ports.into_iter().find(|port| port.name == name)
}

fn gone(lab: &Lab, h: usize, name: &str) {
    eventually("the port is gone", || port(lab, h, name).is_none().then_some(()));
}

/// The port waits, for this reason.
fn waits(lab: &Lab, h: usize, name: &str, why: &str) {
    eventually(why, || {
        port(lab, h, name).filter(|port| port.state.starts_with("waiting") && port.state.contains(why))
    });
}

fn up(lab: &Lab, h: usize, name: &str) -> PortStatus {
    eventually("the port is up", || port(lab, h, name).filter(|port| port.state == "up"))
}

fn ping(from: &Netns, to: &str) {
    let to: IpAddr = to.parse().unwrap();
    Pinger::open(from, to, None).unwrap().until(56, common::SOON).unwrap();
}

/// A lab whose hosts ask these sockets, in which HOST is the host's name.
fn asking(sockets: &[&str], spec: LabSpec) -> Lab {
    let extra_node = format!("container_sockets = {sockets:?}");
    let mut lab = Lab::lay(LabSpec { extra_node, ..spec }).unwrap();
    for host in lab.hosts() {
        let text = fs::read_to_string(host.files.config()).unwrap();
        fs::write(host.files.config(), text.replace("HOST", &host.name)).unwrap();
    }
    lab.start_daemons(&Stop::default()).unwrap();
    lab.attach_all().unwrap();
    lab
}

#[test]
fn docker_containers_on_two_hosts_reach_each_other() {
    with_engines(&PROGRAMS, |image| {
        let waiting =
            "\n[[port]]\nname = \"later\"\nnetwork = \"lab\"\ntarget = \"later\"\nip = [\"10.32.7.7/16\"]\n";
        let spec = LabSpec { extra_config: waiting.to_owned(), ..spec(2, 0) };
        let lab = asking(&["/run/docker-of-HOST/docker.sock"], spec);
        let (one, two) = (Docker::start(&lab, 1, image, &[])?, Docker::start(&lab, 2, image, &[])?);
        let id = one.container("web", "--network none");
        let other = two.container("db", "--network none");

        // By name, and by the beginning of the id; IPv6 too, which Docker switches off where it has no network.
        let attach = |h, line: &str| weft(&socket(&lab, h), &format!("attach {line} --network lab")).done();
        attach(1, "web --ip 10.32.7.1/16 --ip fd00:32::7:1/64");
        attach(2, &format!("{} --ip 10.32.7.2/16 --ip fd00:32::7:2/64 --ifname net0", &other[..12]));
        assert_eq!(port(&lab, 1, "web:eth1").unwrap().target, "web");
        assert_eq!(port(&lab, 2, &format!("{}:net0", &other[..12])).unwrap().state, "up");
        assert!(one.run("exec web /bin/ping -c 1 -w 20 10.32.7.2").contains("1 packets received"));
        ping(&two.netns("db"), "fd00:32::7:1");

        // A container of the other host is none of ours; one that has ended cannot be attached.
        let said = weft(&socket(&lab, 1), "attach db --network lab").refused();
        assert!(said.contains("no container 'db'") && said.contains("docker-of-h1"), "{said}");
        let said = weft(&socket(&lab, 1), &format!("attach {id} --network lab")).refused();
        assert!(said.contains("eth1 already exists"), "{said}");

        // The port waits while the container does not run, and is there when it does.
        one.run("kill web");
        waits(&lab, 1, "web:eth1", "not running");
        let said = weft(&socket(&lab, 1), "attach web --network lab").refused();
        assert!(said.contains("'web'") && said.contains("not running (it is exited)"), "{said}");
        one.run("start web");
        up(&lab, 1, "web:eth1");
        ping(&one.netns("web"), "10.32.7.2");

        // A port of the file comes with its container, every time.
        let state = |part: &str| eventually(part, || port(&lab, 1, "later").filter(|port| port.state.contains(part)));
        state("no container 'later'");
        one.container("later", "--network none");
        state("up");
        ping(&two.netns("db"), "10.32.7.7");
        one.run("kill later");
        state("not running");
        one.run("start later");
        state("up");
        ping(&two.netns("db"), "10.32.7.7");

        // The engine stops, and the containers with it.
        drop(one);
        state("no container engine answers");
        Ok(())
    });
}

#[test]
fn podman_containers_are_found_on_the_disk_and_by_the_service() {
    with_engines(&["podman", "tar"], |image| {
        let service_socket = "/run/podman-of-HOST.sock";
        let lab = asking(&[service_socket], spec(2, 1));
        let podman = Podman::start(image);
        let id = podman.container("pod", &[]);
        let brief = podman.container("brief", &["--rm"]);
        let attach = |h, line: &str| weft(&socket(&lab, h), &format!("attach {line} --network lab")).done();
        // No service runs: names, beginnings of ids, and containers that are removed when they end.
        attach(1, "pod --ip 10.32.7.1/16 --ip fd00:32::7:1/64");
        attach(2, &format!("{} --ip 10.32.7.2/16 --ip fd00:32::7:2/64", &brief[..10]));
        ping(&podman.netns("pod"), "10.32.7.2");
        ping(&podman.netns("brief"), "fd00:32::7:1");
        ping(&podman.netns("brief"), &lab.container(1, 1).v4.to_string());
        let said = weft(&socket(&lab, 1), "attach nobody --network lab").refused();
        assert!(said.contains("no container 'nobody'") && said.contains("Podman's storage"), "{said}");

        podman.run(&["kill", "pod"]);
        waits(&lab, 1, "pod:eth1", "not running (it is stopped)");
        let said = weft(&socket(&lab, 1), "attach pod --network lab").refused();
        assert!(said.contains("'pod'") && said.contains("not running (it is stopped)"), "{said}");
        weft(&socket(&lab, 1), "detach pod").done();
        let said = weft(&socket(&lab, 1), &format!("attach {id} --network lab")).refused();
        assert!(said.contains("not running"), "{said}");
        podman.run(&["kill", "brief"]);
        gone(&lab, 2, &format!("{}:eth1", &brief[..10]));

        // Started again, and asked of the service, which knows one container by both its ways.
        podman.run(&["start", "pod"]);
        let path = service_socket.replace("HOST", "h1");
        let mut service = podman.command(&["system", "service", "--time", "0", &format!("unix://{path}")]);
        process::die_with_us(&mut service);
        let mut service = service.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the service listens", || UnixStream::connect(&path).ok());
        let said = weft(&socket(&lab, 1), "attach nobody --network lab").refused();
        assert!(said.contains(&path) && said.contains("Podman's storage"), "{said}");
        attach(1, &format!("{} --ip 10.32.7.1/16 --name again", &id[..8]));
        ping(&podman.netns("pod"), &lab.container(2, 1).v4.to_string());
        podman.run(&["kill", "pod"]);
        waits(&lab, 1, "again", "not running");
        let said = weft(&socket(&lab, 1), "attach pod --network lab").refused();
        assert!(said.contains("not running"), "{said}");
        podman.run(&["rm", "pod"]);
        gone(&lab, 1, "again");
        process::end(&mut service, common::SOON).unwrap();
        Ok(())
    });
}

#[test]
fn a_name_in_two_engines_means_the_one_that_runs_or_nothing() {
    with_engines(&["dockerd", "docker", "podman", "tar"], |image| {
        let lab = asking(&["/run/docker-of-HOST/docker.sock"], spec(1, 0));
        let docker = Docker::start(&lab, 1, image, &[])?;
        let podman = Podman::start(image);
        let ids = [docker.container("both", "--network none"), podman.container("both", &[])];
        let said = weft(&socket(&lab, 1), "attach both --network lab").refused();
        for part in [&ids[0][..12], &ids[1][..12], "docker-of-h1", "Podman's storage", "the id"] {
            assert!(said.contains(part), "'{part}' is not in: {said}");
        }
        assert_eq!(place::links(&docker.netns("both")), ["lo"]);
        assert_eq!(place::links(&podman.netns("both")), ["lo"]);
        weft(&socket(&lab, 1), &format!("attach {} --network lab", &ids[1][..12])).done();
        assert_eq!(place::links(&podman.netns("both")), ["eth1", "lo"]);
        docker.run("kill both");
        weft(&socket(&lab, 1), "attach both --network lab --ifname eth2").done();
        assert_eq!(place::links(&podman.netns("both")), ["eth1", "eth2", "lo"]);
        podman.run(&["kill", "both"]);
        waits(&lab, 1, "both:eth2", "more than one");
        let said = weft(&socket(&lab, 1), "attach both --network lab").refused();
        assert!(said.contains("more than one"), "{said}");
        Ok(())
    });
}

#[test]
fn docker_containers_of_every_network_mode_are_attached_and_come_back_when_they_are_started_again() {
    with_engines(&PROGRAMS, |image| {
        let red = "\n[[network]]\nname = \"red\"\nvni = 300\n".to_owned();
        let mut lab = asking(&["/run/docker-of-HOST/docker.sock"], LabSpec { extra_config: red, ..spec(2, 1) });
        let near = lab.container(2, 1).netns.try_clone().unwrap();
        let line =
            format!("attach netns:{} --network red --ip 10.90.0.9/16 --ifname red", place::path_of(&near).display());
        weft(&socket(&lab, 2), &line).done();
        let docker = Docker::start(&lab, 1, image, &["--bip=172.30.0.1/24"])?;
        docker.run("network create --subnet 172.31.0.0/24 own");
        let run = |name: &str, network: &str| docker.container(name, &format!("--network {network}"));
        let attach = |line: &str| {
            let network = if line.contains("10.90.") { "red" } else { "lab" };
            weft(&socket(&lab, 1), &format!("attach {line} --network {network}"))
        };
        let far = lab.container(2, 1).v4.to_string();
        for (network, number, its_own) in [("none", 1, 0), ("bridge", 2, 1), ("own", 3, 1)] {
            run(network, network);
            // Two addresses on one interface, and another interface in another network.
            attach(&format!("{network} --ip 10.32.8.{number}/16 --ip fd00:32::8:{number}/64")).done();
            attach(&format!("{network} --ip 10.90.0.{number}/16 --ifname net1")).done();
            let found = place::links(&docker.netns(network));
            assert_eq!(found.len(), 3 + its_own, "{network}: {found:?}");
            ping(&docker.netns(network), &far);
        }
        // A container in the namespace of another is attached where that is.
        run("side", "container:own");
        let said = attach("side --ip 10.32.8.4/16").refused();
        assert!(said.contains("eth1 already exists"), "{said}");
        attach("side --ip 10.32.8.4/16 --ifname net2").done();
        ping(&docker.netns("own"), &far);
        assert!(place::links(&docker.netns("own")).contains(&"net2".to_owned()));
        // The host's is not a container's.
        run("hosted", "host");
        let said = attach("hosted --ip 10.32.8.5/16").refused();
        assert!(said.contains("hosted") && said.contains("mode 'host'") && said.contains("weft expose"), "{said}");
        assert!(!place::links(&lab.host(1).netns).contains(&"eth1".to_owned()));

        // All come back, also where the daemon was away meanwhile, or comes back first.
        for (name, number) in [("none", 1), ("bridge", 2)] {
            docker.run(&format!("restart -t 0 {name}"));
            eventually("the restart is noticed", || (place::links(&docker.netns(name)).len() >= 3).then_some(()));
            for port in [format!("{name}:eth1"), format!("{name}:net1")] {
                up(&lab, 1, &port);
            }
            ping(&docker.netns(name), &far);
            ping(&near, &format!("fd00:32::8:{number}"));
            ping(&near, &format!("10.90.0.{number}"));
        }
        docker.run("kill none bridge");
        waits(&lab, 1, "none:eth1", "not running");
        waits(&lab, 1, "bridge:net1", "not running");
        lab.kill_daemon(1, libc::SIGKILL).unwrap();
        docker.run("start none");
        lab.start_daemon(1, &Stop::default()).unwrap();
        up(&lab, 1, "none:net1");
        ping(&docker.netns("none"), &lab.container(2, 1).v4.to_string());
        waits(&lab, 1, "bridge:eth1", "not running");

        // Detached while it does not run, and removed.
        weft(&socket(&lab, 1), "detach bridge:eth1").done();
        docker.run("start bridge");
        up(&lab, 1, "bridge:net1");
        assert!(port(&lab, 1, "bridge:eth1").is_none());
        docker.run("rm -f bridge");
        gone(&lab, 1, "bridge:net1");
        let ports: Vec<PortStatus> = weft(&socket(&lab, 1), "ports --json").json();
        assert!(ports.iter().all(|port| port.target != "bridge"), "{ports:?}");
        Ok(())
    });
}

#[test]
fn podman_containers_of_every_network_mode_are_attached_and_come_back_when_they_are_started_again() {
    with_engines(&["podman", "tar"], |image| {
        let lab = asking(&["/run/none.sock"], spec(2, 1));
        let podman = Podman::start(image);
        let attach = |line: &str| weft(&socket(&lab, 1), &format!("attach {line} --network lab"));
        let far = lab.container(2, 1).v4.to_string();
        podman.container("alone", &[]);
        podman.container("side", &["--network", "container:alone"]);
        attach("alone --ip 10.32.8.1/16 --ip fd00:32::8:1/64").done();
        attach("side --ip 10.32.8.2/16 --ifname net1").done();
        assert_eq!(place::links(&podman.netns("alone")), ["eth1", "lo", "net1"]);
        ping(&podman.netns("side"), &far);
        // The host's is not a container's.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let hosted = ["run", "-d", "--name", "hosted", "--network", "host"];
        let mut hosted = podman.command(&[&hosted[..], &limits, &[IMAGE], &IDLE].concat());
        process::inside(&lab.host(1).netns, &mut hosted).unwrap();
        text(&hosted.output().unwrap());
        let said = attach("hosted --ip 10.32.8.5/16").refused();
        assert!(said.contains("hosted") && said.contains("mode 'host'"), "{said}");

        podman.run(&["restart", "-t", "0", "alone"]);
        eventually("it is back", || place::links(&podman.netns("alone")).contains(&"eth1".to_owned()).then_some(()));
        up(&lab, 1, "alone:eth1");
        ping(&podman.netns("alone"), &far);
        podman.run(&["rm", "-f", "-t", "0", "side"]);
        podman.run(&["rm", "-f", "-t", "0", "alone"]);
        gone(&lab, 1, "alone:eth1");
        gone(&lab, 1, "side:net1");
        Ok(())
    });
}

#[test]
fn podman_containers_of_a_bridge_are_attached_beside_it() {
    with_engines(&["podman", "tar"], |image| {
        let lab = asking(&["/run/none.sock"], spec(2, 1));
        let podman = Podman { netns: Some(lab.host(1).netns.try_clone().unwrap()), settings: None };
        podman.import(image);
        let made = podman.try_container("bridged", &["--network", "bridge"]);
        if !made.status.success() {
            return Err(format!("Podman makes no bridge here: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let own = podman.run(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "bridged"]);
        assert_eq!(place::links(&podman.netns("bridged")), ["eth0", "lo"]);
        weft(&socket(&lab, 1), "attach bridged --network lab --ip 10.32.8.1/16 --ip fd00:32::8:1/64").done();
        assert_eq!(place::links(&podman.netns("bridged")), ["eth0", "eth1", "lo"]);
        // Both ways are there: the container's to its bridge, and between it and a container of another host.
        let (netns, far) = (podman.netns("bridged"), lab.container(2, 1));
        ping(&netns, &own);
        ping(&netns, &far.v4.to_string());
        ping(&far.netns, "fd00:32::8:1");

        podman.run(&["restart", "-t", "0", "bridged"]);
        eventually("it is back", || (place::links(&podman.netns("bridged")) == ["eth0", "eth1", "lo"]).then_some(()));
        up(&lab, 1, "bridged:eth1");
        let netns = podman.netns("bridged");
        ping(&netns, &own);
        ping(&netns, &far.v4.to_string());
        podman.run(&["rm", "-f", "-t", "0", "bridged"]);
        gone(&lab, 1, "bridged:eth1");
        Ok(())
    });
}
