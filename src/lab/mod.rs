//! The lab (skeleton).
