//! DEL, CHECK, GC, STATUS and VERSION.

use super::*;

/// A machine on which ADD was asked for `c1`, and its answer.
fn with_one(more: &Value) -> (Fake, Value) {
    let mut world = Fake::new();
    let made = call(&mut world, &variables("ADD"), &conf("1.1.0", more.clone())).unwrap();
    world.log.clear();
    (world, made)
}

#[test]
fn del_removes_the_port_and_is_content_when_there_is_none() {
    let (mut world, made) = with_one(&json!({}));
    let mut without_netns = variables("DEL");
    without_netns.netns.clear();
    without_netns.args = "MAC=nonsense;IP".to_owned();
    // However wrong the rest of the configuration has become.
    let stdin = conf("1.1.0", json!({ "prevResult": made, "mac": "nonsense", "unknown": 1, "runtimeConfig": 7 }));
    for _ in 0..2 {
        assert_eq!(call(&mut world, &without_netns, &stdin), Ok(Value::Null));
        assert!(world.ports.is_empty());
    }
    let [unpublish, detach] = [
        r#"{"request":"unpublish","holder":"cni:c1:eth0"}"#,
        r#"{"request":"detach","port":"cni:c1:eth0","ifname":null}"#,
    ];
    assert_eq!(world.changes(), [unpublish, detach, unpublish, detach]);
}

#[test]
fn del_is_to_be_asked_again_while_nobody_can_tell_what_there_is() {
    let mut world = Fake { down: true, ..Fake::new() };
    let stdin = conf("1.1.0", json!({ "ipam": { "type": "host-local" } }));
    assert_eq!(refused(call(&mut world, &variables("DEL"), &stdin)), (11, "no weft daemon answers".to_owned()));
    // The other plugin is told all the same.
    assert_eq!(world.changes(), ["host-local DEL"]);
}

#[test]
fn del_reports_what_stays() {
    let (mut world, _) = with_one(&json!({}));
    world.refuses = Some("detach");
    assert_eq!(
        refused(call(&mut world, &variables("DEL"), &conf("1.1.0", json!({})))),
        (100, "no, because".to_owned())
    );
}

#[test]
fn gc_removes_what_its_list_made_and_does_not_name() {
    let (mut world, _) = with_one(&json!({}));
    let mut add = |container: &str, ifname: &str, list: &str| {
        let variables = Variables { container: container.to_owned(), ifname: ifname.to_owned(), ..variables("ADD") };
        call(&mut world, &variables, &conf("1.1.0", json!({ "name": list }))).unwrap();
    };
    add("c1", "eth1", "pods");
    add("c2", "eth0", "pods");
    add("c3", "eth0", "others");
    let mut by_hand = world.ports["cni:c2:eth0"].clone();
    by_hand.name = "web:eth0".to_owned();
    world.ports.insert(by_hand.name.clone(), by_hand);
    // Published for one that is there, one that is to go, one that has gone by itself, and by a person.
    for holder in [Some("cni:c1:eth0"), Some("cni:c1:eth1"), Some("cni:c9:eth0"), Some("docker:x"), None] {
        let publish =
            json!({ "network": "blue", "host_port": 80, "to": { "name": "x" }, "port": 80, "holder": holder });
        let publish = json!({ "publish": publish, "instances": [] });
        world.outside.published.push(serde_json::from_value(publish).unwrap());
    }
    let names = |world: &Fake| world.ports.keys().cloned().collect::<Vec<_>>();

    // Only CNI_PATH has to be there.
    let gc = Variables { command: "GC".to_owned(), path: "/opt".to_owned(), ..Variables::default() };
    let ipam = json!({ "ipam": { "type": "host-local" } });
    assert_eq!(call(&mut world, &gc, &conf("1.1.0", ipam.clone())), Ok(Value::Null));
    assert_eq!(names(&world).len(), 5, "nobody said what is valid");

    let mut more = ipam;
    more["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth1" }]);
    assert_eq!(call(&mut world, &gc, &conf("1.1.0", more)), Ok(Value::Null));
    assert_eq!(names(&world), ["cni:c1:eth1", "cni:c3:eth0", "web:eth0"]);
    assert_eq!(world.log.last().unwrap(), "host-local GC");
    let holders: Vec<_> = world.outside.published.iter().map(|one| one.publish.holder.as_deref()).collect();
    assert_eq!(holders, [Some("cni:c1:eth1"), Some("docker:x"), None]);

    let none = json!({ "cni.dev/valid-attachments": [] });
    assert_eq!(call(&mut world, &gc, &conf("1.1.0", none)), Ok(Value::Null));
    assert_eq!(names(&world), ["cni:c3:eth0", "web:eth0"]);
}

