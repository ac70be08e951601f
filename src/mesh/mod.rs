//! The mesh (skeleton).

pub mod path;
