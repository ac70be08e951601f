//! The CNI plugin as runtimes meet it: called with variables and a file on standard input, against real daemons, by a small runtime of
//! our own, by Podman and by containerd.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "cni/engines.rs"]
mod engines;
#[path = "cni/runtime.rs"]
mod runtime;

use common::cli::{WEFT, weft};

use common::eventually;
use common::place::{self, Sleeper, spec};
use common::skip::skip;
use runtime::{Runtime, UPSTREAM, given, outcome, plugins_in};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use weft::control::request::{LeaseStatus, PortStatus, Status};
use weft::io::netns::Netns;
use weft::lab::datagrams::flood;
use weft::lab::ping::Pinger;
use weft::lab::{Lab, Stop, process};

/// A lab whose hosts have slices of the network: 10.32.101.0/24 and fd00:32::101:0/112 on host 1.
fn sliced(hosts: usize) -> Lab {
    let mut lab = Lab::lay(spec(hosts, 1)).unwrap();
    for (index, host) in lab.hosts().iter().enumerate() {
        let number = 101 + index;
        let text = fs::read_to_string(host.files.config()).unwrap();
        let slices = format!("slice = [\"10.32.{number}.0/24\", \"fd00:32::{number}:0/112\"]\nsubnets = ");
        fs::write(host.files.config(), text.replace("subnets = ", &slices)).unwrap();
    }
    lab.start_daemons(&Stop::default()).unwrap();
    lab.attach_all().unwrap();
    lab
}

fn socket(lab: &Lab, h: usize) -> PathBuf {
    lab.host(h).files.socket()
}

fn ports(lab: &Lab, h: usize) -> Vec<String> {
    let ports: Vec<PortStatus> = weft(&socket(lab, h), "ports --json").json();
    let mut names: Vec<String> =
        ports.into_iter().map(|port| port.name).filter(|name| name.starts_with("cni:")).collect();
    names.sort();
    names
}

fn ping(from: &Netns, to: &str) {
    let to: IpAddr = to.parse().unwrap();
    Pinger::open(from, to, None).unwrap().until(56, common::SOON).unwrap();
}

/// A runtime for this host, whose plugin is in the lab's directory.
fn runtime(lab: &Lab, h: usize, more: &Value) -> Runtime {
    Runtime::weft(&lab.dir().join("plugins"), &socket(lab, h), more)
}

/// Whether the upstream plugins are there; says so when not.
fn upstream(names: &[&str]) -> Result<(), String> {
    match names.iter().find(|name| !Path::new(UPSTREAM).join(name).exists()) {
        Some(name) => Err(format!("{UPSTREAM}/{name} is not there (package containernetworking-plugins)")),
        None => Ok(()),
    }
}

#[test]
fn a_container_is_added_checked_and_removed_in_each_version() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(spec(2, 1));
    let other = lab.container(2, 1);
    for (number, version) in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].into_iter().enumerate() {
        let mut runtime = runtime(&lab, 1, &json!({ "capabilities": { "ips": true, "mac": true } }));
        runtime.list["cniVersion"] = version.into();
        let (v4, v6) = (format!("10.32.9.{number}/16"), format!("fd00:32::9:{number}/64"));
        runtime.runtime_config = json!({ "ips": [v4, v6], "mac": "02:00:00:00:09:01" });
        let container = Sleeper::new();
        let (id, netns) = (format!("box{number}"), container.path());

        let made = runtime.add(&id, &netns, "eth0").unwrap();
        assert_eq!(made["cniVersion"], version);
        assert_eq!(made["interfaces"][0]["mac"], "02:00:00:00:09:01");
        assert_eq!((&made["ips"][0]["address"], &made["ips"][1]["address"]), (&json!(v4), &json!(v6)));
        ping(&container.netns(), &other.v4.to_string());
        ping(&other.netns, v6.split('/').next().unwrap());
        assert_eq!(ports(&lab, 1), [format!("cni:{id}:eth0")]);

        let again = runtime.add(&id, &netns, "eth0").unwrap_err();
        assert!(again.0 == 4 && again.1.contains("eth0 exists"), "{again:?}");
        ping(&container.netns(), &other.v4.to_string());

        if version >= "0.4.0" {
            runtime.check(&id, &netns, "eth0").unwrap();
            place::inside(&container.netns(), |netlink| {
                let index = netlink.link("eth0").unwrap().unwrap().index;
                netlink.set_down(index).unwrap();
            });
            assert!(runtime.check(&id, &netns, "eth0").unwrap_err().1.contains("is down"));
        } else {
            assert_eq!(runtime.check(&id, &netns, "eth0").unwrap_err().0, 1);
        }
        runtime.del(&id, Some(&netns), "eth0").unwrap();
        assert_eq!(place::links(&container.netns()), ["lo"]);
        // Once more, and of what never was, with and without a namespace.
        runtime.del(&id, Some(&netns), "eth0").unwrap();
        runtime.del("never", None, "eth0").unwrap();
        assert_eq!(ports(&lab, 1), Vec::<String>::new());
    }
}

