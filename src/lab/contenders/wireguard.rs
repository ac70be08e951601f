//! WireGuard in user space: wireguard-go, boringtun, gotatun, which are all started and told their keys alike.
//!
//! Each is given an interface's name and listens on `/var/run/wireguard/NAME.sock` for the text protocol of
//! <https://www.wireguard.com/xplatform/#configuration-protocol>. The sockets of all namespaces stand in that one
//! directory, so the names must differ. The hosts' weft keys, which are WireGuard keys, serve here too.

use super::kernel::{VXLAN_OVERHEAD, vxlan_between};
use super::pair::{HOSTS, Pair};
use super::program::Program;
use crate::lab::LabError;
use crate::wire::key::Secret;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(super) const WIREGUARD_GO: Program = Program { name: "wireguard-go", version: "--version", says: "wireguard-go" };
pub(super) const BORINGTUN: Program = Program { name: "boringtun-cli", version: "--version", says: "boringtun" };
pub(super) const GOTATUN: Program = Program { name: "gotatun", version: "--version", says: "gotatun" };

/// What WireGuard's own tools take off an MTU: room for an IPv6 header, UDP, WireGuard (32).
const OVERHEAD: u16 = 40 + 8 + 32;
const PORT: u16 = 51820;
const SOCKETS: &str = "/var/run/wireguard";
/// How long an answer to the configuration may take.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) fn go(pair: &mut Pair) -> Result<(), LabError> {
    routed(pair, "wireguard-go", &["-f"])
}

pub(super) fn boringtun(pair: &mut Pair) -> Result<(), LabError> {
    routed(pair, "boringtun-cli", &["-f", "--disable-drop-privileges"])
}

pub(super) fn gotatun(pair: &mut Pair) -> Result<(), LabError> {
    routed(pair, "gotatun", &["-f", "--disable-drop-privileges", "-v", "error"])
}

pub(super) fn go_with_vxlan(pair: &mut Pair) -> Result<(), LabError> {
    let tunnel = |h: usize| Ipv4Addr::new(10, 33, h as u8, 1);
    tunnel_up(pair, "wireguard-go", &["-f"], tunnel)?;
    vxlan_between(pair, HOSTS.map(tunnel), pair.mtu(OVERHEAD + VXLAN_OVERHEAD))
}

/// The tunnel is the overlay.
fn routed(pair: &mut Pair, program: &str, arguments: &[&str]) -> Result<(), LabError> {
    tunnel_up(pair, program, arguments, Pair::overlay)?;
    pair.hosts_reach_each_other()
}

fn tunnel_up(
    pair: &mut Pair,
    program: &str,
    arguments: &[&str],
    address: impl Fn(usize) -> Ipv4Addr,
) -> Result<(), LabError> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    for h in HOSTS {
        let name = format!("wg{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut command = pair.command(h, program)?;
        command.args(arguments).arg(&name).env("LOG_LEVEL", "error");
        let socket: PathBuf = format!("{SOCKETS}/{name}.sock").into();
        pair.remove_in_the_end(socket.clone());
        pair.start(h, command)?;
        let text = settings(pair, h, address(3 - h))?;
        // The socket's file is there before anybody listens.
        pair.until("its control socket", |_| match tell(&socket, &text) {
            Ok(()) => Ok(Some(())),
            Err(error) if is_early(&error) => Ok(None),
            Err(error) => Err(LabError::io(format!("configure {program} through {}", socket.display()))(error)),
        })?;
        pair.bring_up(h, &name, Some(pair.mtu(OVERHEAD)), address(h))?;
    }
    Ok(())
}

/// What host `h` is told: its key, and the other host, which has the address `other` in the tunnel.
fn settings(pair: &Pair, h: usize, other: Ipv4Addr) -> Result<String, LabError> {
    let key = pair.read(h, "key")?;
    let key: Secret = key.trim().parse().map_err(|_| LabError::Refused(format!("the key of h{h} is none")))?;
    let far = pair.host(3 - h);
    Ok(format!(
        "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\nendpoint={}:{PORT}\nallowed_ip={other}/32\n\n",
        hex(key.expose()),
        hex(&far.public_key.0),
        far.v4,
    ))
}

fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Sends a configuration and reads the answer: `errno=0` and an empty line.
fn tell(socket: &Path, text: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(text.as_bytes())?;
    let (mut answer, mut buffer) = (String::new(), [0; 512]);
    while !answer.ends_with("\n\n") {
        match stream.read(&mut buffer)? {
            0 => break,
            length => answer.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    match answer.trim() {
        "errno=0" => Ok(()),
        other => Err(io::Error::other(format!("it answers '{other}'"))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;
    use std::os::unix::net::UnixListener;

    #[test]
    fn keys_are_lower_case_hex() {
        assert_eq!(hex(&[0, 0x0f, 0xa0, 0xff]), "000fa0ff");
    }

    #[test]
    fn an_answer_is_heeded() {
        let scratch = Scratch::new();
        let socket = scratch.path().join("wg.sock");
        assert!(is_early(&tell(&socket, "set=1\n\n").unwrap_err()));
        let listener = UnixListener::bind(&socket).unwrap();
        for (answer, good) in [("errno=0\n\n", true), ("errno=22\n\n", false), ("", false)] {
            let answering = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut asked = [0; 7];
                    stream.read_exact(&mut asked).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                });
                tell(&socket, "set=1\n\n")
            });
            assert_eq!(answering.is_ok(), good, "{answer:?}: {answering:?}");
        }
    }
}
