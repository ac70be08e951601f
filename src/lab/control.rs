//! One request to a daemon's control socket and its answer, each a line of JSON.

use crate::control::request::{Request, Response};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a daemon may think.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer read: an FDB of some hundred thousand entries.
const MAX_RESPONSE: u64 = 64 << 20;

/// Asks.
///
/// # Errors
/// No daemon listens there, or what it says is no response.
pub fn call(socket: &Path, request: &Request) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_RESPONSE)).read_until(b'\n', &mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
