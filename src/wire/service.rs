//! A service: a port of TCP or UDP, and what it is called, as SRV records have it (RFC 2782).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest name of a service (RFC 6335 §5.1).
const MAX_SERVICE: usize = 15;

/// What runs on top of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// `[SERVICE:]PORT[/tcp|/udp]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Service {
    /// What it is called, in lower case; empty where only its port says it.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// The text is not a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a service is [NAME:]PORT[/tcp|/udp], NAME being at most 15 letters, digits and '-', like http:8080/tcp")]
pub struct NotAService;

impl Service {
    /// One with this name, if that can name a service (RFC 6335 §5.1, digits alone being a port's).
    ///
    /// # Errors
    /// It cannot, or the port is 0.
    pub fn new(name: &str, protocol: Protocol, port: u16) -> Result<Self, NotAService> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let is_name = name.len() <= MAX_SERVICE
            && name.bytes().all(inner)
            && name.bytes().any(|b| b.is_ascii_alphabetic())
            && !name.starts_with('-')
            && !name.ends_with('-');
        if (is_name || name.is_empty()) && port > 0 {
            Ok(Self { name: name.to_ascii_lowercase(), protocol, port })
        } else {
            Err(NotAService)
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() {
            write!(f, "{}:", self.name)?;
        }
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl FromStr for Service {
    type Err = NotAService;
    fn from_str(text: &str) -> Result<Self, NotAService> {
        let (text, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((text, "udp")) => (text, Protocol::Udp),
            Some(_) => return Err(NotAService),
        };
        let (name, port) = text.split_once(':').unwrap_or(("", text));
        let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = if is_number { port.parse().map_err(|_| NotAService)? } else { return Err(NotAService) };
        Self::new(name, protocol, port)
    }
}

impl TryFrom<String> for Service {
    type Error = NotAService;
    fn try_from(text: String) -> Result<Self, NotAService> {
        text.parse()
    }
}

impl From<Service> for String {
    fn from(service: Service) -> Self {
        service.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_service_is_read_as_it_is_written() {
        for (text, written) in [("80", "80/tcp"), ("53/udp", "53/udp"), ("HTTP:8080/tcp", "http:8080/tcp")] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), written);
            assert_eq!(written.parse::<Service>().unwrap().to_string(), written);
        }
        for wrong in
            ["", "0", "65536", "+80", "http", "80/sctp", "80/", "-a:80", "12:80", "a_b:80", "80/tcp/tcp", "a:b:80"]
        {
            assert!(wrong.parse::<Service>().is_err(), "{wrong}");
        }
    }
}
