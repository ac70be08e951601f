//! Whether two workers do twice as much as one: threads that share one [`Switch`](weft::switch::Switch), each with a port, a peer
//! and an outbox of its own.
//!
//! `cargo bench --bench workers`. The time shown is the CPU time that a frame costs its worker: with nothing shared it is the
//! same for any number of workers. It is CPU time so that other work on the machine does not count; what workers cost each
//! other counts only while they really run at once, on as many cores.

mod cpu_time;
mod hosts;

use cpu_time::{CpuTime, cpu_time, criterion};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hosts::{Frame, Size, Worker, World, mac, plain, super_frame};
use std::sync::Barrier;
use std::time::Duration;
use weft::wire::ethernet::Mac;

/// A frame of the worker on port `n`, from there to a destination.
type Make = fn(Mac, usize) -> Frame;

fn workers(c: &mut Criterion<CpuTime>) {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let counts: Vec<usize> = [1, 2, 4, 8, 16, 32].into_iter().filter(|&n| n == 1 || n <= most).collect();
    let kinds: [(&str, Make); 3] = [
        ("small frame to a peer", |source, n| plain(source, mac(n + 1, 0), 46)),
        ("small frame to a port", |source, n| plain(source, mac(0, 100 + n), 46)),
        ("super-frame to a peer", |source, n| super_frame(source, mac(n + 1, 0), 44 * 1448)),
    ];
    let world = World::new(Size { ports: 200, peers: most, live: most, ..Size::SMALLEST });
    for (name, make) in kinds {
        let mut group = c.benchmark_group(name);
        for &count in &counts {
            group.bench_function(BenchmarkId::from_parameter(format!("{count} workers")), |b| {
                b.iter_custom(|iterations| together(&world, count, iterations, make));
            });
        }
    }
}

/// The CPU time of the slowest of `count` workers that send `iterations` frames each.
fn together(world: &World, count: usize, iterations: u64, make: Make) -> Duration {
    let start = Barrier::new(count);
    let work = |n: usize| {
        let (mut frame, mut worker) = (make(mac(0, n), n), Worker::new());
        start.wait();
        let before = cpu_time();
        for _ in 0..iterations {
            world.near.send(world.now, n, &mut frame, &mut worker.out);
            worker.out.clear();
        }
        cpu_time() - before
    };
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker")).max().unwrap_or_default()
    })
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = workers
}
criterion_main!(benches);
