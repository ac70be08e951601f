//! Waiting for something outside: a container that is being started, an interface that is coming up.

use std::io;
use std::time::{Duration, Instant};

/// How often the world is looked at: often enough for a person not to notice, seldom enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long somebody is willing to wait, from its making on; several waits may share it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    end: Option<Instant>,
}

impl Patience {
    /// Ends after `limit`; without one, never.
    pub fn new(limit: Option<Duration>) -> Self {
        Self { end: limit.and_then(|limit| Instant::now().checked_add(limit)) }
    }

    /// Makes attempts until one gives something; `None` when patience ends first. There is at least one attempt, and
    /// one at the very end.
    pub fn until<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
            if let Some(value) = attempt() {
                return Some(value);
            }
            if left == Some(Duration::ZERO) {
                return None;
            }
            std::thread::sleep(left.map_or(INTERVAL, |left| left.min(INTERVAL)));
        }
    }
}

/// Whether the interface `ifname` of our network namespace is up and has a carrier, as the kernel tells by IFF_UP and
/// IFF_RUNNING (netdevice(7)). It works without /sys. An interface that does not exist is not up.
///
/// # Errors
/// The kernel's, when it does not say.
pub fn interface_is_up(ifname: &str) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if ifname.len() >= request.ifr_name.len() {
        return Ok(false);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from.cast_signed();
    }
    // Any socket will do to ask with.
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| std::net::UdpSocket::bind("[::]:0"))?;
    // SAFETY: SIOCGIFFLAGS reads the zero-terminated name and writes the flags, both inside `request`.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) } < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENODEV) { Ok(false) } else { Err(error) };
    }
    // SAFETY: SIOCGIFFLAGS has filled this member of the union.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    Ok(flags & wanted == wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn waiting_ends_with_what_was_waited_for_or_with_patience() {
        let mut left = 3;
        let forever = Patience::new(None);
        let counted = forever.until(|| {
            left -= 1;
            (left == 0).then_some("done")
        });
        assert_eq!((counted, left), (Some("done"), 0));
        let mut attempts = 0;
        let short = Patience::new(Some(Duration::from_millis(150)));
        let none: Option<()> = short.until(|| {
            attempts += 1;
            None
        });
        assert!(none.is_none() && attempts >= 2, "{attempts}");
    }

    #[test]
    fn no_patience_is_one_attempt() {
        let mut attempts = 0;
        let none: Option<()> = Patience::new(Some(Duration::ZERO)).until(|| {
            attempts += 1;
            None
        });
        assert_eq!((none, attempts), (None, 1));
    }

    #[test]
    fn an_interface_that_is_not_there_is_not_up() {
        assert!(!interface_is_up("weft-no-such").unwrap());
        assert!(!interface_is_up("a-name-that-is-too-long").unwrap());
    }
}
