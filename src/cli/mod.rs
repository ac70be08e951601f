//! The command line (skeleton).

/// Runs the command the arguments ask for.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
