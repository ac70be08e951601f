//! The kernels' own questions on the underlay: who answers weft is not asked for its address again and again.

use crate::common::place::{inside, lab, spec, usable};
use crate::support::raw::Raw;
use crate::support::reaches;
use crate::support::traffic::Pings;
use std::fs;
use std::time::{Duration, Instant};

/// For how long a kernel believes an answer, in ms: half of it more or less by chance, so that the shortest is longer than twice the
/// pause between heartbeats. By default it is 30,000.
const REACHABLE: &str = "9000";
/// After how many seconds of doubt it asks.
const DOUBT: &str = "1";
/// The longest that it believes an answer, and doubts it.
const WATCHED: Duration = Duration::from_millis(13_500 + 1_000 + 1_000);

#[test]
fn a_host_that_answers_is_not_asked_for_its_address_again() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    reaches(lab.container(1, 1), lab.container(2, 1));
    for h in [1, 2] {
        let set = || {
            let of_eth0 = "/proc/sys/net/ipv4/neigh/eth0";
            fs::write(format!("{of_eth0}/base_reachable_time_ms"), REACHABLE).unwrap();
            fs::write(format!("{of_eth0}/delay_first_probe_time"), DOUBT).unwrap();
        };
        lab.host(h).netns.run(set).unwrap();
        // What is known already is believed by the measure of before: with the interface down it is forgotten.
        inside(&lab.host(h).netns, |netlink| {
            let index = netlink.link("eth0").unwrap().unwrap().index;
            netlink.set_down(index).unwrap();
            netlink.set_up(index).unwrap();
        });
    }
    let pings =
        Pings::start(&lab.container(1, 1).netns, lab.container(2, 1).v4.into(), 56, Duration::from_millis(20));
    pings.answered_after(Instant::now());
    let ears = [1, 2].map(|h| Raw::open(&lab.host(h).netns, "eth0"));
    pings.answered_after(Instant::now() + WATCHED);
    for ear in ears {
        let frames = std::iter::from_fn(|| ear.receive(Duration::ZERO));
        let asked = frames.filter(|frame| frame[12..14] == [0x08, 0x06]).count();
        assert_eq!(asked, 0, "ARP frames on the underlay");
    }
}
