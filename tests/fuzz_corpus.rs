//! Everything fuzzing ever found, and what it starts from, replayed: each file of `fuzz/corpus/TARGET/` goes through its
//! target, whose assertions must hold.
//!
//! The targets are those of the fuzzer (`fuzz/src`), included by path. The files named `seed-…` are made from the crate's
//! own emitters; `WEFT_WRITE_SEEDS=1 cargo test --test fuzz_corpus` writes them after a format has changed.

#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, missing_docs)]
mod fuzz;

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// The committed corpus is for replaying in seconds; a large one belongs to whoever fuzzes for long.
const MAX_CORPUS: u64 = 1024 * 1024;

#[test]
fn every_input_of_the_corpus_holds() {
    let mut failed = Vec::new();
    for (target, run) in fuzz::TARGETS {
        let inputs = files(target);
        assert!(inputs.len() >= 10, "{target} has only {} inputs", inputs.len());
        for path in inputs {
            let data = fs::read(&path).unwrap();
            if catch_unwind(|| run(&data)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "what went wrong is above; it was in {failed:#?}");
}

#[test]
fn the_seeds_are_what_the_emitters_make() {
    let mut made: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for seed in fuzz::seeds::all() {
        let path = corpus().join(seed.target).join(&seed.name);
        assert!(made.insert(path, seed.bytes).is_none(), "two seeds are called {}/{}", seed.target, seed.name);
    }
    let is_seed = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("seed-");
    let there: Vec<PathBuf> = fuzz::TARGETS.iter().flat_map(|(target, _)| files(target)).filter(is_seed).collect();
    if std::env::var_os("WEFT_WRITE_SEEDS").is_some() {
        there.iter().for_each(|path| fs::remove_file(path).unwrap());
        for (path, bytes) in &made {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        return;
    }
    let remedy = "write them again: WEFT_WRITE_SEEDS=1 cargo test --test fuzz_corpus";
    for (path, bytes) in &made {
        assert!(fs::read(path).ok().as_ref() == Some(bytes), "{} is another or missing; {remedy}", path.display());
    }
    for path in there {
        assert!(made.contains_key(&path), "{} is no seed any more; {remedy}", path.display());
    }
}

#[test]
fn every_target_has_its_fuzzer_and_its_corpus() {
    let names: Vec<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in &names {
        let program = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("weft_fuzz::{name}::run")), "fuzz_targets/{name}.rs runs another target");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in fuzz/Cargo.toml");
    }
    for entry in fs::read_dir(corpus()).unwrap() {
        let directory = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&directory), "corpus/{directory} belongs to no target");
    }
}

#[test]
fn the_corpus_stays_small() {
    let size = |path: PathBuf| fs::metadata(path).unwrap().len();
    let total: u64 = fuzz::TARGETS.iter().flat_map(|(target, _)| files(target)).map(size).sum();
    assert!(total <= MAX_CORPUS, "{total} bytes: minimise it with `cargo fuzz cmin TARGET`");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus() -> PathBuf {
    root().join("corpus")
}

/// The inputs of a target, in the order of their names.
fn files(target: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(corpus().join(target)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
