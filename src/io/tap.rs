//! TAP interfaces with the virtio-net header: the files through which a port's frames come and go.
//!
//! A [`Tap`] owns one descriptor of `/dev/net/tun`. What follows from how Linux keeps them:
//!
//! * The descriptor belongs for ever to the namespace its opener was in, and keeps that one alive; the interface may
//!   be moved and renamed meanwhile. [`Tap::netns`] and [`Tap::name`] say where and what it is.
//! * An interface that was not made persistent goes when its last descriptor is closed, wherever it is. A persistent
//!   one stays with addresses and routes, without carrier, until somebody attaches again ([`Tap::open_existing`]).
//! * When its namespace dies the interface dies with it, persistent or not; reads and writes then say `EBADFD`.
//! * The set of offloads is the interface's, and survives detaching: whoever attaches sets it anew.
//!
//! Each read brings and each write takes exactly one frame behind its virtio-net header of [`VNET_HEADER`] bytes.
//! tun-tap, the usual crate, can set neither that header nor offloads nor persistence.

use super::netns::Netns;
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

mod probe;

pub use probe::{Probe, probe};

/// `struct virtio_net_hdr` without the later `num_buffers`.
pub const VNET_HEADER: usize = 10;

/// The device every TAP comes from.
const TUN: &str = "/dev/net/tun";
/// Of a TAP: Ethernet frames, no packet information in front, but the virtio-net header.
const KIND: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// What a container's kernel may leave to us, and we to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapOffload {
    /// Frames whose L4 checksum is still to be filled in.
    pub checksum: bool,
    /// TCP super-frames of both IP families. Has no effect without `checksum`.
    pub tso: bool,
    /// UDP super-frames of both IP families. Has no effect without `checksum`.
    pub uso: bool,
}

impl TapOffload {
    fn bits(self) -> libc::c_uint {
        let mut bits = 0;
        if self.checksum {
            bits |= libc::TUN_F_CSUM;
            if self.tso {
                bits |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
            }
            if self.uso {
                bits |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
            }
        }
        bits
    }
}

/// Why there is no TAP. In every case nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TUN driver, or this container was not given its device.
    #[error("there is no {TUN}: load the driver with 'modprobe tun', or start this container with '--device {TUN}'")]
    NoDriver,
    /// The capability is missing.
    #[error("not allowed to make a TAP interface: run as root or with CAP_NET_ADMIN, and with access to {TUN}")]
    NotPermitted,
    /// No interface of that name is there to attach to.
    #[error("interface {0} does not exist")]
    Missing(String),
    /// The interface is something else than a TAP of the kind made here.
    #[error("interface {0} is not a single-queue TAP")]
    NotATap(String),
    /// Another descriptor is attached.
    #[error("interface {0} is in use by another program: is another weft daemon running?")]
    Busy(String),
    /// Anything else the kernel said.
    #[error("cannot {doing}: {source}")]
    Kernel {
        /// What was being done.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl TapError {
    fn kernel(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            _ => Self::Kernel { doing, source },
        }
    }
}

/// An open TAP interface. Non-blocking: a read or write that would wait says [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub struct Tap {
    file: File,
}

impl Tap {
    /// Makes a TAP interface in the calling thread's namespace: down, not persistent. `%d` in `template` becomes the
    /// lowest free number.
    ///
    /// # Errors
    /// [`TapError`]; also when an interface of that name exists.
    pub fn create(template: &str, offload: TapOffload) -> Result<Self, TapError> {
        let tap = Self { file: open_tun()? };
        let doing = || format!("make a TAP interface called {template}");
        tap.attach(template, KIND | libc::IFF_TUN_EXCL).map_err(TapError::kernel(doing()))?;
        tap.prepare(offload)?;
        Ok(tap)
    }

