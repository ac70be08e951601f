//! Options: the few that we know, and a clear word about all others. An option that is silently ignored is a network that
//! is not what somebody believes it to be (`com.docker.network.bridge.enable_icc`).

use crate::config;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Under this key are the options that people give with `-o`.
const GENERIC: &str = "com.docker.network.generic";
/// `--internal`.
const INTERNAL: &str = "com.docker.network.internal";
/// Docker's own name for the MTU, known from its bridge.
const MTU: &str = "com.docker.network.driver.mtu";
/// What Docker itself puts among an endpoint's options begins with this.
const DOCKERS_OWN: &str = "com.docker.network.";

/// Who leads a container out of its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gateway {
    /// Docker, by the bridge `docker_gwbridge` that it adds.
    #[default]
    Docker,
    /// weft, at the network's service address, where `weft expose` makes it lead somewhere.
    Weft,
    /// Nobody.
    None,
}

/// What a network of Docker's was made with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// The network of weft's file.
    pub network: String,
    /// MTU of its interfaces, where that is not the network's.
    pub mtu: Option<u16>,
    /// Who leads out.
    pub gateway: Gateway,
    /// Made with `--internal`: nobody does.
    pub internal: bool,
}

impl NetworkOptions {
    /// Reads the options of `docker network create`.
    ///
    /// # Errors
    /// All that are unknown, or the one that is wrong.
    pub fn read(options: &Map<String, Value>, networks: &[config::Network]) -> Result<Self, String> {
        let none = Map::new();
        let generic = match options.get(GENERIC) {
            None | Some(Value::Null) => &none,
            Some(Value::Object(generic)) => generic,
            Some(_) => return Err(format!("{GENERIC} must be a table of options")),
        };
        let known = ["network", "mtu", MTU, "gateway"];
        let unknown: Vec<&str> = generic.keys().map(String::as_str).filter(|key| !known.contains(key)).collect();
        if !unknown.is_empty() {
            return Err(format!(
                "unknown option{} {}: weft has -o network=NAME, -o mtu=NUMBER (or {MTU}) and \
                 -o gateway=docker|weft|none; all else is set in weft's configuration file",
                if unknown.len() > 1 { "s" } else { "" },
                unknown.iter().map(|key| shortened(key)).collect::<Vec<_>>().join(", ")
            ));
        }
        let text = |key: &str| generic.get(key).map(|value| as_text(key, value)).transpose();
        let network = text("network")?.unwrap_or_default();
        let network = find(&network, networks, "-o network=NAME")?;
        let mtu = match text("mtu")? {
            None => text(MTU)?,
            mtu => mtu,
        };
        let mtu = mtu.map(|mtu| read_mtu(&mtu, network)).transpose()?;
        let gateway = match text("gateway")?.as_deref() {
            None | Some("docker") => Gateway::Docker,
            Some("weft") => Gateway::Weft,
            Some("none") => Gateway::None,
            Some(other) => {
                return Err(format!(
                    "option gateway is {}: it is 'docker' (docker_gwbridge leads out, and publishes ports), 'weft' \
                     (the network's service address, see 'weft expose') or 'none'",
                    shortened(other)
                ));
            }
        };
        let internal = match options.get(INTERNAL) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            // As text from some versions.
            Some(other) => other.as_str() == Some("true"),
        };
        Ok(Self { network: network.name.clone(), mtu, gateway, internal })
    }
}

/// The network of the file by this name.
///
/// # Errors
/// There is none, and which there are.
pub fn find<'n>(name: &str, networks: &'n [config::Network], how: &str) -> Result<&'n config::Network, String> {
    networks.iter().find(|network| network.name == name && !name.is_empty()).ok_or_else(|| {
        let wrong = match name {
            "" => "which network is meant?".to_owned(),
            name => format!("there is no network {} in weft's configuration file.", shortened(name)),
        };
        format!("{wrong} Say it with {how}; this host has {}", listed(networks))
    })
}

/// The networks of the file, for somebody who has to choose.
pub fn listed(networks: &[config::Network]) -> String {
    let mut text = String::new();
    for network in networks {
        let subnets: Vec<String> = network.subnets.iter().map(ToString::to_string).collect();
        let subnets = if subnets.is_empty() { "no subnets".to_owned() } else { subnets.join(" and ") };
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}'{}' ({subnets})", network.name);
    }
    if text.is_empty() { "no network: add a [[network]] to the file and run 'weft reload'".to_owned() } else { text }
}

/// Refuses options of `--driver-opt`: there are none.
///
/// # Errors
/// Their names.
pub fn check_endpoint(options: &Map<String, Value>) -> Result<(), String> {
    let unknown: Vec<String> =
        options.keys().filter(|key| !key.starts_with(DOCKERS_OWN)).map(|key| shortened(key)).collect();
    match unknown.as_slice() {
        [] => Ok(()),
        unknown => Err(format!("unknown driver options of the endpoint: {}; weft has none", unknown.join(", "))),
    }
}

/// The one option of `--ipam-opt`: the network.
///
/// # Errors
/// There is another.
pub fn ipam_network(options: &Map<String, Value>) -> Result<Option<String>, String> {
    if let Some(unknown) = options.keys().find(|key| *key != "network") {
        return Err(format!("unknown IPAM option {}: weft has --ipam-opt network=NAME", shortened(unknown)));
    }
    options.get("network").map(|value| as_text("network", value)).transpose()
}

fn as_text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("option {key} must be a text")),
    }
}

fn read_mtu(text: &str, network: &config::Network) -> Result<u16, String> {
    // Below 1280 there is no IPv6 (RFC 8200 §5), below 576 hardly IPv4.
    let least = if network.subnets.iter().any(|subnet| subnet.address.is_ipv6()) { 1280 } else { 576 };
    text.parse().ok().filter(|mtu| (least..=network.mtu).contains(mtu)).ok_or_else(|| {
        format!(
            "option mtu is {}: in network '{}' it is a number from {least} to {}, the mtu of the network in weft's file",
            shortened(text),
            network.name,
            network.mtu
        )
    })
}

/// A text of somebody's as it may stand in a message.
pub fn shortened(text: &str) -> String {
    let short: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    format!("'{short}'")
}
