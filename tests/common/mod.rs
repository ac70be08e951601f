//! What the end-to-end tests share.

#![allow(dead_code, unused_imports, unused_macros, clippy::unwrap_used)]

pub(crate) mod cli;
pub(crate) mod place;
pub(crate) mod skip;

use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Tries until there is something, for [`SOON`] at most.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
