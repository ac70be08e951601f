//! The kernels' own questions on the underlay: who answers weft is not asked for its address again and again.

use crate::common::place::{lab, spec, usable};
use crate::support::raw::Raw;
use crate::support::reaches;
use crate::support::traffic::Pings;
use std::fs;
use std::time::{Duration, Instant};

/// For how long a kernel believes an answer: a tenth of what it is by default, half of this more or less by chance.
const REACHABLE: &str = "3000";
/// The kernel's questions come this much later at the latest: it waits for a second before it asks.
const WATCHED: Duration = Duration::from_secs(7);

#[test]
fn a_host_that_answers_is_not_asked_for_its_address_again() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    reaches(lab.container(1, 1), lab.container(2, 1));
    for h in [1, 2] {
        let set = || {
            for file in ["base_reachable_time_ms", "delay_first_probe_time"] {
                let value = if file == "base_reachable_time_ms" { REACHABLE } else { "1" };
                fs::write(format!("/proc/sys/net/ipv4/neigh/eth0/{file}"), value).unwrap();
            }
        };
        lab.host(h).netns.run(set).unwrap();
    }
    let pings =
        Pings::start(&lab.container(1, 1).netns, lab.container(2, 1).v4.into(), 56, Duration::from_millis(20));
    // What the kernels asked for the last time by their old measure does not count.
    pings.answered_after(Instant::now() + WATCHED);
    let ears = [1, 2].map(|h| Raw::open(&lab.host(h).netns, "eth0"));
    pings.answered_after(Instant::now() + WATCHED);
    for ear in ears {
        let frames = std::iter::from_fn(|| ear.receive(Duration::ZERO));
        let asked = frames.filter(|frame| frame[12..14] == [0x08, 0x06]).count();
        assert_eq!(asked, 0, "ARP frames on the underlay");
    }
}
