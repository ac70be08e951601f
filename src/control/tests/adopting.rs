//! What a restart takes over, and the names that are looked up for peers that are called in vain.

use super::*;

#[test]
fn a_restart_takes_over_what_still_belongs_here() {
    let plane = Plane::new(FILE);
    let web = config(FILE).ports[0].clone();
    let wants = |spec: &crate::config::Port, origin, vni| plane.control.wants_adopted(spec, origin, vni);
    assert!(wants(&web, Origin::File, 100));
    let other = |change: fn(&mut crate::config::Port)| {
        let mut spec = web.clone();
        change(&mut spec);
        spec
    };
    // The network has got another VNI; the file says something else of the port, or nothing.
    assert!(!wants(&web, Origin::File, 101));
    assert!(!wants(&other(|spec| spec.ifname = "eth2".into()), Origin::File, 100));
    assert!(!wants(&other(|spec| spec.name = "gone".into()), Origin::File, 100));
    // What was attached stays, unless the file has taken its name or lost its network.
    assert!(wants(&other(|spec| spec.name = "mine".into()), Origin::Attach, 100));
    assert!(!wants(&web, Origin::Attach, 100));
    assert!(!wants(&other(|spec| (spec.name, spec.network) = ("x".into(), "gone".into())), Origin::Attach, 100));

    let mut plane = plane;
    let port = plane.control.new_port(100, mac(1));
    plane.control.host.ports.insert(port.id, ("web".to_owned(), 1, 1400));
    plane.control.adopted(plane.now, web, Origin::File, port.clone(), 0);
    assert_eq!(plane.control.host.ports[&port.id].2, 1500, "the network's MTU is another one now");
    assert_eq!((plane.state("web").as_str(), plane.port("web").unwrap().mac), ("up", Some(mac(1))));
    assert_eq!((plane.published(100), plane.sought().len()), (vec![port.id], 0));
}

#[test]
fn a_name_is_pressing_while_its_peer_is_called_in_vain() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\nendpoints = [\"beta.example:5\"]\n");
    let mut plane = Plane::new(&format!("{FILE}{peer}"));
    let name = ("beta.example".to_owned(), 5);
    let lookup = |pressing| vec![Lookup { name: name.clone(), pressing }];
    plane.pass(Duration::from_secs(5));
    assert_eq!(plane.control.host.lookups, lookup(false));
    assert!(plane.control.host.out.datagrams.is_empty());
    assert_eq!(plane.peers()[0].endpoints, ["beta.example:5 (not resolved)"]);

    let (first, second): (SocketAddr, SocketAddr) =
        ("192.0.2.1:5".parse().unwrap(), "[2001:db8::2]:5".parse().unwrap());
    plane.control.resolved(plane.now, name.clone(), vec![first]);
    assert_eq!(plane.control.host.out.datagrams, [first]);
    plane.pass(Duration::from_secs(2));
    assert_eq!(plane.control.host.lookups, lookup(true));
    assert_eq!(plane.peers()[0].state, "handshake");
    // The same answer again is none; another one is where the next call goes.
    plane.control.host.out.datagrams.clear();
    plane.control.resolved(plane.now, name.clone(), vec![first]);
    assert!(plane.control.host.out.datagrams.is_empty());
    plane.control.resolved(plane.now, name.clone(), vec![second]);
    assert_eq!(plane.peers()[0].endpoints, ["beta.example:5 ([2001:db8::2]:5)"]);

    // Nobody asks any more; an answer that was on its way is for nobody.
    plane.reload(FILE).unwrap();
    assert!(plane.control.host.lookups.is_empty());
    plane.control.host.out.datagrams.clear();
    plane.control.resolved(plane.now, name, vec![first]);
    assert!(plane.control.host.out.datagrams.is_empty());
}
