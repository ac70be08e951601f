//! What ports and added names become in the directory and in what members are told.

use super::*;
use crate::control::request::{AddName, NameStatus, RemoveName};
use crate::mesh::facts::{Attachment, Facts, MAX_NAMES, Name, Named};
use crate::names::{Effort, Transport, Verdict, answer};

const BLUE: u32 = 100;

fn addresses(plane: &mut Plane, name: &str) -> Option<Vec<String>> {
    plane.control.run_due(plane.now);
    let found = plane.control.names().addresses_of(BLUE, name)?;
    Some(
        found
            .iter()
            .map(|(address, is_local)| format!("{address}{}", if *is_local { " here" } else { "" }))
            .collect(),
    )
}

fn here(address: &str) -> Option<Vec<String>> {
    Some(vec![format!("{address} here")])
}

fn add(plane: &mut Plane, name: &str, addresses: &[&str], services: &[&str]) -> Result<String, String> {
    add_to("blue", plane, name, addresses, services)
}

fn add_to(
    network: &str,
    plane: &mut Plane,
    name: &str,
    addresses: &[&str],
    services: &[&str],
) -> Result<String, String> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let services = services.iter().map(|service| service.parse().unwrap()).collect();
    sentence(plane.control.add_name(&AddName { network: network.into(), name: name.into(), addresses, services }))
}

fn remove(plane: &mut Plane, name: &str, addresses: &[&str]) -> Result<String, String> {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let remove = RemoveName { network: "blue".into(), name: name.into(), addresses, services: Vec::new() };
    sentence(plane.control.remove_name(&remove))
}

