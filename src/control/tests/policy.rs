//! Who is in which rules, and when that is looked at.

use super::*;
use crate::control::TICK;
use crate::mesh::facts::Attachment;

const BLUE: u32 = 100;

fn plane(rules: &[(&str, &str)]) -> Plane {
    let rule =
        |(from, to): &(&str, &str)| format!("[[allow]]\nnetwork = \"blue\"\nfrom = \"{from}\"\nto = \"{to}\"\n");
    let rules: String = rules.iter().map(rule).collect();
    let peer = format!("[[peer]]\nname = \"beta\"\npublic_key = \"{BETA}\"\n");
    let mut plane = Plane::new(&format!("{FILE}{peer}{rules}"));
    plane.pass(Duration::from_secs(10));
    plane
}

fn attach(plane: &mut Plane, last: u8, name: &str) {
    let change = |attach: &mut Attach| {
        attach.addresses = vec![format!("10.32.1.{last}/16").parse().unwrap()];
        (attach.mac, attach.name) = (Some(mac(last)), Some(name.to_owned()));
    };
    plane.attach(u32::from(last) + 50, change).unwrap();
}

/// How many addresses the rules' sides have.
fn sides(plane: &Plane) -> Vec<[usize; 2]> {
    let statuses = plane.control.policy_statuses(plane.now);
    let blue = statuses.into_iter().find(|status| status.network == "blue").unwrap();
    blue.rules.iter().map(|rule| [rule.from_addresses, rule.to_addresses]).collect()
}

#[test]
fn a_container_lends_its_name_to_its_port_and_nothing_else_does() {
    let mut plane = plane(&[("docker", "shop"), ("cni", "pid"), ("docker:591785b80116", "shop:eth1")]);
    for (last, name) in [(1, "docker:591785b80116"), (2, "shop:eth1"), (3, "cni:c1:eth0"), (4, "pid:7:eth1")] {
        attach(&mut plane, last, name);
    }
    assert_eq!(sides(&plane), [[0, 1], [0, 0], [1, 1]]);
}

#[test]
fn what_members_say_is_looked_at_once_a_tick_and_a_port_of_ours_has_its_rules_at_once() {
    let mut plane = plane(&[("10.32.2.0/24", "10.32.1.0/24")]);
    let has = |plane: &mut Plane, count: u8| {
        let attachment = |n: u8| Attachment {
            vni: BLUE,
            mac: mac(100 + n),
            addresses: vec![IpAddr::from([10, 32, 2, n])],
            sequence: 0,
            name: format!("b{n}"),
        };
        let attachments: Vec<Attachment> = (1..=count).map(attachment).collect();
        plane.control.member_has(plane.now, BETA.parse().unwrap(), "beta", &attachments);
        plane.control.publish();
    };
    plane.pass(TICK);
    has(&mut plane, 1);
    assert_eq!(sides(&plane), [[1, 0]], "the first in a tick does not wait");
    has(&mut plane, 2);
    has(&mut plane, 3);
    assert_eq!(sides(&plane), [[1, 0]], "the others do");
    plane.pass(TICK);
    assert_eq!(sides(&plane), [[3, 0]]);
    has(&mut plane, 2);
    attach(&mut plane, 7, "seven");
    assert_eq!(sides(&plane)[0][1], 1, "a port of ours");
    plane.detach("seven");
    plane.pass(TICK);
    assert_eq!(sides(&plane)[0][1], 0);
}
