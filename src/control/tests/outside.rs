//! `weft expose` and `weft publish`: what the packet filter is told, who is an instance, what is remembered; and containers that
//! are started again.

use super::*;
use crate::config::PortAddress;
use crate::control::nat::{Forward, Proto};
use crate::control::request::{Backend, Expose, Outside, Publish, Unpublish};

fn answer(response: Response) -> Result<String, String> {
    match response {
        Response::Done(sentences) => Ok(sentences.join("\n")),
        Response::Refused(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn expose(plane: &mut Plane, network: &str, addresses: &[&str], masquerade: bool) -> Result<String, String> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let expose = Expose { network: network.to_owned(), addresses, auto: false, masquerade };
    answer(plane.control.expose(plane.now, &expose))
}

fn publication(port: u16, to: &str) -> Publish {
    Publish {
        network: "blue".to_owned(),
        host_ip: None,
        host_port: port,
        proto: Proto::Tcp,
        to: to.parse().map_or_else(|_| Backend::Name(to.to_owned()), Backend::Address),
        port: 80,
        holder: None,
    }
}

fn publish(plane: &mut Plane, publish: &Publish) -> Result<String, String> {
    answer(plane.control.publish_port(plane.now, publish))
}

fn unpublish(plane: &mut Plane, port: u16) -> Result<String, String> {
    let unpublish = Unpublish::Port { host_ip: None, host_port: port, proto: Proto::Tcp };
    answer(plane.control.unpublish(plane.now, &unpublish))
}

fn outside(plane: &Plane) -> Outside {
    let Some(Response::Published(outside)) = plane.control.show(plane.now, &Request::Published) else { panic!() };
    outside
}

fn forward(plane: &Plane, port: u16) -> Forward {
    plane.control.host.rules.forwards.iter().find(|forward| forward.host_port == port).unwrap().clone()
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A container of this host, called `web` or `web.N`, with one address.
fn instance(plane: &mut Plane, number: u32, name: &str, address: &str) {
    let address: PortAddress = address.parse().unwrap();
    let attach = |attach: &mut Attach| {
        (attach.name, attach.addresses) = (Some(format!("{name}:eth{number}")), vec![address]);
        attach.names = vec![name.to_owned()];
    };
    plane.attach(number, attach).unwrap();
}

#[test]
fn an_exposed_network_has_a_port_of_the_host_until_it_is_hidden() {
    let mut plane = Plane::new(FILE);
    let said = expose(&mut plane, "blue", &["10.32.0.2/16"], false).unwrap();
    assert!(said.contains("this host has 10.32.0.2/16 in it, on weft-blue") && !said.contains("outside"), "{said}");
    plane.control.host.obstacles =
        ["blue: chain FORWARD drops", "red: another"].map(|o| format!("network {o}")).into();
    let Response::Done(lines) = plane
        .control
        .expose(plane.now, &Expose { network: "blue".into(), addresses: vec![], auto: false, masquerade: false })
    else {
        panic!("refused");
    };
    assert_eq!(lines[1..], ["warning: network blue: chain FORWARD drops"]);
    plane.control.host.obstacles.clear();
    let port = plane.port("expose:blue").unwrap();
    let told = (port.ifname.as_str(), port.target.as_str(), port.origin.as_str(), port.state.as_str());
    assert_eq!(told, ("weft-blue", "host", "expose", "up"));
    let id = plane.id("expose:blue");
    assert_eq!(plane.control.host.rules.exposed[0].masquerade, []);

    // Again it is no other; only what is different changes.
    assert_eq!(expose(&mut plane, "blue", &[], false).unwrap(), said);
    let said = expose(&mut plane, "blue", &[], true).unwrap();
    assert!(said.contains("10.32.0.2/16") && said.contains("reach the outside"), "{said}");
    assert_eq!(plane.id("expose:blue"), id);
    assert_eq!(plane.control.host.rules.exposed[0].masquerade, ["10.32.0.0/16".parse().unwrap()]);
    expose(&mut plane, "blue", &["10.32.0.3/16"], true).unwrap();
    assert_ne!(plane.id("expose:blue"), id);

    // It is not detached by mistake, and comes back by itself.
    let reason = answer(plane.detach("expose:blue")).unwrap_err();
    assert!(reason.contains("weft hide blue"), "{reason}");
    let id = plane.id("expose:blue");
    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(2));
    assert!(plane.control.host.rules.exposed.is_empty() && plane.sought().contains(&"expose:blue"));
    plane.found("expose:blue", Ok(0));
    plane.pass(Duration::from_secs(1));
    assert_eq!(plane.control.host.rules.exposed.len(), 1);

    answer(plane.control.hide(plane.now, "blue")).unwrap();
    let host = &plane.control.host;
    assert!(host.ports.is_empty() && host.host_records.is_empty() && host.rules == Rules::default());
    assert!(answer(plane.control.hide(plane.now, "blue")).unwrap().contains("not exposed"));
}

#[test]
fn an_interface_that_cannot_be_mended_is_warned_of_while_it_is_exposed() {
    let mut plane = Plane::new(FILE);
    expose(&mut plane, "blue", &["10.32.0.2/16"], false).unwrap();
    let warned =
        |plane: &Plane| plane.control.outside_warnings().any(|text| text.contains("expose:blue: its interface"));
    plane.control.host.unmendable = Some("no".into());
    plane.pass(Duration::from_secs(3));
    assert!(warned(&plane));
    answer(plane.control.hide(plane.now, "blue")).unwrap();
    plane.pass(Duration::from_secs(3));
    assert!(!warned(&plane));
}

#[test]
fn what_cannot_be_exposed_is_refused_and_nothing_is_left() {
    let mut plane = Plane::new(FILE);
    for (network, addresses, why) in [
        ("green", &["10.32.0.2/16"][..], "no network 'green'"),
        ("red", &[], "no subnets to take an address from"),
        ("blue", &["10.99.0.2/16"], "10.99.0.2"),
    ] {
        let reason = expose(&mut plane, network, addresses, false).unwrap_err();
        assert!(reason.contains(why), "{reason}");
    }
    plane.control.host.refusal = Some("not allowed".to_owned());
    assert_eq!(expose(&mut plane, "blue", &["10.32.0.2/16"], false).unwrap_err(), "not allowed");
    plane.control.host.refusal = None;
    assert!(plane.control.host.host_records.is_empty() && plane.control.host.ports.is_empty());
    assert_eq!(outside(&plane), Outside::default());

    // A change that fails leaves what was.
    expose(&mut plane, "blue", &["10.32.0.2/16"], true).unwrap();
    plane.control.host.refusal = Some("not allowed".to_owned());
    expose(&mut plane, "blue", &["10.32.0.3/16"], false).unwrap_err();
    plane.control.host.refusal = None;
    plane.found("expose:blue", Ok(0));
    plane.pass(Duration::from_secs(1));
    let exposed = outside(&plane).exposed;
    assert_eq!((exposed[0].addresses[0].to_string().as_str(), exposed[0].masquerade), ("10.32.0.2/16", true));
    // The file must keep the network.
    let without =
        FILE.replace("name = \"blue\"", "name = \"other\"").replace("network = \"blue\"", "network = \"other\"");
    let reason = plane.reload(&without).unwrap_err();
    assert!(reason.contains("expose:blue") && reason.contains("hide it"), "{reason}");
}

#[test]
fn a_published_port_leads_to_the_instances_that_answer() {
    let mut plane = Plane::new(FILE);
    expose(&mut plane, "blue", &["10.32.0.2/16"], false).unwrap();
    // As DNS has it, with the zone or without.
    let said = publish(&mut plane, &publication(8080, "Web.blue.weft.")).unwrap();
    assert!(said.contains("leads to web:80") && said.contains("nobody has that name yet"), "{said}");
    assert_eq!(forward(&plane, 8080).targets, []);
    let status = plane.control.show(plane.now, &Request::Status).unwrap();
    assert!(matches!(status, Response::Status(s) if s.warnings.iter().any(|w| w.contains("8080/tcp leads nowhere"))));

    instance(&mut plane, 7, "web", "10.32.0.7/16");
    instance(&mut plane, 8, "web", "10.32.0.8/16");
    instance(&mut plane, 9, "webber", "10.32.0.9/16");
    plane.pass(Duration::from_secs(1));
    let both = addresses(&["10.32.0.7:80", "10.32.0.8:80"]);
    assert_eq!((forward(&plane, 8080).targets, &plane.control.host.probed), (both.clone(), &both));

    // Twice without an answer is unhealthy; connections to it go on.
    let probed = |plane: &mut Plane, seven, eight| {
        plane.control.probed(plane.now, &[(both[0], seven), (both[1], eight)]);
        (forward(plane, 8080).targets, forward(plane, 8080).known.len())
    };
    assert_eq!(probed(&mut plane, false, true), (both.clone(), 2));
    assert_eq!(probed(&mut plane, false, true), (both[1..].to_vec(), 2));
    let states: Vec<_> = outside(&plane).published[0].instances.iter().map(|i| i.state.clone()).collect();
    assert_eq!(states, ["unhealthy", "used"]);
    // None answers: all are tried.
    probed(&mut plane, false, false);
    assert_eq!(probed(&mut plane, false, false), (both.clone(), 2));
    assert_eq!(probed(&mut plane, true, false), (both[..1].to_vec(), 2));
    // One that is gone is none.
    answer(plane.detach("web:eth8")).unwrap();
    plane.pass(Duration::from_secs(1));
    assert_eq!(forward(&plane, 8080).known, both[..1]);

    // Hiding would leave it without its way; then all goes.
    let reason = answer(plane.control.hide(plane.now, "blue")).unwrap_err();
    assert!(reason.contains("8080/tcp"), "{reason}");
    unpublish(&mut plane, 8080).unwrap();
    assert!(plane.control.host.held.is_empty() && plane.control.host.rules.forwards.is_empty());
    assert!(unpublish(&mut plane, 8080).unwrap().contains("not published"));
}

#[test]
fn a_port_that_is_taken_is_refused_by_the_name_of_who_has_it() {
    let mut plane = Plane::new(FILE);
    expose(&mut plane, "blue", &["10.32.0.2/16"], false).unwrap();
    let first = Publish { holder: Some("cni:1:eth1".to_owned()), ..publication(8080, "10.32.0.7") };
    assert!(publish(&mut plane, &first).unwrap_err().contains("no port cni:1:eth1"));
    instance(&mut plane, 1, "cni:1", "10.32.0.7/16");
    publish(&mut plane, &first).unwrap();
    assert!(publish(&mut plane, &first).unwrap().contains("published already"));
    let at = |ip: &str, publish: &Publish| Publish { host_ip: Some(ip.parse().unwrap()), ..publish.clone() };
    for other in [publication(8080, "web"), at("192.0.2.1", &first)] {
        let reason = publish(&mut plane, &other).unwrap_err();
        assert!(reason.contains("cni:1:eth1") && reason.contains("10.32.0.7:80"), "{reason}");
    }
    publish(&mut plane, &Publish { proto: Proto::Udp, ..first.clone() }).unwrap();
    publish(&mut plane, &at("192.0.2.1", &publication(8081, "web"))).unwrap();
    publish(&mut plane, &at("192.0.2.2", &publication(8081, "web"))).unwrap();
    assert!(publish(&mut plane, &at("0.0.0.0", &publication(8081, "web"))).is_err());
    assert!(publish(&mut plane, &publication(22, "web")).unwrap_err().contains("sshd"));
    assert!(publish(&mut plane, &publication(0, "web")).unwrap_err().contains("0 is no port"));
    for way_in in ["127.0.0.1", "192.0.2.7"] {
        let reason = publish(&mut plane, &publication(8089, way_in)).unwrap_err();
        assert!(reason.contains(&format!("{way_in} is outside network 'blue'")), "{reason}");
    }
    assert!(publish(&mut plane, &at("::1", &publication(8089, "web"))).unwrap_err().contains("127.0.0.1"));

    // All of a holder at once.
    let holder = |holder: &str| Unpublish::Holder(holder.to_owned());
    let said = answer(plane.control.unpublish(plane.now, &holder("cni:1:eth1"))).unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(answer(plane.control.unpublish(plane.now, &holder("cni:1:eth1"))).unwrap().contains("nothing"));
    assert_eq!(plane.control.host.held.len(), 2);
}

#[test]
fn a_network_is_exposed_for_what_is_published_and_hidden_after_it() {
    let mut plane = Plane::new(FILE);
    let reason = publish(&mut plane, &Publish { network: "red".into(), ..publication(1, "web") }).unwrap_err();
    assert!(reason.contains("weft expose red --ip"), "{reason}");
    assert!(plane.control.host.held.is_empty() && plane.control.host.host_records.is_empty());
    publish(&mut plane, &publication(8080, "web")).unwrap();
    publish(&mut plane, &publication(8081, "web")).unwrap();
    assert!(!outside(&plane).exposed[0].asked_for);
    unpublish(&mut plane, 8080).unwrap();
    assert_eq!(plane.state("expose:blue"), "up");
    unpublish(&mut plane, 8081).unwrap();
    assert_eq!(plane.state("expose:blue"), "gone");
    assert!(plane.control.host.host_records.is_empty() && plane.control.host.rules == Rules::default());

    // Asked for meanwhile, it stays.
    publish(&mut plane, &publication(8080, "web")).unwrap();
    expose(&mut plane, "blue", &[], false).unwrap();
    unpublish(&mut plane, 8080).unwrap();
    assert_eq!(plane.state("expose:blue"), "up");
}

#[test]
fn a_restart_goes_on_with_what_is_exposed_and_published() {
    let mut plane = Plane::new(FILE);
    expose(&mut plane, "blue", &["10.32.0.2/16"], true).unwrap();
    publish(&mut plane, &publication(8080, "10.32.0.7")).unwrap();
    let (rules, records) = (plane.control.host.rules.clone(), plane.control.host.host_records.clone());
    let spec = plane.control.ports["expose:blue"].spec.clone();

    let mut next = Plane::with_records(FILE, records);
    assert!(next.control.wants_adopted(&spec, Origin::Expose, 100));
    assert!(next.control.host.held.len() == 1 && next.sought().contains(&"expose:blue"));
    next.found("expose:blue", Ok(0));
    next.pass(Duration::from_secs(1));
    assert_eq!(next.control.host.rules, rules);
}

#[test]
fn a_published_port_that_a_program_took_meanwhile_is_told_of_and_held_as_soon_as_it_is_free() {
    let mut plane = Plane::new(FILE);
    expose(&mut plane, "blue", &["10.32.0.2/16"], true).unwrap();
    publish(&mut plane, &publication(8080, "10.32.0.7")).unwrap();
    let mut next = Plane::new(FILE);
    next.control.host.host_records = plane.control.host.host_records.clone();
    next.control.host.busy.insert(8080);
    next.control.restore_outside();
    let warned = |plane: &Plane| plane.control.outside_warnings().any(|text| text.contains("taken by python3"));
    next.pass(Duration::from_secs(5));
    assert!(warned(&next) && next.control.host.held.is_empty());
    next.control.host.busy.clear();
    next.pass(Duration::from_secs(3));
    assert!(!warned(&next) && next.control.host.held.len() == 1);
}

#[test]
fn a_restart_keeps_instances_until_their_member_was_heard_or_had_time_to_be() {
    let mut plane = Plane::new(FILE);
    expose(&mut plane, "blue", &["10.32.0.2/16"], false).unwrap();
    instance(&mut plane, 7, "web", "10.32.0.7/16");
    publish(&mut plane, &publication(8080, "web")).unwrap();
    plane.pass(Duration::from_secs(2));
    let mut records = plane.control.host.host_records.clone();
    let Some(exposures::Record::Instances(saved)) = records.get_mut("instances") else { panic!("{records:?}") };
    let of_web = saved.get_mut("8080/tcp").unwrap();
    assert_eq!(of_web[..], [("10.32.0.7".parse().unwrap(), plane.control.identity.key)]);
    of_web.push(("10.32.0.8".parse().unwrap(), BETA.parse().unwrap()));

    // Ours has no port any more; of beta nothing was heard yet.
    let mut next = Plane::with_records(FILE, records.clone());
    next.found("expose:blue", Ok(0));
    next.pass(Duration::from_secs(20));
    let beta = addresses(&["10.32.0.8:80"]);
    assert_eq!((forward(&next, 8080).known, next.control.host.rules.resuming), (beta.clone(), true));
    // Killed again meanwhile it is the same.
    let Some(exposures::Record::Instances(saved)) = next.control.host.host_records.get("instances") else { panic!() };
    assert_eq!(saved["8080/tcp"], [("10.32.0.8".parse().unwrap(), BETA.parse().unwrap())]);
    next.pass(Duration::from_secs(15));
    assert_eq!((forward(&next, 8080).known, next.control.host.rules.resuming), (Vec::new(), false));
    assert!(!next.control.host.host_records.contains_key("instances"));

    // Ours has its port, but Docker has not said its name yet.
    let mut next = Plane::with_records(FILE, records);
    instance(&mut next, 7, "nameless", "10.32.0.7/16");
    next.found("expose:blue", Ok(0));
    next.pass(Duration::from_secs(1));
    assert_eq!(forward(&next, 8080).known, addresses(&["10.32.0.7:80", "10.32.0.8:80"]));
    next.control.set_port_names(next.now, "nameless:eth7", vec!["web".to_owned()]);
    next.pass(Duration::from_secs(40));
    assert_eq!(forward(&next, 8080).known, addresses(&["10.32.0.7:80"]));
    unpublish(&mut next, 8080).unwrap();
    assert!(!next.control.host.host_records.contains_key("instances"));
}

#[test]
fn what_is_given_up_is_forgotten_after_the_packet_filter_did() {
    let mut plane = Plane::new(FILE);
    publish(&mut plane, &publication(8080, "10.32.0.7")).unwrap();
    let records = plane.control.host.host_records.clone();
    plane.control.host.refusal = Some("busy".to_owned());
    unpublish(&mut plane, 8080).unwrap_err();
    assert_eq!(plane.control.host.host_records, records, "a restart would find it and its rules");
    plane.control.host.refusal = None;
    plane.pass(Duration::from_secs(1));
    assert!(plane.control.host.host_records.is_empty() && plane.control.host.rules == Rules::default());

    // What an earlier run could not put back: told to do nothing, the machine puts it back.
    let switches = exposures::Record::Switches(BTreeMap::from([("/switch".to_owned(), "0".to_owned())]));
    let mut next = Plane::with_records(FILE, BTreeMap::from([(switches.slot(), switches)]));
    next.control.host.rules.resuming = true;
    next.pass(Duration::from_secs(1));
    assert_eq!(next.control.host.rules, Rules::default());
    // A host of which nothing was ever exposed is left alone.
    let mut never = Plane::new(FILE);
    never.control.host.rules.resuming = true;
    never.pass(Duration::from_secs(1));
    assert!(never.control.host.rules.resuming);
}

#[test]
fn another_port_of_an_exposed_network_is_told_to_the_packet_filter() {
    let mut plane = Plane::new(FILE);
    expose(&mut plane, "blue", &["10.32.0.2/16"], false).unwrap();
    publish(&mut plane, &publication(8080, "10.32.0.7")).unwrap();
    let before = plane.control.host.rules.clone();
    // Its new interface has the old one's name, and none of its switches.
    expose(&mut plane, "blue", &["10.32.0.3/16"], false).unwrap();
    assert_ne!(plane.control.host.rules, before);
}

#[test]
fn what_is_published_for_a_port_ends_with_it() {
    let mut plane = Plane::new(FILE);
    let held = |port, number| Publish {
        holder: Some(format!("cni:{number}:eth{number}")),
        ..publication(port, "10.32.0.7")
    };
    let named = |number| format!("cni:{number}:eth{number}");
    for how in ["died", "detached"] {
        instance(&mut plane, 1, "cni:1", "10.32.0.7/16");
        publish(&mut plane, &held(8080, 1)).unwrap();
        publish(&mut plane, &publication(8081, "10.32.0.7")).unwrap();
        match how {
            "died" => {
                plane.control.host.dead.insert(plane.id(&named(1)));
                plane.pass(Duration::from_secs(2));
            }
            _ => drop(answer(plane.detach(&named(1))).unwrap()),
        }
        let left: Vec<u16> = outside(&plane).published.iter().map(|one| one.publish.host_port).collect();
        assert_eq!((left, plane.control.host.held.len()), (vec![8081], 1), "{how}");
        unpublish(&mut plane, 8081).unwrap();
    }

    // It ended while there was no daemon.
    instance(&mut plane, 1, "cni:1", "10.32.0.7/16");
    instance(&mut plane, 2, "cni:2", "10.32.0.8/16");
    publish(&mut plane, &held(8080, 1)).unwrap();
    publish(&mut plane, &held(8082, 2)).unwrap();
    let mut next = Plane::with_records(FILE, plane.control.host.host_records.clone());
    instance(&mut next, 2, "cni:2", "10.32.0.8/16");
    next.pass(Duration::from_secs(1));
    let left: Vec<u16> = outside(&next).published.iter().map(|one| one.publish.host_port).collect();
    assert_eq!((left, next.control.host.host_records.contains_key("publication 8080/tcp")), (vec![8082], false));
}

#[test]
fn a_member_with_a_slice_of_one_family_gives_addresses_of_that_one() {
    let dual = FILE.replace("[\"10.32.0.0/16\"]", "[\"10.32.0.0/16\", \"fd32::/64\"]\nslice = [\"10.32.9.0/24\"]");
    let mut plane = Plane::new(&dual);
    publish(&mut plane, &publication(8080, "web")).unwrap();
    let port = plane.attach(7, |attach| attach.auto = true).unwrap();
    for addresses in [&outside(&plane).exposed[0].addresses, &port.addresses] {
        assert!(addresses.len() == 1 && addresses[0].cidr.to_string().starts_with("10.32.9."), "{addresses:?}");
    }
    let mut plane = Plane::new(&dual.replace("10.32.9.0/24", "10.32.9.0/32"));
    plane.attach(7, |attach| attach.auto = true).unwrap();
    let reason = plane.attach(8, |attach| attach.auto = true).unwrap_err();
    assert!(reason.contains("IPv4"), "{reason}");
}

#[test]
fn a_container_that_is_started_again_has_its_port_again_until_it_is_removed() {
    let mut plane = Plane::new(FILE);
    let of_container = |attach: &mut Attach| attach.target = Target::Container("db".to_owned());
    let before = plane.attach(7, of_container).unwrap().mac;
    let id = plane.id("db:eth1");
    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(2));
    assert!(plane.state("db:eth1").starts_with("waiting") && plane.sought().contains(&"db:eth1"));
    assert!(plane.control.host.remembered.contains("db:eth1"));
    plane.found("db:eth1", Err("not running"));
    assert_eq!(plane.state("db:eth1"), "waiting: not running");
    plane.found("db:eth1", Ok(8));
    assert_eq!((plane.state("db:eth1").as_str(), plane.port("db:eth1").unwrap().mac), ("up", before));

    // Attached by hand meanwhile, it is that.
    plane.control.host.dead.insert(plane.id("db:eth1"));
    plane.pass(Duration::from_secs(2));
    plane.attach(9, of_container).unwrap();
    assert_eq!((plane.state("db:eth1").as_str(), plane.sought()), ("up", vec!["web"]));

    // Detached while it waits, and removed while it waits.
    for how in ["detached", "removed"] {
        plane.control.host.dead.insert(plane.id("db:eth1"));
        plane.pass(Duration::from_secs(2));
        match how {
            "detached" => drop(answer(plane.detach("db")).unwrap()),
            _ => plane.found("db:eth1", Err("it was removed")),
        }
        assert_eq!(plane.state("db:eth1"), "gone", "{how}");
        assert!(plane.control.host.remembered.is_empty() && plane.sought() == ["web"], "{how}");
        plane.attach(10, of_container).unwrap();
    }

    // What an earlier run left waits too, if it is a container's.
    let spec = |target: &str| crate::config::Port {
        name: format!("{target}:eth2"),
        target: target.parse().unwrap(),
        ..config(FILE).ports[0].clone()
    };
    assert!(plane.control.not_adopted(&spec("cache"), Origin::Attach));
    assert!(!plane.control.not_adopted(&spec("pid:7"), Origin::Attach));
    assert!(plane.state("cache:eth2").starts_with("waiting"));
}
