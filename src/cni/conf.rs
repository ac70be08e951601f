//! The configuration that a runtime writes to standard input: one plugin's part of a list, with what the runtime put in.
//!
//! A key that is not known is refused with its value, since a misspelt one would silently make another network than was meant. Three kinds are
//! passed over: those that begin with `_` (comments), those with a dot or a slash in them (a vendor's own: `cni.dev/…`), and, in `args` and
//! `runtimeConfig`, those that are for other plugins. Where something is to be removed nothing is refused that can be done without: what
//! was added with a configuration must go with it, however wrong that is meanwhile.

use super::env::{Call, Command, address, is_id};
use super::error::{CniError, Code};
use super::success::{Dns, Success, or_null};
use super::version::Version;
use crate::config::text::{host_name, label};
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// What is to be made, whoever said it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conf {
    /// The version it is written in.
    pub version: Version,
    /// The list's name: what containers it made are told apart by from those of another list.
    pub name: String,
    /// The network of weft.
    pub network: String,
    /// The daemon's control socket, where it is not the usual one.
    pub socket: Option<PathBuf>,
    /// Who gives addresses.
    pub ipam: Ipam,
    /// Addresses asked for, with their prefix length if that was said.
    pub ips: Vec<(IpAddr, Option<u8>)>,
    /// The MAC address asked for.
    pub mac: Option<Mac>,
    /// Whether there is a default route through the network's gateway; `None` leaves it to the network.
    pub default_route: Option<bool>,
    /// Who resolves names, where that was said, also if it was that nobody does.
    pub dns: Option<Dns>,
    /// Names asked for.
    pub aliases: Vec<String>,
    /// By what policies may know the port.
    pub labels: BTreeMap<String, String>,
    /// Its limits.
    pub bandwidth: Option<Bandwidth>,
    /// Ports of the host that lead to it.
    pub port_mappings: Vec<PortMapping>,
    /// What plugins before us made, or what we did.
    pub previous: Option<Success>,
    /// For GC, containers and interfaces that are to stay; `None` where the runtime did not say.
    pub valid: Option<Vec<(String, String)>>,
}

/// Who gives addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipam {
    /// weft does.
    Own,
    /// Nobody.
    Nobody,
    /// The plugin of this name.
    Plugin(String),
}

