//! Where the tests play: labs, namespaces with and without a process, a mount namespace of a test's own.

use super::cli::WEFT;
use super::skip;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use weft::io::netlink::{Link, Netlink};
use weft::io::netns::Netns;
use weft::lab::spec::LabSpec;
use weft::lab::{Lab, Stop, process};

/// What a lab of `hosts` hosts with `containers` containers each is built from.
pub(crate) fn spec(hosts: usize, containers: usize) -> LabSpec {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let (binary, pid) = (env!("CARGO_CRATE_NAME"), std::process::id());
    let name = format!("{binary}-{pid}-{}", NUMBER.fetch_add(1, Relaxed));
    LabSpec { weft: WEFT.into(), ..LabSpec::new(name, hosts, containers) }
}

/// The same, with containers that may send what they like: the guard would keep most of it from the rest of the switch.
pub(crate) fn unguarded(hosts: usize, containers: usize) -> LabSpec {
    LabSpec { network_config: "guard = \"off\"".to_owned(), ..spec(hosts, containers) }
}

/// Whether this machine can run labs; says so when it cannot.
pub(crate) fn usable() -> bool {
    let why = match (Netns::create(), std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")) {
        (Ok(_), Ok(_)) => return true,
        (Err(error), _) => error.to_string(),
        (_, Err(error)) => format!("/dev/net/tun: {error}"),
    };
    skip::say(&why);
    false
}

/// A running lab.
pub(crate) fn lab(spec: LabSpec) -> Lab {
    Lab::build(spec, &Stop::default()).unwrap()
}

/// A path to a namespace we hold.
pub(crate) fn path_of(netns: &Netns) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()).into()
}

/// Asks the kernel inside a namespace.
pub(crate) fn inside<T: Send>(netns: &Netns, ask: impl FnOnce(&mut Netlink) -> T + Send) -> T {
    netns.run(|| ask(&mut Netlink::open().unwrap())).unwrap()
}

/// The names of all interfaces of a namespace, in order.
pub(crate) fn links(netns: &Netns) -> Vec<String> {
    let mut names: Vec<String> =
        inside(netns, |netlink| netlink.links().unwrap()).into_iter().map(|link| link.name).collect();
    names.sort();
    names
}

/// An interface of a namespace.
pub(crate) fn link(netns: &Netns, name: &str) -> Option<Link> {
    inside(netns, |netlink| netlink.link(name).unwrap())
}

/// A process in a namespace of its own, which dies with it.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    /// Starts it in a fresh namespace. Dies with the calling thread.
    pub(crate) fn new() -> Self {
        Self::in_netns(&Netns::create().unwrap())
    }

    /// Starts it in this namespace. Dies with the calling thread.
    pub(crate) fn in_netns(netns: &Netns) -> Self {
        let mut command = Command::new("sleep");
        command.arg("3600").stdin(Stdio::null());
        process::inside(netns, &mut command).unwrap();
        process::die_with_us(&mut command);
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The path of its namespace.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }

    /// Its namespace, held.
    pub(crate) fn netns(&self) -> Netns {
        Netns::open(&self.path()).unwrap()
    }

    /// Ends it.
    pub(crate) fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test on a thread with a mount namespace of its own: what it mounts is seen by the programs it starts and by
/// nobody else, and goes with it.
pub(crate) fn with_own_mounts(test: impl FnOnce() + Send) {
    let own = || {
        // SAFETY: unshare takes no pointer and acts on this thread alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", std::io::Error::last_os_error());
        mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE);
        test();
    };
    std::thread::scope(|scope| {
        scope.spawn(own).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// mount(2).
pub(crate) fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong) {
    let text = |text: &str| CString::new(text).unwrap();
    let (source, kind, target) = (text(source), text(kind), text(target.to_str().unwrap()));
    // SAFETY: the three are C strings that outlive the call; no data is passed.
    let outcome = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    assert_eq!(outcome, 0, "mount {target:?}: {}", std::io::Error::last_os_error());
}

/// Makes `source` appear at `target`, which exists.
pub(crate) fn bind(source: &Path, target: &Path) {
    mount(source.to_str().unwrap(), target, "", libc::MS_BIND);
}

/// umount(2).
pub(crate) fn unmount(target: &Path) {
    let path = CString::new(target.to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string that outlives the call.
    assert_eq!(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }, 0, "{}", std::io::Error::last_os_error());
}

/// Makes a character device.
pub(crate) fn device(path: &Path, major: u32, minor: u32) {
    let text = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string that outlives the call.
    let outcome = unsafe { libc::mknod(text.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(major, minor)) };
    assert_eq!(outcome, 0, "mknod {path:?}: {}", std::io::Error::last_os_error());
}
