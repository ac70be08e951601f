//! The data plane (skeleton).

pub mod counters;
