//! Docker's API, watched: which networks it has, and what its containers are called.
//!
//! A thread of its own, and never a driver's call: Docker holds locks while it calls its drivers, and a question to its API then waits
//! for the answer to the call. First the stream of events is opened, then everything is looked at once; so nothing is missed in
//! between. When the stream ends (Docker stopped, or was killed) it is opened again, every second.

use super::super::container::{PATIENCE, connect, exchange, odd, parse_answer};
use super::super::finders::Found;
use crate::control::docker::Heard;
use crate::docker::names::Containers;
use crossbeam::channel::Sender;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a Docker that is not there is looked for.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon a container is asked for again that Docker had no time for: it is locked while it is being started.
const SOON: Duration = Duration::from_millis(100);
/// The longest event: a container's with all its labels.
const MAX_EVENT: usize = 1024 * 1024;
/// `filters={"type":["container","network"]}`.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";

/// Starts the thread.
///
/// # Errors
/// The kernel refused it.
pub fn watch(engine: PathBuf, found: Sender<Found>) -> io::Result<()> {
    let run = move || {
        let mut last = String::new();
        loop {
            // That Docker is not there, or stops, is nothing to talk about; that it answers oddly is, once.
            match follow(&engine, &found) {
                Ok(Told::NobodyListens) => return,
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    let problem = error.to_string();
                    if problem != last {
                        tracing::warn!("containers' names are not learnt from {}: {problem}", engine.display());
                    }
                    last = problem;
                }
                Err(_) => {}
            }
            std::thread::sleep(AGAIN);
        }
    };
    std::thread::Builder::new().name("weft-docker-api".to_owned()).spawn(run).map(drop)
}

/// Why there is nothing more to do.
enum Told {
    /// The daemon ends.
    NobodyListens,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "Id")]
    id: String,
}

/// An event. The container's id is the actor of its own events, and an attribute of a network's.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default, rename = "Action")]
    action: String,
    #[serde(default, rename = "Actor")]
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
struct Actor {
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default, rename = "Attributes")]
    attributes: Attributes,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    container: String,
}

/// Follows one Docker until it ends.
fn follow(engine: &Path, found: &Sender<Found>) -> io::Result<Told> {
    let mut stream = connect(engine)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the events then come as they are, a line each.
    stream.write_all(request(EVENTS).as_bytes())?;
    let mut events = Lines { stream, received: Vec::new(), ended: false };
    events.skip_head()?;

    let networks = list(engine, "/networks")?;
    if found.send(Found::Docker(Heard::Networks(networks))).is_err() {
        return Ok(Told::NobodyListens);
    }
    let mut containers = Containers::default();
    let mut pending: BTreeSet<String> = list(engine, "/containers/json")?.into_iter().collect();
    loop {
        for id in std::mem::take(&mut pending) {
            match inspect(engine, &id) {
                Ok(Some(json)) => {
                    if let Err(problem) = containers.learn(&json) {
                        tracing::debug!("container {id:.12}: {problem}");
                    }
                }
                Ok(None) => containers.forget(&id),
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                    pending.insert(id);
                }
                Err(error) => return Err(error),
            }
        }
        let changed = containers.changed();
        if !changed.is_empty() && found.send(Found::Docker(Heard::Names(changed))).is_err() {
            return Ok(Told::NobodyListens);
        }
        let mut patience = (!pending.is_empty()).then_some(SOON);
        while let Some(line) = events.next(patience)? {
            if let Some(id) = concerns(&line) {
                pending.insert(id);
            }
            // What came together is looked at together.
            patience = Some(Duration::ZERO);
        }
    }
}

/// The container that an event makes worth a look.
fn concerns(line: &[u8]) -> Option<String> {
    let event: Event = serde_json::from_slice(line).ok()?;
    let id = match (event.kind.as_str(), event.action.as_str()) {
        ("container", "start" | "die" | "rename" | "destroy") => event.actor.id,
        ("network", "connect" | "disconnect") => event.actor.attributes.container,
        _ => return None,
    };
    // It becomes a part of a request.
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(id)
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")
}

fn get(engine: &Path, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let connection = connect(engine)?;
    parse_answer(&exchange(&connection, request(path).as_bytes(), Instant::now() + PATIENCE)?)
}

fn list(engine: &Path, path: &str) -> io::Result<Vec<String>> {
    match get(engine, path)? {
        (200, body) => {
            let named: Vec<Named> = serde_json::from_slice(&body).map_err(|error| odd(&error.to_string()))?;
            Ok(named.into_iter().map(|named| named.id).collect())
        }
        (status, _) => Err(odd(&format!("it answers {status} to {path}"))),
    }
}

/// A container's description, if it exists.
fn inspect(engine: &Path, id: &str) -> io::Result<Option<Vec<u8>>> {
    match get(engine, &format!("/containers/{id}/json"))? {
        (200, body) => Ok(Some(body)),
        (404, _) => Ok(None),
        (status, _) => Err(odd(&format!("it answers {status} to a question for a container"))),
    }
}

/// A stream of lines that may take any time to come.
struct Lines {
    stream: UnixStream,
    received: Vec<u8>,
    ended: bool,
}

impl Lines {
    fn skip_head(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                let status = self.received.get(9..12) == Some(b"200");
                self.received.drain(..end + 4);
                return if status { Ok(()) } else { Err(odd("it does not tell its events")) };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.receive(Some(left))? {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    /// The next line; `None` when none came in time. Without a time it waits for ever.
    ///
    /// # Errors
    /// The stream ended.
    fn next(&mut self, patience: Option<Duration>) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                return Ok(Some(self.received.drain(..=end).collect()));
            }
            if !self.receive(patience)? {
                return Ok(None);
            }
        }
    }

    /// Takes in what comes within this time, if something does.
    fn receive(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        if self.ended {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if self.received.len() > MAX_EVENT {
            return Err(odd(&format!("an event is longer than {MAX_EVENT} bytes")));
        }
        self.stream.set_nonblocking(patience == Some(Duration::ZERO))?;
        self.stream.set_read_timeout(patience.filter(|patience| !patience.is_zero()))?;
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.received.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_events_that_matter_name_their_container() {
        let id = "8c1b0f5e7b1d";
        for (line, concerned) in [
            (
                format!(
                    r#"{{"status":"start","id":"{id}","Type":"container","Action":"start","Actor":{{"ID":"{id}","Attributes":{{"image":"box"}}}},"time":1}}"#
                ),
                true,
            ),
            (
                format!(
                    r#"{{"Type":"network","Action":"connect","Actor":{{"ID":"n1","Attributes":{{"container":"{id}","name":"lan","type":"weft"}}}}}}"#
                ),
                true,
            ),
            (format!(r#"{{"Type":"container","Action":"exec_start","Actor":{{"ID":"{id}"}}}}"#), false),
            (r#"{"Type":"network","Action":"create","Actor":{"ID":"n1"}}"#.to_owned(), false),
            (r#"{"Type":"container","Action":"start","Actor":{"ID":"../../info"}}"#.to_owned(), false),
            ("{}".to_owned(), false),
            ("nonsense".to_owned(), false),
        ] {
            assert_eq!(concerns(line.as_bytes()), concerned.then(|| id.to_owned()), "{line}");
        }
    }
}
