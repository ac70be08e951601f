//! A thread that asks published instances whether they are there: a TCP connection that is made and dropped.
//!
//! All are asked at once and have one second, so that some that do not answer do not keep the others waiting. The
//! connection is reset rather than closed: nothing of it stays on either side.

use super::finders::{Found, Latest};
use crossbeam::channel::Sender;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often each instance is asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take: several round trips around the world.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that are made at once; more wait for the next second.
const AT_ONCE: usize = 256;

/// Starts the thread; returns where to put the list of instances.
///
/// # Errors
/// The kernel refused a thread or a poll.
pub(super) fn start(found: Sender<Found>) -> io::Result<Latest<Vec<SocketAddr>>> {
    let lists = Latest::<Vec<SocketAddr>>::default();
    let incoming = lists.clone();
    let mut poll = Poll::new()?;
    let run = move || {
        let mut list = Vec::new();
        loop {
            let patience = (!list.is_empty()).then_some(INTERVAL);
            if let Some(next) = incoming.take(patience) {
                list = next;
            }
            for some in list.chunks(AT_ONCE) {
                let answers = probe(&mut poll, some);
                if found.send(Found::Health(answers)).is_err() {
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("weft-probe".to_owned()).spawn(run)?;
    Ok(lists)
}

/// Asks all of these; who has not answered in time does not.
fn probe(poll: &mut Poll, instances: &[SocketAddr]) -> Vec<(SocketAddr, bool)> {
    let mut answers: Vec<_> = instances.iter().map(|&instance| (instance, false)).collect();
    let mut waiting = HashMap::new();
    for (index, instance) in instances.iter().enumerate() {
        let Ok(mut stream) = TcpStream::connect(*instance) else { continue };
        if poll.registry().register(&mut stream, Token(index), Interest::WRITABLE).is_ok() {
            waiting.insert(index, stream);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut events = Events::with_capacity(64);
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || poll.poll(&mut events, Some(left)).is_err() {
            break;
        }
        for event in &events {
            let Some(stream) = waiting.remove(&event.token().0) else { continue };
            let is_there = stream.take_error().is_ok_and(|error| error.is_none()) && stream.peer_addr().is_ok();
            if let Some((_, answer)) = answers.get_mut(event.token().0) {
                *answer = is_there;
            }
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens_answers_and_who_does_not_does_not() {
        let there = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let (there_at, gone_at) = (there.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let mut poll = Poll::new().unwrap();
        for _ in 0..3 {
            assert_eq!(probe(&mut poll, &[gone_at, there_at]), [(gone_at, false), (there_at, true)]);
        }
    }
}