#[test]
fn one_container_has_several_interfaces_and_outlives_its_namespace_in_no_way() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(spec(1, 1));
    let runtime = runtime(&lab, 1, &json!({ "ipam": {} }));
    let container = Sleeper::new();
    let netns = container.path();
    runtime.add("c", &netns, "eth0").unwrap();
    runtime.add("c", &netns, "net1").unwrap();
    assert_eq!(place::links(&container.netns()), ["eth0", "lo", "net1"]);
    container.end();
    // The runtime's DEL comes before or after the daemon notices, and is right in both cases.
    runtime.del("c", Some(&netns), "eth0").unwrap();
    eventually("the other port is gone", || ports(&lab, 1).is_empty().then_some(()));
    runtime.del("c", Some(&netns), "net1").unwrap();

    let gone = runtime.add("c", &netns, "eth0").unwrap_err();
    assert!(gone.0 == 3 && gone.1.contains("CNI_NETNS"), "{gone:?}");
    let wrong = runtime.add("c", Path::new("/etc/hostname"), "eth0").unwrap_err();
    assert!(wrong.0 == 4 && wrong.1.contains("/etc/hostname is not a network namespace"), "{wrong:?}");
}

#[test]
fn twenty_containers_come_and_go_at_once_and_weft_gives_them_addresses() {
    if !place::usable() {
        return;
    }
    let lab = sliced(2);
    let other = lab.container(2, 1);
    let containers: Vec<Sleeper> = (0..20).map(|_| Sleeper::new()).collect();
    let runtime = runtime(&lab, 1, &json!({}));
    let each = |job: &(dyn Fn(String, &Sleeper) -> String + Sync)| {
        std::thread::scope(|scope| {
            let jobs = containers
                .iter()
                .enumerate()
                .map(|(number, one)| scope.spawn(move || job(format!("c{number}"), one)));
            let jobs: Vec<_> = jobs.collect();
            let mut all: Vec<String> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
            all.sort();
            all.dedup();
            all.len()
        })
    };
    let distinct = each(&|id, container| {
        let made = runtime.add(&id, &container.path(), "eth0").unwrap();
        let (v4, v6) = (&made["ips"][0], &made["ips"][1]);
        assert_eq!((&v4["gateway"], &v6["gateway"]), (&json!("10.32.0.1"), &json!("fd00:32::1")));
        ping(&container.netns(), &other.v4.to_string());
        ping(&container.netns(), &other.v6.to_string());
        let address = v4["address"].as_str().unwrap().to_owned();
        assert!(address.starts_with("10.32.101.") && v6["address"].as_str().unwrap().starts_with("fd00:32::101:"));
        address
    });
    assert_eq!((distinct, ports(&lab, 1).len()), (20, 20));
    each(&|id, container| {
        runtime.check(&id, &container.path(), "eth0").unwrap();
        runtime.del(&id, Some(&container.path()), "eth0").unwrap();
        id
    });
    assert_eq!(ports(&lab, 1), Vec::<String>::new());

    // What was given is free again, and what one has another is refused, on this host and on others.
    let mut asking = runtime;
    asking.args = "IP=10.32.101.9".to_owned();
    asking.add("c0", &containers[0].path(), "eth0").unwrap();
    let taken = asking.add("c1", &containers[1].path(), "eth0").unwrap_err();
    assert!(taken.0 == 100 && taken.1.contains("cni:c0:eth0"), "{taken:?}");
    let mut elsewhere = Runtime::weft(&lab.dir().join("plugins"), &socket(&lab, 2), &json!({}));
    elsewhere.args.clone_from(&asking.args);
    eventually("the other host knows", || {
        let leases: Vec<LeaseStatus> = weft(&socket(&lab, 2), "leases --json").json();
        leases.iter().any(|lease| lease.address.to_string() == "10.32.101.9/16").then_some(())
    });
    let taken = elsewhere.add("c2", &containers[2].path(), "eth0").unwrap_err();
    assert!(taken.1.contains("10.32.101.9"), "{taken:?}");
    asking.del("c0", None, "eth0").unwrap();
    asking.add("c1", &containers[1].path(), "eth0").unwrap();
}

