//! The configuration file. A file that is taken must differ in nothing from itself; one that is refused must say where.

use std::path::Path;
use weft::config::diff::diff;
use weft::config::parse::{Defaults, parse};

const PSK: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

/// The target.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let defaults = Defaults { hostname: "alpha".to_owned() };
    // A path that begins like this can be read.
    let read =
        |path: &Path| if path.starts_with("/psk") { Ok(PSK.to_owned()) } else { Err("no such file".to_owned()) };
    match parse("/etc/weft/weft.toml", text, &defaults, &read) {
        Ok(config) => {
            assert_eq!(diff(&config, &config), Ok(Vec::new()));
            assert_eq!(parse("/etc/weft/weft.toml", text, &defaults, &read), Ok(config));
        }
        Err(errors) => {
            let lines = text.split('\n').count();
            assert!(!errors.0.is_empty(), "refused without a reason");
            for error in &errors.0 {
                assert!(error.line <= lines, "line {} of {lines}", error.line);
                assert!(!error.problem.is_empty() && !error.remedy.is_empty());
            }
            assert!(!errors.to_string().is_empty());
        }
    }
}
