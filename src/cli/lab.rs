//! `weft lab` (skeleton).

use std::process::ExitCode;

/// `weft lab`.
#[derive(Debug, clap::Args)]
pub struct LabArgs {}

/// Runs the lab.
pub fn run(_args: LabArgs) -> ExitCode {
    ExitCode::FAILURE
}
