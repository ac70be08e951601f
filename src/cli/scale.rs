//! `weft lab scale`: the arguments, and the table of what grew and what that cost.

use super::table::Table;
use crate::lab::scale::{self, Report, ScaleSpec};
use crate::lab::{LabError, Stop};
use clap::Args;
use std::time::Duration;

/// A daemon takes 4,096 ports and as many peers; a few are the lab's own.
const MOST: u64 = 4000;
/// FDB entries that fit an ordinary machine's memory beside everything else: 64 bytes each.
const MOST_STATIONS: u64 = 10_000_000;

#[derive(Debug, Args)]
pub(super) struct ScaleArgs {
    /// How long each measurement lasts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Ports to add to one host
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=MOST))]
    ports: u64,
    /// Peers that never answer, to add to its file
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=MOST))]
    peers: u64,
    /// FDB entries to add
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(..=MOST_STATIONS))]
    fdb: u64,
    /// Print the figures as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Measures; `progress` is told what is done next.
pub(super) fn run(args: &ScaleArgs, stop: &Stop, progress: &mut dyn FnMut(&str)) -> Result<Report, LabError> {
    let spec = ScaleSpec {
        lab: scale::spec(format!("scale-{}", std::process::id())),
        measure: Duration::from_secs(args.seconds),
        ports: args.ports as usize,
        peers: args.peers as usize,
        stations: args.fdb as usize,
    };
    scale::run(&spec, stop, progress)
}

/// The table, for people.
pub(super) fn text(report: &Report) -> String {
    let headings = [
        "SIZE OF h1",
        ">PORTS",
        ">PEERS",
        ">FDB",
        ">OUT Gbit/s",
        ">IN Gbit/s",
        ">CPU s/GB",
        ">MEMORY MiB",
        ">ADDED IN s",
    ];
    let mut rows = Table::new(&headings);
    for row in &report.rows {
        rows.row([
            row.size.clone(),
            row.ports.to_string(),
            row.peers.to_string(),
            row.fdb_entries.to_string(),
            format!("{:.2}", row.out_gbps),
            format!("{:.2}", row.in_gbps),
            row.cpu_per_gb.map_or_else(String::new, |cpu| format!("{cpu:.2}")),
            format!("{:.1}", row.memory as f64 / f64::from(1 << 20)),
            format!("{:.1}", row.took),
        ]);
    }
    let mut text = rows.render();
    for (what, bytes) in &report.bytes_per {
        text.push_str(&format!("\none more {what}: {bytes:.0} bytes of resident memory"));
    }
    text.push_str(&format!("\n{}\n", report.machine));
    text
}
