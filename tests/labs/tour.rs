//! `weft lab`, the tour: what it prints, how it ends.

use super::{Running, assert_bare, in_own_run};
use crate::common::cli;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The tour, with what the issue promises of its JSON.
fn assert_schema(report: &Value) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(report), ["ok", "steps", "tcp_gbps", "udp64_kpps"].map(str::to_owned).into());
    assert!(report["ok"].is_boolean());
    for step in report["steps"].as_array().unwrap() {
        assert_eq!(keys(step), ["detail", "name", "ok"].map(str::to_owned).into());
        assert!(step["name"].is_string() && step["ok"].is_boolean() && step["detail"].is_string(), "{step}");
    }
}

#[test]
fn the_tour_holds_prints_its_json_and_leaves_nothing() {
    in_own_run(|| {
        let tour = Running::start("--json --seconds 1");
        tour.until("bulk TCP");
        let belongings = tour.belongings();
        assert_eq!(belongings.processes.len(), 4, "a daemon on each of three hosts: {belongings:?}");
        assert!(belongings.namespaces.len() >= 3 + 9, "{belongings:?}");
        let (ended, netns) = tour.end();
        let report = ended.json();
        assert_eq!(ended.status.code(), Some(0), "{report:#}");
        assert_schema(&report);
        let steps = report["steps"].as_array().unwrap();
        assert!(report["ok"] == true && steps.iter().all(|step| step["ok"] == true), "{report:#}");
        assert!(report["tcp_gbps"].as_f64().unwrap() > 0.05, "{report:#}");
        assert!(report["udp64_kpps"].as_f64().unwrap() > 1.0, "{report:#}");
        // Each step was seen under way, too.
        for step in steps {
            assert!(ended.err.contains(step["name"].as_str().unwrap()), "{step} is not in {}", ended.err);
        }
        belongings.assert_gone();
        assert_bare(&netns);
    });
}

#[test]
fn whoever_ends_the_tour_before_its_end_finds_nothing_left() {
    in_own_run(|| {
        let cases = [(libc::SIGINT, "hosts and daemons"), (libc::SIGINT, "bulk TCP"), (libc::SIGTERM, "ping, IPv4")];
        for (signal, step) in cases {
            let tour = Running::start("--json --seconds 60");
            tour.until(step);
            // Nothing is there yet in the very first step.
            let belongings = (step != "hosts and daemons").then(|| tour.belongings());
            let begun = Instant::now();
            tour.signal(signal);
            let (ended, netns) = tour.end();
            assert!(begun.elapsed() < Duration::from_secs(20), "after {:?}", begun.elapsed());
            let report = ended.json();
            assert_eq!(ended.status.code(), Some(1), "{report:#}");
            assert_schema(&report);
            assert!(report["ok"] == false && ended.err.ends_with("\ninterrupted\n"), "{report:#}{}", ended.err);
            let last = report["steps"].as_array().unwrap().last().unwrap();
            assert!(last["name"] == "clean-up" && last["ok"] == true, "{report:#}");
            if let Some(belongings) = belongings {
                belongings.assert_gone();
            }
            assert_bare(&netns);
        }
    });
}

#[test]
fn a_tour_that_is_killed_takes_all_but_its_directory_along_and_that_goes_next_time() {
    in_own_run(|| {
        let tour = Running::start("--seconds 60");
        let pid = tour.child.id();
        crate::common::eventually("three daemons and nine containers", || {
            let found = super::descendants(pid).len() == 3 && super::namespaces_of(pid).len() > 12;
            found.then_some(())
        });
        let belongings = tour.belongings();
        // SAFETY: kill takes numbers only; the child has not been waited for.
        assert_eq!(unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) }, 0);
        let (_, netns) = tour.end();
        assert_eq!(belongings.dirs.len(), 1, "{belongings:?}");
        belongings.assert_dead();
        assert!(belongings.dirs[0].exists());
        cli::weft("/nowhere".as_ref(), "lab status").done();
        belongings.assert_gone();
        assert_bare(&netns);
    });
}

#[test]
fn a_daemon_that_dies_makes_the_tour_fail_and_nothing_is_left_either() {
    in_own_run(|| {
        let tour = Running::start("--json --seconds 2");
        tour.until("bulk TCP");
        let belongings = tour.belongings();
        // SAFETY: kill takes numbers only; the daemon is an unburied child of the tour.
        assert_eq!(unsafe { libc::kill(belongings.process("/h2/weft.toml"), libc::SIGKILL) }, 0);
        let (ended, netns) = tour.end();
        let report = ended.json();
        assert_eq!(ended.status.code(), Some(1), "{report:#}");
        assert_schema(&report);
        assert_eq!(report["ok"], false);
        let held = |name: &str| {
            report["steps"]
                .as_array()
                .unwrap()
                .iter()
                .find(|step| step["name"] == name)
                .map(|step| step["ok"].clone())
        };
        assert_eq!((held("ping, IPv4"), held("bulk TCP")), (Some(true.into()), Some(false.into())), "{report:#}");
        assert_eq!((held("clean-up"), &report["tcp_gbps"]), (Some(true.into()), &Value::Null), "{report:#}");
        belongings.assert_gone();
        assert_bare(&netns);
    });
}
