//! The caller's end of the control socket: one request, one response, one connection.

use crate::control::request::{Request, Response};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take: an attach may ask two container engines and move an interface.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest response read: an FDB at its largest bound, with room to spare.
const MAX_RESPONSE: u64 = 1 << 30;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket, or nobody behind it.
    #[error(
        "no weft daemon answers on {}: start one with `weft up -c FILE`, or name its socket with --socket", .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket is another user's.
    #[error("this user may not use the control socket {}: run the command with sudo", .0.display())]
    Denied(PathBuf),
    /// It took too long.
    #[error(
        "the weft daemon on {} has not answered for {} seconds: see its log for what holds it", .0.display(),
        PATIENCE.as_secs()
    )]
    Silent(PathBuf),
    /// It answered something else.
    #[error(
        "what answers on {} does not speak this version's language ({error}): restart the daemon after an upgrade, or \
         name its socket with --socket", .socket.display()
    )]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// What was odd.
        error: String,
    },
    /// The system refused.
    #[error("cannot talk to the weft daemon on {}: {error}", .socket.display())]
    System {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// Asks the daemon behind `socket`. A refusal is a response like any other.
///
/// # Errors
/// [`ClientError`] when no daemon answered.
pub fn ask(socket: &Path, request: &Request) -> Result<Response, ClientError> {
    let line = exchange(socket, request).map_err(|error| {
        let socket = socket.to_owned();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
                ClientError::NotRunning(socket)
            }
            ErrorKind::PermissionDenied => ClientError::Denied(socket),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent(socket),
            ErrorKind::InvalidData => ClientError::Foreign { socket, error: error.to_string() },
            _ => ClientError::System { socket, error },
        }
    })?;
    serde_json::from_slice(&line)
        .map_err(|error| ClientError::Foreign { socket: socket.to_owned(), error: error.to_string() })
}

fn exchange(socket: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It has answered and hung up without waiting for the question: the answer says why.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    line.clear();
    BufReader::new(stream).take(MAX_RESPONSE).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') { Ok(line) } else { Err(io::Error::new(ErrorKind::InvalidData, "it hung up")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;
    use std::os::unix::net::UnixListener;

    /// A daemon that answers one request with `answer`; gives back the request.
    fn answering(socket: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            line
        })
    }

    #[test]
    fn a_request_is_one_line_and_so_is_the_response() {
        let directory = Scratch::new();
        let socket = directory.path().join("s");
        let daemon = answering(&socket, "{\"response\":\"done\",\"body\":[\"well\"]}\n");
        assert_eq!(ask(&socket, &Request::Reload).unwrap(), Response::Done(vec!["well".into()]));
        assert_eq!(daemon.join().unwrap(), "{\"request\":\"reload\"}\n");
    }

    #[test]
    fn a_daemon_that_is_not_there_is_told_from_one_that_speaks_otherwise() {
        let directory = Scratch::new();
        let socket = directory.path().join("s");
        assert!(matches!(ask(&socket, &Request::Status), Err(ClientError::NotRunning(_))));
        // A socket that a dead daemon left behind.
        drop(UnixListener::bind(&socket).unwrap());
        let error = ask(&socket, &Request::Status).unwrap_err();
        let path = socket.display();
        assert_eq!(
            error.to_string(),
            format!(
                "no weft daemon answers on {path}: start one with `weft up -c FILE`, or name its socket with --socket"
            )
        );
        for odd in ["", "HTTP/1.1 400 Bad Request\n", "{\"response\":\"done\"", "{\"response\":\"later\"}\n"] {
            std::fs::remove_file(&socket).unwrap();
            let daemon = answering(&socket, odd);
            assert!(matches!(ask(&socket, &Request::Status), Err(ClientError::Foreign { .. })), "{odd}");
            daemon.join().unwrap();
        }
    }
}
