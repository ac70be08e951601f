//! What the tests that live in virtual time share.

pub(crate) mod clock;
pub(crate) mod rng;
pub(crate) mod world;
