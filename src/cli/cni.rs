//! `weft-cni`: this program under the name by which container runtimes start it.

use crate::cni::env::Variables;
use crate::cni::{self, version::Version};
use crate::io::cni::Machine;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The name that makes it a plugin.
const NAME: &str = "weft-cni";

/// Whether a runtime calls: by that name, or, where somebody put `weft` itself among the plugins, without a word on the command line but
/// with `CNI_COMMAND` in the environment. No person's command line looks like that: without a command `weft` has nothing to do.
pub(super) fn is_meant() -> bool {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    Path::new(&called).file_name() == Some(OsStr::new(NAME))
        || (words.next().is_none() && std::env::var_os(Variables::NAMES[0]).is_some())
}

/// Runs the plugin. The answer, and an error too, goes to standard output.
pub(super) fn run() -> ExitCode {
    let outcome = match (Machine::variables(), Machine::configuration()) {
        (Ok(variables), _) if variables.command.is_empty() => {
            let versions = Version::ALL.map(Version::name).join(", ");
            let _ = writeln!(
                std::io::stderr(),
                "{NAME} {}: the CNI plugin of weft, for versions {versions} of CNI; container runtimes start it",
                env!("CARGO_PKG_VERSION")
            );
            return ExitCode::SUCCESS;
        }
        (Ok(variables), Ok(stdin)) => cni::run(&variables, &stdin, &mut Machine::new(&variables, &stdin)),
        (Err(error), _) | (_, Err(error)) => Err(format!("{:#}\n", error.to_json(Version::LATEST))),
    };
    let (text, code) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(text) => (text, ExitCode::FAILURE),
    };
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{NAME}: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}
