//! Trust: who may be a member, and who said what.

pub mod sign;
