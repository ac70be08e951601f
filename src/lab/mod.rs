//! The lab: hosts and containers in network namespaces on one machine, with the real daemon on each host.
pub mod capture;
pub mod datagrams;
pub mod generator;
pub mod link;
pub mod ping;
pub mod wire;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Somebody wants us to end. Cheap to clone; all clones are one flag.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Says so.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody said so.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
