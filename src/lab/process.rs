//! Programs in namespaces: daemons on hosts, anything a person or a test runs in a container.

use crate::io::netns::Netns;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How often a child that should end is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Makes `command` start inside a namespace.
///
/// # Errors
/// Out of file descriptors. That the namespace may not be entered shows when the command is spawned.
pub fn inside(netns: &Netns, command: &mut Command) -> io::Result<()> {
    let netns: OwnedFd = netns.as_fd().try_clone_to_owned()?;
    let enter = move || {
        // SAFETY: setns takes no pointer; the closure owns the descriptor.
        match unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure runs between fork and exec and makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Makes `command` be killed when the calling thread ends, however it does. The thread that spawns it must therefore
/// live as long as the command should.
pub fn die_with_us(command: &mut Command) {
    let us = std::process::id();
    let tie = move || {
        // SAFETY: both calls take numbers only and concern the calling process.
        let parent = unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::getppid()
        };
        // We may have died before the tie was made.
        if parent.cast_unsigned() == us { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: the closure runs between fork and exec and makes two system calls; it allocates nothing and takes no
    // lock.
    unsafe { command.pre_exec(tie) };
}

/// Sends a signal to a child that has not been waited for, so that its number is still its own.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: kill takes numbers only. It cannot hit a stranger: an unburied child keeps its number.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

/// User and system time a process has used so far, all threads; `None` when it is gone.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 14 and 15 of proc_pid_stat(5); behind the bracket the third comes first.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // SAFETY: sysconf takes a number and returns one.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    Some(Duration::from_millis(ticks * 1000 / per_second.max(1)))
}

/// The resident memory of a process in bytes; `None` when it is gone.
pub fn memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The last `lines` lines of what a program has written to a file; nothing when there is no such file.
pub fn last_words(log: &Path, lines: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Asks a child to end, and kills it when it has not within `patience`.
pub fn end(child: &mut Child, patience: Duration) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    signal(child, libc::SIGTERM);
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::skip;

    #[test]
    fn a_program_runs_inside_its_namespace() {
        let Some(netns) = Netns::create().map_err(|error| skip::say(&error.to_string())).ok() else { return };
        let mut command = Command::new("readlink");
        command.arg("/proc/self/ns/net");
        inside(&netns, &mut command).unwrap();
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.trim(), format!("net:[{}]", netns.id().ino));
    }

    #[test]
    fn a_child_dies_with_the_thread_that_made_it() {
        let spawn = || {
            let mut command = Command::new("sleep");
            command.arg("600");
            die_with_us(&mut command);
            command.spawn().unwrap()
        };
        let mut child = std::thread::spawn(spawn).join().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }

    #[test]
    fn a_process_has_memory_and_time_until_it_is_gone() {
        assert!(memory(std::process::id()).unwrap() > 1 << 16);
        assert!(cpu_time(std::process::id()).unwrap() < Duration::from_hours(24));
        assert!(memory(u32::MAX).is_none() && cpu_time(u32::MAX).is_none());
    }

    #[test]
    fn a_child_that_ignores_us_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 5];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let status = end(&mut child, Duration::from_millis(100)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }
}
