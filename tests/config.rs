//! The configuration file from the outside: what is read, every error with its line and remedy, the annotated example,
//! and the reference, which must be what the table of keys says.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;
use weft::config::error::Errors;
use weft::config::keys::{self, Absent};
use weft::config::parse::{Defaults, MAX_FILE, parse};
use weft::config::reference;
use weft::config::{Config, Endpoint, LogLevel, Port, StaticPlace, Target, check_identity, check_port};

const BETA_KEY: &str = "S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=";
const GAMMA_KEY: &str = "ai7Wb0+GByLxJIXDoZuRUqSAgC0pZe0fVYzCPUCfA0s=";
const PSK: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

fn read(text: &str) -> Result<Config, Errors> {
    let files = |path: &Path| match path.to_str() {
        Some("/etc/weft/beta.psk") => Ok(format!("{PSK}\n")),
        Some("/etc/weft/bad.psk") => Ok("secret".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    parse("weft.toml", text, &Defaults { hostname: "alpha".into() }, &files)
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The errors of a file as text; the header lines of the file are left to the caller to count.
fn bad(text: &str) -> String {
    read(text).expect_err("the file should be refused").to_string()
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(bad(text), expected, "\n{text}");
}

#[test]
fn an_empty_file_is_a_member_with_all_defaults() {
    let config = good("");
    assert_eq!(config.node.name, "alpha");
    assert_eq!(config.node.key_file, Path::new("/var/lib/weft/key"));
    assert_eq!((config.node.listen_port, config.node.workers), (51820, None));
    assert_eq!(config.node.log, LogLevel::Info);
    assert!(
        config.node.tcp && config.node.discovery && config.node.lan_discovery && config.node.tcp_ports.is_empty()
    );
    assert_eq!(config.node.control_socket, Path::new("/run/weft/control.sock"));
    assert_eq!(config.node.container_sockets, [Path::new("/run/docker.sock"), Path::new("/run/podman/podman.sock")]);
    assert!(config.offload.tap_tso && config.offload.udp_gro && config.offload.merge);
    assert_eq!((config.fdb.max_entries, config.fdb.max_per_port, config.fdb.max_per_peer), (65536, 1024, 16384));
    assert!(config.networks.is_empty() && config.peers.is_empty() && config.ports.is_empty());
}

#[test]
fn everything_a_file_can_say_is_read() {
    let text = format!(
        r#"
        [node]
        name = "here"
        state_dir = "state"
        log = "debug"
        workers = 0x4
        tunnel_address = "100.64.0.1"
        tcp_ports = [443, 0x50]
        lan_discovery = false
        [offload]
        tap_uso = false
        [[network]]
        name = "blue"
        vni = 100
        subnets = ["10.32.0.0/16", "fd00:32::/64"]
        mtu = 9_000
        ageing = 600
        [[network.static]]
        mac = "02:00:00:00:00:05"
        peer = "beta"
        [[network.static]]
        mac = "U:hello"
        port = "web"
        [[peer]]
        name = "beta"
        public_key = "{BETA_KEY}"
        endpoints = ["192.0.2.7:51820", "tcp:[2001:db8::7]:51820", "beta.example.net:51820"]
        preshared_key_file = "/etc/weft/beta.psk"
        keepalive = 25
        networks = ["blue"]
        path_mtu = 1420
        [[port]]
        name = "web"
        network = "blue"
        target = "netns:/run/netns/web"
        ip = ["10.32.0.5/16@10.32.0.1", "fd00:32::5/64"]
        [[port]]
        network = "blue"
        target = "db"
        ifname = "eth0"
        "#
    );
    let config = good(&text);
    assert_eq!(config.node.key_file, Path::new("state/key"));
    assert_eq!((config.node.log, config.node.workers), (LogLevel::Debug, Some(4)));
    assert_eq!((&config.node.tcp_ports[..], config.node.lan_discovery), (&[443, 80][..], false));
    assert!(!config.offload.tap_uso && config.offload.tap_tso);
    let network = &config.networks[0];
    assert_eq!((network.vni, network.mtu, network.ageing), (100, 9000, Duration::from_secs(600)));
    assert_eq!(network.static_entries[0].at, StaticPlace::Peer("beta".into()));
    assert_eq!(network.static_entries[1].mac, "02:b1:94:6a:c9:24".parse().unwrap());
    let peer = &config.peers[0];
    assert_eq!(peer.preshared_key, Some(PSK.parse().unwrap()));
    assert_eq!(peer.tunnel_address, peer.public_key.tunnel_address());
    assert_eq!(peer.endpoints[1], Endpoint::TcpAddress("[2001:db8::7]:51820".parse().unwrap()));
    assert_eq!(peer.endpoints[2], Endpoint::Name("beta.example.net".into(), 51820));
    assert_eq!(peer.networks.as_deref(), Some(&["blue".to_owned()][..]));
    let ports = &config.ports;
    assert_eq!(ports[0].addresses[0].gateway, Some("10.32.0.1".parse().unwrap()));
    assert_eq!((ports[1].name.as_str(), &ports[1].target), ("db:eth0", &Target::Container("db".into())));
}

#[test]
fn every_error_of_a_file_is_told_in_one_go() {
    let text = format!(
        r#"[node]
name = "al pha"
listen_port = "51820"
wrokers = 2
log = "loud"

[[network]]
name = "blue"
vni = 16777216
subnets = ["10.32.0.0/16", "10.32.5.0/24", "fd00:32::/64"]
mtu = 1000

[[network]]
name = "red"
vni = 7
ageing = 5
peers = []
static = [
  {{ mac = "01:00:00:00:00:01", peer = "beta" }},
  {{ mac = "02:00:00:00:00:01", peer = "omega" }},
]

[[peer]]
name = "beta"
public_key = "{BETA_KEY}"
endpoints = [
  "192.0.2.7:51820",
  "2001:db8::7:51820",
]
preshared_key = "{PSK}"
preshared_key_file = "/etc/weft/beta.psk"

[[peer]]
name = "beta"
public_key = "short"
networks = ["blue", "grene"]

[[peer]]
name = "gamma"
public_key = "{BETA_KEY}"

[[port]]
name = "web"
network = "red"
target = "web"
ifname = "a-name-that-is-too-long"

[[port]]
name = "web"
network = "yellow"
target = "pid:0"
mac = "ff:ff:ff:ff:ff:ff"
mtu = 1400

[tunnel]
"#
    );
    let expected = r#"weft.toml:2: node.name: 'al pha': a name has 1 to 64 letters, digits, '.', '_' or '-'; write it like name = "alpha"
weft.toml:3: node.listen_port: must be a whole number, not the string "51820"; write it like listen_port = 51821
weft.toml:4: node.wrokers: there is no key 'wrokers' in [node]; did you mean 'workers'?
weft.toml:5: node.log: 'loud': a level is error, warn, info or debug; write it like log = "debug"
weft.toml:9: network[1] "blue".vni: must lie between 1 and 16777215, and is 16777216; write it like vni = 100
weft.toml:10: network[1] "blue".subnets: 10.32.5.0/24 overlaps 10.32.0.0/16; keep one of the two
weft.toml:11: network[1] "blue".mtu: IPv6 needs an MTU of at least 1280, and this is 1000; raise it, or remove the IPv6 subnet
weft.toml:16: network[2] "red".ageing: must lie between 10 and 1000000, and is 5; write it like ageing = 600
weft.toml:17: network[2] "red".peers: there is no key 'peers' in [[network]]; its keys are KEYS
weft.toml:19: network[2] "red".static[1].mac: '01:00:00:00:00:01': a group address belongs to no station: the first octet of a station's MAC address is even; write it like mac = "02:00:00:00:00:05"
weft.toml:20: network[2] "red".static: there is no peer 'omega'; there is beta, gamma
weft.toml:28: peer[1] "beta".endpoints: '2001:db8::7:51820': an IPv6 address stands in brackets before its port; write it like endpoints = ["192.0.2.7:51820", "beta.example.net:51820"]
weft.toml:31: peer[1] "beta".preshared_key_file: a pre-shared key stands in the file or in a file of its own, not both; remove one of the two
weft.toml:34: peer[2] "beta".name: is the name of peer[1] "beta" on line 23 too; give each a name of its own
weft.toml:35: peer[2] "beta".public_key: 'short': not a WireGuard key: it must be 32 bytes in base64, 44 characters ending in '='; write it like public_key = "S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU="
weft.toml:36: peer[2] "beta".networks: there is no network 'grene'; there is blue, red
weft.toml:40: peer[3] "gamma".public_key: is the public_key of peer[1] "beta" on line 23 too; give each a public_key of its own
weft.toml:46: port[1] "web".ifname: 'a-name-that-is-too-long': an interface name has 1 to 15 bytes; write it like ifname = "eth0"
weft.toml:49: port[2] "web".name: is the name of port[1] "web" on line 42 too; give each a name of its own
weft.toml:50: port[2] "web".network: there is no network 'yellow'; there is blue, red
weft.toml:51: port[2] "web".target: 'pid:0': a target is host, pid:N, netns:PATH (absolute), or a container's name; write it like target = "netns:/run/netns/web"
weft.toml:52: port[2] "web".mac: 'ff:ff:ff:ff:ff:ff': a group address belongs to no station: the first octet of a station's MAC address is even; write it like mac = "U:web"
weft.toml:53: port[2] "web".mtu: there is no key 'mtu' in [[port]]; it is a key of [[network]]
weft.toml:55: tunnel: there is no table or key 'tunnel' here; the tables are TABLES"#;
    let keys: Vec<_> = keys::NETWORK.keys.iter().map(|key| key.name).collect();
    let tables = keys::TABLES.iter().filter(|table| !table.name.contains('.')).map(keys::Table::header);
    let tables: Vec<_> = tables.collect();
    let expected = expected.replace("KEYS", &keys.join(", ")).replace("TABLES", &tables.join(", "));
    assert_eq!(bad(&text), expected);
}

/// The head of a file with one of everything, to which a test adds the line that is wrong.
const HEAD: &str = "[[network]]\nname = 'blue'\nvni = 100\nsubnets = ['10.32.0.0/16', 'fd00:32::/64']\n";

fn port(name: &str, rest: &str) -> String {
    format!("[[port]]\nname = '{name}'\nnetwork = 'blue'\ntarget = '{name}'\n{rest}\n")
}

fn peer(name: &str, key: &str, rest: &str) -> String {
    format!("[[peer]]\nname = '{name}'\npublic_key = '{key}'\n{rest}\n")
}

#[test]
fn what_is_missing_is_named() {
    refused(
        "[[network]]\nname = 'blue'\n\n[[peer]]\n[[port]]\nnetwork = 'blue'",
        "weft.toml:1: network[1] \"blue\".vni: is missing; add a line like vni = 100\n\
         weft.toml:4: peer[1].public_key: is missing; add a line like public_key = \
         \"S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=\"\n\
         weft.toml:4: peer[1].name: is missing; add a line like name = \"beta\"\n\
         weft.toml:5: port[1].target: is missing; add a line like target = \"netns:/run/netns/web\"",
    );
}

#[test]
fn broken_toml_is_told_with_its_line_and_with_what_else_is_certain() {
    let errors = bad("[node]\nname = \nlog = 'loud'\n[[peer]]\nname = 'beta'\nendpoints = 'x'\n[fdb]\nmax 5\n");
    let lines: Vec<&str> = errors.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(lines, ["weft.toml:2", "weft.toml:3", "weft.toml:6", "weft.toml:8"], "{errors}");
    let errors = bad("[node]\nlog = 'info'\nlog = 'warn'\n");
    assert!(errors.starts_with("weft.toml:3: not TOML: duplicate key; remove one of the two"), "{errors}");
}

#[test]
fn tables_have_the_brackets_they_need() {
    refused(
        "[[node]]\nlog = 'info'\n[network]\nname = 'blue'",
        "weft.toml:1: node: cannot be repeated; write it once, as [node]\n\
         weft.toml:3: network: must be written [[network]], in double brackets; write [[network]] before each network",
    );
    refused(
        "fdb = 5\nport = [1]\n",
        "weft.toml:1: fdb: must be a table, not the number 5; write it as [fdb]\n\
         weft.toml:2: port[1]: must be a table, not the number 1; write a [[port]] for each",
    );
}

#[test]
fn misplaced_and_mistyped_keys_are_sent_home() {
    refused(
        "listen_port = 5\n[networks]\n[nod]\n[zebra]\n",
        "weft.toml:1: listen_port: there is no table or key 'listen_port' here; it is a key of [node]: put it below \
         such a line\n\
         weft.toml:2: networks: there is no table or key 'networks' here; it is a key of [[peer]]: put it below such a \
         line\n\
         weft.toml:3: nod: there is no table or key 'nod' here; did you mean [node]?\n\
         weft.toml:4: zebra: there is no table or key 'zebra' here; the tables are [node], [trust], [offload], [fdb], [docker], \
         [[network]], [[peer]], [[port]], [[allow]]",
    );
}

#[test]
fn a_network_has_a_name_and_vni_of_its_own() {
    refused(
        "[[network]]\nname = 'blue'\nvni = 1\n[[network]]\nname = 'blue'\nvni = 1\n",
        "weft.toml:5: network[2] \"blue\".name: is the name of network[1] \"blue\" on line 1 too; give each a name of \
         its own\n\
         weft.toml:6: network[2] \"blue\".vni: is the vni of network[1] \"blue\" on line 1 too; give each a vni of its own",
    );
    good(
        "[[network]]\nname = 'a'\nvni = 1\nsubnets = ['10.0.0.0/8']\n[[network]]\nname = 'b'\nvni = 2\nsubnets = ['10.0.0.0/8']",
    );
}

#[test]
fn bounds_of_numbers_hold_at_both_ends() {
    for (table, key, least, most) in [
        ("[node]", "listen_port", 1, 65535),
        ("[node]", "workers", 1, 256),
        ("[[network]]\nname = 'n'", "vni", 1, 16_777_215),
        ("[[network]]\nname = 'n'\nvni = 1", "mtu", 576, 9000),
        ("[[network]]\nname = 'n'\nvni = 1", "ageing", 10, 1_000_000),
        (&peer("beta", BETA_KEY, ""), "keepalive", 1, 65535),
        (&peer("beta", BETA_KEY, ""), "path_mtu", 1280, 65535_i64),
    ] {
        for right in [least, most] {
            good(&format!("{table}\n{key} = {right}"));
        }
        for wrong in [least - 1, most + 1, -1] {
            let errors = bad(&format!("{table}\n{key} = {wrong}"));
            assert!(errors.contains(&format!("must lie between {least} and {most}, and is {wrong}")), "{errors}");
        }
        let errors = bad(&format!("{table}\n{key} = 99999999999999999999999"));
        assert!(errors.contains("must lie between"), "{errors}");
    }
}

#[test]
fn a_list_of_numbers_is_bounded_in_length_and_in_each() {
    assert_eq!(good("[node]\ntcp_ports = [1, 65535]").node.tcp_ports, [1, 65535]);
    for (wrong, why) in [
        ("[443, 0]", "must lie between 1 and 65535, and is 0; write it like tcp_ports = [443]"),
        ("['443']", "must be a list of whole numbers, not the string \"443\"; write it like tcp_ports = [443]"),
        ("443", "must be a list of whole numbers, not the number 443; write it like tcp_ports = [443]"),
        ("[1, 2, 3, 4, 5, 6, 7, 8, 9]", "there are 9, and at most 8 are allowed; keep those that are needed"),
    ] {
        refused(&format!("[node]\ntcp_ports = {wrong}"), &format!("weft.toml:2: node.tcp_ports: {why}"));
    }
}

#[test]
fn ports_want_an_address_of_their_network_and_of_nobody_else() {
    let one = |ip: &str| bad(&format!("{HEAD}{}", port("web", &format!("ip = [\n'{ip}'\n]"))));
    let line = "weft.toml:10: port[1] \"web\".ip: ";
    assert_eq!(
        one("10.33.0.5/16"),
        format!(
            "{line}10.33.0.5 is outside network 'blue', which is 10.32.0.0/16 and fd00:32::/64; choose an address inside"
        )
    );
    let host = "give the interface an address of a host";
    assert_eq!(
        one("10.32.0.0/16"),
        format!("{line}10.32.0.0 is the address of the network 10.32.0.0/16 itself; {host}")
    );
    assert_eq!(
        one("10.32.255.255/16"),
        format!("{line}10.32.255.255 is the broadcast address of 10.32.255.255/16; {host}")
    );
    assert_eq!(one("ff02::1/64"), format!("{line}ff02::1 is not the address of a host; {host}"));
    assert!(one("10.32.0.5").starts_with(&format!("{line}'10.32.0.5': not an address with a prefix length")));
    assert!(
        one("10.32.0.5/16@10.33.0.1").contains("the gateway behind '@' must be another address of the same prefix")
    );
    good(&format!("{HEAD}{}{}", port("a", "ip = ['10.32.0.4/31']"), port("b", "ip = ['10.32.0.5/32']")));

    let both = |a: &str, b: &str| bad(&format!("{HEAD}{}{}", port("a", a), port("b", b)));
    assert_eq!(
        both("ip = ['10.32.0.5/16']", "ip = ['10.32.0.5/24']"),
        "weft.toml:14: port[2] \"b\".ip: port 'a' in network 'blue' has 10.32.0.5 already; choose another address"
    );
    assert_eq!(
        both("mac = 'U:x'", "mac = 'U:x'"),
        "weft.toml:14: port[2] \"b\".mac: port 'a' in network 'blue' has 02:40:1b:30:e3:b8 already; choose another MAC \
         address, or leave it out"
    );
    let twice = port("a", "ip = ['10.32.0.5/16@10.32.0.1',\n'10.32.0.6/16@10.32.0.1',\n'10.32.0.5/24']");
    assert_eq!(
        bad(&format!("{HEAD}{twice}")),
        "weft.toml:10: port[1] \"a\".ip: there are two gateways of one family; keep one of the two\n\
         weft.toml:11: port[1] \"a\".ip: 10.32.0.5 is given twice; keep one of the two"
    );
    let again = port("a", "").replace("name = 'a'", "name = 'c'");
    assert_eq!(
        bad(&format!("{HEAD}{}{again}", port("a", ""))),
        "weft.toml:10: port[2] \"c\".ifname: port 'a' is the interface eth1 of a already; choose another interface name"
    );
}

#[test]
fn a_networks_own_address_is_one_that_a_host_in_it_could_have() {
    let of = |gateway: &str| {
        let subnets = "subnets = ['10.32.0.0/16', 'fd00:32::/64']";
        format!("[[network]]\nname = 'blue'\nvni = 100\n{subnets}\ngateway = {gateway}\n")
    };
    good(&of("['10.32.0.9', 'fd00:32::9']"));
    for (gateway, problem) in [
        ("['1.2.3.4']", "1.2.3.4 is in none of the network's subnets"),
        ("['10.32.0.0']", "10.32.0.0 is the address of the network 10.32.0.0/16 itself"),
        ("['10.32.0.5', '10.32.0.6']", "10.32.0.5 is one of this family already"),
    ] {
        let place = "weft.toml:5: network[1] \"blue\".gateway";
        assert_eq!(
            bad(&of(gateway)),
            format!("{place}: {problem}; give one address of each family, inside a subnet")
        );
    }
}

#[test]
fn the_same_address_and_mac_are_fine_in_another_network() {
    let red = "[[network]]\nname = 'red'\nvni = 200\nsubnets = ['10.32.0.0/16']\n";
    let in_red = port("b", "ip = ['10.32.0.5/16']\nmac = 'U:x'").replace("'blue'", "'red'");
    good(&format!("{HEAD}{red}{}{in_red}", port("a", "ip = ['10.32.0.5/16']\nmac = 'U:x'")));
}

#[test]
fn ipv6_wants_an_mtu_of_1280() {
    let small = "[[network]]\nname = 'blue'\nvni = 1\nmtu = 1279\n";
    good(small);
    assert!(bad(&format!("{small}subnets = ['fd00::/64']")).contains(":4: network[1] \"blue\".mtu: IPv6 needs"));
    let errors = bad(&format!("{small}{}", port("a", "ip = ['fd00::1/64']")));
    assert!(errors.contains(":9: port[1] \"a\".ip: IPv6 needs an MTU of at least 1280"), "{errors}");
}

#[test]
fn tunnel_addresses_belong_to_one_member_each() {
    let beta = peer("beta", BETA_KEY, "tunnel_address = '100.64.0.1'");
    let gamma = peer("gamma", GAMMA_KEY, "tunnel_address = '100.64.0.1'");
    let remedy = "set tunnel_address of one of them to another address, in every member's file";
    refused(
        &format!("{beta}{gamma}"),
        &format!(
            "weft.toml:8: peer[2] \"gamma\".tunnel_address: 100.64.0.1 is the tunnel address of peer[1] \"beta\" on \
             line 1 too; {remedy}"
        ),
    );
    refused(
        &format!("[node]\ntunnel_address = '100.64.0.1'\n{beta}"),
        &format!(
            "weft.toml:6: peer[1] \"beta\".tunnel_address: 100.64.0.1 is the tunnel address of this member ([node]) \
             too; {remedy}"
        ),
    );
    let derived = good(&peer("beta", BETA_KEY, "")).peers[0].tunnel_address;
    let errors = bad(&format!("[node]\ntunnel_address = '{derived}'\n{}", peer("beta", BETA_KEY, "")));
    assert!(errors.contains("weft.toml:3: peer[1] \"beta\".tunnel_address: "), "{errors}");
    assert!(bad("[node]\ntunnel_address = '224.0.0.1'").contains("not the address of a host"));
}

#[test]
fn a_member_is_not_its_own_peer() {
    let config = good(&peer("beta", BETA_KEY, ""));
    let error = check_identity(&config, &BETA_KEY.parse().unwrap()).unwrap_err();
    assert!(error.starts_with("peer 'beta' has this member's own public key;"), "{error}");
    assert_eq!(check_identity(&config, &GAMMA_KEY.parse().unwrap()), Ok(()));
    let own = GAMMA_KEY.parse::<weft::wire::key::PublicKey>().unwrap().tunnel_address();
    let config = good(&peer("beta", BETA_KEY, &format!("tunnel_address = '{own}'")));
    let error = check_identity(&config, &GAMMA_KEY.parse().unwrap()).unwrap_err();
    assert!(error.contains("have the same tunnel address") && error.contains("set tunnel_address"), "{error}");
}

#[test]
fn a_preshared_key_is_never_repeated_and_its_file_must_hold_one() {
    let inline = good(&peer("beta", BETA_KEY, &format!("preshared_key = '{PSK}'")));
    assert_eq!(inline.peers[0].preshared_key, Some(PSK.parse().unwrap()));
    let errors = bad(&peer("beta", BETA_KEY, "preshared_key = 'hunter2'"));
    assert!(errors.contains("preshared_key: not a WireGuard key") && !errors.contains("hunter2"), "{errors}");
    let remedy = "make the file with 'weft key psk', and give both sides the same";
    refused(
        &peer("beta", BETA_KEY, "preshared_key_file = '/etc/weft/gone.psk'"),
        &format!("weft.toml:4: peer[1] \"beta\".preshared_key_file: /etc/weft/gone.psk: no such file; {remedy}"),
    );
    let errors = bad(&peer("beta", BETA_KEY, "preshared_key_file = '/etc/weft/bad.psk'"));
    assert!(errors.contains("/etc/weft/bad.psk: not a WireGuard key") && !errors.contains("secret"), "{errors}");
}

#[test]
fn static_entries_point_to_what_there_is() {
    let entry = |at: &str| format!("{HEAD}static = [{{ mac = '02:00:00:00:00:01', {at} }}]\n");
    let red = "[[network]]\nname = 'red'\nvni = 200\n";
    let web = port("web", "");
    good(&format!("{}{web}", entry("port = 'web'")));
    for (text, problem) in [
        (entry("port = 'web'"), "there is no port 'web'; add it to the file"),
        (entry("peer = 'beta'"), "there is no peer 'beta'; add it to the file"),
        (entry("port = 'web', peer = 'beta'"), "a MAC address is behind a peer or a port, not both"),
        (format!("{HEAD}static = [{{ mac = '02:00:00:00:00:01' }}]\n"), "neither peer nor port is given"),
        (format!("{}{red}{}", entry("port = 'web'"), web.replace("blue", "red")), "port 'web' is in network 'red'"),
        (
            format!("{}{}", entry("peer = 'beta'"), peer("beta", BETA_KEY, "networks = []")),
            "peer 'beta' does not have this network",
        ),
        (
            format!("{}{}{}", entry("port = 'web'"), web, port("db", "mac = '02:00:00:00:00:01'")),
            "02:00:00:00:00:01 is pinned elsewhere by a static entry of network 'blue'",
        ),
    ] {
        let errors = bad(&text);
        assert!(errors.contains(problem) && errors.lines().count() == 1, "{errors}\n{text}");
    }
}

#[test]
fn tables_and_files_are_bounded() {
    let endpoints: Vec<String> = (1..=9).map(|n| format!("'192.0.2.{n}:51820'")).collect();
    let errors = bad(&peer("beta", BETA_KEY, &format!("endpoints = [{}]", endpoints.join(", "))));
    assert!(errors.contains("endpoints: there are 9, and at most 8 are allowed"), "{errors}");

    let networks =
        |n: u32| -> String { (1..=n).map(|n| format!("[[network]]\nname = 'n{n}'\nvni = {n}\n")).collect() };
    assert_eq!(good(&networks(1024)).networks.len(), 1024);
    refused(
        &networks(1025),
        "weft.toml:3073: network: there are 1025, and at most 1024 are allowed; spread them over more hosts",
    );
    let ports = |n: usize| -> String { (1..=n).map(|n| port(&format!("p{n}"), &format!("mac = 'U:{n}'"))).collect() };
    assert_eq!(good(&format!("{HEAD}{}", ports(4096))).ports.len(), 4096);

    let many: Vec<String> = (0..65).map(|n| format!("'10.32.{n}.1/16'")).collect();
    let errors = bad(&format!("{HEAD}{}", port("web", &format!("ip = [{}]", many.join(", ")))));
    assert!(errors.contains("ip: there are 65, and at most 64 are allowed"), "{errors}");

    let large = "#".repeat(MAX_FILE + 1);
    refused(&large, "weft.toml: is 1048577 bytes long; a configuration has at most 1048576; is this the right file?");
    assert!(bad("[node]\ncontrol_socket = '/run/".to_owned().as_str()).contains(":2: not TOML"));
    let long = format!("[node]\ncontrol_socket = '/run/{}'", "x".repeat(103));
    assert!(bad(&long).contains("a socket's path has at most 107 bytes"));
}

#[test]
fn a_port_attached_at_run_time_obeys_the_rules_of_the_file() {
    let config = good(&format!("{HEAD}{}", port("web", "ip = ['10.32.0.5/16']\nmac = 'U:x'")));
    let (network, others) = (&config.networks[0], &config.ports);
    let wanted = Port {
        name: "db".into(),
        network: "blue".into(),
        target: Target::Pid(1),
        ifname: "eth1".into(),
        mac: None,
        addresses: vec!["10.32.0.6/16@10.32.0.1".parse().unwrap()],
        auto: false,
        names: Vec::new(),
        labels: Default::default(),
        allow: Default::default(),
        rate: Default::default(),
    };
    assert_eq!(check_port(&wanted, network, others), Ok(()));
    let refusal = |change: &dyn Fn(&mut Port)| {
        let mut port = wanted.clone();
        change(&mut port);
        check_port(&port, network, others).unwrap_err()
    };
    assert_eq!(refusal(&|p| p.name = "web".into()), "there is a port 'web' already; choose another name");
    assert_eq!(
        refusal(&|p| p.target = Target::Container("web".into())),
        "port 'web' is the interface eth1 of web already; choose another interface name"
    );
    assert_eq!(
        refusal(&|p| p.addresses = vec!["10.32.0.5/16".parse().unwrap()]),
        "port 'web' in network 'blue' has 10.32.0.5 already; choose another address"
    );
    assert!(refusal(&|p| p.addresses = vec!["10.33.0.5/16".parse().unwrap()]).contains("is outside network 'blue'"));
    assert!(refusal(&|p| p.mac = others[0].mac).contains("has 02:40:1b:30:e3:b8 already"));
    assert!(refusal(&|p| p.mac = Some("01:00:00:00:00:00".parse().unwrap())).contains("belongs to no station"));
    assert!(refusal(&|p| p.ifname = "a/b".into()).starts_with("'a/b' cannot name an interface"));
    assert!(refusal(&|p| p.name = "a b".into()).starts_with("'a b' cannot name a port"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The example with pieces of it moved about: close enough to the format to reach every corner of the reader.
    #[test]
    fn no_text_makes_the_parser_panic(cuts in prop::collection::vec((0usize..6000, 0usize..6000, 0usize..40), 1..8)) {
        let mut text: Vec<char> = include_str!("../config/weft.toml").replace("# ", "").chars().collect();
        for (from, to, length) in cuts {
            let from = from % text.len();
            let piece = text[from..text.len().min(from + length)].to_vec();
            let to = to % text.len();
            if length % 2 == 0 {
                text.drain(from..from + piece.len());
            }
            let to = to.min(text.len());
            text.splice(to..to, piece);
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.0.is_empty());
            let lines = text.lines().count() + 1;
            prop_assert!(errors.0.iter().all(|error| (1..=lines).contains(&error.line)), "{errors}");
            prop_assert!(errors.to_string().lines().count() <= 101, "{errors}");
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(text in "\\PC{0,200}|[\\[\\]a-z.='\" {},\n]{0,200}") {
        let _ = read(&text);
    }
}

#[test]
fn the_annotated_example_is_accepted() {
    let text = include_str!("../config/weft.toml");
    let config = good(text);
    assert!(!config.networks.is_empty() && !config.peers.is_empty() && !config.ports.is_empty());
    for table in keys::TABLES {
        for key in table.keys {
            let shown = text.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(key.name));
            assert!(
                shown || table.name == "network.static",
                "config/weft.toml does not show {}.{}",
                table.name,
                key.name
            );
        }
    }
}

#[test]
fn the_defaults_of_the_reference_are_those_of_the_parser() {
    let absent = good("");
    for table in keys::TABLES.iter().filter(|table| !table.array) {
        for key in table.keys {
            if !matches!(key.absent, Absent::Refused | Absent::Means(_)) {
                let stated = key.absent.describe();
                let stated = good(&format!("[{}]\n{} = {}", table.name, key.name, stated.trim_matches('`')));
                assert_eq!(stated, absent, "{}.{}", table.name, key.name);
            }
        }
    }
}

#[test]
fn the_reference_is_what_the_table_of_keys_says() {
    const BEGIN: &str = "<!-- keys: begin -->\n";
    const END: &str = "<!-- keys: end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{}{END}{after}", reference::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    } else {
        let hint = "docs/configuration.md is not what src/config/keys.rs says: write it with";
        assert!(text == expected, "{hint} `UPDATE_DOCS=1 cargo test --test config`");
    }
}
