//! The tunnel against what boringtun 0.7.1 gets wrong, and against strangers: two or three real switches, virtual time.
//!
//! Each defect that the header of `src/switch/tunnel.rs` lists has a test here that shows it does not bite. Hours pass in
//! milliseconds, see `sim/clock.rs`.

#![allow(clippy::unwrap_used, dead_code)]

mod sim {
    pub(crate) mod clock;
    pub(crate) mod rng;
    pub(crate) mod world;
}

mod tunnel {
    mod bytes;
    mod flood;
    mod recovery;
    mod roaming;
    mod sessions;
    mod talk;
}