    /// Attaches to the persistent TAP interface `name` in the calling thread's namespace. Addresses, routes and
    /// whether it is up stay as they are.
    ///
    /// # Errors
    /// [`TapError`]: there is none, it is no TAP, it is in use.
    pub fn open_existing(name: &str, offload: TapOffload) -> Result<Self, TapError> {
        let tap = Self { file: open_tun()? };
        tap.attach(name, KIND).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
            Some(libc::EINVAL) => TapError::NotATap(name.to_owned()),
            _ => TapError::kernel(format!("attach to interface {name}"))(error),
        })?;
        // TUNSETIFF makes what does not exist. What it made is not persistent, and goes when `tap` is dropped.
        let (_, flags) = tap.described().map_err(TapError::kernel(format!("look at interface {name}")))?;
        if flags & libc::IFF_PERSIST == 0 {
            return Err(TapError::Missing(name.to_owned()));
        }
        tap.prepare(offload)?;
        Ok(tap)
    }

    /// Sets what the container's kernel may leave to us from the next frame on.
    ///
    /// # Errors
    /// `EINVAL`: this kernel does not know one of them.
    pub fn set_offload(&self, offload: TapOffload) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        checked(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload.bits())) })
    }

    /// Whether the interface stays when nobody has it open.
    ///
    /// # Errors
    /// `EBADFD`: the interface is gone.
    pub fn set_persist(&self, persist: bool) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes its argument by value.
        checked(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(persist)) })
    }

    /// The interface's name, wherever it is now.
    ///
    /// # Errors
    /// `EBADFD`: the interface is gone.
    pub fn name(&self) -> io::Result<String> {
        self.described().map(|(name, _)| name)
    }

    /// Whether the interface still exists. Unlike all else that could be asked, this does not wait for the kernel's one
    /// lock on network configuration, which others may hold for seconds where namespaces come and go.
    pub fn exists(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: poll reads and writes the one structure it is given, which lives here; it does not wait.
        unsafe { libc::poll(&raw mut poll, 1, 0) };
        poll.revents == 0
    }

    /// The namespace the interface is in now.
    ///
    /// # Errors
    /// The interface is gone (`EBADFD`), or its namespace is dying.
    pub fn netns(&self) -> io::Result<Netns> {
        // SAFETY: TUNGETDEVNETNS takes no argument and answers with a descriptor or -1.
        let fd = unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNGETDEVNETNS) };
        checked(fd)?;
        // SAFETY: the kernel made this descriptor for us just now, and nobody else knows it.
        Netns::from_fd(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Reads one frame with its header. A frame longer than `buffer` is cut.
    ///
    /// # Errors
    /// `WouldBlock`: none is there. `EIO`, `EBADFD`: the interface is down or gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.file, buffer)
    }

    /// Writes one frame with its header, given in pieces.
    ///
    /// # Errors
    /// `WouldBlock`: the queue is full. `EINVAL`: header and frame contradict each other, or this kernel does not
    /// take such a super-frame. `EIO`, `EBADFD`: the interface is down or gone.
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        io::Write::write_vectored(&mut &self.file, pieces)
    }

    fn attach(&self, name: &str, flags: libc::c_int) -> io::Result<()> {
        let mut request = request();
        // One byte is left for the terminator.
        if name.len() >= request.ifr_name.len() {
            let text = format!("{name} is longer than {} bytes", request.ifr_name.len() - 1);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = flags_of(flags);
        // SAFETY: TUNSETIFF reads and writes one ifreq, which lives here and whose name is terminated.
        checked(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
    }

    fn prepare(&self, offload: TapOffload) -> Result<(), TapError> {
        let length = libc::c_int::try_from(VNET_HEADER).unwrap_or_default();
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives here.
        checked(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) })
            .map_err(TapError::kernel("set the TAP's header length"))?;
        self.set_offload(offload).map_err(TapError::kernel(format!("set the TAP's offloads to {offload:?}")))
    }

    /// The interface's name and its `IFF_*` flags in the sense of TUN.
    fn described(&self) -> io::Result<(String, libc::c_int)> {
        let mut request = request();
        // SAFETY: TUNGETIFF writes one ifreq, which lives here.
        checked(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
        let name = request.ifr_name.map(libc::c_char::cast_unsigned);
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
        // SAFETY: TUNGETIFF filled in the flags; any bits are valid ones.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok((name, libc::c_int::from(flags.cast_unsigned())))
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_tun() -> Result<File, TapError> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver,
        _ => TapError::kernel(format!("open {TUN}"))(error),
    })
}

