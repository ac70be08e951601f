//! The whole data plane in a simulated world: several switches and their tunnels, seeded and in virtual time.
//!
//! `sim/world.rs` is the world, `sim/play.rs` says what happens in it and what must hold. `WEFT_SIM_SEED=n` plays one
//! seed, `WEFT_SIM_SEEDS=count` so many more than usual.

#![allow(clippy::unwrap_used)]

mod sim;

use sim::play::Play;

/// Seeds of an ordinary run.
const SEEDS: u64 = 24;

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match (number("WEFT_SIM_SEED"), number("WEFT_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(SEEDS)).collect(),
    }
}

#[test]
fn every_frame_is_delivered_or_counted_and_all_is_well_again_after_a_storm() {
    for seed in seeds() {
        let mut play = Play::new(seed);
        play.calm(80);
        for _ in 0..2 {
            play.storm(200);
            play.heal();
            play.calm(40);
        }
        assert!(play.ledger.delivered > 100, "seed {seed}: only {} units delivered", play.ledger.delivered);
    }
}
