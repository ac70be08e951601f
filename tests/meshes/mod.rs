//! Hosts of a lab on which nothing runs but what a test starts there, by the commands that an operator would give.

mod addresses;
mod connecting;
mod joining;
mod later;
mod neighbours;
mod relaying;
mod revoking;
mod rotating;
mod tokens;

use crate::common::cli::{Said, command, said};
use crate::common::place::{path_of, spec};
use crate::common::{SOON, eventually};
use crate::support::reaches;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weft::control::request::{PeerStatus, Status};
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::spec::{Discovery, LabSpec, Underlay};
use weft::lab::topology::Topology;
use weft::lab::{Container, Lab, process};

/// Nobody is reached for this long after having been cut off: as long as a cut may take.
const CUT: Duration = Duration::from_secs(5);

/// See the head of this file. Every host is alone at its site, so that no LAN helps.
pub(crate) struct Hosts {
    lab: Lab,
    daemons: BTreeMap<usize, Child>,
}

impl Hosts {
    /// Hosts with one container each, which has no interface yet.
    fn lay(hosts: usize) -> Self {
        let underlay = Underlay::Routed(Topology::flat(hosts));
        let spec = LabSpec { underlay, discovery: Discovery::Authority, ..spec(hosts, 1) };
        Self { lab: Lab::lay(spec).unwrap(), daemons: BTreeMap::new() }
    }

    /// A mesh that h1 began and all the others joined, every container attached and reached by all.
    fn joined(hosts: usize) -> Self {
        let mut mesh = Self::lay(hosts);
        mesh.begin(1);
        for h in 2..=hosts {
            let token = mesh.invite(&format!("h{h}"));
            mesh.join(h, &token);
        }
        for h in 1..=hosts {
            mesh.attach(h);
        }
        mesh.all_reach(1..=hosts);
        mesh
    }

    fn dir(&self, h: usize) -> PathBuf {
        self.lab.host(h).files.dir.join("mesh")
    }

    fn config(&self, h: usize) -> PathBuf {
        self.dir(h).join("weft.toml")
    }

    fn log(&self, h: usize) -> PathBuf {
        self.lab.host(h).files.log()
    }

    fn socket(&self, h: usize) -> PathBuf {
        self.dir(h).join("state/control.sock")
    }

    /// Where this host's files are, for commands that make some.
    fn places(&self, h: usize) -> String {
        format!("-c {} --state-dir {}", self.config(h).display(), self.dir(h).join("state").display())
    }

    fn container(&self, h: usize) -> &Container {
        self.lab.container(h, 1)
    }

