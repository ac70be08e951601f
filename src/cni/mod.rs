//! The CNI plugin: what a container runtime asks for, in terms of what the daemon can be asked.
//!
//! A runtime runs a program for each interface of each container, tells it in environment variables and on standard input what it wants,
//! and reads from standard output what was made (the Container Network Interface, version 1.1). Here is the translation:
//!
//! ```text
//!   CNI_… ──► Call ─┐                     ┌──► Request ──► daemon ──► Response ─┐
//!   stdin ──► Conf ─┴─► ADD DEL CHECK … ──┼──► IPAM plugin, where the file names one ─┼──► Success or CniError ──► stdout
//!                                         └──► look at the namespace, add routes ─┘
//! ```
//!
//! All that touches the machine is behind [`World`], which the shell implements and the tests do. **What must hold:**
//!
//! * A port is called `cni:CONTAINER:INTERFACE`, and by that name alone it is found again. So DEL needs to know nothing else, and nothing is
//!   kept here: what there is, the daemon knows.
//! * ADD makes all or nothing: whatever fails, it ends with the same DEL that a runtime would ask for.
//! * DEL of what is not there is done. DEL that nobody can answer for is not: an error makes the runtime ask again, while silence would leave
//!   an address leased and a port published for good.
//! * A port carries the name of the list that made it as a label, so that GC of one list leaves alone what another made in the same
//!   network.

mod add;
mod check;
pub mod conf;
mod del;
pub mod env;
pub mod error;
mod publish;
pub mod success;
#[cfg(test)]
mod tests;
pub mod version;

use crate::control::request::{NetworkStatus, Outside, PortStatus, Request, Response};
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use conf::{Conf, Ipam};
use env::{Call, Command, Variables};
use error::{CniError, Code};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use success::Success;
use version::Version;

/// The label by which a port says which list made it.
pub const LIST_LABEL: &str = "cni.network";

/// The daemon, IPAM plugins and containers' namespaces.
pub trait World {
    /// Asks the daemon behind this socket, or behind the usual one.
    ///
    /// # Errors
    /// It did not answer: one sentence.
    fn ask(&mut self, socket: Option<&Path>, request: &Request) -> Result<Response, String>;

    /// Runs another plugin with what we were given, but this command, and waits for it.
    ///
    /// # Errors
    /// There is no such plugin, or it cannot be run: one sentence.
    fn delegate(&mut self, plugin: &str, command: Command) -> Result<Delegated, String>;

    /// Looks at an interface of a namespace; `None` when there is none of this name.
    ///
    /// # Errors
    /// There is no such namespace.
    fn look(&mut self, netns: &Path, ifname: &str) -> Result<Option<Seen>, NoSandbox>;

    /// Adds routes over an interface of a namespace.
    ///
    /// # Errors
    /// The kernel refused one: a sentence.
    fn add_routes(&mut self, netns: &Path, ifname: &str, routes: &[(Cidr, IpAddr)]) -> Result<(), String>;
}

/// How another plugin ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delegated {
    /// Whether with exit code 0.
    pub done: bool,
    /// Its answer.
    pub stdout: Vec<u8>,
    /// What it said besides.
    pub stderr: Vec<u8>,
}

/// An interface as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Whether it is switched on.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<Cidr>,
    /// Where routes over it lead, and through whom.
    pub routes: Vec<(Cidr, Option<IpAddr>)>,
}

/// There is no namespace to look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoSandbox {
    /// Nothing is there.
    Absent(String),
    /// Something else is there, or it may not be entered.
    Wrong(String),
}

/// Does what the variables and the configuration ask for. What comes back goes to standard output; an `Err` is a failure to the runtime.
///
/// # Errors
/// The error object.
pub fn run(variables: &Variables, stdin: &[u8], world: &mut impl World) -> Result<String, String> {
    let failed = |version, error: CniError| Err(line(&error.to_json(version)));
    let call = match Call::read(variables) {
        Ok(call) => call,
        Err(error) => return failed(told_version(stdin), error),
    };
    if call.command == Command::Version {
        let known: Vec<&str> = Version::ALL.iter().map(|version| version.name()).collect();
        return Ok(line(&json!({ "cniVersion": told_version(stdin).name(), "supportedVersions": known })));
    }
    let conf = match Conf::read(stdin, &call) {
        Ok(conf) => conf,
        Err((version, error)) => return failed(version, error),
    };
    let mut job = Job { call: &call, conf: &conf, world };
    let outcome = match call.command {
        Command::Add => job.add().map(|made| line(&made.to_json(conf.version))),
        Command::Del => job.del().map(|()| String::new()),
        Command::Check => job.check().map(|()| String::new()),
        Command::Gc => job.gc().map(|()| String::new()),
        Command::Status | Command::Version => job.status().map(|()| String::new()),
    };
    outcome.or_else(|error| failed(conf.version, error))
}

