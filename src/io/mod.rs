//! Syscalls, threads, clocks and unsafe (skeleton).

pub mod netlink;
pub mod netns;
pub mod tap;