#[test]
fn ports_of_the_host_lead_to_containers_and_the_way_out_is_the_hosts() {
    if !place::usable() {
        return;
    }
    let lab = sliced(2);
    let mut runtime = runtime(&lab, 1, &json!({ "capabilities": { "portMappings": true } }));
    let mapping = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" });
    runtime.runtime_config = json!({ "portMappings": [mapping] });
    let (first, second) = (Sleeper::new(), Sleeper::new());
    let listen = |container: &Sleeper| container.netns().run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();

    runtime.add("c1", &first.path(), "eth0").unwrap();
    let listener = listen(&first);
    let (one, two) = (lab.host(1), lab.host(2));
    let at = SocketAddr::new(one.v4.into(), 8080);
    let connect = || two.netns.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(2))).unwrap();
    eventually("the host's port leads to the container", || connect().ok());
    listener.accept().unwrap();

    // The port is taken: the second container is refused, whole.
    let taken = runtime.add("c2", &second.path(), "eth0").unwrap_err();
    assert!(taken.1.contains("8080") && taken.1.contains("cni:c1:eth0"), "{taken:?}");
    assert_eq!(
        (place::links(&second.netns()), ports(&lab, 1)),
        (vec!["lo".to_owned()], vec!["cni:c1:eth0".to_owned()])
    );
    runtime.del("c1", Some(&first.path()), "eth0").unwrap();
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    runtime.add("c2", &second.path(), "eth0").unwrap();
    let listener = listen(&second);
    eventually("the host's port leads to the other container", || connect().ok());
    listener.accept().unwrap();

    // What is published for one that went without a word goes with it: whoever gets its address is not reached by it.
    second.end();
    eventually("the port is gone", || ports(&lab, 1).is_empty().then_some(()));
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    runtime.ask("GC", Some(json!([]))).unwrap();

    // Containers have a default route when the host lets them out.
    runtime.runtime_config = json!({});
    let made = runtime.add("c1", &first.path(), "eth0").unwrap();
    assert_eq!(made.get("routes"), None);
    runtime.del("c1", Some(&first.path()), "eth0").unwrap();
    weft(&socket(&lab, 1), "expose lab --ip auto --masquerade").done();
    let made = runtime.add("c1", &first.path(), "eth0").unwrap();
    assert_eq!(
        made["routes"],
        json!([{ "dst": "0.0.0.0/0", "gw": "10.32.0.1" }, { "dst": "::/0", "gw": "fd00:32::1" }])
    );
    runtime.check("c1", &first.path(), "eth0").unwrap();
    ping(&first.netns(), &two.v4.to_string());
}

#[test]
fn a_runtime_gives_a_container_aliases_resolvers_and_a_bandwidth() {
    if !place::usable() {
        return;
    }
    if Command::new("dig").arg("-v").output().is_err() {
        skip!("dig is not installed (bind9-dnsutils)");
    }
    let lab = place::lab(spec(2, 1));
    let other = lab.container(2, 1);
    let capabilities = json!({ "ips": true, "aliases": true, "dns": true, "bandwidth": true });
    let mut runtime = runtime(&lab, 1, &json!({ "capabilities": capabilities }));
    let burst = 400_000;
    runtime.args = "K8S_POD_NAME=web".to_owned();
    runtime.runtime_config = json!({
        "ips": ["10.32.9.1/16"],
        "aliases": { "pods": ["www"], "others": ["no"] },
        "dns": { "servers": ["10.32.0.1"], "searches": ["lab.weft"], "options": ["ndots:2"] },
        "bandwidth": { "ingressRate": 4_000_000, "ingressBurst": burst, "egressRate": 8_000_000, "egressBurst": burst },
    });
    let container = Sleeper::new();
    let made = runtime.add("c1", &container.path(), "eth0").unwrap();
    let dns = json!({ "nameservers": ["10.32.0.1"], "search": ["lab.weft"], "options": ["ndots:2"] });
    assert_eq!(made["dns"], dns);

    // The resolver that it is told of answers for it, on both hosts.
    let answers = |from: &Netns, name: &str| {
        let mut dig = Command::new("dig");
        dig.args(["@10.32.0.1", "+short", &format!("{name}.lab.weft"), "A"]);
        process::inside(from, &mut dig).unwrap();
        String::from_utf8(dig.output().unwrap().stdout).unwrap()
    };
    for name in ["www", "web"] {
        for from in [&container.netns(), &other.netns] {
            eventually(name, || (answers(from, name) == "10.32.9.1\n").then_some(()));
        }
    }
    assert_eq!(answers(&other.netns, "no"), "");

    // Ingress is what the container gets, egress what it sends; its host drops the rest.
    let dropped = |reason: &str| {
        let status: Status = weft(&socket(&lab, 1), "status --json").json();
        status.drops[reason]
    };
    ping(&container.netns(), &other.v4.to_string());
    let (own, theirs) = (SocketAddr::from(([10, 32, 9, 1], 9000)), SocketAddr::new(other.v4.into(), 9000));
    for (from, to, address, rate, reason) in [
        (&other.netns, &container.netns(), own, 4e6, "rate_in"),
        (&container.netns(), &other.netns, theirs, 8e6, "rate_out"),
    ] {
        assert_eq!(dropped(reason), 0);
        let started = Instant::now();
        let flood = flood(from, to, address, 1000, Duration::from_secs(1), &Stop::default()).unwrap();
        // The bits of whole frames, in the time that it really took, and one burst.
        let most = rate * started.elapsed().as_secs_f64() + f64::from(burst);
        let bits = flood.delivered as f64 * 1042.0 * 8.0;
        assert!(flood.delivered > 0 && bits <= most * 1.02, "{bits} bits of at most {most}, {flood:?}");
        eventually(reason, || (dropped(reason) > 0).then_some(()));
    }
    runtime.del("c1", Some(&container.path()), "eth0").unwrap();
    eventually("the names are gone", || answers(&other.netns, "www").is_empty().then_some(()));
}

