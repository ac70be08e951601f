//! `weft lab bench`: the arguments, and the comparison as tables.

use super::lab::{print, print_json, ready, tell};
use super::table::{Table, printable};
use super::underlay::{LinkArgs, PathArgs};
use crate::lab::bench::summary::{Metric, Report, Row};
use crate::lab::bench::{self, BenchSpec};
use crate::lab::contenders::{self, Layer, WEFT};
use crate::lab::{LabError, report};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueHint};
use std::path::PathBuf;
use std::time::Duration;

/// What the figures mean, below every table.
const NOTES: &str = "\
Both hosts, their daemons, the traffic and its checking share the machine's cores: compare, do not add.
weft's traffic runs between containers, that of the others between the hosts' own overlay interfaces.
CPU is that of the daemons of both hosts; what the kernel does in nobody's name is not counted. Memory is that of the
larger daemon. OF BARE is the share of the path between the hosts without any overlay.
";

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Only these (the bare path is always measured)
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = names())]
    only: Vec<String>,
    /// How often everything is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How long each measurement lasts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How many TCP streams the measurement with several has
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    streams: u64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Draw them, as SVG
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    chart: Option<PathBuf>,
    #[command(flatten)]
    path: PathArgs,
    #[command(flatten)]
    link: LinkArgs,
}

/// What `--only` takes.
fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(contenders::ALL.iter().map(|one| one.name))
}