fn request() -> libc::ifreq {
    // SAFETY: an ifreq is plain bytes; all zero is an empty name and no flags.
    unsafe { std::mem::zeroed() }
}

/// TUN's flags are 16 bits wide and kept in a signed field; `IFF_TUN_EXCL` is its sign.
fn flags_of(flags: libc::c_int) -> libc::c_short {
    let [low, high, ..] = flags.to_le_bytes();
    libc::c_short::from_le_bytes([low, high])
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::netlink::Netlink;
    use crate::io::skip;

    const ALL: TapOffload = TapOffload { checksum: true, tso: true, uso: false };

    /// A namespace of the test's own with a persistent TAP in it, or a reason printed and `None`.
    fn fresh() -> Option<(Netns, Tap)> {
        let netns = Netns::create().map_err(|error| skip::say(&error.to_string())).ok()?;
        let tap = netns.run(|| Tap::create("port%d", ALL)).unwrap();
        let tap = tap.map_err(|error| skip::say(&error.to_string())).ok()?;
        tap.set_persist(true).unwrap();
        Some((netns, tap))
    }

    #[test]
    fn a_tap_knows_its_name_and_namespace_also_after_a_move() {
        let Some((netns, tap)) = fresh() else { return };
        let other = Netns::create().unwrap();
        assert_eq!((tap.name().unwrap().as_str(), tap.exists()), ("port0", true));
        assert_eq!(tap.netns().unwrap().id(), netns.id());
        let mut netlink = netns.run(Netlink::open).unwrap().unwrap();
        let index = netlink.link("port0").unwrap().unwrap().index;
        netlink.move_to(index, &other, "eth1").unwrap();
        assert_eq!((tap.name().unwrap().as_str(), tap.exists()), ("eth1", true));
        assert_eq!(tap.netns().unwrap().id(), other.id());
    }

    #[test]
    fn a_persistent_tap_outlives_its_file_and_can_be_attached_to_once() {
        let Some((netns, tap)) = fresh() else { return };
        drop(tap);
        netns
            .run(|| {
                let tap = Tap::open_existing("port0", ALL).unwrap();
                assert!(matches!(Tap::open_existing("port0", ALL), Err(TapError::Busy(name)) if name == "port0"));
                tap.set_persist(false).unwrap();
                drop(tap);
                assert_eq!(Netlink::open().unwrap().link("port0").unwrap(), None);
            })
            .unwrap();
    }

    #[test]
    fn attaching_never_makes_an_interface_and_making_never_attaches() {
        let Some((netns, tap)) = fresh() else { return };
        drop(tap);
        netns
            .run(|| {
                let mut netlink = Netlink::open().unwrap();
                netlink.add_bridge("br0").unwrap();
                let before = netlink.links().unwrap();
                assert!(matches!(Tap::open_existing("absent", ALL), Err(TapError::Missing(_))));
                assert!(matches!(Tap::open_existing("br0", ALL), Err(TapError::NotATap(_))));
                assert!(Tap::create("port0", ALL).is_err());
                assert!(Tap::create("a-name-of-16-byt", ALL).is_err());
                assert_eq!(netlink.links().unwrap(), before);
            })
            .unwrap();
    }

    #[test]
    fn a_tap_whose_namespace_died_says_so() {
        let Some((netns, tap)) = fresh() else { return };
        let mine = Netns::create().unwrap();
        let moved = mine.run(|| Tap::create("port%d", ALL)).unwrap().unwrap();
        let mut netlink = mine.run(Netlink::open).unwrap().unwrap();
        let index = netlink.link("port0").unwrap().unwrap().index;
        netlink.move_to(index, &netns, "eth1").unwrap();
        drop((tap, netns));
        // The kernel tears a namespace down in its own time.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let error = loop {
            match moved.name() {
                Err(error) => break error,
                Ok(_) => assert!(std::time::Instant::now() < deadline, "the interface is still there"),
            }
            std::thread::yield_now();
        };
        assert_eq!((error.raw_os_error(), moved.exists()), (Some(libc::EBADFD), false));
        assert_eq!(moved.read(&mut [0; 64]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
    }
}
