//! iperf3 as a second opinion of the bench, where it is installed. Nothing else in the lab needs it.

use super::{LabError, process};
use crate::io::netns::Netns;
use std::io;
use std::net::IpAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take until it listens.
const LISTENING: Duration = Duration::from_secs(3);

/// What iperf3's receiver saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// 10⁹ bits a second.
    pub gbps: f64,
    /// 1000 datagrams a second; 0 for TCP.
    pub kpps: f64,
}

/// The first line of `iperf3 --version`; `None` when there is no iperf3.
pub fn version() -> Option<String> {
    let output = Command::new("iperf3").arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

/// Measures from `from` to `to`, which has the address `address`.
///
/// # Errors
/// iperf3 fails or says what cannot be read.
pub fn run(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    measure: Duration,
    arguments: &[&str],
) -> Result<Figure, LabError> {
    let failed = || LabError::io("measure with iperf3");
    let address = address.to_string();
    let mut server =
        Server(command(to, &["-s", "-1", "-B", &address]).and_then(|mut c| c.spawn()).map_err(failed())?);
    let seconds = measure.as_secs().max(1).to_string();
    let begun = Instant::now();
    loop {
        let mut all = vec!["-c", &address, "-t", &seconds, "-J"];
        all.extend(arguments);
        let output = command(from, &all).and_then(|mut c| c.stdout(Stdio::piped()).output()).map_err(failed())?;
        if let Some(figure) = read(&output) {
            server.0.wait().map_err(failed())?;
            return Ok(figure);
        }
        // Until the server listens the client is refused.
        if begun.elapsed() > LISTENING {
            let text = String::from_utf8_lossy(&output.stdout);
            let said = text.lines().find(|line| line.contains("\"error\"")).unwrap_or("nothing that can be read");
            return Err(failed()(io::Error::other(format!("it says {}", said.trim()))));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A server that does not outlive the measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself when all went well.
        let _ = process::end(&mut self.0, Duration::ZERO);
    }
}

fn command(netns: &Netns, arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new("iperf3");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process::inside(netns, &mut command)?;
    process::die_with_us(&mut command);
    Ok(command)
}

fn read(output: &Output) -> Option<Figure> {
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let end = said.get("end")?;
    // TCP has `sum_received`; UDP has it since 3.12, and `sum` before, with what was lost still in it.
    let sum = end.get("sum_received").or_else(|| end.get("sum"))?;
    let number = |key: &str| sum.get(key).and_then(serde_json::Value::as_f64);
    let (bits, seconds) = (number("bits_per_second")?, number("seconds")?);
    let delivered = number("packets").unwrap_or(0.0) - number("lost_packets").unwrap_or(0.0);
    Some(Figure { gbps: bits / 1e9, kpps: delivered / 1e3 / seconds })
}