#[test]
fn garbage_is_what_a_list_made_and_does_not_name() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(spec(1, 1));
    let pods = runtime(&lab, 1, &json!({ "ipam": {} }));
    let mut others = runtime(&lab, 1, &json!({ "ipam": {} }));
    others.list["name"] = "others".into();
    let container = Sleeper::new();
    let netns = container.path();
    pods.add("c1", &netns, "eth0").unwrap();
    pods.add("c2", &netns, "eth1").unwrap();
    others.add("c3", &netns, "eth2").unwrap();
    pods.ask("GC", None).unwrap();
    assert_eq!(ports(&lab, 1).len(), 3);
    pods.ask("GC", Some(json!([{ "containerID": "c2", "ifname": "eth1" }]))).unwrap();
    assert_eq!(ports(&lab, 1), ["cni:c2:eth1", "cni:c3:eth2"]);
    assert_eq!(place::links(&container.netns()), ["eth1", "eth2", "lo"]);
    pods.ask("GC", Some(json!([]))).unwrap();
    assert_eq!(ports(&lab, 1), ["cni:c3:eth2"]);
}

#[test]
fn without_a_daemon_the_runtime_is_told_to_ask_again() {
    if !place::usable() {
        return;
    }
    let mut lab = place::lab(spec(1, 1));
    let runtime = runtime(&lab, 1, &json!({ "ipam": {} }));
    let (first, second) = (Sleeper::new(), Sleeper::new());
    runtime.add("c1", &first.path(), "eth0").unwrap();
    runtime.ask("STATUS", None).unwrap();
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    let code = |outcome: Result<(), runtime::Failed>| outcome.unwrap_err().0;
    assert_eq!(code(runtime.ask("STATUS", None)), 51);
    assert_eq!(code(runtime.add("c2", &second.path(), "eth0").map(drop)), 11);
    assert_eq!(code(runtime.del("c1", Some(&first.path()), "eth0")), 11);
    assert_eq!(place::links(&second.netns()), ["lo"]);
    lab.start_daemon(1, &Stop::default()).unwrap();
    // The daemon has found the port again, whose interface was there all the time.
    runtime.check("c1", &first.path(), "eth0").unwrap();
    runtime.del("c1", Some(&first.path()), "eth0").unwrap();
    assert_eq!(place::links(&first.netns()), ["lo"]);
    let mut elsewhere = runtime;
    elsewhere.list["plugins"][0]["network"] = "nowhere".into();
    assert_eq!(code(elsewhere.ask("STATUS", None)), 50);
}