pub(super) fn show(args: &BenchArgs) -> Result<(), LabError> {
    let contenders = contenders::called(&args.only)?;
    let mut lab = bench::spec(format!("bench-{}", std::process::id()));
    args.path.apply(&mut lab);
    args.link.apply(&mut lab);
    if let Some(file) = &args.chart {
        // Minutes before there is something to draw.
        report::check_writable(file)?;
    }
    let stop = ready()?;
    let spec = BenchSpec {
        lab,
        contenders,
        rounds: args.rounds as usize,
        measure: Duration::from_secs(args.seconds),
        streams: args.streams as usize,
    };
    let report = bench::run(&spec, &stop, &mut |what| tell(true, &format!("{what} …\n")))?;
    if let Some(file) = &args.chart {
        report::save(file, &bench::chart::svg(&report))?;
    }
    if args.json {
        print_json(&report);
    } else {
        print(&text(&report));
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let mut text = format!("Between the hosts:\n{}", between_hosts(report).render());
    if compared(report).next().is_some_and(|row| row.figures[&Metric::Tcp].weft_ratio.is_some()) {
        text.push_str(&format!("\nweft's figure divided by the other's:\n{}", ratios(report).render()));
    }
    if report.contenders.iter().any(|row| row.median(Metric::TcpLocal).is_some()) {
        text.push_str(&format!("\nBetween two containers on one host:\n{}", one_host(report).render()));
    }
    text.push_str(&format!("\nHow they were set up:\n{}", setups(report).render()));
    let remarkable = |row: &Row| row.failed.is_some() || row.fragmented > 0;
    if !report.absent.is_empty() || report.contenders.iter().any(remarkable) {
        text.push('\n');
    }
    for row in &report.contenders {
        if row.fragmented > 0 {
            let count = row.fragmented;
            text.push_str(&format!("{}: its MTU is too large, {count} packets were fragmented\n", row.name));
        }
        if let Some(failed) = &row.failed {
            let lines: Vec<String> = failed.lines().map(printable).collect();
            text.push_str(&format!("{} failed: {}\n", row.name, lines.join("\n    ")));
        }
    }
    for absent in &report.absent {
        text.push_str(&format!("{}: {}\n", absent.name, absent.reason));
    }
    text.push_str(&format!("\n{}\n{}\n", report.machine, report.settings));
    text.push_str(&format!("{}; several streams are {}.\n{NOTES}", report.times, report.times.streams));
    text
}

fn between_hosts(report: &Report) -> Table {
    let mut table = Table::new(&[
        "",
        "LAYER",
        "ENCRYPTED",
        ">TCP GBIT/S",
        ">OF BARE",
        ">REVERSE",
        ">SEVERAL",
        ">RESENT/GB",
        ">CPU S/GB",
        ">UDP64 KPPS",
        ">TRIP µs",
        ">P99",
        ">LOADED P99",
        ">MIB",
    ]);
    for row in report.contenders.iter().filter(|row| row.median(Metric::Tcp).is_some()) {
        let layer = if row.layer == Layer::Ethernet { "Ethernet" } else { "IP" };
        let share = row.figures.get(&Metric::Tcp).and_then(|figure| figure.percent_of_kernel);
        let mut cells = vec![row.name.clone(), layer.to_owned(), if row.encrypted { "yes" } else { "no" }.to_owned()];
        cells.push(cell(row, Metric::Tcp, 2));
        cells.push(share.map_or_else(String::new, |percent| format!("{percent:.0} %")));
        let rest = [
            (Metric::TcpReverse, 2),
            (Metric::TcpSeveral, 2),
            (Metric::Retransmits, 0),
            (Metric::Cpu, 2),
            (Metric::Small, 0),
            (Metric::TripHalf, 0),
            (Metric::TripMost, 0),
            (Metric::TripLoaded, 0),
            (Metric::Memory, 1),
        ];
        cells.extend(rest.map(|(metric, digits)| cell(row, metric, digits)));
        table.row(cells);
    }
    table
}

/// Those with which weft is compared: all that carried traffic between the hosts, but itself.
fn compared(report: &Report) -> impl Iterator<Item = &Row> {
    report.contenders.iter().filter(|row| row.name != WEFT && row.median(Metric::Tcp).is_some())
}

fn ratios(report: &Report) -> Table {
    let mut table = Table::new(&[
        "WEFT /",
        ">TCP",
        ">REVERSE",
        ">SEVERAL",
        ">CPU",
        ">UDP64",
        ">TRIP",
        ">P99",
        ">LOADED P99",
        ">MEMORY",
    ]);
    let metrics = [
        Metric::Tcp,
        Metric::TcpReverse,
        Metric::TcpSeveral,
        Metric::Cpu,
        Metric::Small,
        Metric::TripHalf,
        Metric::TripMost,
        Metric::TripLoaded,
        Metric::Memory,
    ];
    for row in compared(report) {
        let ratio = |metric| row.figures.get(&metric).and_then(|figure| figure.weft_ratio);
        let cells = metrics.map(|metric| ratio(metric).map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        table.row(std::iter::once(row.name.clone()).chain(cells));
    }
    table
}

fn one_host(report: &Report) -> Table {
    let mut table = Table::new(&["", ">TCP GBIT/S", ">OF BRIDGE"]);
    for row in &report.contenders {
        let Some(figure) = row.figures.get(&Metric::TcpLocal) else { continue };
        let share = figure.percent_of_kernel.map_or_else(String::new, |percent| format!("{percent:.0} %"));
        table.row([row.name.clone(), cell(row, Metric::TcpLocal, 2), share]);
    }
    table
}

fn setups(report: &Report) -> Table {
    let mut table = Table::new(&["WHO", "VERSION", "SETUP"]);
    for row in &report.contenders {
        table.row([row.name.clone(), row.version.clone().unwrap_or_default(), row.setup.clone()]);
    }
    table
}

fn cell(row: &Row, metric: Metric, digits: usize) -> String {
    row.median(metric).map_or_else(String::new, |median| format!("{median:.digits$}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lab::bench::summary::tests::example;

    #[test]
    fn the_tables_have_everyone_who_carried_traffic_and_the_rest_is_said_below() {
        let text = text(&example());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |start: &[&str]| lines.iter().any(|words| words.starts_with(start));
        assert!(has(&["weft", "Ethernet", "yes", "6.00", "30", "%", "-", "-", "-", "2.50"]), "{text}");
        assert!(has(&["tinc", "Ethernet", "yes", "0.50", "2", "%", "-", "-", "0", "10.00"]), "{text}");
        assert!(has(&["tinc", "12.00", "-", "-", "0.25"]), "{text}");
        assert!(has(&["weft", "12.00", "75", "%"]), "{text}");
        assert!(
            has(&["tinc:", "its", "MTU"])
                && has(&["fastd", "failed:", "it", "said"])
                && has(&["nebula:", "nebula", "is", "not", "on"]),
            "{text}"
        );
        assert!(text.contains("Medians of 3 rounds of 1 s; several streams are 4."), "{text}");
    }

    #[test]
    fn tables_of_nothing_are_left_out() {
        let mut report = example();
        report.contenders.retain(|row| row.name == "tinc");
        let figures = report.contenders.iter_mut().flat_map(|row| row.figures.values_mut());
        figures.for_each(|figure| figure.weft_ratio = None);
        let text = text(&report);
        assert!(!text.contains("divided by") && !text.contains("on one host"), "{text}");
    }
}
