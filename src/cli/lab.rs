//! `weft lab …`: the arguments, and what is shown of a tour, a bench and the labs that run.
//!
//! What people read while something runs goes to standard error when `--json` is given, so that standard output has
//! the JSON and nothing else.

use super::scale::{self, ScaleArgs};
use super::table::Table;
use super::underlay::{LinkArgs, PathArgs};
use super::{bench, complain, scene, show};
use crate::control::request::Response;
use crate::lab::ping::Pinger;
use crate::lab::report::human;
use crate::lab::spec::{CONTAINER_IFNAME, LabSpec};
use crate::lab::supervise::{self, LabStatus};
use crate::lab::{LabError, Stop, privileges, registry, tour};
use clap::{Args, Subcommand, ValueHint};
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The name of a lab that was given none.
const DEFAULT_NAME: &str = "lab";
/// How long a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(5);

/// Hosts and containers on this one machine, to try weft with. Without a command: the tour.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LabArgs {
    #[command(subcommand)]
    command: Option<LabCommand>,
    #[command(flatten)]
    tour: TourArgs,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Start a lab and leave it running
    Up(UpArgs),
    /// Run a command inside a host or container of a lab
    Exec(ExecArgs),
    /// Ping from inside a host or container of a lab; needs no tool
    Ping(PingArgs),
    /// Show the labs that run
    Status(StatusArgs),
    /// End a lab
    Down(DownArgs),
    /// Measure weft beside every other overlay this machine has
    Bench(bench::BenchArgs),
    /// Measure whether cost is flat: one stream, while ports, peers and FDB entries of one host grow
    Scale(ScaleArgs),
    /// Hold a lab (started by `up`)
    #[command(hide = true)]
    Supervise {
        /// The lab's directory.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct TourArgs {
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    /// How long each measurement lasts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Show this topology instead: what is expected on it, what happens to it, and by which path each reaches each
    #[arg(long, value_name = "NAME", value_parser = scene::names(), conflicts_with = "seconds")]
    topology: Option<String>,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// How many hosts
    #[arg(long, value_name = "N", default_value_t = 3)]
    hosts: usize,
    /// How many containers each
    #[arg(long, value_name = "N", default_value_t = 2)]
    containers: usize,
    /// Put the hosts where this topology has them
    #[arg(long, value_name = "NAME", value_parser = scene::names(),
        conflicts_with_all = ["hosts", "underlay_mtu", "LinkArgs"])]
    topology: Option<String>,
    #[command(flatten)]
    path: PathArgs,
    #[command(flatten)]
    link: LinkArgs,
}

#[derive(Debug, Args)]
struct ExecArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// A host (h1) or a container (h1/c1)
    place: String,
    /// What to run there
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
struct PingArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// How many times
    #[arg(long, value_name = "N", default_value_t = 3)]
    count: usize,
    /// Bytes of payload
    #[arg(long, value_name = "BYTES", default_value_t = 56)]
    size: usize,
    /// From a host (h1) or a container (h1/c1)
    from: String,
    /// To an address, or to a host or container of the lab
    to: String,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Only the lab of this name
    #[arg(long)]
    name: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DownArgs {
    /// The lab's name
    #[arg(long, default_value = DEFAULT_NAME, conflicts_with = "all")]
    name: String,
    /// End all labs
    #[arg(long)]
    all: bool,
}

