//! The FDB alone, by the number of its entries: one pair of stations that talk, as a bulk flow does, and stations at random,
//! of which the caches hold none when there are many.
//!
//! `cargo bench --bench fdb`

mod cpu_time;

use cpu_time::{CpuTime, criterion};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use weft::switch::fdb::{Fdb, Limits};
use weft::switch::ids::{Place, PortId};
use weft::wire::ethernet::Mac;

const VNI: u32 = 1;
const ROOM: usize = 2_000_000;

fn station(n: usize) -> Mac {
    let [.., a, b, c, d] = n.to_be_bytes();
    Mac([2, 2, a, b, c, d])
}

fn place(n: usize) -> Place {
    Place::Port(PortId(n as u32 % 100))
}

fn fdb(c: &mut Criterion<CpuTime>) {
    for (name, random) in [("one pair of stations", false), ("stations in turn", false), ("stations at random", true)]
    {
        let mut group = c.benchmark_group(name);
        for entries in [10, 65_536, 1_000_000] {
            let fdb = Fdb::new(Limits { max_entries: ROOM, max_per_port: ROOM, max_per_peer: ROOM }, 7);
            for n in 0..entries {
                fdb.observe(0, VNI, station(n), place(n), Mac([0xff; 6]));
            }
            // In turn is by odd strides, so that destination and source are different ones.
            let step = match (name, random) {
                (_, true) => 0x9e37_79b9,
                ("stations in turn", _) => 1,
                _ => 0,
            };
            let mut at: usize = 3;
            let mut next = || {
                at = at.wrapping_mul(if random { 6_364_136_223_846_793_005 } else { 1 }).wrapping_add(step);
                (if random { at >> 33 } else { at }) % entries
            };
            group.bench_function(BenchmarkId::new("lookup", entries), |b| {
                b.iter(|| black_box(fdb.lookup(0, VNI, station(next()))));
            });
            group.bench_function(BenchmarkId::new("observe", entries), |b| {
                b.iter(|| {
                    let (source, destination) = (next(), next());
                    black_box(fdb.observe(0, VNI, station(source), place(source), station(destination)))
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = fdb
}
criterion_main!(benches);
