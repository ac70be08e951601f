//! The shell: every syscall, clock, thread, random bit and `unsafe` block of the daemon.

pub mod api;
mod bell;
pub mod client;
pub mod cni;
pub mod configfile;
pub mod container;
pub mod daemon;
pub mod docker;
pub mod finders;
pub mod hostside;
pub mod keyfile;
pub mod lan;
pub mod limits;
pub mod log;
pub mod machine;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod outbox;
mod owner;
pub mod ports;
mod probe;
pub mod service;
pub mod setup;
pub mod store;
pub mod stream;
pub mod tap;
pub mod trust;
pub mod udp;
pub mod wait;
pub mod worker;

use crate::tunnel::Engine;
use crate::tunnel::GateSettings;

#[cfg(test)]
pub(crate) mod scratch;
#[cfg(test)]
#[path = "../../tests/common/skip.rs"]
#[allow(unused_macros, unused_imports)]
pub(crate) mod skip;

/// Fills `bytes` from the kernel's random source, for keys. Before its pool is ready, at early boot, this waits.
pub fn fill_random(bytes: &mut [u8]) {
    while getrandom::fill(bytes).is_err() {
        std::thread::yield_now();
    }
}

/// What a gate of this machine has, at this moment.
pub fn gate_settings(engine: Engine) -> GateSettings {
    let (unix_time, now) = clocks();
    GateSettings { engine, random: fill_random, now, unix_time }
}

/// The time since 1970, and when that was. A daemon that is stopped between the two takes the time for earlier than it is,
/// which does no harm to the dates of handshakes; for later would.
pub fn clocks() -> (std::time::Duration, std::time::Instant) {
    // A clock before 1970 is one that was never set.
    let unix_time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (unix_time, std::time::Instant::now())
}

/// 64 bits from the kernel's random source.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // Fails only before the kernel's pool is ready, at early boot; the time is then still unknown to strangers.
    if getrandom::fill(&mut bytes).is_err() {
        return std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    }
    u64::from_le_bytes(bytes)
}
