//! CHECK and STATUS: whether what was made is still there, and whether more could be made.

use super::conf::Ipam;
use super::env::Command;
use super::error::{CniError, Code};
use super::{Job, World};

impl<W: World> Job<'_, W> {
    /// Compares the container's interface with what ADD answered, and both with what the daemon knows.
    pub(super) fn check(&mut self) -> Result<(), CniError> {
        let Some(made) = &self.conf.previous else {
            let message = "there is no prevResult: a runtime gives the answer of ADD to CHECK";
            return Err(CniError::new(Code::Config, message));
        };
        let netns = self.sandbox()?.to_owned();
        let ifname = self.call.ifname.clone();
        let place = format!("interface {ifname} in {}", netns.display());
        let changed = |what: String| Err(CniError::new(Code::Changed, what));
        let ours =
            |at: usize| made.interfaces.get(at).is_some_and(|one| one.name == ifname && !one.sandbox.is_empty());
        let Some(index) = (0..made.interfaces.len()).find(|at| ours(*at)) else {
            let message = format!("prevResult has no interface {ifname} of a container");
            return Err(CniError::new(Code::Config, message));
        };
        let Some(seen) = self.look(&netns)? else { return changed(format!("{place} is gone")) };
        if !seen.up {
            return changed(format!("{place} is down"));
        }
        let mac = made.interfaces.get(index).map(|interface| interface.mac.to_ascii_lowercase()).unwrap_or_default();
        let has = seen.mac.map(|mac| mac.to_string()).unwrap_or_default();
        if !mac.is_empty() && mac != has {
            return changed(format!("{place} has the MAC address {has}, and was made with {mac}"));
        }
        let lost = made.ips.iter().filter(|ip| ip.interface.is_none_or(|at| at == index));
        if let Some(ip) = lost.map(|ip| ip.address).find(|address| !seen.addresses.contains(address)) {
            return changed(format!("{place} has lost its address {ip}"));
        }
        let there = |dst, gw| seen.routes.iter().any(|&(to, through)| to == dst && through == gw);
        let routed = made.ips.iter().map(|ip| ip.interface.unwrap_or(index));
        let only_ours = routed.clone().all(|at| at == index);
        // Over which interface a route was made is not said; where all addresses are ours, so are all routes.
        if let Some(route) = made.routes.iter().find(|route| only_ours && !there(route.dst, route.gw)) {
            return changed(format!("{place} has lost its route to {}", route.dst));
        }
        let name = self.call.port();
        match self.port(&name)? {
            None => return changed(format!("the daemon has no port {name}: {place} carries no frames")),
            Some(port) if port.network != self.conf.network => {
                return changed(format!("port {name} is in network {}, not {}", port.network, self.conf.network));
            }
            Some(port) if port.state != "up" => return changed(format!("port {name} is {}", port.state)),
            Some(_) => {}
        }
        self.delegate(Command::Check).map(|_| ())
    }

    /// Whether ADD would find what it needs.
    pub(super) fn status(&mut self) -> Result<(), CniError> {
        let network = self.network().map_err(|error| {
            // A daemon that does not run carries nobody's frames: containers that are there notice.
            let code = if error.code == Code::Later { Code::Limited } else { Code::Unavailable };
            CniError { code, ..error }
        })?;
        if self.conf.ipam == Ipam::Own && network.full {
            let message = format!(
                "this host has no address left to give in network '{}': `weft leases` shows who has them",
                network.name
            );
            return Err(CniError::new(Code::Unavailable, message));
        }
        self.delegate(Command::Status).map(|_| ())
    }
}
