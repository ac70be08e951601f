//! ADD: what is asked of the daemon, and what the runtime is told.

use super::*;

#[test]
fn an_interface_is_made_and_told_in_each_version() {
    let ips = |version: Option<[&str; 2]>| {
        let mut v4 = json!({ "address": "10.32.7.9/16", "gateway": "10.32.0.1", "interface": 0 });
        let mut v6 = json!({ "address": "fd00:32::9/64", "gateway": "fd00:32::1", "interface": 0 });
        if let Some([four, six]) = version {
            v4["version"] = four.into();
            v6["version"] = six.into();
        }
        json!([v4, v6])
    };
    for version in Version::ALL {
        let mut world = Fake::new();
        let told = call(&mut world, &variables("ADD"), &conf(version.name(), json!({}))).unwrap();
        let mut interface = json!({ "name": "eth0", "mac": "02:00:00:00:00:99", "sandbox": "/run/netns/c1" });
        if version == Version::V1_1_0 {
            interface["mtu"] = 1400.into();
        }
        let golden = json!({
            "cniVersion": version.name(), "interfaces": [interface],
            "ips": ips((version < Version::V1_0_0).then_some(["4", "6"])),
            "dns": { "nameservers": ["10.32.0.1", "fd00:32::1"], "search": ["blue.weft"] }
        });
        assert_eq!(told, golden);
        let attach = json!({
            "request": "attach", "target": "netns:/run/netns/c1", "network": "blue", "addresses": [], "mac": null,
            "ifname": "eth0", "name": "cni:c1:eth0", "auto": true, "names": [], "labels": { "cni.network": "pods" },
            "allow": [], "rate": null
        });
        let [asked] = world.changes()[..] else { panic!("{:?}", world.log) };
        assert_eq!(serde_json::from_str::<Value>(asked).unwrap(), attach);
    }
}

#[test]
fn the_network_is_called_as_the_list_unless_said_otherwise_and_the_daemon_is_where_the_list_says() {
    let mut world = Fake::new();
    let stdin = br#"{"cniVersion":"1.0.0","name":"blue","type":"weft-cni","socket":"/run/other.sock"}"#;
    call(&mut world, &variables("ADD"), stdin).unwrap();
    assert_eq!(world.socket.as_deref(), Some(Path::new("/run/other.sock")));
    assert_eq!(world.ports["cni:c1:eth0"].network, "blue");
}

/// The one request to attach.
fn attached(world: &Fake) -> Value {
    let asked = world.log.iter().find(|line| line.contains("\"attach\"")).unwrap();
    serde_json::from_str(asked).unwrap()
}

#[test]
fn what_the_runtime_says_goes_before_what_the_file_says() {
    let cases = [
        // runtimeConfig, args, CNI_ARGS, the file; and the MAC address and addresses that come of it.
        (
            json!({ "runtimeConfig": { "mac": "02:00:00:00:00:01", "ips": ["10.32.1.1/16", "fd00:32::1:1/64"] } }),
            "02:00:00:00:00:01",
            json!(["10.32.1.1/16", "fd00:32::1:1/64"]),
        ),
        (json!({ "args": { "cni": { "ips": ["10.32.2.2"] } } }), "02:00:00:00:00:02", json!(["10.32.2.2/16"])),
        (json!({}), "02:00:00:00:00:02", json!(["10.32.3.3/16"])),
    ];
    for (more, mac, addresses) in cases {
        let mut more = more;
        more["mac"] = "02:00:00:00:00:03".into();
        let mut world = Fake::new();
        let mut variables = variables("ADD");
        variables.args = "IgnoreUnknown=1;IP=10.32.3.3;MAC=02:00:00:00:00:02;OTHER=x".to_owned();
        call(&mut world, &variables, &conf("1.0.0", more)).unwrap();
        let asked = attached(&world);
        assert_eq!((&asked["mac"], &asked["addresses"], &asked["auto"]), (&json!(mac), &addresses, &json!(false)));
    }
    let mut world = Fake::new();
    call(&mut world, &variables("ADD"), &conf("1.0.0", json!({ "mac": "02:00:00:00:00:03" }))).unwrap();
    assert_eq!(attached(&world)["mac"], "02:00:00:00:00:03");
}