#[test]
fn another_plugin_gives_the_addresses_and_gets_them_back() {
    if !place::usable() {
        return;
    }
    if let Err(why) = upstream(&["host-local", "tuning"]) {
        skip!("{why}");
    }
    let lab = place::lab(spec(1, 1));
    let data = lab.dir().join("host-local");
    let ipam = json!({
        "type": "host-local", "dataDir": data,
        "ranges": [[{ "subnet": "10.32.9.0/24", "rangeStart": "10.32.9.10", "rangeEnd": "10.32.9.12", "gateway": "10.32.9.1" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "192.0.2.0/24", "gw": "10.32.9.77" }],
    });
    let mut runtime = runtime(&lab, 1, &json!({ "ipam": ipam }));
    runtime.list["cniVersion"] = "1.0.0".into();
    // A plugin behind ours works on the interface that ours made.
    let tuning = json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.arp_notify": "1" } });
    runtime.list["plugins"].as_array_mut().unwrap().push(tuning);
    let leased = || {
        let Ok(entries) = fs::read_dir(data.join("pods")) else { return 0 };
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("10.")).count()
    };

    let containers: Vec<Sleeper> = (0..4).map(|_| Sleeper::new()).collect();
    let made = runtime.add("c0", &containers[0].path(), "eth0").unwrap();
    let ip = json!({ "address": "10.32.9.10/24", "gateway": "10.32.9.1", "interface": 0 });
    assert_eq!(made["ips"], json!([ip]));
    let routes = json!([{ "dst": "0.0.0.0/0", "gw": "10.32.9.1" }, { "dst": "192.0.2.0/24", "gw": "10.32.9.77" }]);
    assert_eq!(made["routes"], routes);
    runtime.check("c0", &containers[0].path(), "eth0").unwrap();
    for (number, container) in containers.iter().enumerate().take(3).skip(1) {
        runtime.add(&format!("c{number}"), &container.path(), "eth0").unwrap();
    }
    ping(&containers[1].netns(), "10.32.9.12");

    // The plugin has nothing left, and says so in its own words.
    let full = runtime.add("c3", &containers[3].path(), "eth0").unwrap_err();
    assert!(
        full.1.contains("IPAM plugin host-local failed at ADD: ") && full.1.contains("no IP addresses"),
        "{full:?}"
    );
    // It has an address, and weft refuses the rest: the address goes back.
    runtime.del("c0", Some(&containers[0].path()), "eth0").unwrap();
    assert_eq!(leased(), 2);
    let plugin = &mut runtime.list["plugins"][0];
    plugin["mac"] = "01:00:00:00:00:01".into();
    let refused = runtime.add("c3", &containers[3].path(), "eth0").unwrap_err();
    assert!(refused.0 == 100 && refused.1.contains("MAC address belongs to no station"), "{refused:?}");
    assert_eq!((leased(), place::links(&containers[3].netns())), (2, vec!["lo".to_owned()]));
    for number in 1..3 {
        runtime.del(&format!("c{number}"), None, "eth0").unwrap();
    }
    assert_eq!((leased(), ports(&lab, 1)), (0, Vec::new()));
}

#[test]
fn the_binary_is_a_plugin_by_its_name_or_by_what_it_is_told() {
    let dir = std::env::temp_dir().join(format!("weft-cni-{}", std::process::id()));
    let plugin = plugins_in(&dir).join("weft-cni");
    let call = |program: &Path, variables: &[(&str, &str)], stdin: &str| {
        let mut process = Command::new(program);
        process.env_clear().envs(variables.iter().copied());
        given(process, stdin.as_bytes())
    };
    let output = call(&plugin, &[], "");
    let about = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && about.contains("CNI plugin"), "{about}");
    for program in [plugin.as_path(), Path::new(WEFT)] {
        let version = outcome(&call(program, &[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"1.0.0"}"#)).unwrap();
        let golden =
            json!({ "cniVersion": "1.0.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] });
        assert_eq!(version, golden);
        let missing = outcome(&call(program, &[("CNI_COMMAND", "ADD")], "{}")).unwrap_err();
        let names = "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH";
        assert_eq!(missing, (4, format!("required env variables [{names}] missing")));
    }
    // A person whose shell has the variable is still a person.
    let mut process = Command::new(WEFT);
    process.env("CNI_COMMAND", "ADD").arg("--version");
    assert!(String::from_utf8(given(process, b"").stdout).unwrap().starts_with("weft "));
    let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/x")];
    let endless = "x".repeat((1 << 20) + 1);
    assert_eq!(outcome(&call(&plugin, &del, &endless)).unwrap_err().0, 5);
    let lost = r#"{"cniVersion":"1.1.0","name":"x","socket":"/nowhere/weft.sock"}"#;
    let outcome = outcome(&call(&plugin, &del, lost)).unwrap_err();
    assert!(outcome.0 == 11 && outcome.1.contains("/nowhere/weft.sock"), "{outcome:?}");
    fs::remove_dir_all(&dir).unwrap();
}
