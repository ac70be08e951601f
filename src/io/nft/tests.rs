//! Against the kernel, in namespaces of the tests' own; what it made of our bytes is what nft shows.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::control::nat::{Exposed, Forward, Proto};
use crate::io::netns::Netns;
use crate::io::skip;
use crate::switch::ids::PortId;
use std::process::Command;

fn fresh() -> Option<Netns> {
    Netns::create().map_err(|error| skip::say(&error.to_string())).ok()
}

fn nft(netns: &Netns, arguments: &[&str]) -> Option<String> {
    let run = || Command::new("nft").args(arguments).output();
    match netns.run(run).unwrap() {
        Ok(output) => {
            assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            skip::say(&format!("nft does not run: {error}"));
            None
        }
    }
}

fn wanted() -> Rules {
    let exposed = |network: &str, masquerade: &[&str]| Exposed {
        network: network.to_owned(),
        ifname: format!("weft-{network}"),
        port: PortId(1),
        masquerade: masquerade.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        publishes: true,
    };
    let forward = |proto, host_ip: Option<&str>, host_port, targets: &[&str]| Forward {
        proto,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
        known: Vec::new(),
    };
    Rules {
        exposed: vec![exposed("blue", &["10.32.0.0/16", "fd00:32::/64"]), exposed("red", &[])],
        forwards: vec![
            forward(Proto::Tcp, None, 8080, &["10.32.0.5:80", "10.32.0.6:80", "10.32.1.7:80", "[fd00:32::5]:80"]),
            forward(Proto::Udp, Some("192.0.2.1"), 53, &["10.32.0.5:5353", "[fd00:32::5]:5353"]),
            forward(Proto::Udp, Some("2001:db8::1"), 53, &["[fd00:32::5]:5353"]),
            forward(Proto::Tcp, None, 9090, &[]),
        ],
        resuming: false,
    }
}

const SHOWN: &str = include_str!("shown.txt");

#[test]
fn the_kernel_understands_what_is_written_and_nft_shows_it() {
    let Some(netns) = fresh() else { return };
    let table = Nft::default();
    netns.run(|| table.set(&wanted())).unwrap().unwrap();
    let Some(shown) = nft(&netns, &["list", "ruleset"]) else { return };
    assert_eq!(shown, SHOWN);
    assert!(netns.run(|| is_whole(&table.lock().chains)).unwrap().unwrap());

    // Written again it is the same, and with nothing wanted there is none.
    netns.run(|| table.set(&wanted())).unwrap().unwrap();
    assert_eq!(nft(&netns, &["list", "ruleset"]).unwrap(), SHOWN);
    netns.run(|| table.set(&Rules::default())).unwrap().unwrap();
    assert_eq!(nft(&netns, &["list", "ruleset"]).unwrap(), "");
}

/// Of the smallest table that publishes something, every byte, in the order of this machine. It is what nft shows as [`SHOWN`] that says
/// that they are right; this says that they stay so.
#[test]
#[cfg(target_endian = "little")]
fn the_bytes_of_a_batch_stay_as_they_are() {
    let rules = Rules {
        exposed: vec![wanted().exposed.remove(1)],
        forwards: vec![Forward { targets: vec!["10.32.0.5:80".parse().unwrap()], ..wanted().forwards.remove(0) }],
        resuming: false,
    };
    let bytes = rules::batch(&rules::chains(&rules));
    let hex: String =
        bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/io/nft/batch.hex"), &hex).unwrap();
    }
    assert_eq!(hex, include_str!("batch.hex"));
}

#[test]
fn what_others_do_to_our_table_is_undone_and_nothing_of_theirs_is_touched() {
    let Some(netns) = fresh() else { return };
    let table = Nft::default();
    if nft(&netns, &["add", "table", "inet", "theirs"]).is_none() {
        return;
    }
    netns.run(|| table.set(&wanted())).unwrap().unwrap();
    assert!(netns.run(|| is_whole(&table.lock().chains)).unwrap().unwrap());
    // A rule more, rules less, a chain more, and nothing left.
    for harm in [
        &["add", "rule", "inet", TABLE, "guard", "accept"][..],
        &["flush", "chain", "inet", TABLE, "forward"],
        &["add", "chain", "inet", TABLE, "more"],
        &["delete", "table", "inet", TABLE],
    ] {
        nft(&netns, harm);
        assert!(!netns.run(|| is_whole(&table.lock().chains)).unwrap().unwrap(), "{harm:?}");
        netns.run(|| table.look()).unwrap();
        assert!(netns.run(|| is_whole(&table.lock().chains)).unwrap().unwrap(), "{harm:?}");
    }
    netns.run(|| table.set(&Rules::default())).unwrap().unwrap();
    assert_eq!(nft(&netns, &["list", "ruleset"]).unwrap(), "table inet theirs {\n}\n");
}
