//! What is wrong is said with the code that the specification has for it, before anything is made.

use super::*;

#[test]
fn missing_variables_are_told_together() {
    let missing = |command: &str, names: &str| {
        let variables = Variables { command: command.to_owned(), ..Variables::default() };
        let outcome = refused(call(&mut Fake::new(), &variables, &conf("1.1.0", json!({}))));
        assert_eq!(outcome, (4, format!("required env variables [{names}] missing")));
    };
    missing("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH");
    missing("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH");
    missing("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH");
    missing("GC", "CNI_PATH");
    missing("STATUS", "CNI_PATH");
    let error = call(&mut Fake::new(), &Variables::default(), b"{\"cniVersion\":\"0.4.0\"}").unwrap_err();
    assert_eq!(error, json!({ "cniVersion": "0.4.0", "code": 4, "msg": "CNI_COMMAND \"\" is no command of CNI" }));
}

#[test]
fn wrong_variables_are_named() {
    let wrong = |change: fn(&mut Variables), name: &str| {
        let mut variables = variables("ADD");
        change(&mut variables);
        let mut world = Fake::new();
        let (code, message) = refused(call(&mut world, &variables, &conf("1.0.0", json!({}))));
        assert!(code == 4 && message.contains(name), "{code} {message}");
        assert!(world.log.is_empty());
    };
    wrong(|v| v.command = "add".to_owned(), "CNI_COMMAND \"add\"");
    wrong(|v| v.container = "../x".to_owned(), "CNI_CONTAINERID \"../x\"");
    wrong(|v| v.container = "a".repeat(201), "CNI_CONTAINERID");
    wrong(|v| v.netns = "run/x".to_owned(), "CNI_NETNS \"run/x\" is not an absolute path");
    wrong(|v| v.args = "IP".to_owned(), "CNI_ARGS \"IP\"");
    for name in ["sixteen-bytes-xx", ".", "..", "a/b", "a:b", "a b", "a\tb"] {
        let variables = Variables { ifname: name.to_owned(), ..variables("ADD") };
        let (code, message) = refused(call(&mut Fake::new(), &variables, &conf("1.0.0", json!({}))));
        assert!(code == 4 && message.contains("CNI_IFNAME"), "{name}: {message}");
    }
}

