//! `weft reload` and SIGHUP: what changed is applied, what did not is not touched, and what cannot be is refused whole.
//! And the names of endpoints, which change by themselves.

#![allow(clippy::unwrap_used)]

mod common;

use common::cli::weft;
use common::place::{self, Sleeper, lab, link, spec};
use common::{SOON, eventually, repeat_during};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft::control::request::{FdbEntry, NetworkStatus, PeerStatus, PortStatus, Status};
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::spec::LabSpec;
use weft::lab::{Lab, Stop};

/// Time in which a ping that can be answered is, though a handshake has to be made first.
const BRIEF: Duration = Duration::from_millis(1500);

fn socket(lab: &Lab, h: usize) -> PathBuf {
    lab.host(h).files.socket()
}

/// Rewrites the file of host `h`.
fn edit(lab: &Lab, h: usize, change: impl FnOnce(String) -> String) {
    let path = lab.host(h).files.config();
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed, "the file is as before");
    fs::write(&path, changed).unwrap();
}

/// Rewrites the file of host `h` and has it applied: what the daemon says it changed.
fn reload(lab: &Lab, h: usize, change: impl FnOnce(String) -> String) -> Vec<String> {
    edit(lab, h, change);
    weft(&socket(lab, h), "reload").done().lines().map(str::to_owned).collect()
}

fn peer(lab: &Lab, h: usize, name: &str) -> PeerStatus {
    let peers: Vec<PeerStatus> = weft(&socket(lab, h), "peers --json").json();
    peers.into_iter().find(|peer| peer.name == name).unwrap()
}

fn network(lab: &Lab, h: usize, name: &str) -> Option<NetworkStatus> {
    let networks: Vec<NetworkStatus> = weft(&socket(lab, h), "networks --json").json();
    networks.into_iter().find(|network| network.name == name)
}

fn port(lab: &Lab, h: usize, name: &str) -> Option<PortStatus> {
    let ports: Vec<PortStatus> = weft(&socket(lab, h), "ports --json").json();
    ports.into_iter().find(|port| port.name == name)
}

fn fdb(lab: &Lab, h: usize) -> Vec<FdbEntry> {
    weft(&socket(lab, h), "fdb --json").json()
}

fn ping(from: &Netns, to: &str, patience: Duration) -> bool {
    let to: IpAddr = to.parse().unwrap();
    Pinger::open(from, to, None).unwrap().until(56, patience).is_ok()
}

/// The container of host 1 reaches that of host 2.
fn reaches(lab: &Lab) {
    lab.container(1, 1).ping(lab.container(2, 1).v4.into(), 56, SOON).unwrap();
}

/// Runs `meanwhile` while container 1 of host 1 pings that of host 2 a hundred times a second; no ping may be lost.
fn without_loss(lab: &Lab, meanwhile: impl FnOnce()) {
    reaches(lab);
    let to = lab.container(2, 1).v4.into();
    let mut pinger = Pinger::open(&lab.container(1, 1).netns, to, None).unwrap();
    let work = || {
        pinger.once(1000, SOON).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    };
    let count = repeat_during(work, meanwhile);
    assert!(count > 3, "{count}");
}