fn sentence(response: Response) -> Result<String, String> {
    match response {
        Response::Done(told) => Ok(told.join(" ")),
        Response::Refused(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn listed(plane: &Plane) -> Vec<NameStatus> {
    match plane.control.show(plane.now, &Request::Names { network: Some("blue".into()) }) {
        Some(Response::Names(names)) => names,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_has_its_own_name_or_those_it_is_given_for_as_long_as_it_is_there() {
    let mut plane = Plane::new(FILE);
    assert_eq!(addresses(&mut plane, "web"), None);
    plane.found("web", Ok(9));
    assert_eq!(addresses(&mut plane, "web"), here("10.32.0.5"));
    plane.control.set_port_names(plane.now, "web", vec!["Shop_1".into(), "www.example".into(), "--".into()]);
    assert_eq!(addresses(&mut plane, "web"), None);
    assert_eq!(addresses(&mut plane, "shop_1"), here("10.32.0.5"));
    assert_eq!(plane.port("web").unwrap().names, ["shop_1", "www.example"]);
    assert_eq!(addresses(&mut plane, "www.example"), here("10.32.0.5"));
    let id = plane.id("web");
    plane.control.host.dead.insert(id);
    plane.pass(Duration::from_secs(2));
    assert_eq!([addresses(&mut plane, "shop_1"), addresses(&mut plane, "web")], [None, None]);
    plane.control.host.dead.clear();
    plane.found("web", Ok(9));
    assert_eq!(addresses(&mut plane, "web"), here("10.32.0.5"), "what it was given went with it");
}

#[test]
fn several_ports_of_one_name_are_its_instances() {
    let mut plane = Plane::new(FILE);
    for last in [7, 8] {
        let port = |attach: &mut Attach| {
            attach.addresses = vec![format!("10.32.0.{last}/16").parse().unwrap()];
            attach.names = vec!["api".into(), format!("api-{last}")];
        };
        plane.attach(last, port).unwrap();
    }
    assert_eq!(addresses(&mut plane, "api").unwrap(), ["10.32.0.7 here", "10.32.0.8 here"]);
    assert_eq!(addresses(&mut plane, "api-8"), here("10.32.0.8"));
    plane.detach("pid:7:eth1");
    assert_eq!(addresses(&mut plane, "api"), here("10.32.0.8"));
    let names: Vec<_> = listed(&plane).into_iter().map(|name| (name.name, name.member, name.kind)).collect();
    let of = |name: &str| (name.to_owned(), "alpha".to_owned(), "attachment".to_owned());
    assert_eq!(names, [of("api"), of("api-8")]);
}

#[test]
fn what_a_member_that_is_there_says_is_known_and_nothing_of_one_that_is_gone() {
    let mut plane = Plane::new(FILE);
    let member: PublicKey = BETA.parse().unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let attachment = Attachment {
        vni: BLUE,
        mac,
        addresses: vec!["10.32.1.9".parse().unwrap()],
        sequence: 0,
        name: "pid:9:eth1".into(),
    };
    let name = |name: &str, of: Named| Name { vni: BLUE, name: name.into(), of };
    let outside = Named::Added { addresses: vec!["192.0.2.80".parse().unwrap()], services: Vec::new() };
    let facts = Facts {
        attachments: vec![attachment],
        names: vec![
            name("printer", outside),
            name("web", Named::Attachment(mac)),
            name("ghost", Named::Attachment(Mac([2; 6]))),
        ],
        ..Facts::default()
    };
    plane.control.member_is_called(member, Some(&facts));
    assert_eq!(addresses(&mut plane, "web").unwrap(), ["10.32.1.9"]);
    assert_eq!(addresses(&mut plane, "printer").unwrap(), ["192.0.2.80"]);
    assert_eq!(addresses(&mut plane, "ghost").unwrap(), [""; 0], "its attachment has not been heard of");
    plane.found("web", Ok(9));
    assert_eq!(addresses(&mut plane, "web").unwrap(), ["10.32.0.5 here", "10.32.1.9"]);
    plane.control.member_is_called(member, None);
    assert_eq!(addresses(&mut plane, "web"), here("10.32.0.5"));
    assert_eq!(addresses(&mut plane, "printer"), None);
}

#[test]
fn a_member_that_the_file_keeps_out_of_a_network_has_no_names_there() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\nnetworks = [\"red\"]\n");
    let mut plane = Plane::new(&format!("{FILE}{peer}"));
    let of = Named::Added { addresses: vec!["192.0.2.80".parse().unwrap()], services: Vec::new() };
    let names = [BLUE, 200].map(|vni| Name { vni, name: "bank".into(), of: of.clone() }).to_vec();
    plane.control.member_is_called(BETA.parse().unwrap(), Some(&Facts { names, ..Facts::default() }));
    assert_eq!(addresses(&mut plane, "bank"), None);
    assert!(plane.control.names().addresses_of(200, "bank").is_some());
}

#[test]
fn names_are_added_and_removed_and_kept() {
    let mut plane = Plane::new(FILE);
    assert_eq!(add(&mut plane, "DB.blue.weft.", &["192.0.2.7"], &[]).unwrap(), "db in network blue: 192.0.2.7");
    add(&mut plane, "db", &["192.0.2.8"], &["sql:5432"]).unwrap();
    assert_eq!(addresses(&mut plane, "db").unwrap(), ["192.0.2.7 here", "192.0.2.8 here"]);
    let status = &listed(&plane)[0];
    assert_eq!((status.kind.as_str(), status.zone.as_str()), ("added", "blue.weft"));
    assert_eq!(status.services[0].to_string(), "sql:5432/tcp");
    assert_eq!(plane.control.host.names.len(), 1);
    remove(&mut plane, "db", &["192.0.2.7"]).unwrap();
    assert_eq!(addresses(&mut plane, "db"), here("192.0.2.8"));
    remove(&mut plane, "db", &[]).unwrap();
    assert_eq!((addresses(&mut plane, "db"), plane.control.host.names.len()), (None, 0));
    for (name, addresses, part) in [
        ("db", &[][..], "--ip"),
        ("a..b", &["192.0.2.7"], "'a..b' cannot be a name"),
        ("db", &["127.0.0.1"], "127.0.0.1"),
        ("db", &["224.0.0.1"], "224.0.0.1"),
        ("db", &["::ffff:127.0.0.1"], "::ffff:127.0.0.1"),
        ("Blue.weft.", &["192.0.2.7"], "the zone itself"),
    ] {
        let reason = add(&mut plane, name, addresses, &[]).unwrap_err();
        assert!(reason.contains(part), "{reason}");
    }
    assert!(remove(&mut plane, "db", &[]).unwrap_err().contains("nothing was added to db in network blue"));
    let elsewhere = AddName { network: "green".into(), name: "x".into(), addresses: vec![], services: vec![] };
    let reason = sentence(plane.control.add_name(&elsewhere)).unwrap_err();
    assert!(reason.contains("'green'") && reason.contains("blue, red"), "{reason}");
}

#[test]
fn there_are_as_many_names_as_a_member_can_tell_and_the_next_is_refused() {
    let mut plane = Plane::new(FILE);
    let mut refused = Vec::new();
    for n in 0..10_000 {
        match add(&mut plane, &format!("n{n}"), &["192.0.2.7"], &[]) {
            Ok(_) => assert!(n < MAX_NAMES),
            Err(reason) => {
                refused.push(reason);
                break;
            }
        }
    }
    assert!(refused[0].contains("as many names as one may"), "{refused:?}");
    let count = listed(&plane).len();
    assert!(count > MAX_NAMES / 2, "{count}");
    // In another network it is another name.
    let refused = add_to("red", &mut plane, "n0", &["192.0.2.7"], &[]).unwrap_err();
    assert!(refused.contains("as many names as one may"), "{refused}");
    remove(&mut plane, "n0", &[]).unwrap();
    add(&mut plane, "n0", &["192.0.2.8"], &[]).unwrap();
    // Nothing of it is left out of what others are told.
    plane.control.run_due(plane.now);
    let Some(Response::Status(status)) = plane.control.show(plane.now, &Request::Status) else { panic!() };
    assert_eq!(status.warnings.iter().find(|warning| warning.contains("names")), None);
}

#[test]
fn a_name_of_a_network_that_left_the_file_can_be_removed() {
    let mut plane = Plane::new(FILE);
    for name in ["db", "printer"] {
        add_to("red", &mut plane, name, &["192.0.2.7"], &[]).unwrap();
    }
    let without = FILE.split("[[network]]").filter(|part| !part.contains("\"red\"")).collect::<Vec<_>>();
    plane.reload(&without.join("[[network]]")).unwrap();
    assert_eq!(plane.control.names().addresses_of(200, "db"), None);
    let mut remove = RemoveName { network: "red".into(), name: "DB.".into(), addresses: vec![], services: vec![] };
    assert_eq!(sentence(plane.control.remove_name(&remove)).unwrap(), "db removed from network red");
    assert_eq!(plane.control.host.names.len(), 1);
    remove.name = "nobody".into();
    assert!(sentence(plane.control.remove_name(&remove)).unwrap_err().contains("'red'"));
    // It comes again, with what was not removed.
    plane.reload(FILE).unwrap();
    plane.control.run_due(plane.now);
    assert_eq!(plane.control.names().addresses_of(200, "db"), None);
    assert!(plane.control.names().addresses_of(200, "printer").is_some());
}

#[test]
fn the_file_says_the_domain_and_what_becomes_of_other_names() {
    let mut plane = Plane::new(FILE);
    plane.found("web", Ok(9));
    plane.control.run_due(plane.now);
    let verdict = |plane: &Plane, name: &str| {
        let labels: Vec<u8> = name.split('.').flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
        let query = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &labels, &[0, 0, 1, 0, 1]].concat();
        let mut out = Vec::new();
        let verdict = answer(plane.control.names(), BLUE, Transport::Udp, Effort::Whole, &query, 0, &mut out);
        (verdict, out.get(3).map(|flags| flags & 15))
    };
    assert_eq!(verdict(&plane, "web.blue.weft"), (Verdict::Answer, Some(0)));
    assert_eq!(verdict(&plane, "example.org"), (Verdict::Forward, None));
    let file = |line: &str| FILE.replacen("vni = 100", &format!("vni = 100\n{line}"), 1);
    plane.reload(&file("zone = \"Corp.example.\"\ndns = \"refuse\"")).unwrap();
    assert_eq!(verdict(&plane, "web.corp.example"), (Verdict::Answer, Some(0)));
    assert_eq!(verdict(&plane, "web.blue.weft"), (Verdict::Answer, Some(3)));
    assert_eq!(verdict(&plane, "example.org"), (Verdict::Answer, Some(5)));
    plane.reload(&file("dns = \"off\"")).unwrap();
    assert_eq!(verdict(&plane, "web.blue.weft"), (Verdict::Silent, None));
    plane.reload(&format!("[node]\nresolvers = [\"192.0.2.53\"]\n{FILE}")).unwrap();
    assert_eq!(plane.control.names().settings().resolvers, ["192.0.2.53:53".parse().unwrap()]);
}
