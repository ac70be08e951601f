//! Contacts: what is kept of other members across restarts, and `weft connect` and `forget`.
//!
//! A contact is written when a path to a member has worked for a while, so that a member that starts again finds the mesh also
//! when nobody is where the file says; and by `weft connect`, which pins a peer as the file does. It is a hint on where
//! to call, never a reason to trust: who answers there has to have the key, and a certificate where the file does not pin it.

use super::peers::PeerOrigin;
use super::request::{Connect, Forget, Response};
use super::{Control, Host};
use crate::config::{self, Endpoint};
use crate::wire::key::PublicKey;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// The most contacts kept: as many as there can be peers.
pub const MAX_CONTACTS: usize = config::parse::MAX_PEERS;
/// The most addresses kept of one: a restart tries them all at once.
const MAX_WORKED: usize = 4;
/// How long a path has to work before its address is kept, and how often it is written again. A disk is not for what
/// changes every minute.
const WORTH_KEEPING: Duration = Duration::from_secs(20);

/// What is kept of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its name.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Its tunnel address.
    pub tunnel_address: Ipv4Addr,
    /// Endpoints that `weft connect` was given, as they were written; `Some` pins the key.
    pub connected: Option<Vec<String>>,
    /// Underlay addresses where it was reached, the latest first.
    pub worked: Vec<SocketAddr>,
    /// Its certificate, where it has one.
    #[serde(default)]
    pub certificate: Option<Vec<u8>>,
}

impl Contact {
    /// The contact as a peer of the file would be.
    pub fn as_peer(&self) -> config::Peer {
        let endpoints = self.connected.iter().flatten().filter_map(|text| text.parse::<Endpoint>().ok()).collect();
        let peer = config::Peer::of_member(self.name.clone(), self.public_key, self.tunnel_address);
        config::Peer { endpoints, ..peer }
    }
}

impl<H: Host> Control<H> {
    /// Makes peers of those that were kept before a restart, as far as they may be.
    pub(super) fn recall(&mut self, now: Instant) {
        let unix = self.host.unix_time();
        let contacts: Vec<Contact> = self.contacts.values().cloned().collect();
        for contact in contacts {
            let certificate = contact.certificate.as_deref();
            let origin = match contact.connected {
                _ if self.id_of(&contact.public_key).is_some() => continue,
                Some(_) => PeerOrigin::Connected,
                None if self.trust.policy().judge(unix, &contact.public_key, certificate).is_ok() => {
                    PeerOrigin::Member
                }
                None => continue,
            };
            match self.admits(&contact.as_peer()) {
                Ok(()) => {
                    let id = self.add_peer(now, &contact.as_peer(), origin);
                    if let Some(entry) = self.peers.get_mut(&id) {
                        entry.certificate = contact.certificate;
                    }
                }
                Err(reason) => self.warn(reason),
            }
        }
    }

    /// `weft connect`: a peer as of the file, or more endpoints of one that is known.
    pub fn connect(&mut self, now: Instant, connect: &Connect) -> Response {
        let endpoints: Vec<String> = connect.endpoints.iter().map(ToString::to_string).collect();
        let by_key = connect.public_key.and_then(|key| self.entry_of(&key));
        let by_key = by_key.filter(|entry| !matches!(entry.origin, PeerOrigin::Stranger(_) | PeerOrigin::Introducer));
        let by_name = self.peer_named(&connect.name);
        let public_key = match (by_name.or(by_key), connect.public_key) {
            (Some(entry), Some(key)) if entry.config.public_key == key && entry.config.name != connect.name => {
                return Response::Refused(format!(
                    "the host with that key is the peer '{}': use that name",
                    entry.config.name
                ));
            }
            (Some(entry), Some(key)) if entry.config.public_key != key => {
                return Response::Refused(format!(
                    "there is a peer '{}' with another key, {}: choose another name, or forget that one first",
                    connect.name, entry.config.public_key
                ));
            }
            (Some(entry), _) if entry.origin == PeerOrigin::File => {
                return Response::Refused(format!(
                    "peer '{}' stands in the configuration file: add the endpoint there and run `weft reload`",
                    connect.name
                ));
            }
            (Some(entry), _) => entry.config.public_key,
            (None, Some(key)) => {
                if let Some(entry) = self.entry_of(&key).filter(|entry| entry.origin == PeerOrigin::File) {
                    return Response::Refused(format!(
                        "peer '{}' of the configuration file has this key: add the endpoint there and run `weft reload`",
                        entry.config.name
                    ));
                }
                key
            }
            (None, None) => {
                return Response::Refused(format!(
                    "there is no member '{}' here yet: give its public key with --key, as `weft key show` prints it there",
                    connect.name
                ));
            }
        };
        let kept = self.contacts.get(&public_key);
        let known = by_name.map(|entry| entry.config.tunnel_address).or_else(|| kept.map(|kept| kept.tunnel_address));
        let address = connect.tunnel_address.or(known).unwrap_or_else(|| public_key.tunnel_address());
        let contact = Contact {
            name: connect.name.clone(),
            public_key,
            tunnel_address: address,
            connected: Some(endpoints),
            worked: kept.map(|kept| kept.worked.clone()).unwrap_or_default(),
            certificate: kept.and_then(|kept| kept.certificate.clone()),
        };
        if let Err(reason) = self.admits(&contact.as_peer()) {
            return Response::Refused(reason);
        }
        if let Err(reason) = self.keep(contact.clone()) {
            return Response::Refused(reason);
        }
        self.judge_again(now);
        self.set_peer(now, &contact.as_peer(), PeerOrigin::Connected);
        self.apply_networks(now);
        self.resolve();
        self.call_all(now);
        self.run_mesh(now);
        Response::Done(vec![format!(
            "{} is a peer, also after a restart; `weft peers` shows how it is",
            connect.name
        )])
    }

