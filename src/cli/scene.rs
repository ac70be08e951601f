//! `weft lab --topology NAME`: a scene, act by act, with a table of who reaches whom by what path.

use super::lab::{print, print_json, ready, tell};
use super::table::Table;
use crate::lab::scenes::{self, Pair, Report, Scene};
use crate::lab::tour::Progress;
use crate::lab::{LabError, Stop};
use clap::builder::PossibleValuesParser;
use std::process::ExitCode;

/// What `--topology` takes.
pub(super) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(scenes::ALL.iter().map(|scene| scene.name))
}

/// The scene called `name`.
pub(super) fn find(name: &str) -> Result<&'static Scene, LabError> {
    scenes::find(name).ok_or_else(|| LabError::Refused(format!("there is no topology called {name}")))
}

/// Plays it and prints what became of it.
pub(super) fn show(name: &str, json: bool) -> Result<ExitCode, LabError> {
    let scene = find(name)?;
    let stop = ready().inspect_err(|error| {
        if json {
            print_json(&scene.impossible(error));
        }
    })?;
    let spec = scene.spec(format!("{name}-{}", std::process::id()));
    tell(json, &format!("{}: {}\n{}\n\n", scene.name, scene.about, scene.picture));
    let width = scene.acts.iter().map(|act| act.what.len()).max().unwrap_or_default().max(18) + 2;
    let mut progress = |progress: Progress<'_>| match progress {
        Progress::Begin(what) => tell(json, &format!("{what:width$}")),
        Progress::End(step) if step.ok => tell(json, &format!("{}\n", step.detail)),
        Progress::End(step) => tell(json, &format!("FAILED: {}\n", step.detail)),
    };
    let report = scene.play(spec, &stop, &mut progress);
    if json {
        print_json(&report);
    } else {
        print(&text(&report));
    }
    ended(&report, &stop)
}

fn ended(report: &Report, stop: &Stop) -> Result<ExitCode, LabError> {
    if stop.is_set() {
        return Err(LabError::Interrupted);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who reached whom after each act, and whether all of it held.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for act in report.acts.iter().filter(|act| !act.pairs.is_empty()) {
        let mut table = Table::new(&["FROM", "TO", ">RTT", "PATH", ">MTU", "BY"]);
        for Pair { from, to, rtt_ms, kind, path, path_mtu } in &act.pairs {
            let rtt = rtt_ms.map_or_else(|| "no answer".to_owned(), |rtt| format!("{rtt:.1} ms"));
            let mtu = path_mtu.map_or_else(String::new, |mtu| mtu.to_string());
            table.row([from.clone(), to.clone(), rtt, kind.to_string(), mtu, path.clone()]);
        }
        text.push_str(&format!("\nAfter: {}\n{}", act.step.name, table.render()));
    }
    text.push_str(if report.ok { "\nEverything held.\n" } else { "\nNot everything held.\n" });
    text
}