/// Limits in bits a second, and how many bits may come at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Bandwidth {
    /// Towards the container.
    #[serde(deserialize_with = "or_null")]
    pub ingress_rate: u64,
    /// The same, at once.
    #[serde(deserialize_with = "or_null")]
    pub ingress_burst: u64,
    /// From the container.
    #[serde(deserialize_with = "or_null")]
    pub egress_rate: u64,
    /// The same, at once.
    #[serde(deserialize_with = "or_null")]
    pub egress_burst: u64,
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortMapping {
    /// The host's.
    pub host_port: u16,
    /// The container's.
    pub container_port: u16,
    /// `tcp` or `udp`, or nothing for the first.
    #[serde(deserialize_with = "or_null")]
    pub protocol: String,
    /// An address of the host; empty means all.
    #[serde(rename = "hostIP", deserialize_with = "or_null")]
    pub host_ip: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    cni_version: Option<String>,
    name: Option<String>,
    network: Option<String>,
    socket: Option<PathBuf>,
    ipam: Option<Map<String, Value>>,
    mac: Option<String>,
    default_route: Option<bool>,
    dns: Option<Dns>,
    labels: Option<BTreeMap<String, String>>,
    runtime_config: Option<RuntimeConfig>,
    args: Option<Arguments>,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<ValidAttachment>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(deserialize_with = "or_null")]
    ips: Vec<String>,
    mac: Option<String>,
    #[serde(deserialize_with = "or_null")]
    dns: RuntimeDns,
    #[serde(deserialize_with = "or_null")]
    aliases: BTreeMap<String, Vec<String>>,
    bandwidth: Option<Bandwidth>,
    #[serde(deserialize_with = "or_null")]
    port_mappings: Vec<PortMapping>,
    ip_ranges: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeDns {
    #[serde(deserialize_with = "or_null")]
    servers: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    searches: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    options: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Arguments {
    #[serde(deserialize_with = "or_null")]
    cni: CniArguments,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CniArguments {
    #[serde(deserialize_with = "or_null")]
    ips: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    labels: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    key: String,
    value: String,
}

#[derive(Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// Bytes of the list's name: as long as a label's value may be.
const MAX_NAME: usize = 63;

/// Keys that runtimes and libraries leave in, and that ask nothing of a plugin.
const WITHOUT_MEANING: [&str; 9] = [
    "type",
    "capabilities",
    "cniVersions",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "plugins",
    "deviceID",
    "pciBusID",
];

/// Keys of other plugins, and where to say it instead.
const ELSEWHERE: [(&str, &str); 7] = [
    ("mtu", "set mtu of the [[network]] in weft's file"),
    ("ipMasq", "run `weft expose NETWORK --masquerade` on the host"),
    ("isGateway", "the network's service address is there without it; defaultRoute makes it the way out"),
    ("isDefaultGateway", "say defaultRoute"),
    ("bridge", "a network of weft needs no bridge: name the network"),
    ("vlan", "frames with VLAN tags pass a network of weft as they are"),
    ("routes", "say them in ipam"),
];

impl Conf {
    /// Reads a configuration for a call.
    ///
    /// # Errors
    /// With the version it is in, as far as that could be read.
    pub fn read(bytes: &[u8], call: &Call) -> Result<Self, (Version, CniError)> {
        let object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| (Version::LATEST, decode(&format!("no JSON object: {error}"))))?;
        let version = match object.get("cniVersion") {
            None | Some(Value::Null) => Version::read(None),
            Some(Value::String(name)) => Version::read(Some(name)),
            Some(other) => Err(decode(&format!("cniVersion is {other}, and should be a text"))),
        };
        let version = version.map_err(|error| (Version::LATEST, error))?;
        Self::of(object, version, call).map_err(|error| (version, error))
    }

    fn of(object: Map<String, Value>, version: Version, call: &Call) -> Result<Self, CniError> {
        let since = match call.command {
            Command::Check => Version::V0_4_0,
            Command::Gc | Command::Status => Version::V1_1_0,
            _ => Version::V0_3_0,
        };
        if version < since {
            let command = call.command.name();
            let message = format!("cniVersion {version} has no {command}: it came with {since}");
            return Err(CniError::new(Code::Version, message));
        }
        let object = if call.command.removes() { essential(object) } else { object };
        let text: Text = serde_json::from_value(object.into()).map_err(|error| decode(&error.to_string()))?;
        // Read before, and not needed here again.
        let _ = text.cni_version;
        let name = text.name.unwrap_or_default();
        if !is_id(&name) || name.len() > MAX_NAME {
            return Err(config(format!(
                "name {name:?} is no network's name: at most {MAX_NAME} letters, digits and _.-, a letter or digit first"
            )));
        }
        if let Some((key, value)) = text.rest.iter().find(|(key, value)| !is_passed_over(key, value)) {
            return Err(unsupported(key, value));
        }
        let ipam = read_ipam(text.ipam.as_ref())?;
        let runtime = text.runtime_config.unwrap_or_default();
        if let (Some(ranges), Ipam::Own) = (&runtime.ip_ranges, &ipam) {
            let message =
                format!("runtimeConfig.ipRanges {ranges} is not for weft's own addresses, which come from slices");
            return Err(CniError::new(Code::Unsupported, message));
        }
        let cni = text.args.unwrap_or_default().cni;
        let ips = [runtime.ips, cni.ips, call.args.ips.clone()].into_iter().find(|ips| !ips.is_empty());
        let ips = ips.unwrap_or_default();
        let read_ip = |ip: &String| address(ip).ok_or_else(|| config(format!("{ip:?} is no IP address")));
        let ips = ips.iter().map(read_ip).collect::<Result<_, _>>()?;
        let mac = [runtime.mac, call.args.mac.clone(), text.mac].into_iter().flatten().find(|mac| !mac.is_empty());
        let read_mac = |mac: String| mac.parse().map_err(|_| config(format!("{mac:?} is no MAC address")));
        let mac = mac.map(read_mac).transpose()?;
        let of_args = cni.labels.into_iter().map(|label| (label.key, label.value));
        let labels = text.labels.unwrap_or_default().into_iter().chain(of_args);
        let read_label = |(key, value): (String, String)| {
            label(&format!("{key}={value}"))
                .map_err(|problem| config(format!("label {key:?} = {value:?}: {problem}")))
        };
        let labels = labels.map(read_label).collect::<Result<_, _>>()?;
        let aliases = runtime.aliases.get(&name).into_iter().flatten();
        let read_alias =
            |alias: &String| host_name(alias).map_err(|problem| config(format!("alias {alias:?}: {problem}")));
        let aliases = aliases.map(read_alias).collect::<Result<_, _>>()?;
        let asked = Dns {
            nameservers: runtime.dns.servers,
            domain: String::new(),
            search: runtime.dns.searches,
            options: runtime.dns.options,
        };
        let valid = text.valid.map(|valid| valid.into_iter().map(|one| (one.container, one.ifname)).collect());
        let previous = text.prev_result.filter(|value| !value.is_null());
        let previous = previous.map(|value| Success::read(value, "prevResult")).transpose()?;
        Ok(Self {
            version,
            network: text.network.filter(|network| !network.is_empty()).unwrap_or_else(|| name.clone()),
            socket: text.socket.filter(|socket| !socket.as_os_str().is_empty()),
            ipam,
            ips,
            mac,
            default_route: text.default_route,
            dns: if asked.is_empty() { text.dns } else { Some(asked) },
            aliases,
            labels,
            bandwidth: runtime.bandwidth.filter(|bandwidth| *bandwidth != Bandwidth::default()),
            port_mappings: runtime.port_mappings,
            previous,
            valid,
            name,
        })
    }
}

/// What is left to say about a configuration when something is removed.
fn essential(object: Map<String, Value>) -> Map<String, Value> {
    const NEEDED: [&str; 6] = ["cniVersion", "name", "network", "socket", "ipam", "cni.dev/valid-attachments"];
    object.into_iter().filter(|(key, _)| NEEDED.contains(&key.as_str())).collect()
}

fn read_ipam(ipam: Option<&Map<String, Value>>) -> Result<Ipam, CniError> {
    let Some(ipam) = ipam else { return Ok(Ipam::Own) };
    match ipam.get("type") {
        None | Some(Value::Null) => match ipam.keys().next() {
            None => Ok(Ipam::Nobody),
            Some(_) => Err(config("ipam has no type".to_owned())),
        },
        Some(Value::String(kind)) if kind == "weft" => match ipam.iter().find(|(key, _)| *key != "type") {
            None => Ok(Ipam::Own),
            Some((key, value)) => Err(CniError::new(
                Code::Unsupported,
                format!(
                    "ipam.{key} {value} is not known: weft's own addresses come from the network's subnets and slices"
                ),
            )),
        },
        Some(Value::String(kind)) if is_id(kind) => Ok(Ipam::Plugin(kind.clone())),
        Some(other) => Err(config(format!("ipam.type {other} is no plugin's name"))),
    }
}

fn is_passed_over(key: &str, value: &Value) -> bool {
    // What is false asks for nothing.
    key.starts_with('_') || key.contains(['.', '/']) || WITHOUT_MEANING.contains(&key) || *value == Value::Bool(false)
}

fn unsupported(key: &str, value: &Value) -> CniError {
    let elsewhere = ELSEWHERE.iter().find(|(other, _)| *other == key);
    let remedy = elsewhere.map_or("remove it, or see docs/cni.md for the keys there are", |(_, remedy)| *remedy);
    CniError::new(Code::Unsupported, format!("{key} {value} is not known to weft: {remedy}"))
}

fn decode(problem: &str) -> CniError {
    CniError::new(Code::Decode, format!("the configuration on standard input cannot be read: {problem}"))
}

fn config(problem: String) -> CniError {
    CniError::new(Code::Config, problem)
}

/// The prefix length that an address has in a network: of the subnet it lies in.
pub(super) fn within(address: IpAddr, subnets: &[Cidr]) -> Option<Cidr> {
    let subnet = subnets.iter().find(|subnet| subnet.contains(address))?;
    Some(Cidr { address, prefix: subnet.prefix })
}
