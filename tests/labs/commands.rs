//! Labs to play with: `weft lab up`, `ping`, `exec`, `status`, `down`; as root, and as nobody.

use super::{Belongings, Running, assert_bare, in_own_run};
use crate::common::cli::{Said, WEFT, said};
use crate::common::{eventually, place, skip::skip};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use weft::io::netns::Netns;
use weft::lab::registry;

/// The user and group of nobody.
const NOBODY: u32 = 65_534;

/// `weft lab LINE`.
fn lab(line: &str) -> Said {
    let mut command = Command::new(WEFT);
    command.arg("lab").args(line.split_whitespace()).stdin(Stdio::null());
    said(line, &command.output().unwrap())
}

/// A lab called so, which is gone when this is, whatever the test did.
struct Named(String);

impl Named {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self(format!("cli-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed)))
    }

    fn up(options: &str) -> Self {
        let named = Self::new();
        lab(&format!("up --name {} {options}", named.0)).done();
        named
    }

    fn dir(&self) -> PathBuf {
        registry::base().join(&self.0)
    }

    fn state(&self) -> Value {
        let all: Value = serde_json::from_str(&lab(&format!("status --json --name {}", self.0)).done()).unwrap();
        all[0].clone()
    }

    fn supervisor(&self) -> u32 {
        u32::try_from(self.state()["pid"].as_u64().unwrap()).unwrap()
    }

    fn belongings(&self) -> Belongings {
        let belongings = Belongings::of(self.supervisor(), &Netns::current().unwrap());
        assert_eq!(belongings.dirs, [self.dir()]);
        belongings
    }

    fn exec(&self, place: &str, command: &[&str]) -> std::process::Output {
        let mut weft = Command::new(WEFT);
        weft.args(["lab", "exec", "--name", &self.0, place, "--"]).args(command).stdin(Stdio::null());
        weft.output().unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        lab(&format!("down --name {}", self.0));
    }
}

#[test]
fn what_up_suggests_works_as_it_stands_and_down_leaves_nothing() {
    in_own_run(|| {
        let named = Named::new();
        let told = lab(&format!("up --name {} --hosts 2 --containers 1", named.0)).done();
        let belongings = named.belongings();
        let suggestions: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        assert_eq!(suggestions.len(), 4, "{told}");
        let run = |line: &str| {
            let output = Command::new("/bin/sh").args(["-c", line]).env("PATH", "/nowhere").output();
            let output = output.unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let told: Vec<String> = suggestions[..3].iter().map(|line| run(line)).collect();
        assert_eq!(told[0].lines().count(), 3, "{}", told[0]);
        assert!(told[0].starts_with("h1/c1 → 10.32.2.1: 56 bytes, answer 1 after "), "{}", told[0]);
        assert!(told[1].starts_with("h1: weft "), "{}", told[1]);
        assert!(told[2].contains("h2/c1") && told[2].contains("daemon up"), "{}", told[2]);
        assert!(run(suggestions[3]).contains("is gone"));
        belongings.assert_gone();
    });
}

#[test]
fn two_labs_stand_side_by_side_and_each_command_finds_its_own() {
    in_own_run(|| {
        let (one, two) = (Named::up("--hosts 1 --containers 1"), Named::up("--hosts 2 --containers 2 --mtu 9000"));
        let again = lab(&format!("up --name {} --hosts 1 --containers 1", one.0)).refused();
        assert!(again.contains(&format!("a lab called {} exists", one.0)), "{again}");

        let all: Value = serde_json::from_str(&lab("status --json").done()).unwrap();
        let named =
            |lab: &Named| all.as_array().unwrap().iter().find(|state| state["name"] == lab.0).unwrap().clone();
        assert_eq!(named(&one)["hosts"].as_array().unwrap().len(), 1);
        assert_eq!(named(&two)["daemons"], serde_json::json!(["up", "up"]));

        let out = |output: std::process::Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let places = [(&one, "h1"), (&one, "h1/c1"), (&two, "h1/c1"), (&two, "h2/c2")];
        let namespaces = places.map(|(lab, place)| out(lab.exec(place, &["readlink", "/proc/self/ns/net"])));
        for (n, namespace) in namespaces.iter().enumerate() {
            assert!(namespace.starts_with("net:[") && !namespaces[..n].contains(namespace), "{namespaces:?}");
        }
        let mtu = out(two.exec("h2/c2", &["cat", "/sys/class/net/eth1/mtu"]));
        // /sys shows the namespace it was mounted in, which is not the container's: ask the daemon as well.
        let ports: Value = serde_json::from_str(&out(two.exec("h2", &["weft", "ports", "--json"]))).unwrap();
        assert!(ports[1]["mtu"] == 9000 && ports[1]["name"] == "c2", "{mtu} {ports:#}");

        // Whatever the command does with its exit code, and everything that is misspelt.
        assert_eq!(one.exec("h1/c1", &["sh", "-c", "exit 7"]).status.code(), Some(7));
        assert_eq!(one.exec("h1/c1", &["sh", "-c", "exit 0"]).status.code(), Some(0));
        let refused = |place: &str, command: &[&str]| said(place, &one.exec(place, command)).refused();
        let told = refused("h1/c2", &["true"]);
        assert!(told.contains(&format!("lab {} has no h1/c2: it has h1, h1/c1", one.0)), "{told}");
        assert!(refused("h7", &["true"]).contains("has no h7"));
        assert!(refused("h1", &["no-such-program"]).contains("cannot run no-such-program"));
        let told = lab("exec --name no-such-lab h1 -- true").refused();
        assert!(told.contains("there is no lab called no-such-lab") && told.contains(&two.0), "{told}");
        assert!(lab(&format!("ping --name {} h1/c1 h9", one.0)).refused().contains("neither an IP address nor"));
        let told = lab(&format!("ping --name {} --count 1 h1/c1 10.32.1.200", one.0)).refused();
        assert!(told.contains("10.32.1.200"), "{told}");
        lab(&format!("ping --name {} --size 60000 h1/c1 fd00:32::2:2", two.0)).done();

        let (of_one, of_two) = (one.belongings(), two.belongings());
        lab(&format!("down --name {}", one.0)).done();
        of_one.assert_gone();
        lab(&format!("ping --name {} h1/c1 h2/c2", two.0)).done();
        lab(&format!("down --name {}", two.0)).done();
        of_two.assert_gone();
        let told = lab(&format!("down --name {}", two.0)).refused();
        assert!(told.contains("there is no lab called"), "{told}");
    });
}

#[test]
fn a_lab_whose_supervisor_was_killed_is_tidied_up_by_whoever_looks() {
    in_own_run(|| {
        for command in ["status", "down"] {
            let named = Named::up("--hosts 2 --containers 1");
            let belongings = named.belongings();
            // SAFETY: kill takes numbers only; the lab was just seen to be held by this process.
            assert_eq!(unsafe { libc::kill(named.supervisor().cast_signed(), libc::SIGKILL) }, 0);
            belongings.assert_dead();
            assert!(named.dir().exists());
            if command == "status" {
                let all = lab("status --json").done();
                assert!(!all.contains(&named.0), "{all}");
            } else {
                let told = lab(&format!("down --name {}", named.0)).done();
                assert!(told.contains("is gone: its process had died"), "{told}");
            }
            belongings.assert_gone();
            // The name is free again.
            lab(&format!("up --name {} --hosts 1 --containers 1", named.0)).done();
        }
    });
}

#[test]
fn whoever_interrupts_up_finds_no_lab() {
    in_own_run(|| {
        let named = Named::new();
        let up = Running::start(&format!("up --name {} --hosts 4 --containers 20", named.0));
        eventually("the lab is being built", || named.dir().join("h1").exists().then_some(()));
        up.signal(libc::SIGINT);
        let (ended, netns) = up.end();
        assert!(!ended.status.success(), "{}", ended.out);
        eventually("nothing is left", || (!registry::base().exists()).then_some(()));
        assert_bare(&netns);
    });
}

#[test]
fn a_daemon_that_died_shows_in_the_status_and_down_still_works() {
    in_own_run(|| {
        let named = Named::up("--hosts 2 --containers 1");
        let belongings = named.belongings();
        // SAFETY: kill takes numbers only; the daemon is an unburied child of the supervisor.
        assert_eq!(unsafe { libc::kill(belongings.process("/h2/weft.toml"), libc::SIGKILL) }, 0);
        eventually("the daemon of h2 is down", || {
            let state = named.state();
            let daemon = state["daemons"][1].as_str().unwrap().to_owned();
            assert_eq!(state["daemons"][0], "up");
            daemon.starts_with("down: no weft daemon answers on ").then_some(())
        });
        lab(&format!("down --name {}", named.0)).done();
        belongings.assert_gone();
    });
}

#[test]
fn a_lab_that_cannot_be_is_refused_with_the_reason_and_leaves_nothing() {
    in_own_run(|| {
        let named = Named::new();
        for (options, reason) in [
            ("--hosts 0", "a lab has 1 to"),
            ("--hosts 65", "a lab has 1 to"),
            ("--containers 201", "at most 200 containers"),
            ("--underlay-mtu 1000", "MTU of at least 1280"),
        ] {
            let told = lab(&format!("up --name {} {options}", named.0)).refused();
            assert!(told.contains(reason), "{told}");
        }
        // What only a daemon knows is in the daemon's words.
        let told = lab(&format!("up --name {} --hosts 1 --mtu 9999", named.0));
        assert!(
            told.code == Some(1) && told.err.contains("mtu") && told.err.contains("the daemon of h1"),
            "{told:?}"
        );
        assert!(lab("up --name ../up").refused().contains("is no name for a lab"));
        assert!(!named.dir().exists());
    });
}

#[test]
fn nobody_runs_labs_in_a_user_namespace_given_the_device_and_is_told_without() {
    in_own_run(|| {
        let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
        if limit.trim() == "0" {
            skip!("user namespaces are switched off (user.max_user_namespaces)");
        }
        place::with_own_mounts(|| {
            // A place that nobody can read, with the program and a device of our own in it.
            let home = std::env::temp_dir().join(format!("weft-nobody-{}", std::process::id()));
            fs::create_dir(&home).unwrap();
            place::mount("none", &home, "tmpfs", 0);
            fs::set_permissions(&home, Permissions::from_mode(0o777)).unwrap();
            let weft = home.join("weft");
            fs::copy(WEFT, &weft).unwrap();
            fs::set_permissions(&weft, Permissions::from_mode(0o755)).unwrap();
            let tun = home.join("tun");
            place::device(&tun, 10, 200);
            place::bind(&tun, Path::new("/dev/net/tun"));
            let nobody = |line: &str| {
                let mut command = Command::new(&weft);
                command.arg("lab").args(line.split_whitespace()).uid(NOBODY).gid(NOBODY).current_dir("/");
                command.env("TMPDIR", &home).env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
                said(line, &command.output().unwrap())
            };

            fs::set_permissions(&tun, Permissions::from_mode(0o600)).unwrap();
            let told = nobody("--json --seconds 1");
            assert_eq!(told.code, Some(1), "{told:?}");
            let report: Value = serde_json::from_str(&told.out).unwrap();
            assert!(report["ok"] == false && report["steps"][0]["ok"] == false, "{report:#}");
            assert!(told.err.contains("cannot open /dev/net/tun: Permission denied"), "{told:?}");
            assert!(told.err.contains("chmod") && told.err.lines().count() == 1, "{told:?}");
            assert!(nobody("up").refused().contains("cannot open /dev/net/tun: Permission denied"));

            fs::set_permissions(&tun, Permissions::from_mode(0o666)).unwrap();
            let told = nobody("--json --seconds 1");
            let report: Value = serde_json::from_str(&told.out).unwrap();
            assert!(told.code == Some(0) && report["ok"] == true, "{report:#}");
            nobody("up --hosts 2 --containers 1").done();
            nobody("ping h1/c1 h2/c1").done();
            let ports: Value = serde_json::from_str(&nobody("exec h1 -- weft ports --json").done()).unwrap();
            assert_eq!(ports[0]["state"], "up");
            assert_eq!(nobody("exec h2/c1 -- sh -c true").code, Some(0));
            nobody("down").done();
            assert!(nobody("status").done().starts_with("No lab is running."));
            let mut left: Vec<_> = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, ["tun", "weft"]);

            place::unmount(Path::new("/dev/net/tun"));
            place::unmount(&home);
            fs::remove_dir(&home).unwrap();
        });
    });
}
