//! `weft lab bench`: what it measures, whom it names, and that nothing is left.

use super::{Running, assert_bare, in_own_run};
use crate::common::cli::{WEFT, weft};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A fastd that makes keys and then does not run.
const UNWILLING: &str = "#!/bin/sh
case \"$1\" in
--version) echo 'fastd v0' ;;
--generate-key) echo 'Secret: 00'; echo 'Public: 11' ;;
*) echo 'rather not'; exit 3 ;;
esac
";

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rows = report["contenders"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[test]
fn the_bench_compares_what_works_names_what_does_not_and_leaves_nothing() {
    in_own_run(|| {
        // Outside the system's directories this machine has a fastd that fails, and nothing else.
        let (programs, chart) = (Path::new("/run/programs"), Path::new("/run/chart.svg"));
        fs::create_dir(programs).unwrap();
        fs::write(programs.join("fastd"), UNWILLING).unwrap();
        fs::set_permissions(programs.join("fastd"), Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(WEFT);
        command.env("PATH", programs);
        let only = "weft,vxlan,bridge,fastd,wireguard-go";
        let bench = Running::run(
            command,
            &format!("bench --only {only} --rounds 1 --seconds 1 --streams 2 --json --chart {}", chart.display()),
        );
        bench.until("round 1 of 1: weft");
        let belongings = bench.belongings();
        assert_eq!(belongings.processes.len(), 3, "a daemon on each of two hosts: {belongings:?}");
        let (ended, netns) = bench.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
        let report = ended.json();
        let machine = &report["machine"];
        assert!(machine["cores"].as_u64() > Some(0) && machine["kernel"].is_string(), "{report:#}");
        assert!(report["rounds"] == 1 && report["streams"] == 2, "{report:#}");

        let between =
            ["tcp_gbps", "tcp_several_gbps", "tcp_reverse_gbps", "udp64_kpps", "trip_p50_us", "trip_p99_us"];
        let own = ["cpu_s_per_gb", "tcp_one_host_gbps", "memory_mib", "trip_loaded_p99_us"];
        let of_weft = &row(&report, "weft")["figures"];
        for name in between.iter().chain(&own) {
            let figure = &of_weft[name];
            assert!(figure["median"].as_f64() > Some(0.0) && figure["weft_ratio"] == 1.0, "{name}: {figure}");
            let has_share = between.contains(name) || name.starts_with("tcp") || name.starts_with("trip");
            assert_eq!(figure["percent_of_kernel"].is_number(), has_share, "{name}: {figure}");
        }
        assert!(of_weft["retransmits_per_gb"]["median"].is_number(), "{of_weft}");
        assert!(row(&report, "bridge")["figures"]["tcp_one_host_gbps"]["median"].as_f64() > Some(0.0), "{report:#}");
        let others = [("bare", None), ("vxlan", Some("vxlan"))];
        for (name, may_be_missing) in others {
            let row = row(&report, name);
            match (row["failed"].as_str(), may_be_missing) {
                (Some(why), Some(device)) => assert!(why.contains(device), "{row}"),
                (failed, _) => {
                    assert!(failed.is_none() && row["fragmented"] == 0, "{row}");
                    assert!(between.iter().all(|figure| row["figures"][figure]["weft_ratio"].is_number()), "{row}");
                    assert!(row["figures"]["cpu_s_per_gb"].is_null(), "{row}");
                }
            }
        }

        let failed = row(&report, "fastd")["failed"].as_str().unwrap();
        assert!(failed.contains("exit status: 3") && failed.contains("rather not"), "{failed}");
        assert!(row(&report, "fastd")["figures"].as_object().unwrap().is_empty(), "{report:#}");
        let absent = report["absent"].as_array().unwrap();
        assert!(absent.len() == 1 && absent[0]["name"] == "wireguard-go", "{report:#}");
        assert!(absent[0]["reason"].as_str().unwrap().contains("Debian package wireguard-go"), "{report:#}");

        let drawn = fs::read_to_string(chart).unwrap();
        assert!(drawn.starts_with("<svg ") && drawn.contains(">weft<") && drawn.ends_with("</svg>\n"), "{drawn}");
        belongings.assert_gone();
        assert_bare(&netns);
    });
}

#[test]
fn whoever_interrupts_the_bench_finds_nothing_left() {
    in_own_run(|| {
        let bench = Running::start("bench --only weft --seconds 60");
        bench.until("round 1 of 3: bare");
        let belongings = bench.belongings();
        bench.signal(libc::SIGINT);
        let (ended, netns) = bench.end();
        assert!(ended.status.code() == Some(1) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
        assert!(ended.err.ends_with("\ninterrupted\n"), "{}", ended.err);
        belongings.assert_gone();
        assert_bare(&netns);
    });
}

#[test]
fn a_name_that_nobody_has_is_refused_with_those_there_are() {
    let told = weft("/nowhere".as_ref(), "lab bench --only weft,tink").misused();
    assert!(told.contains("'tink'") && told.contains("vpncloud"), "{told}");
}