#[test]
fn pods_have_names_aliases_and_labels() {
    let cases = [
        ("K8S_POD_NAME=web", json!(["web", "www", "web2"])),
        (
            "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=f00",
            json!(["web.shop", "www", "web2"]),
        ),
        ("K8S_POD_NAMESPACE=shop", json!(["www", "web2"])),
        ("K8S_POD_NAME=Web_1", json!(["web_1", "www", "web2"])),
        ("K8S_POD_NAME=no..name", json!(["www", "web2"])),
    ];
    for (args, names) in cases {
        let mut world = Fake::new();
        let mut variables = variables("ADD");
        variables.args = args.to_owned();
        let more = json!({
            "labels": { "tier": "front", "app": "a" },
            "runtimeConfig": { "aliases": { "pods": ["www", "www", "web2"], "other": ["no"] } },
            "args": { "cni": { "labels": [{ "key": "app", "value": "b" }] } },
        });
        call(&mut world, &variables, &conf("1.0.0", more)).unwrap();
        let asked = attached(&world);
        assert_eq!(asked["names"], names);
        assert_eq!(asked["labels"], json!({ "app": "b", "cni.network": "pods", "tier": "front" }));
    }
}

#[test]
fn limits_are_the_ports() {
    let limited = |bandwidth: Value| {
        let mut world = Fake::new();
        let more = json!({ "runtimeConfig": { "bandwidth": bandwidth } });
        call(&mut world, &variables("ADD"), &conf("1.0.0", more)).unwrap();
        attached(&world)["rate"].clone()
    };
    let bandwidth = json!({ "ingressRate": 8_000_000, "ingressBurst": 2_147_483_647, "egressRate": 4_000_000 });
    let rate = json!({
        "ingress_bps": 8_000_000, "ingress_burst": 2_147_483_647, "egress_bps": 4_000_000, "egress_burst": null,
    });
    assert_eq!((limited(bandwidth), limited(json!({})), limited(Value::Null)), (rate, Value::Null, Value::Null));
}

#[test]
fn resolvers_are_the_runtimes_else_the_files_else_the_networks() {
    let of_file =
        json!({ "nameservers": ["10.0.0.53"], "domain": "example", "search": ["example"], "options": ["ndots:2"] });
    let cases = [
        (json!({}), json!({ "nameservers": ["10.32.0.1", "fd00:32::1"], "search": ["blue.weft"] })),
        // Of two services, those that the container has a way to.
        (
            json!({ "runtimeConfig": { "ips": ["10.32.2.2"] } }),
            json!({ "nameservers": ["10.32.0.1"], "search": ["blue.weft"] }),
        ),
        (json!({ "ipam": {} }), json!({})),
        (json!({ "dns": {} }), json!({})),
        (json!({ "dns": of_file }), of_file.clone()),
        (
            json!({ "dns": of_file, "runtimeConfig": { "dns": { "servers": ["9.9.9.9"], "searches": ["a.b"], "options": null } } }),
            json!({ "nameservers": ["9.9.9.9"], "search": ["a.b"] }),
        ),
    ];
    for (more, dns) in cases {
        assert_eq!(call(&mut Fake::new(), &variables("ADD"), &conf("1.0.0", more)).unwrap()["dns"], dns);
    }
}

#[test]
fn a_default_route_leads_through_the_networks_service_address() {
    let mut world = Fake::new();
    let told = call(&mut world, &variables("ADD"), &conf("1.0.0", json!({ "defaultRoute": true }))).unwrap();
    let routes = json!([{ "dst": "0.0.0.0/0", "gw": "10.32.0.1" }, { "dst": "::/0", "gw": "fd00:32::1" }]);
    assert_eq!(told["routes"], routes);
    assert_eq!(world.log.last().unwrap(), "eth0: 0.0.0.0/0 via 10.32.0.1, ::/0 via fd00:32::1");
}

