//! The arithmetic of offloads: cutting a super-frame, putting segments together, checksums.
//!
//! `cargo bench --bench offloads`

mod cpu_time;
mod hosts;

use cpu_time::{CpuTime, criterion};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hosts::{mac, tcp};
use std::hint::black_box;
use weft::wire::checksum;
use weft::wire::merge::{Inspection, Run, inspect};
use weft::wire::segment::{MAX_HEADER, Plan};
use weft::wire::vnet::{GSO_TCPV4, PartialChecksum, TCP_CHECKSUM, VnetHeader};

const PARTIAL: PartialChecksum = PartialChecksum { start: 34, offset: TCP_CHECKSUM };
const SIZE: usize = 1446;
const SEGMENTS: usize = 44;

/// The headers of all segments of 64 KiB; payload is not touched.
fn segment(c: &mut Criterion<CpuTime>) {
    let frame = tcp(mac(0, 0), mac(1, 0), 0, SEGMENTS * SIZE);
    let header =
        VnetHeader { gso_type: GSO_TCPV4, gso_size: SIZE as u16, hdr_len: 54, ..VnetHeader::single(Some(PARTIAL)) };
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    group.bench_function("64 KiB of TCP into frames of 1500", |b| {
        let mut room = [0; MAX_HEADER];
        b.iter(|| {
            let plan = Plan::new(&frame, &header, 1514).expect("a super-frame");
            for n in 0..plan.count() {
                plan.stamp(n, &mut room[..plan.header_len()]);
                black_box(&room);
            }
        });
    });
}

/// The other way: segments as they come out of a tunnel, with partial checksums and with complete ones.
fn merge(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    for (name, partial) in [("partial checksums", Some(PARTIAL)), ("complete checksums", None)] {
        let segment = |n: usize| {
            let mut frame = tcp(mac(0, 0), mac(1, 0), (n * SIZE) as u32, SIZE);
            if partial.is_none() {
                checksum::finish(&mut frame, 34, TCP_CHECKSUM.into()).expect("room for a checksum");
            }
            frame
        };
        let frames: Vec<_> = (0..SEGMENTS).map(segment).collect();
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut run: Option<Run> = None;
                for frame in &frames {
                    let Inspection::Mergeable(candidate) = inspect(frame, partial) else { panic!("not mergeable") };
                    match &mut run {
                        Some(run) => assert!(run.append(&candidate)),
                        None => run = Some(Run::new(&candidate)),
                    }
                }
                let mut header = [0; MAX_HEADER];
                header[..54].copy_from_slice(&frames[0][..54]);
                black_box(run.map(|run| run.finish(&mut header[..54])));
            });
        });
    }
}

fn sum(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("checksum");
    let bytes: Vec<u8> = (0..65_536).map(|n| n as u8).collect();
    for length in [20, 64, 1500, 65_536] {
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| checksum::fold(checksum::sum(0, black_box(&bytes[..length]))));
        });
    }
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = segment, merge, sum
}
criterion_main!(benches);
