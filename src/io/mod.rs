//! Syscalls, threads, clocks and unsafe (skeleton).

pub mod client;
pub mod configfile;
pub mod container;
pub mod daemon;
pub mod keyfile;
pub mod netlink;
pub mod netns;
pub mod ports;
pub mod store;
pub mod tap;
pub mod wait;

#[cfg(test)]
pub(crate) mod scratch;
