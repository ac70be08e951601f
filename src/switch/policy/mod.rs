//! What frames may do in a network: whose they may say they are, whom they may reach, and how many of them.
//!
//! A network that asks for none of it has no [`Policy`], and its frames pay one comparison. The parts, in the order in which a
//! frame meets them:
//!
//! | part                  | asks                                                        | where                              |
//! |-----------------------|--------------------------------------------------------------|------------------------------------|
//! | [`guard`]             | whether a port's frame comes from whom it says                | where it leaves its container      |
//! | [`rate`]              | whether a port sends or gets no more than it may              | there, and where it would arrive   |
//! | [`rules`]             | whether anything allows this packet between these addresses   | at both ends                       |
//! | isolation             | whether one of the two is promiscuous (RFC 5517)              | at both ends                       |
//!
//! At both ends: a member that was not told, or holds the rules of yesterday, is not the only one to ask. But members are
//! believed in what they say of their ports: a guard of one protects all from its containers, and none from itself.
//!
//! A policy is immutable and a part of the topology; what goes on changing (buckets, counters, what was refused last) is shared
//! by `Arc` with the one that follows it.

pub mod guard;
pub mod rate;
pub mod refusals;
pub mod rules;
#[cfg(test)]
mod tests;

use super::Switch;
use super::counters::Drop;
use super::ids::{IdMap, PortId};
use super::topology::Port;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::{Frame, Mac};
use crate::wire::packet::Content;
use guard::Guard;
use rate::Rates;
use refusals::{Refusal, Refusals};
use rules::Rules;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// What the policy of a network knows of one of our ports.
#[derive(Debug, Default, Clone)]
pub struct PortPolicy {
    /// Whose frames it may send; `None` is anybody's.
    pub guard: Option<Guard>,
    /// Whether it may talk to isolated ports.
    pub promiscuous: bool,
    /// How much it may send and get.
    pub rates: Option<Arc<Rates>>,
}

/// Who is not isolated in an isolated network.
#[derive(Debug, Default)]
pub struct Isolation {
    /// The stations anywhere that may talk to isolated ones.
    pub promiscuous: HashSet<Mac>,
    /// Those of them that are hosts': they pass on what is not for them.
    pub hosts: HashSet<Mac>,
    /// The network's own prefixes.
    pub subnets: Vec<Cidr>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Policy {
    /// Our ports.
    pub ports: IdMap<PortId, PortPolicy>,
    /// In an isolated network, who is not.
    pub isolation: Option<Isolation>,
    /// What is allowed between addresses; `None` is all.
    pub rules: Option<Arc<Rules>>,
    /// What was refused.
    pub refusals: Arc<Refusals>,
}

impl Policy {
    /// Whether there is nothing that a frame would be asked.
    pub fn is_empty(&self) -> bool {
        let asks = |port: &PortPolicy| port.guard.is_some() || port.rates.is_some();
        self.isolation.is_none() && self.rules.is_none() && !self.ports.values().any(asks)
    }
}

/// A frame under the policy of its network.
pub(super) struct Passage<'a> {
    policy: &'a Policy,
    vni: u32,
    source: Mac,
    destination: Mac,
    bytes: usize,
    content: Content,
    /// Whether it comes from an isolated station.
    isolated: bool,
    /// Whether its IP source is for us to answer for.
    guarded: bool,
    now: Instant,
    switch: &'a Switch,
}

