//! A TCP connection that must outlive whatever a scene does: a number goes there and back, again and again, and the
//! longest pause between two answers is what its user would have felt.

use crate::io::netns::Netns;
use crate::lab::generator::{TrafficError, tcp_pair};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between an answer and the next question.
const EVERY: Duration = Duration::from_millis(20);
/// How long the connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Felt {
    last: Instant,
    longest: Duration,
    broken: Option<String>,
}

/// A running connection. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Pulse {
    felt: Arc<Mutex<Felt>>,
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Pulse {
    /// Connects from one namespace to `address` in another.
    pub(super) fn start(from: &Netns, to: &Netns, address: IpAddr) -> Result<Self, TrafficError> {
        let failed = || TrafficError::socket(format!("connect to {address}"));
        let (stream, mut far) = tcp_pair(from, to, address, CONNECT).map_err(failed())?;
        let mut near = stream.try_clone().map_err(failed())?;
        for socket in [&far, &near] {
            socket.set_nodelay(true).map_err(failed())?;
        }
        let felt = Arc::new(Mutex::new(Felt { last: Instant::now(), longest: Duration::ZERO, broken: None }));
        let of_thread = felt.clone();
        let echo = std::thread::spawn(move || {
            // It ends with the connection, and that shows at the other end.
            let (mut from, mut to) = (&far, &far);
            let _ = io::copy(&mut from, &mut to);
            let _ = far.flush();
        });
        let ask = std::thread::spawn(move || {
            let mut number = 0u64;
            loop {
                number += 1;
                let outcome = question(&mut near, number);
                let mut felt = of_thread.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(()) => {
                        felt.longest = felt.longest.max(felt.last.elapsed());
                        felt.last = Instant::now();
                    }
                    Err(error) => {
                        felt.broken = Some(error.to_string());
                        return;
                    }
                }
                drop(felt);
                std::thread::sleep(EVERY);
            }
        });
        Ok(Self { felt, stream, threads: vec![echo, ask] })
    }

    /// Whether it has moved since `since`; then the longest pause before that is known.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn moved_since(&self, since: Instant) -> Result<bool, TrafficError> {
        let felt = self.felt.lock().unwrap_or_else(PoisonError::into_inner);
        match &felt.broken {
            Some(error) => Err(TrafficError::Wrong(format!("the TCP connection is broken: {error}"))),
            None => Ok(felt.last >= since),
        }
    }

    /// The longest pause so far. The next one counts anew.
    pub(super) fn longest_pause(&self) -> Duration {
        let mut felt = self.felt.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut felt.longest)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        // Both threads meet its end.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(ask) = self.threads.pop() {
            let _ = ask.join();
        }
        // The echo may wait for a segment that never comes: its host may be gone. It holds nothing but its socket.
    }
}

/// A number there and back.
fn question(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let sent = number.to_be_bytes();
    stream.write_all(&sent)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    if answer == sent { Ok(()) } else { Err(io::Error::other("another number came back")) }
}
