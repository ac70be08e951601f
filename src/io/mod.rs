//! Syscalls, threads, clocks and unsafe (skeleton).

pub mod keyfile;
pub mod netlink;
pub mod netns;
pub mod store;
pub mod tap;

#[cfg(test)]
pub(crate) mod scratch;
