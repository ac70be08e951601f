//! Docker's plugin socket: HTTP on a Unix socket that dockerd calls, and the watcher of its API.
//!
//! Docker has no timeout of its own and holds locks while it waits, so every call is answered within [`PATIENCE`]: control is asked with
//! that deadline, and what it could not begin in time it does not do. Docker sends one `POST` per call with a length or in chunks,
//! an empty `Host`, and no content type; each connection here carries one call. httparse reads the head; there is nothing to route and nothing to negotiate.

pub mod events;

use super::api;
use super::container::{odd, unchunk};
use super::finders::Found;
use crate::config;
use crate::docker::Reply;
use crossbeam::channel::{Sender, bounded};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a call may take, from its last byte to its answer's first.
const PATIENCE: Duration = Duration::from_millis(900);
/// How soon a question is asked again whose answer may pass: what another host lets go is known here after a few of these.
const AGAIN: Duration = Duration::from_millis(50);
/// How long Docker may take to send a call, and to take its answer.
const TRANSFER: Duration = Duration::from_secs(5);
/// Calls served at once: Docker starts containers in parallel, and each makes one call at a time.
const CALLS: usize = 64;
/// The longest head and body: Docker's are a few hundred bytes, and some kilobytes with a thousand published ports.
const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 1024 * 1024;
/// Headers in a call: Docker sends six.
const MAX_HEADERS: usize = 64;
/// How long to wait before the next call is looked for when one could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether Docker is on this host, or was when it last ran.
pub fn is_installed() -> bool {
    ["/run/docker", "/var/lib/docker"].iter().any(|path| Path::new(path).exists())
}

/// A call on its way to the control thread, and where its answer goes.
pub struct Call {
    path: String,
    body: Vec<u8>,
    deadline: Instant,
    answer: Sender<Reply>,
}

impl Call {
    /// Has it answered, unless nobody waits for that any more.
    pub fn answer(self, by: impl FnOnce(&str, &[u8]) -> Reply) {
        if Instant::now() < self.deadline {
            let _ = self.answer.send(by(&self.path, &self.body));
        }
    }
}

/// The listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Serves Docker and watches it, on threads that end with the process.
    ///
    /// # Errors
    /// One sentence: another daemon has the socket, it cannot be made, no thread is to be had.
    pub fn start(config: &config::Docker, calls: Sender<Call>, found: Sender<Found>) -> Result<Self, String> {
        let listener = api::listen(&config.socket, "socket of [docker]")?;
        let server = Self { path: config.socket.clone() };
        let no_thread = |error: io::Error| format!("cannot start a thread: {error}");
        let accept = move || accept(&listener, &calls);
        std::thread::Builder::new().name("weft-docker".to_owned()).spawn(accept).map_err(no_thread)?;
        events::watch(config.engine.clone(), found).map_err(no_thread)?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, calls: &Sender<Call>) {
    // A token for each call that is being served; what comes when all are out waits in the kernel's queue.
    let (take, give_back) = bounded(CALLS);
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: some come back when a call has been served.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        if take.send(()).is_err() {
            return;
        }
        let (calls, done) = (calls.clone(), give_back.clone());
        let serve = move || {
            let _ = serve(&stream, &calls);
            let _ = done.recv();
        };
        if std::thread::Builder::new().name("weft-docker".to_owned()).spawn(serve).is_err() {
            let _ = give_back.recv();
        }
    }
}

fn serve(mut stream: &UnixStream, calls: &Sender<Call>) -> io::Result<()> {
    let reply = match receive(stream) {
        Ok((path, body)) => ask(calls, &path, &body),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
        Err(error) => Reply::of(Err(format!("not a call of Docker: {error}").into())),
    };
    let reason = if reply.status == 200 { "OK" } else { "Not Found" };
    let head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        reply.status,
        reply.body.len()
    );
    stream.set_write_timeout(Some(TRANSFER))?;
    stream.write_all(&[head.as_bytes(), &reply.body].concat())
}

/// Asks the control thread; again, while its answer is one that may pass and there is time.
fn ask(calls: &Sender<Call>, path: &str, body: &[u8]) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (answer, answered) = bounded(1);
        let call = Call { path: path.to_owned(), body: body.to_vec(), deadline, answer };
        let sent = calls.send_deadline(call, deadline);
        let reply = sent.ok().and_then(|()| answered.recv_deadline(deadline).ok());
        match reply {
            None => return Reply::of(Err("the daemon does not keep up: look at its log".to_owned().into())),
            Some(reply) if reply.may_pass && Instant::now() + AGAIN * 2 < deadline => std::thread::sleep(AGAIN),
            Some(reply) => return reply,
        }
    }
}

/// Reads a call: its path and its body.
fn receive(mut stream: &UnixStream) -> io::Result<(String, Vec<u8>)> {
    let deadline = Instant::now() + TRANSFER;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(call) = parse(&received)? {
            return Ok(call);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("it was not complete within {TRANSFER:?}")));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) if received.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Err(odd("it is cut short")),
            Ok(length) => received.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A call out of the bytes received so far, once it is complete. Any bytes may come here.
///
/// # Errors
/// It is no HTTP, or too long.
pub fn parse(received: &[u8]) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(received) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(odd(&format!("its head is longer than {MAX_HEAD} bytes"))),
        Err(error) => return Err(odd(&error.to_string())),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let rest = received.get(head..).unwrap_or_default();
    if rest.len() > MAX_BODY {
        return Err(odd(&format!("it is longer than {MAX_BODY} bytes")));
    }
    let body = if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        unchunk(rest)
    } else {
        let length = header("content-length").map_or(Ok(0), str::parse::<usize>);
        let length = length.map_err(|_| odd("its length is no number"))?;
        if length > MAX_BODY {
            return Err(odd(&format!("it is longer than {MAX_BODY} bytes")));
        }
        rest.get(..length).map(<[u8]>::to_vec)
    };
    Ok(body.map(|body| (request.path.unwrap_or_default().to_owned(), body)))
}

#[cfg(test)]
mod tests;