#[test]
fn an_ipam_plugin_gives_addresses_and_routes() {
    let answer = json!({
        "cniVersion": "1.0.0",
        "ips": [{ "address": "10.32.9.5/24", "gateway": "10.32.9.1" }, { "address": "fd00:32::5/64", "gateway": "" }],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "192.0.2.0/24", "gw": "10.32.9.77" }, { "dst": "2001:db8::/32", "gw": "fd00:32::77" }],
        "dns": { "nameservers": ["10.32.9.53"] },
    });
    let mut world = Fake::new();
    world.plugin.insert("ADD", Delegated { done: true, stdout: answer.to_string().into(), stderr: Vec::new() });
    let stdin = conf(
        "0.4.0",
        json!({ "ipam": { "type": "host-local", "ranges": [] }, "runtimeConfig": { "ipRanges": [[]] } }),
    );
    let told = call(&mut world, &variables("ADD"), &stdin).unwrap();
    let golden = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:99", "sandbox": "/run/netns/c1" }],
        "ips": [
            { "version": "4", "address": "10.32.9.5/24", "gateway": "10.32.9.1", "interface": 0 },
            { "version": "6", "address": "fd00:32::5/64", "interface": 0 },
        ],
        "routes": [
            { "dst": "0.0.0.0/0", "gw": "10.32.9.1" }, { "dst": "192.0.2.0/24", "gw": "10.32.9.77" },
            { "dst": "2001:db8::/32", "gw": "fd00:32::77" },
        ],
        "dns": { "nameservers": ["10.32.9.53"] },
    });
    assert_eq!(told, golden);
    let asked = attached(&world);
    assert_eq!((&asked["addresses"], &asked["auto"]), (&json!(["10.32.9.5/24", "fd00:32::5/64"]), &json!(false)));
    assert_eq!(world.changes()[0], "host-local ADD");
    assert_eq!(
        world.log.last().unwrap(),
        "eth0: 0.0.0.0/0 via 10.32.9.1, 192.0.2.0/24 via 10.32.9.77, 2001:db8::/32 via fd00:32::77"
    );

    // Without the default route, if the file will have none.
    let stdin = conf("0.4.0", json!({ "ipam": { "type": "host-local" }, "defaultRoute": false }));
    world.ports.clear();
    let told = call(&mut world, &variables("ADD"), &stdin).unwrap();
    assert_eq!(told["routes"].as_array().unwrap().len(), 2);
}

#[test]
fn an_interface_without_addresses_is_one_too() {
    let mut world = Fake::new();
    let told = call(&mut world, &variables("ADD"), &conf("1.0.0", json!({ "ipam": {} }))).unwrap();
    assert_eq!((told.get("ips"), &attached(&world)["auto"]), (None, &json!(false)));
}

#[test]
fn what_plugins_before_it_made_is_told_with_it() {
    let previous = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "lo", "sandbox": "/run/netns/c1", "pciID": "0" }, { "name": "vethx", "mac": "02:00:00:00:00:05" }],
        "ips": [{ "address": "127.0.0.1/8", "interface": 0 }],
        "routes": null,
        "dns": { "nameservers": ["1.1.1.1"] },
    });
    let told = call(&mut Fake::new(), &variables("ADD"), &conf("1.1.0", json!({ "prevResult": previous }))).unwrap();
    assert_eq!(told["interfaces"][0], previous["interfaces"][0]);
    assert_eq!(told["interfaces"][1], previous["interfaces"][1]);
    assert_eq!(told["interfaces"][2]["name"], "eth0");
    assert_eq!(told["ips"][0], previous["ips"][0]);
    assert_eq!((&told["ips"][1]["interface"], &told["ips"][2]["interface"]), (&json!(2), &json!(2)));
    assert_eq!(told["dns"]["search"], json!(["blue.weft"]));
}

