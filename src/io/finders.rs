//! Two threads that look for what may take long to find: the targets of waiting ports, and the addresses behind names.
//!
//! Each is given a list that replaces the one before, looks through it again and again, and reports what it finds.

use super::ports::{self, Located};
use crate::config::Target;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often a waiting port's target is looked for.
const SEEK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a name that resolved is asked for again: most dynamic DNS has a TTL of a minute.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);
/// How soon a name that did not resolve is asked for again.
const RESOLVE_RETRY: Duration = Duration::from_secs(5);
/// Addresses taken of one name.
const MAX_ADDRESSES: usize = 8;

/// What a finder found.
pub enum Found {
    /// The namespace of the waiting port with this name, or why there is none yet.
    Place(String, Result<Located, String>),
    /// The addresses of a name and port.
    Addresses((String, u16), Vec<SocketAddr>),
}

/// Starts the thread that looks for targets; returns where to put the list of port names and targets.
///
/// # Errors
/// The kernel refused a thread.
pub fn seek_targets(found: Sender<Found>, sockets: Vec<PathBuf>) -> io::Result<Sender<Vec<(String, Target)>>> {
    let (lists, incoming) = bounded::<Vec<(String, Target)>>(64);
    let run = move || {
        let mut list = Vec::new();
        let mut told: HashMap<String, String> = HashMap::new();
        while next_list(&incoming, &mut list, SEEK_INTERVAL) {
            told.retain(|name, _| list.iter().any(|(wanted, _)| wanted == name));
            for (name, target) in &list {
                let place = ports::locate(target, &sockets).map_err(|error| error.to_string());
                // The same reason again is no news; a place is, until control has taken it.
                if let Err(reason) = &place
                    && told.insert(name.clone(), reason.clone()).as_ref() == Some(reason)
                {
                    continue;
                }
                if found.send(Found::Place(name.clone(), place)).is_err() {
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("weft-seek".to_owned()).spawn(run)?;
    Ok(lists)
}

/// Starts the thread that resolves names; returns where to put the list of names and ports.
///
/// # Errors
/// The kernel refused a thread.
pub fn resolve_names(found: Sender<Found>) -> io::Result<Sender<Vec<(String, u16)>>> {
    let (lists, incoming) = bounded::<Vec<(String, u16)>>(64);
    let run = move || {
        let mut list = Vec::new();
        let mut known: HashMap<(String, u16), (Instant, Vec<SocketAddr>)> = HashMap::new();
        while next_list(&incoming, &mut list, SEEK_INTERVAL) {
            known.retain(|name, _| list.contains(name));
            for name in &list {
                if known.get(name).is_some_and(|(due, _)| *due > Instant::now()) {
                    continue;
                }
                let resolved = (name.0.as_str(), name.1).to_socket_addrs();
                let old = known.get(name).map(|(_, addresses)| addresses.clone()).unwrap_or_default();
                let (pause, addresses) = match resolved {
                    Ok(addresses) => {
                        let mut addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
                        addresses.sort();
                        addresses.dedup();
                        (RESOLVE_INTERVAL, addresses)
                    }
                    Err(error) => {
                        tracing::warn!("cannot resolve {}: {error}", name.0);
                        (RESOLVE_RETRY, old.clone())
                    }
                };
                if addresses != old && found.send(Found::Addresses(name.clone(), addresses.clone())).is_err() {
                    return;
                }
                known.insert(name.clone(), (Instant::now() + pause, addresses));
            }
        }
    };
    std::thread::Builder::new().name("weft-resolve".to_owned()).spawn(run)?;
    Ok(lists)
}

/// Waits for a list, at most `pause` unless there is nothing to do; returns whether to go on.
fn next_list<T>(incoming: &Receiver<Vec<T>>, list: &mut Vec<T>, pause: Duration) -> bool {
    let next = if list.is_empty() {
        incoming.recv().map_err(|_| RecvTimeoutError::Disconnected)
    } else {
        incoming.recv_timeout(pause)
    };
    match next {
        Ok(next) => *list = incoming.try_iter().last().unwrap_or(next),
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => return false,
    }
    true
}
