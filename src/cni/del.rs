//! DEL and GC: what is gone stays gone, and what is not goes.

use super::env::{Command, PORT, port_name};
use super::error::CniError;
use super::{Job, LIST_LABEL, World};
use crate::control::request::{Detach, Request, Unpublish};
use std::collections::{BTreeSet, HashSet};

impl<W: World> Job<'_, W> {
    /// Removes all there is of the interface, as far as it can: one thing that cannot be had does not keep the others.
    pub(super) fn del(&mut self) -> Result<(), CniError> {
        let name = self.call.port();
        let outside = self.ask(&Request::Unpublish(Unpublish::Holder(name.clone()))).map(|_| ());
        let port = self.detach(name);
        let ours = both(outside, port);
        let theirs = self.delegate(Command::Del).map(|_| ());
        both(ours, theirs)
    }

    /// Removes what this list made and no longer has. A runtime that does not say what it has knows nothing to remove.
    pub(super) fn gc(&mut self) -> Result<(), CniError> {
        let Some(valid) = &self.conf.valid else { return Ok(()) };
        let valid: HashSet<String> = valid.iter().map(|(container, ifname)| port_name(container, ifname)).collect();
        // First what is published: whoever publishes has a port by then, and one that is added meanwhile is not taken for gone.
        let mut published: BTreeSet<String> =
            self.outside()?.published.into_iter().filter_map(|one| one.publish.holder).collect();
        let ports = self.ports()?;
        let mut ours = Ok(());
        for port in ports {
            let of_list = port.labels.get(LIST_LABEL).is_some_and(|list| *list == self.conf.name);
            if port.name.starts_with(PORT) && of_list && !valid.contains(&port.name) {
                ours = both(ours, self.detach(port.name));
            } else {
                published.remove(&port.name);
            }
        }
        for holder in published.into_iter().filter(|holder| holder.starts_with(PORT) && !valid.contains(holder)) {
            ours = both(ours, self.ask(&Request::Unpublish(Unpublish::Holder(holder))).map(|_| ()));
        }
        let theirs = self.delegate(Command::Gc).map(|_| ());
        both(ours, theirs)
    }

    fn detach(&mut self, name: String) -> Result<(), CniError> {
        match self.ask(&Request::Detach(Detach { port: name.clone(), ifname: None })) {
            Ok(_) => Ok(()),
            // It may never have been there, or have gone by itself, with its namespace; what was kept for it is free now.
            Err(error) => match self.port(&name) {
                Ok(None) => Ok(()),
                _ => Err(error),
            },
        }
    }
}

/// The first failure, with the second in its details.
fn both(one: Result<(), CniError>, other: Result<(), CniError>) -> Result<(), CniError> {
    match one {
        Ok(()) => other,
        Err(error) => Err(error.and(other.err())),
    }
}
