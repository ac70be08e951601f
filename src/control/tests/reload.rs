//! What a reload touches, and what it refuses.

use super::*;

#[test]
fn a_reload_touches_what_changed_and_nothing_else() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\nendpoints = [\"192.0.2.7:51820\"]\n");
    let text = format!("{FILE}{peer}");
    let mut plane = Plane::new(&text);
    plane.found("web", Ok(1));
    plane.attach(7, |_| ()).unwrap();
    let (web, attached) = (plane.id("web"), plane.id("pid:7:eth1"));
    let topology = plane.switch.topology().peers().next().unwrap().clone();
    let same_peer = |plane: &Plane| Arc::ptr_eq(plane.switch.topology().peers().next().unwrap(), &topology);

    assert_eq!(plane.reload(&text).unwrap(), ["nothing changed"]);
    let said = plane.reload(&text.replace("vni = 100", "vni = 100\nmtu = 9000\nageing = 17")).unwrap();
    assert_eq!(said, ["network blue changed"]);
    assert_eq!(plane.control.host.ports.values().map(|port| port.2).collect::<Vec<_>>(), [9000, 9000]);
    let text = text.replace("[[port]]", "[[port]]\nnetwork = 'red'\ntarget = 'host'\nifname = 'red0'\n[[port]]");
    assert_eq!(plane.reload(&text).unwrap(), ["network blue changed", "port host:red0 added"]);
    assert_eq!((plane.sought(), plane.id("web"), plane.id("pid:7:eth1")), (vec!["host:red0"], web, attached));
    plane.found("host:red0", Ok(0));
    assert!(same_peer(&plane));

    // What the tunnel depends on makes another tunnel; its endpoints do not.
    let moved = text.replace("192.0.2.7:51820", "192.0.2.8:51820");
    plane.control.host.out.datagrams.clear();
    plane.reload(&moved).unwrap();
    assert!(same_peer(&plane));
    assert_eq!(plane.peers()[0].endpoints, ["192.0.2.8:51820"]);
    plane.reload(&moved.replace("[[peer]]", "[[peer]]\nkeepalive = 25")).unwrap();
    assert!(!same_peer(&plane));
    assert_eq!(plane.control.host.out.datagrams, ["192.0.2.8:51820".parse().unwrap()]);

    // All of the file's goes; the attached port stays.
    let bare = "[[network]]\nname = 'blue'\nvni = 100\n[node]\nlog = 'warn'\n";
    plane.reload(bare).unwrap();
    assert_eq!(plane.control.host.log, Some(LogLevel::Warn));
    assert_eq!(plane.control.host.ports.keys().collect::<Vec<_>>(), [&attached]);
    assert_eq!((plane.published(100), plane.published(200), plane.peers().len()), (vec![attached], vec![], 0));
    assert!(plane.sought().is_empty());
}

#[test]
fn a_port_of_the_file_follows_its_network_to_another_vni() {
    let mut plane = Plane::new(FILE);
    plane.found("web", Ok(1));
    let before = plane.id("web");
    plane.reload(&FILE.replace("vni = 100", "vni = 101")).unwrap();
    assert!(plane.control.host.ports.is_empty() && plane.sought() == ["web"]);
    plane.found("web", Ok(1));
    assert_ne!(plane.id("web"), before);
    assert_eq!((plane.published(100), plane.published(101)), (vec![], vec![plane.id("web")]));
}

#[test]
fn a_pin_goes_with_its_line_also_when_its_peer_is_renamed_meanwhile() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let pinned = "vni = 100\nstatic = [{ mac = \"02:00:00:00:00:05\", peer = \"beta\" }]";
    let mut plane = Plane::new(&format!("{}{peer}", FILE.replace("vni = 100", pinned)));
    assert_eq!(plane.fdb()[0].at, "peer beta");
    plane.reload(&format!("{FILE}{}", peer.replace("beta", "gamma"))).unwrap();
    assert_eq!(plane.fdb(), []);
}

#[test]
fn what_was_learned_behind_a_peer_goes_with_its_session_and_its_pins_stay() {
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let pinned = "vni = 100\nstatic = [{ mac = \"02:00:00:00:00:05\", peer = \"beta\" }]";
    let text = format!("{}{peer}", FILE.replace("vni = 100", pinned));
    let mut plane = Plane::new(&text);
    let id = plane.switch.topology().peers().next().unwrap().id;
    plane.switch.fdb.observe(0, 100, mac(9), Place::Peer(id), Mac::BROADCAST);
    assert_eq!(plane.fdb().len(), 2);
    plane.reload(&format!("{text}keepalive = 25\n")).unwrap();
    let fdb = plane.fdb();
    assert_eq!((fdb.len(), fdb[0].mac, fdb[0].at.as_str()), (1, mac(5), "peer beta"));
}

#[test]
fn a_reload_that_cannot_be_is_refused_whole() {
    let mut plane = Plane::new(FILE);
    let own = Secret::private([7; 32]).public_key();
    plane.found("web", Ok(1));
    plane.attach(7, |attach| attach.addresses = vec!["10.32.0.9/16".parse().unwrap()]).unwrap();
    let more = "[[network]]\nname = 'green'\nvni = 300\n";
    for (text, part) in [
        (format!("{FILE}[node]\nlisten_port = 7\n"), "node.listen_port"),
        (format!("{FILE}[[peer]]\nname = 'me'\npublic_key = '{own}'\n"), "own public key"),
        (FILE.replace("vni = 100", "vni = 101"), "attached port pid:7:eth1"),
        (FILE.replace("blue", "green-blue"), "attached port pid:7:eth1"),
        (FILE.replace("10.32.0.0/16", "10.32.0.0/29"), "10.32.0.9 is outside"),
        (FILE.replace("name = \"web\"", "name = \"pid:7:eth1\""), "pid:7:eth1"),
        (FILE.replace("10.32.0.5", "10.32.0.9"), "10.32.0.9 already"),
    ] {
        let said = plane.reload(&format!("{text}{more}")).unwrap_err();
        assert!(said.starts_with("reload refused, running on as before: ") && said.contains(part), "{part}: {said}");
    }
    plane.control.host.file = Err("weft.toml:7: nonsense".to_owned());
    assert!(plane.reload_file().unwrap_err().ends_with("weft.toml:7: nonsense"));
    assert_eq!(*plane.control.config(), config(FILE));
    assert_eq!((plane.state("web").as_str(), plane.published(100).len()), ("up", 2));
    assert!(plane.switch.topology().network(300).is_none());
}