/// The version to answer in before the configuration has been read.
fn told_version(stdin: &[u8]) -> Version {
    let object: Option<Value> = serde_json::from_slice(stdin).ok();
    let name = object.as_ref().and_then(|object| object.get("cniVersion")?.as_str());
    Version::read(name).unwrap_or(Version::LATEST)
}

fn line(object: &Value) -> String {
    format!("{object:#}\n")
}

/// One command on its way.
struct Job<'a, W> {
    call: &'a Call,
    conf: &'a Conf,
    world: &'a mut W,
}

impl<W: World> Job<'_, W> {
    /// Asks the daemon. A refusal is an error.
    fn ask(&mut self, request: &Request) -> Result<Response, CniError> {
        match self.world.ask(self.conf.socket.as_deref(), request) {
            Ok(Response::Refused(sentence)) => Err(CniError::new(Code::Refused, sentence)),
            // We have just looked into the namespace.
            Ok(Response::Absent(sentence)) => {
                let hint = "the plugin sees it and the daemon does not: has that a mount namespace of its own?";
                Err(CniError::new(Code::Refused, format!("{sentence}; {hint}")))
            }
            Ok(response) => Ok(response),
            Err(sentence) => Err(CniError::new(Code::Later, sentence)),
        }
    }

    fn ports(&mut self) -> Result<Vec<PortStatus>, CniError> {
        match self.ask(&Request::Ports)? {
            Response::Ports(ports) => Ok(ports),
            other => Err(odd(&other)),
        }
    }

    fn port(&mut self, name: &str) -> Result<Option<PortStatus>, CniError> {
        Ok(self.ports()?.into_iter().find(|port| port.name == name))
    }

    /// What of the host is in networks, and what of networks is on the host.
    fn outside(&mut self) -> Result<Outside, CniError> {
        match self.ask(&Request::Published)? {
            Response::Published(outside) => Ok(outside),
            other => Err(odd(&other)),
        }
    }

    /// The network of the configuration.
    fn network(&mut self) -> Result<NetworkStatus, CniError> {
        let networks = match self.ask(&Request::Networks)? {
            Response::Networks(networks) => networks,
            other => return Err(odd(&other)),
        };
        let wanted = &self.conf.network;
        let names: Vec<String> = networks.iter().map(|network| network.name.clone()).collect();
        networks.into_iter().find(|network| network.name == *wanted).ok_or_else(|| {
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!("there is no network '{wanted}' here; this member has: {names}; say `network`");
            CniError::new(Code::Config, message)
        })
    }

    /// Runs the IPAM plugin of the configuration, where it names one. Only ADD has an answer.
    fn delegate(&mut self, command: Command) -> Result<Option<Success>, CniError> {
        let Ipam::Plugin(plugin) = &self.conf.ipam else { return Ok(None) };
        let ended = self.world.delegate(plugin, command).map_err(|sentence| CniError::new(Code::Config, sentence))?;
        if !ended.done {
            return Err(failure_of(plugin, command, &ended));
        }
        if command != Command::Add {
            return Ok(None);
        }
        let what = format!("the answer of IPAM plugin {plugin}");
        let answer = serde_json::from_slice(&ended.stdout)
            .map_err(|error| CniError::new(Code::Decode, format!("{what} cannot be read: {error}")))?;
        Success::read(answer, &what).map(Some)
    }
}

/// What another plugin said when it failed, as well as it said it.
fn failure_of(plugin: &str, command: Command, ended: &Delegated) -> CniError {
    let said: Option<Value> = serde_json::from_slice(&ended.stdout).ok();
    let text = |key: &str| said.as_ref().and_then(|said| said.get(key)?.as_str()).unwrap_or_default().to_owned();
    let code = said.as_ref().and_then(|said| said.get("code")?.as_u64()).and_then(|code| u32::try_from(code).ok());
    let message = match text("msg") {
        none if none.is_empty() => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        message => message,
    };
    let message = if message.is_empty() { "it does not say why".to_owned() } else { message };
    let code = code.filter(|code| *code > 0).map_or(Code::Refused, Code::Foreign);
    let message = format!("IPAM plugin {plugin} failed at {}: {message}", command.name());
    CniError { code, message, details: text("details") }
}

fn odd(response: &Response) -> CniError {
    CniError::new(Code::Refused, format!("the daemon answered something else than was asked: {response:?}"))
}
