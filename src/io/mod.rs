//! Syscalls, threads, clocks and unsafe (skeleton).

pub mod container;
pub mod keyfile;
pub mod netlink;
pub mod netns;
pub mod ports;
pub mod store;
pub mod tap;

#[cfg(test)]
pub(crate) mod scratch;
