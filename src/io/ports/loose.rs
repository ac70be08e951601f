//! Ports whose interface Docker moves and renames: where are they?
//!
//! The TAP's own file tells, as long as we have it: its namespace and its name (`TUNGETDEVNETNS`, `TUNGETIFF`). After a restart there is
//! the record of where it was seen last; when it was moved while nobody looked, every namespace with a process in it is
//! searched for its MAC address.

use super::{Adopted, PortError, adopt_in, destroy, leads_to, namespace_of, processes, start_of};
use crate::config::Target;
use crate::control::docker::Whereabouts;
use crate::docker::{DIGITS, SOURCE};
use crate::io::netlink::{Link, Netlink};
use crate::io::netns::{Netns, NetnsId};
use crate::io::store::{PortRecord, Via};
use crate::io::tap::{Tap, TapError, TapOffload};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

/// A process of each namespace that has one, as far as it was looked for. To look is to go through all processes of the host, and with
/// the first tick every container is asked about.
#[derive(Debug, Default)]
pub struct Residents {
    found: HashMap<NetnsId, i32>,
    /// How often all were gone through.
    looks: u64,
}

impl Residents {
    /// A process that is in a namespace at this moment.
    pub fn of(&mut self, netns: NetnsId) -> Option<i32> {
        let known = self.found.get(&netns).copied().filter(|&pid| leads_to(&namespace_of(pid), netns));
        if known.is_some() {
            return known;
        }
        self.looks += 1;
        self.found.clear();
        for pid in processes() {
            if let Ok(metadata) = fs::metadata(namespace_of(pid)) {
                self.found.entry(NetnsId::of(&metadata)).or_insert(pid);
            }
        }
        self.found.get(&netns).copied()
    }

    /// How often all processes were gone through.
    pub fn looks(&self) -> u64 {
        self.looks
    }
}

/// Where a port's interface is, and its record where that is another one.
pub fn find(
    tap: &Tap,
    record: &PortRecord,
    sandbox: Option<&str>,
    residents: &mut Residents,
) -> (Whereabouts, Option<PortRecord>) {
    let (Ok(netns), Ok(ifname), Ok(here)) = (tap.netns(), tap.name(), Netns::current()) else {
        return (Whereabouts::Nowhere, None);
    };
    let (whereabouts, via, target) = if netns.id() == here.id() {
        (Whereabouts::Here, Via::Host, Target::Host)
    } else {
        // A namespace that is only mounted somewhere is no container's any more.
        let Some(pid) = residents.of(netns.id()) else { return (Whereabouts::Nowhere, None) };
        let by_pid = || start_of(pid).map(|started| Via::Process { pid, started, engine: None });
        let sandbox = sandbox.map(PathBuf::from);
        let by_path = sandbox.clone().filter(|path| leads_to(path, netns.id())).map(Via::Path);
        let Some(via) = by_path.or_else(by_pid) else { return (Whereabouts::Nowhere, None) };
        let target = sandbox.map_or(Target::Pid(pid), Target::Netns);
        (Whereabouts::There(ifname.clone()), via, target)
    };
    let mut now = PortRecord { netns: netns.id(), ..record.clone() };
    (now.spec.ifname, now.spec.target) = (ifname, target);
    // How it was reached is no news while it is reached.
    if now.netns != record.netns {
        now.via = via;
    }
    let news = (now != *record).then_some(now);
    (whereabouts, news)
}

/// Opens a port again that is not where it was seen last; its record then says where it is.
///
/// # Errors
/// [`PortError`]: it may be there, but cannot be opened.
pub fn adopt_elsewhere(record: &mut PortRecord, offload: TapOffload) -> Result<Adopted, PortError> {
    let here = Netns::current().map_err(PortError::Namespace)?;
    let mut places = vec![(here, Via::Host)];
    for pid in processes() {
        let Some(started) = start_of(pid) else { continue };
        let Ok(netns) = Netns::open(&namespace_of(pid)) else { continue };
        if places.iter().all(|(known, _)| known.id() != netns.id()) {
            places.push((netns, Via::Process { pid, started, engine: None }));
        }
    }
    for (netns, via) in places {
        if let Adopted::Port(tap) = adopt_in(&netns, record, offload)? {
            (record.netns, record.via) = (netns.id(), via);
            return Ok(Adopted::Port(tap));
        }
    }
    Ok(Adopted::Gone("its container is gone".to_owned()))
}

/// The interfaces in our namespace that are called like those of endpoints.
pub fn left() -> Vec<String> {
    let links = Netlink::open().ok().and_then(|mut netlink| netlink.links().ok()).unwrap_or_default();
    let is_id = |digits: &str| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ours = |link: &Link| link.kind.as_deref() == Some("tun") && link.name.strip_prefix(SOURCE).is_some_and(is_id);
    links.into_iter().filter(ours).map(|link| link.name).collect()
}

/// Removes a TAP from our namespace, unless another daemon has it open.
///
/// # Errors
/// [`PortError`]: it is there still.
pub fn remove(ifname: &str, offload: TapOffload) -> Result<(), PortError> {
    match Tap::open_existing(ifname, offload) {
        Ok(tap) => destroy(&tap),
        Err(TapError::Missing(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
