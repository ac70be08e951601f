//! The real daemon on a host of the lab: its files, its start, its end.

use super::registry::start_time;
use super::spec::{LISTEN_PORT, LabSpec};
use super::{LabError, Stop, process};
use crate::control::request::Request;
use crate::io::client;
use crate::io::netns::Netns;
use crate::wire::key::{PublicKey, Secret};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take until it answers. It needs a fraction of a second; a loaded machine more.
const READY: Duration = Duration::from_secs(20);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(20);
/// How long a daemon may take to end on SIGTERM: it promises a second.
const END: Duration = Duration::from_secs(3);
/// Prefixes of every network's containers.
const SUBNETS: &str = r#"["10.32.0.0/16", "fd00:32::/64"]"#;
/// Lines of its log that are part of an error.
const LOG_LINES: usize = 15;

/// The files of one daemon, below its host's directory.
#[derive(Debug, Clone)]
pub struct Files {
    /// The host's directory.
    pub dir: PathBuf,
}

impl Files {
    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("weft.toml")
    }

    /// What the daemon says.
    pub fn log(&self) -> PathBuf {
        self.dir.join("weft.log")
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.dir.join("key")
    }

    /// What it keeps across restarts.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Makes the directories and a key, and returns the public one.
    pub(super) fn make(&self) -> io::Result<PublicKey> {
        fs::create_dir(&self.dir)?;
        fs::create_dir(self.state())?;
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let secret = Secret::private(random);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.key())?;
        writeln!(file, "{}", secret.to_base64())?;
        Ok(secret.public_key())
    }
}

/// Another host, as a daemon's file has it.
#[derive(Debug, Clone)]
pub(super) struct PeerEntry {
    pub(super) name: String,
    pub(super) public_key: PublicKey,
    /// Where it is, if the file says so.
    pub(super) address: Option<IpAddr>,
}

/// The text of a daemon's configuration file.
pub(super) fn config(spec: &LabSpec, name: &str, files: &Files, peers: &[PeerEntry]) -> String {
    let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
    let mut text = format!(
        "# Written by `weft lab`.\n[node]\nname = \"{name}\"\nlisten_port = {LISTEN_PORT}\nkey_file = {}\n\
         state_dir = {}\ncontrol_socket = {}\n{}\n",
        quoted(files.key()),
        quoted(files.state()),
        quoted(files.socket()),
        spec.extra_node,
    );
    // Writing to a String cannot fail.
    if !spec.offload_off.is_empty() {
        text.push_str("\n[offload]\n");
        for key in &spec.offload_off {
            let _ = writeln!(text, "{key} = false");
        }
    }
    // A Docker of the machine is not the lab's.
    if !spec.extra_config.contains("[docker]") {
        text.push_str("\n[docker]\nenabled = false\n");
    }
    for network in &spec.networks {
        let (name, vni, mtu) = (&network.name, network.vni, network.mtu);
        let _ = writeln!(
            text,
            "\n[[network]]\nname = \"{name}\"\nvni = {vni}\nmtu = {mtu}\nsubnets = {SUBNETS}\n{}",
            spec.network_config
        );
    }
    for peer in peers {
        let (name, public_key) = (&peer.name, peer.public_key);
        let _ = writeln!(text, "\n[[peer]]\nname = \"{name}\"\npublic_key = \"{public_key}\"");
        if let Some(address) = peer.address {
            let _ = writeln!(text, "endpoints = [\"{}\"]", SocketAddr::new(address, LISTEN_PORT));
        }
        let _ = writeln!(text, "{}", spec.extra_peer);
    }
    text.push_str(&spec.extra_config);
    text
}

/// A running daemon. Dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    host: String,
    files: Files,
    child: Child,
}

impl Daemon {
    /// Starts `weft up` inside a host's namespace. It dies with the calling thread.
    ///
    /// # Errors
    /// The binary cannot be run there.
    pub(super) fn spawn(weft: &Path, host: &str, netns: &Netns, files: &Files) -> Result<Self, LabError> {
        let spawn = || {
            let log = OpenOptions::new().create(true).append(true).open(files.log())?;
            let mut command = Command::new(weft);
            command.arg("up").arg("-c").arg(files.config());
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            // Ctrl-C at the terminal is for the lab, which ends its daemons in its own time.
            command.process_group(0).env_remove("WEFT_SOCKET");
            process::inside(netns, &mut command)?;
            process::die_with_us(&mut command);
            command.spawn()
        };
        let child = spawn().map_err(LabError::io(format!("start the daemon of {host}")))?;
        Ok(Self { host: host.to_owned(), files: files.clone(), child })
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ended or did not answer in time: the end of its log is in the error.
    pub(super) fn wait_ready(&mut self, stop: &Stop) -> Result<(), LabError> {
        let deadline = Instant::now() + READY;
        loop {
            if client::ask(&self.files.socket(), &Request::Status).is_ok() {
                return Ok(());
            }
            let failed = |what| LabError::Daemon {
                host: self.host.clone(),
                what,
                log: process::last_words(&self.files.log(), LOG_LINES),
            };
            let ended =
                self.child.try_wait().map_err(LabError::io(format!("wait for the daemon of {}", self.host)))?;
            if let Some(status) = ended {
                return Err(failed(format!("ended at its start ({status})")));
            }
            if Instant::now() > deadline {
                return Err(failed(format!("did not answer within {} s", READY.as_secs())));
            }
            if stop.is_set() {
                return Err(LabError::Interrupted);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        start_time(self.child.id()).is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        process::signal(&self.child, signal);
    }

    /// Waits for its end, for `patience` at most, and returns how it ended.
    pub fn wait(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        process::last_words(&self.files.log(), LOG_LINES)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The kernel kills what is left when we end.
        let _ = process::end(&mut self.child, END);
    }
}
