//! The shell: every syscall, clock, thread, random bit and `unsafe` block of the daemon.

pub mod api;
pub mod client;
pub mod configfile;
pub mod container;
pub mod daemon;
pub mod finders;
pub mod keyfile;
pub mod limits;
pub mod log;
pub mod machine;
pub mod netlink;
pub mod netns;
pub mod outbox;
pub mod ports;
pub mod store;
pub mod tap;
pub mod udp;
pub mod wait;
pub mod worker;

#[cfg(test)]
pub(crate) mod scratch;
#[cfg(test)]
#[path = "../../tests/common/skip.rs"]
#[allow(unused_macros, unused_imports)]
pub(crate) mod skip;

/// 64 bits from the kernel's random source.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // Fails only before the kernel's pool is ready, at early boot; the time is then still unknown to strangers.
    if getrandom::fill(&mut bytes).is_err() {
        return std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    }
    u64::from_le_bytes(bytes)
}