    /// `weft forget`: undoes `weft connect`, and drops what is kept of a member that is not there.
    pub fn forget(&mut self, now: Instant, forget: &Forget) -> Response {
        let Some(entry) = self.peer_named(&forget.name) else {
            return Response::Refused(format!("there is no peer '{}': `weft peers` lists them", forget.name));
        };
        if entry.origin == PeerOrigin::File {
            return Response::Refused(format!(
                "peer '{}' stands in the configuration file: remove it there and run `weft reload`",
                forget.name
            ));
        }
        let (id, key) = (entry.peer.id, entry.config.public_key);
        if self.is_certified(&key) && self.is_alive(&key) {
            return Response::Refused(format!(
                "'{}' is a member that is there, by its certificate: `weft revoke {0}` where the authority's key is ends that",
                forget.name
            ));
        }
        if self.contacts.remove(&key).is_some() {
            self.host.drop_contact(&key);
        }
        self.judge_again(now);
        self.lose_peers(now, [id]);
        // Whoever has a certificate needs no `weft connect`.
        self.run_members(now);
        Response::Done(vec![match self.entry_of(&key) {
            Some(_) => format!("{} is a member by its certificate alone now", forget.name),
            None => format!("{} is forgotten", forget.name),
        }])
    }

    /// Notes where members are reached, of those whose path has worked for long enough.
    pub(super) fn keep_contacts(&mut self, now: Instant) {
        let mut worth: Vec<Contact> = Vec::new();
        for entry in self.peers.values() {
            let Some(address) = entry.worked(now, WORTH_KEEPING).filter(|_| entry.origin.is_admitted()) else {
                continue;
            };
            let key = entry.config.public_key;
            let certificate = self.certificate_of(&key).or_else(|| entry.certificate.clone());
            let old = self.contacts.get(&key);
            let unchanged = |old: &Contact| {
                old.worked.contains(&address)
                    && old.name == entry.config.name
                    && old.tunnel_address == entry.config.tunnel_address
                    && old.certificate == certificate
            };
            if old.is_some_and(unchanged) {
                continue;
            }
            let earlier = old.map(|old| old.worked.clone()).unwrap_or_default();
            let mut worked = vec![address];
            worked.extend(earlier.into_iter().filter(|other| *other != address).take(MAX_WORKED - 1));
            worth.push(Contact {
                name: entry.config.name.clone(),
                public_key: key,
                tunnel_address: entry.config.tunnel_address,
                connected: old.and_then(|old| old.connected.clone()),
                worked,
                certificate,
            });
        }
        for contact in worth {
            let name = contact.name.clone();
            if let Err(reason) = self.keep(contact) {
                tracing::warn!("where {name} was reached is not kept: {reason}");
            }
        }
    }

    /// Drops the contact of somebody who is no peer any more, if there is one.
    fn drop_old_contact(&mut self) -> bool {
        let is_old = |contact: &&Contact| contact.connected.is_none() && self.id_of(&contact.public_key).is_none();
        let Some(key) = self.contacts.values().find(is_old).map(|contact| contact.public_key) else { return false };
        self.contacts.remove(&key);
        self.host.drop_contact(&key);
        true
    }

    fn keep(&mut self, contact: Contact) -> Result<(), String> {
        let is_new = !self.contacts.contains_key(&contact.public_key);
        if self.contacts.len() >= MAX_CONTACTS && is_new && !self.drop_old_contact() {
            return Err(format!("{MAX_CONTACTS} members are kept already: `weft forget` some"));
        }
        self.host.keep_contact(&contact)?;
        self.contacts.insert(contact.public_key, contact);
        Ok(())
    }
}
