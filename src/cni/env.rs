//! What a runtime says in environment variables: the command, and which interface of which container it is about.
//!
//! Whatever is missing or wrong is told together, with the variables' names. The rules for names are the specification's, and those of
//! interfaces the kernel's.

use super::error::{CniError, Code};
use crate::config::text::check_ifname;
use crate::wire::cidr::Cidr;
use std::net::IpAddr;
use std::path::PathBuf;

/// The variables, as they were found; one that is not set is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// `CNI_PATH`.
    pub path: String,
}

impl Variables {
    /// Their names, in the order of the fields.
    pub const NAMES: [&'static str; 6] =
        ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];

    /// Asks for each of them.
    pub fn from(mut value: impl FnMut(&str) -> String) -> Self {
        let [command, container, netns, ifname, args, path] = Self::NAMES.map(&mut value);
        Self { command, container, netns, ifname, args, path }
    }
}

/// What a plugin can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Make the interface.
    Add,
    /// Remove it.
    Del,
    /// Is it still as it was made?
    Check,
    /// Remove all interfaces but the ones listed.
    Gc,
    /// Could one be added?
    Status,
    /// Which versions are spoken?
    Version,
}

impl Command {
    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Whether it takes something away.
    pub(super) fn removes(self) -> bool {
        matches!(self, Self::Del | Self::Gc)
    }

    /// Whether a variable has to be there, by its place in [`Variables::NAMES`].
    fn needs(self, variable: usize) -> bool {
        match variable {
            1 | 3 => matches!(self, Self::Add | Self::Del | Self::Check),
            2 => matches!(self, Self::Add | Self::Check),
            5 => self != Self::Version,
            _ => false,
        }
    }
}

/// A call, its variables checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is to be done.
    pub command: Command,
    /// To which container; empty where it is about none.
    pub container: String,
    /// Where its namespace is; for DEL it may be unknown.
    pub netns: Option<PathBuf>,
    /// The interface; empty where it is about none.
    pub ifname: String,
    /// What the runtime said besides.
    pub args: Args,
}

impl Call {
    /// Checks the variables.
    ///
    /// # Errors
    /// [`Code::Environment`], with all that is missing.
    pub fn read(variables: &Variables) -> Result<Self, CniError> {
        let wrong = |message: String| Err(CniError::new(Code::Environment, message));
        let Variables { command, container, netns, ifname, args, path } = variables;
        let Some(command) = Command::ALL.into_iter().find(|known| known.name() == command) else {
            return wrong(format!("CNI_COMMAND {command:?} is no command of CNI"));
        };
        let values = [command.name(), container, netns, ifname, args, path];
        let missing: Vec<&str> = values
            .iter()
            .zip(Variables::NAMES)
            .enumerate()
            .filter(|(number, (value, _))| command.needs(*number) && value.is_empty())
            .map(|(_, (_, name))| name)
            .collect();
        if !missing.is_empty() {
            return wrong(format!("required env variables [{}] missing", missing.join(",")));
        }
        let mut problems = Vec::new();
        if command.needs(1) && !is_id(container) {
            problems.push(format!("CNI_CONTAINERID {container:?} has other characters than letters, digits and _.-"));
        }
        if command.needs(3)
            && let Err(problem) = check_ifname(ifname)
        {
            problems.push(format!("CNI_IFNAME {ifname:?} cannot be: {problem}"));
        }
        if !netns.is_empty() && !netns.starts_with('/') {
            problems.push(format!("CNI_NETNS {netns:?} is not an absolute path"));
        }
        // What something was to be has no part in removing it.
        let args = if command.removes() { Ok(Args::default()) } else { Args::read(args) };
        let args = args.unwrap_or_else(|problem| {
            problems.push(problem);
            Args::default()
        });
        if !problems.is_empty() {
            return wrong(problems.join("; "));
        }
        let netns = Some(netns).filter(|netns| !netns.is_empty()).map(PathBuf::from);
        Ok(Self { command, container: container.clone(), netns, ifname: ifname.clone(), args })
    }

    /// What the port is called: the one name by which all later commands find it.
    pub fn port(&self) -> String {
        port_name(&self.container, &self.ifname)
    }
}

/// The port of a container's interface.
pub fn port_name(container: &str, ifname: &str) -> String {
    format!("{PORT}{container}:{ifname}")
}

/// How the names of all ports begin that were made for a runtime.
pub const PORT: &str = "cni:";

/// What of `CNI_ARGS` has a meaning here. Keys that have none are passed over, with and without `IgnoreUnknown`: they are for other
/// plugins, and a runtime cannot know which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// `IP`, an address or several separated by commas, with or without a prefix length.
    pub ips: Vec<String>,
    /// `MAC`.
    pub mac: Option<String>,
    /// `K8S_POD_NAME`. Podman says its containers' names so too.
    pub pod: Option<String>,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<String>,
}

impl Args {
    fn read(text: &str) -> Result<Self, String> {
        let mut args = Self::default();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(format!("CNI_ARGS {text:?} is not a list of KEY=VALUE separated by semicolons"));
            };
            let value = value.to_owned();
            match key {
                _ if value.is_empty() => {}
                "IP" => args.ips = value.split(',').map(|ip| ip.trim().to_owned()).collect(),
                "MAC" => args.mac = Some(value),
                "K8S_POD_NAME" => args.pod = Some(value),
                "K8S_POD_NAMESPACE" => args.namespace = Some(value),
                _ => {}
            }
        }
        Ok(args)
    }
}

/// The specification's rule for ids of containers and names of networks.
pub(super) fn is_id(text: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && text.bytes().all(may) && text.len() <= MAX_ID
}

/// Bytes of a container's id. Runtimes use 64 and a few more; a port's name, which has the id in it, may have 255.
const MAX_ID: usize = 200;

/// An address with or without its prefix length.
pub(super) fn address(text: &str) -> Option<(IpAddr, Option<u8>)> {
    match text.split_once('/') {
        None => text.parse().ok().map(|address| (address, None)),
        Some(_) => {
            let cidr: Cidr = text.parse().ok()?;
            Some((cidr.address, Some(cidr.prefix)))
        }
    }
}
