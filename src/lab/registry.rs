//! Where labs keep their files, and which labs there are.
//!
//! Each lab has one directory, `BASE/NAME`, private to its user. In it `lab.json` says which process holds the lab
//! and how to get into its hosts and containers: their namespaces are open files of that process and have no other
//! name, so they end with it, whatever ends it. A directory whose process is gone is stale, and is removed by
//! whoever next looks.

use super::LabError;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The longest name of a lab: a socket's path, of which it is a part, has at most 107 bytes.
const MAX_NAME: usize = 32;
/// How long a directory may be without `lab.json`: its lab is being built.
const MAX_BUILD_SECONDS: u64 = 300;

/// A lab as others see it: `lab.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabState {
    /// Its name.
    pub name: String,
    /// The process that holds it.
    pub pid: u32,
    /// When that process started, in clock ticks since boot: tells it from another that got its number.
    pub started: u64,
    /// Its hosts.
    pub hosts: Vec<HostState>,
}

/// A host of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// `h1`.
    pub name: String,
    /// Number of the file in the lab's process that is its namespace.
    pub netns_fd: i32,
    /// Its addresses on the underlay.
    pub v4: Ipv4Addr,
    /// See `v4`.
    pub v6: Ipv6Addr,
    /// Its daemon's control socket.
    pub socket: PathBuf,
    /// Its daemon's configuration file.
    pub config: PathBuf,
    /// Its daemon's log.
    pub log: PathBuf,
    /// Its containers.
    pub containers: Vec<ContainerState>,
}

/// A container of a lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    /// `h1/c1`.
    pub name: String,
    /// The network it is in.
    pub network: String,
    /// Number of the file in the lab's process that is its namespace.
    pub netns_fd: i32,
    /// Its addresses.
    pub v4: Ipv4Addr,
    /// See `v4`.
    pub v6: Ipv6Addr,
    /// Its link-local address, once it is attached.
    pub link_local: Option<Ipv6Addr>,
}

impl LabState {
    /// Whether the process that holds the lab lives.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    /// Whether it was named in full, like `h1` or `h1/c1`: the namespace's file, and the host's socket for a host.
    pub fn find(&self, name: &str) -> Option<(i32, Option<&Path>)> {
        self.hosts.iter().find_map(|host| {
            if host.name == name {
                return Some((host.netns_fd, Some(host.socket.as_path())));
            }
            host.containers.iter().find(|container| container.name == name).map(|found| (found.netns_fd, None))
        })
    }
}

