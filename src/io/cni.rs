//! The machine as the CNI plugin sees it: the runtime that called, the daemon, other plugins, the container's namespace.
//!
//! The plugin's process lives for one call, in the mount namespace and, mostly, the network namespace of its runtime. The daemon may have others:
//! paths go to it absolute, and whatever concerns the container's namespace is done by entering that.

use super::client::{self, ClientError};
use super::netlink::{Netlink, NetlinkError};
use super::netns::Netns;
use super::wait::Patience;
use crate::cni::env::{Command, Variables};
use crate::cni::error::{CniError, Code};
use crate::cni::{Delegated, NoSandbox, Seen, World};
use crate::control::request::{Request, Response};
use crate::wire::cidr::Cidr;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

/// The longest configuration read: a hundred times what lists have, with the previous result and all port mappings.
const MAX_CONFIGURATION: u64 = 1 << 20;
/// Where the daemon listens unless the configuration, or this variable, says otherwise.
const SOCKET: &str = "/run/weft/control.sock";
const SOCKET_VARIABLE: &str = "WEFT_SOCKET";
/// How long a daemon that is not there is waited for, in one call: as long as one takes to be restarted. Not every runtime asks again.
const RESTART: Duration = Duration::from_secs(3);

/// What one call has to do with.
pub struct Machine<'a> {
    path: &'a str,
    stdin: &'a [u8],
    /// Whether a daemon that is not there is waited for: not where the question is just that.
    waits: bool,
    /// From when it was first missed.
    patience: Option<Patience>,
}

impl<'a> Machine<'a> {
    /// For a call with these variables and this configuration, which other plugins are given too.
    pub fn new(variables: &'a Variables, stdin: &'a [u8]) -> Self {
        let waits = variables.command != Command::Status.name();
        Self { path: &variables.path, stdin, waits, patience: None }
    }

    /// The variables of our environment. Paths that are relative to where we were started are made absolute.
    ///
    /// # Errors
    /// One of them is not text.
    pub fn variables() -> Result<Variables, CniError> {
        let mut odd = Vec::new();
        let mut variables = Variables::from(|name| {
            std::env::var_os(name).unwrap_or_default().into_string().unwrap_or_else(|_| {
                odd.push(name.to_owned());
                String::new()
            })
        });
        if !odd.is_empty() {
            return Err(CniError::new(Code::Environment, format!("{} cannot be read as UTF-8", odd.join(", "))));
        }
        if !variables.netns.is_empty()
            && let Ok(absolute) = std::path::absolute(&variables.netns)
        {
            variables.netns = absolute.display().to_string();
        }
        Ok(variables)
    }

    /// What is on standard input.
    ///
    /// # Errors
    /// It cannot be read, or does not end.
    pub fn configuration() -> Result<Vec<u8>, CniError> {
        let mut bytes = Vec::new();
        match io::stdin().lock().take(MAX_CONFIGURATION + 1).read_to_end(&mut bytes) {
            Err(error) => Err(CniError::new(Code::Io, format!("cannot read standard input: {error}"))),
            Ok(_) if bytes.len() as u64 > MAX_CONFIGURATION => {
                let message = format!("the configuration on standard input is longer than {MAX_CONFIGURATION} bytes");
                Err(CniError::new(Code::Io, message))
            }
            Ok(_) => Ok(bytes),
        }
    }

    fn run_plugin(&self, program: &Path, command: Command) -> io::Result<Delegated> {
        let [variable, ..] = Variables::NAMES;
        let mut process = Process::new(program);
        process.env(variable, command.name()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn()?;
        let stdin = child.stdin.take();
        let ended = std::thread::scope(|scope| {
            // A plugin that reads nothing closes its end, and is right to.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(self.stdin)));
            child.wait_with_output()
        })?;
        Ok(Delegated { done: ended.status.success(), stdout: ended.stdout, stderr: ended.stderr })
    }
}

impl World for Machine<'_> {
    fn ask(&mut self, socket: Option<&Path>, request: &Request) -> Result<Response, String> {
        let from_environment =
            || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let socket = socket.map(Path::to_owned).or_else(from_environment).unwrap_or_else(|| SOCKET.into());
        let attempt = || match client::ask(&socket, request) {
            // Nobody has heard the question.
            Err(ClientError::NotRunning(_)) => None,
            other => Some(other),
        };
        let mut answer = attempt();
        if answer.is_none() && self.waits {
            answer = self.patience.get_or_insert_with(|| Patience::new(Some(RESTART))).until(attempt);
        }
        answer.unwrap_or_else(|| Err(ClientError::NotRunning(socket.clone()))).map_err(|error| error.to_string())
    }

