//! Leases: which address is whose, on this member.
//!
//! A lease has a holder, a text that names who has it: a port's name (`web:eth1`), or what an engine calls its endpoint. It was
//! taken by a port, and then it follows the port; or somebody asked for it, and then it is there until it is released.
//!
//! ```text
//!             port up              port dies
//!   Reserved ─────────► Used ─────────────────► Kept for GRACE ──► free
//!      ▲                  │ detach                    │ same holder, or asked for by hand
//!   asked for             └──────► free               └──────► Used
//! ```
//!
//! A container that is restarted within [`GRACE`] finds its address again. After a restart of the daemon every lease of a port is
//! kept that long, until its port is found. When nothing else is free, what is kept goes to whoever asks: an address that
//! somebody needs is better used than saved.

use super::Spans;
use crate::wire::range::{address, number};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// How long the address of a port that died is kept for its holder: longer than a container takes to restart.
pub const GRACE: Duration = Duration::from_secs(30);
/// The longest holder: an engine's name for an endpoint, with two ids of 64 digits.
pub const MAX_HOLDER: usize = 255;
/// Beginning of the holders that an engine makes up because it does not know for whom it asks.
const ANONYMOUS: &str = "docker:";
/// The most leases of a member, all networks together: twice as many as it can have ports.
pub const MAX_LEASES: usize = 8192;

/// Who took a lease, and so who lets it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A port, for as long as it is there.
    Port,
    /// Somebody who asked for it, and releases it.
    Request,
}

/// An address that is somebody's, as the disk has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The network.
    pub vni: u32,
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub holder: String,
    /// Who took it.
    pub by: By,
    /// Whether it was chosen here; otherwise somebody asked for this very one.
    pub chosen: bool,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

impl Lease {
    /// Whether somebody asked for it whose name begins so. A port's name may begin in the same way.
    pub fn is_requested_for(&self, beginning: &str) -> bool {
        self.by == By::Request && self.holder.starts_with(beginning)
    }
}

/// What a lease is for at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A port has it.
    Used,
    /// Somebody asked for it, and no port has it.
    Reserved,
    /// Its port is gone; it is kept until then.
    Kept(Duration),
}

/// A lease and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// What it is for.
    pub state: State,
}

/// All leases of a member.
#[derive(Debug, Default)]
pub struct Leases {
    held: BTreeMap<(u32, IpAddr), Held>,
}

impl Leases {
    /// Leases as they were before a restart.
    pub fn restore(now: Duration, leases: impl IntoIterator<Item = Lease>) -> Self {
        let mut all = Self::default();
        leases.into_iter().for_each(|lease| all.take(now, lease));
        all
    }

    /// All of them, by network and address.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// The lease of an address.
    pub fn get(&self, vni: u32, address: IpAddr) -> Option<&Held> {
        self.held.get(&(vni, address))
    }

    /// Those of a network.
    pub fn of_network(&self, vni: u32) -> impl Iterator<Item = &Held> {
        let (first, last) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from(u128::MAX)));
        self.held.range((vni, first)..=(vni, last)).map(|(_, held)| held)
    }

    /// Whether no more can be taken.
    pub fn is_full(&self) -> bool {
        self.held.len() >= MAX_LEASES
    }

    /// The address of a family that `holder` gets: the one that was chosen for it before, if it is still in `pool` and nobody else
    /// took it while it was only kept; else the lowest that is neither leased nor `taken` by another member; else, of those kept,
    /// the one that has been the longest.
    pub fn choose(&self, vni: u32, holder: &str, v4: bool, pool: &Spans, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let family = || self.of_network(vni).filter(|held| held.lease.address.is_ipv4() == v4);
        let is_in_pool = |held: &&Held| pool.contains(number(held.lease.address));
        let is_ours = |held: &&Held| !matches!(held.state, State::Kept(_)) || !taken.contains(&held.lease.address);
        let known = family().filter(|held| held.lease.chosen && held.lease.holder == holder);
        let known = known.filter(is_in_pool).find(is_ours);
        if let Some(known) = known {
            return Some(known.lease.address);
        }
        let is_free = |ip: &IpAddr| !self.held.contains_key(&(vni, *ip)) && !taken.contains(ip);
        if let Some(number) = pool.lowest(|number| !is_free(&address(v4, number))) {
            return Some(address(v4, number));
        }
        let until = |held: &Held| match held.state {
            State::Kept(until) => Some(until),
            _ => None,
        };
        let kept = family().filter(is_in_pool).filter(|held| !taken.contains(&held.lease.address));
        let kept = kept.filter_map(|held| Some((until(held)?, held.lease.address)));
        kept.min().map(|(_, address)| address)
    }

    /// Who has an address that `holder` asks for by hand, and does not let it go: any other holder, unless it is only kept, or it is
    /// reserved by an engine that does not know for whom (`docker:`) and asks again.
    pub fn in_the_way(&self, vni: u32, address: IpAddr, holder: &str, by: By) -> Option<&Held> {
        let asks_anonymously = by == By::Request && holder.starts_with(ANONYMOUS);
        self.get(vni, address).filter(|held| match held.state {
            _ if held.lease.holder == holder => false,
            State::Kept(_) => false,
            State::Reserved => !(asks_anonymously && held.lease.is_requested_for(ANONYMOUS)),
            State::Used => true,
        })
    }

    /// Somebody has an address, in the place of whoever had it. A port that uses it goes on doing so.
    pub fn take(&mut self, now: Duration, lease: Lease) {
        let used = self.get(lease.vni, lease.address).is_some_and(|held| held.state == State::Used);
        let state = match lease.by {
            _ if used => State::Used,
            By::Port => State::Kept(now + GRACE),
            By::Request => State::Reserved,
        };
        self.held.insert((lease.vni, lease.address), Held { lease, state });
    }

    /// A port has this address from now on.
    pub fn used(&mut self, vni: u32, address: IpAddr) {
        if let Some(held) = self.held.get_mut(&(vni, address)) {
            held.state = State::Used;
        }
    }

    /// The port that had this address is gone; somebody may come back for it.
    pub fn unused(&mut self, now: Duration, vni: u32, address: IpAddr) {
        if let Some(held) = self.held.get_mut(&(vni, address)) {
            held.state = match held.lease.by {
                By::Port => State::Kept(now + GRACE),
                By::Request => State::Reserved,
            };
        }
    }

    /// Who asked for this address released it while a port has it: it is that port's.
    pub fn hand_over(&mut self, vni: u32, address: IpAddr) {
        if let Some(held) = self.held.get_mut(&(vni, address)) {
            held.lease.by = By::Port;
        }
    }

    /// Nobody has this address any more.
    pub fn free(&mut self, vni: u32, address: IpAddr) -> Option<Held> {
        self.held.remove(&(vni, address))
    }

    /// Time passed: what was kept long enough. It is to be freed when the disk has forgotten it.
    pub fn expired(&self, now: Duration) -> Vec<(u32, IpAddr)> {
        let is_over = |held: &&Held| matches!(held.state, State::Kept(until) if until <= now);
        self.held.values().filter(is_over).map(|held| (held.lease.vni, held.lease.address)).collect()
    }
}
