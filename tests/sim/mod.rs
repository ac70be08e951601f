//! What the tests that live in virtual time share.

pub(crate) mod clock;
pub(crate) mod frames;
pub(crate) mod ledger;
pub(crate) mod play;
pub(crate) mod rng;
pub(crate) mod world;
