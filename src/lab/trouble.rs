//! What befalls a running lab: hosts that crash and reboot, cables, lines, boxes, partitions.
//!
//! Nobody in the lab is told of any of it.

use super::link::LinkSettings;
use super::topology::{Middlebox, Site, Topology};
use super::underlay::Underlay;
use super::{Lab, LabError, Stop, host, spec};
use std::net::{Ipv4Addr, Ipv6Addr};

impl Lab {
    /// Kills the daemon of host `h`. Its containers stay where they are and reach nobody.
    ///
    /// # Errors
    /// There is none.
    pub fn crash(&mut self, h: usize) -> Result<(), LabError> {
        self.kill_daemon(h, libc::SIGKILL).map(drop)
    }

    /// Turns host `h` off, if it is still on, and on again: its namespaces and those of its containers are new, its files
    /// are the old ones. The daemon is started and the containers are attached again.
    ///
    /// # Errors
    /// The kernel or the daemon refused.
    pub fn reboot(&mut self, h: usize, stop: &Stop) -> Result<(), LabError> {
        if self.host(h).daemon().is_some() {
            self.crash(h)?;
        }
        let host = &mut self.hosts[h - 1];
        host.renew()?;
        self.underlay.replace(&self.spec, &host.netns, h)?;
        self.start_daemon(h, stop)?;
        for c in 1..=self.hosts[h - 1].containers.len() {
            self.attach(h, c)?;
        }
        for container in &mut self.hosts[h - 1].containers {
            container.link_local = host::link_local(&container.netns);
        }
        Ok(())
    }

    /// Moves host `h` to site `site`, as a laptop that is carried from home to the office: its interface and its
    /// addresses are others, its processes go on.
    ///
    /// # Errors
    /// The underlay is not routed or has no such site, or the kernel refused.
    pub fn relocate(&mut self, h: usize, site: usize) -> Result<(), LabError> {
        self.change_site(site, |_| {})?;
        let carry = |topology: &mut Topology| {
            for (at, place) in (1..).zip(&mut topology.sites) {
                if at == site {
                    place.hosts.insert(h);
                } else {
                    place.hosts.remove(&h);
                }
            }
        };
        self.change_topology(carry)?;
        if let spec::Underlay::Routed(topology) = &mut self.spec.underlay {
            carry(topology);
        }
        let host = &mut self.hosts[h - 1];
        (host.v4, host.v6) = self.spec.addresses(h).or_unspecified();
        self.underlay.replace(&self.spec, &host.netns, h)
    }

    /// Changes sites, boxes and lines of a routed underlay while it runs; see [`super::internet::Internet::change`].
    ///
    /// # Errors
    /// The underlay is another.
    pub fn change_topology(&self, change: impl FnOnce(&mut Topology)) -> Result<(), LabError> {
        self.underlay.change_topology(change)
    }

    /// Puts another box in front of site `site`.
    ///
    /// # Errors
    /// There is no such site.
    pub fn set_box(&self, site: usize, middlebox: Middlebox) -> Result<(), LabError> {
        self.change_site(site, |site| site.middlebox = middlebox)
    }

    /// Changes the line of site `site`.
    ///
    /// # Errors
    /// There is no such site.
    pub fn set_line(&self, site: usize, line: LinkSettings) -> Result<(), LabError> {
        self.change_site(site, |site| site.line = line)
    }

    /// Changes site `site`.
    ///
    /// # Errors
    /// There is no such site.
    pub fn change_site(&self, site: usize, change: impl FnOnce(&mut Site)) -> Result<(), LabError> {
        let mut found = false;
        self.change_topology(|topology| {
            if let Some(site) = site.checked_sub(1).and_then(|at| topology.sites.get_mut(at)) {
                change(site);
                found = true;
            }
        })?;
        if found { Ok(()) } else { Err(LabError::Refused(format!("the topology has no site {site}"))) }
    }

    /// Parts the hosts: those of different groups do not reach each other. Those in none are one more group.
    ///
    /// # Errors
    /// The underlay is not routed.
    pub fn partition(&self, groups: &[&[usize]]) -> Result<(), LabError> {
        let groups = groups.iter().map(|group| group.iter().copied().collect()).collect();
        self.change_topology(|topology| topology.groups = groups)
    }

    /// Joins what [`Lab::partition`] has parted.
    ///
    /// # Errors
    /// The underlay is not routed.
    pub fn heal(&self) -> Result<(), LabError> {
        self.partition(&[])
    }

    /// What became of the packets on a routed underlay; `None` on another.
    pub fn internet_counts(&self) -> Option<super::internet::Counts> {
        match &self.underlay {
            Underlay::Routed(wire) => Some(wire.with(|internet| internet.counts())),
            Underlay::Bridge { .. } | Underlay::Impaired(_) => None,
        }
    }

    /// Plugs or pulls the underlay cable of host `h`.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_cable(&self, h: usize, plugged: bool) -> Result<(), LabError> {
        self.underlay.set_cable(h, plugged)
    }

    /// Moves host `h` to other underlay addresses in 192.0.2.0/24 and 2001:db8::/64. Nobody is told.
    ///
    /// # Errors
    /// The kernel refused, or the underlay is the impaired wire.
    pub fn readdress(&mut self, h: usize, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<(), LabError> {
        let host = &mut self.hosts[h - 1];
        self.underlay.readdress(&host.netns, h, v4, v6, self.spec.underlay_mtu)?;
        (host.v4, host.v6) = (v4, v6);
        Ok(())
    }

    /// Changes what the impaired wire does to frames.
    ///
    /// # Errors
    /// The underlay is a bridge.
    pub fn change_link(&self, change: impl FnOnce(&mut LinkSettings)) -> Result<(), LabError> {
        self.underlay.change_link(change)
    }
}
