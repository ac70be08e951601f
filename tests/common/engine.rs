//! Container engines started by hand, each test's in a mount namespace of its own, so that they meet no engine of the machine and
//! leave nothing. Containers run a static busybox, imported from a directory.

use super::place;
use super::skip::skip;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use weft::io::netns::Netns;
use weft::lab::process;

/// Where Podman keeps its containers.
const PODMAN_STORAGE: &str = "/var/lib/containers";
/// The image of all containers.
pub(crate) const IMAGE: &str = "box";
/// What a container that has nothing to do does: it ends by itself should the test be killed.
pub(crate) const IDLE: [&str; 2] = ["/bin/sleep", "900"];

/// Whether a program is there.
pub(crate) fn have(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Why the engines cannot be tried here.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("container engines need root".to_owned());
    }
    if busybox().is_none() {
        return Some("there is no busybox (package busybox-static)".to_owned());
    }
    programs.iter().find(|program| !have(program)).map(|program| format!("{program} is not installed"))
}

pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

/// An empty /run, and an empty storage for Podman.
fn hide_the_machines_engines() {
    place::mount("none", Path::new("/run"), "tmpfs", 0);
    if Path::new(PODMAN_STORAGE).exists() {
        place::mount("none", Path::new(PODMAN_STORAGE), "tmpfs", 0);
    }
}

/// The image as a tar archive.
pub(crate) fn image() -> PathBuf {
    let (root, archive) = (Path::new("/run/root"), PathBuf::from("/run/image.tar"));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    let programs = ["sh", "sleep", "ping", "nc", "ip", "cat", "httpd", "wget", "nslookup"];
    programs.iter().for_each(|name| symlink("busybox", root.join("bin").join(name)).unwrap());
    let tar = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(tar.success());
    archive
}

pub(crate) fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

/// Runs a test where the engines are, unless they cannot run here.
pub(crate) fn with_engines(programs: &[&str], test: impl FnOnce(&Path) -> Result<(), String> + Send) {
    if let Some(why) = missing(programs) {
        skip!("{why}");
    }
    if !place::usable() {
        return;
    }
    let mut outcome = Ok(());
    place::with_own_mounts(|| {
        hide_the_machines_engines();
        outcome = test(&image());
    });
    if let Err(why) = outcome {
        skip!("{why}");
    }
}

/// Podman of this mount namespace. Dropping it ends its containers.
#[derive(Default)]
pub(crate) struct Podman {
    /// Its settings, `containers.conf`, where they are not the usual ones.
    pub(crate) settings: Option<PathBuf>,
    /// Where it runs, and makes its bridges, if not where we do.
    pub(crate) netns: Option<Netns>,
}

impl Podman {
    pub(crate) fn start(image: &Path) -> Self {
        let podman = Self::default();
        podman.import(image);
        podman
    }

    pub(crate) fn import(&self, image: &Path) {
        self.run(&["import", image.to_str().unwrap(), IMAGE]);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.args(["--cgroup-manager", "cgroupfs"]).args(arguments).stdin(Stdio::null());
        command.envs(self.settings.iter().map(|path| ("CONTAINERS_CONF", path)));
        if let Some(netns) = &self.netns {
            process::inside(netns, &mut command).unwrap();
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        text(&self.command(arguments).output().unwrap())
    }

    /// A running container, with limits that need no privilege: its id.
    pub(crate) fn container(&self, name: &str, more: &[&str]) -> String {
        text(&self.try_container(name, more))
    }

    /// The same, if it can be had.
    pub(crate) fn try_container(&self, name: &str, more: &[&str]) -> Output {
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let line = [&["run", "-d", "--name", name][..], network(more), &limits, more, &[IMAGE], &IDLE].concat();
        self.command(&line).output().unwrap()
    }

    pub(crate) fn netns(&self, name: &str) -> Netns {
        Netns::of_pid(self.run(&["inspect", "-f", "{{.State.Pid}}", name]).parse().unwrap()).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "-af", "-t", "0"]).output();
    }
}

/// No network of its own, unless the options name one.
fn network(more: &[&str]) -> &'static [&'static str] {
    if more.contains(&"--network") { &[] } else { &["--network", "none"] }
}
