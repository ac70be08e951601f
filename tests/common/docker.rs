//! A dockerd on a host of a lab, as a test needs it: started, stopped, killed and started again.
//!
//! Docker looks for its drivers in `/run/docker/plugins` and nowhere else, so each dockerd has a mount namespace of its own, with a
//! `/run/docker` that is another directory of the test's.

use super::engine::{IDLE, IMAGE, text};
use super::{SOON, eventually};
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use weft::io::netns::Netns;
use weft::lab::{Lab, process};

/// What must be there for it, besides busybox.
pub(crate) const PROGRAMS: [&str; 3] = ["dockerd", "docker", "tar"];

/// A dockerd on a host of the lab. Dropping it ends its containers and it.
pub(crate) struct Docker {
    h: usize,
    dir: PathBuf,
    /// Holds the mount namespace, in which dockerd keeps its containers' network namespaces when it is killed.
    keeper: Child,
    daemon: Child,
}

impl Docker {
    /// Starts it, or says why this machine does not let it run. Without `--bip` it has no bridge of its own.
    pub(crate) fn start(lab: &Lab, h: usize, image: &Path, arguments: &[&str]) -> Result<Self, String> {
        Self::start_where(&[], lab, h, image, arguments)
    }

    /// The same on a host where these directories are at other places as well.
    pub(crate) fn start_where(
        binds: &[(&Path, &str)],
        lab: &Lab,
        h: usize,
        image: &Path,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let dir = Self::dir(h);
        let run = dir.join("run");
        fs::create_dir_all(&run).unwrap();
        fs::create_dir_all("/run/docker").unwrap();
        let mut keeper = Command::new("sleep");
        keeper.arg("3600");
        process::die_with_us(&mut keeper);
        // SAFETY: between fork and exec it makes system calls only, on strings that were made before.
        unsafe { keeper.pre_exec(own_mounts(&[&[(run.as_path(), "/run/docker")], binds].concat())) };
        let keeper = keeper.spawn().unwrap();
        let daemon = Self::spawn(lab, h, &keeper, arguments);
        let mut docker = Self { h, dir, keeper, daemon };
        docker.wait()?;
        text(&docker.command(&["import", image.to_str().unwrap(), IMAGE]).output().unwrap());
        Ok(docker)
    }

    /// Where its files are. Its API is at `docker.sock` there.
    pub(crate) fn dir(h: usize) -> PathBuf {
        format!("/run/docker-of-h{h}").into()
    }

    fn spawn(lab: &Lab, h: usize, keeper: &Child, arguments: &[&str]) -> Child {
        let dir = Self::dir(h);
        let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.args(["--iptables=false", "--ip6tables=false", "--log-level=warn"]).args(arguments);
        if !arguments.iter().any(|argument| argument.starts_with("--bip")) {
            command.arg("--bridge=none");
        }
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("-H").arg(format!("unix://{}", dir.join("docker.sock").display()));
        command.arg("--pidfile").arg(dir.join("pid")).stdout(log.try_clone().unwrap()).stderr(log);
        process::die_with_us(&mut command);
        enter(lab, h, keeper, &mut command);
        command.spawn().unwrap()
    }

    /// Makes a command start on the host, where it sees what dockerd sees.
    pub(crate) fn on_host(&self, lab: &Lab, command: &mut Command) {
        enter(lab, self.h, &self.keeper, command);
    }

    fn wait(&mut self) -> Result<(), String> {
        let up = eventually("dockerd is up or has ended", || {
            let ended = self.daemon.try_wait().unwrap().is_some();
            let answers = self.command(&["version"]).output().unwrap().status.success();
            (ended || answers).then_some(answers)
        });
        let log = || fs::read_to_string(self.dir.join("log")).unwrap();
        if up { Ok(()) } else { Err(format!("dockerd does not run here: {}", log())) }
    }