#[test]
fn a_wrong_configuration_is_told_with_its_code() {
    let wrong = |stdin: &[u8], code: u64, part: &str| {
        let mut world = Fake::new();
        let (was, message) = refused(call(&mut world, &variables("ADD"), stdin));
        assert!(was == code && message.contains(part), "{}: {was} {message}", String::from_utf8_lossy(stdin));
        assert!(!world.log.iter().any(|line| line.contains("attach")), "{:?}", world.log);
    };
    for no_object in [&b""[..], b"null", b"[]", b"{", b"{} {}", b"\xff"] {
        wrong(no_object, 6, "standard input cannot be read");
    }
    wrong(br#"{"cniVersion":1,"name":"x"}"#, 6, "cniVersion is 1");
    for version in ["", "0.1.0", "0.2.0", "1.2.0", "2.0.0", "1.0"] {
        wrong(&conf(version, json!({})), 1, "set it to one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }
    wrong(br#"{"name":"x"}"#, 1, "\"0.1.0\"");
    let with = |more: Value, code: u64, part: &str| wrong(&conf("1.0.0", more), code, part);
    with(json!({ "name": "" }), 7, "name \"\"");
    with(json!({ "name": "-x" }), 7, "name \"-x\"");
    with(json!({ "name": "a/b" }), 7, "name \"a/b\"");
    with(json!({ "name": "a".repeat(64) }), 7, "at most 63");
    with(json!({ "labels": { "a": "b c" } }), 7, "label \"a\" = \"b c\"");
    with(json!({ "runtimeConfig": { "aliases": { "pods": ["a b"] } } }), 7, "alias \"a b\"");
    with(json!({ "network": 7 }), 6, "invalid type");
    with(json!({ "network": "red" }), 7, "no network 'red' here; this member has: blue");
    with(json!({ "defautRoute": true }), 2, "defautRoute true is not known");
    with(json!({ "mtu": 1400 }), 2, "mtu 1400 is not known to weft: set mtu of the [[network]]");
    with(json!({ "ipMasq": true }), 2, "weft expose");
    with(json!({ "mac": "nonsense" }), 7, "\"nonsense\" is no MAC address");
    with(json!({ "runtimeConfig": { "ips": ["10.32.0.x"] } }), 7, "\"10.32.0.x\" is no IP address");
    with(json!({ "runtimeConfig": { "ips": ["192.0.2.1"] } }), 7, "192.0.2.1 has no prefix length");
    with(json!({ "runtimeConfig": { "ipRanges": [[]] } }), 2, "ipRanges [[]]");
    with(json!({ "ipam": "host-local" }), 6, "invalid type");
    with(json!({ "ipam": { "type": "../evil" } }), 7, "\"../evil\" is no plugin's name");
    with(json!({ "ipam": { "type": "weft", "subnet": "10.0.0.0/8" } }), 2, "ipam.subnet");
    with(json!({ "ipam": { "ranges": [] } }), 7, "ipam has no type");
    with(json!({ "prevResult": { "ips": 1 } }), 6, "prevResult cannot be read");
    let beyond =
        json!({ "prevResult": { "interfaces": [{}], "ips": [{ "address": "10.0.0.1/8", "interface": 1 }] } });
    with(beyond, 6, "on an interface that is not in it");
}

#[test]
fn what_means_nothing_is_passed_over() {
    let more = json!({
        "_comment": "x", "cni.dev/attachments": [], "example.org/key": {}, "capabilities": { "ips": true }, "disableCheck": true,
        "ipMasq": false, "ipam": null, "dns": null, "runtimeConfig": null, "args": { "other": 1 }, "prevResult": null,
    });
    call(&mut Fake::new(), &variables("ADD"), &conf("1.0.0", more)).unwrap();
}

#[test]
fn commands_came_with_versions() {
    let too_old = |command: &str, version: &str, since: &str| {
        let (code, message) = refused(call(&mut Fake::new(), &variables(command), &conf(version, json!({}))));
        assert_eq!((code, message), (1, format!("cniVersion {version} has no {command}: it came with {since}")));
    };
    too_old("CHECK", "0.3.1", "0.4.0");
    too_old("GC", "1.0.0", "1.1.0");
    too_old("STATUS", "1.0.0", "1.1.0");
}

#[test]
fn what_is_in_the_way_stays_as_it_is() {
    let mut world = Fake { seen: Some(Seen::default()), ..Fake::new() };
    let outcome = refused(call(&mut world, &variables("ADD"), &conf("1.0.0", json!({}))));
    assert_eq!(outcome, (4, "CNI_IFNAME eth0 exists in /run/netns/c1 already".to_owned()));

    let mut world = Fake::new();
    call(&mut world, &variables("ADD"), &conf("1.0.0", json!({}))).unwrap();
    let (code, message) = refused(call(&mut world, &variables("ADD"), &conf("1.0.0", json!({}))));
    assert!(code == 4 && message.contains("is in network blue already: DEL it first"), "{message}");
    assert_eq!(world.ports.len(), 1);

    for (no_sandbox, code) in [
        (NoSandbox::Absent("cannot open".to_owned()), 3),
        (NoSandbox::Wrong("is not a network namespace".to_owned()), 4),
    ] {
        let mut world = Fake { no_sandbox: Some(no_sandbox), ..Fake::new() };
        assert_eq!(refused(call(&mut world, &variables("ADD"), &conf("1.0.0", json!({})))).0, code);
        assert!(world.log.is_empty());
    }
    let mut world = Fake { down: true, ..Fake::new() };
    assert_eq!(refused(call(&mut world, &variables("ADD"), &conf("1.0.0", json!({})))).0, 11);
    let absent = json!({ "ipam": { "type": "absent" } });
    let (code, message) = refused(call(&mut Fake::new(), &variables("ADD"), &conf("1.0.0", absent)));
    assert_eq!((code, message), (7, "there is no IPAM plugin absent".to_owned()));
}
