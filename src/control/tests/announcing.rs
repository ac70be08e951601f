//! Gratuitous announcements: how often, to whom, and not too many at once.

use super::*;

#[test]
fn a_port_is_announced_three_times_to_its_network_alone() {
    let mut plane = Plane::new(FILE);
    plane.attach(7, |attach| attach.name = Some("listener".into())).unwrap();
    plane.attach(8, |attach| (attach.name, attach.network) = (Some("elsewhere".into()), "red".into())).unwrap();
    let announced = |attach: &mut Attach| {
        (attach.name, attach.mac) = (Some("caller".into()), Some(mac(5)));
        attach.addresses = vec!["10.32.0.9/16".parse().unwrap()];
    };
    plane.control.host.out.frames.clear();
    plane.attach(9, announced).unwrap();
    let frame = announce::gratuitous_arp(mac(5), [10, 32, 0, 9].into());
    let listener = plane.id("listener");
    let heard = |plane: &Plane| plane.control.host.out.frames.iter().filter(|(_, heard)| *heard == frame).count();
    assert_eq!(plane.control.host.out.frames, [(listener, frame.clone())]);
    plane.pass(Duration::from_secs(3));
    assert_eq!(heard(&plane), 2);
    plane.pass(Duration::from_secs(20));
    assert_eq!(heard(&plane), 3);
    assert!(plane.control.host.out.frames.iter().all(|(port, _)| *port == listener));
    // Who has gone is not announced any more.
    plane.detach("caller");
    plane.attach(9, announced).unwrap();
    plane.detach("caller");
    let before = heard(&plane);
    plane.pass(Duration::from_secs(20));
    assert_eq!(heard(&plane), before);
}

#[test]
fn many_ports_are_announced_without_haste_and_all_of_them() {
    const PORTS: u32 = 200;
    let mut plane = Plane::new(FILE);
    let mut most = 0;
    for n in 1..=PORTS {
        let address = format!("10.32.1.{n}/16").parse().unwrap();
        plane.attach(n, |attach| (attach.mac, attach.addresses) = (Some(mac(n as u8)), vec![address])).unwrap();
    }
    let mut heard: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for _ in 0..80 {
        let frames = std::mem::take(&mut plane.control.host.out.frames);
        most = most.max(frames.len());
        frames.into_iter().for_each(|(_, frame)| *heard.entry(frame).or_default() += 1);
        plane.pass(crate::control::TICK);
    }
    // A quarter of a second's worth at 20 µs each, and the one announcement that exceeds it.
    assert!(most <= 12_500 + PORTS as usize, "{most} copies at once");
    let others = PORTS as usize - 1;
    let often = (2 * others..=3 * others).contains(&heard[&announce::gratuitous_arp(mac(1), [10, 32, 1, 1].into())]);
    assert!(heard.len() == PORTS as usize && often, "{} of {PORTS} announced", heard.len());
}
