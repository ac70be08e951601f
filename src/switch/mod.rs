//! The data plane (skeleton).

pub mod counters;
pub mod fdb;
pub mod ids;