#[test]
fn check_is_content_with_what_add_made() {
    let (mut world, made) = with_one(&json!({ "defaultRoute": true }));
    let right = Seen {
        mac: Some("02:00:00:00:00:99".parse().unwrap()),
        up: true,
        addresses: ["10.32.7.9/16", "fd00:32::9/64", "fe80::1/64"].map(|cidr| cidr.parse().unwrap()).into(),
        routes: vec![
            ("0.0.0.0/0".parse().unwrap(), Some("10.32.0.1".parse().unwrap())),
            ("::/0".parse().unwrap(), Some("fd00:32::1".parse().unwrap())),
            ("10.32.0.0/16".parse().unwrap(), None),
        ],
    };
    let stdin = conf("1.1.0", json!({ "prevResult": made, "ipam": { "type": "host-local" } }));
    world.seen = Some(right.clone());
    assert_eq!(call(&mut world, &variables("CHECK"), &stdin), Ok(Value::Null));
    assert_eq!(world.changes(), ["host-local CHECK"]);

    let mut finds = |seen: Option<Seen>, what: &str| {
        world.seen = seen;
        let (code, message) = refused(call(&mut world, &variables("CHECK"), &stdin));
        assert!(code == 101 && message.contains(what), "{code} {message}");
    };
    finds(None, "interface eth0 in /run/netns/c1 is gone");
    finds(Some(Seen { up: false, ..right.clone() }), "is down");
    finds(Some(Seen { mac: None, ..right.clone() }), "was made with 02:00:00:00:00:99");
    finds(Some(Seen { addresses: right.addresses[..1].to_vec(), ..right.clone() }), "lost its address fd00:32::9/64");
    finds(Some(Seen { routes: right.routes[1..].to_vec(), ..right.clone() }), "lost its route to 0.0.0.0/0");

    world.seen = Some(right);
    world.ports.get_mut("cni:c1:eth0").unwrap().state = "waiting: for something".to_owned();
    assert_eq!(refused(call(&mut world, &variables("CHECK"), &stdin)).0, 101);
    world.ports.clear();
    assert!(refused(call(&mut world, &variables("CHECK"), &stdin)).1.contains("the daemon has no port cni:c1:eth0"));
    world.no_sandbox = Some(NoSandbox::Absent("it is gone".to_owned()));
    assert_eq!(refused(call(&mut world, &variables("CHECK"), &stdin)), (3, "CNI_NETNS: it is gone".to_owned()));
    assert_eq!(refused(call(&mut world, &variables("CHECK"), &conf("1.1.0", json!({})))).0, 7);
}

#[test]
fn status_says_whether_containers_can_be_added() {
    let mut world = Fake::new();
    let status = Variables { command: "STATUS".to_owned(), path: "/opt".to_owned(), ..Variables::default() };
    let ipam = json!({ "ipam": { "type": "host-local" } });
    assert_eq!(call(&mut world, &status, &conf("1.1.0", ipam.clone())), Ok(Value::Null));
    assert_eq!(world.log.last().unwrap(), "host-local STATUS");
    world.plugin.insert(
        "STATUS",
        Delegated { done: false, stdout: br#"{"code":50,"msg":"full"}"#.to_vec(), stderr: Vec::new() },
    );
    assert_eq!(refused(call(&mut world, &status, &conf("1.1.0", ipam))).0, 50);
    let (code, message) = refused(call(&mut world, &status, &conf("1.1.0", json!({ "network": "red" }))));
    assert!(code == 50 && message.contains("no network 'red' here; this member has: blue"), "{message}");
    assert_eq!(call(&mut world, &status, &conf("1.1.0", json!({}))), Ok(Value::Null));
    world.full = true;
    let (code, message) = refused(call(&mut world, &status, &conf("1.1.0", json!({}))));
    assert!(code == 50 && message.contains("no address left to give in network 'blue'"), "{message}");
    assert_eq!(call(&mut world, &status, &conf("1.1.0", json!({ "ipam": {} }))), Ok(Value::Null));
    world.down = true;
    assert_eq!(refused(call(&mut world, &status, &conf("1.1.0", json!({})))).0, 51);
}

#[test]
fn version_needs_nothing_but_the_command() {
    let version = Variables { command: "VERSION".to_owned(), ..Variables::default() };
    let known = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (stdin, told) in [("", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), (r#"{"cniVersion":"9"}"#, "1.1.0")] {
        let answer = call(&mut Fake::new(), &version, stdin.as_bytes()).unwrap();
        assert_eq!(answer, json!({ "cniVersion": told, "supportedVersions": known }));
    }
}
