//! `docs/coming-from.md` tells people of other systems what to type. Here all of it is typed, line after line, on two hosts of a lab:
//! each has a network namespace, a dockerd, and directories of its own in place of /etc, /opt, /run/weft and /var/lib, so that the commands find everything
//! where they look for it by themselves. What the page mentions in tables must be in one of those lines, and is held against `weft COMMAND --help`;
//! keys are held against the reference of the configuration.
//!
//! | in a block of | line | what becomes of it |
//! |---|---|---|
//! | `console` | `alpha# COMMAND` | run by `sh` on that host; it must end well. One that ends in `&` goes on until the page does |
//! | | `web# COMMAND` | the same in the container that `docker run --name web` made |
//! | | `… weft1:… &` | with the line that `weft invite` printed last |
//! | `toml` | `# FILE on alpha and beta` | the rest of the block is added to that file there |
//!
//! What asks somebody else (`ping`, `nslookup`, `curl`, `wget`) or looks for something (`| grep`) does so until there is an answer: news takes its time
//! to travel.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::SOON;
use common::cli::WEFT;
use common::docker::{Docker, PROGRAMS};
use common::engine::{have, with_engines};
use common::place::spec;
use common::skip::skip;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use weft::lab::spec::{Discovery, LabSpec};
use weft::lab::{Lab, process};

const PAGE: &str = include_str!("../docs/coming-from.md");
const CONFIGURATION: &str = include_str!("../docs/configuration.md");
const HOSTS: [&str; 2] = ["alpha", "beta"];
/// What a host has of its own, besides what Docker wants.
const OWN: [&str; 4] = ["/etc", "/run/weft", "/var/lib", "/opt"];
/// Limits that Podman need not raise, and no systemd: what a lab's host is.
const PODMAN_SETTINGS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\n";
/// What may have to be asked again.
const QUESTIONS: [&str; 5] = ["ping ", "nslookup ", "curl ", "wget ", "docker run --rm "];

/// What is done on behalf of the page.
#[derive(Debug, PartialEq, Eq)]
enum Act<'a> {
    /// A command at a prompt: of a host, or of a container of it.
    Type { at: usize, container: Option<&'a str>, command: &'a str },
    /// Text to be added to a file.
    Add { at: Vec<usize>, file: &'a str, text: String },
}

/// An act, and the line of the page it is on.
type Line<'a> = (usize, Act<'a>);

