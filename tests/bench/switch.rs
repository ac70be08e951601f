//! What the data plane costs per frame, without syscalls, and what that depends on: a whole [`Switch`](weft::switch::Switch)
//! of any size, or two with a session between them.
//!
//! `cargo bench --bench switch`; one group: `cargo bench --bench switch -- super-frame`. The time is CPU
//! time; `tests/flat.rs` counts instructions.

mod cpu_time;
mod hosts;

use cpu_time::{CpuTime, criterion};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hosts::{Frame, Size, Worker, World, mac, plain, small_tcp, super_frame};

/// Payload of a super-frame: what fills 44 segments.
const SUPER: usize = 44 * 1448;
/// Payload that makes a frame of 64 bytes with its FCS.
const SMALL: usize = 46;

/// Everything as small as it can be, then one thing after the other large, then all.
fn sizes() -> Vec<(&'static str, Size)> {
    let (small, large) = (Size::SMALLEST, Size::LARGEST);
    vec![
        ("smallest", small),
        ("100 ports", Size { ports: 100, ..small }),
        ("1000 ports", Size { ports: 1000, ..small }),
        ("100 peers", Size { peers: 100, ..small }),
        ("1000 peers", Size { peers: 1000, ..small }),
        ("1000 networks", Size { networks: 1000, ..small }),
        ("65,536 stations", Size { stations: 65_536, ..small }),
        ("1,000,000 stations", Size { stations: 1_000_000, ..small }),
        ("all of it", large),
    ]
}

/// From a port of one host to a port of another.
fn across(c: &mut Criterion<CpuTime>, name: &str, bytes: usize, frame: impl Fn() -> Frame) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64));
    for (size, wanted) in sizes() {
        let world = World::new(wanted);
        let (mut frame, mut here, mut there) = (frame(), Worker::new(), Worker::new());
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                world.near.send(world.now, 0, &mut frame, &mut here.out);
                world.far[0].underlay(world.now, &world.near, &mut here, &mut there);
            });
        });
        assert!(there.out.delivered > 0);
    }
}

fn super_frames(c: &mut Criterion<CpuTime>) {
    across(c, "super-frame, port to peer to port", SUPER, || super_frame(mac(0, 0), mac(1, 0), SUPER));
}

fn small_frames(c: &mut Criterion<CpuTime>) {
    across(c, "small frame, port to peer to port", SMALL + 14, || plain(mac(0, 0), mac(1, 0), SMALL));
}

/// Between two ports of one host.
fn local(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("port to port");
    for (size, wanted) in sizes() {
        let world = World::new(wanted);
        let (mut frame, mut here) = (plain(mac(0, 0), mac(0, 1), SMALL), Worker::new());
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| world.near.send(world.now, 0, &mut frame, &mut here.out));
        });
        assert!(here.out.delivered > 0);
    }
}

/// A broadcast of an ARP's size.
fn flooded(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("broadcast");
    for live in [1, 10, 100] {
        let world = World::new(Size { peers: live, live, ..Size::SMALLEST });
        let broadcast = weft::wire::ethernet::Mac([0xff; 6]);
        let (mut frame, mut here) = (plain(mac(0, 0), broadcast, SMALL), Worker::new());
        group.bench_function(BenchmarkId::from_parameter(format!("{live} peers")), |b| {
            b.iter(|| {
                world.near.send(world.now, 0, &mut frame, &mut here.out);
                here.out.clear();
            });
        });
    }
}

/// What guards and rules add to a frame between two ports of one host.
fn policies(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("policy, port to port");
    for (name, rules) in [("none", None), ("guard", Some(0)), ("1 rule", Some(1)), ("100 rules", Some(100))] {
        let world = World::new(Size { rules, ..Size::SMALLEST });
        let (mut frame, mut here) = (small_tcp(mac(0, 0), mac(0, 1)), Worker::new());
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| world.near.send(world.now, 0, &mut frame, &mut here.out));
        });
        assert!(here.out.delivered > 0);
    }
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = super_frames, small_frames, local, flooded, policies
}
criterion_main!(benches);
