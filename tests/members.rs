//! The membership in a simulated world: the real code of many members, seeded and in virtual time.
//!
//! `members/world.rs` is the world. `WEFT_SIM_SEED=n` plays one seed, `WEFT_SIM_SEEDS=count` so many.

#![allow(clippy::unwrap_used)]

#[path = "members/hostile.rs"]
mod hostile;
#[path = "members/trouble.rs"]
mod trouble;
#[path = "members/world.rs"]
mod world;

use std::time::Duration;
use world::{World, attachment};

const SECOND: Duration = Duration::from_secs(1);
/// What the mesh promises for a new fact, for noticing a death, and for healing.
const PROMISED: Duration = Duration::from_secs(5);

fn seeds(usual: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match (number("WEFT_SIM_SEED"), number("WEFT_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(usual)).collect(),
    }
}

/// A mesh in which each host was told of one that was there before, and all agree.
fn mesh(count: usize, seed: u64) -> World {
    let mut world = World::new(count, 3, seed);
    world.start(0, &[]);
    for n in 1..count {
        let contact = world.chance.below(n);
        world.start(n, &[contact]);
    }
    world.agree_within(20 * SECOND, "at first");
    world
}

#[test]
fn knowing_one_member_is_enough_to_meet_all() {
    for seed in seeds(3) {
        for count in [2, 5, 12, 30] {
            mesh(count, seed).check_signatures();
        }
    }
}

#[test]
fn a_change_is_everywhere_within_a_second_though_a_third_is_lost() {
    for seed in seeds(3) {
        let mut world = mesh(3, seed);
        world.loss = 30;
        let mut slow = 0;
        for turn in 0..200 {
            let n = turn % 3;
            world.change(n, |facts| facts.attachments[0].sequence += 1);
            let key = world.hosts[n].key;
            let moved = world.hosts[n].facts.attachments.clone();
            world.run(SECOND);
            let others = world.hosts.iter().enumerate().filter(|(other, _)| *other != n);
            let views = others.map(|(_, host)| host.membership.as_ref().unwrap().member(&key).unwrap());
            slow += views.filter(|view| view.facts.attachments != moved).count();
        }
        assert_eq!(slow, 0, "seed {seed}: {slow} of 200 moves took longer than a second");
    }
}

#[test]
fn a_mesh_that_is_quiet_is_cheap_and_agrees() {
    let mut world = mesh(40, 1);
    world.run(30 * SECOND);
    let before = world.bytes();
    world.run(60 * SECOND);
    let each = (world.bytes() - before) / 60 / 40;
    assert!(each < 1500, "{each} bytes a second of each");
    assert_eq!(world.disagreement(), None);
    let most = (0..40).map(|n| world.sessions_of(n)).max().unwrap();
    assert!(most <= 20, "one host has {most} sessions");
    world.change(7, |facts| facts.attachments.push(attachment(7, 99)));
    world.agree_within(PROMISED, "a container more");
}
