//! The impaired wire: one thread that carries frames between the TAPs the hosts have for `eth0`.
//!
//! All decisions are [`Impairment`]'s; this is the dull shell with the clock and the file descriptors. The TAPs are
//! plain (no virtio-net header), so the kernel segments before it hands a frame over and what the thread sees is
//! what a cable would carry. They live as long as the wire: its end takes the interfaces with it.

use super::link::{Impairment, LinkCounts, LinkSettings};
use crate::io::netns::Netns;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames read from one TAP before the others have their turn.
const READ_BATCH: usize = 64;
/// The largest frame a TAP without virtio-net header hands over.
const MAX_FRAME: usize = 65_535 + 14;
/// How long the thread sleeps at most; [`Wire::drop`] wakes it at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A running wire. Dropping it stops the thread and removes the interfaces.
#[derive(Debug)]
pub struct Wire {
    link: Arc<Mutex<Impairment>>,
    /// Writing to it ends the thread.
    stop: File,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Makes an interface `ifname` in every namespace of `hosts` and carries frames between them.
    ///
    /// # Errors
    /// No /dev/net/tun, no permission, or no thread.
    pub fn start(hosts: &[Netns], ifname: &str, settings: LinkSettings, seed: u64) -> io::Result<Self> {
        let taps = hosts.iter().map(|host| host.run(|| open_tap(ifname))?).collect::<io::Result<Vec<_>>>()?;
        let link = Arc::new(Mutex::new(Impairment::new(taps.len(), settings, seed)));
        let stop = event()?;
        let (of_thread, wake) = (link.clone(), stop.try_clone()?);
        let run = move || carry(&of_thread, taps, &wake);
        let thread = std::thread::Builder::new().name("lab-wire".into()).spawn(run)?;
        Ok(Self { link, stop, thread: Some(thread) })
    }

    /// Changes what the wire does to frames that come in from now on.
    pub fn change(&self, change: impl FnOnce(&mut LinkSettings)) {
        change(lock(&self.link).settings_mut());
    }

    /// What became of frames so far.
    pub fn counts(&self) -> LinkCounts {
        lock(&self.link).counts()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A counter at its limit could refuse this; ours is written once.
        let _ = self.stop.write_all(&1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(link: &Mutex<Impairment>) -> MutexGuard<'_, Impairment> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

fn carry(link: &Mutex<Impairment>, mut taps: Vec<File>, stop: &File) {
    let mut buffer = vec![0u8; MAX_FRAME];
    let mut ready: Vec<libc::pollfd> = std::iter::once(stop)
        .chain(&taps)
        .map(|file| libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    loop {
        let deadline = lock(link).next_deadline();
        if wait(&mut ready, deadline).is_err() || ready[0].revents != 0 {
            return;
        }
        let mut link = lock(link);
        for (from, tap) in taps.iter_mut().enumerate() {
            for _ in 0..READ_BATCH {
                // EAGAIN: nothing more. EIO: the host has taken the interface down. Both are over for this round.
                let Ok(length) = tap.read(&mut buffer) else { break };
                link.input(Instant::now(), from, &buffer[..length]);
            }
        }
        while let Some(delivery) = link.output(Instant::now()) {
            // A host whose queue is full or whose interface is down loses the frame, as on any cable.
            let _ = taps[delivery.to].write(&delivery.frame);
        }
    }
}

/// Sleeps until something can be read or `deadline` is there.
fn wait(files: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<()> {
    let sleep = deadline.map_or(LONGEST_SLEEP, |at| at.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP));
    let time = libc::timespec { tv_sec: sleep.as_secs().cast_signed(), tv_nsec: sleep.subsec_nanos().into() };
    // SAFETY: `files` is a live array of as many pollfd as its length says, `time` outlives the call, and a null
    // signal mask means none.
    let outcome = unsafe { libc::ppoll(files.as_mut_ptr(), files.len() as libc::nfds_t, &time, std::ptr::null()) };
    match outcome {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

fn event() -> io::Result<File> {
    // SAFETY: eventfd takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Makes a TAP in the calling thread's namespace.
fn open_tap(ifname: &str) -> io::Result<File> {
    let said = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("cannot {what}: {error}"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|error| said("open /dev/net/tun", error))?;
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(ifname.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } != 0 {
        return Err(said(&format!("make TAP {ifname}"), io::Error::last_os_error()));
    }
    Ok(file)
}
