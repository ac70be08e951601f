//! What wakes a thread that others leave something for.

use mio::Waker;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Wakes the thread, once for all that happens until it has looked.
pub(super) struct Bell {
    waker: Waker,
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new(waker: Waker) -> Self {
        Self { waker, rung: AtomicBool::new(false) }
    }

    /// There is something to look at.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, SeqCst) {
            let _ = self.waker.wake();
        }
    }

    /// The thread is about to look: what is put down from here on rings again.
    pub(super) fn answer(&self) {
        self.rung.store(false, SeqCst);
    }
}
