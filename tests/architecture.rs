//! The rules of `src/lib.rs`'s header, checked: who may import whom, where the outside world may be touched, and how
//! long a file may get. Comments do not count; tests do, except that they may touch the world.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → the modules of ours it may name. The same table as in `src/lib.rs`. `main.rs` and `lib.rs` stand above.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("config", &["wire"]),
    ("aead", &[]),
    ("tunnel", &["aead", "wire"]),
    ("switch", &["tunnel", "wire"]),
    ("ipam", &["wire"]),
    ("trust", &["ipam", "wire"]),
    ("mesh", &["trust", "wire"]),
    ("names", &["wire"]),
    ("docker", &["config", "wire"]),
    ("control", &["docker", "names", "mesh", "trust", "ipam", "switch", "tunnel", "config", "wire"]),
    ("cni", &["control", "config", "wire"]),
    ("io", &["cni", "control", "docker", "names", "mesh", "trust", "ipam", "switch", "tunnel", "config", "wire"]),
    ("lab", &["io", "control", "trust", "config", "wire"]),
    ("cli", &["lab", "io", "cni", "control", "trust", "switch", "config", "wire"]),
];

/// Where the world may be touched.
const SHELLS: &[&str] = &["io", "lab"];

/// Modules with one thing of [`WORLD`], and why. Vector instructions run only on processors that have them: calling a
/// function made of them is `unsafe`, and touches nothing outside.
const EXCEPTIONS: &[(&str, &str)] = &[("aead", "unsafe")];

/// What touches it, and what to do instead.
const WORLD: &[(&str, &str)] = &[
    ("unsafe", "put it behind a safe function there"),
    ("std::thread", "start threads there"),
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime::now", "take the time as an argument"),
    ("UdpSocket", "take and return bytes"),
    ("TcpStream", "take and return bytes"),
    ("TcpListener", "take and return bytes"),
    ("UnixStream", "take and return bytes"),
    ("UnixListener", "take and return bytes"),
    ("std::fs", "take and return bytes"),
    ("std::process::Command", "the daemon starts no programs; a test may"),
];

/// A file has one idea. Longer than this it has two.
const MAX_LINES: usize = 600;

