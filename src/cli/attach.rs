//! `weft attach`, `weft detach`, and the two kinds of waiting: for a target and its interface from outside, and for
//! the interface from inside a container.

use super::args::{AddressWish, Attach, Detach, Wait};
use super::{ask, show};
use crate::config::policy::Rate;
use crate::control::request::{self, PortStatus, Request, Response};
use crate::io::client;
use crate::io::wait::{Patience, interface_is_up};
use std::path::Path;
use std::time::Duration;

/// What a port's state is when its interface can be used.
const UP: &str = "up";

/// Runs `weft attach`.
pub(super) fn attach(socket: &Path, args: Attach) -> Result<String, String> {
    let auto = args.addresses.contains(&AddressWish::Auto);
    let exactly = args.addresses.into_iter().filter_map(|wish| match wish {
        AddressWish::Exactly(address) => Some(address),
        AddressWish::Auto => None,
    });
    let wanted = Request::Attach(request::Attach {
        target: args.target,
        network: args.network,
        addresses: exactly.collect(),
        auto,
        names: args.names,
        labels: args.labels.into_iter().collect(),
        allow: args.allow,
        rate: (args.rate_in.is_some() || args.rate_out.is_some()).then(|| Rate::new(args.rate_in, args.rate_out)),
        mac: args.mac,
        ifname: args.ifname,
        name: args.name,
    });
    let patience = Patience::new(Some(Duration::from_secs(args.wait.unwrap_or(0))));
    let mut absent = String::new();
    let answer = patience.until(|| match client::ask(socket, &wanted) {
        Ok(Response::Absent(reason)) => {
            absent = reason;
            None
        }
        Ok(Response::Attached(port)) => Some(Ok(*port)),
        Ok(Response::Refused(reason)) => Some(Err(reason)),
        Ok(other) => Some(Err(format!("the daemon answered an attach with something else: {other:?}"))),
        Err(error) => Some(Err(error.to_string())),
    });
    let mut port = answer.unwrap_or(Err(absent))?;
    if let Some(seconds) = args.wait {
        port = until_up(socket, port, patience, seconds)?;
    }
    let response = Response::Attached(Box::new(port));
    if args.json { show::json(&response) } else { Ok(show::text(&response)) }
}

/// The port once its interface is up.
fn until_up(socket: &Path, port: PortStatus, patience: Patience, seconds: u64) -> Result<PortStatus, String> {
    let mut last = port;
    let name = last.name.clone();
    let found = patience.until(|| {
        if last.state == UP {
            return Some(Ok(()));
        }
        match ask(socket, &Request::Ports) {
            Ok(Response::Ports(ports)) => match ports.into_iter().find(|port| port.name == name) {
                Some(port) => last = port,
                None => return Some(Err(format!("port '{name}' was attached, and went away while it came up"))),
            },
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        (last.state == UP).then_some(Ok(()))
    });
    match found {
        Some(outcome) => outcome.map(|()| last),
        None => Err(format!("port '{name}' is attached, and not up after {seconds} seconds: it is {}", last.state)),
    }
}

/// Runs `weft detach`.
pub(super) fn detach(socket: &Path, args: Detach) -> Result<String, String> {
    let request = Request::Detach(request::Detach { port: args.port, ifname: args.ifname });
    ask(socket, &request).map(|response| show::text(&response))
}

/// Runs `weft wait`.
pub(super) fn wait(args: &Wait) -> Result<String, String> {
    let ifname = &args.ifname;
    let is_up = || match interface_is_up(ifname) {
        Ok(up) => up.then_some(Ok(String::new())),
        Err(error) => Some(Err(format!("the kernel does not tell about interface {ifname}: {error}"))),
    };
    Patience::new(args.timeout.map(Duration::from_secs)).until(is_up).unwrap_or_else(|| {
        let seconds = args.timeout.unwrap_or_default();
        Err(format!("interface {ifname} is not up after {seconds} seconds: attach it with `weft attach` on the host"))
    })
}
