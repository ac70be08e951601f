//! temp
/// x
pub fn run() -> std::process::ExitCode {
    let a: Vec<String> = std::env::args().collect();
    match crate::io::daemon::run(std::path::Path::new(&a[3])) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::FAILURE
        }
    }
}
