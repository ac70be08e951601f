//! Network namespaces: naming one, entering one, making one.
//!
//! A [`Netns`] owns a file of the kernel's nsfs, and so keeps the namespace alive for as long as it exists. Nothing
//! here ever changes the namespace of the caller: setns(2) and unshare(2) act on one thread, so each entry is made by
//! a throw-away thread ([`Netns::run`]). Sockets and tun files opened in there keep the namespace they were opened
//! in, which is how the rest of the daemon reaches into a container without going there again.
//!
//! Two descriptors name the same namespace exactly when their [`NetnsId`] is equal. An id is unique while the
//! namespace lives; the kernel may give it to another one afterwards, so an id that was stored is a question to be
//! checked, never an answer.

use super::netlink::Netlink;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// `NS_GET_NSTYPE` of linux/nsfs.h: which kind of namespace a file of nsfs is.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// The loopback interface's index, in every network namespace.
const LOOPBACK: u32 = 1;

/// A network namespace, kept alive by an open file.
#[derive(Debug)]
pub struct Netns {
    file: OwnedFd,
    id: NetnsId,
}

/// Which namespace a file of nsfs stands for: equal ids of two living namespaces mean one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// The device number of nsfs.
    pub dev: u64,
    /// The namespace's inode there.
    pub ino: u64,
}

impl Netns {
    /// Makes a namespace that holds nothing but its loopback interface, which is up.
    ///
    /// # Errors
    /// Not allowed to (needs `CAP_SYS_ADMIN`), or out of namespaces.
    pub fn create() -> io::Result<Self> {
        in_thread(|| {
            // SAFETY: unshare takes no pointer and acts on this throw-away thread alone.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(said("make a network namespace", io::Error::last_os_error()));
            }
            let made = Self::current()?;
            Netlink::open()?.set_up(LOOPBACK)?;
            Ok(made)
        })?
    }

    /// The namespace bound to `path`: `/run/netns/NAME`, `/var/run/docker/netns/ID`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// The path does not exist, or is something else than a network namespace.
    pub fn open(path: &Path) -> io::Result<Self> {
        // O_NONBLOCK: a path that turns out to be a pipe must not keep us.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| said(&format!("open namespace {}", path.display()), error))?;
        Self::checked(file, path)
    }

    /// The namespace of a living process.
    ///
    /// # Errors
    /// No such process, or its namespace may not be seen (needs `CAP_SYS_PTRACE` over it).
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        match Self::open(Path::new(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no process {pid}")))
            }
            other => other,
        }
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace behind a descriptor that the kernel gave us.
    ///
    /// # Errors
    /// It is something else than a network namespace.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::checked(fd.into(), Path::new("the descriptor"))
    }

    /// Which namespace this is.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Another hold on the same namespace.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, id: self.id })
    }

    /// Runs `job` inside the namespace, on a throw-away thread, and waits for it.
    ///
    /// # Errors
    /// The namespace may not be entered (needs `CAP_SYS_ADMIN`), or there is no thread to be had. `job` did not run.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> io::Result<T> {
        in_thread(|| {
            // SAFETY: setns takes no pointer, the descriptor is open while `self` is borrowed, and the call acts on
            // this throw-away thread alone.
            if unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(said("enter the network namespace", io::Error::last_os_error()));
            }
            Ok(job())
        })?
    }

    fn checked(file: File, path: &Path) -> io::Result<Self> {
        // SAFETY: NS_GET_NSTYPE takes no argument; a file that does not know it answers ENOTTY.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            let text = format!(
                "{} is not a network namespace: give a path like /run/netns/NAME or /proc/PID/ns/net",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let of_file = file.metadata()?;
        Ok(Self { file: file.into(), id: NetnsId::of(&of_file) })
    }
}

impl NetnsId {
    /// The id in what stat(2) says of a file of nsfs.
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `job` on a thread of its own and waits for it. A panic of the job is a panic of the caller.
fn in_thread<T: Send>(job: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, job)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn said(what: &str, error: io::Error) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => ": run as root or with CAP_SYS_ADMIN",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot {what}: {error}{remedy}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::skip;

    /// A namespace to play in, or a reason printed and `None`.
    fn fresh() -> Option<Netns> {
        Netns::create().map_err(|error| skip::say(&error.to_string())).ok()
    }

    #[test]
    fn a_fresh_namespace_has_only_its_loopback_and_it_is_up() {
        let Some(netns) = fresh() else { return };
        let links = netns.run(|| Netlink::open().unwrap().links().unwrap()).unwrap();
        assert_eq!(links.len(), 1, "{links:?}");
        assert!(links[0].name == "lo" && links[0].up);
    }

    #[test]
    fn entering_a_namespace_leaves_the_caller_where_it_was() {
        let Some(netns) = fresh() else { return };
        let before = Netns::current().unwrap().id();
        let inside = netns.run(|| Netns::current().unwrap().id()).unwrap();
        assert_eq!(inside, netns.id());
        assert_ne!(inside, before);
        assert_eq!(Netns::current().unwrap().id(), before);
        assert_eq!(netns.try_clone().unwrap().id(), netns.id());
    }

    #[test]
    fn a_process_and_a_path_name_the_same_namespace() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let by_path = Netns::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(Netns::of_pid(pid).unwrap().id(), by_path.id());
    }

    #[test]
    fn what_is_no_network_namespace_is_refused_by_name() {
        for wrong in ["/proc/self/ns/mnt", "/etc/passwd", "/dev/null", "/"] {
            let error = Netns::open(Path::new(wrong)).unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong} is not a network namespace")), "{error}");
        }
        let error = Netns::open(Path::new("/run/netns/no-such-name")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/run/netns/no-such-name"), "{error}");
        assert_eq!(Netns::of_pid(i32::MAX).unwrap_err().to_string(), format!("there is no process {}", i32::MAX));
    }
}
