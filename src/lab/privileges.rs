//! What the lab may do: everything as root, or everything inside a user namespace of its own (user_namespaces(7)).
//!
//! Whoever lacks the capabilities becomes root of a fresh user namespace, in which network namespaces, TAPs and raw
//! sockets are allowed and nothing outside is touched. That must happen before there is a second thread.

use super::LabError;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// The capabilities the lab uses, as bits of linux/capability.h: NET_ADMIN (interfaces), NET_RAW (ping, capture),
/// SYS_ADMIN (namespaces).
const NEEDED: u64 = 1 << 12 | 1 << 13 | 1 << 21;

/// Gets what the lab needs, or says in one sentence why it cannot be had. To be called before any thread exists.
///
/// # Errors
/// The kernel forbids user namespaces, or there is no usable /dev/net/tun.
pub fn acquire() -> Result<(), LabError> {
    if effective_capabilities() & NEEDED != NEEDED {
        become_root_inside()?;
    }
    crate::io::limits::raise_open_files();
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "run this as root, or as root once: chmod 666 /dev/net/tun",
                _ => "load the tun module, or give this container the device (--device /dev/net/tun)",
            };
            Err(LabError::Refused(format!("cannot open /dev/net/tun: {error}: {remedy}")))
        }
    }
}

/// Joins the user namespace of the process that holds a lab, if that is another than ours.
///
/// # Errors
/// It is somebody else's.
pub fn join(pid: u32) -> Result<(), LabError> {
    let path = format!("/proc/{pid}/ns/user");
    let failed = || LabError::io(format!("enter the lab's user namespace (it is run by process {pid})"));
    let theirs = fs::File::open(&path).map_err(failed())?;
    let own = fs::metadata("/proc/self/ns/user").map_err(failed())?;
    let found = theirs.metadata().map_err(failed())?;
    if (own.dev(), own.ino()) == (found.dev(), found.ino()) {
        return Ok(());
    }
    // SAFETY: setns takes no pointer, and the descriptor is open.
    match unsafe { libc::setns(theirs.as_raw_fd(), libc::CLONE_NEWUSER) } {
        0 => Ok(()),
        _ => Err(failed()(io::Error::last_os_error())),
    }
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(hex.trim(), 16).unwrap_or(0)
}

fn become_root_inside() -> Result<(), LabError> {
    let refused = |what: &str, error: io::Error| {
        LabError::Refused(format!(
            "the lab needs root or a kernel that allows user namespaces: {what}: {error}: run it with sudo, or see \
             the sysctls user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns"
        ))
    };
    // SAFETY: neither call takes anything or can fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: unshare takes no pointer.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(refused("unshare", io::Error::last_os_error()));
    }
    // setgroups must be given up before an ordinary user may map a group.
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))]
    {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| refused(&format!("write {file}"), error))?;
    }
    // Our /proc/PID/fd is how the daemons and `weft lab exec` find the namespaces; the change of identity hid it.
    // SAFETY: prctl takes numbers here.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    let usable = || {
        // AppArmor lets a process make the namespace and then refuses everything in it: find out here.
        // SAFETY: socket takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMP) };
        if fd >= 0 {
            // SAFETY: the kernel has just made the descriptor and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        effective_capabilities() & NEEDED == NEEDED
    };
    match usable() {
        true => Ok(()),
        false => Err(refused("use it", io::Error::from_raw_os_error(libc::EPERM))),
    }
}
