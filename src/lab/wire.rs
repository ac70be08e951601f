//! The lab's own wire: one thread that carries frames between the TAPs the hosts have for `eth0`.
//!
//! All decisions are those of a [`Medium`], a switch that can lose or an internet with NATs; this is the dull shell
//! with the clock and the file descriptors. The TAPs are plain (no virtio-net header), so the kernel segments before
//! it hands a frame over and what the thread sees is what a cable would carry. They live as long as the wire, unless
//! a host is given another: its end takes the interfaces with it.

use super::link::Delivery;
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
/// How long the thread sleeps at most; whoever has something for it wakes it at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What is between the hosts: frames and the time go in, frames and the next deadline come out. Hosts are counted from
/// 0.
pub trait Medium: Send + 'static {
    /// Takes a frame from a host.
    fn input(&mut self, now: Instant, from: usize, frame: &[u8]);
    /// When there is something to put out next.
    fn next_deadline(&self) -> Option<Instant>;
    /// The next frame that has arrived by `now`.
    fn output(&mut self, now: Instant) -> Option<Delivery>;
}

/// What the thread shares with those who change something.
#[derive(Debug)]
struct Shared<M> {
    medium: M,
    /// TAPs to be taken in the place of those the thread has.
    replaced: Vec<(usize, Option<File>)>,
    over: bool,
}

/// A running wire. Dropping it stops the thread and removes the interfaces.
#[derive(Debug)]
pub struct Wire<M: Medium> {
    shared: Arc<Mutex<Shared<M>>>,
    /// Writing to it wakes the thread.
    wake: File,
    thread: Option<JoinHandle<()>>,
}

impl<M: Medium> Wire<M> {
    /// Makes an interface `ifname` in every namespace of `hosts` and carries frames between them.
    ///
    /// # Errors
    /// No /dev/net/tun, no permission, or no thread.
    pub fn start(hosts: &[Netns], ifname: &str, medium: M) -> io::Result<Self> {
        let taps = hosts.iter().map(|host| host.run(|| open_tap(ifname))?.map(Some));
        let taps = taps.collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Mutex::new(Shared { medium, replaced: Vec::new(), over: false }));
        let wake = event()?;
        let (of_thread, woken) = (shared.clone(), wake.try_clone()?);
        let run = move || carry(&of_thread, taps, &woken);
        let thread = std::thread::Builder::new().name("lab-wire".into()).spawn(run)?;
        Ok(Self { shared, wake, thread: Some(thread) })
    }

    /// Looks at the medium, or changes it for frames that come in from now on.
    pub fn with<T>(&self, job: impl FnOnce(&mut M) -> T) -> T {
        job(&mut lock(&self.shared).medium)
    }

    /// Gives host `number` an interface `ifname` in another namespace, or none; the one it had is gone.
    ///
    /// # Errors
    /// No /dev/net/tun or no permission. The host keeps what it had.
    pub fn replug(&mut self, number: usize, host: Option<&Netns>, ifname: &str) -> io::Result<()> {
        let tap = host.map(|host| host.run(|| open_tap(ifname))?).transpose()?;
        lock(&self.shared).replaced.push((number, tap));
        self.wake.write_all(&1u64.to_ne_bytes())
    }
}

impl<M: Medium> Drop for Wire<M> {
    fn drop(&mut self) {
        lock(&self.shared).over = true;
        // A counter at its limit would refuse this; ours is read each time.
        let _ = self.wake.write_all(&1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<M>(shared: &Mutex<Shared<M>>) -> MutexGuard<'_, Shared<M>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn carry<M: Medium>(shared: &Mutex<Shared<M>>, mut taps: Vec<Option<File>>, mut woken: &File) {
    let mut buffer = vec![0u8; MAX_FRAME];
    let mut ready = polled(&taps, woken);
    loop {
        let deadline = lock(shared).medium.next_deadline();
        if wait(&mut ready, deadline).is_err() {
            return;
        }
        let mut shared = lock(shared);
        if ready[0].revents != 0 {
            // What was counted does not matter: everything there is to know is in `shared`.
            let _ = woken.read(&mut [0; 8]);
            if shared.over {
                return;
            }
            for (number, tap) in shared.replaced.split_off(0) {
                taps[number] = tap;
            }
            ready = polled(&taps, woken);
        }
        for (from, tap) in taps.iter_mut().enumerate().filter_map(|(from, tap)| Some((from, tap.as_mut()?))) {
            for _ in 0..READ_BATCH {
                // EAGAIN: nothing more. EIO: the host has taken the interface down. Both are over for this round.
                let Ok(length) = tap.read(&mut buffer) else { break };
                shared.medium.input(Instant::now(), from, &buffer[..length]);
            }
        }
        while let Some(delivery) = shared.medium.output(Instant::now()) {
            // A host whose queue is full, whose interface is down or that is off loses the frame, as on any cable.
            let _ = taps[delivery.to].as_mut().map(|tap| tap.write(&delivery.frame));
        }
    }
}

/// What the thread waits for: to be woken, and a frame from any TAP. poll(2) passes over those that are not there.
fn polled(taps: &[Option<File>], woken: &File) -> Vec<libc::pollfd> {
    let files = taps.iter().map(|tap| tap.as_ref().map_or(-1, File::as_raw_fd));
    let all = std::iter::once(woken.as_raw_fd()).chain(files);
    all.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect()
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
