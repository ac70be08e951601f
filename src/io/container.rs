//! From a container's name to a process in its namespace, without running `docker` or `podman`.
//!
//! Two sources are asked, and all of each, because a name may exist in two engines:
//!
//! * every configured socket that speaks Docker's API (dockerd, and `podman system service`):
//!   `GET /containers/NAME/json`;
//! * Podman's own storage on the disk, since Podman needs no service to run containers.
//!
//! One container seen through two sockets is one container: they agree on its id.

use serde::Deserialize;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

mod podman;

use podman::Storage;

/// How long one engine may take for its whole answer. It answers from memory; one that hangs must not hang us.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// The longest answer read. A container with hundreds of mounts and labels stays below 1 MiB.
const LONGEST_ANSWER: u64 = 4 << 20;
/// Headers in an answer: engines send about ten.
const MOST_HEADERS: usize = 64;

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// A process in its namespaces, as seen from here.
    pub pid: i32,
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// Who runs it: a socket's path, or Podman's storage.
    pub engine: String,
}

/// Why a name leads to no process.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// No engine has such a container.
    #[error("there is no container '{name}' (asked: {}); 'docker ps' or 'podman ps' lists them", .asked.join(", "))]
    NotFound {
        /// The name asked for.
        name: String,
        /// The engines that were asked.
        asked: Vec<String>,
    },
    /// It exists, but does not run.
    #[error("container '{name}' of {engine} is not running (it is {state}): start it first")]
    NotRunning {
        /// The name asked for.
        name: String,
        /// Whose it is.
        engine: String,
        /// The engine's word for its state.
        state: String,
    },
    /// Several engines have a container of that name.
    #[error("more than one container is called '{name}': {}; give the id instead", .found.join(" and "))]
    Ambiguous {
        /// The name asked for.
        name: String,
        /// Engine and id of each.
        found: Vec<String>,
    },
    /// Nothing that runs containers is here.
    #[error(
        "cannot look for container '{name}': no container engine answers (looked for {}, and Podman's storage); start \
         it, or set container_sockets; pid:N and netns:PATH need no engine", .looked_for.join(", ")
    )]
    NoEngine {
        /// The name asked for.
        name: String,
        /// The sockets tried.
        looked_for: Vec<String>,
    },
    /// An engine is there but did not answer properly.
    #[error("cannot ask {engine} for container '{name}': {source}")]
    Engine {
        /// The name asked for.
        name: String,
        /// Which engine.
        engine: String,
        /// What went wrong.
        source: io::Error,
    },
}

impl ContainerError {
    /// Whether an engine says that it has no such container.
    pub fn is_unknown_to(&self, engine: &str) -> bool {
        matches!(self, Self::NotFound { asked, .. } if asked.iter().any(|asked| asked == engine))
    }
}

/// What one engine said about a name.
enum Answer {
    /// It has such a container: its id, and the process or else the word for its state.
    Found(String, Result<i32, String>),
    /// It has no such container.
    Unknown,
    /// There is no such engine here.
    Absent,
}

/// Finds the process of the running container called `name`, or whose id (or unique beginning of one) it is.
///
/// # Errors
/// [`ContainerError`].
pub fn resolve(name: &str, sockets: &[PathBuf]) -> Result<Running, ContainerError> {
    resolve_with(name, sockets, &Storage::default())
}

fn resolve_with(name: &str, sockets: &[PathBuf], storage: &Storage) -> Result<Running, ContainerError> {
    // The engines' own rule for names, which also keeps one from reaching into an HTTP request or up a directory.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(ContainerError::NotFound {
            name: name.to_owned(),
            asked: vec!["nobody: it is no name".to_owned()],
        });
    }
    let mut asked = Vec::new();
    let mut found: Vec<(String, String, Result<i32, String>)> = Vec::new();
    let mut failed = None;
    let by_socket = sockets.iter().map(|socket| (socket.display().to_string(), ask_socket(socket, name)));
    let all = by_socket.chain(std::iter::once_with(|| (storage.to_string(), storage.find(name))));
    for (engine, answer) in all {
        match answer {
            Ok(Answer::Absent) => continue,
            Ok(Answer::Unknown) => {}
            Ok(Answer::Found(id, process)) => {
                // Two ways to one engine; the one that knows a process knows more.
                match found.iter_mut().find(|(_, known, _)| *known == id) {
                    None => found.push((engine.clone(), id, process)),
                    Some(known) if known.2.is_err() && process.is_ok() => *known = (engine.clone(), id, process),
                    Some(_) => {}
                }
            }
            Err(source) => failed = failed.or_else(|| Some((engine.clone(), source))),
        }
        asked.push(engine);
    }
    let name = name.to_owned();
    // A stopped namesake in another engine is no reason to hesitate.
    if found.iter().filter(|(_, _, process)| process.is_ok()).count() == 1 {
        found.retain(|(_, _, process)| process.is_ok());
    }
    if found.len() > 1 {
        let found = found.iter().map(|(engine, id, _)| format!("{id:.12} in {engine}")).collect();
        return Err(ContainerError::Ambiguous { name, found });
    }
    match (found.pop(), failed) {
        (Some((engine, id, Ok(pid))), _) => Ok(Running { pid, id, engine }),
        (Some((engine, _, Err(state))), _) => Err(ContainerError::NotRunning { name, engine, state }),
        (None, Some((engine, source))) => Err(ContainerError::Engine { name, engine, source }),
        (None, None) if asked.is_empty() => Err(ContainerError::NoEngine {
            name,
            looked_for: sockets.iter().map(|s| s.display().to_string()).collect(),
        }),
        (None, None) => Err(ContainerError::NotFound { name, asked }),
    }
}

