//! What the product is built from: licences, crates in two versions, and a paragraph in `docs/dependencies.md` for each
//! crate that `Cargo.toml` names.

#![allow(clippy::unwrap_used)]

#[path = "common"]
mod common {
    pub(crate) mod skip;
}

use common::skip::skip;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Licences that ask for no more than attribution. Others want an argument in `docs/dependencies.md` and a line here.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "0BSD",
    "Zlib",
    "Unicode-3.0",
    "BSL-1.0",
    "CC0-1.0",
];

/// Crates that the product has in several versions, and why that is so. To be removed when it is not.
const SEVERAL_VERSIONS: &[(&str, &str)] = &[
    ("bitflags", "smoltcp is still at 1; the netlink crates, nix and rustix are at 2"),
    ("getrandom", "the curve and ring (by rand_core 0.6) are at 0.2; ours is the current one"),
    ("rand_core", "x25519-dalek is at 0.6; getrandom has the current one"),
    ("syn", "derive macros change over from 2 to 3 one by one; only the compiler runs it"),
];

#[test]
fn every_licence_is_permissive() {
    let Some(metadata) = metadata() else { skip!("cargo cannot read the metadata of all dependencies here") };
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let (name, licence) = (text(&package["name"]), text(&package["license"]));
        if !satisfied(licence) {
            wrong.push(format!("{name} {}: {licence:?}", text(&package["version"])));
        }
    }
    assert!(wrong.is_empty(), "licences that are not on the list of this test:\n{}", wrong.join("\n"));
}

#[test]
fn crates_in_several_versions_have_their_reason() {
    let Some(metadata) = metadata() else { skip!("cargo cannot read the metadata of all dependencies here") };
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for id in built_in(&metadata) {
        let package = package(&metadata, id);
        versions.entry(text(&package["name"])).or_default().insert(text(&package["version"]));
    }
    versions.retain(|_, versions| versions.len() > 1);
    for (name, versions) in &versions {
        let known = SEVERAL_VERSIONS.iter().any(|(known, _)| known == name);
        assert!(known, "{name} is in the product as {versions:?}: settle on one, or give the reason here");
    }
    for (name, _) in SEVERAL_VERSIONS {
        assert!(versions.contains_key(name), "{name} is in the product once: its reason here is out of date");
    }
}

#[test]
fn every_direct_dependency_has_its_paragraph_and_nothing_else_has() {
    let Some(metadata) = metadata() else { skip!("cargo cannot read the metadata of all dependencies here") };
    let root = package(&metadata, text(&metadata["resolve"]["root"]));
    let direct: BTreeSet<&str> = root["dependencies"].as_array().unwrap().iter().map(|d| text(&d["name"])).collect();
    let page = include_str!("../docs/dependencies.md");
    let mut explained = BTreeSet::new();
    for section in page.split("\n### ").skip(1) {
        let (heading, rest) = section.split_once('\n').unwrap();
        let paragraph = rest.split("\n#").next().unwrap().trim();
        assert!(paragraph.len() > 60, "docs/dependencies.md says nothing about {heading}");
        assert!(explained.insert(heading.trim()), "docs/dependencies.md has {heading} twice");
    }
    let missing: Vec<_> = direct.difference(&explained).collect();
    assert!(missing.is_empty(), "docs/dependencies.md lacks a paragraph (### NAME) for {missing:?}");
    let gone: Vec<_> = explained.difference(&direct).collect();
    assert!(gone.is_empty(), "docs/dependencies.md explains what Cargo.toml does not name: {gone:?}");
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    for good in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "GPL-2.0/MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR MIT",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-2.0 AND GPL-3.0 OR ISC AND MIT",
    ] {
        assert!(satisfied(good), "{good}");
    }
    for bad in ["", "MPL-2.0", "MIT AND GPL-2.0", "(MIT OR ISC) AND LGPL-2.1", "MIT OR", "(MIT", "MIT ISC", "AND"] {
        assert!(!satisfied(bad), "{bad}");
    }
}

/// Whether the licences of the list allow a use under this SPDX expression. `AND` binds closer than `OR`; a slash is an
/// `OR` of the time before SPDX.
fn satisfied(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    either(&mut rest).is_some_and(|allowed| allowed && rest.is_empty())
}

fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = both(rest)?;
    while take(rest, "OR") {
        allowed |= both(rest)?;
    }
    Some(allowed)
}

fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = licence(rest)?;
    while take(rest, "AND") {
        allowed &= licence(rest)?;
    }
    Some(allowed)
}

fn licence(rest: &mut &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let allowed = either(rest)?;
        return take(rest, ")").then_some(allowed);
    }
    let (name, others) = rest.split_first()?;
    *rest = others;
    // An exception only ever adds a permission.
    if take(rest, "WITH") {
        *rest = rest.get(1..)?;
    }
    Some(LICENCES.contains(name))
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let there = rest.first() == Some(&word);
    if there {
        *rest = &rest[1..];
    }
    there
}

/// The packages that become part of the product, itself included: what is reached without build and dev dependencies.
fn built_in(metadata: &Value) -> BTreeSet<&str> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let (mut found, mut open) = (BTreeSet::new(), vec![text(&metadata["resolve"]["root"])]);
    while let Some(id) = open.pop() {
        if found.insert(id) {
            let node = nodes.iter().find(|node| text(&node["id"]) == id).unwrap();
            let normal =
                |dep: &&Value| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            open.extend(node["deps"].as_array().unwrap().iter().filter(normal).map(|dep| text(&dep["pkg"])));
        }
    }
    found
}

fn package<'a>(metadata: &'a Value, id: &str) -> &'a Value {
    metadata["packages"].as_array().unwrap().iter().find(|package| text(&package["id"]) == id).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What cargo knows of the whole tree, resolved for Linux. It reads the manifests of all platforms' packages, of which
/// a build has fetched only its own: where the rest is not there, cargo may fetch it.
fn metadata() -> Option<Value> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let platform = "--filter-platform=x86_64-unknown-linux-gnu";
    let run = |offline: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--format-version=1", "--locked", platform, "--manifest-path"]).arg(&manifest);
        let output = cargo.args(offline).output().unwrap();
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    };
    run(&["--offline"]).or_else(|| run(&[]))
}
