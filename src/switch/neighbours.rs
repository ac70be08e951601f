//! Who has which address: what spares a network the questions (RFC 9161).
//!
//! Control writes here what the mesh knows of attachments; a frame from a local port that asks for one of them is answered
//! at once, to that port alone, and goes nowhere else. It is read for such questions only, so one plain lock does.
//!
//! | the question                                    | what becomes of it                                                |
//! |--------------------------------------------------|-------------------------------------------------------------------|
//! | for an address that nobody here knows            | flooded: a station behind a bridge may have it                      |
//! | for an address of the asker's own attachment     | flooded: it announces itself, or probes whether it may have it      |
//! | to one station, which has the address            | goes to that station: the asker wants to know if it is alive        |
//! | to one station, which has it no longer           | answered: the asker's memory is out of date                         |
//! | for somebody else's address, asker has one       | answered                                                            |
//! | for somebody else's address, a probe or a claim  | answered: the duplicate is noticed, and nobody else is misled by it |

use crate::wire::ethernet::Mac;
use crate::wire::neighbour::{Answer, Question};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Neighbours(RwLock<HashMap<(u32, IpAddr), Mac>>);

impl Neighbours {
    /// An attachment with this address is known to have this MAC address. Bounded by whoever knows attachments.
    pub fn insert(&self, vni: u32, address: IpAddr, mac: Mac) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert((vni, address), mac);
    }

    /// Nobody is known to have this address any more.
    pub fn remove(&self, vni: u32, address: IpAddr) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&(vni, address));
    }

    /// Forgets a network that is gone.
    pub fn forget_network(&self, vni: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| *of != vni);
    }

    /// Which MAC address an IP address has.
    pub fn lookup(&self, vni: u32, address: IpAddr) -> Option<Mac> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&(vni, address)).copied()
    }

    /// The answer to a question of a local port, if it need not go on.
    pub fn answer(&self, vni: u32, question: &Question) -> Option<Answer> {
        let mac = self.lookup(vni, question.target)?;
        if mac == question.asker || mac == question.asked {
            return None;
        }
        question.answer(mac)
    }
}
