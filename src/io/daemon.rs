//! The daemon (skeleton).

use std::path::Path;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// A sentence that says why it could not start.
pub fn run(config: &Path) -> Result<(), String> {
    Err(format!("there is no daemon yet to run {}", config.display()))
}