    /// Runs a command on a host until it ends by itself.
    fn weft(&self, h: usize, line: &str) -> Said {
        let mut command = command(&self.socket(h), line);
        process::inside(&self.lab.host(h).netns, &mut command).unwrap();
        process::die_with_us(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + SOON;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("weft {line} goes on: {:?}", said(line, &child.wait_with_output().unwrap()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        said(line, &child.wait_with_output().unwrap())
    }

    /// Starts a command on a host that goes on as its daemon, and waits until it answers.
    fn start(&mut self, h: usize, line: &str) {
        let mut command = command(&self.socket(h), line);
        let log = OpenOptions::new().create(true).append(true).open(self.log(h)).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        process::inside(&self.lab.host(h).netns, &mut command).unwrap();
        process::die_with_us(&mut command);
        assert!(self.daemons.insert(h, command.spawn().unwrap()).is_none(), "h{h} has a daemon");
        eventually(&format!("the daemon of h{h} answers"), || {
            if let Some(status) = self.daemons.get_mut(&h).unwrap().try_wait().unwrap() {
                panic!("weft {line} on h{h} ended ({status}): {}", self.words(h));
            }
            (self.weft(h, "status --json").code == Some(0)).then_some(())
        });
    }

    /// The last words of a host's daemon.
    fn words(&self, h: usize) -> String {
        process::last_words(&self.log(h), 30)
    }

    /// Begins a mesh on a host, as the one that can invite.
    fn begin(&mut self, h: usize) {
        self.weft(h, &format!("init h{h} {}", self.places(h))).done();
        self.up(h);
    }

    fn up(&mut self, h: usize) {
        self.start(h, &format!("up -c {}", self.config(h).display()));
    }

    /// Ends the daemon of a host.
    fn down(&mut self, h: usize, signal: i32) {
        let mut daemon = self.daemons.remove(&h).unwrap();
        process::signal(&daemon, signal);
        eventually(&format!("the daemon of h{h} ends"), || daemon.try_wait().unwrap());
    }

    fn restart(&mut self, h: usize, signal: i32) {
        self.down(h, signal);
        self.up(h);
    }

    /// A line of h1 for a host that will be called `name`.
    fn invite(&self, name: &str) -> String {
        self.weft(1, &format!("invite {name}")).done().trim().to_owned()
    }

    /// Joins by a good line, and waits until this host has been let in.
    fn join(&mut self, h: usize, token: &str) {
        self.start(h, &format!("join {token} {}", self.places(h)));
        eventually(&format!("h{h} has joined"), || {
            if let Some(status) = self.daemons.get_mut(&h).unwrap().try_wait().unwrap() {
                panic!("h{h} did not join ({status}): {}", self.words(h));
            }
            self.peer(h, "h1").filter(|peer| peer.alive == Some(true))
        });
    }

    /// Gives the container of a host its address in the network that `weft init` made.
    fn attach(&self, h: usize) {
        let container = self.container(h);
        let (path, ip) = (path_of(&container.netns), container.v4);
        self.weft(h, &format!("attach netns:{} --network mesh --ip {ip}/16", path.display())).done();
    }

    fn status(&self, h: usize) -> Status {
        self.weft(h, "status --json").json()
    }

    fn peers(&self, h: usize) -> Vec<PeerStatus> {
        self.weft(h, "peers --json").json()
    }

    /// The peer of a host that has this name, if there is one.
    fn peer(&self, h: usize, name: &str) -> Option<PeerStatus> {
        self.peers(h).into_iter().find(|peer| peer.name == name)
    }

    #[track_caller]
    fn reach(&self, from: usize, to: usize) {
        reaches(self.container(from), self.container(to));
    }

    /// Waits until all containers of these hosts reach each other.
    #[track_caller]
    fn all_reach(&self, hosts: impl IntoIterator<Item = usize>) {
        let hosts: Vec<usize> = hosts.into_iter().collect();
        for &from in &hosts {
            for &to in hosts.iter().filter(|&&to| to != from) {
                self.reach(from, to);
            }
        }
    }

    /// The file of a host, as it is now.
    fn text(&self, h: usize) -> String {
        fs::read_to_string(self.config(h)).unwrap()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for daemon in self.daemons.values() {
            process::signal(daemon, libc::SIGTERM);
        }
        for daemon in self.daemons.values_mut() {
            let _ = process::end(daemon, SOON);
        }
        if std::thread::panicking() {
            for h in 1..=self.lab.hosts().len() {
                println!("h{h}:\n{}", self.words(h));
            }
        }
    }
}

/// As [`eventually`], for what takes its time.
#[track_caller]
fn within<T>(patience: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Pings one after the other, none of which may be lost; late ones are not.
struct Unbroken {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Unbroken {
    fn start(from: &Netns, to: std::net::IpAddr) -> Self {
        let mut pinger = Pinger::open(from, to, None).unwrap();
        let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (answered.clone(), stop.clone());
        let run = move || {
            let mut lost = 0;
            while !ends.load(Relaxed) {
                match pinger.once(56, Duration::from_secs(3)) {
                    Ok(_) => drop(count.fetch_add(1, Relaxed)),
                    Err(_) => lost += 1,
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            lost
        };
        Self { answered, stop, thread: Some(std::thread::spawn(run)) }
    }

    /// Ends it; at least `least` were answered, and all that were sent.
    #[track_caller]
    fn finish(mut self, least: usize) {
        self.stop.store(true, Relaxed);
        let lost = self.thread.take().unwrap().join().unwrap();
        let answered = self.answered.load(Relaxed);
        println!("{answered} pings answered, {lost} lost");
        assert!(lost == 0 && answered >= least, "{answered} pings answered, {lost} lost");
    }
}

impl Drop for Unbroken {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
