//! Virtual time, also for those who do not ask us for it.
//!
//! weft takes `now` as an argument; boringtun reads the clock by itself, three of them: CLOCK_BOOTTIME for its
//! timers, CLOCK_REALTIME for handshake timestamps, CLOCK_MONOTONIC through `std::time::Instant`. All end in libc's
//! `clock_gettime`. A test binary that includes this file defines that symbol itself, which the linker prefers to
//! libc's. A thread with a [`Clock`] then sees the time that the clock was set to and nothing else; all others go on
//! seeing the real one. So hours of silence take microseconds, with the unmodified boringtun, and tests run in parallel.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// What the clocks show when a virtual one begins. Values that differ so that mixing them up would show.
const BOOTTIME: Duration = Duration::from_secs(2_000_000);
const MONOTONIC: Duration = Duration::from_secs(1_000_000);
const REALTIME: Duration = Duration::from_secs(1_700_000_000);

thread_local! {
    static ELAPSED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// The virtual time of the thread that made it, while it lives.
pub(crate) struct Clock {
    /// It belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        ELAPSED.set(Some(Duration::ZERO));
        Self { not_send: PhantomData }
    }

    /// Sets the time since the start.
    pub(crate) fn set(&self, elapsed: Duration) {
        ELAPSED.set(Some(elapsed));
    }

    /// What `Instant::now` gives.
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        ELAPSED.set(None);
    }
}

/// Stands in for libc's.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut libc::timespec) -> libc::c_int {
    let base = match clock {
        libc::CLOCK_BOOTTIME => Some(BOOTTIME),
        libc::CLOCK_MONOTONIC => Some(MONOTONIC),
        libc::CLOCK_REALTIME => Some(REALTIME),
        _ => None,
    };
    match (base, ELAPSED.try_with(Cell::get).ok().flatten()) {
        (Some(base), Some(elapsed)) => {
            let time = base + elapsed;
            let time = libc::timespec {
                tv_sec: time.as_secs() as libc::time_t,
                tv_nsec: libc::c_long::from(time.subsec_nanos() as i32),
            };
            // SAFETY: as for libc's own, the caller gives a valid place.
            unsafe { to.write(time) };
            0
        }
        // SAFETY: the arguments are those the kernel expects; the caller gives a valid place.
        _ => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, to) as libc::c_int },
    }
}

#[test]
fn the_clock_goes_as_it_is_told_and_only_here() {
    use std::time::SystemTime;
    let real = SystemTime::now();
    let clock = Clock::start();
    let (then, date) = (clock.now(), SystemTime::now());
    clock.set(Duration::from_secs(7 * 3600));
    assert_eq!(then.elapsed(), Duration::from_secs(7 * 3600));
    assert_eq!(date.elapsed().unwrap(), Duration::from_secs(7 * 3600));
    let elsewhere = std::thread::spawn(SystemTime::now).join().unwrap();
    assert!(elsewhere >= real && elsewhere < real + Duration::from_secs(600), "{elsewhere:?}");
    drop(clock);
    assert!(SystemTime::now() >= real);
}
