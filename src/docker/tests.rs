//! Every call as Docker 20.10 sends it, byte for byte, and the answer to it; then what Docker does when it is killed.

#![allow(clippy::unwrap_used)]

mod addresses;

use super::ipam::TRIES;
use super::testing::Maps;
use super::{ABANDONED, Driver, PENDING, Place, Reply};
use crate::config::parse::{Defaults, parse};
use crate::docker::record::Record;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

const NETWORK: &str = "b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184";
const ENDPOINT: &str = "591785b801163e5f6f0e5c6b8b0d4e3a591785b801163e5f6f0e5c6b8b0d4e3a";
const FILE: &str = r#"
[[network]]
name = "blue"
vni = 100
subnets = ["10.32.0.0/16", "fd00:32::/64"]
[[network]]
name = "red"
vni = 200
subnets = ["10.40.0.0/24"]
gateway = ["10.40.0.254"]
[[network]]
name = "plain"
vni = 300
"#;

/// A driver, its member, and the time.
struct Stage {
    driver: Driver,
    maps: Maps,
    now: Duration,
}

impl Stage {
    fn new() -> Self {
        let file = parse("weft.toml", FILE, &Defaults { hostname: "alpha".into() }, &|_| Err("none".into())).unwrap();
        let maps = Maps::new(file.networks);
        Self { driver: Driver::default(), maps, now: Duration::from_secs(1000) }
    }

    fn raw(&mut self, call: &str, body: &[u8]) -> Reply {
        let reply = self.driver.answer(self.now, &format!("/{call}"), body, &mut self.maps);
        self.maps.check();
        reply
    }

