//! Whatever happens to NATs, firewalls, wires and addresses: as long as members relay between two hosts, their frames pause
//! for no longer than it takes to leave a dead way, and a direct way is used whenever there is one.
//!
//! `WEFT_SIM_SEED=n` plays one seed, `WEFT_SIM_SEEDS=count` so many.

use crate::nat::{ALL, By, Gate, can_be_punched};
use crate::world::{MS, SECOND, Wire, World, outside};
use std::time::Duration;
use weft::mesh::paths::Kind;

/// Seeds of an ordinary run.
const SEEDS: u64 = 20;
/// A dead way is left within this …
const LEFT: Duration = Duration::from_secs(3);
/// … and a frame or two of the next way may be lost.
const SLACK: Duration = Duration::from_millis(800);
const UPGRADE: Duration = Duration::from_secs(10);
/// A member that both know, in the open, which tells them how it sees them.
const THIRD: usize = 2;

struct Play {
    world: World,
    kinds: [Option<(By, By)>; 2],
    moves: u8,
    story: Vec<String>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, &[&["192.0.2.1:51820"], &["192.0.2.2:51820"], &["192.0.2.9:51820"]]);
        for host in [0, 1] {
            world.hosts[host].mesh.set_keep(world.now, THIRD, true);
            world.hosts[THIRD].mesh.set_keep(world.now, host, true);
            world.talk(host, THIRD, SECOND);
        }
        world.wire.loss = [0, 2, 10, 20][seed as usize % 4];
        world.wire.jitter = MS * 5;
        world.relay(0, 1, Wire { loss: world.wire.loss, ..Wire::of(MS * 35) });
        world.tcp = true;
        world.talk(0, 1, MS * 100);
        world.run(SECOND * 20);
        Self { world, kinds: [None, None], moves: 0, story: Vec::new() }
    }

    /// Something happens to one of the hosts.
    fn happen(&mut self) {
        let host = self.world.rng.range(0..2);
        let (mapping, filtering) = (*self.world.rng.pick(&ALL), *self.world.rng.pick(&ALL));
        let what = match self.world.rng.range(0..8) {
            0 | 1 => {
                self.kinds[host] = Some((mapping, filtering));
                self.world.put_behind(host, Gate::nat(outside(host), mapping, filtering));
                format!("{host} is behind {mapping:?} {filtering:?}")
            }
            2 => {
                self.kinds[host] = None;
                self.world.lift_gate(host);
                format!("{host} is in the open")
            }
            3 if self.kinds[host].is_some() => {
                self.world.gates.get_mut(&host).unwrap().forget();
                format!("the NAT of {host} forgets")
            }
            4 => {
                self.moves += 1;
                let way = format!("203.0.113.{}:51820", self.moves);
                self.world.move_host(host, &[&way]);
                format!("{host} moves to {way}")
            }
            5 => {
                let blocked = !self.world.hosts[host].udp_blocked;
                self.world.hosts[host].udp_blocked = blocked;
                format!("UDP of {host} blocked: {blocked}")
            }
            6 => {
                self.world.set_wire(0, 1, |wire| wire.up = !wire.up);
                "the wire between is cut or mended".to_owned()
            }
            _ => {
                let extra = MS * self.world.rng.range(0..60) as u32;
                self.world.set_wire(0, 1, |wire| wire.delay = MS * 5 + extra);
                format!("the wire takes {extra:?} longer")
            }
        };
        self.story.push(format!("{:?}: {what}", self.world.now));
    }

    fn is_direct_possible(&self) -> bool {
        let open = (By::Nothing, By::Nothing);
        let wire = self.world.wires.get(&(0, 1)).is_none_or(|wire| wire.up);
        let [a, b] = self.kinds.map(|kind| kind.unwrap_or(open));
        wire && self.world.hosts[..2].iter().all(|host| !host.udp_blocked) && can_be_punched(a, b)
    }

    fn check(&self, began: Duration, seed: u64) {
        let told = || format!("seed {seed}: {:#?}\n{}", self.story, self.world.picture());
        for (from, to) in [(0, 1), (1, 0)] {
            let pause = self.world.longest_pause(from, to, began);
            assert!(pause <= LEFT + SLACK, "{from} to {to} paused for {pause:?}; {}", told());
        }
        let direct = [(0, 1), (1, 0)].into_iter().all(|(a, b)| self.world.kind(a, b) == Some(Kind::Direct));
        assert!(direct || !self.is_direct_possible(), "a direct way is not used; {}", told());
    }
}

#[test]
fn frames_hardly_pause_and_direct_ways_are_used_whatever_happens() {
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u64>().ok());
    let seeds: Vec<u64> = match (number("WEFT_SIM_SEED"), number("WEFT_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(SEEDS)).collect(),
    };
    for seed in seeds {
        let mut play = Play::new(seed);
        for _ in 0..12 {
            let began = play.world.now;
            play.happen();
            // What was lost once too often is tried again, and what fell twice is waited for.
            play.world.run(UPGRADE * 2 + SECOND * 10);
            play.check(began, seed);
        }
    }
}