/// Runs `weft lab …`. There must be no second thread yet.
pub fn run(args: LabArgs) -> ExitCode {
    let outcome = match args.command {
        None => match &args.tour.topology {
            None => return show_tour(&args.tour),
            Some(name) => return scene::show(name, args.tour.json).unwrap_or_else(|error| failed(&error)),
        },
        Some(LabCommand::Up(args)) => up(&args),
        Some(LabCommand::Exec(args)) => exec(&args),
        Some(LabCommand::Ping(args)) => ping(&args),
        Some(LabCommand::Status(args)) => status(&args),
        Some(LabCommand::Down(args)) => down(&args),
        Some(LabCommand::Bench(args)) => bench::show(&args),
        Some(LabCommand::Scale(args)) => show_scale(&args),
        Some(LabCommand::Supervise { dir }) => supervise::supervise(dir),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &LabError) -> ExitCode {
    complain(&error.to_string())
}

fn show_tour(args: &TourArgs) -> ExitCode {
    let spec = tour::spec(format!("tour-{}", std::process::id()));
    let stop = match ready() {
        Ok(stop) => stop,
        Err(error) => {
            if args.json {
                let step = tour::Step { name: "hosts and daemons".to_owned(), ok: false, detail: error.to_string() };
                print_json(&tour::Report { steps: vec![step], ..Default::default() });
            }
            return failed(&error);
        }
    };
    let mut progress = |progress: tour::Progress<'_>| match progress {
        tour::Progress::Begin(name) => tell(args.json, &format!("{name:28}")),
        tour::Progress::End(step) if step.ok => tell(args.json, &format!("{}\n", step.detail)),
        tour::Progress::End(step) => tell(args.json, &format!("FAILED: {}\n", step.detail)),
    };
    let report = tour::run(spec, Duration::from_secs(args.seconds), &stop, &mut progress);
    if args.json {
        print_json(&report);
    } else {
        print(&tour_text(&report));
    }
    if stop.is_set() {
        return failed(&LabError::Interrupted);
    }
    if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tour_text(report: &tour::Report) -> String {
    let mut text = String::new();
    if !report.fdb.is_empty() {
        text.push_str(&format!("\nThe FDB of h1:\n{}", show::text(&Response::Fdb(report.fdb.clone()))));
    }
    let mut steps = Table::new(&["STEP", "HELD", "FIGURE"]);
    for step in &report.steps {
        let held = if step.ok { "yes" } else { "NO" };
        steps.row([step.name.clone(), held.to_owned(), step.detail.clone()]);
    }
    text.push_str(&format!("\n{}", steps.render()));
    if report.ok {
        text.push_str(&format!("\nEvery step held. To play: {} lab up\n", program()));
    }
    text
}

fn up(args: &UpArgs) -> Result<(), LabError> {
    let mut spec = LabSpec::new(&args.name, args.hosts, args.containers);
    if let Some(name) = &args.topology {
        let scene = scene::find(name)?.spec(&args.name);
        let networks = spec.networks;
        spec = LabSpec { networks, ..scene };
    }
    args.path.apply(&mut spec);
    args.link.apply(&mut spec);
    let lab = supervise::up(&spec)?;
    let option = if args.name == DEFAULT_NAME { String::new() } else { format!(" --name {}", args.name) };
    let weft = program();
    let first = lab.hosts.first().and_then(|host| host.containers.first());
    let last = lab.hosts.last().and_then(|host| host.containers.last());
    let mut text = format!("Lab {} is up: {} hosts.\n\n", lab.name, lab.hosts.len());
    if let (Some(from), Some(to)) = (first, last) {
        text.push_str(&format!("  {weft} lab ping{option} {} {}\n", from.name, to.name));
    }
    text.push_str(&format!("  {weft} lab exec{option} h1 -- {weft} status\n"));
    text.push_str(&format!("  {weft} lab status{option}\n  {weft} lab down{option}\n"));
    print(&text);
    Ok(())
}

fn exec(args: &ExecArgs) -> Result<(), LabError> {
    let lab = registry::find(&registry::base(), &args.name)?;
    match supervise::exec(&lab, &args.place, &args.command)? {}
}

fn ping(args: &PingArgs) -> Result<(), LabError> {
    let lab = registry::find(&registry::base(), &args.name)?;
    let to = match args.to.parse() {
        Ok(address) => address,
        Err(_) => lab.address(&args.to).ok_or_else(|| {
            let text = format!("'{}' is neither an IP address nor a host or container of lab {}", args.to, lab.name);
            LabError::Refused(text)
        })?,
    };
    let (netns, _) = supervise::place(&lab, &args.from)?;
    let failed = |source| LabError::Ping { from: args.from.clone(), to: args.to.clone(), source };
    let link_local = matches!(to, IpAddr::V6(to) if to.is_unicast_link_local());
    let mut pinger = Pinger::open(&netns, to, link_local.then_some(CONTAINER_IFNAME)).map_err(failed)?;
    for number in 1..=args.count.max(1) {
        // The first may meet a handshake and an address resolution.
        let delay = pinger.until(args.size, PING_PATIENCE).map_err(failed)?;
        print(&format!("{} → {to}: {} bytes, answer {number} after {}\n", args.from, args.size, human(delay)));
    }
    Ok(())
}

fn status(args: &StatusArgs) -> Result<(), LabError> {
    let labs = supervise::status(&registry::base(), args.name.as_deref())?;
    if args.json {
        print_json(&labs);
        return Ok(());
    }
    if labs.is_empty() {
        print(&format!("No lab is running. Start one: {} lab up\n", program()));
    }
    for LabStatus { lab, daemons } in &labs {
        let mut places = Table::new(&["WHERE", "ADDRESSES", ""]);
        for (host, daemon) in lab.hosts.iter().zip(daemons) {
            let addresses: Vec<String> = host.addresses().map(|address| address.to_string()).collect();
            places.row([host.name.clone(), addresses.join(", "), format!("daemon {daemon}")]);
            for container in &host.containers {
                let addresses = format!("{}, {}", container.v4, container.v6);
                places.row([container.name.clone(), addresses, format!("network {}", container.network)]);
            }
        }
        print(&format!("Lab {}, held by process {}\n{}\n", lab.name, lab.pid, places.render()));
    }
    Ok(())
}

fn down(args: &DownArgs) -> Result<(), LabError> {
    let base = registry::base();
    let was_there = base.join(&args.name).exists();
    let labs = match registry::find(&base, &args.name) {
        _ if args.all => registry::list(&base)?,
        Ok(lab) => vec![lab],
        Err(_) if was_there && !base.join(&args.name).exists() => {
            print(&format!("Lab {} is gone: its process had died already.\n", args.name));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for lab in &labs {
        supervise::down(&base, lab)?;
        print(&format!("Lab {} is gone.\n", lab.name));
    }
    Ok(())
}

fn show_scale(args: &ScaleArgs) -> Result<(), LabError> {
    let stop = ready()?;
    let report = scale::run(args, &stop, &mut |what| tell(true, &format!("{what} …\n")))?;
    if args.json {
        print_json(&report);
    } else {
        print(&scale::text(&report));
    }
    Ok(())
}

/// This program as it was called, so that what we suggest can be typed where it is not installed.
fn program() -> String {
    let called = std::env::args_os().next().filter(|name| !name.is_empty());
    called.map_or_else(|| "weft".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Gets the rights the lab needs, and a flag that Ctrl-C sets.
pub(super) fn ready() -> Result<Stop, LabError> {
    privileges::acquire()?;
    Stop::on_signals().map_err(LabError::io("handle signals"))
}

/// Says something while work goes on. A reader that has gone away is no reason to stop and leave a lab behind.
pub(super) fn tell(to_stderr: bool, text: &str) {
    let _ = if to_stderr {
        io::stderr().write_all(text.as_bytes())
    } else {
        let mut out = io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
}

pub(super) fn print(text: &str) {
    tell(false, text);
}

pub(super) fn print_json(value: &impl Serialize) {
    // These types have no map with keys other than text, so this cannot fail.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&format!("{text}\n"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Weft {
        #[command(flatten)]
        lab: LabArgs,
    }

    fn parse(line: &str) -> Result<LabArgs, clap::Error> {
        Weft::try_parse_from(std::iter::once("lab").chain(line.split_whitespace())).map(|weft| weft.lab)
    }

    #[test]
    fn the_command_lines_of_the_documentation_are_understood() {
        let args = parse("--json --seconds 1").unwrap();
        assert!(args.command.is_none() && args.tour.json && args.tour.seconds == 1);
        let Some(LabCommand::Exec(args)) = parse("exec h1/c1 -- ping -c 1 10.32.2.1").unwrap().command else {
            panic!("exec");
        };
        assert_eq!((args.place.as_str(), args.command.len()), ("h1/c1", 4));
        let Some(LabCommand::Up(args)) = parse("up --hosts 4 --loss 5% --delay 10 --mtu 9000").unwrap().command
        else {
            panic!("up");
        };
        let settings = args.link.settings().unwrap();
        assert_eq!((settings.loss, settings.delay), (5.0, Duration::from_millis(10)));
        parse("bench --only weft,tinc --rounds 1 --chart x.svg --offload-off tap_tso --offload-off merge").unwrap();
        assert_eq!(parse("--topology symmetric --json").unwrap().tour.topology.as_deref(), Some("symmetric"));
        parse("up --topology tcp-only --containers 2 --mtu 9000").unwrap();
        parse("down --all").unwrap();
        parse("ping h1/c1 h2/c1 --size 10000").unwrap();
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "up --loss 101",
            "up --loss x",
            "exec h1",
            "bench --offload-off speed",
            "bench --rounds 0",
            "down --all --name x",
            "--topology circle",
            "up --topology nat --hosts 2",
            "up --topology nat --loss 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_unimpaired_underlay_is_the_bridge() {
        let Some(LabCommand::Up(args)) = parse("up").unwrap().command else { panic!("up") };
        assert_eq!(args.link.settings(), None);
    }
}
