//! Where labs keep their files, and which labs there are.
//!
//! Each lab has one directory, `BASE/NAME`, private to its user. In it `owner` says which process holds the lab, and
//! `lab.json`, once the lab is to be found by others, how to get into its hosts and containers: their namespaces are
//! open files of that process and have no other name, so they end with it, whatever ends it. A directory whose
//! process is gone is stale, and is removed by whoever next looks.

use super::LabError;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest name of a lab: a socket's path, of which it is a part, has at most 107 bytes.
const MAX_NAME: usize = 32;
/// Describes a lab that is to be found.
const STATE: &str = "lab.json";
/// Says who holds a lab that is being built or is nobody else's business: `PID STARTED`.
const OWNER: &str = "owner";

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
    /// Its addresses on the underlay; unspecified where it has none.
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

impl HostState {
    /// Those of its addresses that it has.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)].into_iter().filter(|address| !address.is_unspecified())
    }
}

impl LabState {
    /// Whether the process that holds the lab lives.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    /// The address of the host or container called `name`: IPv4, unless it has none.
    pub fn address(&self, name: &str) -> Option<IpAddr> {
        let hosts = self.hosts.iter().filter_map(|host| Some((&host.name, host.addresses().next()?)));
        let containers = self.hosts.iter().flat_map(|host| &host.containers);
        let containers = containers.map(|found| (&found.name, found.v4.into()));
        hosts.chain(containers).find(|(known, _)| *known == name).map(|(_, address)| address)
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
        // The last lab of another process may take the directory with it between our making and our locking it.
        let _lock = loop {
            match DirBuilder::new().mode(0o700).create(base) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(base)(error)),
                _ => {}
            }
            if let Some(lock) = lock(base)? {
                break lock;
            }
        };
        tidy(base)?;
        let path = base.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Self::adopt(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(LabError::Refused(format!(
                "a lab called {name} exists: choose another name with --name, or end it with `weft lab down --name {name}`"
            ))),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Takes over a directory that somebody made for us.
    ///
    /// # Errors
    /// The file system refused.
    pub fn adopt(path: PathBuf) -> Result<Self, LabError> {
        let dir = Self { path };
        let pid = std::process::id();
        dir.write(OWNER, format!("{pid} {}", start_time(pid).unwrap_or_default()).as_bytes())?;
        Ok(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets others find the lab.
    ///
    /// # Errors
    /// The file system refused.
    pub fn publish(&self, state: &LabState) -> Result<(), LabError> {
        let text = serde_json::to_vec_pretty(state).map_err(io::Error::from);
        self.write(STATE, &text.map_err(LabError::io("describe the lab"))?)
    }

    /// Writes a file that readers see whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), LabError> {
        let (partial, whole) = (self.path.join(format!("{name}.new")), self.path.join(name));
        let write = || {
            fs::write(&partial, bytes)?;
            fs::rename(&partial, &whole)
        };
        write().map_err(LabError::io(format!("write {}", whole.display())))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Whoever looks next removes what is left.
        let _ = fs::remove_dir_all(&self.path);
        if let Some(base) = self.path.parent() {
            // The last lab takes the directory of all labs with it; while there are others it is not empty.
            let lock = lock(base);
            let _ = fs::remove_dir(base);
            drop(lock);
        }
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
    match lock(base)? {
        Some(_lock) => {
            let labs = tidy(base)?;
            // While there are labs it is not empty.
            let _ = fs::remove_dir(base);
            Ok(labs)
        }
        None => Ok(Vec::new()),
    }
}

/// Held while directories are made, found stale or given up: else one process could remove what another has just
/// made anew. `None` when there is no directory.
fn lock(base: &Path) -> Result<Option<File>, LabError> {
    let refused = || LabError::io(format!("lock {}", base.display()));
    // O_NOFOLLOW: a link that somebody left in /tmp leads where he wants.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(base) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused()(error)),
    };
    let held = file.metadata().map_err(refused())?;
    // SAFETY: geteuid takes nothing and cannot fail.
    if held.uid() != unsafe { libc::geteuid() } {
        let text = format!("{} is not our directory: remove it, or set TMPDIR to another place", base.display());
        return Err(LabError::Refused(text));
    }
    file.lock().map_err(refused())?;
    let is_there = fs::symlink_metadata(base).is_ok_and(|found| found.ino() == held.ino());
    Ok(is_there.then_some(file))
}

/// Removes what is stale and returns what is not.
fn tidy(base: &Path) -> Result<Vec<LabState>, LabError> {
    let entries = fs::read_dir(base).map_err(LabError::io(format!("read {}", base.display())))?;
    let mut labs = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if !owner_lives(&path) {
            // What cannot be removed is not in the way of anything but its own name, and is met again there.
            let _ = fs::remove_dir_all(&path);
        } else if let Some(state) = read(&path) {
            labs.push(state);
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
    serde_json::from_slice(&fs::read(path.join(STATE)).ok()?).ok()
}

fn owner_lives(path: &Path) -> bool {
    let text = fs::read_to_string(path.join(OWNER)).unwrap_or_default();
    let owner = text.split_once(' ').and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
    owner.is_some_and(|(pid, started): (u32, u64)| start_time(pid) == Some(started))
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
        assert!(!base.exists());
    }

    #[test]
    fn a_lab_whose_process_is_gone_is_tidied_up() {
        let base = own_base("stale");
        for (name, owner) in [("gone", "2147483647 1".to_owned()), ("other", format!("{} 1", std::process::id()))] {
            let dir = RunDir::create(&base, name).unwrap();
            dir.publish(&state(name, std::process::id())).unwrap();
            dir.write(OWNER, owner.as_bytes()).unwrap();
            std::mem::forget(dir);
        }
        fs::create_dir(base.join("half-made")).unwrap();
        assert_eq!(list(&base).unwrap(), []);
        assert!(!base.exists());
        assert_eq!(list(&base).unwrap(), []);
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