impl Switch {
    /// A port's frame is about to enter its network.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn enter<'a>(
        &'a self,
        now: Instant,
        policy: &'a Policy,
        port: &Port,
        frame: &Frame<'_>,
        content: Content,
    ) -> Result<Passage<'a>, Drop> {
        let own = policy.ports.get(&port.id);
        let promiscuous = own.is_some_and(|own| own.promiscuous);
        let isolated = policy.isolation.is_some() && !promiscuous;
        let guarded = own.and_then(|own| own.guard.as_ref()).is_some_and(|guard| guard.full && !guard.any_source);
        let passage = Passage { isolated, guarded, ..self.passage(now, policy, port.vni, frame, content) };
        if let Some(own) = own {
            if let Some(guard) = &own.guard {
                let owner = |address| self.neighbours.lookup(port.vni, address);
                guard.check(frame, &content, owner).map_err(|reason| passage.refuse(reason))?;
            }
            if let Some(rates) = &own.rates
                && !rates.may_send(now, frame.bytes().len())
            {
                return Err(Drop::RateOut);
            }
        }
        Ok(passage)
    }

    /// A peer's frame is about to enter a network.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn arrive<'a>(
        &'a self,
        now: Instant,
        policy: &'a Policy,
        vni: u32,
        frame: &Frame<'_>,
        content: Content,
    ) -> Result<Passage<'a>, Drop> {
        let isolation = policy.isolation.as_ref();
        let isolated = isolation.is_some_and(|isolation| !isolation.promiscuous.contains(&frame.source()));
        let passage = Passage { isolated, ..self.passage(now, policy, vni, frame, content) };
        passage.allowed()?;
        Ok(passage)
    }

    #[inline]
    fn passage<'a>(
        &'a self,
        now: Instant,
        policy: &'a Policy,
        vni: u32,
        frame: &Frame<'_>,
        content: Content,
    ) -> Passage<'a> {
        Passage {
            policy,
            vni,
            source: frame.source(),
            destination: frame.destination(),
            bytes: frame.bytes().len(),
            content,
            isolated: false,
            guarded: false,
            now,
            switch: self,
        }
    }
}

impl Passage<'_> {
    /// Whether the rules let the frame go where it is addressed to.
    ///
    /// # Errors
    /// They do not.
    #[inline]
    pub(super) fn allowed(&self) -> Result<(), Drop> {
        let Some(rules) = &self.policy.rules else { return Ok(()) };
        let stations = [self.source, self.destination];
        rules.check(&self.content, stations, self.guarded).map_err(|reason| self.refuse(reason))
    }

    /// Whether isolation lets it go to a port.
    #[inline]
    pub(super) fn reaches(&self, port: PortId) -> bool {
        !self.isolated || self.policy.ports.get(&port).is_some_and(|port| port.promiscuous)
    }

    /// Whether it may be handed to a port.
    ///
    /// # Errors
    /// It may not.
    #[inline]
    pub(super) fn to_port(&self, port: PortId) -> Result<(), Drop> {
        if !self.reaches(port) {
            return Err(self.refuse(Drop::Isolated));
        }
        self.through_host()?;
        match self.policy.ports.get(&port).and_then(|port| port.rates.as_ref()) {
            Some(rates) if !rates.may_get(self.now, self.bytes) => Err(Drop::RateIn),
            _ => Ok(()),
        }
    }

    /// Whether it may go to a peer, for the one station there that it is addressed to.
    ///
    /// # Errors
    /// It may not.
    #[inline]
    pub(super) fn to_peer(&self) -> Result<(), Drop> {
        match &self.policy.isolation {
            Some(known) if self.isolated && !known.promiscuous.contains(&self.destination) => {
                Err(self.refuse(Drop::Isolated))
            }
            _ => self.through_host(),
        }
    }

    /// Whether isolation lets a host have it, which would pass it on to whom its packet is for: within the network only to
    /// those that the sender reaches itself.
    ///
    /// # Errors
    /// It does not.
    #[inline]
    pub(super) fn through_host(&self) -> Result<(), Drop> {
        match &self.policy.isolation {
            Some(isolation) if self.isolated && self.comes_back(isolation) => Err(self.refuse(Drop::Isolated)),
            _ => Ok(()),
        }
    }

    fn comes_back(&self, isolation: &Isolation) -> bool {
        let Content::Ip(packet) = &self.content else { return false };
        let is_hosts = isolation.hosts.contains(&self.destination) || self.destination == Mac::service(self.vni);
        let is_within = |subnet: &Cidr| subnet.contains(packet.destination);
        let is_promiscuous = |owner| isolation.promiscuous.contains(&owner);
        is_hosts
            && isolation.subnets.iter().any(is_within)
            && !self.switch.neighbours.lookup(self.vni, packet.destination).is_some_and(is_promiscuous)
    }

    /// Why nobody gets it, if isolation kept it from those who would have.
    #[inline]
    pub(super) fn nobody(&self, otherwise: Drop) -> Drop {
        if self.isolated { self.refuse(Drop::Isolated) } else { otherwise }
    }

    #[cold]
    fn refuse(&self, reason: Drop) -> Drop {
        let second = self.switch.seconds(self.now);
        self.policy.refusals.note(Refusal::new(reason, self.source, self.destination, self.content), second);
        reason
    }
}
