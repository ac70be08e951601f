//! What sealing and opening one message costs: `cargo bench --bench aead`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use weft::aead::{Engine, Key, TAG_LEN};

/// A TCP acknowledgement, a small request, a full packet, a jumbo frame.
const LENGTHS: [usize; 4] = [64, 192, 1440, 8900];

fn aead(criterion: &mut Criterion) {
    for length in LENGTHS {
        let mut group = criterion.benchmark_group(format!("{length} bytes"));
        group.throughput(Throughput::Bytes(length as u64));
        let plaintext = vec![0x5a; length];
        for engine in [Engine::Ring, Engine::Avx512].into_iter().filter(|engine| engine.available()) {
            let key = Key::new(&[0x42; 32], engine);
            let mut counter = 0;
            let mut sealed = vec![0; length + TAG_LEN];
            group.bench_function(format!("seal, {}", engine.name()), |bencher| {
                bencher.iter(|| {
                    counter += 1;
                    key.seal(counter, black_box(&plaintext), black_box(&mut sealed));
                });
            });
            key.seal(0, &plaintext, &mut sealed);
            let mut opened = vec![0; length];
            group.bench_function(format!("open, {}", engine.name()), |bencher| {
                bencher.iter(|| key.open(0, black_box(&sealed), black_box(&mut opened)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, aead);
criterion_main!(benches);
