//! The programs of others: whether the machine has them, which version, and starting them on a host.
//!
//! A program is looked for where the shell looks, and where system daemons are that a user's shell does not look
//! for. It is asked for its version before it is believed: two projects have a `tincd`.

use crate::lab::{LabError, process};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where system daemons are, whatever PATH says.
const SYSTEM: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// How long a program may take to end on SIGTERM.
const END: Duration = Duration::from_secs(2);
/// Lines of its log that are part of an error.
const LOG_LINES: usize = 6;

/// A program that a contender needs.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its file.
    pub name: &'static str,
    /// What makes it print its version.
    pub version: &'static str,
    /// What the first line of that begins with: it is the program that was meant.
    pub says: &'static str,
}

/// A program this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its file's name.
    pub name: &'static str,
    /// Its file.
    pub path: PathBuf,
    /// The line in which it says its version.
    pub version: String,
}

impl Program {
    /// The first of this name in PATH or the system's directories that is the program meant.
    pub fn find(&self) -> Option<Found> {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(":");
        path.push(SYSTEM);
        self.find_in(&path)
    }

    fn find_in(&self, directories: &OsString) -> Option<Found> {
        std::env::split_paths(directories).map(|dir| dir.join(self.name)).find_map(|path| {
            let output = Command::new(&path).arg(self.version).stdin(Stdio::null()).output().ok()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let version = text.lines().next()?.trim().to_owned();
            version.starts_with(self.says).then_some(Found { name: self.name, path, version })
        })
    }
}

/// A program that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Started {
    name: String,
    host: String,
    log: PathBuf,
    child: Child,
}

impl Started {
    /// Starts a command, which is to run on `host` already, with its output in a file of the directory `dir`. It dies with
    /// the calling thread.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(mut command: Command, host: &str, dir: &Path) -> Result<Self, LabError> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = dir.join(format!("{name}.log"));
        let mut spawn = || {
            let file = OpenOptions::new().create(true).append(true).open(&log)?;
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            // Ctrl-C at the terminal is for the bench, which ends its programs in its own time.
            command.process_group(0);
            process::die_with_us(&mut command);
            command.spawn()
        };
        let child = spawn().map_err(LabError::io(format!("start {name} on {host}")))?;
        Ok(Self { name, host: host.to_owned(), log, child })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// It has ended; its last words are in the error.
    pub fn check(&mut self) -> Result<(), LabError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(format!("ended ({status})"))),
            Err(error) => Err(LabError::io(format!("look after {}", self.name))(error)),
        }
    }

    /// The end of what it said, with its name; `None` when it said nothing.
    pub fn words(&self) -> Option<String> {
        let words = process::last_words(&self.log, LOG_LINES);
        (!words.is_empty()).then(|| format!("{} on {} said:\n{words}", self.name, self.host))
    }

    /// An error that says what the program did or did not do, with its last words.
    pub fn failed(&self, what: String) -> LabError {
        let log = process::last_words(&self.log, LOG_LINES);
        let log = if log.is_empty() { "it said nothing".to_owned() } else { log };
        LabError::Daemon { host: self.host.clone(), what: format!("({}) {what}", self.name), log }
    }

    /// Asks it to end, without waiting.
    pub fn ask_to_end(&self) {
        process::signal(&self.child, libc::SIGTERM);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // The kernel kills what is left when we end.
        let _ = process::end(&mut self.child, END);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_the_first_of_its_name_that_says_what_it_should() {
        let scratch = Scratch::new();
        let mut path = OsString::new();
        for (dir, says) in [("other", "tincd 0.1.0"), ("broken", ""), ("meant", "tinc version 1.0.36 (built)")] {
            let dir = scratch.path().join(dir);
            std::fs::create_dir(&dir).unwrap();
            let file = dir.join("tincd");
            std::fs::write(&file, format!("#!/bin/sh\n[ \"$1\" = --version ] && echo '{says}' >&2\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.push(dir);
            path.push(":");
        }
        let tinc = Program { name: "tincd", version: "--version", says: "tinc version" };
        let found = tinc.find_in(&path).unwrap();
        assert_eq!(found.version, "tinc version 1.0.36 (built)");
        assert!(found.path.ends_with("meant/tincd"));
        assert_eq!(Program { says: "tinc version 2", ..tinc }.find_in(&path), None);
        assert_eq!(Program { name: "no-such-program", ..tinc }.find_in(&path), None);
    }
}