    fn delegate(&mut self, plugin: &str, command: Command) -> Result<Delegated, String> {
        let mut places =
            self.path.split(':').filter(|place| !place.is_empty()).map(|place| Path::new(place).join(plugin));
        let Some(program) = places.find(|program| program.is_file()) else {
            return Err(format!("there is no IPAM plugin {plugin} in CNI_PATH {}", self.path));
        };
        let ran = self.run_plugin(&program, command);
        ran.map_err(|error| format!("cannot run IPAM plugin {}: {error}", program.display()))
    }

    fn look(&mut self, netns: &Path, ifname: &str) -> Result<Option<Seen>, NoSandbox> {
        let netns = Netns::open(netns).map_err(|error| match error.kind() {
            ErrorKind::NotFound => NoSandbox::Absent(error.to_string()),
            _ => NoSandbox::Wrong(error.to_string()),
        })?;
        let wrong = |error: io::Error| NoSandbox::Wrong(error.to_string());
        netns.run(|| look_here(ifname)).map_err(wrong)?.map_err(wrong)
    }

    fn add_routes(&mut self, netns: &Path, ifname: &str, routes: &[(Cidr, IpAddr)]) -> Result<(), String> {
        let netns = Netns::open(netns).map_err(|error| error.to_string())?;
        let add = || -> io::Result<()> {
            let mut netlink = Netlink::open()?;
            let link =
                netlink.link(ifname)?.ok_or_else(|| io::Error::other(format!("interface {ifname} is gone")))?;
            for &(to, gateway) in routes {
                match to.prefix {
                    0 => netlink.add_default_route(gateway, link.index)?,
                    _ => netlink.add_route(Some(to), gateway, link.index)?,
                }
            }
            Ok(())
        };
        netns.run(add).and_then(|added| added).map_err(|error| error.to_string())
    }
}

/// Looks at an interface of the namespace that the thread is in.
fn look_here(ifname: &str) -> io::Result<Option<Seen>> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.link(ifname)? else { return Ok(None) };
    let addresses = netlink.addresses(link.index)?.into_iter().map(|address| address.cidr).collect();
    let routes = netlink.routes().map_err(|error: NetlinkError| io::Error::from(error))?;
    let routes = routes.into_iter().filter(|route| route.index == link.index);
    let routes = routes.filter_map(|route| {
        let everywhere = |gateway: IpAddr| Cidr {
            address: if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            prefix: 0,
        };
        Some((route.destination.or_else(|| route.gateway.map(everywhere))?, route.gateway))
    });
    Ok(Some(Seen { mac: link.mac, up: link.up, addresses, routes: routes.collect() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    fn asks(command: &str, socket: &Path) -> Result<Response, String> {
        let variables = Variables { command: command.to_owned(), ..Variables::default() };
        Machine::new(&variables, b"").ask(Some(socket), &Request::Ports)
    }

    #[test]
    fn a_daemon_that_is_being_restarted_is_waited_for() {
        let directory = Scratch::new();
        let socket = directory.path().join("s");
        // What a daemon that was killed leaves behind.
        drop(UnixListener::bind(&socket).unwrap());
        assert!(asks("STATUS", &socket).unwrap_err().contains("no weft daemon answers"), "at once");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| asks("DEL", &socket));
            std::thread::sleep(Duration::from_millis(300));
            std::fs::remove_file(&socket).unwrap();
            let listener = UnixListener::bind(&socket).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            stream.write_all(b"{\"response\":\"ports\",\"body\":[]}\n").unwrap();
            assert_eq!(asked.join().unwrap(), Ok(Response::Ports(Vec::new())));
        });
    }
}
