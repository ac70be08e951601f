//! Pools and addresses, as Docker asks for them.

use super::*;

#[test]
fn pools_are_found_by_option_or_by_subnet_and_refused_with_a_remedy() {
    let mut stage = Stage::new();
    let mut pool = |space: &str, subnet: &str, range: &str, options: Value, v6: bool| {
        stage.now += Duration::from_secs(10);
        let body = json!({ "AddressSpace": space, "Pool": subnet, "SubPool": range, "Options": options, "V6": v6 });
        let answer = stage.call("IpamDriver.RequestPool", &body.to_string());
        answer["Err"]
            .as_str()
            .map_or_else(|| Ok(answer["PoolID"].as_str().unwrap().to_owned()), |e| Err(e.to_owned()))
    };
    let red = || json!({ "network": "red" });
    assert_eq!(pool("weft", "", "", red(), false).unwrap(), "weft/red/10.40.0.0/24");
    assert_eq!(pool("", "10.40.0.0/24", "", Value::Null, false).unwrap(), "weft/red/10.40.0.0/24");
    // Host bits are passed over, as Docker's own IPAM does.
    assert_eq!(pool("", "10.40.0.7/24", "", red(), false).unwrap(), "weft/red/10.40.0.0/24");
    for (subnet, range, options, v6, part) in [
        (
            "",
            "",
            json!({}),
            false,
            "'blue' (10.32.0.0/16 and fd00:32::/64), 'red' (10.40.0.0/24), 'plain' (no subnets)",
        ),
        ("", "", json!({ "network": "bleu" }), false, "no network 'bleu'"),
        ("", "", json!({ "network": "" }), false, "which network"),
        ("", "", json!({ "network": 5 }), false, "no network '5'"),
        ("", "", json!({ "network": ["red"] }), false, "must be a text"),
        ("", "", json!({ "netwrok": "red" }), false, "'netwrok'"),
        ("", "", red(), true, "no IPv6 subnet"),
        ("", "", json!({}), true, "IPv6 subnet as a second --subnet"),
        ("", "", json!({ "network": "plain" }), false, "no IPv4 subnet"),
        ("10.40.0.0/25", "", red(), false, "10.40.0.0/25 is no subnet"),
        ("10.99.0.0/16", "", json!({}), false, "10.99.0.0/16 is no subnet"),
        ("10.40.0.0", "", red(), false, "prefix length"),
        ("10.40.0.0/24", "10.40.0.128/25", red(), false, "--ip-range '10.40.0.128/25'"),
    ] {
        let said = pool("weft", subnet, range, options, v6).unwrap_err();
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
}

#[test]
fn a_pool_that_docker_does_not_like_is_not_offered_for_ever() {
    let mut stage = Stage::new();
    let body = r#"{"AddressSpace":"weft","Pool":"","Options":{"network":"blue"}}"#;
    let often = |stage: &mut Stage| (1..TRIES).for_each(|_| drop(stage.done("IpamDriver.RequestPool", body)));
    often(&mut stage);
    let said = stage.refused("IpamDriver.RequestPool", body);
    assert!(said.contains("--subnet 10.32.0.0/16") && said.contains("one after the other"), "{said}");
    // Some people at once, a little later, and after each sign that Docker took it.
    often(&mut stage);
    stage.now += Duration::from_secs(2);
    often(&mut stage);
    stage.request("");
    often(&mut stage);
    stage.done("IpamDriver.ReleasePool", r#"{"PoolID":"weft/blue/10.32.0.0/16"}"#);
    often(&mut stage);
    let create = json!({
        "NetworkID": NETWORK, "Options": { "com.docker.network.generic": { "network": "blue" } },
    });
    stage.done("NetworkDriver.CreateNetwork", &create.to_string());
    often(&mut stage);
    for _ in 0..TRIES {
        stage.done("IpamDriver.RequestPool", r#"{"AddressSpace":"weft","Pool":"10.32.0.0/16"}"#);
    }
}

#[test]
fn addresses_that_cannot_be_are_refused_with_the_reason() {
    let mut stage = Stage::new();
    stage.maps.leases.insert(("blue".to_owned(), "10.32.0.8".parse().unwrap()), "web:eth1".to_owned());
    for (pool, address, gateway, part) in [
        ("weft/blue/10.32.0.0/16", "10.32.0.1", false, "service address"),
        ("weft/blue/10.32.0.0/16", "10.33.0.1", false, "not in subnet"),
        ("weft/blue/10.32.0.0/16", "fd00:32::5", false, "not in subnet"),
        ("weft/blue/10.32.0.0/16", "10.32.0.8", false, "web:eth1"),
        ("weft/blue/10.32.0.0/16", "10.32.0", false, "no address"),
        ("weft/blue/10.32.0.0/16", "10.32.0.254", true, "10.32.0.1 on all hosts"),
        ("weft/blue/10.33.0.0/16", "", false, "no subnet 10.33.0.0/16 any more"),
        ("weft/green/10.32.0.0/16", "", false, "no network 'green'"),
        ("weft/blue", "", false, "no pool"),
        ("LocalDefault/172.18.0.0/16", "", false, "no pool"),
        ("", "", false, "no pool"),
    ] {
        let kind = if gateway { "com.docker.network.gateway" } else { "" };
        let body = json!({ "PoolID": pool, "Address": address, "Options": { "RequestAddressType": kind } });
        let said = stage.refused("IpamDriver.RequestAddress", &body.to_string());
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    // The gateway of the file, and one that is asked for by its right name.
    let mut body = json!({ "PoolID": "weft/red/10.40.0.0/24", "Address": "10.40.0.254" });
    body["Options"] = json!({ "RequestAddressType": "com.docker.network.gateway" });
    assert_eq!(stage.done("IpamDriver.RequestAddress", &body.to_string())["Address"], "10.40.0.254/24");
    // Only what was leased for Docker is Docker's to release.
    stage.release("10.32.0.8");
    assert!(stage.holds("10.32.0.8"));
    stage.release("10.32.0.77");
    // In a pool that is no more, nothing is left to release.
    stage.done("IpamDriver.ReleaseAddress", r#"{"PoolID":"weft/green/10.32.0.0/16","Address":"10.32.0.5"}"#);
    stage.refused("IpamDriver.ReleaseAddress", r#"{"PoolID":"weft/blue/10.32.0.0/16","Address":"10.32"}"#);
}

#[test]
fn with_dockers_own_ipam_addresses_are_claimed_and_given_back() {
    let mut stage = Stage::new();
    stage.create_network(json!({ "network": "blue" }));
    stage.start(ENDPOINT, "10.32.1.1/16");
    assert!(stage.holds("10.32.1.1"));
    // Another host's, or a port's.
    stage.maps.leases.insert(("blue".to_owned(), "10.32.1.2".parse().unwrap()), "web:eth1".to_owned());
    assert!(
        stage.refused("NetworkDriver.CreateEndpoint", &endpoint_body(&other(1), "10.32.1.2/16")).contains("web:eth1")
    );
    stage.done("NetworkDriver.DeleteEndpoint", &format!(r#"{{"EndpointID":"{ENDPOINT}"}}"#));
    assert!(!stage.holds("10.32.1.1") && stage.holds("10.32.1.2"));
}

#[test]
fn addresses_of_a_network_that_the_file_has_no_longer_go_when_docker_has_set_none_of_them_aside() {
    let mut stage = Stage::new();
    let aux = r#"{"PoolID":"weft/blue/10.32.0.0/16","Address":"10.32.0.9","Options":null}"#;
    stage.done("IpamDriver.RequestAddress", aux);
    let create = json!({
        "NetworkID": NETWORK, "Options": { "com.docker.network.generic": { "network": "blue" } },
        "IPv4Data": [{ "Pool": "10.32.0.0/16", "AuxAddresses": { "router": "10.32.0.9/16" } }],
    });
    stage.done("NetworkDriver.CreateNetwork", &create.to_string());
    stage.request("");
    assert_eq!(stage.maps.leases.len(), 2);
    // It may come back with what was set aside.
    let blue = stage.maps.networks.remove(0);
    stage.tick();
    let left: Vec<String> = stage.maps.leases.keys().map(|(_, address)| address.to_string()).collect();
    assert_eq!(left, ["10.32.0.9"]);
    stage.maps.networks.insert(0, blue);
    stage.tick();
    assert!(stage.refused("IpamDriver.RequestAddress", aux).contains("set aside"));
    // Docker drops it while it is away.
    stage.maps.networks.remove(0);
    stage.done("NetworkDriver.DeleteNetwork", &format!(r#"{{"NetworkID":"{NETWORK}"}}"#));
    assert_eq!(stage.done("IpamDriver.ReleaseAddress", aux), json!({}));
    stage.tick();
    assert!(stage.maps.leases.is_empty());
}
