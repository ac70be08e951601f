//! The cost of a frame does not depend on how much else a host has: instructions, counted by callgrind, with a thousand ports,
//! peers and networks and a million stations beside those that talk, and without.
//!
//! Time would be noise here. What instructions do not show is the memory they wait for: `cargo bench --bench switch` does.
//! valgrind knows no AVX-512; the ciphers find that out at run time and take another way, which is the same for all cases.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "bench/hosts.rs"]
mod hosts;
#[path = "common"]
mod common {
    pub(crate) mod skip;
}

use common::skip::skip;
use hosts::{Frame, Host, Size, Worker, World, mac, plain, small_tcp, super_frame};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use weft::wire::ethernet::Mac;

/// More than this in per cent is not flat.
const FLAT: f64 = 10.0;
/// Frames of each case: enough that one allocation or lock of a thousand would not show, and one of each frame would.
const FRAMES: u64 = 32;

/// Set in the environment of [`workload`] under callgrind.
const COUNTED: &str = "WEFT_COUNTED";

/// The cases in the order in which [`workload`] measures them.
const CASES: [&str; 17] = [
    "small, small frame out",
    "small, small frame in",
    "small, super-frame out",
    "small, super-frame in",
    "small, port to port",
    "large, small frame out",
    "large, small frame in",
    "large, super-frame out",
    "large, super-frame in",
    "large, port to port",
    "broadcast, 1 peer",
    "broadcast, 10 peers",
    "broadcast, 100 peers",
    "no policy",
    "guard",
    "1 rule",
    "100 rules",
];

#[test]
fn a_frame_costs_the_same_on_a_small_host_and_on_a_large_one() {
    let Some(counts) = counted() else { skip!("valgrind is not installed here") };
    let mut wrong = String::new();
    for kind in ["small frame out", "small frame in", "super-frame out", "super-frame in", "port to port"] {
        let (small, large) = (counts[&format!("small, {kind}")], counts[&format!("large, {kind}")]);
        let more = (large / small - 1.0) * 100.0;
        println!("{kind}: {small:.0} instructions on a small host, {large:.0} on a large one: {more:+.1} %");
        if more.abs() > FLAT {
            wrong.push_str(&format!("{kind}: {small:.0} instructions became {large:.0}\n"));
        }
    }
    let [one, ten, hundred] = ["1 peer", "10 peers", "100 peers"].map(|peers| counts[&format!("broadcast, {peers}")]);
    println!("a broadcast: {one:.0} instructions to 1 peer, {ten:.0} to 10, {hundred:.0} to 100");
    // What is done once, and what for each peer: a straight line through the first two, on which the third must lie.
    let each = (ten - one) / 9.0;
    let expected = one + 99.0 * each;
    if (hundred / expected - 1.0).abs() * 100.0 > FLAT {
        wrong.push_str(&format!("a broadcast to 100 peers: {hundred:.0} instructions, not {expected:.0}\n"));
    }
    if each > one {
        wrong.push_str(&format!("a broadcast: {each:.0} instructions for one more peer, {one:.0} for the first\n"));
    }
    let [none, guard, one, hundred] = ["no policy", "guard", "1 rule", "100 rules"].map(|case| counts[case]);
    println!(
        "policy: {none:.0} instructions without, {guard:.0} guarded, {one:.0} with a rule, {hundred:.0} with 100"
    );
    if (hundred / one - 1.0) * 100.0 > FLAT {
        wrong.push_str(&format!("a frame under 100 rules: {hundred:.0} instructions, under one {one:.0}\n"));
    }
    assert!(wrong.is_empty(), "not flat:\n{wrong}");
}

/// Instructions per frame of all cases, by running [`workload`] in a process of its own under callgrind.
fn counted() -> Option<BTreeMap<String, f64>> {
    let version = Command::new("valgrind").arg("--version").stdin(Stdio::null()).output();
    version.ok().filter(|version| version.status.success())?;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("flat-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let run = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--collect-atstart=no",
            "--toggle-collect=*measured*",
            "--dump-before=*case_is_over*",
        ])
        .arg(format!("--callgrind-out-file={}", dir.join("out").display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "workload", "--nocapture"])
        .env(COUNTED, "1")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let total = |(n, name): (usize, &&str)| {
        // Part n of the output is what was counted until the end of case n.
        let text = std::fs::read_to_string(dir.join(format!("out.{}", n + 1))).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
        (name.to_string(), line.unwrap().trim().parse::<f64>().unwrap() / FRAMES as f64)
    };
    let counts = CASES.iter().enumerate().map(total).collect();
    std::fs::remove_dir_all(&dir).unwrap();
    Some(counts)
}

/// What is measured: the other test runs this one by itself, under callgrind.
#[test]
fn workload() {
    if std::env::var_os(COUNTED).is_none() {
        return;
    }
    for size in [Size::SMALLEST, Size::LARGEST] {
        let world = World::new(size);
        for payload in [46, 44 * 1448] {
            let frame = |from, to| if payload == 46 { plain(from, to, 46) } else { super_frame(from, to, payload) };
            out(&world.near, &world, &mut frame(mac(0, 0), mac(1, 0)));
            into(&world, &mut frame(mac(1, 0), mac(0, 0)));
        }
        out(&world.near, &world, &mut plain(mac(0, 0), mac(0, 1), 46));
    }
    for live in [1, 10, 100] {
        let world = World::new(Size { peers: live, live, ..Size::SMALLEST });
        out(&world.near, &world, &mut plain(mac(0, 0), Mac([0xff; 6]), 46));
    }
    for rules in [None, Some(0), Some(1), Some(100)] {
        let world = World::new(Size { rules, ..Size::SMALLEST });
        out(&world.near, &world, &mut small_tcp(mac(0, 0), mac(0, 1)));
    }
}

/// A port of the near host sends.
fn out(host: &Host, world: &World, frame: &mut Frame) {
    let mut worker = Worker::new();
    // Once before: first times make buffers.
    host.send(world.now, 0, frame, &mut worker.out);
    worker.out.clear();
    measured(|| {
        for _ in 0..FRAMES {
            host.send(world.now, 0, frame, &mut worker.out);
            worker.out.clear();
        }
    });
    case_is_over();
    assert!(worker.out.sent > 0 || worker.out.delivered > 0);
}

/// A port of the far host sends, and the near one receives.
fn into(world: &World, frame: &mut Frame) {
    let (mut here, mut there) = (Worker::new(), Worker::new());
    let mut send = |there: &mut Worker| world.far[0].send(world.now, 0, frame, &mut there.out);
    send(&mut there);
    world.near.underlay(world.now, &world.far[0], &mut there, &mut here);
    let mut trains: Vec<Worker> = Vec::new();
    for _ in 0..FRAMES {
        let mut train = Worker::new();
        send(&mut train);
        trains.push(train);
    }
    let before = here.out.delivered;
    measured(|| {
        for train in &mut trains {
            world.near.underlay(world.now, &world.far[0], train, &mut here);
        }
    });
    case_is_over();
    assert!(here.out.delivered >= before + FRAMES as usize);
}

/// Only what happens in here is counted.
#[inline(never)]
fn measured(work: impl FnOnce()) {
    work();
    std::hint::black_box(());
}

/// Where callgrind writes down what it has counted since the last time.
#[inline(never)]
fn case_is_over() {
    std::hint::black_box(());
}
