//! `weft expose`, `hide`, `publish`, `unpublish` and `published`: what of the host is in networks, and the other way round.

use super::table::{Table, list};
use crate::config::text::host_name;
use crate::control::nat::{HostPort, Proto};
use crate::control::request::{self, Backend, Outside};
use crate::wire::cidr::Cidr;
use clap::Args;
use std::net::IpAddr;

/// `weft expose`.
#[derive(Debug, Args)]
pub(super) struct Expose {
    /// The network's name, as in the configuration file
    network: String,
    /// An address with prefix length, or `auto`; may be given several times [default: as it is, or auto]
    #[arg(long = "ip", value_name = "CIDR|auto", value_parser = wish)]
    addresses: Vec<Wish>,
    /// Let the network's containers reach the outside through this host
    #[arg(long)]
    masquerade: bool,
}

/// An address of the host: this one, or any.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Auto,
    Exactly(Cidr),
}

fn wish(text: &str) -> Result<Wish, crate::wire::cidr::NotACidr> {
    if text == "auto" { Ok(Wish::Auto) } else { text.parse().map(Wish::Exactly) }
}

impl From<Expose> for request::Expose {
    fn from(args: Expose) -> Self {
        let exactly = args.addresses.iter().filter_map(|wish| match wish {
            Wish::Exactly(cidr) => Some(*cidr),
            Wish::Auto => None,
        });
        Self {
            addresses: exactly.collect(),
            auto: args.addresses.iter().any(|wish| matches!(wish, Wish::Auto)),
            masquerade: args.masquerade,
            network: args.network,
        }
    }
}

/// `weft publish`.
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// The host's port, and the containers' name or address and port; IPv6 addresses in brackets
    #[arg(value_name = "[IP:]HOSTPORT:NAME:PORT[/udp]", value_parser = mapping)]
    mapping: Mapping,
    /// The network the containers are in
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Who asks, for `weft unpublish --holder`
    #[arg(long, value_name = "TEXT")]
    holder: Option<String>,
}

/// What is published, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    host: HostPort,
    to: Backend,
    port: u16,
}

impl From<Publish> for request::Publish {
    fn from(args: Publish) -> Self {
        let Mapping { host, to, port } = args.mapping;
        Self {
            network: args.network,
            host_ip: host.ip,
            host_port: host.port,
            proto: host.proto,
            to,
            port,
            holder: args.holder,
        }
    }
}

/// `weft unpublish`.
#[derive(Debug, Args)]
pub(super) struct Unpublish {
    /// The host's port, as it was given to `weft publish`
    #[arg(value_name = "[IP:]HOSTPORT[/udp]", value_parser = host_port, required_unless_present = "holder")]
    port: Option<HostPort>,
    /// All that was published for this one
    #[arg(long, value_name = "TEXT", conflicts_with = "port")]
    holder: Option<String>,
}

impl From<Unpublish> for request::Unpublish {
    fn from(args: Unpublish) -> Self {
        match args.port {
            Some(HostPort { ip, port, proto }) => Self::Port { host_ip: ip, host_port: port, proto },
            None => Self::Holder(args.holder.unwrap_or_default()),
        }
    }
}

/// Why a text is not what is published.
const FORM: &str = "write [IP:]HOSTPORT:NAME:PORT, as 8080:web:80, 127.0.0.1:53:dns:53/udp or '[::]:80:[fd00::5]:80'";

fn mapping(text: &str) -> Result<Mapping, String> {
    let (text, proto) = proto(text)?;
    let parts = parts(text).ok_or(FORM)?;
    let (host, [to, inside]) = match parts.as_slice() {
        [host, to, inside] => (vec![*host], [*to, *inside]),
        [ip, host, to, inside] => (vec![*ip, *host], [*to, *inside]),
        _ => return Err(FORM.to_owned()),
    };
    let to = match to.parse() {
        Ok(address) => Backend::Address(address),
        Err(_) => Backend::Name(host_name(to).map_err(|error| format!("'{to}' is no name: {error}"))?),
    };
    Ok(Mapping { host: host_of(&host, proto)?, to, port: port(inside)? })
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let (text, proto) = proto(text)?;
    host_of(&parts(text).ok_or(FORM)?, proto)
}