#[test]
fn whatever_fails_nothing_is_left() {
    let host_local = json!({ "ipam": { "type": "host-local" }, "defaultRoute": true });
    let answer = br#"{"ips":[{"address":"10.32.9.5/24","gateway":"10.32.9.1"}]}"#;
    let given = || Delegated { done: true, stdout: answer.to_vec(), stderr: Vec::new() };
    let failed = |text: &str| Delegated { done: false, stdout: text.into(), stderr: b"panic: no\n".to_vec() };

    // The IPAM plugin fails, in its own words or without any.
    let words = [
        (
            r#"{"code":103,"msg":"no addresses left","details":"in range 0"}"#,
            103,
            "host-local failed at ADD: no addresses left",
        ),
        ("", 100, "host-local failed at ADD: panic: no"),
    ];
    for (said, code, message) in words {
        let mut world = Fake::new();
        world.plugin.insert("ADD", failed(said));
        let outcome = refused(call(&mut world, &variables("ADD"), &conf("1.0.0", host_local.clone())));
        assert_eq!(outcome, (code, format!("IPAM plugin {message}")));
        assert_eq!(world.changes(), ["host-local ADD", "host-local DEL"]);
    }
    // It answers nonsense.
    for nonsense in ["", "[]", r#"{"ips":[{"address":"10.32.9.5"}]}"#] {
        let mut world = Fake::new();
        world.plugin.insert("ADD", Delegated { done: true, stdout: nonsense.into(), stderr: Vec::new() });
        let (code, message) = refused(call(&mut world, &variables("ADD"), &conf("1.0.0", host_local.clone())));
        assert!(code == 6 && message.contains("host-local cannot be read"), "{message}");
        assert_eq!(world.changes(), ["host-local ADD", "host-local DEL"]);
    }
    // The daemon refuses; cleaning up fails as well.
    let mut world = Fake { refuses: Some("\"attach\""), ..Fake::new() };
    world.plugin.insert("ADD", given());
    world.plugin.insert("DEL", failed(r#"{"code":5,"msg":"disk full"}"#));
    let error = call(&mut world, &variables("ADD"), &conf("1.0.0", host_local.clone())).unwrap_err();
    let golden = json!({
        "cniVersion": "1.0.0", "code": 100, "msg": "no, because", "details": "IPAM plugin host-local failed at DEL: disk full"
    });
    assert_eq!(error, golden);
    let undone: Vec<_> = world.changes().into_iter().filter(|change| change.contains("detach")).collect();
    assert_eq!(undone, [""; 0], "a port of this name is that of another ADD at the same time");
    // The kernel refuses the route: the port goes again.
    let mut world = Fake { no_routes: true, ..Fake::new() };
    world.plugin.insert("ADD", given());
    let outcome = refused(call(&mut world, &variables("ADD"), &conf("1.0.0", host_local)));
    assert_eq!(outcome, (100, "cannot add the route".to_owned()));
    assert!(world.ports.is_empty());
    assert_eq!(world.log.last().unwrap(), "host-local DEL");
}

#[test]
fn ports_of_the_host_lead_to_the_container_and_no_longer_when_it_is_gone() {
    let mapping = |host: u16, container: u16, protocol: &str, ip: &str| json!({ "hostPort": host, "containerPort": container, "protocol": protocol, "hostIP": ip });
    let published = |mappings: Value, ips: Value| {
        let mut world = Fake::new();
        let more = json!({ "runtimeConfig": { "portMappings": mappings, "ips": ips } });
        let outcome = call(&mut world, &variables("ADD"), &conf("1.0.0", more));
        let all = world.outside.published.iter().map(|one| {
            assert_eq!((one.publish.holder.as_deref(), one.publish.network.as_str()), (Some("cni:c1:eth0"), "blue"));
            format!("{} → {}:{}", one.publish.host(), one.publish.to, one.publish.port)
        });
        (all.collect::<Vec<_>>(), outcome, world)
    };
    let both = json!(["10.32.1.1/16", "fd00:32::1:1/64"]);
    let (all, _, mut world) = published(
        json!([mapping(8080, 80, "tcp", ""), mapping(53, 5353, "UDP", "192.0.2.1"), mapping(0, 81, "sctp", "")]),
        both.clone(),
    );
    let golden =
        ["0.0.0.0:8080/tcp → 10.32.1.1:80", "[::]:8080/tcp → [fd00:32::1:1]:80", "192.0.2.1:53/udp → 10.32.1.1:5353"];
    assert_eq!(all, golden);
    call(&mut world, &variables("DEL"), &conf("1.0.0", json!({}))).unwrap();
    assert!(world.outside.published.is_empty());

    let wrong = [
        (mapping(80, 80, "sctp", ""), 2, "only tcp and udp"),
        (mapping(80, 0, "tcp", ""), 7, "containerPort is no port"),
        (mapping(80, 80, "tcp", "nowhere"), 7, "hostIP is no IP address"),
        (mapping(80, 80, "tcp", "2001:db8::1"), 7, "no address that it could lead to"),
    ];
    for (wrong, code, part) in wrong {
        let (all, outcome, world) = published(json!([mapping(8080, 80, "", ""), wrong]), json!(["10.32.1.1"]));
        let outcome = refused(outcome);
        assert!(outcome.0 == code && outcome.1.contains(part), "{outcome:?}");
        assert!(all.is_empty() && world.ports.is_empty());
    }
    // One that somebody has already takes the others back.
    let mut world = Fake { refuses: Some("\"host_port\":53"), ..Fake::new() };
    let more =
        json!({ "runtimeConfig": { "portMappings": [mapping(8080, 80, "", ""), mapping(53, 53, "udp", "")] } });
    assert_eq!(refused(call(&mut world, &variables("ADD"), &conf("1.0.0", more))).0, 100);
    assert!(world.outside.published.is_empty() && world.ports.is_empty());
}

#[test]
fn a_network_that_the_host_lets_out_is_the_way_out() {
    let exposed = |network: &str, masquerade: bool| {
        let exposed = json!({
            "network": network, "ifname": "weft-blue", "state": "up", "addresses": [], "masquerade": masquerade, "asked_for": true
        });
        let mut world = Fake::new();
        world.outside.exposed.push(serde_json::from_value(exposed).unwrap());
        let told = call(&mut world, &variables("ADD"), &conf("1.0.0", json!({}))).unwrap();
        told["routes"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((exposed("blue", true), exposed("blue", false), exposed("red", true)), (2, 0, 0));
}
