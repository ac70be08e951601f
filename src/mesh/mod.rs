//! The mesh (skeleton).
