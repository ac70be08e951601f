//! A test that this machine cannot run says so and passes; where `WEFT_REQUIRE_ENGINES` is set it fails instead.

/// Prints `skipped: WHY` and returns from the test.
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::common::skip::skipped(&format!($($why)*));
        return;
    }};
}
pub(crate) use skip;

/// Tells why, or fails where nothing may be skipped.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("WEFT_REQUIRE_ENGINES").is_none(), "nothing may be skipped here, but: {why}");
    println!("skipped: {why}");
}
