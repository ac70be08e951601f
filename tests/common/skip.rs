//! What a test does when the machine lacks what it needs: it says so and returns.
//!
//! Where nothing may be left out (`.ci/run` sets `WEFT_NO_SKIP=1`), saying so is failing.
//!
//! ```ignore
//! mod common;
//! use common::skip::skip;
//!
//! #[test]
//! fn a_container_engine_names_its_containers() {
//!     if !docker_runs() {
//!         skip!("docker does not run here");
//!     }
//! ```

use std::io::Write as _;

/// Set to anything but nothing or `0`, it makes every skipped test a failed one.
pub(crate) const NO_SKIP: &str = "WEFT_NO_SKIP";

/// Says why the test ends here, and ends it. Takes what `format!` takes.
macro_rules! skip {
    ($($why:tt)+) => {{
        $crate::common::skip::say(&format!($($why)+));
        return;
    }};
}
pub(crate) use skip;

/// Says why a test ends here; panics where nothing may be skipped.
#[track_caller]
pub(crate) fn say(why: &str) {
    let forbidden = std::env::var_os(NO_SKIP).is_some_and(|value| !value.is_empty() && value != "0");
    assert!(!forbidden, "skipped where {NO_SKIP} says that nothing may be: {why}");
    // Not by a macro: what those print of a test that passes is shown to nobody.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