/// The acts of a page, in its order.
fn acts(page: &str) -> Result<Vec<Line<'_>>, String> {
    let host = |name: &str| HOSTS.iter().position(|host| *host == name).map(|at| at + 1);
    let (mut acts, mut containers, mut block) = (Vec::new(), BTreeMap::new(), "");
    for (number, line) in (1..).zip(page.lines()) {
        let wrong = |what: &str| format!("docs/coming-from.md:{number}: {what}: {line}");
        if let Some(kind) = line.strip_prefix("```") {
            block = kind;
        } else if block == "console" {
            let (prompt, command) = line.split_once("# ").ok_or_else(|| wrong("no prompt"))?;
            let (at, container) = match (host(prompt), containers.get(prompt)) {
                (Some(at), _) => (at, None),
                (None, Some(at)) => (*at, Some(prompt)),
                (None, None) => return Err(wrong("neither a host nor a container that was started")),
            };
            if let Some((_, rest)) =
                command.split_once("docker run ").and_then(|(_, rest)| rest.split_once("--name "))
            {
                containers.insert(rest.split(' ').next().unwrap_or_default(), at);
            }
            acts.push((number, Act::Type { at, container, command }));
        } else if block == "toml" {
            if let Some((file, hosts)) = line.strip_prefix("# ").and_then(|head| head.split_once(" on ")) {
                let at = hosts.split(" and ").map(|name| host(name).ok_or_else(|| wrong("no such host")));
                acts.push((number, Act::Add { at: at.collect::<Result<_, _>>()?, file, text: "\n".to_owned() }));
            } else if let Some((_, Act::Add { text, .. })) = acts.last_mut() {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(acts)
}

/// What stands between backticks in a line.
fn codes(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// What `weft WORDS --help` says, if there is such a command.
fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(WEFT).args(words).arg("--help").output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// What is wrong with a command as it is written, if something is.
fn wrong_with(command: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let Some(mut help_text) = words.get(1).and_then(|word| help(&[word])) else {
        return Some("there is no such command".to_owned());
    };
    let has_own = help_text.contains("\nCommands:\n");
    if let Some(word) = words.get(2).filter(|word| has_own && !word.starts_with('-')) {
        match help(&[words[1], word]) {
            Some(text) => help_text = text,
            None => return Some(format!("`weft {}` has no '{word}'", words[1])),
        }
    }
    let known =
        |option: &str| help_text.split(|c: char| c.is_whitespace() || "=[,".contains(c)).any(|word| word == option);
    let options =
        words.iter().filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap_or(word));
    options.filter(|option| !known(option)).map(|option| format!("it has no option {option}")).next()
}

#[test]
fn the_page_can_be_read() {
    let acts = acts(PAGE).unwrap();
    let typed = acts.iter().filter(|(_, act)| matches!(act, Act::Type { .. })).count();
    assert!(typed > 100, "{typed} commands were found: has the form of the page changed?");
    let at = |page: &str| self::acts(page).unwrap_err().split(": ").nth(1).unwrap().to_owned();
    assert_eq!(at("```console\nweft up\n```"), "no prompt");
    assert_eq!(at("```console\nweb# ls\n```"), "neither a host nor a container that was started");
    assert_eq!(at("```toml\n# /f on gamma\n```"), "no such host");
}

#[test]
fn every_command_that_the_page_mentions_exists() {
    assert_eq!(wrong_with("weft leases reclaim beta"), None);
    assert_eq!(wrong_with("weft fly").unwrap(), "there is no such command");
    assert_eq!(wrong_with("weft names fly").unwrap(), "`weft names` has no 'fly'");
    assert_eq!(wrong_with("weft attach web --cidr 1").unwrap(), "it has no option --cidr");
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(PAGE.lines()) {
        let typed = line.split_once("# ").map(|(_, command)| command.trim_start_matches("! "));
        for command in codes(line).chain(typed).filter(|code| code.starts_with("weft ")) {
            wrong.extend(
                wrong_with(command.split(['&', '|']).next().unwrap_or_default())
                    .map(|why| format!("{number}: {command}: {why}")),
            );
        }
    }
    assert!(wrong.is_empty(), "docs/coming-from.md:{}", wrong.join("\ndocs/coming-from.md:"));
}

/// In the column of weft: whole commands have been looked at; `--option` alone is one of some command, `key = value` and `key` are in the reference.
#[test]
fn every_option_and_key_that_the_page_mentions_exists() {
    let helps: String = ["attach", "expose", "invite"].iter().filter_map(|word| help(&[word])).collect();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(PAGE.lines()) {
        let Some((_, cell)) = line.strip_suffix(" |").and_then(|row| row.rsplit_once(" | ")) else { continue };
        for code in codes(cell) {
            let word = code.split([' ', '=']).next().unwrap_or_default();
            let is_key = word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && (code.contains(" = ") || word.contains('_') && !word.contains("docker"));
            // Docker's own, which weft's driver is given as Docker has them.
            let is_dockers = ["--dns", "--dns-search"].contains(&word);
            let known = match word {
                _ if word.starts_with("--") => is_dockers || helps.contains(word),
                _ if is_key => CONFIGURATION.contains(&format!("| `{word}` |")),
                _ => true,
            };
            if !known {
                wrong.push(format!("{number}: `{code}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "weft has no such thing: docs/coming-from.md:{}", wrong.join("\ndocs/coming-from.md:"));
}

/// A program, what it is to do, its options, and of those that take one of a few words also that.
fn is_typed(code: &str, typed: &[&str]) -> bool {
    let words: Vec<&str> = code.split_whitespace().collect();
    let is_needed = |at: &usize| {
        let is_word = *at < 2 && !words[0].starts_with('-');
        is_word || words[*at].starts_with('-') || *at > 0 && ["-o", "--allow"].contains(&words[at - 1])
    };
    let needed: Vec<&str> = (0..words.len()).filter(is_needed).map(|at| words[at]).collect();
    let is_in = |line: &str, needed: &str| {
        let same = |word: &str| word == needed || word.split('=').next() == Some(needed);
        line.split_whitespace().any(same)
    };
    // An option alone is not any program's.
    let is_ours = |line: &str| ["weft ", "docker ", "podman "].iter().any(|program| line.contains(program));
    typed.iter().any(|line| is_ours(line) && needed.iter().all(|needed| is_in(line, needed)))
}

/// In the column of weft, and in Docker's where weft has "the same".
#[test]
fn every_command_and_option_in_the_tables_is_typed_in_an_example() {
    let acts = acts(PAGE).unwrap();
    let typed: Vec<&str> = acts
        .iter()
        .filter_map(|(_, act)| if let Act::Type { command, .. } = act { Some(*command) } else { None })
        .collect();
    assert!(is_typed("weft attach NAME --network blue", &typed) && is_typed("-o gateway=none", &typed));
    assert!(!is_typed("weft attach --fly", &typed) && !is_typed("-o gateway=moon", &typed));
    // A later command line of Docker's cannot ask an earlier engine for it: `tests/docker.rs` does, by the API.
    let excused = ["--mac-address"];
    let is_command = |code: &&str| {
        let programs = ["weft", "docker", "podman", "nsenter", "ip"];
        code.starts_with('-') || programs.contains(&code.split(' ').next().unwrap_or_default()) && code.contains(' ')
    };
    let mut missing = Vec::new();
    for (number, line) in (1..).zip(PAGE.lines()) {
        let row = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")?.rsplit_once(" | "));
        let Some((theirs, ours)) = row else { continue };
        let theirs = if ours.starts_with("the same") && line.contains("`--") { theirs } else { "" };
        let all = codes(theirs).chain(codes(ours)).filter(is_command);
        let untyped = all.filter(|code| !excused.contains(code) && !is_typed(code, &typed));
        missing.extend(untyped.map(|code| format!("{number}: `{code}`")));
    }
    assert!(
        missing.is_empty(),
        "no example types this: docs/coming-from.md:{}",
        missing.join("\ndocs/coming-from.md:")
    );
}

/// The two hosts, and what goes on there. Daemons end before the lab does.
struct World {
    daemons: Vec<Child>,
    dockers: Vec<Docker>,
    /// The last line that `weft invite` printed.
    token: String,
    lab: Lab,
}

impl World {
    fn new(image: &Path) -> Result<Self, String> {
        let lab = Lab::lay(LabSpec { discovery: Discovery::Authority, ..spec(HOSTS.len(), 0) }).unwrap();
        fs::create_dir_all("/run/weft").unwrap();
        // Docker's socket is where everybody looks for it.
        symlink("/run/docker/docker.sock", "/run/docker.sock").unwrap();
        let mut dockers = Vec::new();
        for h in 1..=HOSTS.len() {
            let run = Docker::dir(h).join("run");
            fs::create_dir_all(&run).unwrap();
            symlink(Docker::dir(h).join("docker.sock"), run.join("docker.sock")).unwrap();
            let own = OWN.map(|path| Self::own(h).join(&path[1..]));
            own.iter().for_each(|path| fs::create_dir_all(path).unwrap());
            let copied = Command::new("cp").args(["-a", "/etc/."]).arg(&own[0]).status().unwrap();
            assert!(copied.success(), "/etc was not copied");
            fs::create_dir_all(own[0].join("containers")).unwrap();
            fs::write(own[0].join("containers/containers.conf"), PODMAN_SETTINGS).unwrap();
            let binds: Vec<(&Path, &str)> = own.iter().map(PathBuf::as_path).zip(OWN).collect();
            dockers.push(Docker::start_where(&binds, &lab, h, image, &["--bip=172.30.0.1/24"])?);
        }
        Ok(Self { daemons: Vec::new(), dockers, token: String::new(), lab })
    }

    /// Where a host's own directories really are.
    fn own(h: usize) -> PathBuf {
        format!("/run/of-h{h}").into()
    }

    fn log(h: usize) -> PathBuf {
        Self::own(h).join("log")
    }

    fn play(&mut self, act: &Act<'_>) -> Result<(), String> {
        match act {
            Act::Add { at, file, text } => {
                for &h in at {
                    let path = Self::own(h).join(&file[1..]);
                    let mut file = File::options().append(true).open(&path).map_err(|error| error.to_string())?;
                    file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
                }
                Ok(())
            }
            Act::Type { at, container, command } => match (container, command.strip_suffix(" &")) {
                (Some(name), _) => self.ask(*at, command, &["docker", "exec", name, "sh", "-c", command]),
                // In a checkout of weft.
                (None, None) => {
                    let line = format!("cd '{}' && {command}", env!("CARGO_MANIFEST_DIR"));
                    self.ask(*at, command, &["sh", "-c", &line])
                }
                (None, Some(command)) => self.begin(*at, command),
            },
        }
    }

    /// Does it once, or until it is answered.
    fn ask(&mut self, at: usize, command: &str, words: &[&str]) -> Result<(), String> {
        let deadline = Instant::now() + 2 * SOON;
        let is_question = command.contains(" | grep ") || QUESTIONS.iter().any(|asks| command.starts_with(asks));
        loop {
            match self.run(at, words, deadline) {
                Ok(said) => {
                    if let Some(line) = said.lines().rfind(|line| line.starts_with("weft1:")) {
                        line.clone_into(&mut self.token);
                    }
                    return Ok(());
                }
                Err(_) if is_question && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                Err(said) => return Err(said),
            }
        }
    }

    /// Runs a command on a host until it ends: what it said, if it ended well.
    fn run(&self, at: usize, words: &[&str], deadline: Instant) -> Result<String, String> {
        let path = Self::own(at).join("said");
        let file = File::create(&path).unwrap();
        let mut command = self.command(at, words);
        command.stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        let mut child = command.spawn().unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.to_string();
            }
            if Instant::now() > deadline {
                // SAFETY: kill takes numbers only; the group is that of a child that was not waited for.
                unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
                child.wait().unwrap();
                break "it went on for too long".to_owned();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        if status == "exit status: 0" { Ok(said) } else { Err(format!("{said}{status}")) }
    }

    /// Starts what goes on, and waits until the daemon answers and, if it joined, is let in.
    fn begin(&mut self, at: usize, command: &str) -> Result<(), String> {
        let words = command.split(' ').map(|word| if word.starts_with("weft1:") { &self.token } else { word });
        let mut daemon = self.command(at, &words.collect::<Vec<_>>());
        let log = File::options().create(true).append(true).open(Self::log(at)).unwrap();
        daemon.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.push(daemon.spawn().unwrap());
        let deadline = Instant::now() + SOON;
        let is_up =
            if command.contains("join") { "weft peers --json | grep -q '\"alive\": *true'" } else { "weft status" };
        while let Err(said) = self.run(at, &["sh", "-c", is_up], deadline) {
            if let Some(status) = self.daemons.last_mut().unwrap().try_wait().unwrap() {
                return Err(status.to_string());
            }
            if Instant::now() > deadline {
                return Err(said);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A command on a host, as a person with a fresh shell there has it.
    fn command(&self, at: usize, words: &[&str]) -> Command {
        let path = format!("{}:{}", Path::new(WEFT).parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env("PATH", path)
            .env_remove("WEFT_SOCKET")
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null());
        process::die_with_us(&mut command);
        self.dockers[at - 1].on_host(&self.lab, &mut command);
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.dockers.clear();
        self.daemons.iter_mut().for_each(|daemon| drop(process::end(daemon, SOON)));
        if std::thread::panicking() {
            for (h, name) in (1..).zip(HOSTS) {
                println!("--- weft of {name}:\n{}", process::last_words(&Self::log(h), 40));
            }
        }
    }
}

#[test]
fn every_line_of_the_page_works() {
    for program in ["curl", "nsenter", "podman"] {
        if !have(program) {
            skip!("{program} is not installed");
        }
    }
    with_engines(&PROGRAMS, |image| {
        let mut world = World::new(image)?;
        for (number, act) in acts(PAGE).unwrap() {
            if let Err(said) = world.play(&act) {
                panic!("docs/coming-from.md:{number}: {act:?}:\n{said}");
            }
        }
        Ok(())
    });
}