#[test]
fn the_difference_is_applied_and_nothing_else_is_touched() {
    if !place::usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let (before, made) = (peer(&lab, 1, "h2"), link(&lab.container(1, 1).netns, "eth1").unwrap());
    let sleeper = Sleeper::new();
    let pid = sleeper.pid();
    without_loss(&lab, || {
        assert_eq!(weft(&socket(&lab, 1), "reload").done(), "nothing changed\n");
        let port_table = format!(
            "\n[[network]]\nname = \"red\"\nvni = 300\n[[port]]\nname = \"late\"\nnetwork = \"red\"\n\
             target = \"pid:{pid}\"\nip = [\"10.9.0.1/24\"]\nmac = \"02:00:00:00:03:01\"\n"
        );
        assert_eq!(reload(&lab, 1, |text| text + &port_table), ["network red added", "port late added"]);
        eventually("the port is up", || (port(&lab, 1, "late")?.state == "up").then_some(()));
        eventually("the other host is told", || {
            peer(&lab, 2, "h1").networks?.contains(&"vni 300".to_owned()).then_some(())
        });
        let late = link(&sleeper.netns(), "eth1").unwrap();

        // The port's addresses change: another interface. The network's figures change: the same one.
        let said = reload(&lab, 1, |text| text.replace("10.9.0.1/24", "10.9.0.2/24"));
        assert_eq!(said, ["port late changed"]);
        eventually("the port is up again", || (port(&lab, 1, "late")?.state == "up").then_some(()));
        let again = link(&sleeper.netns(), "eth1").unwrap();
        assert_ne!(again.index, late.index);
        let figures = "vni = 300\nmtu = 4000\nageing = 17\nstatic = [{ mac = \"02:00:00:00:03:09\", peer = \"h2\" }]";
        assert_eq!(reload(&lab, 1, |text| text.replace("vni = 300", figures)), ["network red changed"]);
        let red = network(&lab, 1, "red").unwrap();
        assert_eq!((red.mtu, red.ageing_s), (4000, 17));
        let wide = link(&sleeper.netns(), "eth1").unwrap();
        assert_eq!((wide.index, wide.mtu), (again.index, 4000));
        let pinned =
            |fdb: &[FdbEntry]| fdb.iter().any(|e| e.mac.0[5] == 9 && e.at == "peer h2" && e.kind == "static");
        assert!(pinned(&fdb(&lab, 1)));
        reload(&lab, 1, |text| text.replace("static = [{ mac = \"02:00:00:00:03:09\", peer = \"h2\" }]", ""));
        assert!(!pinned(&fdb(&lab, 1)));

        // A peer comes and goes.
        let key = "S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=";
        let table =
            format!("\n[[peer]]\nname = \"far\"\npublic_key = \"{key}\"\nendpoints = [\"192.0.2.9:51820\"]\n");
        assert_eq!(reload(&lab, 1, |text| text + &table), ["peer far added"]);
        assert_eq!(peer(&lab, 1, "far").state, "handshake");
        assert_eq!(reload(&lab, 1, |text| text.replace(&table, "")), ["peer far removed"]);
        assert_eq!(weft(&socket(&lab, 1), "status --json").json::<Status>().peers, 1);

        // All of it goes, by the signal.
        edit(&lab, 1, |text| text[..text.find("\n[[network]]\nname = \"red\"").unwrap()].to_owned());
        lab.host(1).daemon().unwrap().signal(libc::SIGHUP);
        eventually("the network is gone", || network(&lab, 1, "red").is_none().then_some(()));
        assert_eq!(place::links(&sleeper.netns()), ["lo"]);
    });
    // The session, the peer's counters and the container's interface are the ones from before.
    let after = peer(&lab, 1, "h2");
    assert!(after.tx_packets > before.tx_packets && after.handshake_age_s >= before.handshake_age_s, "{after:?}");
    let log = fs::read_to_string(lab.host(1).files.log()).unwrap();
    assert_eq!(log.matches("session up").count(), 1, "{log}");
    assert_eq!(link(&lab.container(1, 1).netns, "eth1").unwrap(), made);
}

#[test]
fn what_cannot_be_applied_is_refused_whole() {
    if !place::usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let good = fs::read_to_string(lab.host(1).files.config()).unwrap();
    let own = lab.host(1).public_key;
    let state = || {
        let networks: Vec<NetworkStatus> = weft(&socket(&lab, 1), "networks --json").json();
        let networks: Vec<_> = networks.into_iter().map(|n| (n.name, n.vni, n.mtu, n.ports, n.peers)).collect();
        (networks, link(&lab.container(1, 1).netns, "eth1"), peer(&lab, 1, "h2").state)
    };
    reaches(&lab);
    let before = state();
    // Each of these would also add a network, were it not for the other thing.
    let added = "\n[[network]]\nname = \"red\"\nvni = 300\n";
    without_loss(&lab, || {
        for (change, parts) in [
            (good.replace("listen_port = 51820", "listen_port = 51821"), vec!["node.listen_port", "restart"]),
            (
                good.replace("name = \"h1\"", "name = \"h9\"\nworkers = 3") + "[offload]\nmerge = false\n",
                vec!["node.name", "node.workers", "offload.merge", "restart"],
            ),
            (good.replace("10.32.0.0/16", "10.99.0.0/16"), vec!["port c1", "10.32.1.1 is outside", "10.99.0.0/16"]),
            (good.replace("name = \"lab\"", "name = \"bal\""), vec!["network lab", "c1", "detach"]),
            (good.replace("vni = 100", "vni = 101"), vec!["network lab", "c1", "detach"]),
            (
                good.clone() + &format!("\n[[peer]]\nname = \"me\"\npublic_key = \"{own}\"\n"),
                vec!["'me'", "own public key"],
            ),
            (
                good.replace("mtu = 1500", "mtu = 15000\nageingg = 7\n"),
                vec!["mtu", "ageingg", "ageing", "weft.toml:"],
            ),
            (good.clone() + "[[peer]\n", vec!["weft.toml:"]),
        ] {
            fs::write(lab.host(1).files.config(), change + added).unwrap();
            let said = weft(&socket(&lab, 1), "reload");
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
            assert!(said.err.starts_with("reload refused, running on as before: "), "{}", said.err);
            for part in parts {
                assert!(said.err.contains(part), "'{part}' is not in: {}", said.err);
            }
            assert_eq!(state(), before);
        }
        fs::remove_file(lab.host(1).files.config()).unwrap();
        let said = weft(&socket(&lab, 1), "reload");
        assert!(said.code == Some(1) && said.err.contains("cannot be read"), "{}", said.err);
        // By the signal, the log tells.
        lab.host(1).daemon().unwrap().signal(libc::SIGHUP);
        eventually("the log tells", || {
            let log = fs::read_to_string(lab.host(1).files.log()).unwrap();
            log.lines().last()?.contains("weft.toml").then_some(())
        });
        assert_eq!(state(), before);
        fs::write(lab.host(1).files.config(), good + added).unwrap();
        assert_eq!(weft(&socket(&lab, 1), "reload").done(), "network red added\n");
    });
}

