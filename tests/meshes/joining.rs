//! One line of trust and one address are all that a host needs.

use super::Hosts;
use crate::common::eventually;
use crate::common::place::{lab, spec, usable};
use crate::support::{peer, reaches};
use weft::lab::spec::{Discovery, LabSpec, Underlay};
use weft::lab::topology::Topology;

#[test]
fn a_line_makes_a_host_a_member_and_each_finds_the_mesh_again_by_itself() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::joined(3);
    for h in 1..=3 {
        assert!(!mesh.text(h).contains("[[peer]]"), "the file of h{h} names nobody");
        let names: Vec<String> = mesh.peers(h).into_iter().map(|peer| peer.name).collect();
        let others: Vec<String> = (1..=3).filter(|&other| other != h).map(|other| format!("h{other}")).collect();
        assert_eq!(names, others, "h{h} knows the others by name");
    }
    mesh.restart(2, libc::SIGTERM);
    mesh.all_reach(1..=3);
    // Who began the mesh is not needed for it to go on.
    mesh.down(1, libc::SIGKILL);
    mesh.restart(3, libc::SIGKILL);
    mesh.all_reach(2..=3);
    mesh.up(1);
    mesh.all_reach(1..=3);
}

#[test]
fn who_knows_where_one_member_is_meets_all() {
    if !usable() {
        return;
    }
    let underlay = Underlay::Routed(Topology::flat(5));
    let lab = lab(LabSpec { underlay, discovery: Discovery::Seed, ..spec(5, 1) });
    let pairs = || (1..=5).flat_map(|a| (1..=5).filter(move |&b| b != a).map(move |b| (a, b)));
    for (a, b) in pairs() {
        reaches(lab.container(a, 1), lab.container(b, 1));
    }
    for (a, b) in pairs() {
        eventually(&format!("h{a} speaks with h{b} without help"), || {
            let peer = peer(&lab, a, &format!("h{b}"));
            (peer.path == "direct" && peer.alive == Some(true)).then_some(())
        });
    }
}
