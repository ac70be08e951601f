//! `weft names`: what DNS answers in this host's networks, and adding to it.

use super::table::{Table, list};
use crate::config::text::host_name;
use crate::control::request::{AddName, NameStatus, RemoveName, Request};
use crate::wire::service::Service;
use clap::{Args, Subcommand};
use std::net::IpAddr;

/// `weft names`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct NamesArgs {
    /// Only those of this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(subcommand)]
    command: Option<NamesCommand>,
}

/// What changes names.
#[derive(Debug, Subcommand)]
pub(super) enum NamesCommand {
    /// Add a name for something outside of weft, or say what a name offers
    ///
    /// The name is answered in its network on every member for as long as this one is there, also after a restart of its daemon. What is added to a
    /// name that exists is answered besides what it has.
    #[command(after_help = "\
Examples:
  weft names add printer --network blue --ip 192.0.2.80
  weft names add db --network blue --srv postgres:5432/tcp     for _postgres._tcp.db and _5432._tcp.db")]
    Add(Change),
    /// Take back what was added on this host: all of it, or these addresses and services
    Remove(Change),
}

/// A name, and what is added to it or taken from it.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// The name, with or without the network's domain
    #[arg(value_parser = name)]
    name: String,
    /// The network's name, as in the configuration file
    #[arg(long, value_name = "NAME")]
    network: String,
    /// An address; may be given several times
    #[arg(long = "ip", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// A port for SRV records, with the service's name and /tcp or /udp; may be given several times
    #[arg(long = "srv", value_name = "[SERVICE:]PORT[/tcp|/udp]")]
    services: Vec<Service>,
}

fn name(text: &str) -> Result<String, &'static str> {
    host_name(text.strip_suffix('.').unwrap_or(text))
}

/// What the daemon is asked.
pub(super) fn request(args: NamesArgs) -> Request {
    match args.command {
        None => Request::Names { network: args.network },
        Some(NamesCommand::Add(Change { name, network, addresses, services })) => {
            Request::AddName(AddName { network, name, addresses, services })
        }
        Some(NamesCommand::Remove(Change { name, network, addresses, services })) => {
            Request::RemoveName(RemoveName { network, name, addresses, services })
        }
    }
}

/// The table of names.
pub(super) fn table(names: &[NameStatus]) -> String {
    if names.is_empty() {
        return "no names: attach a container, or `weft names add` one\n".to_owned();
    }
    let mut table = Table::new(&["NAME", "NETWORK", "ADDRESSES", "MEMBER", "KIND"]);
    for name in names {
        let addresses = name.addresses.iter().map(ToString::to_string);
        let whats = addresses.chain(name.services.iter().map(|service| format!(":{service}")));
        table.row([
            name.name.clone(),
            name.network.clone(),
            list(whats, " "),
            name.member.clone(),
            name.kind.clone(),
        ]);
    }
    table.render()
}
