//! The control plane (skeleton).

pub mod request;