#[test]
fn a_network_moves_to_another_vni_with_the_files_ports() {
    if !place::usable() {
        return;
    }
    let lab = lab(spec(2, 0));
    let sleepers = [Sleeper::new(), Sleeper::new()];
    for (h, sleeper) in [1, 2].into_iter().zip(&sleepers) {
        let table = format!(
            "\n[[network]]\nname = \"blue\"\nvni = 200\n[[port]]\nnetwork = \"blue\"\ntarget = \"pid:{}\"\n\
             ip = [\"10.5.0.{h}/24\"]\n",
            sleeper.pid()
        );
        reload(&lab, h, |text| text + &table);
    }
    let netns = sleepers[0].netns();
    assert!(ping(&netns, "10.5.0.2", SOON));
    let move_to = |h, from: &str, to: &str| reload(&lab, h, |text| text.replace(from, to));
    let said = move_to(1, "vni = 200", "vni = 201");
    assert_eq!(said[..2], ["network blue removed", "network blue added"]);
    let name = format!("pid:{}:eth1", sleepers[0].pid());
    eventually("the port is up", || (port(&lab, 1, &name)?.state == "up").then_some(()));
    assert!(!ping(&netns, "10.5.0.2", BRIEF), "the two are in different networks");
    move_to(2, "vni = 200", "vni = 201");
    assert!(ping(&netns, "10.5.0.2", SOON));
}

/// Two hosts that do not look for each other on their network.
fn apart() -> LabSpec {
    LabSpec { extra_node: "lan_discovery = false".to_owned(), ..spec(2, 1) }
}

#[test]
fn a_peers_endpoint_secret_and_key_can_change() {
    if !place::usable() {
        return;
    }
    let mut lab = Lab::lay(apart()).unwrap();
    // Neither knows where the other is.
    edit(&lab, 1, |text| text.replace("192.0.2.2:51820", "192.0.2.22:51820"));
    edit(&lab, 2, |text| text.replace("endpoints = [\"192.0.2.1:51820\"]", ""));
    lab.start_daemons(&Stop::default()).unwrap();
    lab.attach_all().unwrap();
    let to = lab.container(2, 1).v4.to_string();
    let netns = lab.container(1, 1).netns.try_clone().unwrap();
    assert!(!ping(&netns, &to, BRIEF));
    assert_eq!(peer(&lab, 2, "h1").endpoint, None);
    assert_eq!(reload(&lab, 1, |text| text.replace("192.0.2.22:51820", "192.0.2.2:51820")), ["peer h2 changed"]);
    reaches(&lab);

    // A secret on one side alone is no session; on both it is one again.
    let secret = "preshared_key = \"FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\"\n[[peer]]";
    let with_secret =
        |text: String| text.replacen("[[peer]]", &format!("[[peer]]\n{}", &secret[..secret.len() - 8]), 1);
    reload(&lab, 1, with_secret);
    assert!(!ping(&netns, &to, BRIEF));
    assert_ne!(peer(&lab, 1, "h2").state, "up");
    reload(&lab, 2, with_secret);
    reaches(&lab);

    // The other host gets another key: its old session is worth nothing, and its old key opens nothing.
    let old = lab.host(2).public_key;
    lab.kill_daemon(2, libc::SIGTERM).unwrap();
    fs::remove_file(lab.host(2).files.key()).unwrap();
    lab.start_daemon(2, &Stop::default()).unwrap();
    let fresh = weft(&socket(&lab, 2), "status --json").json::<Status>().public_key;
    assert_ne!(fresh, old);
    assert!(!ping(&netns, &to, BRIEF));
    let said = reload(&lab, 1, |text| text.replace(&old.to_string(), &fresh.to_string()));
    assert_eq!(said, ["peer h2 removed", "peer h2 added"]);
    reaches(&lab);
    let known = peer(&lab, 1, "h2");
    assert_eq!((known.public_key, known.state.as_str()), (fresh, "up"));
    assert!(known.handshake_age_s.unwrap() < 60);
    assert_eq!(weft(&socket(&lab, 1), "status --json").json::<Status>().peers, 1);
}

