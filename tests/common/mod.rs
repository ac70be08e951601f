//! What the end-to-end tests share.

#![allow(dead_code, unused_imports, unused_macros, clippy::unwrap_used)]

pub(crate) mod cli;
pub(crate) mod docker;
pub(crate) mod engine;
pub(crate) mod place;
pub(crate) mod skip;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Runs `work` on another thread, again and again until `meanwhile` has ended, well or badly; says how often.
pub(crate) fn repeat_during(mut work: impl FnMut() + Send, meanwhile: impl FnOnce()) -> usize {
    struct AtEnd<'a>(&'a AtomicBool);
    impl Drop for AtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut count = 0;
            while !ended.load(Relaxed) {
                work();
                count += 1;
            }
            count
        });
        let at_end = AtEnd(&ended);
        meanwhile();
        drop(at_end);
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

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
