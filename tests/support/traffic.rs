//! Traffic that goes on in the background: a TCP stream whose every byte is compared, pings whose answers are noted.

use crate::common::{SOON, eventually};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weft::io::netns::Netns;
use weft::lab::generator::tcp_pair;
use weft::lab::ping::Pinger;

/// A prime, so that no loss or doubling of whole segments, pages or blocks goes unnoticed.
const PERIOD: usize = 65_521;
const BLOCK: usize = 64 << 10;
/// Between two blocks: some 100 Mbit/s, which leave a small machine to the other tests.
const PAUSE: Duration = Duration::from_millis(5);
const SLICE: Duration = Duration::from_millis(100);

/// One TCP connection that carries a known sequence of bytes until it is told to end.
pub(crate) struct Stream {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sending: Option<JoinHandle<io::Result<u64>>>,
    receiving: Option<JoinHandle<Result<u64, String>>>,
}

impl Stream {
    /// Connects from one namespace to `address` in the other and begins to send.
    pub(crate) fn start(from: &Netns, to: &Netns, address: IpAddr) -> Self {
        let (sender, receiver) = tcp_pair(from, to, address, SOON).unwrap();
        sender.set_write_timeout(Some(SLICE)).unwrap();
        receiver.set_read_timeout(Some(SLICE)).unwrap();
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, ends) = (received.clone(), stop.clone());
        let sending = Some(std::thread::spawn(move || send(sender, &ends)));
        let receiving = Some(std::thread::spawn(move || receive(receiver, &counter)));
        Self { received, stop, sending, receiving }
    }

    /// Bytes that arrived so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Waits until `bytes` more have arrived; returns how long that took.
    #[track_caller]
    pub(crate) fn moves_on(&self, bytes: u64) -> Duration {
        let (begun, goal) = (Instant::now(), self.received() + bytes);
        eventually("the TCP connection moves on", || (self.received() >= goal).then_some(()));
        begun.elapsed()
    }

    /// Ends it and waits until everything that was sent has arrived, as it was sent.
    #[track_caller]
    pub(crate) fn finish(mut self) -> u64 {
        self.stop.store(true, Relaxed);
        let sent = self.sending.take().unwrap().join().unwrap().unwrap();
        let received = self.receiving.take().unwrap().join().unwrap().unwrap();
        assert_eq!(received, sent, "bytes received and sent over TCP");
        received
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn pattern() -> Vec<u8> {
    // An LCG's high bytes: no two places of the period look alike.
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let once: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
    once.iter().chain(&once).copied().collect()
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<u64> {
    let (pattern, mut sent) = (pattern(), 0u64);
    while !stop.load(Relaxed) {
        let at = (sent % PERIOD as u64) as usize;
        match stream.write(&pattern[at..(at + BLOCK).min(pattern.len())]) {
            Ok(bytes) => sent += bytes as u64,
            Err(error) if again(&error) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn receive(mut stream: TcpStream, counter: &AtomicU64) -> Result<u64, String> {
    let (pattern, mut buffer, mut received) = (pattern(), vec![0; BLOCK], 0u64);
    let mut moved = Instant::now();
    loop {
        match stream.read(&mut buffer[..PERIOD.min(BLOCK)]) {
            Ok(0) => return Ok(received),
            Ok(bytes) => {
                let at = (received % PERIOD as u64) as usize;
                if buffer[..bytes] != pattern[at..at + bytes] {
                    return Err(format!("TCP delivered wrong bytes near offset {received}"));
                }
                received += bytes as u64;
                counter.store(received, Relaxed);
                moved = Instant::now();
            }
            Err(error) if again(&error) && moved.elapsed() < 2 * SOON => {}
            Err(error) => return Err(format!("TCP stopped after {received} bytes: {error}")),
        }
    }
}

/// Pings every few milliseconds and remembers what was answered.
pub(crate) struct Pings {
    /// When each was sent, and whether it was answered.
    log: Arc<Mutex<Vec<(Instant, bool)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pings {
    /// Begins to ping `to` from inside a namespace, every `pause`.
    pub(crate) fn start(from: &Netns, to: IpAddr, size: usize, pause: Duration) -> Self {
        let mut pinger = Pinger::open(from, to, None).unwrap();
        let (log, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (entries, ends) = (log.clone(), stop.clone());
        let run = move || {
            while !ends.load(Relaxed) {
                let sent = Instant::now();
                let answered = pinger.once(size, SLICE).is_ok();
                entries.lock().unwrap().push((sent, answered));
                std::thread::sleep(pause);
            }
        };
        Self { log, stop, thread: Some(std::thread::spawn(run)) }
    }

    /// Waits for the first answer to a ping that was sent after `start`; returns how long after `start` it was sent.
    #[track_caller]
    pub(crate) fn answered_after(&self, start: Instant) -> Duration {
        eventually("a ping is answered", || {
            let log = self.log.lock().unwrap();
            let first = log.iter().rev().take_while(|(sent, _)| *sent >= start).filter(|entry| entry.1).last()?;
            Some(first.0 - start)
        })
    }

    /// Answered and sent ones between two moments.
    pub(crate) fn between(&self, start: Instant, end: Instant) -> (usize, usize) {
        let log = self.log.lock().unwrap();
        let during = || log.iter().filter(|(sent, _)| (start..end).contains(sent));
        (during().filter(|entry| entry.1).count(), during().count())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a job again and again on a thread of its own until it is dropped.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(mut job: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = stop.clone();
        let run = move || {
            while !ends.load(Relaxed) {
                job();
            }
        };
        Self { stop, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An address and port to which nothing else is bound.
pub(crate) fn any_port(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), 0)
}
