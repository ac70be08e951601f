//! `weft leases`: who has which address, and what is done about it.

use super::table::{Table, duration};
use crate::control::request::{LeaseStatus, Request};
use clap::{Args, Subcommand};
use std::net::IpAddr;

/// `weft leases`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Leases {
    /// Print JSON, for programs: the same data, unrounded
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let an address go that an engine or a plugin left behind
    Release {
        /// The network's name
        #[arg(long, value_name = "NAME")]
        network: String,
        /// The address
        address: IpAddr,
    },
    /// Take the slices of a member that is gone for good, so that others can have them
    ///
    /// Run this where the authority's key is. A member that is there keeps its slices. If it does come back, it learns of this,
    /// asks for a slice anew, and gives way where an address lies in the slice of another that has it.
    Reclaim {
        /// The member's name, or its public key
        member: String,
    },
}

impl Leases {
    /// What is asked of the daemon, and whether the answer is wanted as JSON.
    pub(super) fn request(self) -> (Request, bool) {
        let request = match self.command {
            None => Request::Leases,
            Some(Command::Release { network, address }) => Request::Release { network, address },
            Some(Command::Reclaim { member }) => Request::Reclaim { member },
        };
        (request, self.json)
    }
}

/// The table for people.
pub(super) fn table(leases: &[LeaseStatus]) -> String {
    let mut table = Table::new(&["NETWORK", "ADDRESS", "HOLDER", "MEMBER", "STATE"]);
    for lease in leases {
        let state = match lease.expires_s {
            Some(seconds) => format!("{} for {}", lease.state, duration(seconds)),
            None => lease.state.clone(),
        };
        table.row([
            lease.network.clone(),
            lease.address.to_string(),
            lease.holder.clone(),
            lease.member.clone(),
            state,
        ]);
    }
    table.render()
}
