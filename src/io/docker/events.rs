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
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a Docker that is not there is looked for.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a container is asked for at first, of those that run when we come: there may be many that do not answer, and nobody is
/// to wait for them.
const BRIEFLY: Duration = Duration::from_millis(300);
/// The same of one that something happens to. It is locked while it is being started, and who hangs up before that is done is
/// an error in Docker's log.
const STARTING: Duration = Duration::from_secs(2);
/// How soon one is asked for again that Docker had no time for, then twice as long each time, up to the other: one that never
/// answers costs a tenth of the time.
const SOON: Duration = Duration::from_millis(100);
const AT_LAST: Duration = Duration::from_secs(30);
/// The longest event: a container's with all its labels.
const MAX_EVENT: usize = 1024 * 1024;
/// `filters={"type":["container","network"]}`.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";

/// Starts the thread.
///
/// # Errors
/// The kernel refused it.
pub fn watch(engine: PathBuf, found: Sender<Found>) -> io::Result<()> {
    let mut watcher = Watcher { engine, found, complained: String::new() };
    let run = move || {
        loop {
            // That Docker is not there, or stops, is nothing to talk about; that it answers oddly is, once.
            match watcher.follow() {
                Ok(Told::NobodyListens) => return,
                Err(error) if error.kind() == ErrorKind::InvalidData => watcher.complain(error.to_string()),
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

/// Containers that Docker had no time for.
struct Late {
    /// Whose turn it is, first.
    ids: VecDeque<String>,
    pause: Duration,
    due: Instant,
}

impl Late {
    fn put(&mut self, id: String) {
        let soon = Instant::now() + SOON;
        self.due = if self.ids.is_empty() { soon } else { self.due.min(soon) };
        self.ids.push_front(id);
    }

    fn remove(&mut self, id: &str) {
        self.ids.retain(|late| late != id);
    }

    /// One that is to be asked for now.
    fn take(&mut self) -> Option<String> {
        if Instant::now() < self.due { None } else { self.ids.pop_front() }
    }

    /// It was asked for, in vain if it is given back.
    fn asked(&mut self, in_vain: Option<String>) {
        self.pause = if in_vain.is_some() { (self.pause * 2).min(AT_LAST) } else { SOON };
        self.due = Instant::now() + self.pause;
        self.ids.extend(in_vain);
    }

    /// How long nothing is to be done for them; for ever if there are none.
    fn patience(&self) -> Option<Duration> {
        // No time at all would mean not to wait for an event.
        let left = self.due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        (!self.ids.is_empty()).then_some(left)
    }
}

struct Watcher {
    engine: PathBuf,
    found: Sender<Found>,
    /// The last complaint.
    complained: String,
}

impl Watcher {
    fn complain(&mut self, problem: String) {
        if problem != self.complained {
            tracing::warn!("containers' names are not learnt from {}: {problem}", self.engine.display());
        }
        self.complained = problem;
    }

    /// Follows one Docker until it ends: until its stream of events does. What is wrong with one container is nobody else's.
    fn follow(&mut self) -> io::Result<Told> {
        let mut stream = connect(&self.engine)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the events then come as they are, a line each.
        stream.write_all(request(EVENTS).as_bytes())?;
        let mut events = Lines { stream, received: Vec::new(), ended: false };
        events.skip_head()?;

        let networks = list(&self.engine, "/networks")?;
        if self.found.send(Found::Docker(Heard::Networks(networks))).is_err() {
            return Ok(Told::NobodyListens);
        }
        let mut containers = Containers::default();
        let mut fresh: BTreeSet<String> = list(&self.engine, "/containers/json")?.into_iter().collect();
        let mut at_first = BRIEFLY;
        let mut late = Late { ids: VecDeque::new(), pause: SOON, due: Instant::now() };
        loop {
            for id in std::mem::take(&mut fresh) {
                late.remove(&id);
                if !self.learn(&id, at_first, &mut containers) {
                    late.put(id);
                    if !self.tell(&mut containers) {
                        return Ok(Told::NobodyListens);
                    }
                }
            }
            if !self.tell(&mut containers) {
                return Ok(Told::NobodyListens);
            }
            at_first = STARTING;
            if let Some(id) = late.take() {
                let was_in_time = self.learn(&id, PATIENCE, &mut containers);
                late.asked((!was_in_time).then_some(id));
                if !self.tell(&mut containers) {
                    return Ok(Told::NobodyListens);
                }
            }
            let mut patience = late.patience();
            while let Some(line) = events.next(patience)? {
                fresh.extend(concerns(&line));
                // What came together is looked at together.
                patience = Some(Duration::ZERO);
            }
        }
    }

    /// Asks for a container; whether there was an answer in time, be it one that is of no use.
    fn learn(&mut self, id: &str, patience: Duration, containers: &mut Containers) -> bool {
        let learnt = match inspect(&self.engine, id, patience) {
            Ok(Some(json)) => containers.learn(&json),
            Ok(None) => {
                containers.forget(id);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(error.to_string()),
            // Docker may be about to stop: then its events end.
            Err(_) => return false,
        };
        if let Err(problem) = learnt {
            self.complain(format!("container {id:.12}: {problem}"));
        }
        true
    }

    /// Tells what changed; whether somebody listens.
    fn tell(&self, containers: &mut Containers) -> bool {
        let changed = containers.changed();
        let unheard = containers.left_out_changed().map(Heard::LeftOut);
        let names = (!changed.is_empty()).then_some(Heard::Names(changed));
        names.into_iter().chain(unheard).all(|heard| self.found.send(Found::Docker(heard)).is_ok())
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

fn get(engine: &Path, path: &str, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    let connection = connect(engine)?;
    parse_answer(&exchange(&connection, request(path).as_bytes(), Instant::now() + patience)?)
}

fn list(engine: &Path, path: &str) -> io::Result<Vec<String>> {
    match get(engine, path, PATIENCE)? {
        (200, body) => {
            let named: Vec<Named> = serde_json::from_slice(&body).map_err(|error| odd(&error.to_string()))?;
            Ok(named.into_iter().map(|named| named.id).collect())
        }
        (status, _) => Err(odd(&format!("it answers {status} to {path}"))),
    }
}

/// A container's description, if it exists.
fn inspect(engine: &Path, id: &str, patience: Duration) -> io::Result<Option<Vec<u8>>> {
    match get(engine, &format!("/containers/{id}/json"), patience)? {
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
    use crate::io::scratch::Scratch;
    use crossbeam::channel::{Receiver, unbounded};
    use std::os::unix::net::UnixListener;

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

    /// A Docker that tells these events, and whose containers answer as their ids say. It ends with the test.
    fn docker(socket: &Path, ids: &[&str], events: Receiver<String>) {
        let listener = UnixListener::bind(socket).unwrap();
        let all: Vec<String> = ids.iter().map(|id| format!(r#"{{"Id":"{id}"}}"#)).collect();
        let all = format!("[{}]", all.join(","));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, all, events) = (stream.unwrap(), all.clone(), events.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    let length = stream.read(&mut buffer).unwrap();
                    let path = String::from_utf8_lossy(&buffer[..length]).split(' ').nth(1).unwrap().to_owned();
                    let id = path.trim_start_matches("/containers/").trim_end_matches("/json").to_owned();
                    let good = format!(
                        r#"{{"Id":"{id}","Name":"/name-{id}","NetworkSettings":{{"Networks":{{"lan":{{"NetworkID":"n","EndpointID":"end-{id}"}}}}}}}}"#
                    );
                    let (status, body) = match path.as_str() {
                        EVENTS => (200, String::new()),
                        "/networks" => (200, "[]".to_owned()),
                        "/containers/json" => (200, all),
                        _ if id.contains("broken") => (500, r#"{"message":"it has no layer"}"#.to_owned()),
                        _ if id.contains("long") => (200, "x".repeat(5 << 20)),
                        _ if id.contains("hung") => return std::thread::sleep(Duration::from_secs(600)),
                        _ => (200, good),
                    };
                    // Whoever has heard enough hangs up.
                    let _ = stream.write_all(format!("HTTP/1.0 {status} X\r\n\r\n{body}").as_bytes());
                    if path == EVENTS {
                        events.iter().for_each(|event| stream.write_all(format!("{event}\n").as_bytes()).unwrap());
                    }
                });
            }
        });
    }

    #[test]
    fn a_container_that_cannot_be_asked_for_costs_the_others_nothing() {
        let scratch = Scratch::new();
        let socket = scratch.path().join("docker.sock");
        let (event, events) = unbounded();
        let hung = ["hung1", "hung2", "hung3", "hung4", "hung5", "hung6", "hung7", "hung8"];
        docker(&socket, &[&hung[..], &["broken", "long", "web"]].concat(), events);
        let (found, heard) = unbounded();
        watch(socket, found).unwrap();
        let told = |id: &str| {
            // Less than the hung ones would take if each were waited for.
            let deadline = Instant::now() + PATIENCE * 6;
            while let Ok(found) = heard.recv_deadline(deadline) {
                if let Found::Docker(Heard::Names(names)) = found {
                    assert_eq!(names, [(format!("end-{id}"), vec![format!("name-{id}")])]);
                    return;
                }
            }
            panic!("{id} has no name");
        };
        told("web");
        let started = |id: &str| format!(r#"{{"Type":"container","Action":"start","Actor":{{"ID":"{id}"}}}}"#);
        event.send(started("broken")).unwrap();
        event.send(started("db")).unwrap();
        told("db");
    }
}
