//! `weft lab --topology`: what it prints, how it ends; and labs that stay up on a topology.

use super::{Running, assert_bare, in_own_run};
use crate::common::cli::weft;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use weft::lab::scenes;

/// A report, with everything somebody may rely on.
fn assert_schema(report: &Value, scene: &str) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(report), ["acts", "ok", "topology"].map(str::to_owned).into());
    assert!(report["ok"].is_boolean() && report["topology"] == scene, "{report:#}");
    for act in report["acts"].as_array().unwrap() {
        assert_eq!(keys(act), ["detail", "name", "ok", "pairs", "pause_ms", "took_ms"].map(str::to_owned).into());
        for pair in act["pairs"].as_array().unwrap() {
            let expected = ["from", "kind", "path", "path_mtu", "rtt_ms", "to"].map(str::to_owned);
            assert_eq!(keys(pair), expected.into());
        }
    }
}

/// Plays a scene to its end and expects that all of it held.
fn holds(scene: &str) {
    in_own_run(|| {
        let hosts = scenes::find(scene).unwrap().spec("x").hosts;
        let running = Running::start(&format!("--topology {scene} --json"));
        running.until("the beginning");
        let belongings = running.belongings();
        assert_eq!(belongings.processes.len(), 1 + hosts, "a daemon on each host: {belongings:?}");
        let (ended, netns) = running.end();
        let report = ended.json();
        assert_eq!(ended.status.code(), Some(0), "{report:#}");
        assert_schema(&report, scene);
        let acts = report["acts"].as_array().unwrap();
        assert!(report["ok"] == true && acts.iter().all(|act| act["ok"] == true), "{report:#}");
        for act in &acts[1..acts.len() - 1] {
            assert_eq!(act["pairs"].as_array().unwrap().len(), hosts * (hosts - 1), "{act:#}");
            assert!(act["took_ms"].is_u64() && act["pause_ms"].is_u64(), "{act:#}");
            assert!(ended.err.contains(act["name"].as_str().unwrap()), "{act:#} is not in {}", ended.err);
        }
        belongings.assert_gone();
        assert_bare(&netns);
    });
}

#[test]
fn parted_hosts_go_on_among_themselves_and_meet_again() {
    holds("partition");
}

#[test]
fn a_host_that_crashed_is_back_after_its_reboot() {
    holds("crash");
}

#[test]
fn a_laptop_is_carried_about_and_its_connections_go_on() {
    holds("roam");
}

#[test]
fn lines_that_lose_and_overtake_carry_everything_in_the_end() {
    holds("lossy");
}

#[test]
fn a_slow_line_carries_what_it_can() {
    holds("slow");
}

#[test]
fn jumbo_packets_are_used_where_they_pass() {
    holds("jumbo");
}

#[test]
fn a_black_hole_is_noticed_and_its_end_too() {
    holds("blackhole");
}

#[test]
fn hosts_behind_nats_find_a_way_through() {
    holds("nat");
}

#[test]
fn hosts_behind_symmetric_nats_use_a_relay_until_one_is_lifted() {
    holds("symmetric");
}

#[test]
fn a_chain_goes_on_through_another_when_its_middle_dies() {
    holds("chain");
}

#[test]
fn hosts_behind_firewalls_are_reached() {
    holds("firewall");
}

#[test]
fn tcp_carries_what_udp_may_not() {
    holds("tcp-only");
}

#[test]
fn hosts_without_ipv4_are_members_like_others() {
    holds("ipv6");
}

#[test]
fn whoever_interrupts_a_scene_finds_nothing_left() {
    in_own_run(|| {
        let scene = Running::start("--topology crash --json");
        scene.until("the beginning");
        let belongings = scene.belongings();
        let begun = Instant::now();
        scene.signal(libc::SIGINT);
        let (ended, netns) = scene.end();
        assert!(begun.elapsed() < Duration::from_secs(20), "after {:?}", begun.elapsed());
        let report = ended.json();
        assert_schema(&report, "crash");
        assert!(ended.status.code() == Some(1) && report["ok"] == false, "{report:#}");
        assert!(ended.err.ends_with("\ninterrupted\n"), "{}", ended.err);
        assert_eq!(report["acts"].as_array().unwrap().last().unwrap()["name"], "clean-up");
        belongings.assert_gone();
        assert_bare(&netns);
    });
}

#[test]
fn a_lab_stays_up_on_a_topology_and_its_hosts_are_where_it_says() {
    in_own_run(|| {
        let lab = |line: &str| weft("/nowhere".as_ref(), &format!("lab {line}"));
        let told = lab("up --topology ipv6").done();
        assert!(told.contains("is up: 4 hosts"), "{told}");
        let status: Value = lab("status --json").json();
        assert_eq!(status[0]["hosts"][1]["v4"], "0.0.0.0");
        let status = lab("status").done();
        assert!(status.contains("2001:db8:0:2::2") && !status.contains("0.0.0.0"), "{status}");
        lab("ping h1 h4 --count 1").done();
        lab("ping h3 h2 --count 1").done();
        lab("ping h1/c1 h4/c1 --count 1").done();
        lab("down").done();
    });
}

#[test]
fn a_topology_that_nobody_knows_is_refused_with_those_there_are() {
    let told = weft("/nowhere".as_ref(), "lab --topology circle").misused();
    assert!(told.contains("'circle'") && scenes::ALL.iter().all(|scene| told.contains(scene.name)), "{told}");
}