fn host_of(parts: &[&str], proto: Proto) -> Result<HostPort, String> {
    let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("'{text}' is no IP address: {FORM}"));
    match parts {
        [only] => Ok(HostPort { ip: None, port: port(only)?, proto }),
        [address, last] => Ok(HostPort { ip: Some(ip(address)?), port: port(last)?, proto }),
        _ => Err("write [IP:]HOSTPORT, as 8080 or 127.0.0.1:53/udp".to_owned()),
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port > 0).ok_or_else(|| format!("'{text}' is no port: it is 1 to 65535"))
}

fn proto(text: &str) -> Result<(&str, Proto), String> {
    match text.rsplit_once('/') {
        None => Ok((text, Proto::Tcp)),
        Some((text, "tcp")) => Ok((text, Proto::Tcp)),
        Some((text, "udp")) => Ok((text, Proto::Udp)),
        Some((_, other)) => Err(format!("'{other}' cannot be published: /tcp and /udp can")),
    }
}

/// What stands between colons, those in brackets aside.
fn parts(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) = match rest.strip_prefix('[') {
            Some(inside) => inside.split_once(']')?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        parts.push(part);
        match behind.strip_prefix(':') {
            Some(next) => rest = next,
            None => return behind.is_empty().then_some(parts),
        }
    }
}

/// What `weft published` shows.
pub(super) fn text(outside: &Outside) -> String {
    let mut text = String::new();
    if outside.exposed.is_empty() {
        text.push_str("no network is exposed: this host has no address in one; `weft expose NETWORK` gives it one\n");
    } else {
        let mut table = Table::new(&["EXPOSED", "INTERFACE", "STATE", "ADDRESSES", "MASQUERADE", "BY"]);
        for one in &outside.exposed {
            table.row([
                one.network.clone(),
                one.ifname.clone(),
                one.state.clone(),
                list(one.addresses.iter().map(|address| address.cidr), ","),
                if one.masquerade { "yes" } else { "no" }.to_owned(),
                if one.asked_for { "expose" } else { "publish" }.to_owned(),
            ]);
        }
        text.push_str(&table.render());
    }
    if !outside.published.is_empty() {
        let mut table = Table::new(&["PUBLISHED", "NETWORK", "TO", "FOR", "INSTANCES"]);
        for one in &outside.published {
            let publish = &one.publish;
            let instances = one.instances.iter().map(|instance| format!("{} {}", instance.address, instance.state));
            table.row([
                publish.host().to_string(),
                publish.network.clone(),
                format!("{}:{}", publish.to, publish.port),
                publish.holder.clone().unwrap_or_default(),
                list(instances, ", "),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_published_is_read_as_docker_has_it() {
        let shown = |text: &str| mapping(text).map(|m| format!("{} {} {}", m.host, m.to, m.port));
        for (text, means) in [
            ("8080:web:80", "8080/tcp web 80"),
            ("8080:web:80/tcp", "8080/tcp web 80"),
            ("127.0.0.1:53:resolver:5353/udp", "127.0.0.1:53/udp resolver 5353"),
            ("80:10.32.0.5:8080", "80/tcp 10.32.0.5 8080"),
            ("[2001:db8::1]:443:[fd00:32::5]:8443", "[2001:db8::1]:443/tcp [fd00:32::5] 8443"),
        ] {
            assert_eq!(shown(text), Ok(means.to_owned()), "{text}");
        }
        for (text, why) in [
            ("8080", "HOSTPORT:NAME:PORT"),
            ("8080:web", "HOSTPORT:NAME:PORT"),
            ("0:web:80", "'0' is no port"),
            ("8080:web:65536", "'65536' is no port"),
            ("8080:web:80/sctp", "'sctp' cannot be published"),
            ("x:8080:web:80", "'x' is no IP address"),
            ("8080:we b:80", "'we b' is no name"),
            ("[::1:80:web:80", "HOSTPORT:NAME:PORT"),
        ] {
            let said = shown(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert_eq!(host_port("[::1]:53/udp").unwrap().to_string(), "[::1]:53/udp");
        assert_eq!(host_port("8080").unwrap().to_string(), "8080/tcp");
        assert!(host_port("a:b:c").is_err());
    }
}
