//! Labs to play with: `weft lab up` leaves one running, held by a supervisor; `exec`, `status` and `down` find it.
//!
//! The supervisor is this program once more, in a session of its own, with the lab's directory as its argument. It
//! tells the one who started it `ready` over its standard output, or what went wrong; then it waits for SIGTERM.

use super::registry::{self, LabState, RunDir};
use super::spec::LabSpec;
use super::{Lab, LabError, Stop, privileges};
use crate::control::request::{Request, Response};
use crate::io::client;
use crate::io::netns::Netns;
use serde::Serialize;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the supervisor says when the lab can be used.
const READY: &str = "ready";
/// The file that tells the supervisor what to build.
const SPEC: &str = "spec.json";
/// How often the supervisor looks whether it should end, and `down` whether it has.
const POLL: Duration = Duration::from_millis(50);
/// How long a supervisor may take to end before it is killed; its daemons promise a second.
const END: Duration = Duration::from_secs(10);

/// Starts a lab in the background and waits until it can be used.
///
/// # Errors
/// What the supervisor says; nothing is left behind.
pub fn up(spec: &LabSpec) -> Result<LabState, LabError> {
    spec.check()?;
    let dir = RunDir::create(&spec.base, &spec.name)?;
    let mut spec = spec.clone();
    if spec.weft == Path::new("/proc/self/exe") {
        // For ps(1): the name that the user knows.
        spec.weft = std::env::current_exe().unwrap_or(spec.weft);
    }
    let start = || {
        fs::write(dir.path().join(SPEC), serde_json::to_vec_pretty(&spec)?)?;
        let log = OpenOptions::new().create(true).append(true).open(dir.path().join("lab.log"))?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["lab", "supervise"]).arg(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/");
        // SAFETY: the closure runs between fork and exec; setsid takes nothing, and a fresh child is no group leader.
        unsafe { command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }) };
        command.spawn()
    };
    let mut child = start().map_err(LabError::io("start the lab's supervisor"))?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line == READY {
                // The directory is the supervisor's from here on.
                std::mem::forget(dir);
                return registry::find(&spec.base, &spec.name);
            }
            said.push_str(&line);
            said.push('\n');
        }
    }
    let status = child.wait().map_err(LabError::io("wait for the lab's supervisor"))?;
    let said = said.trim();
    let why = if said.is_empty() { format!("its supervisor ended at its start ({status})") } else { said.to_owned() };
    Err(LabError::Refused(why))
}

/// Holds the lab whose specification is in `dir` until somebody wants it to end. To be called before any thread
/// exists.
///
/// # Errors
/// The lab cannot be built. That has been said on standard output, too.
pub fn supervise(dir: PathBuf) -> Result<(), LabError> {
    let mut out = io::stdout();
    let built = build(dir).and_then(|(lab, stop)| {
        // Whoever started us is gone: nobody knows of this lab, so there will be none.
        writeln!(out, "{READY}").and_then(|()| out.flush()).map_err(LabError::io("say that the lab is ready"))?;
        Ok((lab, stop))
    });
    let (lab, stop) = match built {
        Ok(held) => held,
        Err(error) => {
            // If nobody reads it, the exit status says enough.
            let _ = writeln!(out, "{error}");
            return Err(error);
        }
    };
    while !stop.is_set() {
        std::thread::sleep(POLL);
    }
    drop(lab);
    Ok(())
}

fn build(dir: PathBuf) -> Result<(Lab, Stop), LabError> {
    let path = dir.join(SPEC);
    let read = || -> io::Result<LabSpec> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
    let spec = read().map_err(LabError::io(format!("read {}", path.display())))?;
    if spec.base.join(&spec.name) != dir {
        // What is adopted is removed in the end: it has to be the directory that was made for it.
        return Err(LabError::Refused(format!("{} is not the directory of a lab", dir.display())));
    }
    let dir = RunDir::adopt(dir)?;
    privileges::acquire()?;
    let stop = Stop::on_signals().map_err(LabError::io("handle signals"))?;
    let mut lab = Lab::lay_in(dir, spec)?;
    lab.start_daemons(&stop)?;
    lab.attach_all()?;
    lab.publish()?;
    Ok((lab, stop))
}