    fn call(&mut self, call: &str, body: &str) -> Value {
        let reply = self.raw(call, body.as_bytes());
        assert_eq!(reply.status, 200);
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// What was answered to a call that must succeed.
    #[track_caller]
    fn done(&mut self, call: &str, body: &str) -> Value {
        let value = self.call(call, body);
        assert_eq!(value.get("Err"), None, "{call} {body}: {value}");
        value
    }

    /// Why a call was refused, under both keys.
    #[track_caller]
    fn refused(&mut self, call: &str, body: &str) -> String {
        let value = self.call(call, body);
        assert!(value["Err"].is_string(), "{call} {body}: {value}");
        assert_eq!(value["Err"], value["Error"]);
        value["Err"].as_str().unwrap().to_owned()
    }

    fn create_network(&mut self, options: Value) {
        let body = json!({ "NetworkID": NETWORK, "Options": { "com.docker.network.generic": options } });
        self.done("NetworkDriver.CreateNetwork", &body.to_string());
    }

    fn request(&mut self, address: &str) -> String {
        let body = json!({ "PoolID": "weft/blue/10.32.0.0/16", "Address": address, "Options": {} });
        self.done("IpamDriver.RequestAddress", &body.to_string())["Address"].as_str().unwrap().to_owned()
    }

    fn release(&mut self, address: &str) {
        let body = json!({ "PoolID": "weft/blue/10.32.0.0/16", "Address": address });
        assert_eq!(self.done("IpamDriver.ReleaseAddress", &body.to_string()), json!({}));
    }

    /// As `docker run` does it, up to the moved interface.
    fn start(&mut self, endpoint: &str, address: &str) {
        let body = endpoint_body(endpoint, address);
        self.done("NetworkDriver.CreateEndpoint", &body);
        self.done("NetworkDriver.Join", &join_body(endpoint));
        let port = self.driver.endpoints[endpoint].port.clone();
        self.maps.ports.get_mut(&port).unwrap().1 = Place::Container;
        self.tick();
    }

    fn set_place(&mut self, endpoint: &str, place: Place) {
        let port = self.driver.endpoints[endpoint].port.clone();
        self.maps.ports.get_mut(&port).unwrap().1 = place;
    }

    fn tick(&mut self) {
        self.driver.tick(self.now, &mut self.maps);
        self.maps.check();
    }

    fn holds(&self, address: &str) -> bool {
        self.maps.leases.contains_key(&("blue".to_owned(), address.parse::<IpAddr>().unwrap()))
    }
}

fn endpoint_body(endpoint: &str, address: &str) -> String {
    json!({ "NetworkID": NETWORK, "EndpointID": endpoint, "Interface": { "Address": address }, "Options": {} })
        .to_string()
}

fn join_body(endpoint: &str) -> String {
    let sandbox = "/var/run/docker/netns/8c1b0f5e7b1d";
    json!({ "NetworkID": NETWORK, "EndpointID": endpoint, "SandboxKey": sandbox, "Options": {} }).to_string()
}

fn other(n: u8) -> String {
    format!("{n:02x}{}", &ENDPOINT[2..])
}

#[test]
fn the_life_of_a_container_call_by_call() {
    let mut stage = Stage::new();
    // The handshake: empty bodies.
    assert_eq!(stage.done("Plugin.Activate", ""), json!({ "Implements": ["NetworkDriver", "IpamDriver"] }));
    assert_eq!(
        stage.done("NetworkDriver.GetCapabilities", ""),
        json!({ "Scope": "local", "ConnectivityScope": "global" })
    );
    assert_eq!(
        stage.done("IpamDriver.GetCapabilities", "null"),
        json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false })
    );
    assert_eq!(
        stage.done("IpamDriver.GetDefaultAddressSpaces", "\n"),
        json!({ "LocalDefaultAddressSpace": "weft", "GlobalDefaultAddressSpace": "weft" })
    );
    // What Docker tells of its own discovery, and what it asks of drivers whose networks are a swarm's.
    let node = r#"{"DiscoveryType":1,"DiscoveryData":{"Address":"192.0.2.1","BindAddress":"0.0.0.0","Self":true}}"#;
    for call in ["NetworkDriver.DiscoverNew", "NetworkDriver.DiscoverDelete"] {
        assert_eq!(stage.done(call, node), json!({}));
    }
    let global = format!(r#"{{"NetworkID":"{NETWORK}","Options":{{"network":"blue"}},"IPv4Data":[],"IPv6Data":[]}}"#);
    assert!(stage.refused("NetworkDriver.AllocateNetwork", &global).contains("make one on each host"));
    assert_eq!(stage.done("NetworkDriver.FreeNetwork", &global), json!({}));
    // docker network create -d weft --ipam-driver weft --ipam-opt network=blue -o network=blue --ipv6 lan
    let pool = r#"{"AddressSpace":"weft","Pool":"","SubPool":"","Options":{"network":"blue"},"V6":false}"#;
    assert_eq!(
        stage.done("IpamDriver.RequestPool", pool),
        json!({ "PoolID": "weft/blue/10.32.0.0/16", "Pool": "10.32.0.0/16", "Data": {} })
    );
    let gateway = r#"{"PoolID":"weft/blue/10.32.0.0/16","Address":"","Options":{"RequestAddressType":"com.docker.network.gateway"}}"#;
    assert_eq!(stage.done("IpamDriver.RequestAddress", gateway), json!({ "Address": "10.32.0.1/16", "Data": {} }));
    let pool = r#"{"AddressSpace":"weft","Pool":"fd00:32::/64","SubPool":"","Options":{},"V6":true}"#;
    assert_eq!(stage.done("IpamDriver.RequestPool", pool)["PoolID"], "weft/blue/fd00:32::/64");
    let aux = r#"{"PoolID":"weft/blue/10.32.0.0/16","Address":"10.32.0.9","Options":null}"#;
    assert_eq!(stage.done("IpamDriver.RequestAddress", aux)["Address"], "10.32.0.9/16");
    let create = format!(
        r#"{{"NetworkID":"{NETWORK}","Options":{{"com.docker.network.enable_ipv6":true,"com.docker.network.generic":{{"network":"blue"}}}},"IPv4Data":[{{"AddressSpace":"weft","Gateway":"10.32.0.1/16","Pool":"10.32.0.0/16","AuxAddresses":{{"router":"10.32.0.9/16"}}}}],"IPv6Data":[{{"AddressSpace":"weft","Gateway":"fd00:32::1/64","Pool":"fd00:32::/64","AuxAddresses":null}}]}}"#
    );
    assert_eq!(stage.done("NetworkDriver.CreateNetwork", &create), json!({}));

    // docker run --network lan
    assert_eq!(stage.request(""), "10.32.0.2/16");
    let v6 = r#"{"PoolID":"weft/blue/fd00:32::/64","Address":"fd00:32::7","Options":{}}"#;
    assert_eq!(stage.done("IpamDriver.RequestAddress", v6)["Address"], "fd00:32::7/64");
    let create = format!(
        r#"{{"NetworkID":"{NETWORK}","EndpointID":"{ENDPOINT}","Interface":{{"Address":"10.32.0.2/16","AddressIPv6":"fd00:32::7/64","MacAddress":""}},"Options":{{"com.docker.network.endpoint.exposedports":[{{"Proto":6,"Port":80}}],"com.docker.network.portmap":[]}}}}"#
    );
    let made = json!({ "Interface": { "MacAddress": "02:00:00:00:00:09" } });
    assert_eq!(stage.done("NetworkDriver.CreateEndpoint", &create), made);
    let (port, _) = stage.maps.ports["docker:591785b80116"].clone();
    assert_eq!((port.network.as_str(), port.ifname.as_str(), port.mtu), ("blue", "wd591785b80116", None));
    assert_eq!(port.addresses, ["10.32.0.2/16".parse().unwrap(), "fd00:32::7/64".parse().unwrap()]);
    // Again, because an answer was lost; and another under its id.
    assert_eq!(stage.done("NetworkDriver.CreateEndpoint", &create), made);
    assert!(
        stage.refused("NetworkDriver.CreateEndpoint", &endpoint_body(ENDPOINT, "10.32.0.3/16")).contains("another")
    );
    let joined = json!({
        "InterfaceName": { "SrcName": "wd591785b80116", "DstPrefix": "eth" },
        "StaticRoutes": [],
        "DisableGatewayService": false,
    });
    for _ in 0..2 {
        assert_eq!(stage.done("NetworkDriver.Join", &join_body(ENDPOINT)), joined);
    }
    stage.set_place(ENDPOINT, Place::Container);
    stage.tick();
    let which = format!(r#"{{"NetworkID":"{NETWORK}","EndpointID":"{ENDPOINT}"}}"#);
    assert_eq!(stage.done("NetworkDriver.EndpointOperInfo", &which), json!({ "Value": {} }));
    assert_eq!(stage.done("NetworkDriver.ProgramExternalConnectivity", &which), json!({}));

    // docker stop; the interface is back in the host's namespace in between.
    assert_eq!(stage.done("NetworkDriver.RevokeExternalConnectivity", &which), json!({}));
    assert_eq!(stage.done("NetworkDriver.Leave", &which), json!({}));
    stage.set_place(ENDPOINT, Place::Host);
    stage.tick();
    assert_eq!(stage.maps.ports.len(), 1);
    for _ in 0..2 {
        assert_eq!(stage.done("NetworkDriver.DeleteEndpoint", &which), json!({}));
        stage.release("10.32.0.2");
        let v6 = r#"{"PoolID":"weft/blue/fd00:32::/64","Address":"fd00:32::7"}"#;
        assert_eq!(stage.done("IpamDriver.ReleaseAddress", v6), json!({}));
    }
    // What was set aside stays, however long nobody has it.
    stage.now += ABANDONED * 2;
    stage.tick();
    stage.now += ABANDONED * 2;
    stage.tick();
    assert_eq!(stage.maps.leases.len(), 1);
    let aux = r#"{"PoolID":"weft/blue/10.32.0.0/16","Address":"10.32.0.9","Options":{}}"#;
    assert!(stage.refused("IpamDriver.RequestAddress", aux).contains("set aside"));

    // docker network rm
    stage.release("10.32.0.1");
    stage.release("10.32.0.9");
    assert_eq!(stage.done("IpamDriver.ReleasePool", r#"{"PoolID":"weft/blue/10.32.0.0/16"}"#), json!({}));
    for _ in 0..2 {
        let which = format!(r#"{{"NetworkID":"{NETWORK}"}}"#);
        assert_eq!(stage.done("NetworkDriver.DeleteNetwork", &which), json!({}));
    }
    assert!(stage.maps.leases.is_empty() && stage.maps.kept.is_empty() && stage.maps.ports.is_empty());
}

#[test]
fn options_are_known_or_refused_by_name() {
    let mut stage = Stage::new();
    let mut create = |options: Value, pool: &str| {
        let body = json!({
            "NetworkID": NETWORK, "Options": { "com.docker.network.generic": options }, "IPv4Data": [{ "Pool": pool }],
        });
        stage.call("NetworkDriver.CreateNetwork", &body.to_string())["Err"].as_str().map(ToOwned::to_owned)
    };
    for (options, pool, part) in [
        (json!({}), "", "Say it with -o network=NAME; this host has 'blue'"),
        (json!(null), "", "which network"),
        (json!("network=blue"), "", "table"),
        (json!({ "network": "bleu" }), "", "no network 'bleu'"),
        (json!({ "network": "blue", "icc": "false", "x": "" }), "", "unknown options 'icc', 'x'"),
        (json!({ "network": "blue", "com.docker.network.bridge.enable_icc": "false" }), "", "enable_icc"),
        (json!({ "network": "blue", "mtu": "1501" }), "", "from 1280 to 1500"),
        (json!({ "network": "blue", "mtu": "1000" }), "", "from 1280"),
        (json!({ "network": "red", "com.docker.network.driver.mtu": "five" }), "", "from 576"),
        (json!({ "network": "blue", "gateway": "10.32.0.1" }), "", "'docker'"),
        (json!({ "network": "blue" }), "172.18.0.0/16", "172.18.0.0/16 is no subnet"),
        (json!({ "network": "blue" }), "nonsense", "prefix length"),
    ] {
        let said = create(options, pool).unwrap();
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    assert_eq!(create(json!({ "network": "blue", "mtu": "1400" }), "10.32.0.0/16"), None);
    assert_eq!(create(json!({ "network": "blue", "com.docker.network.driver.mtu": "1300" }), "0.0.0.0/0"), None);
    assert_eq!(create(json!({ "network": "plain" }), "172.18.0.0/16"), None);
    // Driver options of an endpoint: there are none.
    let body = json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": { "speed": "5", "com.docker.network.x": 1 } });
    assert!(stage.refused("NetworkDriver.CreateEndpoint", &body.to_string()).contains("'speed'"));
}

#[test]
fn who_leads_out_follows_from_the_options() {
    let mut stage = Stage::new();
    let mut join = |options: Value, internal: bool| {
        let create = json!({
            "NetworkID": NETWORK,
            "Options": { "com.docker.network.generic": options, "com.docker.network.internal": internal },
        });
        stage.done("NetworkDriver.CreateNetwork", &create.to_string());
        let address = stage.request("");
        stage.done("NetworkDriver.CreateEndpoint", &endpoint_body(ENDPOINT, &address));
        let answer = stage.done("NetworkDriver.Join", &join_body(ENDPOINT));
        let mtu = stage.maps.ports.values().next().unwrap().0.mtu;
        assert_eq!(stage.driver.mtu_of("docker:591785b80116"), mtu);
        stage.done("NetworkDriver.DeleteNetwork", &create.to_string());
        (
            answer["Gateway"].as_str().map(ToOwned::to_owned),
            answer["GatewayIPv6"].clone(),
            answer["DisableGatewayService"] == true,
            mtu,
        )
    };
    assert_eq!(join(json!({ "network": "blue" }), false), (None, Value::Null, false, None));
    assert_eq!(
        join(json!({ "network": "blue", "gateway": "weft", "mtu": 1300 }), false),
        (Some("10.32.0.1".to_owned()), Value::Null, false, Some(1300))
    );
    assert_eq!(join(json!({ "network": "blue", "gateway": "weft" }), true), (None, Value::Null, false, None));
    assert_eq!(join(json!({ "network": "blue", "gateway": "none" }), false), (None, Value::Null, true, None));
}

#[test]
fn ports_are_published_where_weft_leads_out_all_of_a_container_or_none() {
    const PROGRAM: &str = "NetworkDriver.ProgramExternalConnectivity";
    let mut stage = Stage::new();
    let create = json!({ "NetworkID": NETWORK, "Options": { "com.docker.network.generic": { "network": "blue", "gateway": "weft" } } });
    stage.done("NetworkDriver.CreateNetwork", &create.to_string());
    let address = stage.request("");
    stage.start(ENDPOINT, &address);
    let asked = |bindings: Value| {
        let options =
            json!({ "com.docker.network.portmap": bindings, "com.docker.network.endpoint.exposedports": [] });
        json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": options }).to_string()
    };
    let binding = |proto: u8, host_ip: &str, host: u16, end: u16| json!({ "Proto": proto, "IP": "", "Port": 80, "HostIP": host_ip, "HostPort": host, "HostPortEnd": end });
    stage.done(PROGRAM, &asked(json!([binding(6, "", 8080, 8080), binding(17, "192.0.2.1", 53, 53)])));
    let published: Vec<String> = stage
        .maps
        .published
        .iter()
        .map(|one| {
            format!("{}:{}/{} {}:{} {}", one.host_ip, one.host_port, one.protocol, one.address, one.port, one.holder)
        })
        .collect();
    // The container has no IPv6 address that something could lead to.
    let holder = "docker:591785b80116";
    assert_eq!(
        published,
        [format!("0.0.0.0:8080/tcp 10.32.0.2:80 {holder}"), format!("192.0.2.1:53/udp 10.32.0.2:80 {holder}")]
    );
    let which = json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT }).to_string();
    assert_eq!(stage.done("NetworkDriver.RevokeExternalConnectivity", &which), json!({}));
    assert_eq!(stage.maps.published, []);
    for (wrong, part) in [
        (binding(132, "", 8081, 8081), "SCTP"),
        (binding(1, "", 8081, 8081), "IP protocol 1"),
        (binding(6, "", 0, 0), "weft chooses no port"),
        (binding(6, "", 8081, 8090), "8081-8090"),
        (binding(6, "::1", 8081, 8081), "no address that ::1"),
        (binding(6, "here", 8081, 8081), "'here'"),
    ] {
        let said = stage.refused(PROGRAM, &asked(json!([binding(6, "", 8080, 0), wrong])));
        assert!(said.contains(part), "{said}");
        assert_eq!(stage.maps.published, []);
    }
    stage.refused(PROGRAM, &asked(json!({ "Proto": 6 })));
    stage.refused(PROGRAM, &asked(json!([binding(6, "", 8080, 0)])).replace(ENDPOINT, &other(1)));
    // What another has is not published a second time, and takes the rest along.
    stage.done(PROGRAM, &asked(json!([binding(6, "", 8080, 0)])));
    stage.maps.published[0].holder = "docker:other".into();
    let said = stage.refused(PROGRAM, &asked(json!([binding(6, "", 8082, 0), binding(6, "", 8080, 0)])));
    assert!(said.contains("docker:other") && stage.maps.published.len() == 1, "{said}");
    // And it goes with the endpoint.
    stage.maps.published.clear();
    stage.done(PROGRAM, &asked(json!([binding(6, "", 8080, 0)])));
    stage.done("NetworkDriver.DeleteEndpoint", &which);
    assert_eq!(stage.maps.published, []);
}

#[test]
fn a_mac_address_comes_as_text_or_in_base64() {
    for (mac, options, made, answer) in [
        ("02:42:ac:11:00:05", json!({}), "02:42:ac:11:00:05", json!({})),
        (
            "",
            json!({ "com.docker.network.endpoint.macaddress": "AkKsEQAF" }),
            "02:42:ac:11:00:05",
            json!({ "MacAddress": "02:42:ac:11:00:05" }),
        ),
        (
            "",
            json!({ "com.docker.network.endpoint.macaddress": null }),
            "02:00:00:00:00:09",
            json!({ "MacAddress": "02:00:00:00:00:09" }),
        ),
    ] {
        let mut stage = Stage::new();
        stage.create_network(json!({ "network": "blue" }));
        let body = json!({
            "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": { "MacAddress": mac, "AddressIPv6": null }, "Options": options,
        });
        assert_eq!(stage.done("NetworkDriver.CreateEndpoint", &body.to_string()), json!({ "Interface": answer }));
        assert!(
            matches!(&stage.maps.kept[&format!("endpoint:{ENDPOINT}")], Record::Endpoint(e) if e.mac.to_string() == made)
        );
    }
    let mut stage = Stage::new();
    stage.create_network(json!({ "network": "blue" }));
    for (mac, option) in [("01:00:5e:00:00:01", ""), ("02:42", ""), ("", "AkKs"), ("", "!"), ("", "AQBeAAAB")] {
        let options = json!({ "com.docker.network.endpoint.macaddress": option });
        let body = json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Interface": { "MacAddress": mac }, "Options": options });
        stage.refused("NetworkDriver.CreateEndpoint", &body.to_string());
    }
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let mut stage = Stage::new();
    stage.create_network(json!({ "network": "blue" }));
    let before = stage.maps.kept.clone();
    stage.maps.refusal = Some("the disk is full".to_owned());
    assert!(stage.refused("NetworkDriver.CreateEndpoint", &endpoint_body(ENDPOINT, "10.32.1.1/16")).contains("full"));
    assert!(stage.maps.leases.is_empty() && stage.maps.kept == before);
    stage.maps.refusal = None;
    stage.start(ENDPOINT, "10.32.1.1/16");
    assert!(stage.refused("NetworkDriver.Join", &join_body(&other(1))).contains("start the container again"));
}

#[test]
fn the_same_address_is_free_at_once_when_docker_was_killed_and_never_while_a_container_has_it() {
    let mut stage = Stage::new();
    stage.create_network(json!({ "network": "blue" }));
    assert_eq!(stage.request("10.32.0.5"), "10.32.0.5/16");
    // Two containers at the same moment.
    let again = r#"{"PoolID":"weft/blue/10.32.0.0/16","Address":"10.32.0.5","Options":{}}"#;
    assert!(stage.refused("IpamDriver.RequestAddress", again).contains("a moment ago"));
    stage.done("NetworkDriver.CreateEndpoint", &endpoint_body(ENDPOINT, "10.32.0.5/16"));
    assert!(stage.refused("IpamDriver.RequestAddress", again).contains("being started"));
    stage.done("NetworkDriver.Join", &join_body(ENDPOINT));
    stage.set_place(ENDPOINT, Place::Container);
    stage.now += ABANDONED;
    stage.tick();
    assert!(stage.refused("IpamDriver.RequestAddress", again).contains("a running container"));
    // Another id with the address: Docker's own IPAM would do that.
    assert!(
        stage.refused("NetworkDriver.CreateEndpoint", &endpoint_body(&other(1), "10.32.0.5/16")).contains("in use")
    );

    // dockerd and the container are killed; nothing is said, and the address is asked for again.
    stage.set_place(ENDPOINT, Place::Gone);
    assert_eq!(stage.request("10.32.0.5"), "10.32.0.5/16");
    stage.start(&other(1), "10.32.0.5/16");
    // dockerd comes back and releases what it knows of. What runs loses nothing by that.
    stage.release("10.32.0.5");
    assert!(stage.maps.ports.len() == 1 && stage.holds("10.32.0.5"));
    let which = json!({ "NetworkID": NETWORK, "EndpointID": other(1) }).to_string();
    stage.done("NetworkDriver.DeleteEndpoint", &which);
    assert!(stage.maps.ports.is_empty() && !stage.holds("10.32.0.5"));
    // Of one that does not run nothing is left.
    assert_eq!(stage.request("10.32.0.5"), "10.32.0.5/16");
    stage.start(&other(1), "10.32.0.5/16");
    stage.set_place(&other(1), Place::Gone);
    stage.release("10.32.0.5");
    assert!(stage.maps.ports.is_empty() && !stage.holds("10.32.0.5"));
    assert_eq!(stage.request("10.32.0.5"), "10.32.0.5/16");
    stage.start(&other(2), "10.32.0.5/16");
    // Killed before the endpoint was made: the lease yields after a moment.
    assert_eq!(stage.request("10.32.0.6"), "10.32.0.6/16");
    stage.now += PENDING;
    assert_eq!(stage.request("10.32.0.6"), "10.32.0.6/16");
}

#[test]
fn what_docker_forgot_is_collected() {
    let mut stage = Stage::new();
    stage.create_network(json!({ "network": "blue" }));
    for (n, address) in ["10.32.0.2/16", "10.32.0.3/16", "10.32.0.4/16"].into_iter().enumerate() {
        assert_eq!(stage.request(""), address);
        stage.start(&other(n as u8), address);
    }
    stage.request("");
    // The first dies with its namespace; the second left its container, and Docker was killed then.
    stage.set_place(&other(0), Place::Gone);
    stage.done("NetworkDriver.Leave", &format!(r#"{{"EndpointID":"{}"}}"#, other(1)));
    stage.set_place(&other(1), Place::Host);
    stage.tick();
    assert_eq!(stage.maps.ports.len(), 2);
    stage.now += ABANDONED;
    stage.tick();
    assert_eq!(stage.maps.ports.len(), 1);
    // Leases wait longer than endpoints: Docker may have yet to release them.
    stage.now += ABANDONED;
    stage.tick();
    assert_eq!(stage.maps.leases.len(), 1);
    assert!(stage.holds("10.32.0.4"));
}

#[test]
fn a_restart_of_weft_knows_what_there_was() {
    let mut stage = Stage::new();
    stage.create_network(json!({ "network": "blue", "mtu": "1400" }));
    assert_eq!(stage.request(""), "10.32.0.2/16");
    stage.start(ENDPOINT, "10.32.0.2/16");
    let text: Vec<String> = stage.maps.kept.values().map(|record| serde_json::to_string(record).unwrap()).collect();
    let records: Vec<Record> = text.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    stage.now += Duration::from_secs(5);
    stage.driver = Driver::new(records.clone(), stage.now);
    assert!(stage.driver.has_port("docker:591785b80116") && stage.driver.mtu_of("docker:591785b80116") == Some(1400));
    stage.tick();
    assert_eq!((stage.maps.ports.len(), stage.maps.leases.len()), (1, 1));
    // A network that Docker removed meanwhile is forgotten when its API says so, the one that it has is not.
    stage.driver.networks_are(&[NETWORK.to_owned()], &mut stage.maps);
    assert_eq!(stage.maps.kept.len(), 2);
    stage.driver = Driver::new(records, stage.now);
    stage.driver.networks_are(&[], &mut stage.maps);
    assert_eq!(stage.maps.kept.len(), 1);
    // With no state at all a network is found again by what its containers have.
    let body = endpoint_body(&other(1), "10.32.0.3/16");
    stage.done("NetworkDriver.CreateEndpoint", &body);
    assert_eq!(stage.maps.ports["docker:011785b80116"].0.network, "blue");
    let nowhere = json!({ "NetworkID": &NETWORK[..12], "EndpointID": other(2), "Interface": {} }).to_string();
    assert!(stage.refused("NetworkDriver.CreateEndpoint", &nowhere).contains("make it again with -o network=NAME"));
}

#[test]
fn whatever_comes_is_answered() {
    let mut stage = Stage::new();
    for path in ["", "/", "NetworkDriver.Join", "/VolumeDriver.Create", "/NetworkDriver.Join/", "//Plugin.Activate"] {
        let reply = stage.driver.answer(stage.now, path, b"{}", &mut stage.maps);
        let value: Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(reply.status == 404 && value["Err"].is_string() && value["Error"].is_string());
    }
    let calls = [
        "NetworkDriver.CreateNetwork",
        "NetworkDriver.DeleteNetwork",
        "NetworkDriver.CreateEndpoint",
        "NetworkDriver.Join",
        "NetworkDriver.DeleteEndpoint",
        "NetworkDriver.ProgramExternalConnectivity",
        "IpamDriver.RequestPool",
        "IpamDriver.RequestAddress",
        "IpamDriver.ReleaseAddress",
    ];
    for call in calls {
        for body in ["5", "\"x\"", "{", "{\"NetworkID\":5,\"PoolID\":{}}", "\u{1}", "{\"Options\":[1]}"] {
            stage.refused(call, body);
        }
        // Empty, null and nothing known in it: refused where something is needed, but answered.
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "{\"Whatever\":[null]}",
            "{\"Options\":null,\"Interface\":null,\"IPv4Data\":null}",
        ] {
            stage.call(call, body);
        }
        assert_eq!(stage.raw(call, &[0xff, 0xfe]).status, 200);
    }
    for id in ["", "../../etc", "a b", &"0".repeat(65)] {
        let body = json!({ "NetworkID": id, "EndpointID": id }).to_string();
        stage.refused("NetworkDriver.CreateNetwork", &body);
        stage.refused("NetworkDriver.CreateEndpoint", &body);
    }
    assert!(stage.maps.kept.is_empty() && stage.maps.ports.is_empty() && stage.maps.leases.is_empty());
}