#[test]
fn the_log_tells_as_much_as_the_file_says_now() {
    if !place::usable() {
        return;
    }
    let lab = lab(LabSpec { extra_node: "log = \"info\"".to_owned(), ..spec(1, 0) });
    let log = || fs::read_to_string(lab.host(1).files.log()).unwrap();
    reload(&lab, 1, |text| text.replace("mtu = 1500", "mtu = 1501"));
    assert!(log().contains("reload: network lab changed"));
    let said = reload(&lab, 1, |text| text.replace("log = \"info\"", "log = \"error\"").replace("1501", "1502"));
    assert_eq!(said, ["log level changed", "network lab changed"]);
    let quiet = log();
    reload(&lab, 1, |text| text.replace("mtu = 1502", "mtu = 1503"));
    assert_eq!(log(), quiet);
    reload(&lab, 1, |text| text.replace("log = \"error\"", "log = \"debug\""));
    assert!(log()[quiet.len()..].contains("reload: log level changed"));
}

#[test]
fn a_name_is_looked_up_again_while_its_peer_does_not_answer() {
    if !place::usable() {
        return;
    }
    place::with_own_mounts(|| {
        let mut lab = Lab::lay(apart()).unwrap();
        edit(&lab, 1, |text| text.replace("192.0.2.2:51820", "two.weft.test:51820"));
        edit(&lab, 2, |text| text.replace("endpoints = [\"192.0.2.1:51820\"]", ""));
        // Names come from this file alone: the lab's hosts reach no DNS.
        let hosts = lab.dir().join("hosts");
        let at = |address: &str| fs::write(&hosts, format!("127.0.0.1 localhost\n{address}")).unwrap();
        at("");
        place::bind(&hosts, Path::new("/etc/hosts"));
        lab.start_daemons(&Stop::default()).unwrap();
        lab.attach_all().unwrap();
        let endpoints = || peer(&lab, 1, "h2").endpoints;
        assert_eq!(endpoints(), ["two.weft.test:51820 (not resolved)"]);
        assert_eq!(peer(&lab, 1, "h2").state, "idle");

        at("192.0.2.77 two.weft.test\n");
        eventually("the name resolves", || (endpoints() == ["two.weft.test:51820 (192.0.2.77:51820)"]).then_some(()));
        eventually("a session is tried", || (peer(&lab, 1, "h2").state == "handshake").then_some(()));
        at("192.0.2.2 two.weft.test\n");
        reaches(&lab);
        assert_eq!(endpoints(), ["two.weft.test:51820 (192.0.2.2:51820)"]);
        assert_eq!(peer(&lab, 1, "h2").endpoint, Some("192.0.2.2:51820".parse().unwrap()));

        // Other names, at once and by reload; those of both families count.
        at("192.0.2.2 two.weft.test\n2001:db8::2 six.weft.test\n");
        let said = reload(&lab, 1, |text| text.replace("two.weft.test", "six.weft.test"));
        assert_eq!(said, ["peer h2 changed"]);
        eventually("the name resolves", || {
            (endpoints() == ["six.weft.test:51820 ([2001:db8::2]:51820)"]).then_some(())
        });
        reaches(&lab);
    });
}