#[test]
fn imports_follow_the_arrows() {
    let mut wrong = String::new();
    for source in sources() {
        let Some((module, allowed)) = ARROWS.iter().find(|(module, _)| *module == source.module) else { continue };
        for (line, text) in &source.code {
            for target in crate_paths(text) {
                if target != *module && !allowed.contains(&target.as_str()) {
                    let _ = writeln!(wrong, "{}:{line}: {module} must not import {target}", source.path);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the arrows of src/lib.rs:\n{wrong}");
}

#[test]
fn every_module_has_its_arrows() {
    let mut wrong = String::new();
    for source in sources() {
        let known = ARROWS.iter().any(|(module, _)| *module == source.module);
        if !known && !["lib", "main"].contains(&source.module.as_str()) {
            let _ = writeln!(wrong, "{}: module {} is not in the table of arrows", source.path, source.module);
        }
    }
    assert!(wrong.is_empty(), "say in src/lib.rs and here who may import whom:\n{wrong}");
}

#[test]
fn only_io_and_lab_touch_the_world() {
    let mut wrong = String::new();
    for source in sources().iter().filter(|source| !SHELLS.contains(&source.module.as_str())) {
        let is_test = source.path.ends_with("/tests.rs") || source.path.ends_with("/testing.rs");
        let code = source.code.iter().take_while(|(_, text)| !is_test && text.trim() != "mod tests {");
        let barred = WORLD.iter().filter(|(word, _)| !EXCEPTIONS.contains(&(source.module.as_str(), *word)));
        for (line, text) in code {
            for (word, remedy) in barred.clone().filter(|(word, _)| has_word(text, word)) {
                let _ = writeln!(wrong, "{}:{line}: {word} belongs to src/io or src/lab: {remedy}", source.path);
            }
        }
    }
    assert!(wrong.is_empty(), "the world is an argument:\n{wrong}");
}

#[test]
fn no_file_has_two_ideas() {
    let mut wrong = String::new();
    for source in sources().iter().filter(|source| source.lines > MAX_LINES) {
        let _ = writeln!(wrong, "{}:{}: more than {MAX_LINES} lines", source.path, source.lines);
    }
    assert!(wrong.is_empty(), "split these by their ideas:\n{wrong}");
}

#[test]
fn the_checks_see_what_they_are_for() {
    let imported = |text: &str| statements(text).iter().flat_map(|(_, line)| crate_paths(line)).collect::<Vec<_>>();
    assert_eq!(imported("use crate::wire::{a, b};\ncrate::io::x(); weft::cli::y()"), ["wire", "wire", "io"]);
    assert_eq!(
        imported("pub(crate) use crate::{\n wire::A,\n switch::{b, c}, io,\n};"),
        ["wire", "switch", "switch", "io"]
    );
    assert_eq!(imported("pub(in crate::mesh) fn f() {} mycrate::io::x // crate::lab"), ["mesh"]);
    assert!(has_word("    unsafe { x() }", "unsafe") && !has_word("unsafe_op_in_unsafe_fn", "unsafe"));
    assert!(has_word("let x = std::fs::read(y)", "std::fs") && !has_word("std::fsync", "std::fs"));
    let grouped = "use std::{\n    fmt,\n    fs::{self, File},\n    time::Duration,\n};\nlet x = 1;\n";
    assert_eq!(
        statements(grouped)[0].1,
        "use std::fmt; use std::fs::self; use std::fs::File; use std::time::Duration;"
    );
    assert_eq!(statements("// unsafe\nlet a = \"x // y\"; // unsafe\n")[0], (2, "let a = \"x // y\"; ".to_owned()));
}

/// One source file.
struct Source {
    /// As people open it: `src/…`.
    path: String,
    /// The first component below `src`, without `.rs`.
    module: String,
    lines: usize,
    /// Its code, see [`statements`].
    code: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    files.sort();
    assert!(files.len() > 10, "found only {} files below src", files.len());
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let path = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let first = path.split('/').nth(1).unwrap_or_default();
            let module = first.strip_suffix(".rs").unwrap_or(first).to_owned();
            Source { path, module, lines: text.lines().count(), code: statements(&text) }
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries.map(|entry| entry.expect("a readable directory").path()) {
        if entry.is_dir() {
            collect(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

/// Lines of code with their numbers: comments and empty lines gone, each `use` on one line at the number of its first
/// one, with its braces written out.
fn statements(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut lines = text.lines().enumerate().map(|(n, line)| (n + 1, without_comment(line)));
    while let Some((number, line)) = lines.next() {
        let mut line = line.to_owned();
        let start = line.trim_start();
        if start.starts_with("use ") || (start.starts_with("pub") && start.contains(" use ")) {
            while !line.contains(';') {
                let Some((_, more)) = lines.next() else { break };
                line.push_str(more);
            }
            let tree = line.split_once("use ").map_or("", |(_, tree)| tree).trim_end().trim_end_matches(';');
            let leaves: Vec<String> = leaves("", tree).iter().map(|leaf| format!("use {leaf};")).collect();
            line = leaves.join(" ");
        }
        if !line.trim().is_empty() {
            code.push((number, line));
        }
    }
    code
}

/// A `//` outside a string literal begins a comment; a quote is not in a string where a backslash precedes it.
fn without_comment(line: &str) -> &str {
    let mut in_string = false;
    let bytes = line.as_bytes();
    for at in 0..bytes.len() {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        match bytes[at] {
            b'"' if before != Some(b'\\') && before != Some(b'\'') => in_string = !in_string,
            b'/' if !in_string && bytes.get(at + 1) == Some(&b'/') => return &line[..at],
            _ => {}
        }
    }
    line
}

/// `a::{b, c::{d, e}}` → `a::b`, `a::c::d`, `a::c::e`.
fn leaves(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((path, group)) = tree.split_once('{') else { return vec![format!("{prefix}{tree}")] };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let prefix = format!("{prefix}{}", path.trim());
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, byte) in group.bytes().enumerate().chain([(group.len(), b',')]) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    found.extend(leaves(&prefix, &group[start..at]));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// The modules named behind `crate::` in a line of [`statements`].
fn crate_paths(line: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let starts = line.match_indices("crate::").filter(|(at, _)| !line[..*at].ends_with(|c: char| is_name(c)));
    starts.map(|(at, found)| name(&line[at + found.len()..])).filter(|name| !name.is_empty()).collect()
}

/// Whether `word` stands in `line`, not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(is_name) && !after.starts_with(is_name)
    })
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
