//! A host of the lab and its containers: namespaces, addresses, files.

use super::daemon::{Daemon, Files};
use super::spec::{self, CONTAINER_IFNAME, LabSpec};
use super::underlay::sysctl;
use super::{LabError, ping, process};
use crate::config::Target;
use crate::control::request::{Request, Response};
use crate::io::client;
use crate::io::netlink::Netlink;
use crate::io::netns::Netns;
use crate::wire::key::PublicKey;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a container's link-local address may be tentative: duplicate address detection takes a second where it
/// cannot be switched off.
const LINK_LOCAL: Duration = Duration::from_secs(4);

/// A container: a namespace with one port.
#[derive(Debug)]
pub struct Container {
    /// `h1/c1`.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// The network it is in, by name.
    pub network: String,
    /// Its IPv4 address, with a prefix of 16 bits.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, with a prefix of 64 bits.
    pub v6: Ipv6Addr,
    /// Its link-local address on [`CONTAINER_IFNAME`], once it is attached.
    pub link_local: Option<Ipv6Addr>,
}

impl Container {
    /// The target that attaches it, as long as this process lives.
    pub fn target(&self) -> Target {
        Target::Netns(netns_path(&self.netns))
    }

    /// Pings `to` from inside, with `size` bytes, until it answers or `patience` is over.
    ///
    /// # Errors
    /// [`LabError::Ping`].
    pub fn ping(&self, to: IpAddr, size: usize, patience: Duration) -> Result<Duration, LabError> {
        let link_local = matches!(to, IpAddr::V6(to) if to.is_unicast_link_local());
        let outcome = ping::Pinger::open(&self.netns, to, link_local.then_some(CONTAINER_IFNAME))
            .and_then(|mut pinger| pinger.until(size, patience));
        outcome.map_err(|source| LabError::Ping { from: self.name.clone(), to: to.to_string(), source })
    }

    /// A command that starts inside.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn command(&self, program: &str) -> Result<Command, LabError> {
        let mut command = Command::new(program);
        process::inside(&self.netns, &mut command).map_err(LabError::io(format!("enter {}", self.name)))?;
        Ok(command)
    }
}

/// A host: a namespace with `eth0` on the underlay and a daemon.
#[derive(Debug)]
pub struct Host {
    /// `h1`.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its IPv4 address on the underlay; unspecified when it has none.
    pub v4: Ipv4Addr,
    /// Its IPv6 address on the underlay; unspecified when it has none.
    pub v6: Ipv6Addr,
    /// Its daemon's files.
    pub files: Files,
    /// Its daemon's identity.
    pub public_key: PublicKey,
    /// Its containers.
    pub containers: Vec<Container>,
    pub(super) daemon: Option<Daemon>,
}

impl Host {
    /// Its daemon, while it has one.
    pub fn daemon(&self) -> Option<&Daemon> {
        self.daemon.as_ref()
    }

    /// Asks its daemon.
    ///
    /// # Errors
    /// It does not answer. A refusal is an answer.
    pub fn control(&self, request: &Request) -> Result<Response, LabError> {
        Ok(client::ask(&self.files.socket(), request)?)
    }
}

impl Host {
    /// Makes the namespaces and files of host `h`.
    pub(super) fn lay(spec: &LabSpec, dir: &Path, h: usize) -> Result<Self, LabError> {
        let name = format!("h{h}");
        let netns = fresh(&name)?;
        let files = Files { dir: dir.join(&name) };
        let public_key = files.make().map_err(LabError::io(format!("make the files of {name}")))?;
        let networks =
            spec.networks.iter().flat_map(|network| std::iter::repeat_n(&network.name, network.containers));
        let containers = networks.enumerate().map(|(i, network)| {
            let (v4, v6) = spec::container_addresses(h, i + 1);
            let name = format!("{name}/c{}", i + 1);
            Ok(Container { netns: fresh(&name)?, name, network: network.clone(), v4, v6, link_local: None })
        });
        let containers = containers.collect::<Result<_, LabError>>()?;
        let (v4, v6) = spec.addresses(h).or_unspecified();
        Ok(Self { name, netns, v4, v6, files, public_key, containers, daemon: None })
    }
}

impl Host {
    /// Namespaces as after a reboot: new ones, with nothing in them. The files stay.
    pub(super) fn renew(&mut self) -> Result<(), LabError> {
        self.netns = fresh(&self.name)?;
        for container in &mut self.containers {
            container.netns = fresh(&container.name)?;
            container.link_local = None;
        }
        Ok(())
    }
}

pub(super) fn fresh(name: &str) -> Result<Netns, LabError> {
    let netns = Netns::create().map_err(LabError::io(format!("make the namespace of {name}")))?;
    // Every address here is unique by construction; detection of duplicates would only take its second.
    for interfaces in ["all", "default"] {
        sysctl(&netns, &format!("ipv6/conf/{interfaces}/accept_dad"), "0");
    }
    Ok(netns)
}

/// A path by which another process can open a namespace we hold.
fn netns_path(netns: &Netns) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()))
}

/// The link-local address of a container's interface, once it can be used.
pub(super) fn link_local(netns: &Netns) -> Option<Ipv6Addr> {
    let look = || -> Option<Ipv6Addr> {
        let mut netlink = Netlink::open().ok()?;
        let index = netlink.link(CONTAINER_IFNAME).ok()??.index;
        let ready = netlink.addresses(index).ok()?.into_iter().filter(|address| !address.tentative);
        ready.into_iter().find_map(|address| match address.cidr.address {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        })
    };
    let deadline = Instant::now() + LINK_LOCAL;
    loop {
        let found = netns.run(look).ok().flatten();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
