//! The configuration file, read.

use crate::config::Config;
use crate::config::parse::{Defaults, parse};
use std::path::Path;

/// Reads and checks a configuration file.
///
/// # Errors
/// All that is wrong with it, a line each.
pub fn load_config(path: &Path) -> Result<Config, String> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let defaults = Defaults { hostname: hostname() };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    parse(&name, &text, &defaults, &read).map_err(|errors| errors.to_string())
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "weft".to_owned() } else { name.to_owned() }
}