    pub(crate) fn kill(&mut self) {
        process::signal(&self.daemon, libc::SIGKILL);
        self.daemon.wait().unwrap();
        // Its containerd is killed with it; one that is dying would be taken for one that runs.
        let file = self.dir.join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).unwrap();
        eventually("containerd has ended", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            let state = stat.rsplit(") ").next().unwrap_or_default();
            (state.is_empty() || state.starts_with(['Z', 'X'])).then_some(())
        });
        for left in [file, self.dir.join("pid")] {
            fs::remove_file(left).unwrap();
        }
    }

    pub(crate) fn stop(&mut self) {
        process::signal(&self.daemon, libc::SIGTERM);
        self.daemon.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self, lab: &Lab, arguments: &[&str]) {
        self.daemon = Self::spawn(lab, self.h, &self.keeper, arguments);
        self.wait().unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.dir.join("docker.sock").display())).args(arguments);
        command
    }

    /// `docker LINE`; arguments are separated by blanks.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.command(&line.split_whitespace().collect::<Vec<_>>()).output().unwrap();
        let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {line}: {all}\n{}", process::last_words(&self.dir.join("log"), 20));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn refused(&self, line: &str) -> String {
        let output = self.command(&line.split_whitespace().collect::<Vec<_>>()).output().unwrap();
        assert!(!output.status.success(), "docker {line} worked");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Starts a container that does nothing, with these options: its id.
    #[track_caller]
    pub(crate) fn container(&self, name: &str, options: &str) -> String {
        self.run(&format!("run -d --stop-signal KILL --name {name} {options} {IMAGE} {}", IDLE.join(" ")))
    }

    /// As [`Docker::container`] with a MAC address, which command lines later than this Docker cannot ask it for.
    pub(crate) fn container_with_mac(&self, name: &str, mac: &str, network: &str, v4: &str, v6: &str) {
        let addresses = json!({ "IPv4Address": v4, "IPv6Address": v6 });
        let body = json!({
            "Image": IMAGE, "Cmd": IDLE, "MacAddress": mac, "HostConfig": { "NetworkMode": network },
            "NetworkingConfig": { "EndpointsConfig": { network: { "IPAMConfig": addresses } } },
        });
        let body = body.to_string();
        let mut stream = UnixStream::connect(self.dir.join("docker.sock")).unwrap();
        let head =
            format!("POST /v1.41/containers/create?name={name} HTTP/1.0\r\nContent-Type: application/json\r\n");
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 201 "), "{answer}");
        self.run(&format!("start {name}"));
    }

    pub(crate) fn netns(&self, name: &str) -> Netns {
        Netns::of_pid(self.run(&format!("inspect -f {{{{.State.Pid}}}} {name}")).parse().unwrap()).unwrap()
    }

    /// A container's address in one of Docker's networks, as Docker has it.
    pub(crate) fn address(&self, name: &str, network: &str) -> IpAddr {
        let format = "{{json .NetworkSettings.Networks}}";
        let networks = text(&self.command(&["inspect", "-f", format, name]).output().unwrap());
        let networks: Value = serde_json::from_str(&networks).unwrap();
        networks[network]["IPAddress"].as_str().unwrap().parse().unwrap()
    }
}

/// Makes a command start on a host, with the mounts of this process.
fn enter(lab: &Lab, h: usize, keeper: &Child, command: &mut Command) {
    process::inside(&lab.host(h).netns, command).unwrap();
    let mounts = File::open(format!("/proc/{}/ns/mnt", keeper.id())).unwrap();
    let enter = move || {
        // SAFETY: setns takes no pointer; the descriptor is open as long as the closure lives.
        let code = unsafe { libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS) };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(enter) };
}

/// Between fork and exec: the second of each pair becomes the first, for this process and those it starts.
fn own_mounts(binds: &[(&Path, &str)]) -> impl FnMut() -> io::Result<()> + Send + Sync + use<> {
    let c = |text: &str| CString::new(text).unwrap();
    let (none, root) = (c("none"), c("/"));
    let binds: Vec<_> = binds.iter().map(|(from, to)| (c(from.to_str().unwrap()), c(to))).collect();
    move || {
        let checked = |code: i32| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        // SAFETY: unshare takes no pointer.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let (private, null) = (libc::MS_REC | libc::MS_PRIVATE, std::ptr::null::<libc::c_char>());
        // SAFETY: all are C strings that live as long as this closure, or null where mount(2) ignores them.
        checked(unsafe { libc::mount(none.as_ptr(), root.as_ptr(), null, private, null.cast()) })?;
        for (from, to) in &binds {
            // SAFETY: as above.
            checked(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), null, libc::MS_BIND, null.cast()) })?;
        }
        Ok(())
    }
}

impl Drop for Docker {
    #[allow(clippy::print_stdout)]
    fn drop(&mut self) {
        if let Ok(output) = self.command(&["ps", "-aq"]).output() {
            let ids = String::from_utf8_lossy(&output.stdout).into_owned();
            let ids: Vec<&str> = ids.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = self.command(&["rm", "-f"]).args(ids).output();
            }
        }
        let _ = process::end(&mut self.daemon, SOON);
        let _ = process::end(&mut self.keeper, SOON);
        if std::thread::panicking() {
            println!("--- dockerd of h{}:\n{}", self.h, process::last_words(&self.dir.join("log"), 60));
        }
    }
}
