//! What the tests of `weft lab …` share: a command under way, and everything it has that must be gone afterwards.

mod bench;
mod commands;
mod scale;
mod scenes;
mod topologies;
mod tour;

use crate::common::cli::WEFT;
use crate::common::{eventually, place};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weft::io::netns::Netns;
use weft::lab::{process, registry};

/// Runs a test with a /run of its own, so that the labs it makes are all there are.
fn in_own_run(test: impl FnOnce() + Send) {
    if !place::usable() {
        return;
    }
    place::with_own_mounts(|| {
        place::mount("none", Path::new("/run"), "tmpfs", 0);
        test();
        assert!(!registry::base().exists(), "{} is left", registry::base().display());
    });
}

/// `weft lab …` under way, in a namespace and a process group of its own, as at a terminal.
struct Running {
    child: Child,
    netns: Netns,
    out: JoinHandle<String>,
    err: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
}

/// How it ended.
struct Ended {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Running {
    fn start(arguments: &str) -> Self {
        Self::run(Command::new(WEFT), arguments)
    }

    fn run(mut command: Command, arguments: &str) -> Self {
        let netns = Netns::create().unwrap();
        command.arg("lab").args(arguments.split_whitespace()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::inside(&netns, &mut command).unwrap();
        process::die_with_us(&mut command);
        let mut child = command.spawn().unwrap();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let err = Arc::new(Mutex::new(String::new()));
        let shared = err.clone();
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { child, netns, out, err, reading }
    }

    /// Waits until it has written `text` to standard error.
    fn until(&self, text: &str) {
        eventually(&format!("it says {text}"), || self.err.lock().unwrap().contains(text).then_some(()));
    }

    /// Sends its whole process group a signal, as a terminal does.
    fn signal(&self, signal: i32) {
        // SAFETY: kill takes numbers only; the group is the child's, which has not been waited for.
        assert_eq!(unsafe { libc::kill(-self.child.id().cast_signed(), signal) }, 0);
    }

    fn belongings(&self) -> Belongings {
        Belongings::of(self.child.id(), &self.netns)
    }

    /// Waits until it has ended, which it is given two minutes for: then it is killed, with all it said in the panic.
    fn end(mut self) -> (Ended, Netns) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.signal(libc::SIGKILL);
                panic!("it goes on and on: {}", self.err.lock().unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.reading.join().unwrap();
        let err = self.err.lock().unwrap().clone();
        (Ended { status, out: self.out.join().unwrap(), err }, self.netns)
    }
}

impl Ended {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

/// What a process of the lab has: children, namespaces, a directory.
#[derive(Debug)]
struct Belongings {
    processes: BTreeSet<u32>,
    namespaces: BTreeSet<String>,
    dirs: Vec<PathBuf>,
}

impl Belongings {
    /// Of the process `pid`, which itself was started in `home`.
    fn of(pid: u32, home: &Netns) -> Self {
        let processes: BTreeSet<u32> = std::iter::once(pid).chain(descendants(pid)).collect();
        let mut namespaces: BTreeSet<String> = processes.iter().flat_map(|&pid| namespaces_of(pid)).collect();
        namespaces.remove(&format!("net:[{}]", home.id().ino));
        namespaces.remove(&own_namespace());
        assert!(!namespaces.is_empty(), "process {pid} has no lab");
        // The daemons name it in their command lines.
        let files = processes.iter().filter_map(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let file = line.split('\0').find(|word| word.ends_with("/weft.toml"))?;
            Some(Path::new(file).parent()?.parent()?.to_owned())
        });
        let dirs: BTreeSet<PathBuf> = files.collect();
        Self { processes, namespaces, dirs: dirs.into_iter().collect() }
    }

    /// The process whose command line has `word` in it.
    fn process(&self, word: &str) -> i32 {
        let found = self.processes.iter().find(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains(word)
        });
        found.unwrap_or_else(|| panic!("no process has {word}: {self:?}")).cast_signed()
    }

    /// No process is left, and with them everything that they held.
    fn assert_dead(&self) {
        eventually("no process is left", || {
            self.processes.iter().all(|&pid| registry::start_time(pid).is_none()).then_some(())
        });
        let held: BTreeSet<String> = all_processes().into_iter().flat_map(namespaces_of).collect();
        let left: Vec<_> = held.intersection(&self.namespaces).collect();
        assert!(left.is_empty(), "namespaces are left: {left:?}");
    }

    fn assert_gone(&self) {
        self.assert_dead();
        assert!(self.dirs.iter().all(|dir| !dir.exists()), "{self:?}");
    }
}

/// No interface was made where the command was started.
fn assert_bare(netns: &Netns) {
    assert_eq!(place::links(netns), ["lo"]);
}

fn own_namespace() -> String {
    fs::read_link("/proc/self/ns/net").unwrap().display().to_string()
}

fn all_processes() -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

fn descendants(pid: u32) -> Vec<u32> {
    let parent = |child: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let all: Vec<(u32, Option<u32>)> = all_processes().into_iter().map(|child| (child, parent(child))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(all.iter().filter(|(_, parent)| *parent == Some(pid)).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// The network namespaces that a process is in or holds open.
fn namespaces_of(pid: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = links.chain([format!("/proc/{pid}/ns/net").into()]);
    let targets = all.filter_map(|link: PathBuf| Some(fs::read_link(link).ok()?.display().to_string()));
    targets.filter(|target| target.starts_with("net:[")).collect()
}