/// Ends a lab and waits until it is gone.
///
/// # Errors
/// Its process is not ours to end.
pub fn down(base: &Path, lab: &LabState) -> Result<(), LabError> {
    let failed = || LabError::io(format!("end lab {}", lab.name));
    let mut signal = libc::SIGTERM;
    let mut deadline = Instant::now() + END;
    while lab.is_alive() {
        // SAFETY: kill takes numbers only; the process was just seen to be the one that holds the lab.
        if signal != 0 && unsafe { libc::kill(lab.pid.cast_signed(), signal) } != 0 {
            return Err(failed()(io::Error::last_os_error()));
        }
        signal = 0;
        if Instant::now() > deadline {
            (signal, deadline) = (libc::SIGKILL, Instant::now() + END);
        }
        std::thread::sleep(POLL);
    }
    // A killed supervisor leaves its directory, which this removes.
    registry::list(base).map(drop)
}

/// The namespace of a host (`h1`) or container (`h1/c1`) of a lab, and the control socket if it is a host. To be called
/// before any thread exists.
///
/// # Errors
/// There is no such place, or it is not ours to enter.
pub fn place<'a>(lab: &'a LabState, name: &str) -> Result<(Netns, Option<&'a Path>), LabError> {
    let (netns_fd, socket) = lab.find(name).ok_or_else(|| {
        let names = lab.hosts.iter().flat_map(|host| {
            let containers = host.containers.iter().map(|container| container.name.as_str());
            std::iter::once(host.name.as_str()).chain(containers)
        });
        let names = names.collect::<Vec<_>>().join(", ");
        LabError::Refused(format!("lab {} has no {name}: it has {names}", lab.name))
    })?;
    privileges::join(lab.pid)?;
    let netns = Netns::open(Path::new(&format!("/proc/{}/fd/{netns_fd}", lab.pid)));
    Ok((netns.map_err(LabError::io(format!("find {name}")))?, socket))
}

/// Becomes `command` inside a host or container of a lab. To be called before any thread exists.
///
/// # Errors
/// No such place or command, or not allowed. Otherwise it does not return.
pub fn exec(lab: &LabState, name: &str, command: &[OsString]) -> Result<Infallible, LabError> {
    let [program, arguments @ ..] = command else {
        return Err(LabError::Refused("there is no command to run: write it behind --".to_owned()));
    };
    let (netns, socket) = place(lab, name)?;
    // SAFETY: setns takes no pointer, and the descriptor is open.
    if unsafe { libc::setns(netns.as_fd().as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(LabError::io(format!("enter {name}"))(io::Error::last_os_error()));
    }
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(socket) = socket {
        command.env("WEFT_SOCKET", socket);
    }
    // `weft` is this one in there, also where none or another is installed.
    if let Some(own) = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned())) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
    }
    Err(LabError::io(format!("run {}", program.display()))(command.exec()))
}

/// A lab with what its daemons say, for `weft lab status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabStatus {
    /// The lab.
    #[serde(flatten)]
    pub lab: LabState,
    /// By host: `up`, or why its daemon does not answer.
    pub daemons: Vec<String>,
}

/// The labs that run, or the one called `name`.
///
/// # Errors
/// There is none called so.
pub fn status(base: &Path, name: Option<&str>) -> Result<Vec<LabStatus>, LabError> {
    let labs = match name {
        Some(name) => vec![registry::find(base, name)?],
        None => registry::list(base)?,
    };
    let daemon = |socket: &Path| match client::ask(socket, &Request::Status) {
        Ok(Response::Status(_)) => "up".to_owned(),
        Ok(_) => "down: it answers nonsense".to_owned(),
        Err(error) => format!("down: {error}"),
    };
    let status =
        |lab: LabState| LabStatus { daemons: lab.hosts.iter().map(|host| daemon(&host.socket)).collect(), lab };
    Ok(labs.into_iter().map(status).collect())
}
