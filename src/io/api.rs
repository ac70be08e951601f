//! The control socket: a Unix socket of mode 0600 that takes one [`Request`] per connection and gives one [`Response`].
//!
//! Each connection has a short-lived thread, so that a slow caller or a slow container engine holds up nobody. What
//! needs the control plane travels to its thread as a [`Call`]; finding an attach's target does not, and is done here.

use super::ports::{self, Located};
use crate::control::request::{Attach, MAX_REQUEST, Request, Response};
use crossbeam::channel::{Sender, bounded};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Callers served at once: people and a few scripts. Only root can connect.
const CONNECTIONS: usize = 32;
/// How long a caller may take to send its line or take its answer.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long control may take: far above any attach.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// Makes the socket's file, refusing to displace a daemon that answers on it.
    ///
    /// # Errors
    /// One sentence with the path.
    pub fn bind(path: &Path) -> Result<Self, String> {
        if UnixStream::connect(path).is_ok() {
            return Err(format!(
                "another weft daemon answers on {}: stop it, or give this one its own control_socket",
                path.display()
            ));
        }
        let fail = |error: io::Error| format!("cannot make the control socket {}: {error}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(fail)?;
        }
        // Bound under another name until its mode is right, so that nobody can slip in between.
        let early = path.with_extension(format!("{}.early", std::process::id()));
        let _ = fs::remove_file(&early);
        let listener = UnixListener::bind(&early).map_err(fail)?;
        fs::set_permissions(&early, fs::Permissions::from_mode(0o600)).map_err(fail)?;
        fs::rename(&early, path).map_err(fail)?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Serves callers on a thread of its own, which ends with the process.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn serve(&self, calls: Sender<Call>, container_sockets: Vec<PathBuf>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let sockets: Arc<[PathBuf]> = container_sockets.into();
        let busy = Arc::new(AtomicUsize::new(0));
        let accept = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if busy.fetch_add(1, SeqCst) >= CONNECTIONS {
                    busy.fetch_sub(1, SeqCst);
                    let _ = answer(
                        &stream,
                        &Response::Refused(format!("{CONNECTIONS} callers are being served: try again")),
                    );
                    continue;
                }
                let (calls, sockets, done) = (calls.clone(), sockets.clone(), busy.clone());
                let serve = move || {
                    let response = serve_one(&stream, &calls, &sockets);
                    let _ = answer(&stream, &response);
                    done.fetch_sub(1, SeqCst);
                };
                if std::thread::Builder::new().name("weft-caller".to_owned()).spawn(serve).is_err() {
                    busy.fetch_sub(1, SeqCst);
                }
            }
        };
        std::thread::Builder::new().name("weft-api".to_owned()).spawn(accept)?;
        Ok(())
    }
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
    let ask = match request {
        Request::Attach(attach) => match ports::locate(&attach.target, sockets) {
            Ok(located) => Ask::Attach(attach, located),
            Err(error) if error.may_pass() => return Response::Absent(error.to_string()),
            Err(error) => return Response::Refused(error.to_string()),
        },
        request => Ask::Request(request),
    };
    let (sender, receiver) = bounded(1);
    let sent = calls.send_timeout(Call { ask, answer: sender }, CONTROL_TIMEOUT);
    match sent.ok().and_then(|()| receiver.recv_timeout(CONTROL_TIMEOUT).ok()) {
        Some(response) => response,
        None => Response::Refused("the daemon does not keep up, or is stopping: look at its log".to_owned()),
    }
}

fn read_request(stream: &UnixStream) -> Result<Request, String> {
    stream.set_read_timeout(Some(CALLER_TIMEOUT)).map_err(|error| error.to_string())?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.take(MAX_REQUEST as u64 + 1));
    reader.read_line(&mut line).map_err(|error| format!("cannot read the request: {error}"))?;
    if line.len() > MAX_REQUEST {
        return Err(format!("a request is at most {MAX_REQUEST} bytes"));
    }
    parse_request(line.as_bytes())
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
