//! The control socket: a Unix socket of mode 0600 that takes one [`Request`] per connection and gives one [`Response`].
//!
//! Each connection has a short-lived thread, so that a slow caller or a slow container engine holds up nobody. What
//! needs the control plane travels to its thread as a [`Call`]; finding an attach's target does not, and is done here.

use super::ports::{self, Located};
use super::wait::Patience;
use crate::control::request::{Attach, MAX_REQUEST, Request, Response};
use crossbeam::channel::{Sender, bounded};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Callers served at once: people and a few scripts. Only root can connect.
const CONNECTIONS: usize = 32;
/// How long a caller may take to send its line, and to take any of its answer.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before the next caller is looked for when one could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a killed daemon may still hold its socket and its lock: the kernel takes its memory and descriptors away first.
pub(super) const LAST_BREATH: Duration = Duration::from_secs(2);
/// How long control may take: far above any attach.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long what another member has is asked for again: it may have let it go, and the news of it be on its way. On a lossy
/// underlay that takes a second.
const NEWS: Duration = Duration::from_secs(2);

/// A request on its way to the control thread, and where its answer goes.
pub struct Call {
    /// What is asked.
    pub ask: Ask,
    /// Takes the answer.
    pub answer: Sender<Response>,
}

/// What is asked of the control thread.
pub enum Ask {
    /// Anything but an attach.
    Request(Request),
    /// An attach whose target has been found.
    Attach(Attach, Located),
}

/// The listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Api {
    path: PathBuf,
    listener: UnixListener,
}

impl Api {
    /// Makes the socket's file, refusing to displace a daemon that answers on it for longer than one that was just killed
    /// takes to be gone.
    ///
    /// # Errors
    /// One sentence with the path.
    pub fn bind(path: &Path) -> Result<Self, String> {
        listen(path, "control_socket").map(|listener| Self { path: path.to_owned(), listener })
    }

    /// Serves callers on a thread of its own, which ends with the process.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn serve(&self, calls: Sender<Call>, container_sockets: Vec<PathBuf>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let sockets: Arc<[PathBuf]> = container_sockets.into();
        // A token for each caller that is being served; whoever comes when all are out waits in the kernel's queue.
        let (take, give_back) = bounded(CONNECTIONS);
        let own_back = give_back.clone();
        let accept = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    // Out of descriptors, most likely: some come back when a caller has been served.
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                };
                let (calls, sockets, give_back) = (calls.clone(), sockets.clone(), give_back.clone());
                if take.send(()).is_err() {
                    return;
                }
                let serve = move || {
                    let response = serve_one(&stream, &calls, &sockets);
                    let _ = answer(&stream, &response);
                    let _ = give_back.recv();
                };
                if std::thread::Builder::new().name("weft-caller".to_owned()).spawn(serve).is_err() {
                    let _ = own_back.recv();
                }
            }
        };
        std::thread::Builder::new().name("weft-api".to_owned()).spawn(accept)?;
        Ok(())
    }
}

/// Listens on a socket for root alone. `key` of the configuration says where it is.
pub(super) fn listen(path: &Path, key: &str) -> Result<UnixListener, String> {
    let is_free = || UnixStream::connect(path).is_err().then_some(());
    if Patience::new(Some(LAST_BREATH)).until(is_free).is_none() {
        return Err(format!(
            "another weft daemon answers on {}: stop it, or give this one its own {key}",
            path.display()
        ));
    }
    let fail = |error: io::Error| format!("cannot make the socket {} ({key}): {error}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(fail)?;
    }
    // Bound under another name until its mode is right, so that nobody can slip in between.
    let early = path.with_extension(format!("{}.early", std::process::id()));
    let _ = fs::remove_file(&early);
    let listener = UnixListener::bind(&early).map_err(fail)?;
    fs::set_permissions(&early, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    fs::rename(&early, path).map_err(fail)?;
    Ok(listener)
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn serve_one(stream: &UnixStream, calls: &Sender<Call>, sockets: &[PathBuf]) -> Response {
    let request = match read_request(stream) {
        Ok(request) => request,
        Err(problem) => return Response::Refused(problem),
    };
    let mut known = String::new();
    let answered = Patience::new(Some(NEWS)).until(|| match ask(&request, calls, sockets) {
        Err(reason) => {
            known = reason;
            None
        }
        Ok(response) => Some(response),
    });
    answered.unwrap_or(Response::Refused(known))
}

/// What came of asking once: an answer, or what stands in the way by what is known at this moment.
fn ask(request: &Request, calls: &Sender<Call>, sockets: &[PathBuf]) -> Result<Response, String> {
    let ask = match request {
        Request::Attach(attach) => match ports::locate(&attach.target, sockets) {
            Ok(located) => Ask::Attach(attach.clone(), located),
            Err(error) if error.may_pass() => return Ok(Response::Absent(error.to_string())),
            Err(error) => return Ok(Response::Refused(error.to_string())),
        },
        request => Ask::Request(request.clone()),
    };
    let (sender, receiver) = bounded(1);
    let sent = calls.send_timeout(Call { ask, answer: sender }, CONTROL_TIMEOUT);
    match sent.ok().and_then(|()| receiver.recv_timeout(CONTROL_TIMEOUT).ok()) {
        Some(Response::Absent(reason)) => Err(reason),
        Some(response) => Ok(response),
        None => Ok(Response::Refused("the daemon does not keep up, or is stopping: look at its log".to_owned())),
    }
}

/// Reads up to the end of the line. However slowly a caller writes, it has [`CALLER_TIMEOUT`] for all of it.
fn read_request(mut stream: &UnixStream) -> Result<Request, String> {
    let deadline = Instant::now() + CALLER_TIMEOUT;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while !line.contains(&b'\n') {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("no request within {} seconds", CALLER_TIMEOUT.as_secs()));
        }
        let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut buffer));
        match read {
            Ok(0) => break,
            Ok(length) => line.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(format!("cannot read the request: {error}")),
        }
        if line.len() > MAX_REQUEST {
            return Err(format!("a request is at most {MAX_REQUEST} bytes"));
        }
    }
    parse_request(line.split(|&byte| byte == b'\n').next().unwrap_or_default())
}

/// Reads one request line. Any bytes may come here.
///
/// # Errors
/// What is wrong with it.
pub fn parse_request(line: &[u8]) -> Result<Request, String> {
    // The error repeats names it does not know, control characters and all.
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}").replace(char::is_control, " "))
}

fn answer(mut stream: &UnixStream, response: &Response) -> io::Result<()> {
    stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line)
}