/// The part of Docker's `ContainerInspect` that matters here. Podman's compatible API has the same.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    state: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    status: String,
}

fn ask_socket(socket: &Path, name: &str) -> io::Result<Answer> {
    let deadline = Instant::now() + PATIENCE;
    let connection = match connect(socket) {
        Ok(connection) => connection,
        // Not installed, or a socket file that its engine left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(Answer::Absent);
        }
        Err(error) => return Err(error),
    };
    // HTTP/1.0: the answer ends where the connection does (RFC 1945), and Go's server then sends it unchunked.
    let request =
        format!("GET /containers/{name}/json HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    let answer = exchange(&connection, request.as_bytes(), deadline)?;
    let (status, body) = parse_answer(&answer)?;
    match status {
        200 => {
            let found: Inspected = serde_json::from_slice(&body).map_err(|error| odd(&error.to_string()))?;
            let process = if found.state.running && found.state.pid > 0 {
                Ok(found.state.pid)
            } else {
                Err(found.state.status)
            };
            Ok(Answer::Found(found.id, process))
        }
        404 => Ok(Answer::Unknown),
        other => {
            let said = String::from_utf8_lossy(&body);
            Err(odd(&format!("it answers {other}: {:.200}", said.trim())))
        }
    }
}

pub(super) fn connect(socket: &Path) -> io::Result<UnixStream> {
    // A Unix socket whose queue is full would make connect(2) wait; with a timeout it says EAGAIN.
    let connection = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    connection.connect_timeout(&socket2::SockAddr::unix(socket)?, PATIENCE)?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(connection)))
}

/// Sends the request and reads to the end of the connection, or of a complete answer on one that is kept open.
pub(super) fn exchange(mut connection: &UnixStream, request: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}")));
        }
        connection.set_read_timeout(Some(left))?;
        let length = match connection.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue, // The deadline is here.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if answer.len() as u64 > LONGEST_ANSWER {
            return Err(odd(&format!("its answer is longer than {LONGEST_ANSWER} bytes")));
        }
        if is_complete(&answer) {
            return Ok(answer);
        }
    }
}

fn is_complete(answer: &[u8]) -> bool {
    with_head(answer, |head| match head.body {
        Body::Length(length) => answer.len() >= head.length.saturating_add(length),
        Body::Chunked => answer.get(head.length..).and_then(unchunk).is_some(),
        Body::UntilEnd => false,
    })
    .is_ok_and(|complete| complete)
}

pub(super) fn parse_answer(answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    with_head(answer, |head| {
        let rest = answer.get(head.length..).unwrap_or_default();
        let body = match head.body {
            Body::UntilEnd => Some(rest.to_vec()),
            Body::Length(length) => rest.get(..length).map(<[u8]>::to_vec),
            Body::Chunked => unchunk(rest),
        };
        body.map(|body| (head.status, body)).ok_or_else(|| odd("its answer is cut short"))
    })?
}

/// The head of an HTTP answer.
struct Head {
    length: usize,
    status: u16,
    body: Body,
}

/// How the end of the body is known (RFC 9112 §6.3).
enum Body {
    Chunked,
    Length(usize),
    UntilEnd,
}

fn with_head<T>(answer: &[u8], then: impl FnOnce(Head) -> T) -> io::Result<T> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(answer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err(odd("its answer is cut short")),
        Err(error) => return Err(odd(&format!("its answer is not HTTP: {error}"))),
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let body = if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        Body::Chunked
    } else {
        header("content-length").and_then(|length| length.parse().ok()).map_or(Body::UntilEnd, Body::Length)
    };
    Ok(then(Head { length, status: response.code.unwrap_or_default(), body }))
}

/// The content of a complete chunked body (RFC 9112 §7.1); `None` while its end is missing or when it is malformed.
pub(super) fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else { return None };
        if size == 0 {
            return Some(body);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(rest.get(start..end)?);
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

pub(super) fn odd(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests;