/// A lab's directory, which goes when this is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory of a lab called `name`. Of the labs that are gone, those found on the way are tidied up.
    ///
    /// # Errors
    /// A lab of this name is running, or the directory cannot be made or is not ours.
    pub fn create(base: &Path, name: &str) -> Result<Self, LabError> {
        check_name(name)?;
        let failed = |path: &Path| LabError::io(format!("make {}", path.display()));
        match DirBuilder::new().mode(0o700).create(base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(base)(error)),
            _ => {}
        }
        let found = fs::symlink_metadata(base).map_err(failed(base))?;
        // SAFETY: geteuid takes nothing and cannot fail.
        if !found.is_dir() || found.uid() != unsafe { libc::geteuid() } {
            let text = format!("{} is not our directory: remove it, or set TMPDIR to another place", base.display());
            return Err(LabError::Refused(text));
        }
        let _lock = lock(base)?;
        tidy(base)?;
        let path = base.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(LabError::Refused(format!(
                "a lab called {name} exists: choose another name with --name, or end it with `weft lab down --name {name}`"
            ))),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Takes over a directory that somebody made for us.
    pub fn adopt(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes the lab. Readers see the whole or nothing.
    ///
    /// # Errors
    /// The file system refused.
    pub fn publish(&self, state: &LabState) -> Result<(), LabError> {
        let (partial, whole) = (self.path.join("lab.json.new"), self.path.join("lab.json"));
        let write = || {
            fs::write(&partial, serde_json::to_vec_pretty(state)?)?;
            fs::set_permissions(&partial, Permissions::from_mode(0o600))?;
            fs::rename(&partial, &whole)
        };
        write().map_err(LabError::io(format!("write {}", whole.display())))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Whoever looks next removes what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The directory of all labs of this user: below /run for root, else the user's runtime directory, else a temporary
/// one with the user's number. To be asked before a user namespace is entered, which changes that number.
pub fn base() -> PathBuf {
    // SAFETY: geteuid takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    let is_ours = |path: &Path| fs::metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == user);
    let run =
        if user == 0 { Some(PathBuf::from("/run")) } else { std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) };
    match run {
        Some(run) if is_ours(&run) => run.join("weft-lab"),
        _ => std::env::temp_dir().join(format!("weft-lab-{user}")),
    }
}

/// The labs that run, by name. Stale directories are removed.
///
/// # Errors
/// The directory cannot be read; that it does not exist means there is no lab.
pub fn list(base: &Path) -> Result<Vec<LabState>, LabError> {
    if !base.exists() {
        return Ok(Vec::new());
    }
    let _lock = lock(base)?;
    tidy(base)
}

/// Held while directories are made or found stale: else one process could remove what another has just made anew.
fn lock(base: &Path) -> Result<File, LabError> {
    let take = || {
        let file = File::open(base)?;
        file.lock()?;
        Ok(file)
    };
    take().map_err(LabError::io(format!("lock {}", base.display())))
}

/// Removes what is stale and returns what is not.
fn tidy(base: &Path) -> Result<Vec<LabState>, LabError> {
    let entries = fs::read_dir(base).map_err(LabError::io(format!("read {}", base.display())))?;
    let mut labs = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        match read(&path) {
            Some(state) if state.is_alive() => labs.push(state),
            Some(_) => drop(RunDir::adopt(path)),
            None if is_old(&path) => drop(RunDir::adopt(path)),
            None => {}
        }
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

/// The running lab called `name`.
///
/// # Errors
/// There is none; the text says which there are.
pub fn find(base: &Path, name: &str) -> Result<LabState, LabError> {
    let labs = list(base)?;
    let names: Vec<_> = labs.iter().map(|lab| lab.name.clone()).collect();
    labs.into_iter().find(|lab| lab.name == name).ok_or_else(|| {
        let others = if names.is_empty() {
            "start one with `weft lab up`".to_owned()
        } else {
            format!("running: {}", names.join(", "))
        };
        LabError::Refused(format!("there is no lab called {name} ({others})"))
    })
}

/// # Errors
/// The name would not do as a part of a path or is too long.
pub fn check_name(name: &str) -> Result<(), LabError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(good) {
        return Ok(());
    }
    Err(LabError::Refused(format!(
        "'{name}' is no name for a lab: use up to {MAX_NAME} letters, digits, '-' and '_'"
    )))
}

/// When a process started, in clock ticks since boot; `None` when there is none, or it is dead and only not buried.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets, which may hold anything (proc_pid_stat(5)); the state is the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) { None } else { fields.get(19)?.parse().ok() }
}

fn read(path: &Path) -> Option<LabState> {
    serde_json::from_slice(&fs::read(path.join("lab.json")).ok()?).ok()
}

fn is_old(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|found| found.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age.as_secs() > MAX_BUILD_SECONDS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn own_base(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("weft-registry-{}-{test}", std::process::id()))
    }

    fn state(name: &str, pid: u32) -> LabState {
        LabState { name: name.to_owned(), pid, started: start_time(pid).unwrap_or(1), hosts: Vec::new() }
    }

    #[test]
    fn labs_coexist_under_distinct_names_and_vanish_when_dropped() {
        let base = own_base("coexist");
        let one = RunDir::create(&base, "one").unwrap();
        one.publish(&state("one", std::process::id())).unwrap();
        let two = RunDir::create(&base, "two").unwrap();
        two.publish(&state("two", std::process::id())).unwrap();
        let error = RunDir::create(&base, "one").unwrap_err().to_string();
        assert!(error.contains("a lab called one exists"), "{error}");
        assert_eq!(list(&base).unwrap().iter().map(|lab| lab.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        drop(one);
        let error = find(&base, "one").unwrap_err().to_string();
        assert!(error.contains("running: two"), "{error}");
        assert_eq!(find(&base, "two").unwrap().pid, std::process::id());
        drop(two);
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_lab_whose_process_is_gone_is_tidied_up() {
        let base = own_base("stale");
        for (name, pid, started) in [("gone", i32::MAX as u32, 1), ("another", std::process::id(), 1)] {
            let dir = RunDir::create(&base, name).unwrap();
            dir.publish(&LabState { started, ..state(name, pid) }).unwrap();
            std::mem::forget(dir);
        }
        assert_eq!(list(&base).unwrap(), []);
        // Removable, so it was empty.
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_name_that_would_leave_the_directory_is_refused() {
        for wrong in ["", ".", "..", "a/b", "ä", "a b", &"x".repeat(MAX_NAME + 1)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        check_name("my-lab_2").unwrap();
    }

    #[test]
    fn our_own_start_time_can_be_read_and_nobodys_cannot() {
        assert!(start_time(std::process::id()).unwrap() > 0);
        assert_eq!(start_time(i32::MAX as u32), None);
    }
}
