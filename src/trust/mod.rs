//! Trust: who may be a member, and who said what.

pub mod policy;
pub mod sign;

pub use policy::{Policy, Standing, Stranger};
